/* The definition: its derivative by central differences, and the properties that the public header promises. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_case.h"
#include "base/status.h"

/* sum(out * dout): the scalar whose gradients backward returns. */
static double loss(attention_case *c) {
    assert_int_equal(sp_attention_define_forward(&c->problem), SP_OK);
    double *out = case_numbers(&c->problem.out), *dout = case_numbers(&c->problem.dout), sum = 0;
    for (int64_t i = 0; i < sp_tensor_count(&c->problem.out); i++) sum += out[i] * dout[i];
    free(out), free(dout);
    return sum;
}

static void check_tensor_gradient(attention_case *c, int input, int gradient) {
    const sp_tensor *tensor = c->tensors[input];
    const double step = 1e-5;
    double *wanted = case_numbers(c->tensors[gradient]);
    int64_t i = 0;
    for (int64_t b = 0; b < tensor->shape[0]; b++)
        for (int64_t t = 0; t < tensor->shape[1]; t++)
            for (int64_t h = 0; h < tensor->shape[2]; h++)
                for (int64_t d = 0; d < tensor->shape[3]; d++, i++) {
                    double kept = case_load(tensor, b, t, h, d);
                    if (isnan(kept)) { /* a key that is not there */
                        assert_true(wanted[i] == 0);
                        continue;
                    }
                    case_store(tensor, b, t, h, d, kept + step);
                    double above = loss(c);
                    case_store(tensor, b, t, h, d, kept - step);
                    double below = loss(c), difference = (above - below) / (2 * step);
                    case_store(tensor, b, t, h, d, kept);
                    if (fabs(difference - wanted[i]) > 1e-7 * (1 + fabs(difference)))
                        fail_msg("%s, input %d, element %lld: derivative %.12g, difference %.12g",
                                 sp_normalizer_name(c->problem.normalizer), input, (long long)i, wanted[i], difference);
                }
    free(wanted);
}

/* `values` are floats: the step is one they can represent. */
static void check_head_gradient(attention_case *c, const char *what, float *values, const float *gradient) {
    const float step = 0x1p-9f;
    for (int64_t h = 0; h < c->problem.q.shape[2]; h++) {
        float kept = values[h], up = kept + step, down = kept - step;
        values[h] = up;
        double above = loss(c);
        values[h] = down;
        double below = loss(c), difference = (above - below) / (double)(up - down);
        values[h] = kept;
        if (fabs(difference - (double)gradient[h]) > 3e-5 * (1 + fabs(difference)))
            fail_msg("%s of head %lld: derivative %.9g, difference %.9g", what, (long long)h, (double)gradient[h],
                     difference);
    }
}

static void check_gradients(attention_shape shape) {
    shape.dtype = SP_DTYPE_F64;
    attention_case c;
    case_open(&c, &shape);
    loss(&c);
    assert_int_equal(sp_attention_define_backward(&c.problem), SP_OK);
    for (int i = 0; i < 3; i++) check_tensor_gradient(&c, i, i + 5);
    if (c.problem.dsink) check_head_gradient(&c, "sink", c.sink, c.dsink);
    if (c.problem.drow_factor) check_head_gradient(&c, "row factor", c.row_factor, c.drow_factor);
    case_close(&c);
}

static const attention_shape small = {
    .B = 1, .T = 5, .S = 5, .H = 2, .Hkv = 1, .D = 3, .Dv = 3, .causal = true, .lambda = 1, .eps = 1e-6f, .spread = 1};

static void derivative_is_the_central_difference(void **state) {
    (void)state;
    for (int kind = 0; kind < SP_NORMALIZER_COUNT; kind++)
        for (uint64_t seed = 0; seed < 6; seed++) {
            attention_shape shape = small;
            shape.normalizer = (sp_normalizer)kind;
            shape.seed = seed;
            shape.row_factor = seed % 2;
            if (seed == 2) shape.causal = false, shape.S = 7, shape.lengths = true, shape.B = 2;
            if (seed == 3) shape.S = 8, shape.window = 3, shape.Dv = 2;
            if (seed == 4) shape.T = 9, shape.S = 9, shape.n_packed = 4;
            if (seed == 5) shape.T = 6, shape.S = 4;
            check_gradients(shape);
        }
}

static void derivative_holds_for_every_lambda_and_eps(void **state) {
    (void)state;
    const float lambdas[] = {0, 0.3f, 2}, epsilons[] = {0, 1e-6f, 0.5f};
    for (int i = 0; i < 9; i++) {
        attention_shape shape = small;
        shape.lambda = lambdas[i / 3];
        shape.eps = epsilons[i % 3];
        shape.seed = 20 + (uint64_t)i;
        check_gradients(shape);
    }
}

/* One query of D = 1 whose scores are given: the weights, by way of v = the identity. */
static void weights_of(const float *scores, int64_t n, float eps, double *weights) {
    attention_shape shape = {
        .B = 1, .T = 1, .S = n, .H = 1, .Hkv = 1, .D = 1, .Dv = n, .dtype = SP_DTYPE_F64, .lambda = 1, .eps = eps};
    attention_case c;
    case_open(&c, &shape);
    c.problem.scale = 1;
    case_store(&c.problem.q, 0, 0, 0, 0, 1);
    for (int64_t j = 0; j < n; j++) {
        case_store(&c.problem.k, 0, j, 0, 0, (double)scores[j]);
        for (int64_t d = 0; d < n; d++) case_store(&c.problem.v, 0, j, 0, d, j == d);
    }
    assert_int_equal(sp_attention_define_forward(&c.problem), SP_OK);
    for (int64_t j = 0; j < n; j++) weights[j] = case_load(&c.problem.out, 0, 0, 0, j);
    case_close(&c);
}

static void score_of_zero_is_not_positive(void **state) {
    (void)state;
    const float scores[] = {0, 1, -1, 0};
    double weights[4], u = expm1(1);
    weights_of(scores, 4, 0, weights);
    assert_true(weights[0] == 0 && weights[2] == 0 && weights[3] == 0);
    assert_true(fabs(weights[1] - u / (u - expm1(-1))) < 1e-15);
}

/* The paper adds eps after its shift by the row's maximum m: e^m eps to the denominator here. */
static void eps_agrees_with_the_paper_to_its_own_size(void **state) {
    (void)state;
    const double eps = (double)SP_EPS_DEFAULT;
    for (uint64_t row = 0; row < 300; row++) {
        float scores[12];
        double weights[12], sum = 0, m = -INFINITY;
        for (uint64_t j = 0; j < 12; j++) {
            scores[j] = (float)(sp_random_normal(5, row, j) * (row % 3 == 0 ? 0.1 : row % 3 == 1 ? 1 : 8));
            m = fmax(m, (double)scores[j]);
        }
        weights_of(scores, 12, SP_EPS_DEFAULT, weights);
        for (int j = 0; j < 12; j++) sum += fabs(exp((double)scores[j] - m) - exp(-m));
        for (int j = 0; j < 12; j++) {
            double paper = fmax(exp((double)scores[j] - m) - exp(-m), 0) / (sum + eps);
            assert_true(fabs(weights[j] - paper) <= 1.1e-6 * paper);
        }
    }
}

static bool all_zero(const sp_tensor *tensor) {
    double *numbers = case_numbers(tensor);
    bool zero = true;
    for (int64_t i = 0; i < sp_tensor_count(tensor); i++) zero = zero && numbers[i] == 0;
    free(numbers);
    return zero;
}

static void row_without_positive_score_is_zero(void **state) {
    (void)state;
    const sp_normalizer kinds[] = {SP_NORMALIZER_SOFTPICK, SP_NORMALIZER_RECTIFIED};
    for (int i = 0; i < 2; i++) {
        attention_shape shape = small;
        shape.normalizer = kinds[i];
        attention_case c;
        case_open(&c, &shape);
        for (int64_t t = 0; t < 5; t++)
            for (int64_t d = 0; d < 3; d++) {
                case_store(&c.problem.k, 0, t, 0, d, -fabs(case_load(&c.problem.k, 0, t, 0, d)));
                for (int64_t h = 0; h < 2; h++) case_store(&c.problem.q, 0, t, h, d, t == 2 ? 0 : 1);
            }
        assert_int_equal(sp_attention_define_forward(&c.problem), SP_OK);
        assert_int_equal(sp_attention_define_backward(&c.problem), SP_OK);
        for (int j = 3; j < 8; j++) assert_true(j == 4 || all_zero(c.tensors[j]));
        case_close(&c);
    }
}

/* A shape with fewer keys gives what key lengths give. */
static void keys_beyond_the_length_are_not_there(void **state) {
    (void)state;
    for (int kind = 0; kind < SP_NORMALIZER_COUNT; kind++) {
        attention_shape shape = small;
        shape.normalizer = (sp_normalizer)kind;
        shape.causal = false;
        attention_case c;
        int64_t length = 3;
        case_open(&c, &shape);
        c.problem.k.shape[1] = c.problem.v.shape[1] = length;
        loss(&c);
        double *wanted = case_numbers(&c.problem.out);
        c.problem.k.shape[1] = c.problem.v.shape[1] = 5;
        c.problem.key_lengths = &length;
        loss(&c);
        double *found = case_numbers(&c.problem.out);
        assert_memory_equal(wanted, found, (size_t)sp_tensor_count(&c.problem.out) * 8);
        free(wanted), free(found);
        case_close(&c);
    }
}

/* With fewer queries than keys, causal rows are the last rows of the square problem; with a window of S nothing more
 * is hidden. */
static void last_query_sees_last_key(void **state) {
    (void)state;
    attention_shape shape = small;
    attention_case c;
    case_open(&c, &shape);
    loss(&c);
    double *square = case_numbers(&c.problem.out);
    c.problem.q.data = sp_problem_row(&c.problem.q, 0, 3, 0);
    c.problem.q.shape[1] = c.problem.out.shape[1] = 2;
    for (int window = 0; window < 2; window++) {
        c.problem.window = window ? 5 : 0;
        assert_int_equal(sp_attention_define_forward(&c.problem), SP_OK);
        double *last = case_numbers(&c.problem.out);
        assert_memory_equal(square + 3 * 2 * 3, last, 2 * 2 * 3 * 8);
        free(last);
    }
    free(square);
    case_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(derivative_is_the_central_difference),
        cmocka_unit_test(derivative_holds_for_every_lambda_and_eps),
        cmocka_unit_test(score_of_zero_is_not_positive),
        cmocka_unit_test(eps_agrees_with_the_paper_to_its_own_size),
        cmocka_unit_test(row_without_positive_score_is_zero),
        cmocka_unit_test(keys_beyond_the_length_are_not_there),
        cmocka_unit_test(last_query_sees_last_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
