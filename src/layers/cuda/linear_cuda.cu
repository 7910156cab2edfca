/* The three products of a linear layer y = x w^T on a CUDA device.  Row-major matrices are the transposed ones of
 * cuBLASLt's: it is asked for y^T = w x^T. */
#include <inttypes.h>

extern "C" {
#include "layers/cuda/layers_cuda.h"
#include "layers/cuda/matmul_cublaslt.h"
#include "layers/cuda/vector_cuda.h"
}

static sp_status check(const char *product, sp_dtype act, sp_dtype out, int64_t N, int64_t K, int64_t M) {
    SP_REQUIRE(act == SP_DTYPE_BF16, SP_UNSUPPORTED, "%s on a GPU: inputs of %s: only bf16", product,
               sp_dtype_name(act));
    SP_REQUIRE(out == SP_DTYPE_F32 || out == SP_DTYPE_BF16, SP_UNSUPPORTED,
               "%s on a GPU: an output of %s: only f32 and bf16", product, sp_dtype_name(out));
    SP_REQUIRE(N >= 0 && K >= 1 && M >= 1, SP_BAD_ARGUMENT, "%s: a shape of N %" PRId64 ", K %" PRId64 ", M %" PRId64,
               product, N, K, M);
    return SP_OK;
}

extern "C" sp_status sp_cuda_linear_forward(sp_device *device, void *y, sp_dtype y_dtype, int64_t y_stride,
                                            const void *x, int64_t x_stride, const void *w, sp_dtype act,
                                            const float *residual, int64_t N, int64_t K, int64_t M) {
    SP_TRY(check("linear forward", act, y_dtype, N, K, M));
    SP_REQUIRE(!residual || y_dtype == SP_DTYPE_F32, SP_BAD_ARGUMENT, "linear forward: a residual with an output of %s",
               sp_dtype_name(y_dtype));
    SP_REQUIRE(residual != y || !residual || y_stride == M, SP_BAD_ARGUMENT,
               "linear forward: the residual is the output, whose rows lie %" PRId64 " apart, not %" PRId64, y_stride,
               M);
    if (N == 0) return SP_OK;
    if (N == 1 && sp_cuda_vector_takes(x, w, K, M)) return sp_cuda_vector_run(device, y, y_dtype, x, w, residual, K, M);
    const sp_cublaslt_product product = {M, N, K, w, x, K, x_stride, true, false, residual, y, y_dtype, M, y_stride};
    return sp_cublaslt_run(device, &product);
}

extern "C" sp_status sp_cuda_linear_backward_input(sp_device *device, void *dx, sp_dtype dx_dtype, int64_t dx_stride,
                                                   const void *dy, int64_t dy_stride, const void *w, sp_dtype act,
                                                   int64_t N, int64_t K, int64_t M) {
    SP_TRY(check("linear backward input", act, dx_dtype, N, K, M));
    if (N == 0) return SP_OK;
    const sp_cublaslt_product product = {K, N, M, w, dy, K, dy_stride, false, false, NULL, dx, dx_dtype, 0, dx_stride};
    return sp_cublaslt_run(device, &product);
}

extern "C" sp_status sp_cuda_linear_backward_weight(sp_device *device, float *dw, const void *dy, int64_t dy_stride,
                                                    const void *x, int64_t x_stride, sp_dtype act, int64_t N, int64_t K,
                                                    int64_t M) {
    SP_TRY(check("linear backward weight", act, SP_DTYPE_F32, N, K, M));
    if (N == 0) return SP_OK;
    const sp_cublaslt_product product = {K, M, N, x, dy, x_stride, dy_stride, false, true, dw, dw, SP_DTYPE_F32, K, K};
    return sp_cublaslt_run(device, &product);
}
