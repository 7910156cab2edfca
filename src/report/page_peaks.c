/* The largest activations after every layer, beside the median. */
#include "report/page_chart.h"

#include <math.h>

static const json_t *layers_of(const sp_results_model *model) {
    return sp_results_part(sp_results_measure(model, "massive_activations"), "by_layer");
}

static const json_t *peak_of(const sp_results_model *model, size_t layer, size_t i) {
    return json_array_get(sp_results_part(json_array_get(layers_of(model), layer), "top"), i);
}

static double median_of(const sp_results_model *model, size_t layer) {
    return sp_results_number(json_array_get(layers_of(model), layer), "median");
}

static void add_layers(json_t *chart, const sp_results *results, int64_t i) {
    const sp_results_model *model = &results->models[i];
    json_t *largest = json_array(), *median = json_array();
    for (size_t l = 0; l < json_array_size(layers_of(model)); l++) {
        sp_chart_point(largest, (double)l, fabs(sp_results_number(peak_of(model, l, 0), "value")));
        sp_chart_point(median, (double)l, median_of(model, l));
    }
    sp_chart_add(chart, results, i, "largest", "layers", largest);
    sp_chart_add(chart, results, i, "median", "dashed", median);
}

/* ---- the table ------------------------------------------------------------------------------------------------- */

enum { N_PEAKS = 3 };

static void write_number(FILE *page, double value) {
    fprintf(page, "<td>%s</td>", sp_html_number_of(value, SP_HTML_UNIT_PLAIN).text);
}

static void write_place(FILE *page, const json_t *peak) {
    if (peak)
        fprintf(page, "<td>%g, %g</td>", sp_results_number(peak, "channel"), sp_results_number(peak, "position"));
    else
        fputs("<td></td>", page);
}

static void write_row(FILE *page, const sp_results *results, size_t layer, size_t i) {
    if (i == 0)
        fprintf(page, "<tr><th scope=\"row\">%zu</th>", layer);
    else
        fputs("<tr class=\"more\"><th></th>", page);
    for (int64_t m = 0; m < results->n_models; m++) {
        const json_t *peak = peak_of(&results->models[m], layer, i);
        double value = sp_results_number(peak, "value"), median = median_of(&results->models[m], layer);
        write_number(page, value);
        write_number(page, fabs(value) / median);
        write_place(page, peak);
    }
    fputs("</tr>\n", page);
}

static void write_table(FILE *page, const sp_results *results, size_t n_layers) {
    fputs("<details><summary>Table of the largest activations by layer</summary><div class=\"wide\"><table "
          "class=\"peaks\">\n<thead><tr><th rowspan=\"2\" scope=\"col\">layer</th>",
          page);
    for (int64_t m = 0; m < results->n_models; m++) {
        fputs("<th colspan=\"3\" scope=\"colgroup\">", page);
        sp_page_model_name(page, &results->models[m]);
        fputs("</th>", page);
    }
    fputs("</tr>\n<tr>", page);
    for (int64_t m = 0; m < results->n_models; m++)
        fputs("<th scope=\"col\">value</th><th scope=\"col\">\xc3\x97 median</th><th scope=\"col\">channel, "
              "position</th>",
              page);
    fputs("</tr></thead>\n<tbody>\n", page);
    for (size_t l = 0; l < n_layers; l++)
        for (size_t i = 0; i < N_PEAKS; i++) write_row(page, results, l, i);
    fputs("</tbody></table></div></details>\n", page);
}

void sp_page_peaks(FILE *page, const sp_results *results) {
    json_t *chart = sp_chart_new("layer", "magnitude (logarithmic)", SP_CHART_LOG_Y);
    size_t n_layers = 0;
    for (int64_t i = 0; i < results->n_models; i++) {
        size_t n = json_array_size(layers_of(&results->models[i]));
        if (n > n_layers) n_layers = n;
        add_layers(chart, results, i);
    }
    if (!sp_chart_is_empty(chart)) {
        sp_chart_write(page, results, chart, "Largest and median magnitude of the hidden states after each layer",
                       "The largest magnitude of the hidden states after each layer; dashed, the median. Massive "
                       "activations are above 100 and above 1,000 times the median.",
                       NULL);
        write_table(page, results, n_layers);
    }
    json_decref(chart);
}
