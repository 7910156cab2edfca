/* Sums over whole rows: against T x T maps by the definition in double, and on maps known in advance. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <omp.h>

#include "measure/map_sums.h"
#include "measure_support.h"

static sp_map_sums opened(int64_t H, int64_t Hkv, int64_t T) {
    sp_model_config config = {.n_layers = 1, .n_heads = H, .n_kv_heads = Hkv};
    sp_map_sums sums;
    assert_int_equal(sp_map_sums_open(&sums, &config, T), SP_OK);
    return sums;
}

static void add(sp_map_sums *sums, const sp_attention *problem) {
    if (sp_map_sums_add(sums, 0, problem, 1) != SP_OK) fail_msg("%s", sp_last_message());
}

/* ---- bins ------------------------------------------------------------------------------------------------------ */

static void bins_cover_all_numbers_in_order(void **state) {
    (void)state;
    int64_t before = -1;
    for (int64_t i = 0; i < 5000; i++) {
        int64_t bin = sp_map_bin(i);
        assert_true(bin == before || bin == before + 1);
        if (bin != before) assert_int_equal(sp_map_bin_first(bin), i);
        before = bin;
    }
    assert_int_equal(sp_map_bin(31), 31);
    assert_int_equal(sp_map_bin(32), 32);
    assert_int_equal(sp_map_bin(33), 32);
    assert_int_equal(sp_map_bin(4095), 32 + 7 * 16 - 1);
}

/* ---- against whole maps ---------------------------------------------------------------------------------------- */

enum { B = 2, T = 150, H = 4, HKV = 2, D = 6 };

/* (T,T) of each (b,h), and the keys a query sees. */
typedef struct whole_maps {
    double *weights; /* (B,H,T,T) */
    int64_t window;
} whole_maps;

static double *map_of(const whole_maps *maps, int64_t b, int64_t h) { return maps->weights + (b * H + h) * T * T; }

static bool sees(const whole_maps *maps, int64_t t, int64_t j) {
    return j <= t && (maps->window == 0 || t - j < maps->window);
}

static whole_maps maps_open(const fixture *f) {
    whole_maps maps = {calloc((size_t)(B * H * T * T), sizeof(double)), f->problem.window};
    assert_non_null(maps.weights);
    for (int64_t b = 0; b < B; b++)
        for (int64_t h = 0; h < H; h++)
            for (int64_t t = 0; t < T; t++) plain_row(f, b, h, t, map_of(&maps, b, h) + t * T);
    return maps;
}

/* Blocks of a size with a key that is seen, and those of them without a weight in the heads h .. h + n - 1. */
static void count_plainly(const whole_maps *maps, const sp_block_size *size, int64_t h, int64_t n, int64_t *n_blocks,
                          int64_t *n_dead) {
    *n_blocks = *n_dead = 0;
    for (int64_t b = 0; b < B; b++)
        for (int64_t t0 = 0; t0 < T; t0 += size->queries)
            for (int64_t j0 = 0; j0 < T; j0 += size->keys) {
                bool seen = false, live = false;
                for (int64_t t = t0; t < T && t < t0 + size->queries; t++)
                    for (int64_t j = j0; j < T && j < j0 + size->keys; j++)
                        for (int64_t g = h; g < h + n; g++) {
                            seen = seen || sees(maps, t, j);
                            live = live || map_of(maps, b, g)[t * T + j] > 0;
                        }
                *n_blocks += seen;
                *n_dead += seen && !live;
            }
}

static void assert_blocks_agree(const sp_map_sums *sums, const whole_maps *maps) {
    for (int i = 0; i < SP_BLOCK_SIZES; i++) {
        int64_t step = sp_block_sizes[i].group ? H / HKV : 1, n_blocks, n_dead;
        for (int64_t h = 0; h < H; h += step) {
            count_plainly(maps, &sp_block_sizes[i], h, step, &n_blocks, &n_dead);
            assert_int_equal(sums->heads[h].n_blocks[i], n_blocks);
            assert_int_equal(sums->heads[h].n_dead[i], n_dead);
        }
    }
}

static void assert_rows_agree(const sp_map_sums *sums, const whole_maps *maps, int64_t h) {
    double largest = 0, share = 0, entropy = 0, entropy_share = 0;
    int64_t n_live = 0, n_wide = 0;
    for (int64_t b = 0; b < B; b++)
        for (int64_t t = 0; t < T; t++) {
            const double *row = map_of(maps, b, h) + t * T;
            double mass = 0, most = 0, bits = 0;
            int64_t n_keys = 0;
            for (int64_t j = 0; j <= t; j++) {
                mass += row[j];
                most = fmax(most, row[j]);
                n_keys += sees(maps, t, j);
            }
            largest += most;
            if (mass == 0) continue;
            for (int64_t j = 0; j <= t; j++)
                if (row[j] > 0) bits -= row[j] / mass * log(row[j] / mass);
            n_live++;
            share += most / mass;
            entropy += bits;
            if (n_keys >= 2) entropy_share += bits / log((double)n_keys);
            n_wide += n_keys >= 2;
        }
    const sp_map_head *head = &sums->heads[h];
    assert_int_equal(head->n_queries, B * T);
    assert_int_equal(head->n_live, n_live);
    assert_int_equal(head->n_wide, n_wide);
    assert_near(head->largest, largest, 1e-4 * (1 + largest));
    assert_near(head->largest_share, share, 1e-4 * (1 + share));
    assert_near(head->entropy, entropy, 1e-4 * (1 + entropy));
    assert_near(head->entropy_share, entropy_share, 1e-4 * (1 + entropy_share));
}

/* Mean weight on a key over the queries that see it, as such and of the rows' masses. */
static void key_plainly(const whole_maps *maps, int64_t b, int64_t h, int64_t j, double *weight, double *share) {
    int64_t n_seen = 0, n_live = 0;
    *weight = *share = 0;
    for (int64_t t = j; t < T; t++) {
        const double *row = map_of(maps, b, h) + t * T;
        double mass = 0;
        if (!sees(maps, t, j)) continue;
        for (int64_t i = 0; i <= t; i++) mass += row[i];
        n_seen++;
        *weight += row[j];
        if (mass == 0) continue;
        n_live++;
        *share += row[j] / mass;
    }
    *weight /= (double)n_seen;
    *share = n_live ? *share / (double)n_live : 0;
}

/* Bins of all heads. */
static sp_map_bin_sums *bins_plainly(const sp_map_sums *sums, const whole_maps *maps, int64_t n_elsewhere[H]) {
    sp_map_bin_sums *plain = calloc((size_t)sums->n_bins, sizeof *plain);
    for (int64_t i = 0; i < B * H; i++) {
        int64_t b = i / H, h = i % H;
        bool elsewhere = false;
        for (int64_t j = 0; j < T; j++) {
            sp_map_bin_sums *bin = &plain[sp_map_bin(j)];
            double weight, share;
            key_plainly(maps, b, h, j, &weight, &share);
            bin->n_keys++;
            bin->n_sinks += weight > SP_KEY_SINK;
            bin->key_weight += weight;
            bin->key_share += share;
            elsewhere = elsewhere || (weight > SP_KEY_SINK && j > 0 && j < T / 2);
        }
        n_elsewhere[h] += elsewhere;
        for (int64_t t = 0; t < T; t++) {
            double most = 0, mass = 0;
            int64_t n_keys = 0;
            for (int64_t j = 0; j <= t; j++) {
                double weight = map_of(maps, b, h)[t * T + j];
                most = fmax(most, weight);
                mass += weight;
                n_keys += sees(maps, t, j);
            }
            sp_map_bin_sums *bin = &plain[sp_map_bin(n_keys - 1)];
            bin->n_queries++;
            bin->largest += most;
            bin->n_live += most > 0;
            if (most > 0) bin->largest_share += most / mass;
        }
    }
    return plain;
}

static void assert_bins_agree(const sp_map_sums *sums, const whole_maps *maps) {
    int64_t n_elsewhere[H] = {0};
    sp_map_bin_sums *plain = bins_plainly(sums, maps, n_elsewhere);
    for (int64_t h = 0; h < H; h++) {
        assert_int_equal(sums->heads[h].n_sequences, B);
        assert_int_equal(sums->heads[h].n_elsewhere, n_elsewhere[h]);
    }
    for (int64_t i = 0; i < sums->n_bins; i++) {
        const sp_map_bin_sums *bin = &sums->bins[i];
        assert_int_equal(bin->n_keys, plain[i].n_keys);
        assert_int_equal(bin->n_sinks, plain[i].n_sinks);
        assert_near(bin->key_weight, plain[i].key_weight, 1e-4);
        assert_near(bin->key_share, plain[i].key_share, 1e-4);
        assert_int_equal(bin->n_queries, plain[i].n_queries);
        assert_int_equal(bin->n_live, plain[i].n_live);
        assert_near(bin->largest, plain[i].largest, 1e-5 * (1 + plain[i].largest));
        assert_near(bin->largest_share, plain[i].largest_share, 1e-5 * (1 + plain[i].largest_share));
    }
    free(plain);
}

static void sums_agree_with_whole_maps(void **state) {
    (void)state;
    static const float sink[H] = {-1, 0, 2, 0.5f};
    for (int normalizer = 0; normalizer < SP_NORMALIZER_COUNT; normalizer++) {
        fixture f;
        fixture_open(&f, B, T, H, HKV, D);
        fixture_randomize(&f, 7, 1);
        for (int64_t i = 0; i < B * T * HKV * D; i += D)
            f.k[i] -= 1.5f; /* where queries agree, most scores are negative */
        for (int64_t i = 0; i < B * T * H * D; i += D) f.q[i] = i % (H * D) == 0 ? 4 : 1;
        f.problem.normalizer = (sp_normalizer)normalizer;
        if (normalizer == SP_NORMALIZER_SOFTMAX_SINK) f.problem.sink = sink;
        whole_maps maps = maps_open(&f);
        sp_map_sums sums = opened(H, HKV, T);
        add(&sums, &f.problem);
        assert_blocks_agree(&sums, &maps);
        assert_bins_agree(&sums, &maps);
        for (int64_t h = 0; h < H; h++) assert_rows_agree(&sums, &maps, h);
        if (normalizer == SP_NORMALIZER_SOFTPICK) { /* the test looks at live and at dead blocks of most sizes */
            assert_true(sums.heads[0].n_dead[0] > 0 && sums.heads[0].n_dead[0] < sums.heads[0].n_blocks[0]);
            assert_true(sums.heads[0].n_dead[4] < sums.heads[0].n_dead[3]);
        }
        sp_map_sums_close(&sums);
        free(maps.weights);
        fixture_close(&f);
    }
}

/* ---- known maps ------------------------------------------------------------------------------------------------ */

/* One head of one channel: every query is 1, so key j scores score[j] for all. */
static sp_map_sums sums_of_keys(sp_normalizer normalizer, const float *score, int64_t n) {
    fixture f;
    fixture_open(&f, 1, n, 1, 1, 1);
    for (int64_t t = 0; t < n; t++) {
        f.q[t] = 1;
        f.k[t] = score[t];
    }
    f.problem.normalizer = normalizer;
    sp_map_sums sums = opened(1, 1, n);
    add(&sums, &f.problem);
    fixture_close(&f);
    return sums;
}

static void uniform_rows_have_the_most_entropy(void **state) {
    (void)state;
    enum { N = 70 };
    float score[N] = {0};
    double entropy = 0;
    for (int t = 0; t < N; t++) entropy += log(t + 1.0);
    sp_map_sums sums = sums_of_keys(SP_NORMALIZER_SOFTMAX, score, N);
    assert_near(sums.heads[0].entropy, entropy, 1e-4);
    assert_near(sums.heads[0].entropy_share, N - 1, 1e-4);
    assert_int_equal(sums.heads[0].n_wide, N - 1);
    sp_map_sums_close(&sums);
}

static void sink_that_is_not_the_first_key_is_found(void **state) {
    (void)state;
    enum { N = 80 };
    float score[N] = {0};
    score[5] = 8;
    sp_map_sums sums = sums_of_keys(SP_NORMALIZER_SOFTMAX, score, N);
    assert_int_equal(sums.heads[0].n_elsewhere, 1);
    assert_int_equal(sums.bins[sp_map_bin(5)].n_sinks, 1);
    assert_int_equal(sums.bins[sp_map_bin(4)].n_sinks, 0);
    sp_map_sums_close(&sums);
    score[5] = 0;
    score[N / 2] = 8; /* the second half does not count: its last keys are seen by few */
    sums = sums_of_keys(SP_NORMALIZER_SOFTMAX, score, N);
    assert_int_equal(sums.bins[sp_map_bin(N / 2)].n_sinks, 1);
    assert_int_equal(sums.heads[0].n_elsewhere, 0);
    sp_map_sums_close(&sums);
}

/* Underscoring: every key that scores below zero adds to softpick's denominator. */
static void largest_weight_falls_with_the_context(void **state) {
    (void)state;
    enum { N = 200 };
    float score[N];
    for (int t = 0; t < N; t++) score[t] = t == 0 ? 2 : -3;
    sp_map_sums sums = sums_of_keys(SP_NORMALIZER_SOFTPICK, score, N);
    double P = expm1(2), negative = -expm1(-3);
    for (int64_t n = 1; n < 32; n += 10)
        assert_near(sums.bins[sp_map_bin(n - 1)].largest, P / (P + negative * (double)(n - 1)), 1e-5);
    assert_near(sums.heads[0].largest_share, N, 1e-3);
    sp_map_sums_close(&sums);
}

/* One positive key alone: what holds it is live, for the queries from it on. */
static void block_is_live_by_any_of_its_keys(void **state) {
    (void)state;
    enum { N = 192 };
    for (int64_t key = 3; key < N; key += 27) {
        float score[N];
        for (int t = 0; t < N; t++) score[t] = t == key ? 2 : -1;
        sp_map_sums sums = sums_of_keys(SP_NORMALIZER_SOFTPICK, score, N);
        const sp_map_head *head = &sums.heads[0];
        assert_int_equal(head->n_blocks[2] - head->n_dead[2], N / 64 - key / 64);
        assert_int_equal(head->n_blocks[1] - head->n_dead[1], N / 64 - key / 64);
        assert_int_equal(head->n_blocks[0] - head->n_dead[0], N / 16 - key / 16);
        assert_int_equal(head->n_blocks[3] - head->n_dead[3], N - key);
        sp_map_sums_close(&sums);
    }
}

/* ---- other shapes ---------------------------------------------------------------------------------------------- */

static void window_hides_blocks_that_no_query_sees(void **state) {
    (void)state;
    enum { N = 128, WINDOW = 16 };
    fixture f;
    fixture_open(&f, 1, N, 1, 1, 1);
    f.problem.normalizer = SP_NORMALIZER_SOFTMAX; /* all scores 0 */
    f.problem.window = WINDOW;
    sp_map_sums sums = opened(1, 1, N);
    add(&sums, &f.problem);
    assert_int_equal(sums.heads[0].n_blocks[0], N / 16 + N / 16 - 1); /* the diagonal, and what lies before it */
    assert_int_equal(sums.heads[0].n_dead[0], 0);
    assert_int_equal(sums.heads[0].n_blocks[3], 1 + WINDOW * (WINDOW - 1) / 2 - 1 + (N - WINDOW + 1) * WINDOW);
    assert_int_equal(sums.bins[sp_map_bin(WINDOW - 1)].n_queries, N - WINDOW + 1);
    sp_map_sums_close(&sums);
    fixture_close(&f);
}

static void packed_sequences_are_summed_as_if_alone(void **state) {
    (void)state;
    enum { N = 240, HEADS = 2, WIDTH = 4, SEQUENCES = 4 };
    static const int64_t cu[SEQUENCES + 1] = {0, 130, 130, 137, 240};
    fixture f;
    fixture_open(&f, 1, N, HEADS, HEADS, WIDTH);
    fixture_randomize(&f, 5, 1);
    sp_attention packed = f.problem;
    packed.cu_q = cu;
    packed.n_sequences = SEQUENCES;
    sp_map_sums together = opened(HEADS, HEADS, N), alone = opened(HEADS, HEADS, N);
    add(&together, &packed);
    for (int64_t i = 0; i < SEQUENCES; i++) {
        int64_t n = cu[i + 1] - cu[i], shape[] = {1, n, HEADS, WIDTH};
        if (n == 0) continue;
        sp_attention part = f.problem;
        part.q = sp_tensor_view(f.q + cu[i] * HEADS * WIDTH, SP_DTYPE_F32, 4, shape);
        part.k = sp_tensor_view(f.k + cu[i] * HEADS * WIDTH, SP_DTYPE_F32, 4, shape);
        add(&alone, &part);
    }
    assert_memory_equal(together.heads, alone.heads, HEADS * sizeof *alone.heads);
    assert_memory_equal(together.bins, alone.bins, (size_t)alone.n_bins * sizeof *alone.bins);
    assert_int_equal(together.heads[0].n_sequences, 3);
    sp_map_sums_close(&together);
    sp_map_sums_close(&alone);
    fixture_close(&f);
}

static void short_sequences_say_nothing_of_single_keys(void **state) {
    (void)state;
    fixture f;
    fixture_open(&f, 1, 20, 1, 1, 1);
    sp_map_sums sums = opened(1, 1, 20);
    assert_int_equal(sp_map_sums_add(&sums, 0, &f.problem, 21), SP_OK);
    assert_int_equal(sums.heads[0].n_queries, 20);
    assert_int_equal(sums.heads[0].n_sequences, 0);
    assert_int_equal(sums.bins[0].n_keys, 0);
    sp_map_sums_close(&sums);
    fixture_close(&f);
}

static void threads_do_not_change_a_bit(void **state) {
    (void)state;
    fixture f;
    fixture_open(&f, B, T, H, HKV, D);
    fixture_randomize(&f, 9, 1);
    sp_map_sums one = opened(H, HKV, T), five = opened(H, HKV, T);
    int n_threads = omp_get_max_threads();
    omp_set_num_threads(1);
    add(&one, &f.problem);
    omp_set_num_threads(5);
    add(&five, &f.problem);
    omp_set_num_threads(n_threads);
    assert_memory_equal(one.heads, five.heads, H * sizeof *one.heads);
    assert_memory_equal(one.bins, five.bins, (size_t)one.n_bins * sizeof *one.bins);
    sp_map_sums_close(&one);
    sp_map_sums_close(&five);
    fixture_close(&f);
}

static void longer_sequences_than_announced_are_refused(void **state) {
    (void)state;
    fixture f;
    fixture_open(&f, 1, 8, 1, 1, 1);
    sp_map_sums sums = opened(1, 1, 7);
    assert_int_equal(sp_map_sums_add(&sums, 0, &f.problem, 1), SP_INTERNAL);
    assert_int_equal(sums.heads[0].n_queries, 0);
    sp_map_sums_close(&sums);
    fixture_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bins_cover_all_numbers_in_order),
        cmocka_unit_test(sums_agree_with_whole_maps),
        cmocka_unit_test(uniform_rows_have_the_most_entropy),
        cmocka_unit_test(sink_that_is_not_the_first_key_is_found),
        cmocka_unit_test(largest_weight_falls_with_the_context),
        cmocka_unit_test(block_is_live_by_any_of_its_keys),
        cmocka_unit_test(window_hides_blocks_that_no_query_sees),
        cmocka_unit_test(packed_sequences_are_summed_as_if_alone),
        cmocka_unit_test(short_sequences_say_nothing_of_single_keys),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(longer_sequences_than_announced_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
