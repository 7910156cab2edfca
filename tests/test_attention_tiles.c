/* The code for AMX tiles, compiled against tiles in plain C, against the definition: on machines without AMX too. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention/cpu/pairs.h"
#include "attention/cpu/pairs_backward.h"
#include "attention_case.h"
#include "softpick/device.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "tiles_emulated.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16"))),   \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#endif

#include "attention/cpu/simd_avx512.h"

#include "attention/cpu/tiles_amx.h"

#include "attention/cpu/pairs_pack.inc"

#include "attention/cpu/pairs_forward.inc"

#include "attention/cpu/pairs_backward.inc"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

static const sp_pairs_body emulated = {tiles_open, tiles_close, pack_block, forward};

/* Forward of the shape by emulated tiles, in a workspace full of NaN. */
static void run_emulated(attention_case *c, int n_threads) {
    int64_t bytes;
    const char *why;
    assert_true(sp_pairs_accept(&c->problem, SP_ATTENTION_FORWARD, &why));
    assert_int_equal(sp_pairs_forward_workspace(&c->problem, n_threads, &bytes), SP_OK);
    void *workspace = case_allocate(bytes);
    sp_pairs_forward_run(&emulated, &c->problem, n_threads, workspace);
    free(workspace);
}

static void check_forward(const attention_shape *shape) {
    attention_case truth, ours, all;
    char what[256];
    case_describe(shape, what, sizeof what);
    case_open(&truth, shape), case_open(&ours, shape), case_open(&all, shape);
    assert_int_equal(sp_attention_define_forward(&truth.problem), SP_OK);
    run_emulated(&ours, 2);
    all.problem.compute_dead = true; /* what weighs nothing computed too, by one thread: the same bits */
    run_emulated(&all, 1);
    assert_memory_equal(ours.blocks[3], all.blocks[3], (size_t)ours.block_bytes[3]);
    assert_memory_equal(ours.lse, all.lse, (size_t)ours.n_lse * sizeof *ours.lse);
    double *right = case_numbers(&truth.problem.out), *out = case_numbers(&ours.problem.out), error = 0, size = 0;
    for (int64_t i = 0; i < sp_tensor_count(&truth.problem.out); i++) {
        error += (out[i] - right[i]) * (out[i] - right[i]);
        size += right[i] * right[i];
    }
    if (!(sqrt(error) <= 4e-3 * sqrt(size) + 1e-30)) fail_msg("%s: error %g of %g", what, sqrt(error), sqrt(size));
    for (int64_t i = 0; i < truth.n_lse; i++)
        if (!(truth.lse[i] == ours.lse[i] || fabsf(truth.lse[i] - ours.lse[i]) <= 1e-3f))
            fail_msg("%s: lse[%lld] is %g, not %g", what, (long long)i, (double)ours.lse[i], (double)truth.lse[i]);
    free(right), free(out);
    case_close(&truth), case_close(&ours), case_close(&all);
}

static const sp_pairs_backward_body emulated_backward = {tiles_open, tiles_close, pairs_backward_pack,
                                                         pairs_backward_item, pairs_backward_store};

/* Tensor `i`, a gradient: its error as a norm, against a bound and what the rounding of out does where terms cancel. */
static void compare_gradient(const attention_shape *shape, int i, double bound, const attention_case *truth,
                             const attention_case *ours) {
    int64_t n = sp_tensor_count(truth->tensors[i]);
    double *right = case_numbers(truth->tensors[i]), *result = case_numbers(ours->tensors[i]), error = 0, size = 0;
    for (int64_t j = 0; j < n; j++) {
        error += (result[j] - right[j]) * (result[j] - right[j]);
        size += right[j] * right[j];
    }
    char what[256];
    case_describe(shape, what, sizeof what);
    double slack = i == 7 ? 1e-30 : 0x1p-7 * (double)shape->spread * sqrt((double)n);
    if (!(sqrt(error) <= bound * sqrt(size) + slack))
        fail_msg("%s: tensor %d: error %g of %g", what, i, sqrt(error), sqrt(size));
    free(right), free(result);
}

/* From the definition's out and lse; then all again with what weighs nothing computed too, to the same bits. */
static void check_backward(const attention_shape *shape) {
    attention_case truth, ours;
    int64_t bytes;
    case_open(&truth, shape), case_open(&ours, shape);
    assert_int_equal(sp_attention_define_forward(&truth.problem), SP_OK);
    assert_int_equal(sp_attention_define_backward(&truth.problem), SP_OK);
    memcpy(ours.blocks[3], truth.blocks[3], (size_t)truth.block_bytes[3]);
    memcpy(ours.lse, truth.lse, (size_t)truth.n_lse * sizeof *truth.lse);
    assert_int_equal(sp_pairs_backward_workspace(&ours.problem, 2, &bytes), SP_OK);
    void *workspace = case_allocate(bytes);
    sp_pairs_backward_run(&emulated_backward, &ours.problem, 2, workspace);
    compare_gradient(shape, 5, 1e-2, &truth, &ours);
    compare_gradient(shape, 6, 1e-2, &truth, &ours);
    compare_gradient(shape, 7, 6e-3, &truth, &ours);
    for (int i = 5; i < 8; i++) memcpy(truth.blocks[i], ours.blocks[i], (size_t)ours.block_bytes[i]);
    ours.problem.compute_dead = true;
    memset(workspace, 0xff, (size_t)bytes);
    sp_pairs_backward_run(&emulated_backward, &ours.problem, 1, workspace);
    for (int i = 5; i < 8; i++) assert_memory_equal(truth.blocks[i], ours.blocks[i], (size_t)ours.block_bytes[i]);
    free(workspace);
    case_close(&truth), case_close(&ours);
}
#endif

#if defined(__x86_64__)
static void check_shapes(void (*check)(const attention_shape *shape)) {
    static const int64_t widths[] = {8, 32, 64, 72, 128, 256}, lengths[] = {1, 16, 33, 128, 200, 521};
    for (uint64_t i = 0; i < 36; i++) {
        attention_shape shape = {.B = 1, .H = 2, .Hkv = 1 + (int64_t)(i % 2), .dtype = SP_DTYPE_BF16, .lambda = 1};
        shape.T = lengths[i % 6], shape.S = i % 4 == 3 ? lengths[(i + 2) % 6] : shape.T;
        shape.D = widths[i / 6], shape.Dv = i % 5 == 4 ? 40 : shape.D;
        shape.normalizer = (sp_normalizer)(i % SP_NORMALIZER_COUNT);
        shape.causal = i % 7 != 0, shape.window = i % 3 == 2 ? 50 : 0;
        shape.eps = SP_EPS_DEFAULT, shape.spread = i % 11 == 10 ? 40 : 1, shape.seed = i + 1;
        check(&shape);
    }
}
#endif

static void forward_by_tiles_agrees_with_the_definition(void **state) {
    (void)state;
    if (!(sp_cpu_features() & SP_CPU_AVX512_BF16)) skip();
#if defined(__x86_64__)
    check_shapes(check_forward);
#endif
}

static void backward_by_tiles_agrees_with_the_definition(void **state) {
    (void)state;
    if (!(sp_cpu_features() & SP_CPU_AVX512_BF16)) skip();
#if defined(__x86_64__)
    check_shapes(check_backward);
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(forward_by_tiles_agrees_with_the_definition),
                                       cmocka_unit_test(backward_by_tiles_agrees_with_the_definition)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
