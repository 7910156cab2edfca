/* softpick bench attention, from inside: the gate tells right results from wrong ones, patterns have the zeros that they
 * say, and those are counted as they lie. */
#define _GNU_SOURCE /* mkdtemp */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "attention/problem.h"
#include "cli/bench.h"
#include "cli/bench_gate.h"
#include "checkpoint_support.h"

enum { ROWS = 40, WIDTH = 64, COUNT = ROWS * WIDTH };

typedef struct pair {
    float truth[COUNT], result[COUNT];
    sp_tensor a, b;
} pair;

/* Two equal tensors. */
static void pair_open(pair *p) {
    const int64_t shape[] = {1, ROWS, 1, WIDTH};
    for (int i = 0; i < COUNT; i++) p->truth[i] = p->result[i] = sinf((float)i);
    p->a = sp_tensor_view(p->truth, SP_DTYPE_F32, 4, shape);
    p->b = sp_tensor_view(p->result, SP_DTYPE_F32, 4, shape);
}

static sp_status compare(const pair *p, double bound) { return bench_compare("out", &p->a, &p->b, bound); }

/* ---- the gate --------------------------------------------------------------------------------------------------- */

static void gate_takes_what_is_within_the_bound(void **state) {
    (void)state;
    pair p;
    pair_open(&p);
    assert_int_equal(compare(&p, 1e-5), SP_OK);
    for (int i = 0; i < COUNT; i++) p.result[i] *= 1 + 0.9e-2f;
    assert_int_equal(compare(&p, 1e-2), SP_OK);
}

static void gate_refuses_what_is_beyond_the_bound(void **state) {
    (void)state;
    pair p;
    pair_open(&p);
    for (int i = 0; i < COUNT; i++) p.result[i] *= 1.011f;
    assert_int_equal(compare(&p, 1e-2), SP_INTERNAL);
    assert_non_null(strstr(sp_last_message(), "out is off by 0.011"));
}

static void gate_refuses_one_wrong_number(void **state) {
    (void)state;
    pair p;
    for (int i = 0; i < COUNT; i += 41) {
        pair_open(&p);
        p.result[i] += 0.1f; /* of the whole that is 0.003 */
        assert_int_equal(compare(&p, 1e-2), SP_INTERNAL);
    }
}

static void gate_refuses_what_is_not_a_number(void **state) {
    (void)state;
    static const float wrong[] = {NAN, INFINITY, -INFINITY};
    pair p;
    for (int i = 0; i < 3; i++) {
        pair_open(&p);
        p.result[COUNT - 1] = wrong[i];
        assert_int_equal(compare(&p, 1e-2), SP_INTERNAL);
    }
}

static void gate_asks_for_zeros_where_the_truth_is_zero(void **state) {
    (void)state;
    pair p;
    pair_open(&p);
    memset(p.truth, 0, sizeof p.truth);
    memset(p.result, 0, sizeof p.result);
    assert_int_equal(compare(&p, 1e-2), SP_OK);
    p.result[7] = 1e-30f;
    assert_int_equal(compare(&p, 1e-2), SP_INTERNAL);
}

static void gate_compares_row_numbers(void **state) {
    (void)state;
    const float truth[] = {1, INFINITY, -3}, near[] = {1.001f, INFINITY, -3}, off[] = {1, 2, -3};
    const float other[] = {1, INFINITY, NAN}, down[] = {1, -INFINITY, -3};
    assert_int_equal(bench_compare_rows("lse", truth, near, 3, 1e-2), SP_OK);
    assert_int_equal(bench_compare_rows("lse", truth, near, 3, 1e-4), SP_INTERNAL);
    assert_int_equal(bench_compare_rows("lse", truth, off, 3, 1e-2), SP_INTERNAL);
    assert_non_null(strstr(sp_last_message(), "lse of row 1 is 2, not inf"));
    assert_int_equal(bench_compare_rows("lse", truth, other, 3, 1e-2), SP_INTERNAL);
    assert_int_equal(bench_compare_rows("lse", truth, down, 3, 1e-2), SP_INTERNAL);
}

static void gate_compares_liveness(void **state) {
    (void)state;
    uint32_t truth[20] = {0xf0f0f0f0u, 1, 2, 3}, result[20];
    memcpy(result, truth, sizeof truth);
    assert_int_equal(bench_compare_liveness(truth, result, 20), SP_OK);
    result[1] = 0; /* a score within rounding of 0 */
    assert_int_equal(bench_compare_liveness(truth, result, 20), SP_OK);
    result[0] = 0x0f0f0f0fu;
    assert_int_equal(bench_compare_liveness(truth, result, 20), SP_INTERNAL);
}

/* ---- whole problems --------------------------------------------------------------------------------------------- */

static const bench_options standard = {
    .normalizer = SP_NORMALIZER_SOFTPICK, .lambda = 1, .causal = true, .liveness = true};

static bench_shape make_shape(int64_t T, int64_t S, sp_dtype dtype, bench_pattern_kind kind, double share) {
    return (bench_shape){.B = 2,
                         .T = T,
                         .S = S,
                         .H = 4,
                         .Hkv = 2,
                         .D = 64,
                         .Dv = 32,
                         .dtype = dtype,
                         .pattern = {.kind = kind, .share = share},
                         .n_caches = 1};
}

static void every_pass_that_runs_here_goes_through_the_gate(void **state) {
    (void)state;
    bench_options options = standard;
    const char *name;
    bench_shape shape = make_shape(90, 130, SP_DTYPE_BF16, BENCH_DENSE, 0);
    shape.gradients = true;
    for (int pass = 0; pass < SP_ATTENTION_PASS_COUNT; pass++) {
        bench_problem p;
        assert_int_equal(bench_problem_open(&p, sp_device_host(), &shape, 1), SP_OK);
        sp_attention problem = bench_problem_of(&p, &options, (sp_attention_pass)pass);
        sp_status status = sp_attention_choose(&problem, (sp_attention_pass)pass, &name);
        bench_problem_close(&p);
        if (status == SP_UNSUPPORTED) continue;
        assert_int_equal(status, SP_OK);
        for (int i = 0; i < SP_NORMALIZER_COUNT; i++) {
            options.normalizer = (sp_normalizer)i;
            if (bench_gate(sp_device_host(), &shape, &options, (sp_attention_pass)pass, 2, 5) != SP_OK)
                fail_msg("%s, %s: %s", sp_attention_pass_name((sp_attention_pass)pass),
                         sp_normalizer_name((sp_normalizer)i), sp_last_message());
        }
    }
}

static void pages_hold_every_key_once(void **state) {
    (void)state;
    bench_problem p;
    bench_options options = standard;
    bench_shape shape = make_shape(1, 130, SP_DTYPE_BF16, BENCH_KEYS, 0.3);
    shape.page_size = 48; /* 3 pages, the last not full */
    assert_int_equal(bench_problem_open(&p, sp_device_host(), &shape, 1), SP_OK);
    sp_attention problem = bench_problem_of(&p, &options, SP_ATTENTION_DECODE);
    assert_true(problem.k.shape[0] == 6 && problem.k.shape[1] == 48 && problem.pages_per_sequence == 3);
    int seen[6] = {0};
    for (int i = 0; i < 6; i++) {
        assert_true(problem.page_table[i] / 3 == i / 3);
        seen[problem.page_table[i]]++;
    }
    for (int i = 0; i < 6; i++) assert_int_equal(seen[i], 1);
    assert_int_equal(problem.key_lengths[1], 130);
    assert_null(bench_problem_of(&p, &options, SP_ATTENTION_FORWARD).page_table);
    bench_problem_close(&p);
    assert_int_equal(bench_gate(sp_device_host(), &shape, &options, SP_ATTENTION_DECODE, 2, 5), SP_OK);
}

/* The gate at full size, in every pass; then one number of what the last rows give is wrong. */
static void last_rows_are_held_against_the_definition(void **state) {
    (void)state;
    bench_shape shape = make_shape(90, 130, SP_DTYPE_BF16, BENCH_DENSE, 0);
    shape.gradients = true;
    for (int i = 0; i < 2 * SP_ATTENTION_PASS_COUNT * SP_NORMALIZER_COUNT; i++) {
        sp_attention_pass pass = (sp_attention_pass)(i / 2 % SP_ATTENTION_PASS_COUNT);
        bench_options options = standard;
        bench_problem p;
        options.causal = i % 2;
        options.normalizer = (sp_normalizer)(i / 2 / SP_ATTENTION_PASS_COUNT);
        shape.T = pass == SP_ATTENTION_DECODE ? 3 : 90;
        assert_int_equal(bench_problem_open(&p, sp_device_host(), &shape, 1), SP_OK);
        if (bench_gate_large(&p, &options, pass, 2) != SP_OK) fail_msg("pass %d: %s", (int)pass, sp_last_message());
        const sp_tensor *last = pass == SP_ATTENTION_BACKWARD ? i % 2 ? &p.problem.dk : &p.problem.dq : &p.problem.out;
        ((uint16_t *)last->data)[sp_tensor_count(last) - 1] ^= 0x7000;
        assert_int_equal(bench_gate_rows(&p, &options, pass), SP_INTERNAL);
        bench_problem_close(&p);
    }
}

/* Where rounding alone costs more, and only there. */
static void captured_numbers_have_a_wider_bound(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        bench_bounds dense = bench_gate_bounds(&(bench_shape){.dtype = i ? SP_DTYPE_BF16 : SP_DTYPE_F32});
        bench_shape shape = {.dtype = i ? SP_DTYPE_BF16 : SP_DTYPE_F32, .pattern = {.kind = BENCH_CAPTURED}};
        bench_bounds captured = bench_gate_bounds(&shape);
        assert_true(captured.sums == dense.sums && dense.scores == dense.sums);
        assert_true(captured.scores == (i ? 3 : 1) * dense.scores);
    }
}

static bench_counts count(const bench_shape *shape, bool causal) {
    bench_problem p;
    bench_counts counts;
    assert_int_equal(bench_problem_open(&p, sp_device_host(), shape, 3), SP_OK);
    bench_options options = standard;
    options.causal = causal;
    assert_int_equal(bench_count(&counts, &p, &options), SP_OK);
    bench_problem_close(&p);
    return counts;
}

static void pairs_are_those_that_are_seen(void **state) {
    (void)state;
    bench_shape shape = make_shape(70, 100, SP_DTYPE_F32, BENCH_DENSE, 0);
    assert_true(count(&shape, false).pairs == 8 * 70 * 100);
    assert_true(count(&shape, true).pairs == 8 * (70 * 30 + 70 * 71 / 2));
    assert_true(count(&shape, false).blocks == 8 * 5 * 7);
}

static void near(double found, double expected, double slack) {
    if (!(fabs(found - expected) <= slack)) fail_msg("%g is not within %g of %g", found, slack, expected);
}

static void patterns_have_the_zeros_that_they_say(void **state) {
    (void)state;
    static const double shares[] = {0, 0.1, 0.5, 0.9, 1};
    static const sp_dtype dtypes[] = {SP_DTYPE_F32, SP_DTYPE_BF16, SP_DTYPE_F16};
    for (int i = 0; i < 15; i++) {
        double share = shares[i % 5];
        bench_shape slabs = make_shape(256, 512, dtypes[i / 5], BENCH_SLABS, share), zeros = slabs, keys = slabs;
        zeros.pattern.kind = BENCH_ZEROS, keys.pattern.kind = BENCH_KEYS;
        bench_counts c = count(&slabs, false); /* (B,Hkv) x 32 slabs x 4 tiles are drawn */
        near(c.dead_blocks / c.blocks, share, 0.06);
        near(c.dead_pairs / c.pairs, share, 0.06);
        near(c.zero_pairs / c.pairs, share + (1 - share) / 2, 0.04);
        c = count(&zeros, false);
        near(c.zero_pairs / c.pairs, share, 0.01);
        c = count(&keys, false); /* 2048 keys are drawn */
        near(c.zero_pairs / c.pairs, 1 - share, 0.03);
    }
}

static void dead_blocks_are_zeros_alone(void **state) {
    (void)state;
    bench_shape shape = make_shape(128, 128, SP_DTYPE_F32, BENCH_SLABS, 0.5);
    bench_counts c = count(&shape, true);
    assert_true(c.dead_pairs > 0 && c.dead_pairs < c.zero_pairs);
    shape.pattern.share = 1;
    c = count(&shape, true);
    assert_true(c.dead_blocks == c.blocks && c.dead_pairs == c.pairs && c.zero_pairs == c.pairs);
}

static void caches_hold_the_same_and_take_turns(void **state) {
    (void)state;
    bench_problem p;
    bench_shape shape = make_shape(1, 33, SP_DTYPE_BF16, BENCH_DENSE, 0);
    shape.n_caches = 3;
    assert_int_equal(bench_problem_open(&p, sp_device_host(), &shape, 3), SP_OK);
    const char *k = p.problem.k.data, *v = p.problem.v.data;
    size_t k_bytes = (size_t)sp_tensor_count(&p.problem.k) * 2, v_bytes = (size_t)sp_tensor_count(&p.problem.v) * 2;
    for (int i = 0; i < 2; i++) {
        bench_problem_turn(&p);
        assert_true((const char *)p.problem.k.data >= k + (size_t)(i + 1) * (k_bytes + v_bytes));
        assert_memory_equal(p.problem.k.data, k, k_bytes);
        assert_memory_equal(p.problem.v.data, v, v_bytes);
    }
    bench_problem_turn(&p);
    assert_ptr_equal(p.problem.k.data, k);
    assert_ptr_equal(p.problem.v.data, v);
    bench_problem_close(&p);
}

static void patterns_are_read_as_they_are_written(void **state) {
    (void)state;
    static const char *const right[] = {"dense", "slabs=0.25", "keys=1", "zeros=0", "captured=a=b"};
    static const char *const wrong[] = {
        "", "dens", "dense=1", "slabs", "slabs=", "slabs=x", "keys=1.5", "zeros=-1", "zeros=nan", "captured"};
    bench_pattern pattern;
    char text[32];
    for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
        assert_int_equal(bench_pattern_parse(&pattern, right[i]), SP_OK);
        bench_pattern_format(text, sizeof text, pattern);
        assert_string_equal(text, right[i]);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(bench_pattern_parse(&pattern, wrong[i]), SP_BAD_ARGUMENT);
}

/* ---- captured tensors ------------------------------------------------------------------------------------------- */

enum { FILE_B = 2, FILE_T = 40, FILE_H = 4, FILE_HKV = 2, FILE_D = 8 };

/* A number that tells where in the file it stands; exact in bf16. */
static float place(int64_t b, int64_t t, int64_t h, int64_t d) { return (float)(b * 128 + t * 2 + h * 32 + d % 2); }

static float wave(int64_t b, int64_t t, int64_t h, int64_t d) {
    return 1.5f * sinf((float)(b + 3 * t + 5 * h) * (float)(d + 1));
}

static float minus(int64_t b, int64_t t, int64_t h, int64_t d) { return (float)(-1 - b - t - h - d); }
static float plus(int64_t b, int64_t t, int64_t h, int64_t d) { return -minus(b, t, h, d); }

/* Numbers of q by one function, of k and v by another. */
typedef float (*number_at)(int64_t b, int64_t t, int64_t h, int64_t d);
static void write_captured(number_at q, number_at k) {
    static float numbers[3][FILE_B * FILE_T * FILE_H * FILE_D];
    static const char *const names[] = {"q", "k", "v"};
    sp_named_tensor tensors[3];
    for (int i = 0; i < 3; i++) {
        const int64_t H = i ? FILE_HKV : FILE_H, shape[] = {FILE_B, FILE_T, H, FILE_D};
        for (int64_t n = 0; n < FILE_B * FILE_T * H * FILE_D; n++)
            numbers[i][n] = (i ? k : q)(n / FILE_D / H / FILE_T, n / FILE_D / H % FILE_T, n / FILE_D % H, n % FILE_D);
        tensors[i] = (sp_named_tensor){names[i], sp_tensor_view(numbers[i], SP_DTYPE_F32, 4, shape)};
    }
    assert_int_equal(sp_safetensors_write("captured.safetensors", tensors, 3), SP_OK);
}

static bench_shape captured_shape(int64_t H, int64_t Hkv, int64_t T, int64_t S) {
    return (bench_shape){.B = 3,
                         .T = T,
                         .S = S,
                         .H = H,
                         .Hkv = Hkv,
                         .D = FILE_D,
                         .Dv = FILE_D,
                         .dtype = SP_DTYPE_F32,
                         .pattern = {.kind = BENCH_CAPTURED, .file = "captured.safetensors"},
                         .n_caches = 1};
}

static float first_of(const sp_tensor *tensor, int64_t b, int64_t t, int64_t h) {
    return *(const float *)(const void *)sp_problem_row(tensor, b, t, h);
}

/* 3 sequences and 3 key heads of a file with 2: the third is the first; 3 query heads to a key head of a file with 2. */
static void captured_tensors_are_taken_again_where_more_are_wanted(void **state) {
    (void)state;
    bench_problem p;
    bench_shape shape = captured_shape(9, 3, 5, 30);
    write_captured(place, place);
    assert_int_equal(bench_problem_open(&p, sp_device_host(), &shape, 1), SP_OK);
    static const int64_t q_heads[] = {0, 1, 0, 2, 3, 2, 0, 1, 0};
    for (int64_t b = 0; b < 3; b++) {
        for (int64_t h = 0; h < 9; h++) /* the last 5 of the first 30 tokens */
            assert_true(first_of(&p.problem.q, b, 4, h) == place(b % 2, 29, q_heads[h], 0));
        for (int64_t h = 0; h < 3; h++) {
            assert_true(first_of(&p.problem.k, b, 29, h) == place(b % 2, 29, h % 2, 0));
            assert_true(first_of(&p.problem.v, b, 3, h) == place(b % 2, 3, h % 2, 0));
        }
    }
    bench_problem_close(&p);
}

static void captured_tensors_go_through_the_gate(void **state) {
    (void)state;
    bench_shape shape = captured_shape(4, 2, 40, 40);
    bench_options options = standard;
    write_captured(wave, wave);
    for (int pass = 0; pass < SP_ATTENTION_PASS_COUNT; pass++)
        assert_int_equal(bench_gate(sp_device_host(), &shape, &options, (sp_attention_pass)pass, 2, 5), SP_OK);
    write_captured(plus, minus);
    assert_true(count(&shape, true).dead_blocks == count(&shape, true).blocks);
}

static void captured_tensors_must_fit(void **state) {
    (void)state;
    bench_problem p;
    bench_shape shape = captured_shape(4, 2, 41, 41);
    write_captured(place, place);
    assert_int_equal(bench_problem_open(&p, sp_device_host(), &shape, 1), SP_BAD_ARGUMENT);
    assert_non_null(strstr(sp_last_message(), "its sequences have 40 tokens, 41 were asked for"));
    bench_problem_close(&p);
    shape = captured_shape(4, 2, 40, 40);
    shape.D = 16;
    assert_int_equal(bench_problem_open(&p, sp_device_host(), &shape, 1), SP_BAD_ARGUMENT);
    bench_problem_close(&p);
    shape.D = FILE_D, shape.pattern.file = "nowhere.safetensors";
    assert_int_equal(bench_problem_open(&p, sp_device_host(), &shape, 1), SP_IO);
    bench_problem_close(&p);
    const int64_t flat[] = {4};
    const sp_named_tensor other = {"q", sp_tensor_view((float[4]){0}, SP_DTYPE_F32, 1, flat)};
    assert_int_equal(sp_safetensors_write("captured.safetensors", &other, 1), SP_OK);
    shape.pattern.file = "captured.safetensors";
    assert_int_equal(bench_problem_open(&p, sp_device_host(), &shape, 1), SP_BAD_FILE);
    bench_problem_close(&p);
}

static void times_have_a_least_and_a_median(void **state) {
    (void)state;
    static bench_times times;
    assert_true(bench_times_median(&times) == 0);
    static const double seconds[] = {5, 1, 4};
    for (int i = 0; i < 3; i++) bench_times_add(&times, seconds[i]);
    assert_true(times.least == 1 && bench_times_median(&times) == 4);
    bench_times_add(&times, 3);
    assert_true(bench_times_median(&times) == 3.5);
    for (int i = 0; i < BENCH_TIMES; i++) bench_times_add(&times, 2);
    assert_true(times.least == 1 && bench_times_median(&times) == 2);
}

static int work_in_scratch(void **state) {
    int failed = make_scratch(state);
    return failed ? failed : chdir(*state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gate_takes_what_is_within_the_bound),
        cmocka_unit_test(gate_refuses_what_is_beyond_the_bound),
        cmocka_unit_test(gate_refuses_one_wrong_number),
        cmocka_unit_test(gate_refuses_what_is_not_a_number),
        cmocka_unit_test(gate_asks_for_zeros_where_the_truth_is_zero),
        cmocka_unit_test(gate_compares_row_numbers),
        cmocka_unit_test(gate_compares_liveness),
        cmocka_unit_test(every_pass_that_runs_here_goes_through_the_gate),
        cmocka_unit_test(last_rows_are_held_against_the_definition),
        cmocka_unit_test(captured_numbers_have_a_wider_bound),
        cmocka_unit_test(pages_hold_every_key_once),
        cmocka_unit_test(pairs_are_those_that_are_seen),
        cmocka_unit_test(patterns_have_the_zeros_that_they_say),
        cmocka_unit_test(dead_blocks_are_zeros_alone),
        cmocka_unit_test(caches_hold_the_same_and_take_turns),
        cmocka_unit_test(patterns_are_read_as_they_are_written),
        cmocka_unit_test(captured_tensors_are_taken_again_where_more_are_wanted),
        cmocka_unit_test(captured_tensors_go_through_the_gate),
        cmocka_unit_test(captured_tensors_must_fit),
        cmocka_unit_test(times_have_a_least_and_a_median),
    };
    return cmocka_run_group_tests(tests, work_in_scratch, remove_scratch);
}
