/* A model as a GGUF file: keys from config.json, the vocabulary's keys as the tokenizer gave them, tensors under GGUF's
 * names with rotary pairs where its architecture has them.  Matrices are in the format asked for, or in F16 where their
 * rows are not whole blocks of it; vectors are F32. */
#define _POSIX_C_SOURCE 200809L
#include "softpick/checkpoint.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/checkpoint_private.h"
#include "checkpoint/gguf_model.h"

/* Formats that matrices are written in, with ggml's number for a file of such. */
static const struct file_format {
    const char *name;
    int file_type;
} file_formats[] = {{"F32", 0}, {"F16", 1}, {"BF16", 32}, {"Q8_0", 7}};

typedef struct saving {
    const char *path;
    const sp_checkpoint_content *content;
    const json_t *config;
    const sp_gguf_architecture *architecture;
    const sp_block_format *format;
    int file_type;
    sp_gguf_writer *writer;
} saving;

/* ---- keys ------------------------------------------------------------------------------------------------------ */

static sp_status add_texts(sp_gguf_writer *writer, const char *key, const json_t *list, int64_t n) {
    const char **texts = malloc((size_t)(n + 1) * sizeof *texts);
    SP_REQUIRE(texts, SP_OUT_OF_MEMORY, "no memory for key %s", key);
    for (int64_t i = 0; i < n; i++) {
        texts[i] = json_string_value(json_array_get(list, (size_t)i));
        if (!texts[i]) texts[i] = "";
    }
    sp_status status = sp_gguf_add_texts(writer, key, texts, n);
    free(texts);
    return status;
}

static sp_status add_floats(sp_gguf_writer *writer, const char *key, const json_t *list, int64_t n) {
    float *values = malloc((size_t)(n + 1) * sizeof *values);
    SP_REQUIRE(values, SP_OUT_OF_MEMORY, "no memory for key %s", key);
    for (int64_t i = 0; i < n; i++) values[i] = (float)json_number_value(json_array_get(list, (size_t)i));
    sp_status status = sp_gguf_add_f32s(writer, key, values, n);
    free(values);
    return status;
}

static sp_status add_integers(sp_gguf_writer *writer, const char *key, const json_t *list, int64_t n) {
    int32_t *values = malloc((size_t)(n + 1) * sizeof *values);
    SP_REQUIRE(values, SP_OUT_OF_MEMORY, "no memory for key %s", key);
    for (int64_t i = 0; i < n; i++) values[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
    sp_status status = sp_gguf_add_i32s(writer, key, values, n);
    free(values);
    return status;
}

static sp_status add_list(sp_gguf_writer *writer, const char *key, const json_t *list) {
    const json_t *first = json_array_get(list, 0);
    int64_t n = (int64_t)json_array_size(list);
    if (json_is_real(first)) return add_floats(writer, key, list, n);
    return json_is_integer(first) ? add_integers(writer, key, list, n) : add_texts(writer, key, list, n);
}

/* What the config says of special tokens, where the vocabulary does not. */
static void fill_marks(json_t *keys, const json_t *config) {
    const json_t *eos = json_object_get(config, "eos_token_id");
    bool list = json_is_array(eos);
    for (int i = 0; i < SP_GGUF_MARKS; i++) {
        const json_t *id = json_object_get(config, sp_gguf_marks[i].config);
        if (id == eos && list) id = json_array_get(eos, (size_t)sp_gguf_marks[i].place);
        if (id == eos && !list && sp_gguf_marks[i].place > 0) id = NULL;
        if (json_is_integer(id) && !json_object_get(keys, sp_gguf_marks[i].gguf))
            json_object_set_new(keys, sp_gguf_marks[i].gguf, json_integer(json_integer_value(id)));
    }
}

static sp_status add_vocabulary(sp_gguf_writer *writer, const char *vocabulary, const json_t *config) {
    json_t *keys, *value;
    const char *key;
    sp_status status = SP_OK;
    SP_TRY(sp_json_parse(&keys, vocabulary, (int64_t)strlen(vocabulary), "the vocabulary of a GGUF file"));
    fill_marks(keys, config);
    json_object_foreach(keys, key, value) {
        if (json_is_array(value))
            status = add_list(writer, key, value);
        else if (json_is_string(value))
            status = sp_gguf_add_text(writer, key, json_string_value(value));
        else if (json_is_boolean(value))
            status = sp_gguf_add_flag(writer, key, json_is_true(value));
        else
            status = sp_gguf_add_u32(writer, key, json_integer_value(value));
        if (status != SP_OK) break;
    }
    json_decref(keys);
    return status;
}

static sp_status add_keys(const saving *s, const char *vocabulary) {
    SP_TRY(sp_gguf_add_text(s->writer, "general.architecture", s->architecture->name));
    SP_TRY(sp_gguf_add_u32(s->writer, "general.file_type", s->file_type));
    SP_TRY(sp_gguf_add_u32(s->writer, "general.quantization_version", 2));
    SP_TRY(sp_gguf_write_config(s->writer, s->config, s->architecture, s->path));
    return add_vocabulary(s->writer, vocabulary ? vocabulary : "{}", s->config);
}

/* ---- tensors --------------------------------------------------------------------------------------------------- */

static sp_status describe_tensor(const saving *s, const sp_named_tensor *named) {
    char name[SP_TENSOR_NAME_BYTES];
    sp_rotary_rows rows;
    const sp_tensor *tensor = &named->tensor;
    SP_REQUIRE(tensor->dtype == SP_DTYPE_F32 && tensor->n_dims >= 1 && tensor->n_dims <= 2, SP_BAD_ARGUMENT,
               "%s: tensor %.200s is not a matrix or a vector of f32", s->path, named->name);
    SP_TRY(sp_gguf_name_from_llama(name, &rows, named->name, s->path));
    const sp_block_format *format = tensor->n_dims == 1 ? sp_block_format_of(SP_DTYPE_F32) : s->format;
    if (tensor->shape[tensor->n_dims - 1] % format->items != 0) format = sp_block_format_of(SP_DTYPE_F16);
    return sp_gguf_add_tensor(s->writer, name, format, tensor->n_dims, tensor->shape);
}

static sp_status write_tensor(const saving *s, const sp_named_tensor *named) {
    char name[SP_TENSOR_NAME_BYTES];
    sp_rotary_rows rows;
    const sp_tensor *tensor = &named->tensor;
    SP_TRY(sp_gguf_name_from_llama(name, &rows, named->name, s->path));
    if (rows == SP_ROWS_PLAIN || !s->architecture->pairs)
        return sp_gguf_write_rows(s->writer, tensor->data, sp_tensor_count(tensor));
    int64_t D = json_integer_value(json_object_get(s->config, "head_dim")), n_rows = tensor->shape[0];
    SP_REQUIRE(D > 0 && D % 2 == 0 && n_rows % D == 0, SP_BAD_ARGUMENT,
               "%s: tensor %s: its %" PRId64 " rows are not whole heads of %" PRId64, s->path, named->name, n_rows, D);
    int64_t columns = sp_tensor_count(tensor) / n_rows;
    for (int64_t row = 0; row < n_rows; row++) {
        const float *from = (const float *)tensor->data + sp_row_of_halves(row, D) * columns;
        SP_TRY(sp_gguf_write_rows(s->writer, from, columns));
    }
    return SP_OK;
}

/* rope_freqs.weight, where the config scales positions as LLaMA 3; *n 0 otherwise.  Caller frees. */
static sp_status make_divisors(float **divisors, int64_t *n, const saving *s) {
    const json_t *scaling = json_object_get(s->config, "rope_scaling");
    const char *type = json_string_value(json_object_get(scaling, "rope_type"));
    *divisors = NULL;
    *n = 0;
    if (!type || strcmp(type, "llama3") != 0) return SP_OK;
    *n = json_integer_value(json_object_get(s->config, "head_dim")) / 2;
    *divisors = malloc((size_t)(*n + 1) * sizeof **divisors);
    SP_REQUIRE(*divisors, SP_OUT_OF_MEMORY, "%s: no memory", s->path);
    sp_rope_divisors(*divisors, *n, json_number_value(json_object_get(s->config, "rope_theta")), scaling);
    return sp_gguf_add_tensor(s->writer, "rope_freqs.weight", sp_block_format_of(SP_DTYPE_F32), 1, n);
}

static sp_status write_all(const saving *s, const char *vocabulary) {
    float *divisors = NULL;
    int64_t n_divisors = 0;
    sp_status status = SP_OK;
    SP_TRY(add_keys(s, vocabulary));
    for (int64_t i = 0; i < s->content->n_tensors; i++) SP_TRY(describe_tensor(s, &s->content->tensors[i]));
    SP_TRY_OR_DONE(make_divisors(&divisors, &n_divisors, s));
    for (int64_t i = 0; i < s->content->n_tensors; i++) SP_TRY_OR_DONE(write_tensor(s, &s->content->tensors[i]));
    if (n_divisors) SP_TRY_OR_DONE(sp_gguf_write_rows(s->writer, divisors, n_divisors));
    SP_TRY_OR_DONE(sp_gguf_writer_finish(s->writer));
done:
    free(divisors);
    return status;
}

/* ---- the call -------------------------------------------------------------------------------------------------- */

static sp_status find_format(saving *s, const char *name) {
    for (size_t i = 0; i < sizeof file_formats / sizeof *file_formats; i++) {
        s->format = sp_block_format_find(file_formats[i].name);
        s->file_type = file_formats[i].file_type;
        if (s->format == sp_block_format_find(name)) return SP_OK;
    }
    return sp_fail(SP_BAD_ARGUMENT, "%s: \"%.60s\" is no format to write GGUF in: f32, f16, bf16 and q8_0 are", s->path,
                   name);
}

sp_status sp_checkpoint_write_gguf(const char *path, const sp_checkpoint_content *content, const char *format,
                                   const char *vocabulary) {
    saving s = {.path = path, .content = content};
    json_t *config;
    SP_REQUIRE(content->replace || !sp_file_exists(path), SP_BAD_ARGUMENT, "%s: exists", path);
    SP_TRY(find_format(&s, format));
    SP_TRY(sp_json_parse(&config, content->config, (int64_t)strlen(content->config), path));
    s.config = config;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_gguf_architecture_for(&s.architecture, config, path));
    SP_TRY_OR_DONE(sp_gguf_writer_new(&s.writer, path));
    SP_TRY_OR_DONE(write_all(&s, vocabulary));
done:
    sp_gguf_writer_free(s.writer);
    json_decref(config);
    return status;
}
