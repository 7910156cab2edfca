/* softpick measure: the measures of one model, or of every checkpoint of a run, on the held-out text, as a table or as
 * JSON. */
#define _GNU_SOURCE
#include "cli/cli.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "cli/measure_print.h"
#include "cli/open_model.h"
#include "cli/placement.h"
#include "cli/text_shards.h"
#include "softpick/checkpoint.h"
#include "softpick/measure.h"

enum { LENGTHS_MAX = 64 };

typedef struct measure_arguments {
    const char *model, *out;
    const char *data; /* what was named: shards, or text */
    bool is_text;
    const char *attention; /* NULL: what the config says */
    int32_t device;
    bool has_dtype;
    sp_dtype dtype;
    int64_t n_threads;
    bool json, over_checkpoints;
    int64_t lengths[LENGTHS_MAX];
    sp_measure_options options;
} measure_arguments;

enum {
    KEY_DATA = 256,
    KEY_TEXT,
    KEY_MEASURES,
    KEY_LENGTH,
    KEY_LENGTHS,
    KEY_OVER_CHECKPOINTS,
    KEY_SAMPLES,
    KEY_PACKING,
    KEY_ATTENTION,
    KEY_DEVICE,
    KEY_DTYPE,
    KEY_THREADS,
    KEY_JSON,
    KEY_OUT
};

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "What is measured:", 1},
    {"data", KEY_DATA, "DIR", 0, "token shards made by softpick tokenize; their validation split is read", 0},
    {"text", KEY_TEXT, "PATH", 0,
     "instead of --data: a text, or a folder of texts, as softpick tokenize reads them, by the model's own tokenizer",
     0},
    {"measures", KEY_MEASURES, "LIST", 0,
     "names with commas between them, or all (default: the quick ones, without a star below)", 0},
    {"length", KEY_LENGTH, "N", 0,
     "tokens per sample (default: the last of --lengths, else 512, or the model's positions if fewer)", 0},
    {"T", 0, NULL, OPTION_ALIAS, NULL, 0},
    {"lengths", KEY_LENGTHS, "LIST", 0,
     "lengths of which sink rates are told, all from the same pass (default: 16,32,64,... and the length)", 0},
    {"over-checkpoints", KEY_OVER_CHECKPOINTS, NULL, 0,
     "MODEL is a run: measure every checkpoint that it keeps (softpick train --keep)", 0},
    {"samples", KEY_SAMPLES, "N", 0, "samples, in the order of the text (default: 32, or all if there are fewer)", 0},
    {"packing", KEY_PACKING, "WAY", 0,
     "bos: each sample begins with BOS (default); concatenate: the paper's way; documents: attention stays within them",
     0},
    {NULL, 0, NULL, 0, "How:", 2},
    {"attention", KEY_ATTENTION, "NAME", 0, CLI_ATTENTION_HELP, 0},
    {"device", KEY_DEVICE, "NAME", 0, CLI_DEVICE_HELP " (default cpu)", 0},
    {"dtype", KEY_DTYPE, "TYPE", 0, "f32 (default on the CPU) or bf16 (alone on a GPU): numbers of the forward pass",
     0},
    {"threads", KEY_THREADS, "N", 0, "threads (default: all processors)", 0},
    {NULL, 0, NULL, 0, "What comes out:", 3},
    {"json", KEY_JSON, NULL, 0, "print one JSON document instead of the table", 0},
    {"out", KEY_OUT, "FILE", 0, "write the JSON document to FILE too", 0},
    {NULL, 0, NULL, 0, "Help:", -1},
    {0},
};

/* "64,128,256" */
static void read_lengths(measure_arguments *arguments, struct argp_state *state, char *list) {
    sp_measure_options *measure = &arguments->options;
    measure->lengths = arguments->lengths;
    measure->n_lengths = 0;
    for (char *one; (one = strsep(&list, ","));) {
        if (measure->n_lengths == LENGTHS_MAX) argp_error(state, "--lengths: more than %d", LENGTHS_MAX);
        arguments->lengths[measure->n_lengths++] = cli_count(state, "--lengths", one, 2, 1 << 24);
    }
}

static error_t parse_option(int key, char *value, struct argp_state *state) {
    measure_arguments *arguments = state->input;
    sp_measure_options *measure = &arguments->options;
    switch (key) {
    case KEY_DATA:
    case KEY_TEXT:
        if (arguments->data) argp_error(state, "one --data or one --text says what to measure on");
        arguments->data = value;
        arguments->is_text = key == KEY_TEXT;
        break;
    case KEY_MEASURES:
        measure->measures = value;
        if (sp_measure_check_list(value) != SP_OK) argp_error(state, "--measures: %s", sp_last_message());
        break;
    case KEY_LENGTHS: read_lengths(arguments, state, value); break;
    case KEY_OVER_CHECKPOINTS: arguments->over_checkpoints = true; break;
    case KEY_LENGTH: measure->T = cli_count(state, "--length", value, 2, 1 << 24); break;
    case KEY_SAMPLES: measure->n_samples = cli_count(state, "--samples", value, 1, INT64_MAX); break;
    case KEY_PACKING:
        if (sp_packing_find(&measure->packing, value) != SP_OK) argp_error(state, "--packing: %s", sp_last_message());
        break;
    case KEY_ATTENTION: arguments->attention = value; break;
    case KEY_DEVICE: arguments->device = cli_device(state, "--device", value); break;
    case KEY_DTYPE:
        arguments->dtype = cli_dtype(state, "--dtype", value);
        arguments->has_dtype = true;
        break;
    case KEY_THREADS: arguments->n_threads = cli_count(state, "--threads", value, 1, 1 << 16); break;
    case KEY_JSON: arguments->json = true; break;
    case KEY_OUT: arguments->out = value; break;
    case ARGP_KEY_ARG:
        if (arguments->model) argp_error(state, "\"%s\": one model at a time", value);
        arguments->model = value;
        break;
    case ARGP_KEY_END:
        if (!arguments->model) argp_error(state, "which model? give its folder");
        if (!arguments->data) argp_error(state, "--data or --text is missing: token shards, or a text, to measure on");
        if (!arguments->has_dtype) arguments->dtype = cli_dtype_default(arguments->device);
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* Lines of at most 78 characters, set in. */
static void print_wrapped(FILE *stream, const char *text) {
    enum { WIDTH = 78, INDENT = 6 };
    int column = 0;
    while (*text) {
        int n = (int)strcspn(text, " ");
        bool breaks = column == 0 || column + 1 + n > WIDTH;
        if (breaks) fputs(column ? "\n" : "", stream);
        column = fprintf(stream, "%*s%.*s", breaks ? INDENT : 1, "", n, text) + (breaks ? 0 : column);
        text += n + (text[n] == ' ');
    }
    fputc('\n', stream);
}

/* The end of --help: what each measure is, from the table of measures. */
static char *add_definitions(int key, const char *text, void *input) {
    (void)input;
    if (key != ARGP_KEY_HELP_POST_DOC) return (char *)(uintptr_t)text;
    char *help = NULL;
    size_t n_bytes;
    FILE *stream = open_memstream(&help, &n_bytes);
    if (!stream) return NULL;
    fputs("Measures (*: not by default):\n", stream);
    for (int i = 0; sp_measure_name(i); i++) {
        fprintf(stream, "  %s%s\n", sp_measure_name(i), sp_measure_is_default(i) ? "" : " *");
        print_wrapped(stream, sp_measure_definition(i));
    }
    fprintf(stream, "\n%s", text);
    fclose(stream);
    return help;
}

static const struct argp parser = {
    .options = options,
    .parser = parse_option,
    .args_doc = "MODEL",
    .doc = "Measures what goes on inside a model: attention sinks, sparsity, silent heads, outliers of the residual "
           "stream.  MODEL is a checkpoint folder, or a run folder, of which the newest checkpoint is taken."
           "\vExamples:\n"
           "  softpick measure runs/softpick --data tokens\n"
           "  softpick measure llama --text book.txt\n"
           "  softpick measure runs/softmax --data tokens --T 2048 --measures all --json > out.json\n"
           "  softpick measure runs/softpick --data tokens --over-checkpoints --measures dead_heads,sink_rate\n\n"
           "Exit status: 0 done, 1 failed, 2 wrong usage, 3 a file is missing, damaged or of the wrong kind.",
    .help_filter = add_definitions,
};

/* ---- the command ----------------------------------------------------------------------------------------------- */

static sp_status measure_shards(char **json, sp_model *model, const measure_arguments *arguments, const char *opened) {
    (void)opened;
    return sp_measure(model, arguments->data, &arguments->options, json);
}

static sp_status measure_text(char **json, sp_model *model, const measure_arguments *arguments, const char *opened) {
    char folder[4096];
    SP_TRY(cli_text_shards(folder, sizeof folder, arguments->data, opened));
    sp_measure_options how = arguments->options;
    how.split = "train"; /* all of it */
    sp_status status = sp_measure(model, folder, &how, json);
    sp_status removed = sp_folder_remove(folder);
    return status != SP_OK ? status : removed;
}

/* Measures of the checkpoint in a folder, and the name of its attention function. */
static sp_status measure_folder(json_t **measures, const char **attention, char **opened,
                                const measure_arguments *arguments, const char *path) {
    sp_model *model = NULL;
    char *text = NULL;
    *measures = NULL;
    *opened = NULL;
    sp_status status = SP_OK;
    sp_model_options how = sp_model_options_default();
    how.device = arguments->device;
    how.dtype = arguments->dtype;
    how.attention = arguments->attention;
    SP_TRY_OR_DONE(cli_open_model_with(&model, path, &how, opened));
    *attention = sp_normalizer_name(sp_model_config_of(model)->attention_function);
    SP_TRY_OR_DONE((arguments->is_text ? measure_text : measure_shards)(&text, model, arguments, *opened));
    status = sp_json_parse(measures, text, (int64_t)strlen(text), "measures");
done:
    free(text);
    sp_model_free(model);
    return status;
}

/* {schema, model, attention_function, data, packing, measures} */
static sp_status measure_model(json_t **document, const measure_arguments *arguments) {
    *document = NULL;
    char *folder;
    const char *attention;
    json_t *measures;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(measure_folder(&measures, &attention, &folder, arguments, arguments->model));
    *document = json_pack("{s:s, s:s, s:s, s:s, s:s, s:O}", "schema", "softpick-measure/1", "model", folder,
                          "attention_function", attention, "data", arguments->data, "packing",
                          sp_packing_name(arguments->options.packing), "measures", measures);
    SP_REQUIRE_OR_DONE(*document, SP_BAD_ARGUMENT, "%s or %s is not UTF-8", folder, arguments->data);
done:
    json_decref(measures);
    free(folder);
    return status;
}

static sp_status measure_step(json_t *checkpoints, const char **attention, const measure_arguments *arguments,
                              const sp_checkpoint_step *at) {
    char *folder;
    json_t *measures;
    sp_status status = measure_folder(&measures, attention, &folder, arguments, at->folder);
    if (status == SP_OK && json_array_append_new(checkpoints, json_pack("{s:I, s:s, s:O}", "step", (json_int_t)at->step,
                                                                        "model", folder, "measures", measures)) != 0)
        status = sp_fail(SP_BAD_ARGUMENT, "%s is not UTF-8", folder);
    json_decref(measures);
    free(folder);
    return status;
}

/* {schema, run, attention_function, data, packing, checkpoints: [{step, model, measures}, ...]} */
static sp_status measure_run(json_t **document, const measure_arguments *arguments) {
    *document = NULL;
    sp_checkpoint_step *steps;
    int64_t n;
    const char *attention = "";
    json_t *checkpoints = json_array();
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_checkpoint_list(arguments->model, &steps, &n));
    SP_REQUIRE_OR_DONE(n > 0, SP_BAD_FILE, "%s: not a run with checkpoints", arguments->model);
    for (int64_t i = 0; i < n; i++) SP_TRY_OR_DONE(measure_step(checkpoints, &attention, arguments, &steps[i]));
    *document = json_pack("{s:s, s:s, s:s, s:s, s:s, s:O}", "schema", "softpick-measure-run/1", "run", arguments->model,
                          "attention_function", attention, "data", arguments->data, "packing",
                          sp_packing_name(arguments->options.packing), "checkpoints", checkpoints);
    SP_REQUIRE_OR_DONE(*document, SP_BAD_ARGUMENT, "%s or %s is not UTF-8", arguments->model, arguments->data);
done:
    sp_checkpoint_list_free(steps, n);
    json_decref(checkpoints);
    return status;
}

static void print_document(const json_t *document) {
    if (json_object_get(document, "checkpoints"))
        measure_print_run(document);
    else
        measure_print_model(document);
}

int cmd_measure(int argc, char **argv) {
    static measure_arguments arguments;
    arguments = (measure_arguments){.options = sp_measure_options_default()};
    cli_parse(&parser, argc, argv, &arguments);
    cli_set_threads(arguments.n_threads);
    cli_catch_signals();
    arguments.options.progress = cli_progress;
    if (arguments.over_checkpoints && !arguments.options.measures) arguments.options.measures = CLI_RUN_MEASURES;

    json_t *document;
    char *text = NULL;
    sp_status status = (arguments.over_checkpoints ? measure_run : measure_model)(&document, &arguments);
    if (status == SP_OK && arguments.out) status = sp_json_write(arguments.out, document);
    if (status == SP_OK && arguments.json) status = sp_json_format(&text, document, 0);
    if (status == SP_OK && text)
        puts(text);
    else if (status == SP_OK)
        print_document(document);
    free(text);
    json_decref(document);
    return status == SP_OK ? CLI_DONE : cli_fail(status);
}
