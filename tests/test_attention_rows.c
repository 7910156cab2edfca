/* Weights handed out row by row are those of the definition. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_case.h"
#include "base/status.h"

/* What one call to the row function must find: weights by the definition, from v = the identity. */
typedef struct expected_rows {
    const sp_attention *problem;
    double *weights; /* (n_sequences,T,H,S) */
    int64_t n_rows;
    int64_t last_t[3][8]; /* per sequence and head, for the order of calls */
} expected_rows;

static void check_row(void *user, int64_t b, int64_t h, int64_t t, const float *weights, const float *scores,
                      int64_t first, int64_t end) {
    expected_rows *expected = user;
    const sp_attention *p = expected->problem;
    sp_sequence sequence = sp_problem_sequence(p, b);
    sp_key_range keys = sp_problem_visible(p, &sequence, t);
    int64_t S = p->k.shape[1], H = p->q.shape[2];
    const double *wanted = expected->weights + ((sequence.b * p->q.shape[1] + sequence.q_first + t) * H + h) * S;
    assert_int_equal(first, keys.first);
    assert_int_equal(end, keys.end);
    assert_int_equal(t, expected->last_t[b][h]++);
    double scale = sp_problem_row_scale(p, &sequence, h, t);
    for (int64_t j = 0; j < sequence.n_k_rows; j++) {
        double w = wanted[sequence.k_first + j], score = 0;
        assert_true(fabs((double)weights[j] - w) <= 3e-6);
        if (j < first || j >= end) {
            assert_true(isnan(scores[j]) && weights[j] == 0);
            continue;
        }
        for (int64_t d = 0; d < p->q.shape[3]; d++)
            score += case_load(&p->q, sequence.b, sequence.q_first + t, h, d) *
                     case_load(&p->k, sequence.b, sequence.k_first + j, sp_problem_key_head(p, h), d);
        assert_true(fabs((double)scores[j] - scale * score) <= 1e-5);
        if (p->normalizer == SP_NORMALIZER_SOFTPICK) assert_true((weights[j] > 0) == (scores[j] > 0));
    }
#pragma omp atomic
    expected->n_rows++;
}

static void check_shape(attention_shape shape) {
    attention_case c;
    shape.Dv = shape.S;
    case_open(&c, &shape);
    for (int64_t b = 0; b < shape.B; b++)
        for (int64_t j = 0; j < shape.S; j++)
            for (int64_t h = 0; h < shape.Hkv; h++)
                for (int64_t d = 0; d < shape.S; d++) case_store(&c.problem.v, b, j, h, d, j == d);
    assert_int_equal(sp_attention_define_forward(&c.problem), SP_OK);
    expected_rows expected = {.problem = &c.problem, .weights = case_numbers(&c.problem.out)};
    c.problem.v = c.problem.out = (sp_tensor){0}; /* q and k alone are needed */
    c.problem.lse = NULL;
    assert_int_equal(sp_attention_rows(&c.problem, check_row, &expected), SP_OK);
    assert_int_equal(expected.n_rows, shape.B * shape.T * shape.H);
    free(expected.weights);
    case_close(&c);
}

static void rows_are_those_of_the_definition(void **state) {
    (void)state;
    for (int kind = 0; kind < SP_NORMALIZER_COUNT; kind++) {
        attention_shape shape = {.B = 2,
                                 .T = 70,
                                 .S = 70,
                                 .H = 4,
                                 .Hkv = 2,
                                 .D = 20,
                                 .causal = true,
                                 .lambda = 1,
                                 .eps = SP_EPS_DEFAULT,
                                 .spread = 2,
                                 .normalizer = (sp_normalizer)kind};
        check_shape(shape);
        shape.window = 9, shape.row_factor = true;
        check_shape(shape);
        shape.window = 0, shape.causal = false, shape.lengths = true, shape.T = 11;
        check_shape(shape);
        shape.lengths = false, shape.B = 1, shape.n_packed = 3, shape.causal = true;
        check_shape(shape);
    }
}

static void what_is_missing_is_named(void **state) {
    (void)state;
    attention_shape shape = {.B = 1, .T = 2, .S = 2, .H = 1, .Hkv = 1, .D = 4, .Dv = 4, .causal = true, .lambda = 1};
    attention_case c;
    case_open(&c, &shape);
    assert_int_equal(sp_attention_rows(&c.problem, NULL, NULL), SP_BAD_ARGUMENT);
    assert_string_equal(sp_last_message(), "function is NULL");
    c.problem.k.shape[2] = 3;
    assert_int_equal(sp_attention_rows(&c.problem, check_row, NULL), SP_BAD_ARGUMENT);
    assert_non_null(strstr(sp_last_message(), "k has 3 heads"));
    case_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_those_of_the_definition),
        cmocka_unit_test(what_is_missing_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
