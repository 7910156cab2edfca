/* Results that are no results: one sentence that names the file and the key, and no page; and how numbers are shaped. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <math.h>

#include "report/html.h"
#include "report_support.h"

static void assert_refused(sp_status status, sp_status expected, const char *said) {
    char message[256];
    snprintf(message, sizeof message, "%s: %s", results_path, said);
    assert_string_equal(sp_last_message(), message);
    assert_int_equal(status, expected);
    assert_false(sp_file_exists(page_path));
}

static void assert_text_refused(const char *text, const char *said) {
    assert_int_equal(sp_file_write(results_path, text, (int64_t)strlen(text)), SP_OK);
    assert_refused(sp_report_write(page_path, results_path), SP_BAD_FILE, said);
}

static void missing_file_is_refused(void **state) {
    (void)state;
    unlink(results_path);
    assert_refused(sp_report_write(page_path, results_path), SP_IO, "No such file or directory");
}

static void what_is_not_results_json_is_refused(void **state) {
    (void)state;
    assert_text_refused("", "the file is empty");
    assert_text_refused("[1, 2]", "not a JSON object");
    assert_text_refused("{}", "schema is missing: not a results.json of softpick");
    assert_text_refused("{\"schema\": \"other/1\"}", "schema is \"other/1\", not \"softpick-results/1\"");
}

static void broken_json_is_refused_with_its_line(void **state) {
    (void)state;
    static const char text[] = "{\n\"schema\": \"softpick-results/1\",\n\"models\": }";
    assert_int_equal(sp_file_write(results_path, text, (int64_t)strlen(text)), SP_OK);
    assert_int_equal(sp_report_write(page_path, results_path), SP_BAD_FILE);
    assert_non_null(strstr(sp_last_message(), "results.json: line 3, column "));
    assert_false(sp_file_exists(page_path));
}

static void later_schema_is_refused_as_such(void **state) {
    (void)state;
    json_t *results = sample_results();
    put(results, "schema", json_string("softpick-results/2"));
    assert_refused(render(results), SP_VERSION,
                   "schema is \"softpick-results/2\", and this program reads \"softpick-results/1\" alone");
}

static void each_missing_key_is_named(void **state) {
    (void)state;
    static const char *const keys[] = {"softpick",
                                       "softpick.version",
                                       "machine",
                                       "settings",
                                       "settings.T",
                                       "settings.dtype",
                                       "settings.seed",
                                       "model",
                                       "model.layers",
                                       "models",
                                       "models.softpick.attention_function",
                                       "models.softmax.curve.step",
                                       "models.softmax.maps.tokens",
                                       "models.softmax.maps.rollout.weights",
                                       "models.softmax.checkpoints.step",
                                       "models.softmax.measures.sink_rate.by_length.length",
                                       "models.softmax.measures.largest_weight.by_context.weight",
                                       "models.softmax.measures.sink_rate_elsewhere.by_position.position",
                                       "models.softpick.evaluation.passkey.lengths"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char said[128];
        snprintf(said, sizeof said, "%s is missing", keys[i]);
        json_t *results = sample_results();
        put(results, keys[i], NULL);
        assert_refused(render(results), SP_BAD_FILE, said);
    }
}

static void each_wrong_type_is_named(void **state) {
    (void)state;
    static const struct {
        const char *key, *said;
    } cases[] = {
        {"created", "created is not a string"},
        {"settings.steps", "settings.steps is not an integer"},
        {"settings.text", "settings.text is not a list of strings"},
        {"settings.tokenizer", "settings.tokenizer is not an object"},
        {"settings.tokenizer.kind", "settings.tokenizer.kind is not a string"},
        {"models", "models is not an object"},
        {"models.softmax", "models.softmax is not an object"},
        {"models.softmax.validation_loss", "models.softmax.validation_loss is not a number"},
        {"models.softmax.measures", "models.softmax.measures is not an object"},
        {"models.softmax.measures.kurtosis", "models.softmax.measures.kurtosis is not an object"},
        {"models.softmax.measures.kurtosis.value", "models.softmax.measures.kurtosis.value is not a number"},
        {"models.softmax.measures.kurtosis.per_layer.1",
         "models.softmax.measures.kurtosis.per_layer is not a list of numbers or nulls"},
        {"models.softmax.measures.row_mass.per_layer_head.2",
         "models.softmax.measures.row_mass.per_layer_head is not a list of lists of numbers"},
        {"models.softmax.measures.massive_activations.top.0.layer",
         "models.softmax.measures.massive_activations.top[0].layer is not an integer"},
        {"models.softmax.curve.loss", "models.softmax.curve.loss is not a list of numbers or nulls"},
        {"models.softmax.maps.maps.1", "models.softmax.maps.maps is not a list of objects"},
        {"models.softmax.maps.maps.1.layer", "models.softmax.maps.maps[1].layer is not an integer"},
        {"models.softmax.maps.tokens.0", "models.softmax.maps.tokens is not a list of strings"},
        {"models.softmax.measures.dead_blocks.blocks.1.keys",
         "models.softmax.measures.dead_blocks.blocks[1].keys is not a number"},
        {"models.softmax.measures.masking.masked.0.control_losses",
         "models.softmax.measures.masking.masked[0].control_losses is not a list of numbers or nulls"},
        {"models.softmax.measures.massive_activations.by_layer.1.top.0.channel",
         "models.softmax.measures.massive_activations.by_layer[1].top[0].channel is not an integer"},
        {"models.softmax.measures.massive_activations.by_layer.2",
         "models.softmax.measures.massive_activations.by_layer is not a list of objects"},
        {"models.softmax.checkpoints", "models.softmax.checkpoints is not an object"},
        {"models.softmax.checkpoints.measures.dead_heads",
         "models.softmax.checkpoints.measures.dead_heads is not a list of numbers or nulls"},
        {"models.softmax.evaluation", "models.softmax.evaluation is not an object"},
        {"models.softmax.evaluation.results.arc_easy", "models.softmax.evaluation.results.arc_easy is not an object"},
        {"models.softmax.evaluation.passkey.depths", "models.softmax.evaluation.passkey.depths is not a list"},
        {"models.softmax.evaluation.passkey.accuracy.0",
         "models.softmax.evaluation.passkey.accuracy is not a list of lists of numbers"},
        {"models.softmax.maps.rollout.weights.0",
         "models.softmax.maps.rollout.weights is not a list of lists of numbers"},
        {"models.softmax.samples.0.text", "models.softmax.samples[0].text is not a string"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *results = sample_results();
        put(results, cases[i].key, json_true());
        assert_refused(render(results), SP_BAD_FILE, cases[i].said);
    }
}

static void lengths_that_disagree_are_named(void **state) {
    (void)state;
    static const struct {
        const char *key, *json, *said;
    } cases[] = {
        {"models", "{}", "models is empty"},
        {"models.softmax.curve.step", "[1, 2, 3]", "models.softmax.curve has 3 values in step, 50 in loss"},
        {"models.softmax.curve.validation_loss", "[1]",
         "models.softmax.curve has 10 values in validation_step, 1 in validation_loss"},
        {"models.softmax.measures.row_mass.per_layer_head.2", "[1, 1]",
         "models.softmax.measures.row_mass.per_layer_head has 2 heads in layer 2, 4 in layer 0"},
        {"models.softmax.maps.tokens", "[\"a\", \"b\"]",
         "models.softmax.maps.maps[0].weights has 10 rows for 2 tokens"},
        {"models.softmax.maps.maps.0.weights.3", "[0,0,0,0,0,0,0,0,0,0,0]",
         "models.softmax.maps.maps[0].weights[3] has 11 weights for 10 tokens"},
        {"models.softmax.maps.rollout.weights", "[[1]]",
         "models.softmax.maps.rollout.weights has 1 rows for 10 tokens"},
        {"models.softmax.measures.sink_rate.by_length.row_normalised", "[1, 2]",
         "models.softmax.measures.sink_rate.by_length has 5 values in length, 2 in row_normalised"},
        {"models.softmax.measures.largest_weight.by_context.live_rows", "[1, 2]",
         "models.softmax.measures.largest_weight.by_context has 9 values in keys, 2 in live_rows"},
        {"models.softmax.checkpoints.measures.dead_heads", "[1, 2]",
         "models.softmax.checkpoints.measures.dead_heads has 2 values for 5 steps"},
        {"models.softmax.evaluation.passkey.depths", "[0, 1]",
         "models.softmax.evaluation.passkey.accuracy has 3 rows for 2 depths"},
        {"models.softmax.evaluation.passkey.accuracy.1", "[0, 1]",
         "models.softmax.evaluation.passkey.accuracy[1] has 2 values for 3 lengths"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *results = sample_results();
        put(results, cases[i].key, json_loads(cases[i].json, 0, NULL));
        assert_refused(render(results), SP_BAD_FILE, cases[i].said);
    }
}

static int64_t count_files(void) {
    int64_t n = 0;
    DIR *folder = opendir(scratch);
    for (const struct dirent *entry; (entry = readdir(folder));) n += entry->d_name[0] != '.';
    closedir(folder);
    return n;
}

static void earlier_page_survives_bad_results(void **state) {
    (void)state;
    assert_int_equal(sp_file_write(page_path, "earlier", 7), SP_OK);
    json_t *results = sample_results();
    put(results, "models", NULL);
    assert_int_equal(render(results), SP_BAD_FILE);
    char *page = NULL;
    assert_int_equal(sp_file_read(page_path, &page, NULL), SP_OK);
    assert_string_equal(page, "earlier");
    assert_int_equal(count_files(), 2); /* and nothing temporary */
    free(page);
    unlink(page_path);
}

static void page_that_cannot_be_written_is_named(void **state) {
    (void)state;
    char path[160];
    snprintf(path, sizeof path, "%s/missing/report.html", scratch);
    json_t *results = sample_results();
    assert_int_equal(sp_json_write(results_path, results), SP_OK);
    json_decref(results);
    assert_int_equal(sp_report_write(path, results_path), SP_IO);
    assert_memory_equal(sp_last_message(), path, strlen(path));
}

static void full_disk_is_reported_and_leaves_nothing(void **state) {
    (void)state;
    /* A page of hundreds of kilobytes written to /dev/full through the writer's own temporary name. */
    char page[160], temporary[192];
    snprintf(page, sizeof page, "%s/full.html", scratch);
    snprintf(temporary, sizeof temporary, "%s.tmp.%ld", page, (long)getpid());
    assert_int_equal(symlink("/dev/full", temporary), 0);
    json_t *results = sample_results();
    assert_int_equal(sp_json_write(results_path, results), SP_OK);
    json_decref(results);
    int64_t n_files = count_files();
    assert_int_equal(sp_report_write(page, results_path), SP_IO);
    assert_non_null(strstr(sp_last_message(), "No space left on device"));
    assert_false(sp_file_exists(page));
    assert_int_equal(count_files(), n_files - 1); /* the temporary name is gone */
}

/* ---- numbers ---- */

static void numbers_have_three_or_four_digits(void **state) {
    (void)state;
    static const struct {
        double value;
        sp_html_unit unit;
        const char *text;
    } cases[] = {
        {0, SP_HTML_UNIT_PLAIN, "0"},
        {3.6614, SP_HTML_UNIT_PLAIN, "3.661"},
        {15.81, SP_HTML_UNIT_PLAIN, "15.8"},
        {9.9996, SP_HTML_UNIT_PLAIN, "10.0"},
        {177.4, SP_HTML_UNIT_PLAIN, "177"},
        {999.7, SP_HTML_UNIT_PLAIN, "1,000"},
        {6717, SP_HTML_UNIT_PLAIN, "6,717"},
        {-282, SP_HTML_UNIT_PLAIN,
         "\xe2\x88\x92"
         "282"},
        {1e-6, SP_HTML_UNIT_PLAIN, "1e-06"},
        {NAN, SP_HTML_UNIT_PLAIN, "\xe2\x80\x93"},
        {33685504, SP_HTML_UNIT_COUNT, "33,685,504"},
        {12, SP_HTML_UNIT_COUNT, "12"},
        {0.5, SP_HTML_UNIT_COUNT, "0.500"},
        {0, SP_HTML_UNIT_COUNT, "0"},
        {0, SP_HTML_UNIT_SHARE, "0%"},
        {1, SP_HTML_UNIT_SHARE, "100%"},
        {0.886, SP_HTML_UNIT_SHARE, "88.6%"},
        {0.0042, SP_HTML_UNIT_SHARE, "0.42%"},
        {1e-6, SP_HTML_UNIT_SHARE, "&lt;0.01%"},
        {0.999999, SP_HTML_UNIT_SHARE, "&gt;99.99%"},
        {0.9996, SP_HTML_UNIT_SHARE, "99.96%"},
        {1e300, SP_HTML_UNIT_COUNT, "1e+300"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(sp_html_number_of(cases[i].value, cases[i].unit).text, cases[i].text);
}

static void differences_have_a_sign(void **state) {
    (void)state;
    assert_string_equal(sp_html_difference_of(0, 0.886, SP_HTML_UNIT_SHARE).text, "+88.6 points");
    assert_string_equal(sp_html_difference_of(3.689, 3.661, SP_HTML_UNIT_PLAIN).text, "\xe2\x88\x92"
                                                                                      "0.028");
    assert_string_equal(sp_html_difference_of(58.2, 61.74, SP_HTML_UNIT_PLAIN).text, "+3.5");
    assert_string_equal(sp_html_difference_of(6717, 6715.4, SP_HTML_UNIT_PLAIN).text, "\xe2\x88\x92"
                                                                                      "2");
    assert_string_equal(sp_html_difference_of(5, 5, SP_HTML_UNIT_COUNT).text, "0");
    assert_string_equal(sp_html_difference_of(NAN, 5, SP_HTML_UNIT_COUNT).text, "\xe2\x80\x93");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_file_is_refused),
        cmocka_unit_test(what_is_not_results_json_is_refused),
        cmocka_unit_test(broken_json_is_refused_with_its_line),
        cmocka_unit_test(later_schema_is_refused_as_such),
        cmocka_unit_test(each_missing_key_is_named),
        cmocka_unit_test(each_wrong_type_is_named),
        cmocka_unit_test(lengths_that_disagree_are_named),
        cmocka_unit_test(earlier_page_survives_bad_results),
        cmocka_unit_test(page_that_cannot_be_written_is_named),
        cmocka_unit_test(full_disk_is_reported_and_leaves_nothing),
        cmocka_unit_test(numbers_have_three_or_four_digits),
        cmocka_unit_test(differences_have_a_sign),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
