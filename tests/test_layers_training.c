/* Embedding, cross entropy, AdamW and the norm against plain loops in double. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <omp.h>

#include "test_layers.h"

static const sp_dtype dtypes[] = {SP_DTYPE_F32, SP_DTYPE_BF16};

/* ---- embedding ---- */

static void embedding_copies_the_rows_of_its_tokens(void **state) {
    (void)state;
    float table[3 * 5], x[4 * 5 + 1];
    int32_t tokens[4] = {2, 0, 2, 1};
    for (int i = 0; i < 15; i++) table[i] = (float)i;
    x[20] = -1.0f;
    CPU(embedding_forward, x, table, tokens, 4, 5);
    for (int n = 0; n < 4; n++)
        for (int i = 0; i < 5; i++) assert_true(x[n * 5 + i] == (float)(tokens[n] * 5 + i));
    assert_true(x[20] == -1.0f);
}

static void embedding_gradient_adds_up_repeated_tokens_in_order(void **state) {
    (void)state;
    enum { N = 203, V = 11, C = 19 };
    int n_threads = omp_get_max_threads();
    int32_t tokens[N];
    for (int n = 0; n < N; n++) tokens[n] = (int32_t)sp_random_below(1, 20, (uint64_t)n, V - 1); /* the last: unused */
    float *dx = random_numbers(SP_DTYPE_F32, N * C, 21, 1.0), expected[V * C];
    for (int i = 0; i < V * C; i++) expected[i] = 0.25f;
    for (int n = 0; n < N; n++)
        for (int i = 0; i < C; i++) expected[tokens[n] * C + i] += dx[n * C + i];
    for (int threads = 1; threads <= 3; threads++) {
        float dtable[V * C];
        for (int i = 0; i < V * C; i++) dtable[i] = 0.25f;
        omp_set_num_threads(threads);
        CPU(embedding_backward, dtable, dx, tokens, N, C, NULL);
        assert_memory_equal(dtable, expected, sizeof expected);
    }
    omp_set_num_threads(n_threads);
    free(dx);
}

/* ---- cross entropy ---- */

static double log_sum(const void *logits, sp_dtype act, int64_t row, int64_t V) {
    double top = -INFINITY, sum = 0.0;
    for (int64_t i = 0; i < V; i++) top = fmax(top, number_at(logits, act, row * V + i));
    for (int64_t i = 0; i < V; i++) sum += exp(number_at(logits, act, row * V + i) - top);
    return top + log(sum);
}

/* Sum of the losses of n rows. */
static double cross_entropy_of(void *logits, sp_dtype act, const int32_t *targets, int64_t n, int64_t V, bool gradient,
                               float gradient_scale) {
    double *losses = malloc((size_t)n * sizeof *losses), sum;
    memset(losses, 0xff, (size_t)n * sizeof *losses);
    CPU(cross_entropy, losses, logits, act, targets, n, V, gradient, gradient_scale);
    for (int64_t i = 0; i < n; i++) assert_true(targets[i] >= 0 || losses[i] == 0.0);
    CPU(sum, &sum, losses, n);
    free(losses);
    return sum;
}

static double norm_of(const float *values, int64_t n) {
    double norm;
    CPU(norm, &norm, values, n);
    return norm;
}

static void check_cross_entropy(sp_dtype act, int64_t n, int64_t V, double scale) {
    float gradient_scale = 0.125f;
    void *logits = random_numbers(act, n * V, 22, scale), *before = random_numbers(act, n * V, 22, scale);
    int32_t *targets = malloc((size_t)n * sizeof *targets);
    double expected = 0.0, loss;
    for (int64_t i = 0; i < n; i++) {
        targets[i] = i % 3 == 1 ? -1 : (int32_t)sp_random_below(1, 23, (uint64_t)i, (uint64_t)V);
        if (targets[i] < 0) continue;
        expected += log_sum(before, act, i, V) - number_at(before, act, i * V + targets[i]);
    }
    loss = cross_entropy_of(logits, act, targets, n, V, false, gradient_scale);
    assert_memory_equal(logits, before, (size_t)(n * V * sp_dtype_bytes(act)));
    assert_near(loss, expected, 1e-6, 1.0, "loss", V);
    loss = cross_entropy_of(logits, act, targets, n, V, true, gradient_scale);
    assert_near(loss, expected, 1e-6, 1.0, "loss with gradient", V);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < V; j++) {
            double p = exp(number_at(before, act, i * V + j) - log_sum(before, act, i, V));
            double d = targets[i] < 0 ? 0.0 : gradient_scale * (p - (j == targets[i]));
            /* rounding of the result, and of p, which may cancel against the 1 */
            double bound = bound_of(act, 8),
                   cancelled = targets[i] < 0 ? 0.0 : (4e-6 * gradient_scale * p + 1.2e-38) / bound;
            assert_near(number_at(logits, act, i * V + j), d, bound, cancelled, "dlogits", i * V + j);
        }
    assert_end_untouched(logits, act, n * V);
    free(logits), free(before), free(targets);
}

static void cross_entropy_is_the_formula(void **state) {
    (void)state;
    for (int d = 0; d < 2; d++) {
        check_cross_entropy(dtypes[d], 1, 1, 1.0);
        check_cross_entropy(dtypes[d], 2, 3, 1.0);
        check_cross_entropy(dtypes[d], 7, 257, 4.0);
        check_cross_entropy(dtypes[d], 2, 20011, 4.0); /* more than are kept between the passes */
        check_cross_entropy(dtypes[d], 300, 13, 30.0); /* more rows than sections */
    }
}

static void cross_entropy_of_huge_logits_is_finite(void **state) {
    (void)state;
    float logits[2][3] = {{1e30f, -1e30f, 0.0f}, {5000.0f, 5000.0f, -5000.0f}};
    int32_t targets[2] = {0, 1};
    double loss = cross_entropy_of(logits, SP_DTYPE_F32, targets, 2, 3, true, 1.0f);
    assert_near(loss, log(2.0), 1e-7, 0.0, "loss", 0);
    assert_true(logits[0][0] == 0.0f && logits[0][1] == 0.0f && logits[0][2] == 0.0f);
    assert_true(fabsf(logits[1][0] - 0.5f) < 1e-6f && fabsf(logits[1][1] + 0.5f) < 1e-6f && logits[1][2] == 0.0f);
}

static void cross_entropy_of_nan_is_nan(void **state) {
    (void)state;
    float logits[3] = {0.0f, NAN, 1.0f};
    int32_t target = 0;
    double loss = cross_entropy_of(logits, SP_DTYPE_F32, &target, 1, 3, false, 1.0f);
    assert_true(isnan(loss));
}

static void cross_entropy_has_the_same_bits_for_any_threads(void **state) {
    (void)state;
    enum { N = 61, V = 97 };
    int n_threads = omp_get_max_threads();
    double first = 0.0;
    int32_t targets[N];
    for (int n = 0; n < N; n++) targets[n] = n;
    for (int threads = 1; threads <= 3; threads++) {
        float *logits = random_numbers(SP_DTYPE_F32, N * V, 24, 2.0);
        omp_set_num_threads(threads);
        double loss = cross_entropy_of(logits, SP_DTYPE_F32, targets, N, V, true, 1.0f);
        if (threads == 1) first = loss;
        assert_true(loss == first);
        free(logits);
    }
    omp_set_num_threads(n_threads);
}

/* ---- AdamW, norm ---- */

typedef struct adamw_reference {
    double value, m, v;
} adamw_reference;

static void adamw_reference_step(adamw_reference *r, double g, const sp_adamw *o) {
    r->m = o->beta1 * r->m + (1.0 - o->beta1) * g;
    r->v = o->beta2 * r->v + (1.0 - o->beta2) * g * g;
    double m = r->m / (1.0 - pow(o->beta1, (double)o->step)), v = r->v / (1.0 - pow(o->beta2, (double)o->step));
    r->value -= o->learning_rate * (m / (sqrt(v) + o->eps) + o->weight_decay * r->value);
}

static void adamw_follows_the_formula_over_20_steps(void **state) {
    (void)state;
    enum { N = 4099 };
    sp_adamw options = {.learning_rate = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-15, .weight_decay = 0.1};
    float *values = random_numbers(SP_DTYPE_F32, N, 25, 1.0), *m = numbers(SP_DTYPE_F32, N);
    float *v = numbers(SP_DTYPE_F32, N);
    static adamw_reference reference[N];
    for (int i = 0; i < N; i++) reference[i] = (adamw_reference){values[i], 0.0, 0.0}, m[i] = v[i] = 0.0f;
    for (options.step = 1; options.step <= 20; options.step++) {
        float *gradient = random_numbers(SP_DTYPE_F32, N, 100 + (uint64_t)options.step, 1.0);
        CPU(adamw_step, values, NULL, gradient, m, v, N, 0.5f, &options);
        for (int i = 0; i < N; i++) adamw_reference_step(&reference[i], 0.5 * gradient[i], &options);
        free(gradient);
    }
    for (int i = 0; i < N; i++) assert_near(values[i], reference[i].value, 1e-6, 0.5, "values", i);
    assert_end_untouched(values, SP_DTYPE_F32, N);
    assert_end_untouched(m, SP_DTYPE_F32, N);
    free(values), free(m), free(v);
}

static void decay_is_decoupled_from_the_gradient(void **state) {
    (void)state;
    sp_adamw options = {
        .learning_rate = 0.5, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-15, .weight_decay = 0.25, .step = 1};
    float value = 8.0f, gradient = 0.0f, m = 0.0f, v = 0.0f;
    CPU(adamw_step, &value, NULL, &gradient, &m, &v, 1, 1.0f, &options);
    assert_true(value == 7.0f && m == 0.0f && v == 0.0f);
}

static void first_step_is_the_learning_rate_whatever_the_gradient(void **state) {
    (void)state;
    for (float g = 1e-8f; g < 1e8f; g *= 10.0f) {
        sp_adamw options = {.learning_rate = 0.5, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-15, .step = 1};
        float value = 1.0f, gradient = -g, m = 0.0f, v = 0.0f;
        CPU(adamw_step, &value, NULL, &gradient, &m, &v, 1, 1.0f, &options);
        assert_near(value, 1.5, 1e-6, 0.0, "value", 0);
    }
}

static void norm_has_the_same_bits_for_any_threads_and_is_right(void **state) {
    (void)state;
    int n_threads = omp_get_max_threads();
    static const int64_t counts[] = {0, 1, 255, 256, 257, 5000, 100003};
    for (int c = 0; c < 7; c++) {
        float *values = random_numbers(SP_DTYPE_F32, counts[c], 26, 1e20); /* squares beyond f32 */
        double sum = 0.0;
        for (int64_t i = 0; i < counts[c]; i++) sum += (double)values[i] * values[i];
        double first = norm_of(values, counts[c]);
        assert_near(first, sqrt(sum), 1e-13, 0.0, "norm", counts[c]);
        for (int threads = 1; threads <= 3; threads++) {
            omp_set_num_threads(threads);
            assert_true(norm_of(values, counts[c]) == first);
        }
        free(values);
    }
    omp_set_num_threads(n_threads);
}

static void norm_of_what_is_not_finite_is_not_finite(void **state) {
    (void)state;
    float values[300] = {0};
    values[299] = NAN;
    assert_true(isnan(norm_of(values, 300)));
    values[299] = -INFINITY;
    assert_true(isinf(norm_of(values, 300)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embedding_copies_the_rows_of_its_tokens),
        cmocka_unit_test(embedding_gradient_adds_up_repeated_tokens_in_order),
        cmocka_unit_test(cross_entropy_is_the_formula),
        cmocka_unit_test(cross_entropy_of_huge_logits_is_finite),
        cmocka_unit_test(cross_entropy_of_nan_is_nan),
        cmocka_unit_test(cross_entropy_has_the_same_bits_for_any_threads),
        cmocka_unit_test(adamw_follows_the_formula_over_20_steps),
        cmocka_unit_test(decay_is_decoupled_from_the_gradient),
        cmocka_unit_test(first_step_is_the_learning_rate_whatever_the_gradient),
        cmocka_unit_test(norm_has_the_same_bits_for_any_threads_and_is_right),
        cmocka_unit_test(norm_of_what_is_not_finite_is_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
