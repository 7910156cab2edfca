/* What holds for every variant of the table, by name, and how one is chosen.  Agreement with the definition:
 * test_attention_property.c. */
#define _GNU_SOURCE /* setenv */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_agree.h"
#include "base/status.h"

static attention_shape medium = {.B = 2,
                                 .T = 200,
                                 .S = 200,
                                 .H = 4,
                                 .Hkv = 2,
                                 .D = 40,
                                 .Dv = 24,
                                 .causal = true,
                                 .lambda = 1,
                                 .eps = SP_EPS_DEFAULT,
                                 .spread = 3,
                                 .seed = 3};

/* Calls `check` with each variant of the table forced in turn, in each dtype of `medium` that it takes; those the CPU
 * lacks are told and passed over. */
static void with_each_variant(void (*check)(void)) {
    static const sp_dtype dtypes[] = {SP_DTYPE_F32, SP_DTYPE_BF16};
    for (int i = 0; i < 2 * sp_attention_table.n_rows; i++) {
        const sp_variant *row = sp_variant_at(&sp_attention_table, i / 2);
        const char *name;
        if (row->needs & ~sp_cpu_features()) {
            print_message("variant %s: not run, this CPU lacks what it needs\n", row->name);
            continue;
        }
        attention_case c;
        medium.dtype = dtypes[i % 2];
        case_open(&c, &medium);
        setenv("SP_ATTENTION", row->name, 1);
        if (sp_attention_choose(&c.problem, SP_ATTENTION_BACKWARD, &name) == SP_OK) check();
        unsetenv("SP_ATTENTION");
        case_close(&c);
        medium.dtype = SP_DTYPE_F32;
    }
}

/* ---- properties that hold to the bit ---------------------------------------------------------------------------- */

static void run_both(attention_case *c, int n_threads) {
    case_poison(c);
    assert_int_equal(case_run(c, SP_ATTENTION_FORWARD, n_threads), SP_OK);
    assert_int_equal(case_run(c, SP_ATTENTION_BACKWARD, n_threads), SP_OK);
}

static void check_repeats(void) {
    for (int kind = 0; kind < SP_NORMALIZER_COUNT; kind++) {
        attention_shape shape = medium;
        shape.normalizer = (sp_normalizer)kind;
        shape.row_factor = kind == 0;
        attention_case once, again;
        case_open(&once, &shape), case_open(&again, &shape);
        run_both(&once, 1);
        for (int n_threads = 1; n_threads <= 4; n_threads += 3) {
            run_both(&again, n_threads);
            assert_null(agree_difference(&once, &again));
        }
        case_close(&once), case_close(&again);
    }
}

static void same_bits_again_and_with_any_number_of_threads(void **state) {
    (void)state;
    with_each_variant(check_repeats);
}

/* Gaps between tensors keep their NaN, that is: nothing is written outside. */
static void check_gaps(void) {
    attention_case c;
    case_open(&c, &medium);
    run_both(&c, 1);
    static const int outputs[] = {3, 5, 6, 7};
    for (int i = 0; i < 4; i++) {
        sp_tensor *tensor = c.tensors[outputs[i]];
        double *numbers = case_numbers(tensor);
        for (int64_t j = 0; j < sp_tensor_count(tensor); j++) assert_true(isfinite(numbers[j]));
        free(numbers);
        const unsigned char *block = c.blocks[outputs[i]];
        int64_t token = tensor->stride[1], used = tensor->shape[2] * tensor->shape[3];
        int64_t bytes = sp_dtype_bytes(tensor->dtype);
        for (int64_t t = 0; t < tensor->shape[1]; t++)
            for (int64_t gap = used * bytes; gap < token * bytes; gap++)
                assert_int_equal(block[t * token * bytes + gap], 0xff);
    }
    case_close(&c);
}

static void all_outputs_and_nothing_else_are_written(void **state) {
    (void)state;
    with_each_variant(check_gaps);
}

/* NaN in one query makes that row NaN and no other. */
static void check_nan_query(void) {
    for (int kind = 0; kind < SP_NORMALIZER_COUNT; kind++) {
        attention_shape shape = medium;
        shape.normalizer = (sp_normalizer)kind;
        attention_case c;
        case_open(&c, &shape);
        case_store(&c.problem.q, 1, 77, 2, 5, NAN);
        assert_int_equal(case_run(&c, SP_ATTENTION_FORWARD, 1), SP_OK);
        for (int64_t t = 0; t < shape.T; t++)
            for (int64_t h = 0; h < shape.H; h++)
                assert_true(isnan(case_load(&c.problem.out, 1, t, h, 3)) == (t == 77 && h == 2));
        case_close(&c);
    }
}

static void nan_in_a_query_stays_in_its_row(void **state) {
    (void)state;
    with_each_variant(check_nan_query);
}

/* One query that looks at the first channel alone, by a scale of 1: a key's score is its first number. */
static void open_one_query(attention_case *c, attention_shape *shape) {
    shape->B = shape->T = shape->H = shape->Hkv = 1;
    case_open(c, shape);
    c->problem.scale = 1;
    for (int64_t d = 0; d < shape->D; d++) case_store(&c->problem.q, 0, 0, 0, d, d == 0);
}

/* One positive score among many that are far below zero: its value comes out whole, wherever it stands. */
static void check_one_positive(void) {
    static const int64_t places[] = {0, 15, 63, 64, 130, 199};
    for (int i = 0; i < 6; i++) {
        attention_shape shape = medium;
        shape.eps = 0, shape.lambda = 0;
        attention_case c;
        open_one_query(&c, &shape);
        for (int64_t j = 0; j < shape.S; j++) case_store(&c.problem.k, 0, j, 0, 0, j == places[i] ? 3 : -200);
        assert_int_equal(case_run(&c, SP_ATTENTION_FORWARD, 1), SP_OK);
        for (int64_t d = 0; d < shape.Dv; d++) {
            double value = case_load(&c.problem.v, 0, places[i], 0, d);
            assert_true(fabs(case_load(&c.problem.out, 0, 0, 0, d) - value) <= agree_ulp(shape.dtype) * fabs(value));
        }
        case_close(&c);
    }
}

static void one_positive_score_takes_all_when_lambda_is_zero(void **state) {
    (void)state;
    with_each_variant(check_one_positive);
}

/* Scores of exactly 0 in every position have no weight, whatever shift the others bring about. */
static void check_zero_scores(void) {
    for (double top = 0; top < 200; top += 33) {
        attention_shape shape = medium;
        attention_case c;
        open_one_query(&c, &shape);
        for (int64_t j = 0; j < shape.S; j++) {
            case_store(&c.problem.k, 0, j, 0, 0, j == 70 ? top : 0);
            for (int64_t d = 0; d < shape.Dv; d++) case_store(&c.problem.v, 0, j, 0, d, j == 70 ? 0 : 1e30);
        }
        assert_int_equal(case_run(&c, SP_ATTENTION_FORWARD, 1), SP_OK);
        for (int64_t d = 0; d < shape.Dv; d++) assert_true(case_load(&c.problem.out, 0, 0, 0, d) == 0);
        case_close(&c);
    }
}

static void scores_of_exactly_zero_weigh_nothing(void **state) {
    (void)state;
    with_each_variant(check_zero_scores);
}

/* ---- the choice ------------------------------------------------------------------------------------------------- */

static void the_best_row_that_the_features_allow_is_chosen(void **state) {
    (void)state;
    attention_case c;
    const char *chosen, *name, *why;
    uint32_t features = sp_cpu_features();
    bool found = false;
    case_open(&c, &medium);
    assert_int_equal(sp_attention_choose(&c.problem, SP_ATTENTION_FORWARD, &chosen), SP_OK);
    assert_string_equal(chosen, features & SP_CPU_AVX512 ? "avx512"
                                : features & SP_CPU_AVX2 ? "avx2"
                                : features & SP_CPU_NEON ? "neon"
                                                         : "scalar");
    for (int i = 0; i < sp_attention_table.n_rows; i++) {
        bool takes = sp_attention_variant(&c.problem, SP_ATTENTION_FORWARD, i, &name, &why);
        assert_true(takes == (strlen(why) == 0)); /* a refusal gives its reason */
        found = found || strcmp(name, chosen) == 0;
        if (agree_on_cpu(i)) assert_true(takes == found); /* those above the chosen row refuse, those below would do */
    }
    assert_false(sp_attention_variant(&c.problem, SP_ATTENTION_FORWARD, 99, &name, &why));
    assert_null(name);
    case_close(&c);
}

static void a_forced_row_runs_or_the_call_fails(void **state) {
    (void)state;
    attention_case c;
    const char *name;
    case_open(&c, &medium);
    setenv("SP_ATTENTION", "scalar", 1);
    assert_int_equal(sp_attention_choose(&c.problem, SP_ATTENTION_FORWARD, &name), SP_OK);
    assert_string_equal(name, "scalar");
    setenv("SP_ATTENTION", "sclar", 1);
    assert_int_equal(sp_attention_choose(&c.problem, SP_ATTENTION_FORWARD, &name), SP_BAD_ARGUMENT);
    assert_non_null(strstr(sp_last_message(), "SP_ATTENTION=sclar"));
    const sp_variant *best = sp_variant_at(&sp_attention_table, 0);
    setenv("SP_ATTENTION", best->name, 1);
    if (best->needs & ~sp_cpu_features())
        assert_int_equal(sp_attention_choose(&c.problem, SP_ATTENTION_FORWARD, &name), SP_UNSUPPORTED);
    unsetenv("SP_ATTENTION");
    case_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits_again_and_with_any_number_of_threads),
        cmocka_unit_test(all_outputs_and_nothing_else_are_written),
        cmocka_unit_test(nan_in_a_query_stays_in_its_row),
        cmocka_unit_test(one_positive_score_takes_all_when_lambda_is_zero),
        cmocka_unit_test(scores_of_exactly_zero_weigh_nothing),
        cmocka_unit_test(the_best_row_that_the_features_allow_is_chosen),
        cmocka_unit_test(a_forced_row_runs_or_the_call_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
