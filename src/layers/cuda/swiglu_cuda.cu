/* SwiGLU on a CUDA device: s = silu(g) u, with silu(g) = g sigmoid(g) and silu'(g) = sigmoid(g) (1 + g (1 - sigmoid(g))).
 * A block works on one token; everything is read once and written once. */
#include <inttypes.h>

#include "device/cuda_check.cuh"
#include "layers/cuda/eight.cuh"

extern "C" {
#include "layers/cuda/layers_cuda.h"
}

enum { MAX_THREADS = 512 };

/* 1 / (1 + e^-x); the quotient of very negative x is 0, as it should be. */
static __device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

static __global__ void __launch_bounds__(MAX_THREADS)
    swiglu_forward_kernel(sp_bf16 *__restrict__ s, const sp_bf16 *__restrict__ gu, int F) {
    const sp_bf16 *g = gu + (int64_t)blockIdx.x * 2 * F, *u = g + F;
    for (int i = 8 * (int)threadIdx.x; i < F; i += 8 * (int)blockDim.x) {
        sp_eight gate = sp_load(g + i), up = sp_load(u + i), out;
#pragma unroll
        for (int j = 0; j < 8; j++) out.at[j] = gate.at[j] * sigmoid(gate.at[j]) * up.at[j];
        sp_store(s + (int64_t)blockIdx.x * F + i, out);
    }
}

/* dgu may be gu, s may be ds: a thread writes what it has read. */
static __global__ void __launch_bounds__(MAX_THREADS)
    swiglu_backward_kernel(sp_bf16 *dgu, sp_bf16 *s, const sp_bf16 *ds, const sp_bf16 *gu, int F) {
    const int64_t row = (int64_t)blockIdx.x * F;
    for (int i = 8 * (int)threadIdx.x; i < F; i += 8 * (int)blockDim.x) {
        sp_eight gate = sp_load(gu + 2 * row + i), up = sp_load(gu + 2 * row + F + i), out = sp_load(ds + row + i);
        sp_eight dgate, dup, again;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            float part = sigmoid(gate.at[j]), silu = gate.at[j] * part;
            dgate.at[j] = out.at[j] * up.at[j] * (part + silu * (1.0f - part));
            dup.at[j] = out.at[j] * silu;
            again.at[j] = silu * up.at[j];
        }
        sp_store(dgu + 2 * row + i, dgate);
        sp_store(dgu + 2 * row + F + i, dup);
        if (s) sp_store(s + row + i, again);
    }
}

static sp_status check(sp_dtype act, int64_t N, int64_t F, bool wide) {
    SP_TRY(sp_require_bf16("swiglu", act));
    SP_REQUIRE(F >= 8 && F % 8 == 0 && F <= INT32_MAX / 2, SP_UNSUPPORTED,
               "swiglu on a GPU: a width of %" PRId64 ": multiples of 8", F);
    SP_REQUIRE(N >= 0 && N <= INT32_MAX, SP_BAD_ARGUMENT, "swiglu on a GPU: %" PRId64 " rows", N);
    SP_REQUIRE(wide, SP_BAD_ARGUMENT, "swiglu on a GPU: a tensor that does not begin at a multiple of 16 bytes");
    return SP_OK;
}

/* Threads that share a row evenly. */
static int block_of(int64_t F) {
    int64_t packs = F / 8, rounds = sp_divide_up(packs, MAX_THREADS);
    return (int)(sp_divide_up(sp_divide_up(packs, rounds), SP_WARP) * SP_WARP);
}

extern "C" sp_status sp_cuda_swiglu_forward(sp_device *device, void *s, const void *gu, sp_dtype act, int64_t N,
                                            int64_t F) {
    SP_TRY(check(act, N, F, sp_is_wide(s) && sp_is_wide(gu)));
    if (N == 0) return SP_OK;
    swiglu_forward_kernel<<<(unsigned)N, block_of(F), 0, sp_stream_of(device)>>>((sp_bf16 *)s, (const sp_bf16 *)gu,
                                                                                 (int)F);
    SP_CUDA_LAUNCHED("swiglu forward");
    return SP_OK;
}

extern "C" sp_status sp_cuda_swiglu_backward(sp_device *device, void *dgu, void *s, const void *ds, const void *gu,
                                             sp_dtype act, int64_t N, int64_t F) {
    SP_TRY(check(act, N, F, sp_is_wide(dgu) && sp_is_wide(s) && sp_is_wide(ds) && sp_is_wide(gu)));
    if (N == 0) return SP_OK;
    swiglu_backward_kernel<<<(unsigned)N, block_of(F), 0, sp_stream_of(device)>>>(
        (sp_bf16 *)dgu, (sp_bf16 *)s, (const sp_bf16 *)ds, (const sp_bf16 *)gu, (int)F);
    SP_CUDA_LAUNCHED("swiglu backward");
    return SP_OK;
}
