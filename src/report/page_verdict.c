/* The title and the verdict: one sentence for each model beside the baseline, made from the numbers alone.
 *
 * It tells what was measured, in clauses, and leaves out what was not.  It draws no conclusion: one pair of runs
 * shows no significance.  Values that look the same at the printed precision are called the same. */
#include "report/page.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

typedef struct twin_pair {
    const sp_results_model *base, *other;
} twin_pair;

static double measured(const sp_results_model *model, const char *name) {
    return sp_results_number(sp_results_measure(model, name), "value");
}

static void write_name(FILE *page, const sp_results_model *model, const char *after) {
    sp_page_model_name(page, model);
    fputs(after, page);
}

static void write_number(FILE *page, double value, sp_html_unit unit, const char *after) {
    fprintf(page, "%s%s", sp_html_number_of(value, unit).text, after);
}

/* Equal numbers of steps are one number; twins stopped by a time limit have two. */
static void write_steps(FILE *page, twin_pair twins) {
    double base = sp_results_number(twins.base->data, "steps"), other = sp_results_number(twins.other->data, "steps");
    if (isnan(base) || isnan(other)) return;
    fputs("after ", page);
    write_number(page, other, SP_HTML_UNIT_COUNT, " steps");
    if (base != other) {
        fputs(" (", page);
        write_name(page, twins.base, ": ");
        write_number(page, base, SP_HTML_UNIT_COUNT, ")");
    }
    fputs(" ", page);
}

/* "after 1,200 steps the validation loss of softpick is 3.661, 0.028 below softmax (3.689)" */
static bool write_loss(FILE *page, twin_pair twins, const char *lead) {
    double base = sp_results_number(twins.base->data, "validation_loss");
    double other = sp_results_number(twins.other->data, "validation_loss");
    if (isnan(base) || isnan(other)) return false;
    fputs(lead, page);
    write_steps(page, twins);
    fputs("the validation loss of ", page);
    write_name(page, twins.other, " is ");
    write_number(page, other, SP_HTML_UNIT_PLAIN, ", ");
    sp_html_number base_text = sp_html_number_of(base, SP_HTML_UNIT_PLAIN);
    if (strcmp(base_text.text, sp_html_number_of(other, SP_HTML_UNIT_PLAIN).text) == 0) {
        fputs("the same as that of ", page);
        write_name(page, twins.base, "");
        return true;
    }
    write_number(page, fabs(other - base), SP_HTML_UNIT_PLAIN, other < base ? " below " : " above ");
    write_name(page, twins.base, " (");
    fprintf(page, "%s)", base_text.text);
    return true;
}

static bool write_sinks(FILE *page, twin_pair twins, const char *lead) {
    double base = measured(twins.base, "sink_rate"), other = measured(twins.other, "sink_rate");
    if (isnan(base) || isnan(other)) return false;
    fputs(lead, page);
    if (base == 0) {
        fputs("no attention sink grew in the ", page);
        write_name(page, twins.base, other == 0 ? " twin, nor in " : " twin, but ");
        write_name(page, twins.other, other == 0 ? "" : " has a sink rate of ");
        if (other != 0) write_number(page, other, SP_HTML_UNIT_SHARE, "");
        return true;
    }
    fputs("the sink rate is ", page);
    write_number(page, base, SP_HTML_UNIT_SHARE, " in ");
    write_name(page, twins.base, " and ");
    write_number(page, other, SP_HTML_UNIT_SHARE, " in ");
    write_name(page, twins.other, "");
    return true;
}

static bool write_zeros(FILE *page, twin_pair twins, const char *lead) {
    double base = measured(twins.base, "sparsity"), other = measured(twins.other, "sparsity");
    if (isnan(other)) return false;
    fputs(lead, page);
    write_number(page, other, SP_HTML_UNIT_SHARE, " of the attention weights of ");
    write_name(page, twins.other, " are exactly zero");
    if (isnan(base)) return true;
    fputs(" (", page);
    write_number(page, base, SP_HTML_UNIT_SHARE, " in ");
    write_name(page, twins.base, ")");
    return true;
}

static bool write_kurtosis(FILE *page, twin_pair twins, const char *lead) {
    double base = measured(twins.base, "kurtosis"), other = measured(twins.other, "kurtosis");
    if (isnan(base) || isnan(other)) return false;
    fputs(lead, page);
    fputs("the hidden states have a kurtosis of ", page);
    write_number(page, base, SP_HTML_UNIT_PLAIN, " in ");
    write_name(page, twins.base, " and ");
    write_number(page, other, SP_HTML_UNIT_PLAIN, " in ");
    write_name(page, twins.other, "");
    return true;
}

/* Writes `lead` and itself; false, and nothing written, when a value is missing. */
typedef bool clause(FILE *page, twin_pair twins, const char *lead);

static void write_sentence(FILE *page, twin_pair twins) {
    static clause *const clauses[] = {write_loss, write_sinks, write_zeros, write_kurtosis};
    bool any = false;
    fputs("<p class=\"verdict\">", page);
    for (size_t i = 0; i < sizeof clauses / sizeof *clauses; i++)
        if (clauses[i](page, twins, any ? "; " : "")) any = true;
    fputs(any ? ".</p>\n" : "Nothing that compares these models was measured.</p>\n", page);
}

static void write_title(FILE *page, const sp_results *results) {
    fputs("<h1>", page);
    for (int64_t i = 0; i < results->n_models; i++) {
        if (i > 0) fputs(i + 1 < results->n_models ? ", " : " and ", page);
        sp_page_model_name(page, &results->models[i]);
    }
    fputs("</h1>\n", page);
}

/* "2026-11-22T10:16:30Z" to "2026-11-22"; whatever else it is stays as it is. */
static void write_date(FILE *page, const char *created) {
    char day[11];
    snprintf(day, sizeof day, "%s", created);
    sp_html_text(page, strlen(created) > 10 && created[10] == 'T' ? day : created);
}

void sp_page_verdict(FILE *page, const sp_results *results) {
    const char *created = sp_results_string(results->root, "created");
    const char *preset = sp_results_string(json_object_get(results->root, "settings"), "preset");
    fputs("<header>\n<p class=\"kicker\">softpick study", page);
    if (preset) fputs(" \xc2\xb7 ", page), sp_html_text(page, preset);
    if (created) fputs(" \xc2\xb7 ", page), write_date(page, created);
    fputs("</p>\n", page);
    write_title(page, results);
    for (int64_t i = 1; i < results->n_models; i++)
        write_sentence(page, (twin_pair){&results->models[0], &results->models[i]});
    if (results->n_models == 1) {
        fputs("<p class=\"verdict\">There is no other model in these results to compare ", page);
        write_name(page, &results->models[0], " with.</p>\n");
    }
    fputs("</header>\n", page);
}
