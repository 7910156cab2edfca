/* What measures and tasks look like on the page: curves with tables, blocks, masked heads, peaks, rollouts, passkeys. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "report_support.h"

/* The page's table with this title, as a reader sees it. */
static char *table_of(const char *page, const char *title) {
    char *table = part_of(page, title, "</table>"), *text = text_of(table);
    free(table);
    return text;
}

static void curves_have_tables_of_their_numbers(void **state) {
    (void)state;
    char *page = page_of(sample_results());
    char *lengths = table_of(page, "Table of the sink rates by length");
    assert_has(lengths,
               "length in tokenssoftmaxsoftpicksoftmax, of each row&#39;s masssoftpick, of each row&#39;s mass");
    assert_has(lengths, "160.6000.020"); /* at 16 tokens */
    char *keys = table_of(page, "Table of the weights by position");
    assert_has(keys, "10.1500.1500.0100.150"); /* the first key is key 1 */
    char *context = table_of(page, "Table of the largest weights by context");
    assert_has(context, "2560.330"); /* seen by the last query */
    char *dead = table_of(page, "Table of the dead heads over training");
    assert_has(dead, "50025.0"); /* percent */
    char *kurtosis = table_of(page, "Table of the kurtosis over training");
    assert_has(kurtosis, "04.2504.500"); /* step 50 */
    assert_has(kurtosis, "2006.281\xe2\x80\x93");
    free(lengths);
    free(keys);
    free(context);
    free(dead);
    free(kurtosis);
    free(page);
}

static void traces_of_nothing_are_said_not_drawn(void **state) {
    (void)state;
    char *page = page_of(sample_results());
    assert_has(page, "No checkpoint had a sink"); /* the sample's rates are all 0 */
    assert_lacks(page, "Table of the sink rates over training");
    assert_lacks(page, "No checkpoint had a dead head");
    free(page);
    json_t *results = sample_results();
    put(results, "models.softmax.checkpoints.measures.sink_rate.4", json_real(0.25));
    page = page_of(results);
    assert_lacks(page, "No checkpoint had a sink");
    char *table = table_of(page, "Table of the sink rates over training");
    assert_has(table, "2000.2500");
    free(table);
    free(page);
}

static void long_curves_have_short_tables_with_both_ends(void **state) {
    (void)state;
    enum { N = 144 };
    json_t *results = sample_results(), *keys = json_array(), *weights = json_array();
    for (int i = 0; i < N; i++) {
        json_array_append_new(keys, json_integer(1000 + i));
        json_array_append_new(weights, json_real(0.5));
    }
    put(results, "models.softpick.measures.largest_weight.by_context", json_null());
    put(results, "models.softmax.measures.largest_weight.by_context",
        json_pack("{s:o, s:o}", "keys", keys, "weight", weights));
    char *page = page_of(results), *table = part_of(page, "Table of the largest weights by context", "</table>");
    int n_rows = 0;
    for (const char *at = table; (at = strstr(at, "<th scope=\"row\">")); at++) n_rows++;
    assert_int_equal(n_rows, 24);
    assert_has(table, ">1,000</th>");
    assert_has(table, ">1,143</th>");
    free(table);
    free(page);
}

static void dead_blocks_stand_by_size(void **state) {
    (void)state;
    json_t *results = sample_results();
    char *page = page_of(results), *section = section_of(page, "mass"), *text = text_of(section);
    assert_has(text, "16 queries \xc3\x97 16 keys0%41.2%");
    assert_has(text, "1 query \xc3\x97 1 key, in all 2 heads that share the key0%77.4%");
    free(text);
    free(section);
    free(page);

    results = sample_results(); /* heads that share nothing: said once */
    put(results, "models.softmax.measures.dead_blocks.blocks.4.heads", json_integer(1));
    put(results, "models.softpick.measures.dead_blocks.blocks.4.heads", json_integer(1));
    page = page_of(results);
    section = section_of(page, "mass");
    assert_lacks(section, "that share the key");
    assert_lacks(section, "77.4%");
    free(section);
    free(page);
}

static void entropy_is_coloured_by_what_it_can_be_at_most(void **state) {
    (void)state;
    json_t *results = sample_results();
    put(results, "models.softmax.measures.entropy.per_layer_head.0.0", json_real(log(256) / 2));
    char *page = page_of(results), *section = section_of(page, "spread");
    assert_has(section, "style=\"--v:0.5\" title=\"layer 0, head 0: 2.773\">2.8</td>");
    assert_has(section, "title=\"layer 1, head 2: \xe2\x80\x93\""); /* silent: null */
    free(section);
    free(page);
}

static void masked_heads_stand_with_as_many_others(void **state) {
    (void)state;
    char *page = page_of(sample_results()), *section = section_of(page, "silent"), *text = text_of(section);
    assert_has(text, "nothing4.0504.070");
    assert_has(text, "heads whose outputs are below 1e-06"
                     "0 of 124.050\xe2\x80\x93"
                     "1 of 124.1304.250");
    free(text);
    free(section);
    free(page);
}

static void peaks_stand_by_layer_with_their_medians(void **state) {
    (void)state;
    char *page = page_of(sample_results()), *table = table_of(page, "Table of the largest activations by layer");
    assert_has(table, "\xe2\x88\x92"
                      "94.5158"); /* layer 2: -31.5 * 3, over 0.6 */
    assert_has(table, "77, 0");
    free(table);
    free(page);
}

static void rollouts_are_drawn(void **state) {
    (void)state;
    char *page = page_of(sample_results()), *section = section_of(page, "maps");
    assert_has(section, "<b>rollout</b>");
    assert_has(section, "fill-opacity=\"0.75\" d=\"M0 1h2v1h-2z\""); /* the second row: 1/2 twice, by its root */
    free(section);
    json_t *results = sample_results();
    put(results, "models.softmax.maps.rollout", NULL);
    put(results, "models.softpick.maps.rollout", NULL);
    free(page);
    page = page_of(results);
    assert_lacks(page, "<b>rollout</b>");
    free(page);
}

static void tasks_have_differences_and_standard_errors(void **state) {
    (void)state;
    char *page = page_of(sample_results()), *section = section_of(page, "evaluation"), *text = text_of(section);
    assert_has(text, "arc_easy 2,376 samplesacc41.0% \xc2\xb1"
                     "1.0%43.0% \xc2\xb1"
                     "1.0%+2.0 points \xc2\xb1"
                     "1.4%");
    assert_has(text, "acc_norm37.5%");
    assert_has(text, "wikitextword_perplexity less is better61.560.5\xe2\x88\x92"
                     "1.0\n"); /* "N/A" is no standard error */
    assert_lacks(text, "alias");
    free(text);
    free(section);
    free(page);
}

static void task_of_one_model_alone_is_shown(void **state) {
    (void)state;
    json_t *results = sample_results();
    put(results, "models.softpick.evaluation.results.</td><i>,x",
        json_pack("{s:f, s:f}", "exact_match,<filter>", 0.25, "exact_match_stderr,<filter>", 0.01));
    char *page = page_of(results), *section = section_of(page, "evaluation"), *text = text_of(section);
    assert_has(text, "&lt;/td&gt;&lt;i&gt;,xexact_match, &lt;filter&gt;");
    assert_has(text, "\xe2\x80\x93"
                     "0.250");
    free(text);
    free(section);
    free(page);
}

static void passkeys_stand_by_depth_and_length(void **state) {
    (void)state;
    char *page = page_of(sample_results()), *section = section_of(page, "evaluation"), *text = text_of(section);
    assert_has(section, "title=\"depth 0.5, tokens 240: 40.0%\">40</td>");
    assert_has(section, "title=\"depth 1, tokens 480: \xe2\x80\x93\"");
    assert_has(text, "protocol paper \xc2\xb7 10 trials in a cell");
    free(text);
    free(section);
    free(page);
    json_t *results = sample_results(); /* where the protocol draws the depth */
    put(results, "models.softpick.evaluation.passkey.depths", json_pack("[s]", "random"));
    put(results, "models.softpick.evaluation.passkey.accuracy", json_pack("[[f,f,n]]", 0.5, 0.25));
    page = page_of(results);
    assert_has(page, "title=\"depth random, tokens 120: 50.0%\"");
    free(page);
}

static void nothing_is_drawn_of_what_was_not_evaluated(void **state) {
    (void)state;
    static const char *const parts[] = {"evaluation", "checkpoints"};
    static const char *const measures[] = {"entropy", "largest_weight", "dead_blocks", "masking",
                                           "sink_rate_elsewhere"};
    json_t *results = sample_results();
    for (int m = 0; m < 2; m++) {
        char path[96];
        const char *model = m ? "softpick" : "softmax";
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            snprintf(path, sizeof path, "models.%s.%s", model, parts[i]);
            put(results, path, NULL);
        }
        for (size_t i = 0; i < sizeof measures / sizeof *measures; i++) {
            snprintf(path, sizeof path, "models.%s.measures.%s", model, measures[i]);
            put(results, path, NULL);
        }
        snprintf(path, sizeof path, "models.%s.measures.sink_rate.by_length", model);
        put(results, path, NULL);
        snprintf(path, sizeof path, "models.%s.measures.massive_activations.by_layer", model);
        put(results, path, NULL);
    }
    char *page = page_of(results);
    static const char *const absent[] = {
        "id=\"evaluation\"",           "id=\"spread\"",       "<b>dead blocks</b>", "dead heads masked",
        "Dead heads over training",    "Sink rate by length", "Weight by position", "passkey",
        "largest activations by layer"};
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) assert_lacks(page, absent[i]);
    assert_lacks(page, "entropy of a row");
    free(page);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(curves_have_tables_of_their_numbers),
        cmocka_unit_test(traces_of_nothing_are_said_not_drawn),
        cmocka_unit_test(long_curves_have_short_tables_with_both_ends),
        cmocka_unit_test(dead_blocks_stand_by_size),
        cmocka_unit_test(entropy_is_coloured_by_what_it_can_be_at_most),
        cmocka_unit_test(masked_heads_stand_with_as_many_others),
        cmocka_unit_test(peaks_stand_by_layer_with_their_medians),
        cmocka_unit_test(rollouts_are_drawn),
        cmocka_unit_test(tasks_have_differences_and_standard_errors),
        cmocka_unit_test(task_of_one_model_alone_is_shown),
        cmocka_unit_test(passkeys_stand_by_depth_and_length),
        cmocka_unit_test(nothing_is_drawn_of_what_was_not_evaluated),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
