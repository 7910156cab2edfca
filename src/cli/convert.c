/* What `softpick convert` writes.  No row gives another program a model that it would run with another attention and say
 * nothing: such a model keeps a type of its own, which they refuse, or is refused here. */
#define _GNU_SOURCE
#include "cli/convert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "softpick/checkpoint.h"

/* ---- what all kinds share -------------------------------------------------------------------------------------- */

/* The model's tensors; caller frees. */
static sp_status list_tensors(sp_named_tensor **out, int64_t *n, sp_model *model) {
    *n = sp_model_n_tensors(model);
    *out = calloc((size_t)*n + 1, sizeof **out);
    SP_REQUIRE(*out, SP_OUT_OF_MEMORY, "no memory for a list of tensors");
    for (int64_t i = 0; i < *n; i++)
        (*out)[i] = (sp_named_tensor){sp_model_tensor_name(model, i), sp_model_tensor(model, i)};
    return SP_OK;
}

static const struct dtype_row {
    const char *format, *torch;
    sp_dtype dtype;
} dtypes[] = {{"f32", "float32", SP_DTYPE_F32}, {"bf16", "bfloat16", SP_DTYPE_BF16}, {"f16", "float16", SP_DTYPE_F16}};

static sp_status find_dtype(const struct dtype_row **out, const char *format) {
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        *out = &dtypes[i];
        if (strcmp(dtypes[i].format, format) == 0) return SP_OK;
    }
    return sp_fail(SP_BAD_ARGUMENT, "--dtype %s is for GGUF and llama2.c: safetensors hold f32, bf16 or f16", format);
}

/* ---- folders --------------------------------------------------------------------------------------------------- */

/* The config's text with the dtype of what is written. */
static sp_status name_dtype(char **text, const struct dtype_row *dtype) {
    json_t *config;
    SP_TRY(sp_json_parse(&config, *text, (int64_t)strlen(*text), "config.json"));
    free(*text);
    *text = NULL;
    json_object_set_new(config, "torch_dtype", json_string(dtype->torch));
    json_object_set_new(config, "dtype", json_string(dtype->torch));
    sp_status status = sp_json_format(text, config, 0);
    json_decref(config);
    return status;
}

static json_t *token(int32_t id) { return id < 0 ? json_null() : json_integer(id); }

static sp_status write_generation_config(const char *folder, const sp_model_config *config) {
    char path[4096];
    SP_TRY(sp_path_join(path, sizeof path, folder, "generation_config.json"));
    json_t *eos = token(config->eos);
    if (config->n_more_eos > 0) {
        json_t *list = json_pack("[o]", eos);
        for (int64_t i = 0; i < config->n_more_eos; i++) json_array_append_new(list, token(config->more_eos[i]));
        eos = list;
    }
    json_t *json = json_pack("{s:b, s:o, s:o, s:o}", "_from_model_config", 1, "bos_token_id", token(config->bos),
                             "eos_token_id", eos, "pad_token_id", token(config->pad));
    sp_status status = json ? sp_json_write(path, json) : sp_fail(SP_OUT_OF_MEMORY, "%s: no memory", path);
    json_decref(json);
    return status;
}

static sp_status add_files(void *user, const char *folder) {
    const cli_conversion *conversion = user;
    SP_TRY(write_generation_config(folder, &conversion->config));
    return conversion->tokenizer ? sp_tokenizer_save(conversion->tokenizer, folder) : SP_OK;
}

static sp_status write_folder_as(const cli_conversion *conversion, char **config, bool fla) {
    const struct dtype_row *dtype;
    cli_conversion user = *conversion;
    sp_named_tensor *tensors = NULL;
    sp_checkpoint_content content = {.shard_bytes_max = conversion->shard_bytes,
                                     .add_files = add_files,
                                     .user = &user,
                                     .fla_names = fla,
                                     .replace = conversion->replace};
    SP_TRY(find_dtype(&dtype, conversion->format));
    SP_TRY(name_dtype(config, dtype));
    content.config = *config;
    content.dtype = dtype->dtype;
    SP_TRY(list_tensors(&tensors, &content.n_tensors, conversion->model));
    content.tensors = tensors;
    sp_status status = sp_checkpoint_write(conversion->out, &content);
    free(tensors);
    return status;
}

static sp_status write_own(const cli_conversion *conversion) {
    char *config;
    SP_TRY(sp_model_config_format(&conversion->config, &config));
    sp_status status = write_folder_as(conversion, &config, false);
    free(config);
    return status;
}

static sp_status write_llama(const cli_conversion *conversion) {
    char *config;
    SP_TRY(sp_model_config_format(&conversion->config, &config));
    sp_status status = SP_OK;
    SP_REQUIRE_OR_DONE(!strstr(config, "\"softpick_llama\""), SP_UNSUPPORTED,
                       "%s: no kind of LLaMA computes what this model does (attention: %s): --to softpick keeps it, "
                       "--as-softmax writes it as if it were a softmax model",
                       conversion->out, sp_normalizer_name(conversion->config.attention_function));
    SP_TRY_OR_DONE(write_folder_as(conversion, &config, false));
done:
    free(config);
    return status;
}

static sp_status write_fla(const cli_conversion *conversion) {
    char *config;
    bool softmax = conversion->config.attention_function == SP_NORMALIZER_SOFTMAX;
    SP_REQUIRE(
        softmax || conversion->for_fork, SP_UNSUPPORTED,
        "%s: upstream flash-linear-attention ignores attn_impl and would run this model with softmax: --for-fork "
        "writes it for the softpick fork",
        conversion->out);
    if (!softmax) fprintf(stderr, "%s: for the softpick fork of flash-linear-attention alone\n", conversion->out);
    SP_TRY(sp_model_config_format_fla(&conversion->config, &config));
    sp_status status = write_folder_as(conversion, &config, true);
    free(config);
    return status;
}

/* ---- single files ---------------------------------------------------------------------------------------------- */

/* The content, whose config and tensors the caller frees. */
static sp_status make_content(sp_checkpoint_content *content, char **config, sp_named_tensor **tensors,
                              const cli_conversion *conversion) {
    SP_TRY(sp_model_config_format(&conversion->config, config));
    SP_TRY(list_tensors(tensors, &content->n_tensors, conversion->model));
    content->config = *config;
    content->tensors = *tensors;
    content->replace = conversion->replace;
    return SP_OK;
}

static sp_status write_gguf(const cli_conversion *conversion) {
    sp_checkpoint_content content = {0};
    char *config = NULL, *vocabulary = NULL;
    sp_named_tensor *tensors = NULL;
    sp_status status = SP_OK;
    if (conversion->tokenizer)
        SP_TRY_OR_DONE(sp_tokenizer_gguf(conversion->tokenizer, conversion->config.vocabulary, &vocabulary));
    SP_TRY_OR_DONE(make_content(&content, &config, &tensors, conversion));
    SP_TRY_OR_DONE(sp_checkpoint_write_gguf(conversion->out, &content, conversion->format, vocabulary));
done:
    free(config);
    free(vocabulary);
    free(tensors);
    return status;
}

/* DEST.tokenizer.bin beside DEST.bin */
static sp_status write_llama2c_tokenizer(const cli_conversion *conversion, const char *vocabulary) {
    char path[4096];
    size_t length = strlen(conversion->out);
    if (length > 4 && strcmp(conversion->out + length - 4, ".bin") == 0) length -= 4;
    int written = snprintf(path, sizeof path, "%.*s.tokenizer.bin", (int)length, conversion->out);
    SP_REQUIRE(written < (int)sizeof path, SP_IO, "%.200s...: the path is too long", path);
    return sp_checkpoint_write_llama2c_tokenizer(path, vocabulary);
}

static sp_status write_llama2c(const cli_conversion *conversion) {
    sp_checkpoint_content content = {0};
    char *config = NULL, *vocabulary = NULL;
    sp_named_tensor *tensors = NULL;
    sp_status status = SP_OK;
    if (conversion->tokenizer)
        SP_TRY_OR_DONE(sp_tokenizer_gguf(conversion->tokenizer, conversion->config.vocabulary, &vocabulary));
    SP_TRY_OR_DONE(make_content(&content, &config, &tensors, conversion));
    SP_TRY_OR_DONE(sp_checkpoint_write_llama2c(conversion->out, &content, conversion->format));
    if (vocabulary) SP_TRY_OR_DONE(write_llama2c_tokenizer(conversion, vocabulary));
done:
    free(config);
    free(vocabulary);
    free(tensors);
    return status;
}

/* ---- the table ------------------------------------------------------------------------------------------------- */

static const cli_conversion_kind kinds[] = {
    {"softpick", "Hugging Face folder; what is not plain softmax as softpick_llama, with its Python files", write_own},
    {"llama", "Hugging Face folder of a LLaMA (Mistral, Qwen2, Qwen3), which any program runs", write_llama},
    {"fla", "flash-linear-attention's folder", write_fla},
    {"gguf", "GGUF file; what is not plain softmax as softpick-llama, which others refuse", write_gguf},
    {"llama2c", "llama2.c's file, with its tokenizer in FILE.tokenizer.bin", write_llama2c},
};

const cli_conversion_kind *cli_conversion_kind_at(int i) {
    return i >= 0 && (size_t)i < sizeof kinds / sizeof *kinds ? &kinds[i] : NULL;
}
