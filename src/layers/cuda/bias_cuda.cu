/* Biases on a CUDA device, eight columns to a thread.
 *
 * Backward: a block sums WIDTH * 8 columns over the rows of its section and leaves the sums in the workspace
 * (SECTIONS,M); sections_cuda.cu adds them. */
#include <inttypes.h>

#include "device/cuda_check.cuh"
#include "layers/cuda/eight.cuh"

extern "C" {
#include "layers/cuda/layers_cuda.h"
#include "layers/cuda/sections_cuda.h"
}

enum {
    MAX_THREADS = 256,
    SECTIONS = 128,
    WIDTH = 32, /* threads beside each other in a block of the backward kernel */
    HEIGHT = 8  /* and below each other: rows at a time */
};

template <typename Out>
static __global__ void __launch_bounds__(MAX_THREADS)
    add_kernel(Out *__restrict__ y, int64_t y_stride, const float *__restrict__ bias, int M) {
    Out *row = y + (int64_t)blockIdx.x * y_stride;
    for (int m = 8 * (int)threadIdx.x; m < M; m += 8 * (int)blockDim.x) {
        sp_eight sum = sp_load(row + m), add = sp_load(bias + m);
#pragma unroll
        for (int i = 0; i < 8; i++) sum.at[i] += add.at[i];
        sp_store(row + m, sum);
    }
}

static __global__ void __launch_bounds__(WIDTH *HEIGHT)
    columns_kernel(float *__restrict__ sections, const sp_bf16 *__restrict__ dy, int64_t dy_stride, int64_t N, int M) {
    __shared__ sp_eight sums[HEIGHT][WIDTH];
    const int m = 8 * (int)(blockIdx.x * WIDTH + threadIdx.x);
    sp_eight sum = {};
    if (m < M)
        for (int64_t n = blockIdx.y * HEIGHT + threadIdx.y; n < N; n += (int64_t)gridDim.y * HEIGHT) {
            sp_eight row = sp_load(dy + n * dy_stride + m);
#pragma unroll
            for (int i = 0; i < 8; i++) sum.at[i] += row.at[i];
        }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || m >= M) return;
    for (int y = 1; y < HEIGHT; y++)
#pragma unroll
        for (int i = 0; i < 8; i++) sum.at[i] += sums[y][threadIdx.x].at[i];
    sp_store(sections + (int64_t)blockIdx.y * M + m, sum);
}

static sp_status check(int64_t N, int64_t M, int64_t stride, bool wide) {
    SP_REQUIRE(M >= 8 && M % 8 == 0 && M <= INT32_MAX / 2 && stride % 8 == 0, SP_UNSUPPORTED,
               "bias on a GPU: rows of %" PRId64 " numbers, %" PRId64 " apart: multiples of 8", M, stride);
    SP_REQUIRE(N >= 0 && N <= INT32_MAX, SP_BAD_ARGUMENT, "bias on a GPU: %" PRId64 " rows", N);
    SP_REQUIRE(wide, SP_BAD_ARGUMENT, "bias on a GPU: a tensor that does not begin at a multiple of 16 bytes");
    return SP_OK;
}

extern "C" sp_status sp_cuda_bias_add(sp_device *device, void *y, sp_dtype y_dtype, int64_t y_stride, const float *bias,
                                      int64_t N, int64_t M) {
    SP_REQUIRE(y_dtype == SP_DTYPE_F32 || y_dtype == SP_DTYPE_BF16, SP_UNSUPPORTED,
               "bias on a GPU: rows of %s: only f32 and bf16", sp_dtype_name(y_dtype));
    SP_TRY(check(N, M, y_stride, sp_is_wide(y) && sp_is_wide(bias)));
    if (N == 0) return SP_OK;
    int64_t packs = sp_divide_up(M / 8, SP_WARP) * SP_WARP;
    int block = (int)(packs < MAX_THREADS ? packs : (int64_t)MAX_THREADS);
    if (y_dtype == SP_DTYPE_F32)
        add_kernel<<<(unsigned)N, block, 0, sp_stream_of(device)>>>((float *)y, y_stride, bias, (int)M);
    else
        add_kernel<<<(unsigned)N, block, 0, sp_stream_of(device)>>>((sp_bf16 *)y, y_stride, bias, (int)M);
    SP_CUDA_LAUNCHED("bias");
    return SP_OK;
}

extern "C" int64_t sp_cuda_bias_workspace(int64_t M) { return SECTIONS * M * (int64_t)sizeof(float); }

extern "C" sp_status sp_cuda_bias_backward(sp_device *device, float *dbias, const void *dy, int64_t dy_stride,
                                           sp_dtype act, int64_t N, int64_t M, void *workspace) {
    SP_TRY(sp_require_bf16("bias", act));
    SP_TRY(check(N, M, dy_stride, sp_is_wide(dy) && sp_is_wide(workspace)));
    if (N == 0) return SP_OK;
    int64_t wanted = sp_divide_up(N, HEIGHT), n_sections = wanted < SECTIONS ? wanted : (int64_t)SECTIONS;
    float *sections = (float *)workspace;
    columns_kernel<<<dim3((unsigned)sp_divide_up(M, 8 * WIDTH), (unsigned)n_sections), dim3(WIDTH, HEIGHT), 0,
                     sp_stream_of(device)>>>(sections, (const sp_bf16 *)dy, dy_stride, N, (int)M);
    SP_CUDA_LAUNCHED("bias backward");
    return sp_cuda_sections_add(device, dbias, sections, n_sections, M);
}
