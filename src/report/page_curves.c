/* The loss over the steps, and activations over the layers: curves, each with its table. */
#include "report/page_chart.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* ---- loss ---- */

typedef struct loss_curve {
    const json_t *step, *loss, *validation_step, *validation_loss;
    int64_t n, n_validation;
} loss_curve;

static loss_curve curve_of(const sp_results_model *model) {
    const json_t *part = sp_results_part(model->data, "curve");
    loss_curve curve = {json_object_get(part, "step"),
                        json_object_get(part, "loss"),
                        json_object_get(part, "validation_step"),
                        json_object_get(part, "validation_loss"),
                        0,
                        0};
    curve.n = (int64_t)json_array_size(curve.step);
    curve.n_validation = (int64_t)json_array_size(curve.validation_step);
    return curve;
}

/* Entries to each side that a smoothed value is the mean of: together 4% of the curve, and never none. */
static int64_t smoothing_reach(const loss_curve *curve) { return curve->n < 50 ? 1 : curve->n / 50; }

/* Fewer at the ends, as many on one side as on the other, so that a falling curve is not shifted. */
static double smoothed_loss(const loss_curve *curve, int64_t i) {
    int64_t reach = smoothing_reach(curve), last = curve->n - 1;
    if (reach > i) reach = i;
    if (reach > last - i) reach = last - i;
    double sum = 0;
    int64_t n = 0;
    for (int64_t j = i - reach; j <= i + reach; j++) {
        double loss = sp_results_entry(curve->loss, j);
        if (isnan(loss)) continue;
        sum += loss;
        n++;
    }
    return n > 0 ? sum / (double)n : NAN;
}

static int64_t thinning(int64_t n) { return (n + SP_CHART_POINTS_MAX - 1) / SP_CHART_POINTS_MAX; }

static void add_loss(json_t *chart, const sp_results *results, int64_t model) {
    loss_curve curve = curve_of(&results->models[model]);
    if (curve.n == 0) return;
    json_t *raw = json_array(), *line = json_array(), *points = json_array();
    for (int64_t i = 0; i < curve.n; i += thinning(curve.n)) {
        double step = sp_results_entry(curve.step, i);
        sp_chart_point(raw, step, sp_results_entry(curve.loss, i));
        sp_chart_point(line, step, smoothed_loss(&curve, i));
    }
    for (int64_t i = 0; i < curve.n_validation; i++)
        sp_chart_point(points, sp_results_entry(curve.validation_step, i), sp_results_entry(curve.validation_loss, i));
    sp_chart_add(chart, results, model, "", "raw", raw);
    sp_chart_add(chart, results, model, "", "line", line);
    sp_chart_add(chart, results, model, "validation", "points", points);
}

/* What the other model's smoothed loss is above the baseline's, at the steps that both logged in the same place.  The
 * ends, where less is smoothed, are left out: there the difference is mostly noise. */
static void add_loss_difference(json_t *chart, const sp_results *results, int64_t other) {
    loss_curve a = curve_of(&results->models[0]), b = curve_of(&results->models[other]);
    json_t *line = json_array();
    int64_t reach = smoothing_reach(&a), n = a.n < b.n ? a.n : b.n;
    for (int64_t i = reach; i < n - reach; i += thinning(a.n))
        if (sp_results_entry(a.step, i) == sp_results_entry(b.step, i))
            sp_chart_point(line, sp_results_entry(a.step, i), smoothed_loss(&b, i) - smoothed_loss(&a, i));
    sp_chart_add(chart, results, other, "", "line", line);
}

/* The baseline itself: zero from its first step to its last. */
static void add_zero(json_t *chart, const sp_results *results) {
    loss_curve curve = curve_of(&results->models[0]);
    json_t *line = json_array();
    sp_chart_point(line, sp_results_entry(curve.step, 0), 0);
    sp_chart_point(line, sp_results_entry(curve.step, curve.n - 1), 0);
    sp_chart_add(chart, results, 0, "", "line", line);
}

static void write_loss_difference(FILE *page, const sp_results *results) {
    if (results->n_models < 2 || curve_of(&results->models[0]).n == 0) return;
    json_t *chart = sp_chart_new("step", "difference of losses", SP_CHART_LINEAR);
    add_zero(chart, results);
    for (int64_t i = 1; i < results->n_models; i++) add_loss_difference(chart, results, i);
    sp_chart_write(page, results, chart, "Difference of the training losses over the steps",
                   "Smoothed training loss minus that of the first model: below zero is better than the first.", NULL);
    json_decref(chart);
}

/* ---- the table of losses ---- */

enum { MAX_ROWS = 24 };

/* The entry whose step is nearest. */
static int64_t nearest_entry(const json_t *steps, double step) {
    int64_t nearest = 0, n = (int64_t)json_array_size(steps);
    for (int64_t i = 1; i < n; i++)
        if (fabs(sp_results_entry(steps, i) - step) < fabs(sp_results_entry(steps, nearest) - step)) nearest = i;
    return nearest;
}

static double validation_at(const loss_curve *curve, double step) {
    int64_t i = nearest_entry(curve->validation_step, step);
    if (curve->n_validation == 0 || sp_results_entry(curve->validation_step, i) != step) return NAN;
    return sp_results_entry(curve->validation_loss, i);
}

static double training_at(const loss_curve *curve, double step) {
    return curve->n > 0 ? smoothed_loss(curve, nearest_entry(curve->step, step)) : NAN;
}

static void write_cell(FILE *page, double value) {
    fprintf(page, "<td>%s</td>", sp_html_number_of(value, SP_HTML_UNIT_PLAIN).text);
}

static void write_loss_row(FILE *page, const sp_results *results, double step) {
    fprintf(page, "<tr><th scope=\"row\">%s</th>", sp_html_number_of(step, SP_HTML_UNIT_COUNT).text);
    for (int64_t i = 0; i < results->n_models; i++) {
        loss_curve curve = curve_of(&results->models[i]);
        write_cell(page, training_at(&curve, step));
        write_cell(page, validation_at(&curve, step));
    }
    fputs("</tr>\n", page);
}

static void write_model_headings(FILE *page, const sp_results *results, const char *first, int64_t n_columns) {
    fprintf(page, "<thead><tr><th rowspan=\"2\" scope=\"col\">%s</th>", first);
    for (int64_t i = 0; i < results->n_models; i++) {
        fprintf(page, "<th colspan=\"%lld\" scope=\"colgroup\">", (long long)n_columns);
        sp_page_model_name(page, &results->models[i]);
        fputs("</th>", page);
    }
    fputs("</tr>\n<tr>", page);
}

/* At the steps of the longest list of validations, or, without any, of the longest curve. */
static const json_t *table_steps(const sp_results *results) {
    const json_t *validation = NULL, *training = NULL;
    for (int64_t i = 0; i < results->n_models; i++) {
        loss_curve curve = curve_of(&results->models[i]);
        if (json_array_size(curve.validation_step) > json_array_size(validation)) validation = curve.validation_step;
        if (json_array_size(curve.step) > json_array_size(training)) training = curve.step;
    }
    return validation ? validation : training;
}

static void write_loss_table(FILE *page, const sp_results *results) {
    const json_t *steps = table_steps(results);
    int64_t n = (int64_t)json_array_size(steps), n_rows = n < MAX_ROWS ? n : MAX_ROWS;
    fputs("<details><summary>Table of the losses (training: the mean around each step)</summary><div "
          "class=\"wide\"><table>\n",
          page);
    write_model_headings(page, results, "step", 2);
    for (int64_t i = 0; i < results->n_models; i++)
        fputs("<th scope=\"col\">training</th><th scope=\"col\">validation</th>", page);
    fputs("</tr></thead>\n<tbody>\n", page);
    for (int64_t i = 0; i < n_rows; i++) /* evenly spaced, the last one among them */
        write_loss_row(page, results, sp_results_entry(steps, (i + 1) * n / n_rows - 1));
    fputs("</tbody></table></div></details>\n", page);
}

static void write_curves_missing(FILE *page, const sp_results *results) {
    for (int64_t i = 0; i < results->n_models; i++) {
        if (curve_of(&results->models[i]).n > 0) continue;
        fputs("<p class=\"note\">", page);
        sp_page_model_name(page, &results->models[i]);
        fputs(": not recorded.</p>\n", page);
    }
}

void sp_page_loss(FILE *page, const sp_results *results) {
    write_curves_missing(page, results);
    if (!table_steps(results)) return;
    json_t *chart = sp_chart_new("step", "loss (nats per token)", SP_CHART_LINEAR);
    for (int64_t i = 0; i < results->n_models; i++) add_loss(chart, results, i);
    sp_chart_write(page, results, chart, "Training and validation loss of each model over the steps",
                   "Faint: training loss of single steps. Line: its mean over 4% of the run around each step. Marks: "
                   "validation loss.",
                   NULL);
    json_decref(chart);
    write_loss_difference(page, results);
    write_loss_table(page, results);
}

/* ---- activations by layer ---- */

static const json_t *layers_of(const sp_results_model *model, const char *measure) {
    return sp_results_part(sp_results_measure(model, measure), "per_layer");
}

static int64_t count_layers(const sp_results *results, const char *measure) {
    size_t most = 0;
    for (int64_t i = 0; i < results->n_models; i++) {
        size_t n = json_array_size(layers_of(&results->models[i], measure));
        if (n > most) most = n;
    }
    return (int64_t)most;
}

static void add_layers(json_t *chart, const sp_results *results, const char *measure) {
    for (int64_t i = 0; i < results->n_models; i++) {
        const json_t *layers = layers_of(&results->models[i], measure);
        json_t *data = json_array();
        for (size_t l = 0; l < json_array_size(layers); l++)
            sp_chart_point(data, (double)l, sp_results_entry(layers, (int64_t)l));
        sp_chart_add(chart, results, i, sp_page_measure_label(measure), "layers", data);
    }
}

/* True when the largest is more than ten times the smallest, all above 0. */
static bool spans_decades(const sp_results *results, const char *measure) {
    double min = INFINITY, max = 0;
    for (int64_t i = 0; i < results->n_models; i++) {
        const json_t *layers = layers_of(&results->models[i], measure);
        for (size_t l = 0; l < json_array_size(layers); l++) {
            min = fmin(min, sp_results_entry(layers, (int64_t)l));
            max = fmax(max, sp_results_entry(layers, (int64_t)l));
        }
    }
    return min > 0 && max > 10 * min;
}

static void write_kurtosis(FILE *page, const sp_results *results) {
    sp_page_not_measured(page, results, "kurtosis");
    if (count_layers(results, "kurtosis") == 0) return;
    bool log = spans_decades(results, "kurtosis");
    json_t *chart =
        sp_chart_new("layer", log ? "kurtosis (logarithmic)" : "kurtosis", log ? SP_CHART_LOG_Y : SP_CHART_LINEAR);
    add_layers(chart, results, "kurtosis");
    sp_chart_write(page, results, chart, "Kurtosis of the hidden states after each layer",
                   "Kurtosis of the hidden states after each layer; a normal distribution has 3.", NULL);
    json_decref(chart);
}

static void write_extremes(FILE *page, const sp_results *results) {
    sp_page_not_measured(page, results, "activation_max");
    if (count_layers(results, "activation_max") == 0) return;
    json_t *chart = sp_chart_new("layer", "activation", SP_CHART_LINEAR);
    add_layers(chart, results, "activation_max");
    add_layers(chart, results, "activation_min");
    sp_chart_write(page, results, chart, "Largest and smallest activation after each layer",
                   "The largest and the smallest value of the hidden states after each layer.", NULL);
    json_decref(chart);
}

static const char *const layer_measures[] = {"kurtosis", "activation_max", "activation_min", "massive_activations"};
enum { N_LAYER_MEASURES = sizeof layer_measures / sizeof *layer_measures };

static int64_t most_layers(const sp_results *results) {
    int64_t most = 0;
    for (int m = 0; m < N_LAYER_MEASURES; m++) {
        int64_t n = count_layers(results, layer_measures[m]);
        if (n > most) most = n;
    }
    return most;
}

static void write_layer_row(FILE *page, const sp_results *results, int64_t layer) {
    fprintf(page, "<tr><th scope=\"row\">%lld</th>", (long long)layer);
    for (int64_t i = 0; i < results->n_models; i++)
        for (int m = 0; m < N_LAYER_MEASURES; m++)
            write_cell(page, sp_results_entry(layers_of(&results->models[i], layer_measures[m]), layer));
    fputs("</tr>\n", page);
}

static void write_layer_table(FILE *page, const sp_results *results) {
    int64_t n_layers = most_layers(results);
    if (n_layers == 0) return;
    fputs("<details><summary>Table by layer</summary><div class=\"wide\"><table>\n", page);
    write_model_headings(page, results, "layer", N_LAYER_MEASURES);
    for (int64_t i = 0; i < results->n_models; i++)
        for (int m = 0; m < N_LAYER_MEASURES; m++)
            fprintf(page, "<th scope=\"col\">%s</th>", sp_page_measure_label(layer_measures[m]));
    fputs("</tr></thead>\n<tbody>\n", page);
    for (int64_t l = 0; l < n_layers; l++) write_layer_row(page, results, l);
    fputs("</tbody></table></div></details>\n", page);
}

/* ---- massive activations ---- */

static void write_peak(FILE *page, const json_t *peak) {
    double value = sp_results_number(peak, "value"), median = sp_results_number(peak, "median");
    fprintf(page, "%s in layer %g, channel %g, at position %g", sp_html_number_of(value, SP_HTML_UNIT_PLAIN).text,
            sp_results_number(peak, "layer"), sp_results_number(peak, "channel"), sp_results_number(peak, "position"));
    if (!isnan(median))
        fprintf(page, " (median magnitude there: %s)", sp_html_number_of(median, SP_HTML_UNIT_PLAIN).text);
}

static void write_peaks(FILE *page, const sp_results *results) {
    fputs("<ul class=\"lines\">\n", page);
    for (int64_t i = 0; i < results->n_models; i++) {
        const json_t *top = sp_results_part(sp_results_measure(&results->models[i], "massive_activations"), "top");
        if (json_array_size(top) == 0) continue;
        fputs("<li>Largest in ", page);
        sp_page_model_name(page, &results->models[i]);
        for (size_t p = 0; p < json_array_size(top); p++) {
            fputs(p == 0 ? ": " : "; ", page);
            write_peak(page, json_array_get(top, p));
        }
        fputs("</li>\n", page);
    }
    fputs("</ul>\n", page);
}

void sp_page_activations(FILE *page, const sp_results *results) {
    sp_page_kurtosis_over_training(page, results);
    write_kurtosis(page, results);
    write_extremes(page, results);
    write_peaks(page, results);
    sp_page_peaks(page, results);
    write_layer_table(page, results);
}
