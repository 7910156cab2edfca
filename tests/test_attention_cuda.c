/* Attention forward on a GPU, against the definition: the row sm80 with every normalizer, mask and width.  Bounds are
 * those of 16-bit numerators and outputs. */
#define _GNU_SOURCE /* setenv */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention/row_sums.h"
#include "attention/select.h"
#include "attention_sample.h"
#include "attention_signs.h"
#include "base/status.h"
#include "cuda_first.h"

/* The GPU may have better rows; these tests are about this one, unless SOFTPICK_TEST_BEST is set.  Named only while it
 * runs: the CPU has its own. */
static void name_row(void) {
    if (!getenv("SOFTPICK_TEST_BEST")) setenv("SP_ATTENTION", "sm80", 1);
}
static void name_none(void) { unsetenv("SP_ATTENTION"); }

static void run_here(cuda_case *c, sp_attention_pass pass) {
    name_row();
    cuda_expect(cuda_case_run(c, pass));
    name_none();
}

/* A case on the GPU beside the same case for the definition. */
typedef struct twin_case {
    attention_case truth, host;
    cuda_case ours;
} twin_case;

static void twin_open(twin_case *twin, const attention_shape *shape) {
    case_open(&twin->truth, shape);
    case_open(&twin->host, shape);
    cuda_case_open(&twin->ours, &twin->host, gpu);
}

static void twin_close(twin_case *twin) {
    cuda_case_close(&twin->ours);
    case_close(&twin->host);
    case_close(&twin->truth);
}

/* Largest ||ours - truth||, relative to ||truth||.  Where there are few rows, or all are alike, the roundings of one key
 * that outweighs the others do not cancel. */
static double out_bound(const attention_shape *shape, bool alike) {
    double bound = shape->dtype == SP_DTYPE_BF16 ? 4e-3 : 6e-4;
    return alike || shape->B * shape->T * shape->H < 100 ? 2 * bound : bound;
}

/* Whether outputs and log denominators agree; tells what does not. */
static bool twin_agrees(const twin_case *twin, const attention_shape *shape, bool alike) {
    char text[320];
    double out = cuda_tensor_error(&twin->truth.problem.out, &twin->host.problem.out);
    double lse = cuda_floats_error(twin->truth.lse, twin->host.lse, twin->host.n_lse);
    if (out <= out_bound(shape, alike) && lse <= 1e-3 && twin->ours.n_written_outside == 0) return true;
    case_describe(shape, text, sizeof text);
    fprintf(stderr, "%s: error of out %.3g, of lse %.3g, %lld bytes written outside\n", text, out, lse,
            (long long)twin->ours.n_written_outside);
    return false;
}

/* Changes the inputs of a case before it is copied to the GPU. */
typedef void (*change_inputs)(attention_case *c);

/* One pass of a case here and there; `change` may be NULL. */
static bool pass_agrees(const attention_shape *shape, sp_attention_pass pass, change_inputs change) {
    twin_case twin;
    case_open(&twin.truth, shape);
    case_open(&twin.host, shape);
    if (change) change(&twin.truth), change(&twin.host);
    cuda_case_open(&twin.ours, &twin.host, gpu);
    cuda_expect(pass == SP_ATTENTION_DECODE ? sp_attention_define_decode(&twin.truth.problem)
                                            : sp_attention_define_forward(&twin.truth.problem));
    run_here(&twin.ours, pass);
    bool near = twin_agrees(&twin, shape, change);
    twin_close(&twin);
    return near;
}

static bool forward_agrees(const attention_shape *shape) { return pass_agrees(shape, SP_ATTENTION_FORWARD, NULL); }

static const sp_dtype dtypes[] = {SP_DTYPE_BF16, SP_DTYPE_F16};

/* ---- against the definition ------------------------------------------------------------------------------------- */

static void dense_causal_agrees_in_every_width(void **state) {
    (void)state;
    static const int64_t widths[] = {64, 128, 256, 96, 32, 8, 200}, lengths[] = {1, 63, 64, 65, 129, 300};
    bool near = true;
    if (!gpu) skip();
    for (int dtype = 0; dtype < 2; dtype++)
        for (size_t d = 0; d < sizeof widths / sizeof *widths; d++)
            for (size_t t = 0; t < sizeof lengths / sizeof *lengths; t++) {
                attention_shape shape = cuda_shape(lengths[t], widths[d], dtypes[dtype]);
                near = forward_agrees(&shape) && near;
            }
    assert_true(near);
}

static void long_sequences_agree(void **state) {
    (void)state;
    bool near = true;
    if (!gpu) skip();
    for (int kind = 0; kind < 2; kind++)
        for (int64_t D = 64; D <= 128; D += 64) {
            attention_shape shape = cuda_shape(1000, D, SP_DTYPE_BF16);
            shape.normalizer = kind ? SP_NORMALIZER_SOFTMAX : SP_NORMALIZER_SOFTPICK;
            near = forward_agrees(&shape) && near;
        }
    assert_true(near);
}

/* What the row takes of the endless list. */
static void sampled_problems_agree(void **state) {
    (void)state;
    bool near = true;
    if (!gpu) skip();
    for (uint64_t seed = sample_first(); seed < sample_first() + sample_count(300); seed++) {
        attention_shape shape = sample_shape(seed, 400000);
        if (shape.dtype == SP_DTYPE_F32) shape.dtype = SP_DTYPE_BF16;
        shape.liveness = shape.interleaved = shape.statistics = false;
        near = forward_agrees(&shape) && near;
    }
    assert_true(near);
}

static void sampled_caches_agree(void **state) {
    (void)state;
    bool near = true;
    if (!gpu) skip();
    for (uint64_t seed = sample_first(); seed < sample_first() + sample_count(300); seed++) {
        attention_shape shape = sample_decode(seed, 4000000);
        if (shape.dtype == SP_DTYPE_F32) shape.dtype = SP_DTYPE_F16;
        near = pass_agrees(&shape, SP_ATTENTION_DECODE, NULL) && near;
    }
    assert_true(near);
}

/* q, k and v of a token side by side, as one product writes them. */
static void parts_of_one_buffer_agree(void **state) {
    (void)state;
    enum { T = 150, H = 3, D = 64, TOKEN = 3 * H * D };
    attention_shape shape = cuda_shape(T, D, SP_DTYPE_BF16);
    if (!gpu) skip();
    shape.B = 1, shape.H = shape.Hkv = H;
    twin_case twin;
    twin_open(&twin, &shape);
    void *buffer = cuda_poisoned(gpu, T * TOKEN * 2);
    sp_tensor *const parts[] = {&twin.ours.problem.q, &twin.ours.problem.k, &twin.ours.problem.v};
    for (int i = 0; i < 3; i++) {
        sp_tensor part = *parts[i];
        part.data = (char *)buffer + i * H * D * 2;
        part.stride[0] = T * TOKEN, part.stride[1] = TOKEN, part.stride[2] = D;
        for (int64_t h = 0; h < H; h++)
            cuda_expect(sp_device_copy_rows(gpu, (char *)part.data + h * D * 2, 2 * TOKEN,
                                            (char *)parts[i]->data + h * parts[i]->stride[2] * 2,
                                            2 * parts[i]->stride[1], 2 * D, T));
        *parts[i] = part;
    }
    cuda_expect(sp_attention_define_forward(&twin.truth.problem));
    run_here(&twin.ours, SP_ATTENTION_FORWARD);
    assert_true(twin_agrees(&twin, &shape, false));
    sp_device_release(gpu, buffer);
    twin_close(&twin);
}

/* ---- rows that are not like others ------------------------------------------------------------------------------- */

static double (*score_of)(int64_t key);
static void set_scores(attention_case *c) { case_set_scores(c, score_of); }

static double climbing(int64_t j) { return (double)j * 0.5; }
static double falling(int64_t j) { return 100 - (double)j * 0.5; }
static double far_below_then_positive(int64_t j) { return j < 130 ? -120 : 1; }
static double positive_then_far_below(int64_t j) { return j < 3 ? 2 : -200; }
static double huge(int64_t j) { return j % 3 == 0 ? 1e4 : -1e4; }
static double jumping(int64_t j) { return (double)(j * 7919 % 61) - 30; }
static double near_the_limit(int64_t j) { return 6.5 + (double)(j % 7) * 0.125; }
static double one_in_many(int64_t j) { return j == 37 ? 3 : -1; }
static double below(int64_t j) { return -1 - (double)(j % 5); }
static double zero(int64_t j) { return 0 * (double)j; }

static void unlike_rows_agree(void **state) {
    (void)state;
    static double (*const lists[])(int64_t key) = {climbing, falling, far_below_then_positive, positive_then_far_below,
                                                   huge,     jumping, near_the_limit,          one_in_many,
                                                   below,    zero};
    bool near = true;
    if (!gpu) skip();
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        for (int kind = 0; kind < SP_NORMALIZER_COUNT; kind++)
            for (int dtype = 0; dtype < 2; dtype++) {
                attention_shape shape = cuda_shape(300, 64, dtypes[dtype]);
                shape.normalizer = (sp_normalizer)kind;
                score_of = lists[i];
                near = pass_agrees(&shape, SP_ATTENTION_FORWARD, set_scores) && near;
                shape.T = 3;
                near = pass_agrees(&shape, SP_ATTENTION_DECODE, set_scores) && near;
                if (!near) fail_msg("list %zu, %s", i, sp_normalizer_name(shape.normalizer));
            }
}

/* Runs a pass of the case on the GPU alone. */
static void run_changed(attention_case *c, const attention_shape *shape, change_inputs change) {
    cuda_case ours;
    case_open(c, shape);
    if (change) change(c);
    cuda_case_open(&ours, c, gpu);
    run_here(&ours, SP_ATTENTION_FORWARD);
    cuda_case_close(&ours);
}

static void rows_without_positive_scores_are_zero(void **state) {
    (void)state;
    static double (*const lists[])(int64_t key) = {below, zero};
    if (!gpu) skip();
    for (int i = 0; i < 2; i++) {
        attention_shape shape = cuda_shape(200, 128, SP_DTYPE_BF16);
        attention_case c;
        score_of = lists[i];
        run_changed(&c, &shape, set_scores);
        double *out = case_numbers(&c.problem.out);
        for (int64_t k = 0; k < sp_tensor_count(&c.problem.out); k++) assert_true(out[k] == 0 && !signbit(out[k]));
        free(out);
        case_close(&c);
    }
}

static void nan_query(attention_case *c) { case_store(&c->problem.q, 1, 70, 2, 5, NAN); }
static void nan_key(attention_case *c) { case_store(&c->problem.k, 1, 90, 1, 5, NAN); }

/* Rows of sequence 1, from query `first` to before `end` in heads [h, h_end), are NaN; all others as without the NaN. */
static void check_nan(change_inputs change, int64_t first, int64_t end, int64_t h_first, int64_t h_end) {
    attention_shape shape = cuda_shape(200, 64, SP_DTYPE_BF16);
    attention_case clean, c;
    run_changed(&clean, &shape, NULL);
    run_changed(&c, &shape, change);
    for (int64_t b = 0; b < shape.B; b++)
        for (int64_t t = 0; t < shape.T; t++)
            for (int64_t h = 0; h < shape.H; h++) {
                bool spoilt = b == 1 && t >= first && t < end && h >= h_first && h < h_end;
                float lse = c.lse[(b * shape.H + h) * shape.T + t], wanted = clean.lse[(b * shape.H + h) * shape.T + t];
                assert_true(spoilt ? isnan(lse) : lse == wanted);
                for (int64_t d = 0; d < shape.D; d++) {
                    double x = case_load(&c.problem.out, b, t, h, d), y = case_load(&clean.problem.out, b, t, h, d);
                    assert_true(spoilt ? isnan(x) : x == y);
                }
            }
    case_close(&c);
    case_close(&clean);
}

static void nan_shows_in_its_own_rows(void **state) {
    (void)state;
    if (!gpu) skip();
    check_nan(nan_query, 70, 71, 2, 3);
    check_nan(nan_key, 90, 200, 2, 4);
}

static void same_bits_again(void **state) {
    (void)state;
    attention_shape shape = cuda_shape(700, 64, SP_DTYPE_BF16);
    attention_case first, again;
    if (!gpu) skip();
    run_changed(&first, &shape, NULL);
    for (int i = 0; i < 5; i++) {
        run_changed(&again, &shape, NULL);
        assert_memory_equal(first.blocks[3], again.blocks[3], (size_t)first.block_bytes[3]);
        assert_memory_equal(first.lse, again.lse, (size_t)first.n_lse * sizeof(float));
        case_close(&again);
    }
    case_close(&first);
}

/* ---- what rows come to -------------------------------------------------------------------------------------------- */

static void expect_near(const char *what, float truth, float ours, double bound) {
    bool same = truth == ours || (isnan(truth) && isnan(ours));
    if (!same && !(fabs((double)truth - (double)ours) <= bound * fmax(1, fabs((double)truth))))
        fail_msg("%s: %.9g, on the GPU %.9g", what, (double)truth, (double)ours);
}

static void statistics_agree(void **state) {
    (void)state;
    if (!gpu) skip();
    for (uint64_t seed = sample_first(); seed < sample_first() + sample_count(150); seed++) {
        attention_shape shape = sample_shape(seed, 200000);
        if (shape.dtype == SP_DTYPE_F32) shape.dtype = SP_DTYPE_BF16;
        shape.liveness = shape.interleaved = false, shape.statistics = true;
        twin_case twin;
        case_open(&twin.truth, &shape);
        case_open(&twin.host, &shape);
        if (seed % 2) twin.host.problem.lse = NULL; /* then they are not of forward's own denominators */
        cuda_case_open(&twin.ours, &twin.host, gpu);
        cuda_expect(sp_attention_define_forward(&twin.truth.problem));
        run_here(&twin.ours, SP_ATTENTION_FORWARD);
        const sp_attention_statistics *a = &twin.truth.statistics, *b = &twin.host.statistics;
        for (int64_t i = 0; i < twin.host.n_lse; i++) {
            if (isnan(a->mass[i]) || twin.truth.lse[i] < -8) continue; /* rounding of scores is large there */
            expect_near("mass", a->mass[i], b->mass[i], 1e-3);
            expect_near("first mass", a->first_mass[i], b->first_mass[i], 1e-3);
            expect_near("entropy", a->entropy[i], b->entropy[i], 3e-3);
            expect_near("highest", a->highest[i], b->highest[i], 1e-4);
            assert_true(llabs(a->zeros[i] - b->zeros[i]) <= 1);
        }
        twin_close(&twin);
    }
}

static sp_row_sums sums_open(int64_t n) {
    return (sp_row_sums){case_allocate(4 * n), case_allocate(4 * n), case_allocate(8 * n), case_allocate(8 * n)};
}

static void sums_close(sp_row_sums *sums) {
    case_release(sums->mass), case_release(sums->first), case_release(sums->zeros), case_release(sums->small);
}

/* Counts rows, and sums their weights. */
static void add_weights(void *user, int64_t b, int64_t h, int64_t t, const float *weights, const float *scores,
                        int64_t first, int64_t end) {
    double *sum = user;
    (void)b, (void)h, (void)t, (void)scores;
    for (int64_t j = first; j < end; j++)
#pragma omp atomic
        *sum += (double)weights[j];
}

/* Sums over rows and rows themselves, on the CPU and on the GPU. */
static void row_sums_agree(void **state) {
    (void)state;
    for (int kind = 0; kind < SP_NORMALIZER_COUNT; kind++) {
        attention_shape shape = cuda_shape(333, 64, SP_DTYPE_BF16);
        shape.normalizer = (sp_normalizer)kind, shape.spread = 3, shape.row_factor = kind == 0;
        if (kind == 2) shape.n_packed = 3, shape.B = 1;
        twin_case twin = {0};
        case_open(&twin.host, &shape);
        int64_t n = twin.host.n_lse;
        sp_row_sums cpu = sums_open(n), ours = sums_open(n);
        cuda_expect(sp_attention_row_sums(&twin.host.problem, 1e-5f, &cpu));
        double mass = 0, sum = 0;
        cuda_expect(sp_attention_rows(&twin.host.problem, add_weights, &sum));
        for (int64_t i = 0; i < n; i++) mass += (double)cpu.mass[i];
        assert_true(fabs(mass - sum) <= 1e-5 * sum);
        if (gpu) {
            cuda_case_open(&twin.ours, &twin.host, gpu);
            name_row();
            cuda_expect(sp_attention_row_sums(&twin.ours.problem, 1e-5f, &ours));
            for (int64_t i = 0; i < n; i++) {
                expect_near("mass", cpu.mass[i], ours.mass[i], 1e-4);
                expect_near("first", cpu.first[i], ours.first[i], 1e-4);
                assert_true(llabs(cpu.zeros[i] - ours.zeros[i]) <= 1);
                assert_true(llabs(cpu.small[i] - ours.small[i]) <= 2);
            }
            double gpu_sum = 0;
            cuda_expect(sp_attention_rows(&twin.ours.problem, add_weights, &gpu_sum));
            name_none();
            assert_true(fabs(gpu_sum - sum) <= 1e-9 * sum);
            cuda_case_close(&twin.ours);
        }
        sums_close(&cpu), sums_close(&ours);
        case_close(&twin.host);
    }
}

/* ---- refusals ------------------------------------------------------------------------------------------------------- */

static void expect_refused(const sp_attention *problem, sp_attention_pass pass, const char *reason) {
    for (int i = 0;; i++) {
        const char *name, *why;
        bool takes = sp_attention_variant(problem, pass, i, &name, &why);
        if (!name) return; /* a build without CUDA */
        if (strcmp(name, "sm80") != 0) continue;
        assert_false(takes);
        if (!strstr(why, reason)) fail_msg("refused since \"%s\", not since \"%s\"", why, reason);
        return;
    }
}

static void what_it_does_not_compute_is_refused_with_the_reason(void **state) {
    (void)state;
    attention_shape shape = cuda_shape(64, 64, SP_DTYPE_BF16);
    attention_case c;
    case_open(&c, &shape); /* its rows are at odd places */
    sp_attention problem = c.problem;
    expect_refused(&problem, SP_ATTENTION_FORWARD, "not on a GPU");
    sp_tensor *const tensors[] = {&problem.q, &problem.k, &problem.v, &problem.out};
    for (int i = 0; i < 4; i++) tensors[i]->device = 1;
    expect_refused(&problem, SP_ATTENTION_FORWARD, "multiples of 16 bytes");
    uint32_t words[64];
    problem.liveness = words;
    expect_refused(&problem, SP_ATTENTION_FORWARD, "liveness");
    problem.q.shape[3] = 264;
    expect_refused(&problem, SP_ATTENTION_FORWARD, "wider than 256");
    problem.q.dtype = SP_DTYPE_F32;
    expect_refused(&problem, SP_ATTENTION_FORWARD, "bf16 and f16");
    case_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dense_causal_agrees_in_every_width),
        cmocka_unit_test(long_sequences_agree),
        cmocka_unit_test(sampled_problems_agree),
        cmocka_unit_test(sampled_caches_agree),
        cmocka_unit_test(parts_of_one_buffer_agree),
        cmocka_unit_test(unlike_rows_agree),
        cmocka_unit_test(rows_without_positive_scores_are_zero),
        cmocka_unit_test(nan_shows_in_its_own_rows),
        cmocka_unit_test(same_bits_again),
        cmocka_unit_test(statistics_agree),
        cmocka_unit_test(row_sums_agree),
        cmocka_unit_test(what_it_does_not_compute_is_refused_with_the_reason),
    };
    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
