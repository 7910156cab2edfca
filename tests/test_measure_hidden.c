/* The residual stream: medians, massive activations and peaks on planted data. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "base/random.h"
#include "measure/hidden_sums.h"

enum { T = 40, C = 12, L = 3 };

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void median_is_that_of_the_sorted_magnitudes(void **state) {
    (void)state;
    int64_t *counts = malloc(SP_MEDIAN_COUNTS * sizeof *counts);
    float x[999], sorted[999];
    for (int64_t n = 1; n <= 999; n = n * 2 + (n % 3)) {
        for (int64_t i = 0; i < n; i++) {
            double scale = exp(6 * sp_random_normal(1, 0, (uint64_t)(n * 1000 + i))); /* many binades */
            x[i] = i % 7 == 3 ? 0 : (float)(scale * sp_random_normal(2, 0, (uint64_t)i));
            sorted[i] = fabsf(x[i]);
        }
        qsort(sorted, (size_t)n, sizeof *sorted, by_value);
        assert_true(sp_median_magnitude(x, n, counts) == sorted[(n - 1) / 2]);
    }
    free(counts);
}

static void fill(float *x, double spread) {
    for (int64_t i = 0; i < T * C; i++) x[i] = (float)(spread * sp_random_normal(3, 0, (uint64_t)i));
}

static void planted_massive_activations_are_counted_and_named(void **state) {
    (void)state;
    sp_hidden_sums sums;
    assert_int_equal(sp_hidden_sums_open(&sums, L, C), SP_OK);
    float x[T * C];
    for (int64_t sample = 0; sample < 2; sample++)
        for (int64_t layer = 0; layer <= L + 1; layer++) {
            fill(x, 0.1);
            x[0 * C + 5] = 500;                                 /* in every layer, the embedding too */
            if (layer == 2 && sample == 1) x[7 * C + 5] = -900; /* the same channel, larger */
            if (layer == 2) x[1 * C + 8] = 300;
            if (layer == 3) x[2 * C + 1] = 99; /* large against the median, yet below 100 */
            sp_hidden_sums_add(&sums, layer, sample, x, T);
        }
    assert_int_equal(sums.n_massive[0], 0);
    assert_int_equal(sums.n_massive[1], 2);
    assert_int_equal(sums.n_massive[2], 5);
    assert_int_equal(sums.n_massive[3], 2);
    assert_int_equal(sums.n_massive[L + 1], 0);

    const sp_peak *peaks = sums.peaks + C, *peak = &peaks[5]; /* after block 2 */
    assert_true(peak->value == -900 && peak->layer == 2 && peak->sample == 1 && peak->position == 7 &&
                peak->channel == 5);
    assert_true(peaks[8].value == 300 && peaks[8].position == 1);
    assert_true(sums.peaks[5].value == 500 && sums.peaks[2 * C + 5].value == 500); /* blocks 1 and 3 */
    assert_true(sums.n_medians[2] == 2 && fabs(sums.medians[2] / 2 - (double)peak->median) < 0.02);
    assert_int_equal(sums.n_medians[0], 0);
    sp_hidden_sums_close(&sums);
}

static void large_values_among_large_values_are_not_massive(void **state) {
    (void)state;
    sp_hidden_sums sums;
    assert_int_equal(sp_hidden_sums_open(&sums, L, C), SP_OK);
    float x[T * C];
    fill(x, 10);
    x[3] = 2000; /* 300 medians */
    sp_hidden_sums_add(&sums, 1, 0, x, T);
    assert_int_equal(sums.n_massive[1], 0);
    sp_hidden_sums_close(&sums);
}

static void layers_are_kept_apart(void **state) {
    (void)state;
    sp_hidden_sums sums;
    assert_int_equal(sp_hidden_sums_open(&sums, L, C), SP_OK);
    float x[T * C];
    for (int64_t layer = 0; layer <= L + 1; layer++) {
        for (int64_t i = 0; i < T * C; i++) x[i] = (float)layer;
        sp_hidden_sums_add(&sums, layer, 0, x, T);
    }
    for (int64_t layer = 0; layer <= L + 1; layer++) {
        assert_int_equal(sums.moments[layer].n, T * C);
        assert_true(sums.moments[layer].mean == (double)layer);
    }
    sp_hidden_sums_close(&sums);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(median_is_that_of_the_sorted_magnitudes),
        cmocka_unit_test(planted_massive_activations_are_counted_and_named),
        cmocka_unit_test(large_values_among_large_values_are_not_massive),
        cmocka_unit_test(layers_are_kept_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
