/* RMSNorm of single heads on a CUDA device: a warp holds one head in registers, HELD numbers in each lane.
 *
 * Backward, with r = 1/rms and g = dy weight:   dx = r g - x r^3 / D sum(g x)      dweight += sum over heads of dy x r
 * A block sums dweight over its heads, in registers and then over its warps in order, and leaves the sum in the workspace
 * (SECTIONS,D); sections_cuda.cu adds them. */
#include <inttypes.h>

#include "device/cuda_check.cuh"
#include "layers/cuda/eight.cuh"

extern "C" {
#include "layers/cuda/layers_cuda.h"
#include "layers/cuda/sections_cuda.h"
}

enum {
    HELD = 8,
    MAX_D = HELD * SP_WARP,
    WARPS = 8,     /* of a block */
    SECTIONS = 512 /* most blocks of the backward kernel */
};

struct heads {
    int64_t n; /* of all tokens */
    int per_token, D;
    int64_t row_stride, kept_stride;
};

/* Where head h of all begins. */
static __device__ __forceinline__ int64_t place_of(const heads &all, int64_t h, int64_t stride) {
    return h / all.per_token * stride + h % all.per_token * all.D;
}

struct lane_numbers {
    float at[HELD];
};

static __device__ __forceinline__ lane_numbers load_head(const sp_bf16 *head, int D) {
    lane_numbers out;
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        int d = (int)threadIdx.x + i * SP_WARP;
        out.at[i] = d < D ? sp_load_one(head + d) : 0.0f;
    }
    return out;
}

static __device__ __forceinline__ float over_warp(float sum) {
#pragma unroll
    for (int i = SP_WARP / 2; i > 0; i /= 2) sum += __shfl_xor_sync(~0u, sum, i);
    return sum;
}

static __device__ __forceinline__ float rstd_of(const lane_numbers &x, int D, float eps) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < HELD; i++) sum += x.at[i] * x.at[i];
    return 1.0f / sqrtf(over_warp(sum) / (float)D + eps);
}

static __global__ void __launch_bounds__(WARPS *SP_WARP)
    forward_kernel(sp_bf16 *__restrict__ x, sp_bf16 *__restrict__ kept, const float *__restrict__ weight, heads all,
                   float eps) {
    const int64_t h = (int64_t)blockIdx.x * WARPS + threadIdx.y;
    if (h >= all.n) return;
    sp_bf16 *head = x + place_of(all, h, all.row_stride);
    lane_numbers held = load_head(head, all.D);
    float r = rstd_of(held, all.D, eps);
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        int d = (int)threadIdx.x + i * SP_WARP;
        if (d >= all.D) break;
        if (kept) sp_store_one(kept + place_of(all, h, all.kept_stride) + d, held.at[i]);
        sp_store_one(head + d, held.at[i] * r * weight[d]);
    }
}

static __global__ void __launch_bounds__(WARPS *SP_WARP)
    backward_kernel(sp_bf16 *__restrict__ dx, float *__restrict__ sections, const sp_bf16 *__restrict__ kept,
                    const float *__restrict__ weight, heads all, float eps) {
    __shared__ float sums[WARPS][MAX_D];
    float dweight[HELD] = {};
    for (int64_t h = (int64_t)blockIdx.x * WARPS + threadIdx.y; h < all.n; h += (int64_t)gridDim.x * WARPS) {
        sp_bf16 *head = dx + place_of(all, h, all.row_stride);
        lane_numbers x = load_head(kept + place_of(all, h, all.kept_stride), all.D), above = load_head(head, all.D);
        float r = rstd_of(x, all.D, eps), sum = 0.0f;
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            int d = (int)threadIdx.x + i * SP_WARP;
            if (d < all.D) sum += above.at[i] * weight[d] * x.at[i];
        }
        float pull = over_warp(sum) / (float)all.D * r * r * r;
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            int d = (int)threadIdx.x + i * SP_WARP;
            if (d >= all.D) break;
            dweight[i] += above.at[i] * x.at[i] * r;
            sp_store_one(head + d, r * above.at[i] * weight[d] - x.at[i] * pull);
        }
    }
#pragma unroll
    for (int i = 0; i < HELD; i++) sums[threadIdx.y][threadIdx.x + i * SP_WARP] = dweight[i];
    __syncthreads();
    for (int d = (int)(threadIdx.y * SP_WARP + threadIdx.x); d < all.D; d += WARPS * SP_WARP) {
        float sum = 0.0f;
        for (int w = 0; w < WARPS; w++) sum += sums[w][d];
        sections[(int64_t)blockIdx.x * all.D + d] = sum;
    }
}

static sp_status check(sp_dtype act, int64_t N, int64_t n_heads, int64_t D) {
    SP_TRY(sp_require_bf16("norm of heads", act));
    SP_REQUIRE(D >= 1 && D <= MAX_D, SP_UNSUPPORTED, "norm of heads on a GPU: %" PRId64 " numbers: at most %d", D,
               (int)MAX_D);
    SP_REQUIRE(N >= 0 && n_heads >= 0 && n_heads <= INT32_MAX && N <= INT32_MAX, SP_BAD_ARGUMENT,
               "norm of heads on a GPU: %" PRId64 " tokens of %" PRId64 " heads", N, n_heads);
    return SP_OK;
}

extern "C" sp_status sp_cuda_head_norm_forward(sp_device *device, void *x, sp_dtype act, int64_t row_stride, void *kept,
                                               int64_t kept_stride, const float *weight, int64_t N, int64_t n_heads,
                                               int64_t D, float eps) {
    SP_TRY(check(act, N, n_heads, D));
    if (N == 0 || n_heads == 0) return SP_OK;
    heads all = {N * n_heads, (int)n_heads, (int)D, row_stride, kept_stride};
    forward_kernel<<<(unsigned)sp_divide_up(all.n, WARPS), dim3(SP_WARP, WARPS), 0, sp_stream_of(device)>>>(
        (sp_bf16 *)x, (sp_bf16 *)kept, weight, all, eps);
    SP_CUDA_LAUNCHED("norm of heads");
    return SP_OK;
}

extern "C" sp_status sp_cuda_head_norm_backward(sp_device *device, void *dx, sp_dtype act, int64_t row_stride,
                                                float *dweight, const void *kept, int64_t kept_stride,
                                                const float *weight, int64_t N, int64_t n_heads, int64_t D, float eps,
                                                void *workspace) {
    SP_TRY(check(act, N, n_heads, D));
    if (N == 0 || n_heads == 0) return SP_OK;
    heads all = {N * n_heads, (int)n_heads, (int)D, row_stride, kept_stride};
    int64_t wanted = sp_divide_up(all.n, WARPS), n_blocks = wanted < SECTIONS ? wanted : (int64_t)SECTIONS;
    float *sections = (float *)workspace;
    backward_kernel<<<(unsigned)n_blocks, dim3(SP_WARP, WARPS), 0, sp_stream_of(device)>>>(
        (sp_bf16 *)dx, sections, (const sp_bf16 *)kept, weight, all, eps);
    SP_CUDA_LAUNCHED("norm of heads, backward");
    return sp_cuda_sections_add(device, dweight, sections, n_blocks, D);
}
