/* RMSNorm (arXiv 1910.07467) on a CUDA device.  A block holds one row in registers, PACKS times eight numbers in each
 * thread: every number is read once and written once.
 *
 * Backward, with r = rstd and g = dy weight:   dx += r g - x r^3 / C sum(g x)      dweight += sum over rows of dy x r
 * A block sums dweight over its rows in registers and leaves the sum in the workspace (SECTIONS,C); sections_cuda.cu
 * adds them. */
#include <inttypes.h>

#include "device/cuda_check.cuh"
#include "layers/cuda/eight.cuh"

extern "C" {
#include "layers/cuda/layers_cuda.h"
#include "layers/cuda/sections_cuda.h"
}

enum {
    MAX_PACKS = 2,
    MAX_C = 8 * MAX_PACKS * SP_MAX_BLOCK,
    SECTIONS = 1280,        /* most blocks of the backward kernel */
    THREADS_AT_WORK = 1024, /* of the backward kernel on a multiprocessor */
};

template <int PACKS>
static __global__ void __launch_bounds__(SP_MAX_BLOCK, 1)
    rmsnorm_forward_kernel(sp_bf16 *__restrict__ y, float *__restrict__ rstd, const float *__restrict__ x,
                           const float *__restrict__ weight, int C, float eps) {
    __shared__ float warps[SP_MAX_WARPS];
    const int64_t row = (int64_t)blockIdx.x * C;
    sp_eight held[PACKS];
    float sum = 0.0f;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        int c = 8 * (int)(threadIdx.x + p * blockDim.x);
        held[p] = c < C ? sp_load(x + row + c) : sp_eight{};
#pragma unroll
        for (int i = 0; i < 8; i++) sum += held[p].at[i] * held[p].at[i];
    }
    sum = sp_over_block(sum, warps, sp_add());
    float r = 1.0f / sqrtf(sum / (float)C + eps);
    if (rstd && threadIdx.x == 0) rstd[blockIdx.x] = r;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        int c = 8 * (int)(threadIdx.x + p * blockDim.x);
        if (c >= C) break;
        sp_eight w = sp_load(weight + c);
#pragma unroll
        for (int i = 0; i < 8; i++) held[p].at[i] *= r * w.at[i];
        sp_store(y + row + c, held[p]);
    }
}

/* One row's eight numbers of a thread of the backward kernel. */
struct backward_pack {
    uint4 dy;
    sp_eight x;
};

static __device__ __forceinline__ backward_pack load_pack(const sp_bf16 *dy, const float *x) {
    return {*reinterpret_cast<const uint4 *>(dy), sp_load(x)};
}

/* y may be dy: a thread writes what it has read.  A row of several packs is read again, out of a cache, for want of
 * registers. */
template <int PACKS>
static __global__ void __launch_bounds__(SP_MAX_BLOCK, 1)
    rmsnorm_backward_kernel(float *__restrict__ dx, sp_bf16 *__restrict__ dx_act, sp_bf16 *y,
                            float *__restrict__ sections, const sp_bf16 *dy, const float *__restrict__ x,
                            const float *__restrict__ weight, const float *__restrict__ rstd, int64_t N, int C) {
    __shared__ float warps[2][SP_MAX_WARPS];
    sp_eight dweight[PACKS] = {};
    int buffer = 0;
    for (int64_t n = blockIdx.x; n < N; n += gridDim.x, buffer ^= 1) {
        backward_pack held = {};
        float r = rstd[n], sum = 0.0f;
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            int c = 8 * (int)(threadIdx.x + p * blockDim.x);
            if (c >= C) break;
            held = load_pack(dy + n * C + c, x + n * C + c);
            sp_eight w = sp_load(weight + c), above = sp_eight_of(held.dy);
#pragma unroll
            for (int i = 0; i < 8; i++) sum += above.at[i] * w.at[i] * held.x.at[i];
        }
        float pull = sp_over_block(sum, warps[buffer], sp_add()) / (float)C * r * r * r;
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            int c = 8 * (int)(threadIdx.x + p * blockDim.x);
            if (c >= C) break;
            if (PACKS > 1) held = load_pack(dy + n * C + c, x + n * C + c);
            sp_eight w = sp_load(weight + c), above = sp_eight_of(held.dy), out = sp_load(dx + n * C + c), again;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                float unit = held.x.at[i] * r;
                dweight[p].at[i] += above.at[i] * unit;
                again.at[i] = unit * w.at[i];
                out.at[i] += r * above.at[i] * w.at[i] - held.x.at[i] * pull;
            }
            sp_store(dx + n * C + c, out);
            if (dx_act) sp_store(dx_act + n * C + c, out);
            if (y) sp_store(y + n * C + c, again);
        }
    }
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        int c = 8 * (int)(threadIdx.x + p * blockDim.x);
        if (c < C) sp_store(sections + (int64_t)blockIdx.x * C + c, dweight[p]);
    }
}

static sp_status check(sp_dtype act, int64_t N, int64_t C, bool wide) {
    SP_TRY(sp_require_bf16("rmsnorm", act));
    SP_REQUIRE(C >= 8 && C % 8 == 0 && C <= MAX_C, SP_UNSUPPORTED,
               "rmsnorm on a GPU: rows of %" PRId64 " numbers: multiples of 8 up to %d", C, (int)MAX_C);
    SP_REQUIRE(N >= 0 && N <= INT32_MAX, SP_BAD_ARGUMENT, "rmsnorm on a GPU: %" PRId64 " rows", N);
    SP_REQUIRE(wide, SP_BAD_ARGUMENT, "rmsnorm on a GPU: a tensor that does not begin at a multiple of 16 bytes");
    return SP_OK;
}

/* Threads of a block that hold a row of C numbers in `packs` packs each. */
static int block_of(int64_t C, int *packs) {
    *packs = C <= 8 * SP_MAX_BLOCK ? 1 : MAX_PACKS;
    return (int)(sp_divide_up(C, 8 * SP_WARP * *packs) * SP_WARP);
}

extern "C" sp_status sp_cuda_rmsnorm_forward(sp_device *device, void *y, sp_dtype act, float *rstd, const float *x,
                                             const float *weight, int64_t N, int64_t C, float eps) {
    SP_TRY(check(act, N, C, sp_is_wide(y) && sp_is_wide(x) && sp_is_wide(weight)));
    if (N == 0) return SP_OK;
    int packs, block = block_of(C, &packs);
    auto kernel = packs == 1 ? rmsnorm_forward_kernel<1> : rmsnorm_forward_kernel<MAX_PACKS>;
    kernel<<<(unsigned)N, block, 0, sp_stream_of(device)>>>((sp_bf16 *)y, rstd, x, weight, (int)C, eps);
    SP_CUDA_LAUNCHED("rmsnorm forward");
    return SP_OK;
}

extern "C" int64_t sp_cuda_rmsnorm_workspace(int64_t C) { return SECTIONS * C * (int64_t)sizeof(float); }

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

extern "C" sp_status sp_cuda_rmsnorm_backward(sp_device *device, float *dx, void *dx_act, void *y, float *dweight,
                                              const void *dy, sp_dtype act, const float *x, const float *weight,
                                              const float *rstd, int64_t N, int64_t C, void *workspace) {
    bool wide = sp_is_wide(dx) && sp_is_wide(dx_act) && sp_is_wide(y) && sp_is_wide(dy) && sp_is_wide(x) &&
                sp_is_wide(weight) && sp_is_wide(workspace);
    SP_TRY(check(act, N, C, wide));
    if (N == 0) return SP_OK;
    int packs, block = block_of(C, &packs);
    int64_t n_blocks = smaller(device->n_multiprocessors * (int64_t)(THREADS_AT_WORK / block), smaller(N, SECTIONS));
    float *sections = (float *)workspace;
    auto kernel = packs == 1 ? rmsnorm_backward_kernel<1> : rmsnorm_backward_kernel<MAX_PACKS>;
    kernel<<<(unsigned)n_blocks, block, 0, sp_stream_of(device)>>>(dx, (sp_bf16 *)dx_act, (sp_bf16 *)y, sections,
                                                                   (const sp_bf16 *)dy, x, weight, rstd, N, (int)C);
    SP_CUDA_LAUNCHED("rmsnorm backward");
    return sp_cuda_sections_add(device, dweight, sections, n_blocks, C);
}
