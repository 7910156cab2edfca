/* Random numbers: fixed values, distributions, and permutations that are bijections.  All of it is deterministic, so the
 * bounds of the statistics, some five standard deviations, never fail by chance. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/random.h"

enum { N = 100000 };

/* Computed outside this program from the definition: files and runs depend on these bits. */
static void bits_are_those_of_the_definition(void **state) {
    (void)state;
    assert_true(sp_random_bits(0, 0, 0) == 0x238275bc38fcbe91u);
    assert_true(sp_random_bits(1, 2, 3) == 0xd0734750fde362b3u);
    assert_true(sp_random_bits(79, 1, 1000000000000u) == 0xcfc6772c6d326feeu);
    assert_true(sp_random_bits(UINT64_MAX, UINT64_MAX, UINT64_MAX) == 0x595b17f487c0e71bu);
    assert_true(sp_random_uniform(1, 2, 3) == 0.814259011529328);
}

static void neighbours_differ_in_half_of_the_bits(void **state) {
    (void)state;
    double flips[3] = {0};
    for (uint64_t i = 0; i < N; i++) {
        uint64_t here = sp_random_bits(i, 7, 7);
        flips[0] += __builtin_popcountll(here ^ sp_random_bits(i + 1, 7, 7));
        flips[1] += __builtin_popcountll(sp_random_bits(7, i, 7) ^ sp_random_bits(7, i + 1, 7));
        flips[2] += __builtin_popcountll(sp_random_bits(7, 7, i) ^ sp_random_bits(7, 7, i + 1));
    }
    for (int word = 0; word < 3; word++) assert_true(fabs(flips[word] / N - 32) < 0.08);
}

static void words_are_not_interchangeable(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 1000; i++) {
        assert_true(sp_random_bits(i, i + 1, 0) != sp_random_bits(i + 1, i, 0));
        assert_true(sp_random_bits(0, i, i + 1) != sp_random_bits(0, i + 1, i));
    }
}

static void uniform_fills_its_range_evenly(void **state) {
    (void)state;
    double sum = 0, squares = 0;
    int bins[16] = {0};
    for (uint64_t i = 0; i < N; i++) {
        double x = sp_random_uniform(3, 4, i);
        assert_true(x >= 0 && x < 1);
        sum += x;
        squares += x * x;
        bins[(int)(16 * x)]++;
    }
    assert_true(fabs(sum / N - 0.5) < 0.005);
    assert_true(fabs(squares / N - 1.0 / 3) < 0.005);
    double chi = 0; /* 15 degrees of freedom */
    for (int i = 0; i < 16; i++) chi += (bins[i] - N / 16.0) * (bins[i] - N / 16.0) / (N / 16.0);
    assert_true(chi < 50);
}

static void normal_has_the_moments_of_a_normal(void **state) {
    (void)state;
    double moments[5] = {0}, neighbours = 0, previous = 0;
    for (uint64_t i = 0; i < N; i++) {
        double x = sp_random_normal(5, 6, i), power = 1;
        assert_true(isfinite(x));
        for (int k = 1; k <= 4; k++) moments[k] += (power *= x) / N;
        neighbours += x * previous / N;
        previous = x;
    }
    assert_true(fabs(moments[1]) < 0.016);
    assert_true(fabs(moments[2] - 1) < 0.023);
    assert_true(fabs(moments[3]) < 0.062);
    assert_true(fabs(moments[4] - 3) < 0.16);
    assert_true(fabs(neighbours) < 0.016);
}

static void below_stays_below_and_is_even(void **state) {
    (void)state;
    static const uint64_t limits[] = {1, 2, 3, 1000, (uint64_t)1 << 63, UINT64_MAX};
    for (int k = 0; k < 6; k++)
        for (uint64_t i = 0; i < 1000; i++) assert_true(sp_random_below(1, 2, i, limits[k]) < limits[k]);
    int bins[7] = {0};
    for (uint64_t i = 0; i < N; i++) bins[sp_random_below(8, 9, i, 7)]++;
    double chi = 0; /* 6 degrees of freedom */
    for (int i = 0; i < 7; i++) chi += (bins[i] - N / 7.0) * (bins[i] - N / 7.0) / (N / 7.0);
    assert_true(chi < 35);
}

/* ---- permutations ----------------------------------------------------------------------------------------------- */

static void assert_bijection(uint64_t seed, uint64_t n) {
    static bool seen[5000];
    memset(seen, 0, sizeof seen);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t image = sp_random_permuted(seed, 3, i, n);
        assert_true(image < n);
        assert_false(seen[image]);
        seen[image] = true;
    }
}

static void permutation_hits_every_number_once(void **state) {
    (void)state;
    for (uint64_t n = 1; n <= 130; n++)
        for (uint64_t seed = 0; seed < 5; seed++) assert_bijection(seed, n);
    static const uint64_t sizes[] = {255, 256, 257, 1023, 1025, 4095, 4097};
    for (int i = 0; i < 7; i++) assert_bijection(79, sizes[i]);
}

static void large_permutations_stay_below_their_size(void **state) {
    (void)state;
    static const uint64_t sizes[] = {((uint64_t)1 << 40) + 1, (uint64_t)1 << 62, ((uint64_t)1 << 63) + 1, UINT64_MAX};
    for (int k = 0; k < 4; k++)
        for (uint64_t i = 0; i < 1000; i++)
            assert_true(sp_random_permuted(1, 2, sizes[k] - 1 - i, sizes[k]) < sizes[k]);
}

/* As a shuffle has it: (n - 1/n)/3 mean displacement, one fixed point on average, half of the neighbours in order. */
static void permutation_is_well_shuffled(void **state) {
    (void)state;
    enum { SIZE = 1000, SEEDS = 100 };
    double displacement = 0, fixed = 0, rising = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        for (uint64_t i = 0; i < SIZE; i++) {
            uint64_t image = sp_random_permuted(seed, 1, i, SIZE);
            displacement += fabs((double)image - (double)i) / (SIZE * (double)SEEDS);
            fixed += (image == i) / (double)SEEDS;
            rising += sp_random_permuted(seed, 1, (i + 1) % SIZE, SIZE) > image;
        }
    }
    assert_true(fabs(displacement - SIZE / 3.0) < 5);
    assert_true(fabs(fixed - 1) < 0.5);
    assert_true(fabs(rising / (SIZE * SEEDS) - 0.5) < 0.005);
}

static void seeds_and_streams_permute_differently(void **state) {
    (void)state;
    int same_seed = 0, same_stream = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        uint64_t here = sp_random_permuted(1, 1, i, 1000);
        same_seed += here == sp_random_permuted(2, 1, i, 1000);
        same_stream += here == sp_random_permuted(1, 2, i, 1000);
    }
    assert_true(same_seed < 8);
    assert_true(same_stream < 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_are_those_of_the_definition),
        cmocka_unit_test(neighbours_differ_in_half_of_the_bits),
        cmocka_unit_test(words_are_not_interchangeable),
        cmocka_unit_test(uniform_fills_its_range_evenly),
        cmocka_unit_test(normal_has_the_moments_of_a_normal),
        cmocka_unit_test(below_stays_below_and_is_even),
        cmocka_unit_test(permutation_hits_every_number_once),
        cmocka_unit_test(large_permutations_stay_below_their_size),
        cmocka_unit_test(permutation_is_well_shuffled),
        cmocka_unit_test(seeds_and_streams_permute_differently),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
