/* The tables of softpick measure, from its JSON documents. */
#include "cli/measure_print.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { COLUMN = 12 };

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

/* "T 16  12.50%", one line for each length. */
static void print_lengths(json_t *measure, const char *unit) {
    const json_t *by_length = json_object_get(measure, "by_length"), *lengths = json_object_get(by_length, "length");
    for (size_t i = 0; i < json_array_size(lengths); i++) {
        char name[32], text[32];
        snprintf(name, sizeof name, "at length %lld", (long long)json_integer_value(json_array_get(lengths, i)));
        printf("  %-20s %12s\n", name,
               shown(text, number_of(json_array_get(json_object_get(by_length, "value"), i)), unit));
    }
}

static void print_blocks(json_t *measure) {
    size_t i;
    json_t *block;
    json_array_foreach(json_object_get(measure, "blocks"), i, block) {
        char text[32];
        printf("  %-20s %12s\n", json_string_value(json_object_get(block, "name")),
               shown(text, number_of(json_object_get(block, "value")), "share"));
    }
}

static void print_masked(json_t *measure) {
    size_t i, c;
    json_t *row, *control;
    json_array_foreach(json_object_get(measure, "masked"), i, row) {
        printf("  loss %.4f whole, %.4f with %lld of %lld heads masked (outputs below %g)",
               number_of(json_object_get(measure, "loss")), number_of(json_object_get(row, "loss")),
               (long long)json_integer_value(json_object_get(row, "n_masked")),
               (long long)json_integer_value(json_object_get(measure, "n_heads")),
               number_of(json_object_get(row, "threshold")));
        json_t *controls = json_object_get(row, "control_losses");
        if (json_array_size(controls) > 0)
            printf("; with %lld others", (long long)json_integer_value(json_object_get(row, "n_control_heads")));
        json_array_foreach(controls, c, control) printf("%s %.4f", c ? "," : "", number_of(control));
        putchar('\n');
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
    print_lengths(measure, unit);
    print_blocks(measure);
    print_masked(measure);
    print_peaks(measure);
}

static const json_t *first_measure(json_t *measures) { return json_object_iter_value(json_object_iter(measures)); }

void measure_print_model(const json_t *document) {
    json_t *measures = json_object_get(document, "measures"), *measure;
    const json_t *first = first_measure(measures);
    const char *name;
    printf("model    %s (%s)\n", json_string_value(json_object_get(document, "model")),
           json_string_value(json_object_get(document, "attention_function")));
    printf("samples  %lld of %lld tokens, packing %s, %s\n\n",
           (long long)json_integer_value(json_object_get(first, "n_samples")),
           (long long)json_integer_value(json_object_get(first, "T")),
           json_string_value(json_object_get(document, "packing")), json_string_value(json_object_get(first, "dtype")));
    printf("%-22s %12s  %s\n", "measure", "value", "lowest and highest layer");
    json_object_foreach(measures, name, measure) print_measure(name, measure);
}

/* A row for each checkpoint, a column for each measure. */
void measure_print_run(const json_t *document) {
    const json_t *checkpoints = json_object_get(document, "checkpoints");
    json_t *measures = json_object_get(json_array_get(checkpoints, 0), "measures"), *measure, *checkpoint;
    const json_t *first = first_measure(measures);
    const char *name;
    size_t i;
    printf("run      %s (%s)\n", json_string_value(json_object_get(document, "run")),
           json_string_value(json_object_get(document, "attention_function")));
    printf("samples  %lld of %lld tokens, packing %s, %s\n\n%10s",
           (long long)json_integer_value(json_object_get(first, "n_samples")),
           (long long)json_integer_value(json_object_get(first, "T")),
           json_string_value(json_object_get(document, "packing")), json_string_value(json_object_get(first, "dtype")),
           "step");
    json_object_foreach(measures, name, measure) printf("  %*s", COLUMN, name);
    putchar('\n');
    json_array_foreach(checkpoints, i, checkpoint) {
        printf("%10lld", (long long)json_integer_value(json_object_get(checkpoint, "step")));
        json_object_foreach(json_object_get(checkpoint, "measures"), name, measure) {
            char text[32];
            printf("  %*s", strlen(name) > COLUMN ? (int)strlen(name) : COLUMN,
                   shown(text, number_of(json_object_get(measure, "value")),
                         json_string_value(json_object_get(measure, "unit"))));
        }
        putchar('\n');
    }
}
