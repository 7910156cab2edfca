/* RoPE, half-split, on a CUDA device: a block turns the heads of one token in place.  A thread turns PAIRS neighbouring
 * pairs (i, i + D/2) of a head, by angles it shares with the same pairs of the other heads. */
#include <inttypes.h>

#include "device/cuda_check.cuh"
#include "layers/cuda/eight.cuh"

extern "C" {
#include "layers/cuda/layers_cuda.h"
}

enum { BLOCK = 128, MAX_D = 2048 };

/* Any even D, any stride. */
static __device__ __forceinline__ void turn_one(sp_bf16 *low, sp_bf16 *high, float cosine, float sine) {
    float a = sp_load_one(low), b = sp_load_one(high);
    sp_store_one(low, a * cosine - b * sine);
    sp_store_one(high, b * cosine + a * sine);
}

static __device__ __forceinline__ void turn_eight(sp_bf16 *low, sp_bf16 *high, const sp_eight &cosine,
                                                  const sp_eight &sine) {
    sp_eight a = sp_load(low), b = sp_load(high), turned_a, turned_b;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        turned_a.at[i] = a.at[i] * cosine.at[i] - b.at[i] * sine.at[i];
        turned_b.at[i] = b.at[i] * cosine.at[i] + a.at[i] * sine.at[i];
    }
    sp_store(low, turned_a);
    sp_store(high, turned_b);
}

/* Threads: (D/2/PAIRS) for one head, times as many heads as the block turns at once. */
template <int PAIRS>
static __global__ void __launch_bounds__(SP_MAX_BLOCK)
    rope_kernel(sp_bf16 *__restrict__ x, int64_t row_stride, const int32_t *__restrict__ positions,
                const float *__restrict__ table, int n_heads, int D, float sign) {
    const int threads_per_head = D / 2 / PAIRS, heads_at_once = (int)blockDim.x / threads_per_head;
    const int i = (int)threadIdx.x % threads_per_head * PAIRS;
    const float *angles = table + (int64_t)positions[blockIdx.x] * D;
    sp_bf16 *row = x + blockIdx.x * row_stride;
    if (PAIRS == 8) {
        sp_eight cosine = sp_load(angles + i), sine = sp_load(angles + D / 2 + i);
#pragma unroll
        for (int j = 0; j < 8; j++) sine.at[j] *= sign;
        for (int head = (int)threadIdx.x / threads_per_head; head < n_heads; head += heads_at_once)
            turn_eight(row + head * D + i, row + head * D + D / 2 + i, cosine, sine);
    } else {
        float cosine = angles[i], sine = sign * angles[D / 2 + i];
        for (int head = (int)threadIdx.x / threads_per_head; head < n_heads; head += heads_at_once)
            turn_one(row + head * D + i, row + head * D + D / 2 + i, cosine, sine);
    }
}

extern "C" sp_status sp_cuda_rope_apply(sp_device *device, void *x, sp_dtype act, int64_t row_stride,
                                        const int32_t *positions, const float *table, int64_t N, int64_t n_heads,
                                        int64_t D, bool inverse) {
    SP_TRY(sp_require_bf16("rope", act));
    SP_REQUIRE(D >= 2 && D % 2 == 0 && D <= MAX_D, SP_UNSUPPORTED,
               "rope on a GPU: heads of %" PRId64 " numbers: even widths up to %d", D, (int)MAX_D);
    SP_REQUIRE(N >= 0 && N <= INT32_MAX && n_heads >= 0 && n_heads <= INT32_MAX / D, SP_BAD_ARGUMENT,
               "rope on a GPU: %" PRId64 " tokens of %" PRId64 " heads", N, n_heads);
    if (N == 0 || n_heads == 0) return SP_OK;
    bool wide = D % 16 == 0 && row_stride % 8 == 0 && sp_is_wide(x) && sp_is_wide(table);
    int threads_per_head = (int)(wide ? D / 16 : D / 2);
    int heads_at_once = threads_per_head < BLOCK ? BLOCK / threads_per_head : 1;
    if (heads_at_once > n_heads) heads_at_once = (int)n_heads;
    auto kernel = wide ? rope_kernel<8> : rope_kernel<1>;
    kernel<<<(unsigned)N, threads_per_head * heads_at_once, 0, sp_stream_of(device)>>>(
        (sp_bf16 *)x, row_stride, positions, table, (int)n_heads, (int)D, inverse ? -1.0f : 1.0f);
    SP_CUDA_LAUNCHED("rope");
    return SP_OK;
}
