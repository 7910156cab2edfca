/* Biases, and norms of single heads, against plain loops in double, for any number of threads and every row kernel set
 * this CPU runs. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <omp.h>

#include "layers/row_kernels.h"
#include "test_layers.h"

static const sp_dtype dtypes[] = {SP_DTYPE_F32, SP_DTYPE_BF16};

/* ---- biases ---- */

static void check_bias(sp_dtype act, int64_t N, int64_t M, int64_t gap) {
    int64_t stride = M + gap;
    void *y = random_numbers(act, N * stride, 1, 2.0), *before = random_numbers(act, N * stride, 1, 2.0);
    float *bias = random_numbers(SP_DTYPE_F32, M, 2, 1.0);
    CPU(bias_add, y, act, stride, bias, N, M);
    for (int64_t n = 0; n < N; n++)
        for (int64_t i = 0; i < stride; i++) {
            double was = number_at(before, act, n * stride + i), add = i < M ? bias[i] : 0;
            assert_near(number_at(y, act, n * stride + i), was + add, i < M ? bound_of(act, 1) : 0, 0, "y", i);
        }
    assert_end_untouched(y, act, N * stride);
    free(y), free(before), free(bias);
}

static void bias_is_added_to_every_row(void **state) {
    (void)state;
    for (int d = 0; d < 2; d++)
        for (int64_t N = 1; N <= 5; N += 4) {
            check_bias(dtypes[d], N, 1, 0);
            check_bias(dtypes[d], N, 37, 3);
            check_bias(dtypes[d], N, 1030, 0); /* more than a run of the row kernels */
        }
}

static void check_bias_gradient(sp_dtype act, int64_t N, int64_t M, int64_t gap) {
    int64_t stride = M + gap;
    void *dy = random_numbers(act, N * stride, 3, 1.0);
    float *dbias = random_numbers(SP_DTYPE_F32, M, 4, 1.0), *was = random_numbers(SP_DTYPE_F32, M, 4, 1.0);
    CPU(bias_backward, dbias, dy, stride, act, N, M, NULL);
    for (int64_t m = 0; m < M; m++) {
        double sum = was[m];
        for (int64_t n = 0; n < N; n++) sum += number_at(dy, act, n * stride + m);
        assert_near(dbias[m], sum, 1e-6, sqrt((double)N), "dbias", m);
    }
    assert_end_untouched(dbias, SP_DTYPE_F32, M);
    free(dy), free(dbias), free(was);
}

static void gradient_of_a_bias_is_the_sum_of_rows(void **state) {
    (void)state;
    for (int d = 0; d < 2; d++) {
        check_bias_gradient(dtypes[d], 1, 5, 0);
        check_bias_gradient(dtypes[d], 700, 9, 2);
        check_bias_gradient(dtypes[d], 3, 1100, 0);
    }
}

/* ---- norms of heads ---- */

enum { D_MAX = 600 };

static double rms_of(const void *x, sp_dtype act, int64_t first, int64_t D, double eps) {
    double sum = 0;
    for (int64_t i = 0; i < D; i++) sum += number_at(x, act, first + i) * number_at(x, act, first + i);
    return sqrt(sum / (double)D + eps);
}

static void check_head_norm(sp_dtype act, int64_t n_heads, int64_t D) {
    enum { N = 3 };
    const float eps = 1e-3f;
    int64_t stride = n_heads * D + 5, kept_stride = n_heads * D + 2;
    void *x = random_numbers(act, N * stride, 5, 2.0), *before = random_numbers(act, N * stride, 5, 2.0);
    void *kept = numbers(act, N * kept_stride);
    float *weight = random_numbers(SP_DTYPE_F32, D, 6, 1.0);
    CPU(head_norm_forward, x, act, stride, kept, kept_stride, weight, N, n_heads, D, eps);
    for (int64_t n = 0; n < N; n++) {
        for (int64_t i = 0; i < n_heads * D; i++) {
            int64_t first = n * stride + i / D * D;
            double was = number_at(before, act, n * stride + i);
            double normed = was / rms_of(before, act, first, D, (double)eps) * weight[i % D];
            assert_near(number_at(x, act, n * stride + i), normed, bound_of(act, 12), 0, "head", i);
            assert_true(number_at(kept, act, n * kept_stride + i) == was);
        }
        for (int64_t i = n_heads * D; i < stride; i++) /* the gap keeps its numbers */
            assert_true(number_at(x, act, n * stride + i) == number_at(before, act, n * stride + i));
    }
    assert_end_untouched(kept, act, N * kept_stride);
    free(x), free(before), free(kept), free(weight);
}

static void each_head_is_normed_by_itself(void **state) {
    (void)state;
    for (int d = 0; d < 2; d++) {
        check_head_norm(dtypes[d], 3, 16);
        check_head_norm(dtypes[d], 1, 6);
        check_head_norm(dtypes[d], 2, D_MAX);
    }
}

/* dx = r (g - n mean(g n)) with g = dy weight, n = x r; dweight = sum of dy n */
static void check_head_norm_gradient(sp_dtype act, int64_t N, int64_t n_heads, int64_t D) {
    const float eps = 1e-3f;
    int64_t stride = n_heads * D + 4;
    void *kept = random_numbers(act, N * stride, 7, 2.0), *dy = random_numbers(act, N * stride, 8, 1.0);
    void *dx = random_numbers(act, N * stride, 8, 1.0);
    float *weight = random_numbers(SP_DTYPE_F32, D, 9, 1.0), *dweight = random_numbers(SP_DTYPE_F32, D, 10, 1.0);
    float *was = random_numbers(SP_DTYPE_F32, D, 10, 1.0),
          *workspace = malloc((size_t)sp_layers_cpu.rmsnorm_workspace(D));
    CPU(head_norm_backward, dx, act, stride, dweight, kept, stride, weight, N, n_heads, D, eps, workspace);
    double sums[D_MAX] = {0};
    for (int64_t h = 0; h < N * n_heads; h++) {
        int64_t first = h / n_heads * stride + h % n_heads * D;
        double r = 1 / rms_of(kept, act, first, D, (double)eps), mean = 0;
        for (int64_t i = 0; i < D; i++)
            mean += number_at(dy, act, first + i) * weight[i] * number_at(kept, act, first + i) * r / (double)D;
        for (int64_t i = 0; i < D; i++) {
            double n = number_at(kept, act, first + i) * r, d = number_at(dy, act, first + i);
            sums[i] += d * n;
            assert_near(number_at(dx, act, first + i), r * (d * weight[i] - n * mean), bound_of(act, 16),
                        act == SP_DTYPE_BF16 ? 1e-4 : 1, "dx", i);
        }
    }
    for (int64_t i = 0; i < D; i++)
        assert_near(dweight[i], was[i] + sums[i], 2e-6, sqrt((double)(N * n_heads)), "dweight", i);
    free(kept), free(dy), free(dx), free(weight), free(dweight), free(was), free(workspace);
}

static void gradient_goes_through_the_norm_of_each_head(void **state) {
    (void)state;
    for (int d = 0; d < 2; d++) {
        check_head_norm_gradient(dtypes[d], 1, 2, 6);
        check_head_norm_gradient(dtypes[d], 67, 3, 16); /* more tokens than sections */
        check_head_norm_gradient(dtypes[d], 2, 1, D_MAX);
    }
}

/* ---- any threads, any instruction set ---- */

static void gradients_with(int threads, float *dbias, float *dweight, int64_t N, int64_t M, int64_t D) {
    void *dy = random_numbers(SP_DTYPE_BF16, N * M, 11, 1.0), *x = random_numbers(SP_DTYPE_BF16, N * M, 12, 1.0);
    float *weight = random_numbers(SP_DTYPE_F32, D, 13, 1.0);
    void *workspace = malloc((size_t)sp_layers_cpu.rmsnorm_workspace(D));
    omp_set_num_threads(threads);
    CPU(bias_backward, dbias, dy, M, SP_DTYPE_BF16, N, M, NULL);
    CPU(head_norm_backward, dy, SP_DTYPE_BF16, M, dweight, x, M, weight, N, M / D, D, 1e-5f, workspace);
    free(dy), free(x), free(weight), free(workspace);
}

static void gradients_have_the_same_bits_for_any_threads(void **state) {
    (void)state;
    enum { N = 300, M = 1056, D = 48 };
    int n_threads = omp_get_max_threads();
    static float dbias[3][M], dweight[3][D];
    for (int threads = 1; threads <= 3; threads++)
        gradients_with(threads, dbias[threads - 1], dweight[threads - 1], N, M, D);
    omp_set_num_threads(n_threads);
    for (int i = 1; i < 3; i++) {
        assert_memory_equal(dbias[i], dbias[0], sizeof dbias[0]);
        assert_memory_equal(dweight[i], dweight[0], sizeof dweight[0]);
    }
}

static void check_kernels_agree(const sp_row_kernels *kernels, sp_dtype act, int64_t n) {
    const sp_row_kernels *sets[2] = {&sp_row_kernels_baseline, kernels};
    float *weight = random_numbers(SP_DTYPE_F32, n, 14, 1.0), *sum[2], *dweight[2];
    void *x = random_numbers(act, 2 * n, 15, 1.0), *normed[2], *dx[2];
    for (int i = 0; i < 2; i++) {
        normed[i] = random_numbers(act, 2 * n, 15, 1.0), dx[i] = random_numbers(act, 2 * n, 16, 1.0);
        sum[i] = random_numbers(SP_DTYPE_F32, n, 17, 1.0), dweight[i] = random_numbers(SP_DTYPE_F32, n, 18, 1.0);
        sets[i]->add_from(sum[i], dx[i], act, n);
        sets[i]->head_norm(normed[i], act, weight, 2, n, 1e-5f);
        sets[i]->head_norm_gradient(dx[i], dweight[i], act, x, weight, 2, n, 1e-5f);
        sets[i]->add_to(normed[i], act, weight, n);
    }
    for (int64_t i = 0; i < 2 * n; i++) {
        assert_near(number_at(normed[1], act, i), number_at(normed[0], act, i), bound_of(act, 16) * 2, 1, "normed", i);
        assert_near(number_at(dx[1], act, i), number_at(dx[0], act, i), bound_of(act, 32) * 2, 1, "dx", i);
    }
    for (int64_t i = 0; i < n; i++) {
        assert_near(sum[1][i], sum[0][i], 0, 0, "sum", i);
        assert_near(dweight[1][i], dweight[0][i], 4e-6, 1, "dweight", i);
    }
    for (int i = 0; i < 2; i++) free(normed[i]), free(dx[i]), free(sum[i]), free(dweight[i]);
    free(weight), free(x);
}

static void every_instruction_set_gives_the_baseline_numbers(void **state) {
    (void)state;
    for (int i = 0; sp_row_kernels_at(i); i++)
        for (int d = 0; sp_row_kernels_usable(sp_row_kernels_at(i)) && d < 2; d++)
            for (int64_t n = 2; n < 70; n += 3) check_kernels_agree(sp_row_kernels_at(i), dtypes[d], n);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bias_is_added_to_every_row),
        cmocka_unit_test(gradient_of_a_bias_is_the_sum_of_rows),
        cmocka_unit_test(each_head_is_normed_by_itself),
        cmocka_unit_test(gradient_goes_through_the_norm_of_each_head),
        cmocka_unit_test(gradients_have_the_same_bits_for_any_threads),
        cmocka_unit_test(every_instruction_set_gives_the_baseline_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
