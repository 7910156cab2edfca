/* The three matrix products of a linear layer, in both dtypes and by every variant, against sums in double.
 */
#define _POSIX_C_SOURCE 200809L /* setenv */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <omp.h>
#include <pthread.h>

#include "layers/matmul.h"
#include "test_layers.h"

static const sp_dtype dtypes[] = {SP_DTYPE_F32, SP_DTYPE_BF16};
/* N, K, M: ones, primes, one past a block, more than one block each way */
static const int64_t shapes[][3] = {{1, 1, 1},    {1, 7, 3},     {3, 1, 5},    {13, 17, 19},  {33, 65, 129},
                                    {64, 64, 64}, {67, 131, 31}, {2, 256, 97}, {100, 48, 200}};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

/* Which products a run compares: rows of x, dy and y lie `gap` elements further apart than their width. */
typedef struct problem {
    int64_t N, K, M, gap;
    sp_dtype act, out;
    void *x, *w, *dy;
} problem;

static problem problem_make(const int64_t *shape, sp_dtype act, sp_dtype out, int64_t gap) {
    problem p = {shape[0], shape[1], shape[2], gap, act, out, NULL, NULL, NULL};
    p.x = random_numbers(act, p.N * (p.K + gap), 1, 1.0);
    p.w = random_numbers(act, p.M * p.K, 2, 1.0);
    p.dy = random_numbers(act, p.N * (p.M + gap), 3, 1.0);
    return p;
}

static void problem_free(problem *p) {
    free(p->x);
    free(p->w);
    free(p->dy);
}

/* f32 sums of n products of normal numbers err by about sqrt(n) half-ulps of their size, sqrt(n). */
static double sum_bound(sp_dtype out, int64_t n) { return bound_of(out, 4.0 * sqrt((double)n)); }

static void check_forward(const problem *p, bool residual, bool in_place) {
    int64_t stride = in_place ? p->M : p->M + p->gap;
    float *r = random_numbers(SP_DTYPE_F32, p->N * p->M, 4, 1.0);
    void *y = in_place ? random_numbers(SP_DTYPE_F32, p->N * p->M, 4, 1.0) : numbers(p->out, p->N * stride);
    assert_int_equal(sp_layers_cpu.linear_forward(sp_device_host(), y, p->out, stride, p->x, p->K + p->gap, p->w,
                                                  p->act, residual ? (in_place ? y : r) : NULL, p->N, p->K, p->M),
                     SP_OK);
    for (int64_t n = 0; n < p->N; n++)
        for (int64_t m = 0; m < p->M; m++) {
            double sum = residual ? r[n * p->M + m] : 0.0;
            for (int64_t k = 0; k < p->K; k++)
                sum += number_at(p->x, p->act, n * (p->K + p->gap) + k) * number_at(p->w, p->act, m * p->K + k);
            assert_near(number_at(y, p->out, n * stride + m), sum, sum_bound(p->out, p->K), sqrt((double)p->K), "y",
                        n * p->M + m);
        }
    if (p->gap && !in_place) assert_true(isnan(number_at(y, p->out, p->M))); /* between two rows */
    free(r);
    free(y);
}

static void check_backward_input(const problem *p) {
    int64_t stride = p->K + p->gap;
    void *dx = numbers(p->out, p->N * stride);
    assert_int_equal(sp_layers_cpu.linear_backward_input(sp_device_host(), dx, p->out, stride, p->dy, p->M + p->gap,
                                                         p->w, p->act, p->N, p->K, p->M),
                     SP_OK);
    for (int64_t n = 0; n < p->N; n++)
        for (int64_t k = 0; k < p->K; k++) {
            double sum = 0.0;
            for (int64_t m = 0; m < p->M; m++)
                sum += number_at(p->dy, p->act, n * (p->M + p->gap) + m) * number_at(p->w, p->act, m * p->K + k);
            assert_near(number_at(dx, p->out, n * stride + k), sum, sum_bound(p->out, p->M), sqrt((double)p->M), "dx",
                        n * p->K + k);
        }
    if (p->gap) assert_true(isnan(number_at(dx, p->out, p->K)));
    free(dx);
}

static void check_backward_weight(const problem *p) {
    float *dw = random_numbers(SP_DTYPE_F32, p->M * p->K, 5, 1.0);
    float *before = random_numbers(SP_DTYPE_F32, p->M * p->K, 5, 1.0);
    assert_int_equal(sp_layers_cpu.linear_backward_weight(sp_device_host(), dw, p->dy, p->M + p->gap, p->x,
                                                          p->K + p->gap, p->act, p->N, p->K, p->M),
                     SP_OK);
    for (int64_t m = 0; m < p->M; m++)
        for (int64_t k = 0; k < p->K; k++) {
            double sum = before[m * p->K + k];
            for (int64_t n = 0; n < p->N; n++)
                sum += number_at(p->dy, p->act, n * (p->M + p->gap) + m) *
                       number_at(p->x, p->act, n * (p->K + p->gap) + k);
            assert_near(dw[m * p->K + k], sum, sum_bound(SP_DTYPE_F32, p->N), sqrt((double)p->N) + 1.0, "dw",
                        m * p->K + k);
        }
    assert_end_untouched(dw, SP_DTYPE_F32, p->M * p->K);
    free(dw);
    free(before);
}

static void check_all(sp_dtype act) {
    for (int i = 0; i < N_SHAPES; i++)
        for (int64_t gap = 0; gap <= 5; gap += 5)
            for (int wide = 0; wide <= (act != SP_DTYPE_F32); wide++) {
                problem p = problem_make(shapes[i], act, wide ? SP_DTYPE_F32 : act, gap);
                check_forward(&p, false, false);
                if (p.out == SP_DTYPE_F32) {
                    check_forward(&p, true, false);
                    check_forward(&p, true, true);
                }
                check_backward_input(&p);
                check_backward_weight(&p);
                problem_free(&p);
            }
}

static void every_variant_gives_the_sums_of_products(void **state) {
    (void)state;
    for (int i = 0; i < sp_matmul_table.n_rows; i++)
        for (int d = 0; d < 2; d++) {
            const char *name = sp_variant_at(&sp_matmul_table, i)->name;
            setenv("SP_MATMUL", name, 1);
            assert_string_equal(sp_matmul_variant(dtypes[d]), name);
            check_all(dtypes[d]);
        }
    unsetenv("SP_MATMUL");
}

static void check_repeats(sp_dtype act) {
    problem p = problem_make((const int64_t[]){128, 96, 160}, act, act, 0);
    void *y[2];
    float *dw[2];
    for (int i = 0; i < 2; i++) {
        y[i] = numbers(act, p.N * p.M);
        dw[i] = random_numbers(SP_DTYPE_F32, p.M * p.K, 6, 1.0);
        assert_int_equal(
            sp_layers_cpu.linear_forward(sp_device_host(), y[i], act, p.M, p.x, p.K, p.w, act, NULL, p.N, p.K, p.M),
            SP_OK);
        assert_int_equal(
            sp_layers_cpu.linear_backward_weight(sp_device_host(), dw[i], p.dy, p.M, p.x, p.K, act, p.N, p.K, p.M),
            SP_OK);
    }
    assert_memory_equal(y[0], y[1], (size_t)(p.N * p.M * sp_dtype_bytes(act)));
    assert_memory_equal(dw[0], dw[1], (size_t)(p.M * p.K) * sizeof(float));
    for (int i = 0; i < 2; i++) {
        free(y[i]);
        free(dw[i]);
    }
    problem_free(&p);
}

static void repeated_products_have_the_same_bits(void **state) {
    (void)state;
    int n_threads = omp_get_max_threads();
    for (int threads = 1; threads <= 2; threads++) {
        omp_set_num_threads(threads);
        for (int d = 0; d < 2; d++) check_repeats(dtypes[d]);
    }
    omp_set_num_threads(n_threads);
}

/* More shapes than primitives are kept: old ones must make room, and come back right. */
static void many_shapes_in_turn_stay_right(void **state) {
    (void)state;
    for (int round = 0; round < 2; round++)
        for (int64_t n = 1; n <= 300; n++) {
            float x[2] = {1.0f, 2.0f}, w[600], y[300];
            for (int64_t i = 0; i < 2 * n; i++) w[i] = (float)i;
            assert_int_equal(sp_layers_cpu.linear_forward(sp_device_host(), y, SP_DTYPE_F32, n, x, 2, w, SP_DTYPE_F32,
                                                          NULL, 1, 2, n),
                             SP_OK);
            for (int64_t i = 0; i < n; i++) assert_true(y[i] == (float)(6 * i + 2));
        }
}

enum { CALLERS = 4, CALLER_SIZE = 32 };

/* One caller: the shape of all, its own numbers, many times; NULL when every result was right. */
static void *multiply_often(void *own) {
    enum { SIZE = CALLER_SIZE };
    float scale = *(float *)own, x[SIZE], w[SIZE * SIZE], y[SIZE];
    omp_set_num_threads(1); /* of this caller: pools of many threads would only wait for each other */
    for (int i = 0; i < SIZE; i++) x[i] = scale;
    for (int i = 0; i < SIZE * SIZE; i++) w[i] = (float)(i / SIZE);
    for (int round = 0; round < 2000; round++) {
        if (sp_layers_cpu.linear_forward(sp_device_host(), y, SP_DTYPE_F32, SIZE, x, SIZE, w, SP_DTYPE_F32, NULL, 1,
                                         SIZE, SIZE) != SP_OK)
            return own;
        for (int i = 0; i < SIZE; i++)
            if (y[i] != scale * (float)(i * SIZE)) return own;
    }
    return NULL;
}

static void callers_at_the_same_time_do_not_disturb_each_other(void **state) {
    (void)state;
    pthread_t callers[CALLERS];
    float scales[CALLERS] = {1.0f, 2.0f, 3.0f, 4.0f};
    for (int i = 0; i < CALLERS; i++)
        assert_int_equal(pthread_create(&callers[i], NULL, multiply_often, &scales[i]), 0);
    for (int i = 0; i < CALLERS; i++) {
        void *wrong;
        assert_int_equal(pthread_join(callers[i], &wrong), 0);
        assert_null(wrong);
    }
}

static void no_tokens_change_nothing(void **state) {
    (void)state;
    float w[4] = {0}, dw[4] = {1.0f, 2.0f, 3.0f, 4.0f};
    assert_int_equal(
        sp_layers_cpu.linear_forward(sp_device_host(), NULL, SP_DTYPE_F32, 2, NULL, 2, w, SP_DTYPE_F32, NULL, 0, 2, 2),
        SP_OK);
    assert_int_equal(
        sp_layers_cpu.linear_backward_input(sp_device_host(), NULL, SP_DTYPE_F32, 2, NULL, 2, w, SP_DTYPE_F32, 0, 2, 2),
        SP_OK);
    assert_int_equal(
        sp_layers_cpu.linear_backward_weight(sp_device_host(), dw, NULL, 2, NULL, 2, SP_DTYPE_F32, 0, 2, 2), SP_OK);
    assert_true(dw[0] == 1.0f && dw[3] == 4.0f);
}

static void wrong_calls_are_named(void **state) {
    (void)state;
    float x[4] = {0};
    assert_int_equal(
        sp_layers_cpu.linear_forward(sp_device_host(), x, SP_DTYPE_F32, 2, x, 2, x, SP_DTYPE_F16, NULL, 2, 2, 2),
        SP_UNSUPPORTED);
    assert_non_null(strstr(sp_last_message(), "f16"));
    assert_int_equal(
        sp_layers_cpu.linear_forward(sp_device_host(), x, SP_DTYPE_BF16, 2, x, 2, x, SP_DTYPE_BF16, x, 1, 2, 2),
        SP_BAD_ARGUMENT);
    assert_int_equal(
        sp_layers_cpu.linear_forward(sp_device_host(), x, SP_DTYPE_F32, 3, x, 1, x, SP_DTYPE_F32, x, 1, 1, 2),
        SP_BAD_ARGUMENT);
    assert_int_equal(
        sp_layers_cpu.linear_backward_input(sp_device_host(), x, SP_DTYPE_BF16, 2, x, 2, x, SP_DTYPE_F32, 2, 2, 2),
        SP_UNSUPPORTED);
    assert_int_equal(
        sp_layers_cpu.linear_forward(sp_device_host(), x, SP_DTYPE_F32, 2, x, 2, x, SP_DTYPE_F32, NULL, 2, 0, 2),
        SP_BAD_ARGUMENT);
    setenv("SP_MATMUL", "nonesuch", 1);
    assert_int_equal(
        sp_layers_cpu.linear_forward(sp_device_host(), x, SP_DTYPE_F32, 2, x, 2, x, SP_DTYPE_F32, NULL, 2, 2, 2),
        SP_BAD_ARGUMENT);
    assert_non_null(strstr(sp_last_message(), "nonesuch"));
    assert_null(sp_matmul_variant(SP_DTYPE_F32));
    unsetenv("SP_MATMUL");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_variant_gives_the_sums_of_products),
        cmocka_unit_test(repeated_products_have_the_same_bits),
        cmocka_unit_test(many_shapes_in_turn_stay_right),
        cmocka_unit_test(callers_at_the_same_time_do_not_disturb_each_other),
        cmocka_unit_test(no_tokens_change_nothing),
        cmocka_unit_test(wrong_calls_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
