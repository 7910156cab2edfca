/* The comparison of all values, model beside model, and how each is defined.  One table of rows feeds both. */
#include "report/page.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

typedef struct value_row {
    const char *name;       /* key in "measures", or of the model itself when it has a definition here */
    const char *label;      /* NULL: `name` is the heading of a group */
    const char *definition; /* of a training value; a measure brings its own */
    sp_html_unit unit;      /* of a training value; a measure brings its own */
    const char *variant;    /* of a measure: key in its "variants", the same taken another way */
    bool by_option;         /* left out where it was not measured */
} value_row;

static const value_row rows[] = {
    {.name = "Training"},
    {.name = "validation_loss",
     .label = "validation loss",
     .definition = "mean cross-entropy in nats per token of the validation split",
     .unit = SP_HTML_UNIT_PLAIN},
    {.name = "perplexity", .label = "perplexity", .definition = "e to the validation loss", .unit = SP_HTML_UNIT_PLAIN},
    {.name = "train_loss",
     .label = "training loss",
     .definition = "mean cross-entropy in nats per token at the end of training",
     .unit = SP_HTML_UNIT_PLAIN},
    {.name = "steps",
     .label = "steps",
     .definition = "steps of the optimizer that were made",
     .unit = SP_HTML_UNIT_COUNT},
    {.name = "tokens",
     .label = "tokens trained on",
     .definition = "tokens in all steps together, repeats counted",
     .unit = SP_HTML_UNIT_COUNT},
    {.name = "skipped_steps",
     .label = "skipped steps",
     .definition = "steps whose gradient was not finite, and which changed nothing",
     .unit = SP_HTML_UNIT_COUNT},
    {.name = "tokens_per_second",
     .label = "tokens per second",
     .definition = "tokens trained on by the time it took",
     .unit = SP_HTML_UNIT_PLAIN},
    {.name = "seconds", .label = "seconds", .definition = "wall time of training", .unit = SP_HTML_UNIT_PLAIN},
    {.name = "Attention"},
    {.name = "sink_rate", .label = "sink rate"},
    {.name = "sink_rate_0.2", .label = "sink rate at 0.2"},
    {.name = "first_token_mass", .label = "weight on the first token"},
    {.name = "sink_rate_elsewhere", .label = "sinks on other keys", .by_option = true},
    {.name = "row_mass", .label = "row mass"},
    {.name = "sparsity", .label = "exact zeros"},
    {.name = "sparsity_threshold", .label = "zeros within a threshold"},
    {.name = "dead_blocks", .label = "dead blocks", .by_option = true},
    {.name = "entropy", .label = "entropy of a row", .by_option = true},
    {.name = "largest_weight", .label = "largest weight of a row", .by_option = true},
    {.name = "silent_heads", .label = "silent heads"},
    {.name = "dead_heads", .label = "dead heads"},
    {.name = "dead_heads_0.01", .label = "dead heads at 0.01", .by_option = true},
    {.name = "masking", .label = "loss by masking dead heads", .by_option = true},
    {.name = "Hidden states"},
    {.name = "kurtosis", .label = "kurtosis"},
    {.name = "kurtosis_paper", .label = "kurtosis, the paper's pool"},
    {.name = "activation_max", .label = "largest activation"},
    {.name = "activation_min", .label = "smallest activation"},
    {.name = "massive_activations", .label = "massive activations"},
};
enum { N_ROWS = sizeof rows / sizeof *rows };

static const value_row *find_row(const char *name) {
    for (int i = 0; i < N_ROWS; i++)
        if (rows[i].label && strcmp(rows[i].name, name) == 0) return &rows[i];
    return NULL;
}

const char *sp_page_measure_label(const char *measure) {
    const value_row *row = find_row(measure);
    return row ? row->label : measure;
}

/* ---- one value ---- */

static double row_value(const value_row *row, const sp_results_model *model) {
    if (row->definition) return sp_results_number(model->data, row->name);
    const json_t *measure = sp_results_measure(model, row->name);
    if (row->variant) return sp_results_number(sp_results_part(measure, "variants"), row->variant);
    return sp_results_number(measure, "value");
}

/* The first model's object of the measure, for what is said once. */
static const json_t *row_measure(const value_row *row, const sp_results *results) {
    return row->definition ? NULL : sp_page_first_measure(results, row->name);
}

static sp_html_unit row_unit(const value_row *row, const sp_results *results) {
    if (row->definition) return row->unit;
    return sp_html_unit_of(sp_results_string(row_measure(row, results), "unit"));
}

static bool row_known(const value_row *row, const sp_results *results) {
    for (int64_t i = 0; i < results->n_models; i++)
        if (!isnan(row_value(row, &results->models[i]))) return true;
    return false;
}

/* ---- conditions ---- */

static void write_condition(FILE *page, const char *before, double value, const char *after, bool *any) {
    if (isnan(value)) return;
    fprintf(page, "%s%s%g%s", *any ? " \xc2\xb7 " : "", before, value, after);
    *any = true;
}

void sp_page_conditions(FILE *page, const json_t *measure) {
    bool any = false;
    write_condition(page, "T ", sp_results_number(measure, "T"), "", &any);
    write_condition(page, "", sp_results_number(measure, "n_samples"), " samples", &any);
    const char *dtype = sp_results_string(measure, "dtype");
    if (dtype) {
        if (any) fputs(" \xc2\xb7 ", page);
        sp_html_text(page, dtype);
        any = true;
    }
    write_condition(page, "threshold ", sp_results_number(measure, "threshold"), "", &any);
}

static bool same_entry(const json_t *a, const json_t *b, const char *key) {
    const json_t *x = json_object_get(a, key), *y = json_object_get(b, key);
    return x == y || json_equal(x, y);
}

static bool same_conditions(const json_t *a, const json_t *b) {
    static const char *const keys[] = {"T", "n_samples", "dtype", "threshold"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!same_entry(a, b, keys[i])) return false;
    return true;
}

/* Once when all models were measured alike, else for each. */
static void write_row_conditions(FILE *page, const value_row *row, const sp_results *results) {
    const json_t *first = row_measure(row, results);
    bool alike = true;
    for (int64_t i = 0; i < results->n_models; i++) {
        const json_t *measure = sp_results_measure(&results->models[i], row->name);
        alike = alike && (!measure || same_conditions(first, measure));
    }
    if (alike) {
        sp_page_conditions(page, first);
        return;
    }
    for (int64_t i = 0; i < results->n_models; i++) {
        if (i > 0) fputs("; ", page);
        sp_html_text(page, results->models[i].name);
        fputs(": ", page);
        sp_page_conditions(page, sp_results_measure(&results->models[i], row->name));
    }
}

static void write_validation_conditions(FILE *page, const sp_results *results) {
    double targets = sp_results_number(results->models[0].data, "validation_targets");
    if (!isnan(targets)) fprintf(page, "%s targets", sp_html_number_of(targets, SP_HTML_UNIT_COUNT).text);
}

/* ---- the comparison ---- */

static void write_definition_text(FILE *page, const value_row *row, const sp_results *results) {
    const char *text = row->definition;
    if (!text) text = sp_results_string(row_measure(row, results), "definition");
    sp_html_text(page, text ? text : "no definition given");
}

static void write_row_heading(FILE *page, const value_row *row, const sp_results *results) {
    if (!row_known(row, results)) {
        fprintf(page, "<th scope=\"row\">%s <small>not measured</small></th>", row->label);
        return;
    }
    fputs("<th scope=\"row\"><a href=\"#def-", page);
    sp_html_text(page, row->name);
    fputs("\" title=\"", page);
    write_definition_text(page, row, results);
    fputs("\">", page);
    sp_html_text(page, row->label);
    fputs("</a> <small>", page);
    if (strcmp(row->name, "validation_loss") == 0)
        write_validation_conditions(page, results);
    else if (!row->definition)
        write_row_conditions(page, row, results);
    fputs("</small></th>", page);
}

static void write_values(FILE *page, const value_row *row, const sp_results *results) {
    sp_html_unit unit = row_unit(row, results);
    double base = row_value(row, &results->models[0]);
    for (int64_t i = 0; i < results->n_models; i++) {
        double value = row_value(row, &results->models[i]);
        fprintf(page, "<td>%s</td>", sp_html_number_of(value, unit).text);
        if (i > 0) fprintf(page, "<td class=\"difference\">%s</td>", sp_html_difference_of(base, value, unit).text);
    }
}

/* ---- variants: the same measure taken another way, in rows below it ---- */

static const char *variant_label(const char *name) {
    static const char *const labels[][2] = {{"without_bos", "on sequences without BOS"},
                                            {"with_bos", "on sequences that begin with BOS"},
                                            {"row_normalised", "of each row's own mass"},
                                            {"paper_pool", "over the paper's pool"},
                                            {"of_the_most", "as a share of the most that it can be"},
                                            {"live_rows", "of rows that are not silent"}};
    for (size_t i = 0; i < sizeof labels / sizeof *labels; i++)
        if (strcmp(labels[i][0], name) == 0) return labels[i][1];
    return name;
}

static void write_variants(FILE *page, const value_row *measured, const sp_results *results) {
    const char *name;
    json_t *value, *variants = json_object_get(row_measure(measured, results), "variants");
    json_object_foreach(variants, name, value) {
        value_row variant = {.name = measured->name, .variant = name};
        fputs("<tr class=\"variant\"><th scope=\"row\">", page);
        sp_html_text(page, variant_label(name));
        fputs("</th>", page);
        write_values(page, &variant, results);
        fputs("</tr>\n", page);
    }
}

static void write_row(FILE *page, const value_row *row, const sp_results *results) {
    fputs("<tr>", page);
    write_row_heading(page, row, results);
    write_values(page, row, results);
    fputs("</tr>\n", page);
    write_variants(page, row, results);
}

static void write_group(FILE *page, const char *heading, const sp_results *results) {
    fprintf(page, "<tbody><tr class=\"group\"><th scope=\"rowgroup\" colspan=\"%lld\">%s</th></tr>\n",
            (long long)(2 * results->n_models), heading);
}

/* Calls `write` for each measure of the first model that has it and that the table does not know. */
static void for_each_other(FILE *page, const sp_results *results,
                           void (*write)(FILE *page, const value_row *row, const sp_results *results)) {
    for (int64_t i = 0; i < results->n_models; i++) {
        const char *name;
        json_t *measure, *measures = json_object_get(results->models[i].data, "measures");
        json_object_foreach(measures, name, measure) {
            value_row other = {.name = name, .label = name};
            bool first = row_measure(&other, results) == measure;
            if (first && !find_row(name) && row_known(&other, results)) write(page, &other, results);
        }
    }
}

static void write_comparison_head(FILE *page, const sp_results *results) {
    fputs("<thead><tr><td></td>", page);
    for (int64_t i = 0; i < results->n_models; i++) {
        fputs("<th scope=\"col\">", page);
        sp_page_model_name(page, &results->models[i]);
        fputs(i > 0 ? "</th><th scope=\"col\" class=\"difference\">difference</th>" : "</th>", page);
    }
    fputs("</tr></thead>\n", page);
}

void sp_page_comparison(FILE *page, const sp_results *results) {
    fprintf(page, "<div class=\"wide\"><table class=\"comparison%s\">\n", results->n_models > 2 ? " many" : "");
    write_comparison_head(page, results);
    for (int i = 0; i < N_ROWS; i++) {
        if (rows[i].label) {
            if (!rows[i].by_option || row_known(&rows[i], results)) write_row(page, &rows[i], results);
            continue;
        }
        if (i > 0) fputs("</tbody>\n", page);
        write_group(page, rows[i].name, results);
    }
    for_each_other(page, results, write_row);
    fputs("</tbody></table></div>\n", page);
}

/* ---- the definitions ---- */

static void write_definition(FILE *page, const value_row *row, const sp_results *results) {
    if (!row_known(row, results)) return;
    fputs("<div id=\"def-", page);
    sp_html_text(page, row->name);
    fputs("\"><dt>", page);
    sp_html_text(page, row->label);
    fputs(" <code>", page);
    sp_html_text(page, row->name);
    fputs("</code></dt><dd>", page);
    write_definition_text(page, row, results);
    fputs(".</dd></div>\n", page);
}

void sp_page_definitions(FILE *page, const sp_results *results) {
    fputs("<p>Softpick replaces the softmax of attention: for the scores <i>x</i> of one query, key <i>i</i> has the "
          "weight relu(e<sup><i>x<sub>i</sub></i></sup> \xe2\x88\x92 1) / (\xce\xa3<sub><i>j</i></sub> "
          "|e<sup><i>x<sub>j</sub></i></sup> \xe2\x88\x92 1| + \xce\xb5). Weights may be exactly zero, and a row "
          "of them need not sum to one.</p>\n<dl class=\"definitions\">\n",
          page);
    for (int i = 0; i < N_ROWS; i++)
        if (rows[i].label) write_definition(page, &rows[i], results);
    for_each_other(page, results, write_definition);
    fputs("</dl>\n", page);
}
