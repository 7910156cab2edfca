/* A linear layer of one token on a CUDA device, which decoding is made of: y = w x, as fast as w can be read.  A warp
 * works on one row of w; cuBLASLt's kernels, made for many tokens, take several times as long (docs/speed-log.md). */
#include "device/cuda_check.cuh"
#include "layers/cuda/eight.cuh"

extern "C" {
#include "layers/cuda/vector_cuda.h"
}

enum { ROWS = 4 }; /* of w, for a block */

template <typename Out>
static __global__ void __launch_bounds__(ROWS *SP_WARP)
    vector_kernel(Out *y, const sp_bf16 *__restrict__ x, const sp_bf16 *__restrict__ w, const float *residual,
                  int64_t K, int64_t M) {
    const int lane = (int)threadIdx.x % SP_WARP;
    const int64_t m = blockIdx.x * (int64_t)ROWS + threadIdx.x / SP_WARP;
    if (m >= M) return;
    float sum = 0.0f;
#pragma unroll 4
    for (int64_t k = 8 * lane; k < K; k += 8 * SP_WARP) {
        sp_eight left = sp_load(w + m * K + k), right = sp_load(x + k);
#pragma unroll
        for (int i = 0; i < 8; i++) sum += left.at[i] * right.at[i];
    }
#pragma unroll
    for (int i = SP_WARP / 2; i > 0; i /= 2) sum += __shfl_xor_sync(~0u, sum, i);
    if (lane == 0) sp_store_one(y + m, residual ? residual[m] + sum : sum);
}

extern "C" bool sp_cuda_vector_takes(const void *x, const void *w, int64_t K, int64_t M) {
    return K % 8 == 0 && M <= INT32_MAX && sp_is_wide(x) && sp_is_wide(w);
}

extern "C" sp_status sp_cuda_vector_run(sp_device *device, void *y, sp_dtype y_dtype, const void *x, const void *w,
                                        const float *residual, int64_t K, int64_t M) {
    const unsigned n_blocks = (unsigned)sp_divide_up(M, ROWS);
    const sp_bf16 *left = (const sp_bf16 *)w, *right = (const sp_bf16 *)x;
    cudaStream_t stream = sp_stream_of(device);
    if (y_dtype == SP_DTYPE_F32)
        vector_kernel<<<n_blocks, ROWS * SP_WARP, 0, stream>>>((float *)y, right, left, residual, K, M);
    else
        vector_kernel<<<n_blocks, ROWS * SP_WARP, 0, stream>>>((sp_bf16 *)y, right, left, residual, K, M);
    SP_CUDA_LAUNCHED("linear forward of one token");
    return SP_OK;
}
