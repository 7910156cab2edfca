/* Measures by layer and head: a coloured table for each model, one row for a layer, one column for a head.
 *
 * The strength of a cell's colour is its value, from nothing to the most that it can be: no scale to look up, and the
 * models can be compared by eye. */
#include "report/page.h"

#include <math.h>
#include <string.h>

enum { MAX_COLUMNS_WITH_NUMBERS = 12 }; /* more leave no room for numbers, which then show on hovering */

static double clamp(double value) { return value > 0 ? value < 1 ? value : 1 : 0; }

/* Which of the two inks can be read on a cell depends on its strength, and differs in light and dark. */
static const char *ink_class(double value) { return value >= 0.8 ? "full" : value >= 0.65 ? "half" : "low"; }

/* A row's or a column's: its name, or its number. */
static void write_name(FILE *page, const json_t *names, int64_t i) {
    const json_t *name = json_array_get(names, (size_t)i);
    if (json_is_string(name))
        sp_html_text(page, json_string_value(name));
    else if (json_is_number(name))
        fprintf(page, "%g", json_number_value(name));
    else
        fprintf(page, "%lld", (long long)i);
}

static void write_cell(FILE *page, const sp_page_heat *heat, double value, int64_t row, int64_t column) {
    double strength = clamp(value / heat->full);
    sp_html_number number = sp_html_number_of(value, heat->unit);
    fprintf(page, "<td class=\"%s\" style=\"--v:%.3g\" title=\"%s ", ink_class(strength), strength, heat->row);
    write_name(page, heat->row_names, row);
    fprintf(page, ", %s ", heat->column);
    write_name(page, heat->column_names, column);
    fprintf(page, ": %s\">", number.text);
    if (isnan(value))
        fputs(number.text, page);
    else
        fprintf(page, "%.*f", heat->decimals, heat->factor * value);
    fputs("</td>", page);
}

void sp_page_write_heat(FILE *page, const sp_results_model *model, const sp_page_heat *heat) {
    int64_t n_rows = (int64_t)json_array_size(heat->rows);
    int64_t n_columns = (int64_t)json_array_size(json_array_get(heat->rows, 0));
    fprintf(page, "<table class=\"heat hue%d%s\"><thead><tr><td></td>", model->hue,
            n_columns > MAX_COLUMNS_WITH_NUMBERS ? " dense" : "");
    for (int64_t c = 0; c < n_columns; c++) {
        fputs("<th scope=\"col\">", page);
        write_name(page, heat->column_names, c);
        fputs("</th>", page);
    }
    fputs("</tr></thead>\n<tbody>\n", page);
    for (int64_t r = 0; r < n_rows; r++) {
        fputs("<tr><th scope=\"row\">", page);
        write_name(page, heat->row_names, r);
        fputs("</th>", page);
        for (int64_t c = 0; c < n_columns; c++)
            write_cell(page, heat, sp_results_entry(json_array_get(heat->rows, (size_t)r), c), r, c);
        fputs("</tr>\n", page);
    }
    fputs("</tbody></table>\n", page);
}

static void write_model_heat(FILE *page, const sp_results_model *model, const char *name, const sp_page_heat *style) {
    const json_t *measure = sp_results_measure(model, name);
    double value = sp_results_number(measure, "value");
    sp_html_unit unit = sp_html_unit_of(sp_results_string(measure, "unit"));
    sp_page_heat heat = *style;
    heat.rows = sp_results_part(measure, "per_layer_head");
    fputs("<div><p class=\"legend\">", page);
    sp_page_model_name(page, model);
    if (!isnan(value)) fprintf(page, " <b>%s</b>", sp_html_number_of(value, unit).text);
    fputs("</p>\n", page);
    if (json_array_size(heat.rows) > 0)
        sp_page_write_heat(page, model, &heat);
    else
        fputs("<p class=\"note\">not measured by layer and head</p>\n", page);
    fputs("</div>\n", page);
}

void sp_page_write_heads(FILE *page, const sp_results *results, const char *name, const char *caption,
                         const sp_page_heat *style) {
    const json_t *measure = sp_page_first_measure(results, name);
    fprintf(page, "<figure>\n<figcaption><b>%s</b> %s <small>", sp_page_measure_label(name), caption);
    sp_page_conditions(page, measure);
    fputs("</small></figcaption>\n", page);
    if (measure) {
        fputs("<div class=\"side\">\n", page);
        for (int64_t i = 0; i < results->n_models; i++) write_model_heat(page, &results->models[i], name, style);
        fputs("</div>\n", page);
    } else
        fputs("<p class=\"note\">Not measured.</p>\n", page);
    fputs("</figure>\n", page);
}

/* What lies between 0 and 1, in percent. */
static void write_measure(FILE *page, const sp_results *results, const char *name, const char *caption) {
    static const sp_page_heat percent = {
        .full = 1, .factor = 100, .unit = SP_HTML_UNIT_SHARE, .row = "layer", .column = "head"};
    sp_page_write_heads(page, results, name, caption, &percent);
}

void sp_page_sinks(FILE *page, const sp_results *results) {
    write_measure(page, results, "sink_rate", "Share of samples, in percent, in which the head is a sink.");
    sp_page_sinks_over_training(page, results);
    sp_page_sinks_by_length(page, results);
    write_measure(page, results, "first_token_mass", "Mean weight on the first token, in percent.");
    sp_page_sinks_by_key(page, results);
}

void sp_page_mass(FILE *page, const sp_results *results) {
    write_measure(page, results, "row_mass", "Mean sum of a row of weights, in percent; always 100 for softmax.");
    write_measure(page, results, "sparsity", "Share of the weights that are exactly zero, in percent.");
    sp_page_dead_blocks(page, results);
}

/* ---- silent heads ---- */

static int64_t count_heads(const json_t *layers) {
    return (int64_t)(json_array_size(layers) * json_array_size(json_array_get(layers, 0)));
}

static bool is_silent(const json_t *heads, size_t head, double threshold) {
    return sp_results_entry(heads, (int64_t)head) > threshold;
}

static int64_t count_silent_heads(const json_t *layers, double threshold) {
    int64_t n = 0;
    for (size_t l = 0; l < json_array_size(layers); l++) {
        const json_t *heads = json_array_get(layers, l);
        for (size_t h = 0; h < json_array_size(heads); h++) n += is_silent(heads, h, threshold);
    }
    return n;
}

/* "; layer 3, head 5" for each. */
static void write_silent_heads(FILE *page, const json_t *layers, double threshold) {
    for (size_t l = 0; l < json_array_size(layers); l++) {
        const json_t *heads = json_array_get(layers, l);
        for (size_t h = 0; h < json_array_size(heads); h++)
            if (is_silent(heads, h, threshold)) fprintf(page, "; layer %zu, head %zu", l, h);
    }
}

enum { MAX_NAMED_HEADS = 16 }; /* more are better seen in the picture */

static void write_silent_line(FILE *page, const sp_results_model *model) {
    const json_t *measure = sp_results_measure(model, "silent_heads");
    const json_t *layers = sp_results_part(measure, "per_layer_head");
    double threshold = sp_results_number(measure, "threshold");
    if (!layers || isnan(threshold)) return;
    fputs("<li>", page);
    sp_page_model_name(page, model);
    int64_t n_silent = count_silent_heads(layers, threshold);
    fprintf(page, ": %lld of %lld heads are silent for more than %g%% of tokens", (long long)n_silent,
            (long long)count_heads(layers), 100 * threshold);
    if (n_silent <= MAX_NAMED_HEADS) write_silent_heads(page, layers, threshold);
    fputs("</li>\n", page);
}

void sp_page_silent(FILE *page, const sp_results *results) {
    fputs("<ul class=\"lines\">\n", page);
    for (int64_t i = 0; i < results->n_models; i++) write_silent_line(page, &results->models[i]);
    fputs("</ul>\n", page);
    write_measure(page, results, "silent_heads",
                  "Share of tokens, in percent, for which all weights are exactly zero.");
    sp_page_dead_over_training(page, results);
    sp_page_masking(page, results);
}
