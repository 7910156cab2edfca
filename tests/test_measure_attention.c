/* Sums over attention: on maps that are known in advance, and against a plain T x T computation. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <omp.h>

#include "measure/attention_sums.h"
#include "measure_support.h"

/* One head, one sequence: score of (t,j) is score_first(t) for key 0 and score_rest(j) otherwise. */
static sp_head_sums sums_of(sp_normalizer normalizer, int64_t T, double (*score_first)(int64_t t),
                            double (*score_rest)(int64_t j)) {
    fixture f;
    fixture_open(&f, 1, T, 1, 1, 2);
    for (int64_t t = 0; t < T; t++) {
        f.q[2 * t] = 1;
        f.q[2 * t + 1] = (float)score_first(t);
        f.k[2 * t] = t == 0 ? 0 : (float)score_rest(t);
        f.k[2 * t + 1] = t == 0;
    }
    f.problem.normalizer = normalizer;
    sp_head_sums sums = {0};
    assert_int_equal(sp_head_sums_add(&sums, NULL, &f.problem, 1), SP_OK);
    fixture_close(&f);
    return sums;
}

/* ---- known maps ------------------------------------------------------------------------------------------------ */

static double zero(int64_t i) {
    (void)i;
    return 0;
}
static double minus_one(int64_t i) {
    (void)i;
    return -1;
}
/* e^s = 9t against t keys of e^0: weight 0.9 */
static double nine_times_the_others(int64_t t) { return log(9 * (double)(t ? t : 1)); }
static double quarter_of_all(int64_t t) { return log((double)(t ? t : 1) / 3); }
static double odd_are_positive(int64_t j) { return j % 2 ? 1 : -1; }

static void softmax_with_nine_tenths_on_the_first_token_is_a_sink(void **state) {
    (void)state;
    enum { T = 100 };
    sp_head_sums sums = sums_of(SP_NORMALIZER_SOFTMAX, T, nine_times_the_others, zero);
    assert_int_equal(sums.sinks.n_sequences, 1);
    assert_near(sums.sinks.first_mass, (1 + 0.9 * (T - 1)) / T, 1e-6);
    assert_near(sums.sinks.first_share, sums.sinks.first_mass, 1e-6);
    assert_int_equal(sums.sinks.n_sinks[0], 1);
    assert_int_equal(sums.sinks.n_sinks[1], 1);
    assert_near(sums.mass, T, 1e-4);
    assert_int_equal(sums.n_zero, 0);
    assert_int_equal(sums.n_silent, 0);
}

static void quarter_on_the_first_token_is_a_sink_at_two_tenths_alone(void **state) {
    (void)state;
    sp_head_sums sums = sums_of(SP_NORMALIZER_SOFTMAX, 100, quarter_of_all, zero);
    assert_near(sums.sinks.first_mass, (1 + 0.25 * 99) / 100, 1e-6);
    assert_int_equal(sums.sinks.n_sinks[0], 0);
    assert_int_equal(sums.sinks.n_sinks[1], 1);
}

static void head_without_positive_score_is_silent(void **state) {
    (void)state;
    enum { T = 70 };
    sp_head_sums sums = sums_of(SP_NORMALIZER_SOFTPICK, T, minus_one, minus_one);
    assert_int_equal(sums.n_queries, T);
    assert_int_equal(sums.n_silent, T);
    assert_int_equal(sums.n_pairs, T * (T + 1) / 2);
    assert_int_equal(sums.n_zero, sums.n_pairs);
    assert_int_equal(sums.n_small, sums.n_pairs);
    assert_true(sums.mass == 0 && sums.sinks.first_mass == 0 && sums.sinks.first_share == 0);
    assert_int_equal(sums.sinks.n_sinks[1] + sums.sinks.n_sinks_share[1], 0);
}

/* Keys 1, 3, 5, ... score 1; key 0 and the even ones -1. */
static void zeros_are_counted_exactly(void **state) {
    (void)state;
    enum { T = 51 };
    sp_head_sums sums = sums_of(SP_NORMALIZER_SOFTPICK, T, minus_one, odd_are_positive);
    int64_t zeros = 0;
    for (int64_t t = 0; t < T; t++) zeros += t / 2 + 1;
    assert_int_equal(sums.n_zero, zeros);
    assert_int_equal(sums.n_silent, 1); /* the first query sees key 0 alone */
}

/* Softmax has no exact zeros here, but weights below 1e-5. */
static void small_weights_are_told_from_zeros(void **state) {
    (void)state;
    enum { T = 20 };
    sp_head_sums sums = sums_of(SP_NORMALIZER_SOFTMAX, T, zero, zero);
    assert_int_equal(sums.n_small, 0);
    fixture f;
    fixture_open(&f, 1, T, 1, 1, 1);
    for (int64_t t = 0; t < T; t++) {
        f.q[t] = 1;
        f.k[t] = t == 0 ? 15 : 0; /* e^-15 = 3e-7 for all others */
    }
    f.problem.normalizer = SP_NORMALIZER_SOFTMAX;
    sums = (sp_head_sums){0};
    assert_int_equal(sp_head_sums_add(&sums, NULL, &f.problem, 1), SP_OK);
    assert_int_equal(sums.n_small, T * (T - 1) / 2);
    assert_int_equal(sums.n_zero, 0);
    fixture_close(&f);
}

/* Softpick scales a row down where negative scores abound: the share of the row tells where its weight goes. */
static void share_of_the_row_sees_a_sink_that_the_weight_hides(void **state) {
    (void)state;
    enum { T = 64 };
    fixture f;
    fixture_open(&f, 1, T, 1, 1, 1);
    for (int64_t t = 0; t < T; t++) {
        f.q[t] = 1;
        f.k[t] = t == 0 ? 1.0f : -3.0f;
    }
    sp_head_sums sums = {0};
    assert_int_equal(sp_head_sums_add(&sums, NULL, &f.problem, 1), SP_OK);
    double expected = 0, P = expm1(1), N = -expm1(-3);
    for (int64_t t = 0; t < T; t++) expected += P / (P + N * (double)t) / T;
    assert_near(sums.sinks.first_mass, expected, 1e-5);
    assert_int_equal(sums.sinks.n_sinks[1], 0);
    assert_near(sums.sinks.first_share, 1, 1e-5);
    assert_int_equal(sums.sinks.n_sinks_share[0], 1);
    fixture_close(&f);
}

/* Half of the samples have a sink of 0.9, half are flat: 1 of 2, though the mean over both exceeds the threshold. */
static void sink_is_judged_sample_by_sample(void **state) {
    (void)state;
    enum { B = 2, T = 64 };
    fixture f;
    fixture_open(&f, B, T, 1, 1, 2);
    for (int64_t i = 0; i < B * T; i++) {
        f.q[2 * i] = 1;
        f.q[2 * i + 1] = i < T ? (float)nine_times_the_others(i) : 0;
        f.k[2 * i + 1] = i % T == 0;
    }
    f.problem.normalizer = SP_NORMALIZER_SOFTMAX;
    sp_head_sums sums = {0};
    assert_int_equal(sp_head_sums_add(&sums, NULL, &f.problem, 1), SP_OK);
    assert_int_equal(sums.sinks.n_sequences, 2);
    assert_int_equal(sums.sinks.n_sinks[0], 1);
    assert_true(sums.sinks.first_mass / 2 > sp_sink_thresholds[0]);
    fixture_close(&f);
}

static void outputs_near_zero_are_counted_in_every_dtype(void **state) {
    (void)state;
    enum { T = 10 };
    static const uint16_t halves[4] = {0, 0x0001, 0x8000, 0x3586}; /* bf16 9.98e-7 is the last: 0, tiny, -0 */
    fixture f;
    fixture_open(&f, 1, T, 1, 1, 1);
    for (int64_t t = 0; t < T; t++) f.out[t] = t < 4 ? (t % 2 ? -9e-7f : 9e-7f) : t == 4 ? 1e-6f : -3;
    sp_head_sums sums = {0};
    assert_int_equal(sp_head_sums_add(&sums, NULL, &f.problem, 1), SP_OK);
    assert_int_equal(sums.n_near_zero[0], 4);

    uint16_t out[T];
    for (int64_t t = 0; t < T; t++) out[t] = t < 4 ? halves[t] : 0x3f80;
    f.problem.out = sp_tensor_view(out, SP_DTYPE_BF16, 4, (int64_t[]){1, T, 1, 1});
    sums = (sp_head_sums){0};
    assert_int_equal(sp_head_sums_add(&sums, NULL, &f.problem, 1), SP_OK);
    assert_int_equal(sums.n_near_zero[0], 4);
    fixture_close(&f);
}

/* ---- against a plain computation ------------------------------------------------------------------------------- */

static sp_head_sums plain_sums(const fixture *f, int64_t h) {
    int64_t B = f->problem.q.shape[0], T = f->problem.q.shape[1];
    double *weights = malloc((size_t)T * sizeof *weights);
    sp_head_sums sums = {0};
    for (int64_t b = 0; b < B; b++) {
        double first = 0;
        for (int64_t t = 0; t < T; t++) {
            plain_row(f, b, h, t, weights);
            double mass = 0;
            for (int64_t j = 0; j <= t; j++) {
                mass += weights[j];
                sums.n_zero += weights[j] == 0;
                sums.n_small += weights[j] <= SP_SMALL_WEIGHT;
            }
            first += weights[0] / (double)T;
            sums.mass += mass;
            sums.n_silent += mass == 0;
        }
        sums.sinks.first_mass += first;
        for (int i = 0; i < SP_SINK_THRESHOLDS; i++) sums.sinks.n_sinks[i] += first > sp_sink_thresholds[i];
    }
    free(weights);
    return sums;
}

static void assert_close_count(int64_t a, int64_t b) {
    if (llabs(a - b) > 1) fail_msg("%lld is not %lld", (long long)a, (long long)b); /* a score at the very edge */
}

static void assert_sums_agree(const sp_head_sums *a, const sp_head_sums *b) {
    assert_close_count(a->n_zero, b->n_zero);
    assert_close_count(a->n_small, b->n_small);
    assert_int_equal(a->n_silent, b->n_silent);
    assert_near(a->mass, b->mass, 1e-4 * (1 + b->mass));
    assert_near(a->sinks.first_mass, b->sinks.first_mass, 1e-5);
    for (int i = 0; i < SP_SINK_THRESHOLDS; i++) assert_int_equal(a->sinks.n_sinks[i], b->sinks.n_sinks[i]);
}

static void sums_agree_with_whole_maps_for_all_normalizers(void **state) {
    (void)state;
    enum { B = 3, T = 37, H = 4, Hkv = 2, D = 8 };
    static const float sink[H] = {-1, 0, 2, 0.5f};
    for (int normalizer = 0; normalizer < SP_NORMALIZER_COUNT; normalizer++)
        for (uint64_t seed = 0; seed < 3; seed++) {
            fixture f;
            fixture_open(&f, B, T, H, Hkv, D);
            fixture_randomize(&f, seed, seed == 0 ? 0.3 : 1.5);
            f.problem.normalizer = (sp_normalizer)normalizer;
            f.problem.lambda = seed == 2 ? 0 : 1;
            if (normalizer == SP_NORMALIZER_SOFTMAX_SINK) f.problem.sink = sink;
            sp_head_sums sums[H] = {{0}};
            assert_int_equal(sp_head_sums_add(sums, NULL, &f.problem, 1), SP_OK);
            for (int64_t h = 0; h < H; h++) {
                sp_head_sums plain = plain_sums(&f, h);
                assert_int_equal(sums[h].n_queries, B * T);
                assert_int_equal(sums[h].n_pairs, B * T * (T + 1) / 2);
                assert_sums_agree(&sums[h], &plain);
            }
            fixture_close(&f);
        }
}

/* ---- packed sequences, threads, bad input ---------------------------------------------------------------------- */

static void packed_sequences_are_summed_as_if_alone(void **state) {
    (void)state;
    enum { T = 120, H = 2, D = 4, N = 5 };
    static const int64_t cu[N + 1] = {0, 50, 50, 57, 119, 120};
    fixture f;
    fixture_open(&f, 1, T, H, H, D);
    fixture_randomize(&f, 5, 1);
    sp_attention packed = f.problem;
    packed.cu_q = cu;
    packed.n_sequences = N;
    sp_head_sums together[H] = {{0}}, alone[H] = {{0}};
    assert_int_equal(sp_head_sums_add(together, NULL, &packed, 20), SP_OK);
    for (int64_t i = 0; i < N; i++) {
        int64_t n = cu[i + 1] - cu[i];
        if (n == 0) continue;
        sp_attention part = f.problem;
        part.q = sp_tensor_view(f.q + cu[i] * H * D, SP_DTYPE_F32, 4, (int64_t[]){1, n, H, D});
        part.k = sp_tensor_view(f.k + cu[i] * H * D, SP_DTYPE_F32, 4, (int64_t[]){1, n, H, D});
        part.out = sp_tensor_view(f.out + cu[i] * H, SP_DTYPE_F32, 4, (int64_t[]){1, n, H, 1});
        assert_int_equal(sp_head_sums_add(alone, NULL, &part, 20), SP_OK);
    }
    for (int64_t h = 0; h < H; h++) {
        assert_int_equal(together[h].sinks.n_sequences, 2); /* of 50 and 62 tokens: the others are too short to judge */
        assert_int_equal(together[h].sinks.n_sequences, alone[h].sinks.n_sequences);
        assert_int_equal(together[h].n_queries, alone[h].n_queries);
        assert_int_equal(together[h].n_pairs, alone[h].n_pairs);
        assert_int_equal(together[h].n_zero, alone[h].n_zero);
        assert_near(together[h].mass, alone[h].mass, 1e-5 * alone[h].mass);
        assert_near(together[h].sinks.first_mass, alone[h].sinks.first_mass, 1e-6);
        assert_near(together[h].sinks.first_share, alone[h].sinks.first_share, 1e-6);
    }
    fixture_close(&f);
}

static void window_hides_the_first_token(void **state) {
    (void)state;
    enum { T = 30, WINDOW = 4 };
    fixture f;
    fixture_open(&f, 1, T, 1, 1, 1);
    f.problem.normalizer = SP_NORMALIZER_SOFTMAX; /* all scores 0 */
    f.problem.window = WINDOW;
    sp_head_sums sums = {0};
    assert_int_equal(sp_head_sums_add(&sums, NULL, &f.problem, 1), SP_OK);
    assert_int_equal(sums.n_pairs, 1 + 2 + 3 + (T - 3) * WINDOW);
    assert_near(sums.sinks.first_mass, (1 + 1 / 2. + 1 / 3. + 1 / 4.) / T, 1e-6);
    fixture_close(&f);
}

/* Lengths of a pass are passes of that length: keys after a query change nothing. */
static void beginnings_of_a_sequence_are_passes_of_their_length(void **state) {
    (void)state;
    enum { B = 2, T = 90, H = 2, D = 4, N = 3 };
    static const int64_t lengths[N] = {5, 64, 90};
    for (int normalizer = 0; normalizer < 2; normalizer++) {
        fixture f;
        fixture_open(&f, B, T, H, H, D);
        fixture_randomize(&f, 3, 1.5);
        f.problem.normalizer = (sp_normalizer)normalizer;
        sp_head_sums whole[H] = {{0}};
        sp_sink_sums sums[H * N] = {{0}};
        sp_sink_lengths by_length = {N, lengths, sums};
        assert_int_equal(sp_head_sums_add(whole, &by_length, &f.problem, 1), SP_OK);
        for (int64_t i = 0; i < N; i++) {
            sp_head_sums alone[H] = {{0}};
            for (int64_t b = 0; b < B; b++) {
                sp_attention part = f.problem;
                int64_t shape[] = {1, lengths[i], H, D};
                part.q = sp_tensor_view(f.q + b * T * H * D, SP_DTYPE_F32, 4, shape);
                part.k = sp_tensor_view(f.k + b * T * H * D, SP_DTYPE_F32, 4, shape);
                part.out.data = NULL;
                assert_int_equal(sp_head_sums_add(alone, NULL, &part, 1), SP_OK);
            }
            for (int64_t h = 0; h < H; h++) {
                const sp_sink_sums *one = &sums[h * N + i], *other = &alone[h].sinks;
                assert_int_equal(one->n_sequences, B);
                assert_near(one->first_mass, other->first_mass, 1e-6);
                assert_near(one->first_share, other->first_share, 1e-6);
                for (int k = 0; k < SP_SINK_THRESHOLDS; k++) assert_int_equal(one->n_sinks[k], other->n_sinks[k]);
            }
        }
        fixture_close(&f);
    }
}

/* 0.001 is below 1e-2 and not below 1e-6. */
static void outputs_near_zero_are_told_at_both_thresholds(void **state) {
    (void)state;
    enum { T = 6 };
    fixture f;
    fixture_open(&f, 1, T, 1, 1, 1);
    f.out[1] = 0.001f;
    f.out[2] = 0;
    f.out[3] = 0.02f;
    f.out[4] = NAN;
    sp_head_sums sums = {0};
    assert_int_equal(sp_head_sums_add(&sums, NULL, &f.problem, 1), SP_OK);
    assert_int_equal(sums.n_near_zero[0], 1);
    assert_int_equal(sums.n_near_zero[1], 2);
    fixture_close(&f);
}

static void threads_do_not_change_a_bit(void **state) {
    (void)state;
    enum { B = 3, T = 50, H = 6, D = 4 };
    fixture f;
    fixture_open(&f, B, T, H, H, D);
    fixture_randomize(&f, 9, 1);
    sp_head_sums one[H], five[H];
    memset(one, 0, sizeof one);
    memset(five, 0, sizeof five);
    int n_threads = omp_get_max_threads();
    omp_set_num_threads(1);
    assert_int_equal(sp_head_sums_add(one, NULL, &f.problem, 1), SP_OK);
    omp_set_num_threads(5);
    assert_int_equal(sp_head_sums_add(five, NULL, &f.problem, 1), SP_OK);
    omp_set_num_threads(n_threads);
    assert_memory_equal(one, five, sizeof one);
    fixture_close(&f);
}

static void problem_that_attention_refuses_is_refused(void **state) {
    (void)state;
    fixture f;
    fixture_open(&f, 1, 8, 3, 2, 4); /* 3 query heads, 2 key heads */
    sp_head_sums sums[3] = {{0}};
    assert_int_equal(sp_head_sums_add(sums, NULL, &f.problem, 1), SP_BAD_ARGUMENT);
    assert_int_equal(sums[0].n_queries, 0);
    fixture_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(softmax_with_nine_tenths_on_the_first_token_is_a_sink),
        cmocka_unit_test(quarter_on_the_first_token_is_a_sink_at_two_tenths_alone),
        cmocka_unit_test(head_without_positive_score_is_silent),
        cmocka_unit_test(zeros_are_counted_exactly),
        cmocka_unit_test(small_weights_are_told_from_zeros),
        cmocka_unit_test(share_of_the_row_sees_a_sink_that_the_weight_hides),
        cmocka_unit_test(sink_is_judged_sample_by_sample),
        cmocka_unit_test(outputs_near_zero_are_counted_in_every_dtype),
        cmocka_unit_test(sums_agree_with_whole_maps_for_all_normalizers),
        cmocka_unit_test(packed_sequences_are_summed_as_if_alone),
        cmocka_unit_test(window_hides_the_first_token),
        cmocka_unit_test(beginnings_of_a_sequence_are_passes_of_their_length),
        cmocka_unit_test(outputs_near_zero_are_told_at_both_thresholds),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(problem_that_attention_refuses_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
