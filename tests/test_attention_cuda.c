/* Attention forward on a GPU, against the definition: the row sm80 with every normalizer, mask and width.  Bounds are
 * those of 16-bit numerators and outputs. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_sample.h"
#include "cuda_support.h"

static sp_device *gpu;

static int open_gpu(void **state) {
    (void)state;
    gpu = cuda_open_first();
    return 0;
}

static int close_gpu(void **state) {
    (void)state;
    sp_device_close(gpu);
    return 0;
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

static double out_bound(sp_dtype dtype) { return dtype == SP_DTYPE_BF16 ? 4e-3 : 6e-4; }

/* Whether outputs and log denominators agree; tells what does not. */
static bool twin_agrees(const twin_case *twin, const attention_shape *shape) {
    char text[320];
    double out = cuda_tensor_error(&twin->truth.problem.out, &twin->host.problem.out);
    double lse = cuda_floats_error(twin->truth.lse, twin->host.lse, twin->host.n_lse);
    bool near = out <= out_bound(shape->dtype) && lse <= 1e-3 && twin->ours.n_written_outside == 0;
    if (near) return true;
    case_describe(shape, text, sizeof text);
    fprintf(stderr, "%s: error of out %.3g, of lse %.3g, %lld bytes written outside\n", text, out, lse,
            (long long)twin->ours.n_written_outside);
    return false;
}

static bool forward_agrees(const attention_shape *shape) {
    twin_case twin;
    twin_open(&twin, shape);
    cuda_expect(sp_attention_define_forward(&twin.truth.problem));
    cuda_expect(cuda_case_run(&twin.ours, SP_ATTENTION_FORWARD));
    bool near = twin_agrees(&twin, shape);
    twin_close(&twin);
    return near;
}

static attention_shape shape_of(int64_t T, int64_t D, sp_dtype dtype) {
    return (attention_shape){.B = 2,
                             .T = T,
                             .S = T,
                             .H = 4,
                             .Hkv = 2,
                             .D = D,
                             .Dv = D,
                             .dtype = dtype,
                             .causal = true,
                             .lambda = 1,
                             .eps = SP_EPS_DEFAULT,
                             .spread = 1,
                             .seed = (uint64_t)(T * 1000 + D)};
}

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
                attention_shape shape = shape_of(lengths[t], widths[d], dtypes[dtype]);
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
            attention_shape shape = shape_of(1000, D, SP_DTYPE_BF16);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dense_causal_agrees_in_every_width),
        cmocka_unit_test(long_sequences_agree),
        cmocka_unit_test(sampled_problems_agree),
    };
    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
