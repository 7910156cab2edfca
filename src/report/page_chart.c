/* A chart as JSON, its figure, its table. */
#include "report/page_chart.h"

#include <math.h>

enum { ROWS_MAX = 24 };

json_t *sp_chart_new(const char *x, const char *y, unsigned scales) {
    return json_pack("{s:s, s:s, s:b, s:b, s:b, s:[]}", "x", x, "y", y, "log_x", (scales & SP_CHART_LOG_X) != 0,
                     "log_y", (scales & SP_CHART_LOG_Y) != 0, "from_zero", (scales & SP_CHART_FROM_ZERO) != 0,
                     "series");
}

void sp_chart_add(json_t *chart, const sp_results *results, int64_t i, const char *what, const char *style,
                  json_t *data) {
    if (json_array_size(data) == 0) {
        json_decref(data);
        return;
    }
    json_t *name = json_sprintf("%s%s%s", results->models[i].name, *what ? ", " : "", what);
    json_t *series = json_pack("{s:o, s:I, s:i, s:s, s:o}", "name", name, "model", (json_int_t)i, "hue",
                               results->models[i].hue, "style", style, "data", data);
    json_array_append_new(json_object_get(chart, "series"), series);
}

void sp_chart_point(json_t *data, double x, double y) {
    if (isfinite(x) && isfinite(y)) json_array_append_new(data, json_pack("[f,f]", x, y));
}

json_t *sp_chart_points(const json_t *x, const json_t *y, double factor) {
    json_t *data = json_array();
    int64_t n = (int64_t)json_array_size(x), stride = (n + SP_CHART_POINTS_MAX - 1) / SP_CHART_POINTS_MAX;
    for (int64_t i = 0; i < n; i += stride)
        sp_chart_point(data, sp_results_entry(x, i), factor * sp_results_entry(y, i));
    return data;
}

bool sp_chart_is_empty(const json_t *chart) { return json_array_size(json_object_get(chart, "series")) == 0; }

/* ---- the drawing ---- */

#if SP_WITH_CHART_JS
static void write_canvas(FILE *page, const json_t *chart, const char *description) {
    fprintf(page, "<div class=\"chart\"><canvas role=\"img\" aria-label=\"%s\"></canvas>", description);
    fputs("<script type=\"application/json\">", page);
    sp_html_json(page, chart);
    fputs("</script></div>\n<noscript><p class=\"note\">Curves are drawn by a script, which this browser does not "
          "run; their numbers are in the table.</p></noscript>\n",
          page);
}
#else
static void write_canvas(FILE *page, const json_t *chart, const char *description) {
    (void)chart;
    fprintf(page,
            "<p class=\"note\">Not drawn, as this softpick was built without Chart.js: %s. The numbers are "
            "in the table.</p>\n",
            description);
}
#endif

/* ---- the table ---- */

/* The series with the most points: its x are the table's rows. */
static const json_t *longest_data(const json_t *series) {
    const json_t *longest = NULL;
    for (size_t i = 0; i < json_array_size(series); i++) {
        const json_t *data = json_object_get(json_array_get(series, i), "data");
        if (json_array_size(data) > json_array_size(longest)) longest = data;
    }
    return longest;
}

static double value_at(const json_t *data, double x) {
    for (size_t i = 0; i < json_array_size(data); i++)
        if (sp_results_entry(json_array_get(data, i), 0) == x) return sp_results_entry(json_array_get(data, i), 1);
    return NAN;
}

static void write_row(FILE *page, const json_t *series, double x) {
    fprintf(page, "<tr><th scope=\"row\">%s</th>", sp_html_number_of(x, SP_HTML_UNIT_COUNT).text);
    for (size_t i = 0; i < json_array_size(series); i++)
        fprintf(page, "<td>%s</td>",
                sp_html_number_of(value_at(json_object_get(json_array_get(series, i), "data"), x), SP_HTML_UNIT_PLAIN)
                    .text);
    fputs("</tr>\n", page);
}

static void write_table(FILE *page, const json_t *chart, const char *summary) {
    const json_t *series = json_object_get(chart, "series"), *xs = longest_data(series);
    int64_t n = (int64_t)json_array_size(xs), n_rows = n < ROWS_MAX ? n : ROWS_MAX;
    fprintf(page, "<details><summary>%s</summary><div class=\"wide\"><table>\n<thead><tr><th scope=\"col\">", summary);
    sp_html_text(page, sp_results_string(chart, "x"));
    fputs("</th>", page);
    for (size_t i = 0; i < json_array_size(series); i++) {
        fprintf(page, "<th scope=\"col\"><span class=\"model hue%g\">",
                sp_results_number(json_array_get(series, i), "hue"));
        sp_html_text(page, sp_results_string(json_array_get(series, i), "name"));
        fputs("</span></th>", page);
    }
    fputs("</tr></thead>\n<tbody>\n", page);
    for (int64_t i = 0; i < n_rows; i++) { /* the first and the last among them */
        int64_t at = n_rows > 1 ? i * (n - 1) / (n_rows - 1) : 0;
        write_row(page, series, sp_results_entry(json_array_get(xs, (size_t)at), 0));
    }
    fputs("</tbody></table></div></details>\n", page);
}

void sp_chart_write(FILE *page, const sp_results *results, const json_t *chart, const char *description,
                    const char *caption, const char *table) {
    fputs("<figure>\n<div class=\"legend\">", page);
    for (int64_t i = 0; i < results->n_models; i++) sp_page_model_name(page, &results->models[i]);
    fputs("</div>\n", page);
    write_canvas(page, chart, description);
    fprintf(page, "<figcaption>%s</figcaption>\n", caption);
    if (table) write_table(page, chart, table);
    fputs("</figure>\n", page);
}
