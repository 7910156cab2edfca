/* The three products of a linear layer y = x w^T. */
#include "layers/layers_cpu.h"

#include <inttypes.h>
#include <string.h>

#include "layers/matmul.h"

static sp_matrix matrix(const void *data, sp_dtype dtype, int64_t stride) {
    return (sp_matrix){.data = data, .dtype = dtype, .row_stride = stride, .column_stride = 1};
}

static sp_matrix transposed(const void *data, sp_dtype dtype, int64_t stride) {
    return (sp_matrix){.data = data, .dtype = dtype, .row_stride = 1, .column_stride = stride};
}

static sp_status check(const char *product, sp_dtype act, sp_dtype out, int64_t N, int64_t K, int64_t M) {
    SP_REQUIRE(act == SP_DTYPE_F32 || act == SP_DTYPE_BF16, SP_UNSUPPORTED, "%s: inputs of %s: only f32 and bf16",
               product, sp_dtype_name(act));
    SP_REQUIRE(out == SP_DTYPE_F32 || out == act, SP_UNSUPPORTED, "%s: an output of %s from inputs of %s", product,
               sp_dtype_name(out), sp_dtype_name(act));
    SP_REQUIRE(N >= 0 && K >= 1 && M >= 1, SP_BAD_ARGUMENT, "%s: a shape of N %" PRId64 ", K %" PRId64 ", M %" PRId64,
               product, N, K, M);
    return SP_OK;
}

/* y (N,M)@y_stride = x (N,M).  Copying, then adding to the output, is no slower than oneDNN's adding of what lies
 * elsewhere, and on a machine with AMX faster (docs/speed-log.md). */
static void copy_rows(float *y, int64_t y_stride, const float *x, int64_t N, int64_t M) {
#pragma omp parallel for schedule(static) if (N > 1)
    for (int64_t n = 0; n < N; n++) memcpy(y + n * y_stride, x + n * M, (size_t)M * sizeof *y);
}

sp_status sp_cpu_linear_forward(sp_device *device, void *y, sp_dtype y_dtype, int64_t y_stride, const void *x,
                                int64_t x_stride, const void *w, sp_dtype act, const float *residual, int64_t N,
                                int64_t K, int64_t M) {
    (void)device;
    SP_TRY(check("linear forward", act, y_dtype, N, K, M));
    SP_REQUIRE(!residual || y_dtype == SP_DTYPE_F32, SP_BAD_ARGUMENT, "linear forward: a residual with an output of %s",
               sp_dtype_name(y_dtype));
    SP_REQUIRE(residual != y || !residual || y_stride == M, SP_BAD_ARGUMENT,
               "linear forward: the residual is the output, whose rows lie %" PRId64 " apart, not %" PRId64, y_stride,
               M);
    if (N == 0) return SP_OK;
    if (residual && residual != y) copy_rows(y, y_stride, residual, N, M);
    sp_product product = {
        .M = N,
        .N = M,
        .K = K,
        .a = matrix(x, act, x_stride),
        .b = transposed(w, act, K),
        .c = y,
        .c_dtype = y_dtype,
        .c_stride = y_stride,
        .accumulate = residual != NULL,
    };
    return sp_matmul_run(&product);
}

sp_status sp_cpu_linear_backward_input(sp_device *device, void *dx, sp_dtype dx_dtype, int64_t dx_stride,
                                       const void *dy, int64_t dy_stride, const void *w, sp_dtype act, int64_t N,
                                       int64_t K, int64_t M) {
    (void)device;
    SP_TRY(check("linear backward input", act, dx_dtype, N, K, M));
    if (N == 0) return SP_OK;
    sp_product product = {
        .M = N,
        .N = K,
        .K = M,
        .a = matrix(dy, act, dy_stride),
        .b = matrix(w, act, K),
        .c = dx,
        .c_dtype = dx_dtype,
        .c_stride = dx_stride,
    };
    return sp_matmul_run(&product);
}

sp_status sp_cpu_linear_backward_weight(sp_device *device, float *dw, const void *dy, int64_t dy_stride, const void *x,
                                        int64_t x_stride, sp_dtype act, int64_t N, int64_t K, int64_t M) {
    (void)device;
    SP_TRY(check("linear backward weight", act, SP_DTYPE_F32, N, K, M));
    if (N == 0) return SP_OK;
    sp_product product = {
        .M = M,
        .N = K,
        .K = N,
        .a = transposed(dy, act, dy_stride),
        .b = matrix(x, act, x_stride),
        .c = dw,
        .c_dtype = SP_DTYPE_F32,
        .c_stride = K,
        .accumulate = true,
    };
    return sp_matmul_run(&product);
}
