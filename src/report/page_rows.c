/* What rows of attention come to by length, by key, by context, and block by block. */
#include "report/page_chart.h"

#include <math.h>

/* A list of a measure's part: measures.sink_rate.by_length.value */
static const json_t *list_of(const sp_results_model *model, const char *measure, const char *part, const char *key) {
    return sp_results_part(sp_results_part(sp_results_measure(model, measure), part), key);
}

/* A curve of each model: list `y` over list `x` of the part. */
static void add_curves(json_t *chart, const sp_results *results, const char *const where[2], const char *x,
                       const char *y, const char *what, const char *style) {
    for (int64_t i = 0; i < results->n_models; i++) {
        const sp_results_model *model = &results->models[i];
        sp_chart_add(chart, results, i, what, style,
                     sp_chart_points(list_of(model, where[0], where[1], x), list_of(model, where[0], where[1], y), 1));
    }
}

/* `chart` is stolen. */
static void write_curves(FILE *page, const sp_results *results, json_t *chart, const char *description,
                         const char *caption, const char *summary) {
    if (!sp_chart_is_empty(chart)) sp_chart_write(page, results, chart, description, caption, summary);
    json_decref(chart);
}

/* ---- sinks ------------------------------------------------------------------------------------------------------- */

void sp_page_sinks_by_length(FILE *page, const sp_results *results) {
    static const char *const where[] = {"sink_rate", "by_length"};
    json_t *chart = sp_chart_new("length in tokens", "sink rate", SP_CHART_LOG_X | SP_CHART_FROM_ZERO);
    add_curves(chart, results, where, "length", "value", "", "layers");
    add_curves(chart, results, where, "length", "row_normalised", "of each row's mass", "dashed");
    write_curves(page, results, chart, "Sink rate of each model by the length of the text",
                 "<b>Sink rate by length</b>: the same samples, of which only the first tokens count. The first query "
                 "sees only the first token, so short texts look full of sinks whatever the model; rates of different "
                 "lengths are not to be compared. Dashed: of each row's own mass.",
                 "Table of the sink rates by length");
}

/* Keys are counted from 1, as a logarithmic scale begins there. */
static json_t *key_points(const sp_results_model *model, const char *y) {
    static const char measure[] = "sink_rate_elsewhere", part[] = "by_position";
    const json_t *positions = list_of(model, measure, part, "position"), *values = list_of(model, measure, part, y);
    json_t *data = json_array();
    for (int64_t i = 0; i < (int64_t)json_array_size(positions); i++)
        sp_chart_point(data, sp_results_entry(positions, i) + 1, sp_results_entry(values, i));
    return data;
}

void sp_page_sinks_by_key(FILE *page, const sp_results *results) {
    json_t *chart = sp_chart_new("key, the first token is 1", "mean weight", SP_CHART_LOG_X | SP_CHART_LOG_Y);
    for (int64_t i = 0; i < results->n_models; i++) {
        sp_chart_add(chart, results, i, "", "line", key_points(&results->models[i], "weight"));
        sp_chart_add(chart, results, i, "of each row's mass", "dashed",
                     key_points(&results->models[i], "row_normalised"));
    }
    write_curves(page, results, chart, "Mean weight on a key by its position",
                 "<b>Weight by position of the key</b>: mean over the queries that see the key, samples, layers and "
                 "heads. A sink on the first token stands out at the left; the last keys are seen by few queries, all "
                 "of them near. Dashed: of each row's own mass, over the rows that are not silent.",
                 "Table of the weights by position");
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

static const json_t *blocks_of(const sp_results_model *model) {
    return sp_results_part(sp_results_measure(model, "dead_blocks"), "blocks");
}

/* The longest of the models' lists of blocks: its entries are the rows. */
static const json_t *all_blocks(const sp_results *results) {
    const json_t *longest = NULL;
    for (int64_t i = 0; i < results->n_models; i++)
        if (json_array_size(blocks_of(&results->models[i])) > json_array_size(longest))
            longest = blocks_of(&results->models[i]);
    return longest;
}

static void write_block_name(FILE *page, const json_t *block) {
    double queries = sp_results_number(block, "queries"), keys = sp_results_number(block, "keys");
    double heads = sp_results_number(block, "heads");
    if (queries == 1 && keys == 1)
        fputs("1 query \xc3\x97 1 key", page);
    else
        fprintf(page, "%g queries \xc3\x97 %g keys", queries, keys);
    if (heads > 1) fprintf(page, ", in all %g heads that share the key", heads);
}

static void write_block_row(FILE *page, const sp_results *results, const json_t *blocks, size_t row) {
    fputs("<tr><th scope=\"row\">", page);
    write_block_name(page, json_array_get(blocks, row));
    fputs("</th>", page);
    for (int64_t i = 0; i < results->n_models; i++) {
        double value = sp_results_number(json_array_get(blocks_of(&results->models[i]), row), "value");
        fprintf(page, "<td>%s</td>", sp_html_number_of(value, SP_HTML_UNIT_SHARE).text);
    }
    fputs("</tr>\n", page);
}

/* A group of one head says what the row before it said. */
static bool is_repeated(const json_t *blocks, size_t row) {
    const json_t *block = json_array_get(blocks, row), *before = row ? json_array_get(blocks, row - 1) : NULL;
    return before && sp_results_number(block, "queries") == sp_results_number(before, "queries") &&
           sp_results_number(block, "keys") == sp_results_number(before, "keys") &&
           sp_results_number(block, "heads") == sp_results_number(before, "heads");
}

void sp_page_dead_blocks(FILE *page, const sp_results *results) {
    const json_t *blocks = all_blocks(results);
    if (!blocks) return;
    fputs("<figure>\n<figcaption><b>dead blocks</b> Share of the blocks of weights that are zero throughout: what a "
          "kernel may leave out. <small>",
          page);
    sp_page_conditions(page, sp_page_first_measure(results, "dead_blocks"));
    fputs("</small></figcaption>\n<div class=\"wide\"><table class=\"plain\">\n<thead><tr><th scope=\"col\">block</th>",
          page);
    for (int64_t i = 0; i < results->n_models; i++) {
        fputs("<th scope=\"col\">", page);
        sp_page_model_name(page, &results->models[i]);
        fputs("</th>", page);
    }
    fputs("</tr></thead>\n<tbody>\n", page);
    for (size_t row = 0; row < json_array_size(blocks); row++)
        if (!is_repeated(blocks, row)) write_block_row(page, results, blocks, row);
    fputs("</tbody></table></div>\n</figure>\n", page);
}

/* ---- how far a row spreads ------------------------------------------------------------------------------------- */

bool sp_page_has_spread(const sp_results *results) {
    return sp_page_first_measure(results, "entropy") || sp_page_first_measure(results, "largest_weight");
}

static void write_largest(FILE *page, const sp_results *results) {
    static const char *const where[] = {"largest_weight", "by_context"};
    json_t *chart = sp_chart_new("keys that a query sees", "largest weight", SP_CHART_LOG_X | SP_CHART_FROM_ZERO);
    add_curves(chart, results, where, "keys", "weight", "", "line");
    add_curves(chart, results, where, "keys", "row_normalised", "of each row's mass", "dashed");
    write_curves(page, results, chart, "Mean of a query's largest weight by the number of keys it sees",
                 "<b>Largest weight by context</b>: mean over queries, samples, layers and heads. In softpick every "
                 "key that scores below zero adds up to 1 to the denominator, so that the weight of the few keys that "
                 "matter shrinks with the context (underscoring). Dashed: of each row's own mass, over the rows that "
                 "are not silent.",
                 "Table of the largest weights by context");
}

void sp_page_spread(FILE *page, const sp_results *results) {
    const json_t *entropy = sp_page_first_measure(results, "entropy");
    double T = sp_results_number(entropy, "T");
    const sp_page_heat nats = {.full = T > 1 ? log(T) : 1,
                               .factor = 1,
                               .decimals = 1,
                               .unit = SP_HTML_UNIT_PLAIN,
                               .row = "layer",
                               .column = "head"};
    if (entropy)
        sp_page_write_heads(page, results, "entropy",
                            "Mean entropy of a row's weights divided by their sum, in nats; the whole colour is an "
                            "even spread over all tokens. A head that is always silent has none.",
                            &nats);
    write_largest(page, results);
}
