/* Moments: against formulas, against a direct computation in long double, and independence of pieces and threads. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "measure/moments.h"

enum { N = 300000 }; /* more than one group of blocks, and a part of a block at the end */

static void assert_near(double value, double expected, double relative) {
    if (!(fabs(value - expected) <= relative * fabs(expected))) fail_msg("%.17g is not %.17g", value, expected);
}

static float *numbers(int64_t n, double mean, double spread) {
    float *x = malloc((size_t)n * sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(mean + spread * sp_random_normal(7, 1, (uint64_t)i));
    return x;
}

static double direct_kurtosis(const float *x, int64_t n) {
    long double mean = 0, m2 = 0, m4 = 0;
    for (int64_t i = 0; i < n; i++) mean += x[i];
    mean /= (long double)n;
    for (int64_t i = 0; i < n; i++) {
        long double d = x[i] - mean;
        m2 += d * d;
        m4 += d * d * d * d;
    }
    return (double)(m4 / (long double)n / (m2 / (long double)n * (m2 / (long double)n)));
}

static void gaussian_numbers_have_kurtosis_three(void **state) {
    (void)state;
    float *x = numbers(N, 0, 2);
    sp_moments moments = sp_moments_of(x, N);
    assert_near(sp_moments_kurtosis(&moments), 3, 0.03); /* standard error sqrt(24/N) = 0.009 */
    free(x);
}

/* n - 1 zeros and one other number: a Bernoulli variable of p = 1/n. */
static void single_outlier_has_the_kurtosis_of_its_formula(void **state) {
    (void)state;
    for (int64_t n = 2; n <= N; n = n * 7 + 1) {
        float *x = calloc((size_t)n, sizeof *x);
        assert_non_null(x);
        x[n / 3] = -417.5f;
        sp_moments moments = sp_moments_of(x, n);
        double p = 1 / (double)n;
        assert_near(sp_moments_kurtosis(&moments), (1 - 3 * p * (1 - p)) / (p * (1 - p)), 1e-10);
        assert_true(moments.min == -417.5 && moments.max == 0);
        free(x);
    }
}

static void large_offset_loses_nothing(void **state) {
    (void)state;
    static const double offsets[] = {0, 1, -1000, 1e6};
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        float *x = numbers(N, offsets[i], 1);
        sp_moments moments = sp_moments_of(x, N);
        assert_near(sp_moments_kurtosis(&moments), direct_kurtosis(x, N), 1e-10);
        free(x);
    }
}

static void pieces_merge_to_the_whole(void **state) {
    (void)state;
    float *x = numbers(N, 5, 1);
    for (int64_t i = 0; i < N; i += 1000) x[i] *= 50; /* heavy and lopsided tails: the third moment matters */
    sp_moments whole = sp_moments_of(x, N), sum = {0};
    for (int64_t i = 0, n = 1; i < N; i += n, n = n * 3 + 1) {
        n = i + n < N ? n : N - i;
        sp_moments piece = sp_moments_of(x + i, n);
        sp_moments_merge(&sum, &piece);
    }
    assert_int_equal(sum.n, N);
    assert_near(sum.mean, whole.mean, 1e-13);
    assert_near(sum.m2, whole.m2, 1e-12);
    assert_near(sum.m3, whole.m3, 1e-11);
    assert_near(sum.m4, whole.m4, 1e-11);
    assert_true(sum.min == whole.min && sum.max == whole.max);
    free(x);
}

static void threads_do_not_change_a_bit(void **state) {
    (void)state;
    float *x = numbers(N, 1, 3);
    int n_threads = omp_get_max_threads();
    omp_set_num_threads(1);
    sp_moments one = sp_moments_of(x, N);
    omp_set_num_threads(5);
    sp_moments five = sp_moments_of(x, N);
    omp_set_num_threads(n_threads);
    assert_memory_equal(&one, &five, sizeof one);
    free(x);
}

static void nothing_and_equal_numbers_have_no_kurtosis(void **state) {
    (void)state;
    sp_moments empty = sp_moments_of(NULL, 0);
    assert_int_equal(empty.n, 0);
    assert_true(isnan(sp_moments_kurtosis(&empty)));
    float equal[5000];
    for (int i = 0; i < 5000; i++) equal[i] = 2.5f;
    sp_moments moments = sp_moments_of(equal, 5000);
    assert_true(isnan(sp_moments_kurtosis(&moments)));
}

static void not_a_number_is_not_hidden(void **state) {
    (void)state;
    float *x = numbers(N, 0, 1);
    x[N / 2] = NAN;
    sp_moments moments = sp_moments_of(x, N);
    assert_true(isnan(moments.mean) && isnan(sp_moments_kurtosis(&moments)));
    free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gaussian_numbers_have_kurtosis_three),
        cmocka_unit_test(single_outlier_has_the_kurtosis_of_its_formula),
        cmocka_unit_test(large_offset_loses_nothing),
        cmocka_unit_test(pieces_merge_to_the_whole),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(nothing_and_equal_numbers_have_no_kurtosis),
        cmocka_unit_test(not_a_number_is_not_hidden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
