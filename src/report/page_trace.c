/* What grows while a model trains: measures of a few samples, taken at every checkpoint. */
#include "report/page_chart.h"

/* One chart: a measure as a line, another one (NULL: none) dashed. */
typedef struct trace {
    const char *measure, *second, *what; /* what the second one is */
    const char *y, *description, *caption, *table;
    const char *none; /* said in place of a chart in which nothing ever shows; NULL: always drawn */
    double factor;
    unsigned scales;
} trace;

static void add_measure(json_t *chart, const sp_results *results, const char *measure, const char *what,
                        const char *style, double factor) {
    for (int64_t i = 0; i < results->n_models; i++) {
        const json_t *checkpoints = sp_results_part(results->models[i].data, "checkpoints");
        const json_t *values = sp_results_part(sp_results_part(checkpoints, "measures"), measure);
        sp_chart_add(chart, results, i, what, style,
                     sp_chart_points(sp_results_part(checkpoints, "step"), values, factor));
    }
}

static bool is_zero(const json_t *chart) {
    const json_t *series = json_object_get(chart, "series");
    for (size_t i = 0; i < json_array_size(series); i++) {
        const json_t *data = json_object_get(json_array_get(series, i), "data");
        for (size_t k = 0; k < json_array_size(data); k++)
            if (sp_results_entry(json_array_get(data, k), 1) != 0) return false;
    }
    return true;
}

static void write_trace(FILE *page, const sp_results *results, const trace *t) {
    json_t *chart = sp_chart_new("step", t->y, t->scales);
    add_measure(chart, results, t->measure, "", "layers", t->factor);
    if (t->second) add_measure(chart, results, t->second, t->what, "dashed", t->factor);
    if (!sp_chart_is_empty(chart)) {
        if (t->none && is_zero(chart))
            fprintf(page, "<p class=\"note\">%s</p>\n", t->none);
        else
            sp_chart_write(page, results, chart, t->description, t->caption, t->table);
    }
    json_decref(chart);
}

void sp_page_sinks_over_training(FILE *page, const sp_results *results) {
    static const trace sinks = {
        .measure = "sink_rate",
        .y = "sink rate",
        .description = "Sink rate over the steps of training",
        .caption = "<b>Sink rate over training</b>, of a few samples at every checkpoint.",
        .table = "Table of the sink rates over training",
        .none = "No checkpoint had a sink in the samples that were measured while the models trained.",
        .factor = 1,
        .scales = SP_CHART_FROM_ZERO,
    };
    write_trace(page, results, &sinks);
}

void sp_page_dead_over_training(FILE *page, const sp_results *results) {
    static const trace dead = {
        .measure = "dead_heads",
        .second = "dead_heads_0.01",
        .what = "below 0.01",
        .y = "dead heads, percent",
        .description = "Share of dead heads over the steps of training",
        .caption =
            "<b>Dead heads over training</b>: heads whose output is below 10<sup>\xe2\x88\x92"
            "6</sup> in every channel for more than 95% of tokens, of a few samples at every checkpoint. Dashed: "
            "below 0.01.",
        .table = "Table of the dead heads over training",
        .none = "No checkpoint had a dead head in the samples that were measured while the models trained.",
        .factor = 100,
        .scales = SP_CHART_FROM_ZERO,
    };
    write_trace(page, results, &dead);
}

void sp_page_kurtosis_over_training(FILE *page, const sp_results *results) {
    static const trace kurtosis = {
        .measure = "kurtosis",
        .y = "kurtosis (logarithmic)",
        .description = "Kurtosis of the hidden states over the steps of training",
        .caption = "<b>Kurtosis over training</b>, of a few samples at every checkpoint.",
        .table = "Table of the kurtosis over training",
        .factor = 1,
        .scales = SP_CHART_LOG_Y,
    };
    write_trace(page, results, &kurtosis);
}
