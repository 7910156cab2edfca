/* Answers to metrics: which choice wins, and what documents add up to.  Expected values: lm-eval 0.4.13's functions on
 * Python 3.11, and numbers one can see. */
#include "text_fixture.h"

#include <math.h>

#include "evaluate/metric.h"
#include "evaluate/task.h"

/* Choices of a document, until NULL. */
static sp_document choices_of(const char *const *choices, int64_t gold) {
    sp_document document = {.gold = gold};
    for (; *choices; choices++) assert_ok(sp_strings_add(&document.continuations, *choices, (int64_t)strlen(*choices)));
    assert_ok(sp_strings_add(&document.contexts, "c", 1));
    document.n_answers = document.continuations.n;
    return document;
}

static void clear(sp_document *document) {
    sp_documents documents = {.items = malloc(sizeof *document), .n = 1};
    documents.items[0] = *document;
    sp_documents_clear(&documents);
}

static const sp_task choice_task = {
    .name = "t", .kind = &sp_task_kind_choice, .metrics = {"acc", "acc_norm", "acc_bytes"}};

/* The document's values of acc, acc_norm, acc_bytes. */
static void check_choice(const char *const *choices, const double *sums, int64_t gold, double acc, double norm,
                         double bytes) {
    sp_document document = choices_of(choices, gold);
    sp_answer answers[8];
    sp_metric_value values[3];
    for (int64_t i = 0; i < document.n_answers; i++) answers[i] = (sp_answer){sums[i], false};
    sp_task_kind_choice.judge(values, &choice_task, &document, answers);
    assert_true(values[0].value == acc && values[1].value == norm && values[2].value == bytes);
    clear(&document);
}

static void the_largest_log_probability_wins(void **state) {
    (void)state;
    const char *const choices[] = {"a", "b", "c", NULL};
    check_choice(choices, (double[]){-3, -1, -2}, 1, 1, 1, 1);
    check_choice(choices, (double[]){-3, -1, -2}, 2, 0, 0, 0);
}

static void the_first_of_equals_wins(void **state) {
    (void)state;
    const char *const choices[] = {"a", "b", "c", NULL};
    check_choice(choices, (double[]){-3, -1, -1}, 1, 1, 1, 1);
    check_choice(choices, (double[]){-3, -1, -1}, 2, 0, 0, 0);
}

/* -4 / 2 characters, -5 / 4 characters */
static void acc_norm_is_per_character(void **state) {
    (void)state;
    const char *const choices[] = {"no", "yes!", NULL};
    check_choice(choices, (double[]){-4, -5}, 0, 1, 0, 0);
    check_choice(choices, (double[]){-4, -5}, 1, 0, 1, 1);
}

/* "日本" is 2 characters of 6 bytes: -3 / 2 against -4 / 3, -3 / 6 against -4 / 3 */
static void characters_are_not_bytes(void **state) {
    (void)state;
    const char *const choices[] = {"\u65e5\u672c", "abc", NULL};
    check_choice(choices, (double[]){-3, -4}, 0, 1, 0, 1);
}

/* numpy: -1 / 0 is -inf, 0 / 0 is NaN, which argmax takes for the largest. */
static void an_empty_choice_is_divided_by_zero(void **state) {
    (void)state;
    const char *const choices[] = {"", "a", NULL};
    check_choice(choices, (double[]){-1, -2}, 0, 1, 0, 0);
    check_choice(choices, (double[]){0, -2}, 0, 1, 1, 1);
}

static void best_is_the_first_nan(void **state) {
    (void)state;
    assert_int_equal(sp_metric_best((double[]){1, 3, 2, 3}, 4), 1);
    assert_int_equal(sp_metric_best((double[]){1, NAN, 9, NAN}, 4), 1);
    assert_int_equal(sp_metric_best((double[]){-INFINITY, -INFINITY}, 2), 0);
}

static void cloze_counts_greedy_answers_and_keeps_sums(void **state) {
    (void)state;
    const sp_task task = {.name = "t", .kind = &sp_task_kind_cloze, .metrics = {"perplexity", "acc"}};
    const char *const choices[] = {" word", NULL};
    sp_document document = choices_of(choices, 0);
    sp_metric_value values[2];
    sp_task_kind_cloze.judge(values, &task, &document, &(sp_answer){-2.5, true});
    assert_true(values[0].value == -2.5 && values[1].value == 1);
    sp_task_kind_cloze.judge(values, &task, &document, &(sp_answer){-2.5, false});
    assert_true(values[1].value == 0);
    clear(&document);
}

static void check_metric(const char *name, const sp_metric_value *values, int64_t n, double expected, double error) {
    const sp_metric *metric = sp_metric_find(name);
    double got;
    assert_true(fabs(sp_metric_value_of(metric, values, n, 1) / expected - 1) < 1e-14);
    assert_ok(sp_metric_error_of(&got, metric, values, n, 1, 1000));
    assert_true(isnan(error) ? isnan(got) : fabs(got / error - 1) < 1e-12);
}

/* mean([1, 0, 0, 1, 1]), mean_stderr of it; perplexity([-2, -3, -1.5]), bootstrap_stderr(perplexity, ..., iters=1000);
 * weighted_perplexity([(-10, 4), (-6, 2)]), bits_per_byte of it */
static void aggregates_are_those_of_lm_eval(void **state) {
    (void)state;
    const sp_metric_value accuracy[] = {{1, 1}, {0, 1}, {0, 1}, {1, 1}, {1, 1}};
    check_metric("acc", accuracy, 5, 0.6, 0.24494897427831783);
    const sp_metric_value sums[] = {{-2, 1}, {-3, 1}, {-1.5, 1}};
    check_metric("perplexity", sums, 3, 8.72913836372013, 3.7318392560378233);
    const sp_metric_value weighted[] = {{-10, 4}, {-6, 2}};
    check_metric("word_perplexity", weighted, 2, 14.391916095149892, NAN);
    check_metric("bits_per_byte", weighted, 2, 3.847186775703902, NAN);
}

static void one_document_has_no_standard_error(void **state) {
    (void)state;
    double error;
    const sp_metric_value value = {1, 1};
    assert_ok(sp_metric_error_of(&error, sp_metric_find("acc"), &value, 1, 1, 1000));
    assert_true(isnan(error));
    const sp_metric_value two[] = {{1, 1}, {0, 1}};
    assert_ok(sp_metric_error_of(&error, sp_metric_find("acc"), two, 2, 1, 0));
    assert_true(isnan(error));
}

/* Every metric that a row of the table or a kind names is in the table of metrics. */
static void every_named_metric_exists(void **state) {
    (void)state;
    for (int64_t i = 0; sp_task_at(i); i++) {
        const sp_task *task = sp_task_at(i);
        assert_true(task->kind->run || sp_task_n_metrics(task) > 0);
        for (int64_t m = 0; !task->kind->run && task->metrics[m]; m++)
            assert_non_null(sp_metric_find(task->metrics[m]));
        for (int64_t m = 0; task->kind->metrics[m]; m++) assert_non_null(sp_metric_find(task->kind->metrics[m]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_largest_log_probability_wins),
        cmocka_unit_test(the_first_of_equals_wins),
        cmocka_unit_test(acc_norm_is_per_character),
        cmocka_unit_test(characters_are_not_bytes),
        cmocka_unit_test(an_empty_choice_is_divided_by_zero),
        cmocka_unit_test(best_is_the_first_nan),
        cmocka_unit_test(cloze_counts_greedy_answers_and_keeps_sums),
        cmocka_unit_test(aggregates_are_those_of_lm_eval),
        cmocka_unit_test(one_document_has_no_standard_error),
        cmocka_unit_test(every_named_metric_exists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
