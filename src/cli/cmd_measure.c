/* softpick measure: the measures of one model on the held-out text, as a table or as JSON. */
#define _GNU_SOURCE
#include "cli/cli.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cli/open_model.h"
#include "cli/placement.h"
#include "softpick/measure.h"

typedef struct measure_arguments {
    const char *model, *data, *out;
    const char *attention; /* NULL: what the config says */
    int32_t device;
    bool has_dtype;
    sp_dtype dtype;
    int64_t n_threads;
    bool json;
    sp_measure_options options;
} measure_arguments;

enum {
    KEY_DATA = 256,
    KEY_LENGTH,
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
    {"length", KEY_LENGTH, "N", 0, "tokens per sample (default: 512, or the model's positions if fewer)", 0},
    {"T", 0, NULL, OPTION_ALIAS, NULL, 0},
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

static error_t parse_option(int key, char *value, struct argp_state *state) {
    measure_arguments *arguments = state->input;
    sp_measure_options *measure = &arguments->options;
    switch (key) {
    case KEY_DATA: arguments->data = value; break;
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
        if (!arguments->data) argp_error(state, "--data is missing: the folder of token shards to measure on");
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
    fputs("Measures:\n", stream);
    for (int i = 0; sp_measure_name(i); i++) {
        fprintf(stream, "  %s\n", sp_measure_name(i));
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
           "  softpick measure runs/softmax --data tokens --T 2048 --json > out.json\n\n"
           "Exit status: 0 done, 1 failed, 2 wrong usage, 3 a file is missing, damaged or of the wrong kind.",
    .help_filter = add_definitions,
};

/* ---- the table ------------------------------------------------------------------------------------------------- */

/* A JSON number; NAN for null. */
static double number_of(const json_t *json) { return json_is_number(json) ? json_number_value(json) : NAN; }

/* A value as people read it: shares in percent. */
static const char *shown(char out[32], double value, const char *unit) {
    if (!isfinite(value))
        snprintf(out, 32, "not finite");
    else if (strcmp(unit, "share") == 0)
        snprintf(out, 32, "%.2f%%", 100 * value);
    else
        snprintf(out, 32, "%.4g", value);
    return out;
}

/* Mean of a layer's heads, or the layer's own number. */
static double layer_value(const json_t *layer) {
    if (!json_is_array(layer)) return number_of(layer);
    double sum = 0;
    size_t h;
    const json_t *head;
    json_array_foreach(layer, h, head) sum += number_of(head);
    return sum / (double)json_array_size(layer);
}

/* "0.00% (layer 0) .. 12.50% (layer 5)" */
static void print_layers(const json_t *measure, const char *unit) {
    const json_t *layers = json_object_get(measure, "per_layer"), *layer;
    if (!layers) layers = json_object_get(measure, "per_layer_head");
    if (!layers) return;
    size_t l, lowest = 0, highest = 0;
    json_array_foreach(layers, l, layer) {
        double value = layer_value(layer);
        if (value < layer_value(json_array_get(layers, lowest))) lowest = l;
        if (value > layer_value(json_array_get(layers, highest))) highest = l;
    }
    char low[32], high[32];
    shown(low, layer_value(json_array_get(layers, lowest)), unit);
    shown(high, layer_value(json_array_get(layers, highest)), unit);
    if (strcmp(low, high) == 0)
        printf("  %s in every layer", low);
    else
        printf("  %s (layer %zu) .. %s (layer %zu)", low, lowest, high, highest);
    const char *per_head = json_string_value(json_object_get(measure, "per_layer_head_unit"));
    if (per_head) printf(", %s", per_head);
}

static void print_peaks(json_t *measure) {
    size_t i;
    json_t *peak;
    json_array_foreach(json_object_get(measure, "top"), i, peak) {
        double value = 0, median = 0;
        json_int_t layer = 0, channel = 0, position = 0;
        if (json_unpack(peak, "{s:F, s:F, s:I, s:I, s:I}", "value", &value, "median", &median, "layer", &layer,
                        "channel", &channel, "position", &position) == 0)
            printf("  %-20s %12.4g  layer %lld, channel %lld, position %lld; median %.3g\n", "peak", value,
                   (long long)layer, (long long)channel, (long long)position, median);
    }
}

static void print_measure(const char *name, json_t *measure) {
    const char *unit = json_string_value(json_object_get(measure, "unit")), *variant;
    char text[32];
    printf("%-22s %12s", name, shown(text, number_of(json_object_get(measure, "value")), unit));
    print_layers(measure, unit);
    putchar('\n');
    json_t *value;
    json_object_foreach(json_object_get(measure, "variants"), variant, value)
        printf("  %-20s %12s\n", variant, shown(text, number_of(value), unit));
    print_peaks(measure);
}

static void print_table(const json_t *document) {
    json_t *measures = json_object_get(document, "measures");
    const json_t *first = json_object_get(measures, sp_measure_name(0));
    printf("model    %s (%s)\n", json_string_value(json_object_get(document, "model")),
           json_string_value(json_object_get(document, "attention_function")));
    printf("samples  %lld of %lld tokens, packing %s, %s\n\n",
           (long long)json_integer_value(json_object_get(first, "n_samples")),
           (long long)json_integer_value(json_object_get(first, "T")),
           json_string_value(json_object_get(document, "packing")), json_string_value(json_object_get(first, "dtype")));
    printf("%-22s %12s  %s\n", "measure", "value", "lowest and highest layer");
    for (int i = 0; sp_measure_name(i); i++)
        print_measure(sp_measure_name(i), json_object_get(measures, sp_measure_name(i)));
}

/* ---- the command ----------------------------------------------------------------------------------------------- */

/* {schema, model, attention_function, data, packing, measures} */
static sp_status measure_model(json_t **document, const measure_arguments *arguments) {
    *document = NULL;
    sp_model *model = NULL;
    char *folder = NULL, *text = NULL;
    json_t *measures = NULL;
    sp_status status = SP_OK;
    sp_model_options how = sp_model_options_default();
    how.device = arguments->device;
    how.dtype = arguments->dtype;
    how.attention = arguments->attention;
    SP_TRY_OR_DONE(cli_open_model_with(&model, arguments->model, &how, &folder));
    SP_TRY_OR_DONE(sp_measure(model, arguments->data, &arguments->options, &text));
    SP_TRY_OR_DONE(sp_json_parse(&measures, text, (int64_t)strlen(text), "measures"));
    *document =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:O}", "schema", "softpick-measure/1", "model", folder,
                  "attention_function", sp_normalizer_name(sp_model_config_of(model)->attention_function), "data",
                  arguments->data, "packing", sp_packing_name(arguments->options.packing), "measures", measures);
    SP_REQUIRE_OR_DONE(*document, SP_BAD_ARGUMENT, "%s or %s is not UTF-8", folder, arguments->data);
    if (arguments->out) status = sp_json_write(arguments->out, *document);
done:
    json_decref(measures);
    free(text);
    free(folder);
    sp_model_free(model);
    return status;
}

int cmd_measure(int argc, char **argv) {
    measure_arguments arguments = {.options = sp_measure_options_default()};
    cli_parse(&parser, argc, argv, &arguments);
    cli_set_threads(arguments.n_threads);
    cli_catch_signals();
    arguments.options.progress = cli_progress;

    json_t *document;
    char *text = NULL;
    sp_status status = measure_model(&document, &arguments);
    if (status == SP_OK && arguments.json) status = sp_json_format(&text, document, 0);
    if (status == SP_OK && text)
        puts(text);
    else if (status == SP_OK)
        print_table(document);
    free(text);
    json_decref(document);
    return status == SP_OK ? CLI_DONE : cli_fail(status);
}
