/* What tasks say of the models: a table in the shape of lm-eval's results, and the grid of passkeys. */
#include "report/page.h"

#include <math.h>
#include <string.h>

static const json_t *evaluation_of(const sp_results_model *model) { return sp_results_part(model->data, "evaluation"); }

static const json_t *task_of(const sp_results_model *model, const char *task) {
    return sp_results_part(sp_results_part(evaluation_of(model), "results"), task);
}

static const json_t *passkey_of(const sp_results_model *model) {
    return sp_results_part(evaluation_of(model), "passkey");
}

bool sp_page_has_evaluation(const sp_results *results) {
    for (int64_t i = 0; i < results->n_models; i++)
        if (evaluation_of(&results->models[i])) return true;
    return false;
}

/* ---- the table of tasks ------------------------------------------------------------------------------------------ */

/* "acc,none" is a metric behind a filter; "acc_stderr,none" and "alias" are not. */
static bool is_metric(const char *key, const json_t *value) {
    return strchr(key, ',') && !strstr(key, "_stderr,") && json_is_number(value);
}

/* Of "acc,none": "acc_stderr,none", NaN when it is not a number. */
static double error_of(const json_t *task, const char *key) {
    char name[128];
    size_t n = strcspn(key, ",");
    snprintf(name, sizeof name, "%.*s_stderr%s", (int)n, key, key + n);
    return sp_results_number(task, name);
}

/* Accuracies lie between 0 and 1, and more is better; of all else less is. */
static bool is_share(const char *key) { return strncmp(key, "acc", 3) == 0; }

static void write_error(FILE *page, double error, sp_html_unit unit) {
    if (isnan(error)) return;
    fprintf(page, " <small>\xc2\xb1%s</small>", sp_html_number_of(error, unit).text);
}

static void write_metric_name(FILE *page, const char *key) {
    char name[128];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(key, ","), key);
    fputs("<td class=\"metric\">", page);
    sp_html_text(page, name);
    if (strcmp(key + strcspn(key, ","), ",none") != 0) { /* lm-eval's word for no filter */
        fputs(", ", page);
        sp_html_text(page, key + strcspn(key, ",") + 1);
    }
    if (!is_share(key)) fputs(" <small>less is better</small>", page);
    fputs("</td>", page);
}

static void write_metric_values(FILE *page, const sp_results *results, const char *task, const char *key) {
    sp_html_unit unit = is_share(key) ? SP_HTML_UNIT_SHARE : SP_HTML_UNIT_PLAIN;
    const json_t *first = task_of(&results->models[0], task);
    double base = sp_results_number(first, key), base_error = error_of(first, key);
    for (int64_t i = 0; i < results->n_models; i++) {
        const json_t *one = task_of(&results->models[i], task);
        double value = sp_results_number(one, key), error = error_of(one, key);
        fprintf(page, "<td>%s", sp_html_number_of(value, unit).text);
        write_error(page, error, unit);
        fputs("</td>", page);
        if (i == 0) continue;
        fprintf(page, "<td class=\"difference\">%s", sp_html_difference_of(base, value, unit).text);
        write_error(page, sqrt(error * error + base_error * base_error), unit);
        fputs("</td>", page);
    }
}

/* lm-eval writes {"original", "effective"}; a number will do. */
static double n_samples_of(const sp_results_model *model, const char *task) {
    const json_t *n = sp_results_part(sp_results_part(evaluation_of(model), "n-samples"), task);
    return json_is_object(n) ? sp_results_number(n, "effective") : json_is_number(n) ? json_number_value(n) : NAN;
}

static void write_task_name(FILE *page, const sp_results_model *model, const char *task, bool first) {
    fputs("<th scope=\"row\">", page);
    if (first) {
        double n = n_samples_of(model, task);
        sp_html_text(page, task);
        if (!isnan(n)) fprintf(page, " <small>%s samples</small>", sp_html_number_of(n, SP_HTML_UNIT_COUNT).text);
    }
    fputs("</th>", page);
}

static void write_task(FILE *page, const sp_results *results, const sp_results_model *model, const char *task) {
    const char *key;
    json_t *value;
    bool first = true;
    json_object_foreach((json_t *)(uintptr_t)task_of(model, task), key, value) {
        if (!is_metric(key, value)) continue;
        fprintf(page, "<tr%s>", first ? "" : " class=\"more\"");
        write_task_name(page, model, task, first);
        write_metric_name(page, key);
        write_metric_values(page, results, task, key);
        fputs("</tr>\n", page);
        first = false;
    }
}

/* True when no model before `m` has the task. */
static bool is_new_task(const sp_results *results, int64_t m, const char *task) {
    for (int64_t before = 0; before < m; before++)
        if (task_of(&results->models[before], task)) return false;
    return true;
}

static bool any_task(const sp_results *results) {
    for (int64_t i = 0; i < results->n_models; i++)
        if (json_object_size(sp_results_part(evaluation_of(&results->models[i]), "results")) > 0) return true;
    return false;
}

static void write_tasks(FILE *page, const sp_results *results) {
    if (!any_task(results)) return;
    fputs("<div class=\"wide\"><table class=\"plain tasks\">\n<thead><tr><th scope=\"col\">task</th><th scope=\"col\" "
          "class=\"metric\">metric</th>",
          page);
    for (int64_t i = 0; i < results->n_models; i++) {
        fputs("<th scope=\"col\">", page);
        sp_page_model_name(page, &results->models[i]);
        fputs(i > 0 ? "</th><th scope=\"col\" class=\"difference\">difference</th>" : "</th>", page);
    }
    fputs("</tr></thead>\n<tbody>\n", page);
    for (int64_t i = 0; i < results->n_models; i++) {
        const char *task;
        json_t *value, *tasks = json_object_get(evaluation_of(&results->models[i]), "results");
        json_object_foreach(tasks, task, value) if (is_new_task(results, i, task))
            write_task(page, results, &results->models[i], task);
    }
    fputs("</tbody></table></div>\n<p class=\"note\">\xc2\xb1 is one standard error. That of a difference takes the "
          "models' answers for independent, which overstates it where they err on the same questions.</p>\n",
          page);
}

/* ---- passkeys ---------------------------------------------------------------------------------------------------- */

static void write_passkey_grid(FILE *page, const sp_results_model *model) {
    const json_t *passkey = passkey_of(model);
    const sp_page_heat heat = {.rows = sp_results_part(passkey, "accuracy"),
                               .full = 1,
                               .factor = 100,
                               .unit = SP_HTML_UNIT_SHARE,
                               .row = "depth",
                               .column = "tokens",
                               .row_names = sp_results_part(passkey, "depths"),
                               .column_names = sp_results_part(passkey, "lengths")};
    fputs("<div><p class=\"legend\">", page);
    sp_page_model_name(page, model);
    fputs("</p>\n", page);
    if (passkey)
        sp_page_write_heat(page, model, &heat);
    else
        fputs("<p class=\"note\">Not measured.</p>\n", page);
    fputs("</div>\n", page);
}

static void write_passkey(FILE *page, const sp_results *results) {
    const json_t *first = NULL;
    for (int64_t i = 0; i < results->n_models && !first; i++) first = passkey_of(&results->models[i]);
    if (!first) return;
    fputs("<figure>\n<figcaption><b>passkey retrieval</b> Keys found, in percent, by how many tokens the text has "
          "(across) and where in it the key stands (down; 0 is its beginning). A dash: the model does not see so many "
          "tokens. <small>",
          page);
    const char *protocol = sp_results_string(first, "protocol");
    double n = sp_results_number(first, "n");
    if (protocol) fputs("protocol ", page), sp_html_text(page, protocol);
    if (!isnan(n)) fprintf(page, "%s%g trials in a cell", protocol ? " \xc2\xb7 " : "", n);
    fputs("</small></figcaption>\n<div class=\"side\">\n", page);
    for (int64_t i = 0; i < results->n_models; i++) write_passkey_grid(page, &results->models[i]);
    fputs("</div>\n</figure>\n", page);
}

void sp_page_evaluation(FILE *page, const sp_results *results) {
    write_tasks(page, results);
    write_passkey(page, results);
}
