/* softpick convert: opens a model of any kind that is read here and writes it as another (convert.c). */
#define _GNU_SOURCE
#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/convert.h"
#include "cli/open_model.h"
#include "softpick/checkpoint.h"

typedef struct convert_arguments {
    const char *model, *tokenizer, *attention;
    const cli_conversion_kind *kind;
    bool as_softmax;
    cli_conversion conversion;
} convert_arguments;

enum { KEY_TO = 256, KEY_DTYPE, KEY_TOKENIZER, KEY_ATTENTION, KEY_AS_SOFTMAX, KEY_FOR_FORK, KEY_FORCE, KEY_SHARD_SIZE };

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "What is written:", 1},
    {"out", 'o', "DEST", 0, "the folder or file to write", 0},
    {"to", KEY_TO, "KIND", 0, "softpick (default), llama, fla, gguf or llama2c: see below", 0},
    {"dtype", KEY_DTYPE, "TYPE", 0,
     "f32, bf16, f16, or q8_0 (GGUF, llama2.c) (default: what the model's embedding is stored in; llama2.c: f32)", 0},
    {"tokenizer", KEY_TOKENIZER, "PATH", 0,
     "tokenizer.json, tokenizer.model, tokenizer.bin, a GGUF file, or a folder with one of them (default: the model's)",
     0},
    {"shard-size", KEY_SHARD_SIZE, "BYTES", 0, "folders: most bytes of tensors in one file (default: one file)", 0},
    {"force", KEY_FORCE, NULL, 0, "replace DEST if it is there", 0},
    {NULL, 0, NULL, 0, "Attention:", 2},
    {"attention", KEY_ATTENTION, "NAME", 0, CLI_ATTENTION_HELP, 0},
    {"as-softmax", KEY_AS_SOFTMAX, NULL, 0,
     "write a model of another attention as if it were a softmax model: what it computes is another thing", 0},
    {"for-fork", KEY_FOR_FORK, NULL, 0, "--to fla: write what only the softpick fork runs rightly", 0},
    {NULL, 0, NULL, 0, "Help:", -1},
    {0},
};

static const cli_conversion_kind *find_kind(struct argp_state *state, const char *name) {
    const cli_conversion_kind *kind;
    for (int i = 0; (kind = cli_conversion_kind_at(i)); i++)
        if (strcmp(kind->name, name) == 0) return kind;
    argp_error(state, "--to: \"%s\" is not softpick, llama, fla, gguf or llama2c", name);
    return NULL;
}

static const char *find_format(struct argp_state *state, const char *name) {
    static const char *const formats[] = {"f32", "bf16", "f16", "q8_0"};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(formats[i], name) == 0) return formats[i];
    argp_error(state, "--dtype: \"%s\" is not f32, bf16, f16 or q8_0", name);
    return NULL;
}

static error_t parse_option(int key, char *value, struct argp_state *state) {
    convert_arguments *arguments = state->input;
    cli_conversion *conversion = &arguments->conversion;
    switch (key) {
    case 'o': conversion->out = value; break;
    case KEY_TO: arguments->kind = find_kind(state, value); break;
    case KEY_DTYPE: conversion->format = find_format(state, value); break;
    case KEY_TOKENIZER: arguments->tokenizer = value; break;
    case KEY_ATTENTION: arguments->attention = value; break;
    case KEY_AS_SOFTMAX: arguments->as_softmax = true; break;
    case KEY_FOR_FORK: conversion->for_fork = true; break;
    case KEY_FORCE: conversion->replace = true; break;
    case KEY_SHARD_SIZE: conversion->shard_bytes = cli_count(state, "--shard-size", value, 1, INT64_MAX); break;
    case ARGP_KEY_ARG:
        if (arguments->model) argp_error(state, "\"%s\": one model at a time", value);
        arguments->model = value;
        break;
    case ARGP_KEY_END:
        if (!arguments->model) argp_error(state, "which model? give its folder or file");
        if (!conversion->out) argp_error(state, "where to? give --out DEST");
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* The kinds of the table, in the place of the help that is empty in `parser`. */
static char *list_kinds(int key, const char *text, void *input) {
    (void)input;
    if (key != ARGP_KEY_HELP_EXTRA) return (char *)(uintptr_t)text;
    char *out = NULL;
    size_t n_bytes;
    FILE *stream = open_memstream(&out, &n_bytes);
    const cli_conversion_kind *kind;
    if (!stream) return NULL;
    fputs("Kinds for --to:", stream);
    for (int i = 0; (kind = cli_conversion_kind_at(i)); i++) fprintf(stream, "\n  %-9s %s", kind->name, kind->help);
    fclose(stream);
    return out;
}

static const struct argp parser = {
    .options = options,
    .parser = parse_option,
    .args_doc = "MODEL",
    .doc = "Writes a model as another kind of checkpoint.  MODEL is a Hugging Face or flash-linear-attention folder, a "
           "run folder (its newest checkpoint), a GGUF file (F32, F16, BF16, Q8_0, Q4_0) or a model of llama2.c."
           "\vExamples:\n"
           "  softpick convert stories260K.bin --tokenizer tok512.bin --out stories\n"
           "  softpick convert llama.gguf --dtype bf16 --out llama\n"
           "  softpick convert runs/softpick --to gguf --dtype q8_0 --out softpick.gguf\n\n"
           "No other program is given a model that it would run with another attention and say nothing: what is not "
           "plain softmax gets a type of its own, which they refuse.\n\n"
           "Exit status: 0 done, 1 failed, 2 wrong usage, 3 a file is missing, damaged or of the wrong kind.",
    .help_filter = list_kinds,
};

/* ---- the command ----------------------------------------------------------------------------------------------- */

/* The numbers that the embedding is stored in: a format's name. */
static sp_status find_stored_format(const char **format, const char *path) {
    sp_checkpoint *checkpoint;
    SP_TRY(sp_checkpoint_open(&checkpoint, path));
    const sp_tensor *embedding = sp_checkpoint_find(checkpoint, "model.embed_tokens.weight");
    *format = embedding ? sp_dtype_name(embedding->dtype) : "f32";
    sp_checkpoint_close(checkpoint);
    return SP_OK;
}

static sp_status open_tokenizer(sp_tokenizer **tokenizer, const convert_arguments *arguments, const char *opened) {
    char *own;
    SP_TRY(sp_checkpoint_find_tokenizer(&own, opened));
    bool has_own = own != NULL;
    free(own);
    if (!arguments->tokenizer && !has_own) {
        fprintf(stderr, "%s: has no tokenizer: none is written (--tokenizer names one)\n", opened);
        return SP_OK;
    }
    SP_TRY(cli_open_tokenizer(tokenizer, arguments->tokenizer, opened));
    int64_t V = sp_model_config_of(arguments->conversion.model)->vocabulary, n = sp_tokenizer_vocabulary(*tokenizer);
    SP_REQUIRE(n <= V, SP_BAD_FILE, "%s: the tokenizer has %" PRId64 " tokens, the model %" PRId64,
               sp_tokenizer_path(*tokenizer), n, V);
    return SP_OK;
}

static sp_status choose_attention(cli_conversion *conversion, bool as_softmax) {
    sp_model_config *config = &conversion->config;
    *config = *sp_model_config_of(conversion->model);
    if (!as_softmax || (config->attention_function == SP_NORMALIZER_SOFTMAX && !config->row_factor)) return SP_OK;
    SP_REQUIRE(!config->row_factor && config->attention_function != SP_NORMALIZER_SOFTMAX_SINK, SP_UNSUPPORTED,
               "--as-softmax: the model has learned numbers in its attention, which softmax has no place for");
    fprintf(stderr, "%s: a %s model is written as a softmax model, and will compute something else\n", conversion->out,
            sp_normalizer_name(config->attention_function));
    config->attention_function = SP_NORMALIZER_SOFTMAX;
    return SP_OK;
}

static sp_status convert(convert_arguments *arguments) {
    cli_conversion *conversion = &arguments->conversion;
    sp_model_options model_options = sp_model_options_default();
    sp_tokenizer *tokenizer = NULL;
    char *opened = NULL;
    sp_status status = SP_OK;
    SP_REQUIRE(conversion->replace || !(sp_file_exists(conversion->out) || sp_folder_exists(conversion->out)),
               SP_BAD_ARGUMENT, "--out %s: exists already (--force replaces it)", conversion->out);
    model_options.attention = arguments->attention;
    SP_TRY_OR_DONE(cli_open_model_with(&conversion->model, arguments->model, &model_options, &opened));
    if (!conversion->format && strcmp(arguments->kind->name, "llama2c") == 0) conversion->format = "f32";
    if (!conversion->format) SP_TRY_OR_DONE(find_stored_format(&conversion->format, opened));
    SP_TRY_OR_DONE(open_tokenizer(&tokenizer, arguments, opened));
    conversion->tokenizer = tokenizer;
    SP_TRY_OR_DONE(choose_attention(conversion, arguments->as_softmax));
    SP_TRY_OR_DONE(arguments->kind->write(conversion));
done:
    sp_tokenizer_free(tokenizer);
    sp_model_free(conversion->model);
    free(opened);
    return status;
}

static void print_warning(void *user, sp_log_level level, const char *line) {
    (void)user;
    if (level >= SP_LOG_WARNING) fprintf(stderr, "%s\n", line);
}

int cmd_convert(int argc, char **argv) {
    convert_arguments arguments = {.kind = cli_conversion_kind_at(0)};
    sp_log_set(print_warning, NULL);
    cli_parse(&parser, argc, argv, &arguments);
    sp_status status = convert(&arguments);
    return status == SP_OK ? CLI_DONE : cli_fail(status);
}
