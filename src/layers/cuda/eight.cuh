/* What the kernels of the layers share: eight numbers at a time, in accesses of 16 bytes, and sums over a block in an
 * order that never changes. */
#ifndef SP_LAYERS_EIGHT_CUH
#define SP_LAYERS_EIGHT_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

extern "C" {
#include "device/device.h"
#include "softpick/tensor.h"
}

typedef __nv_bfloat16 sp_bf16;

enum { SP_WARP = 32, SP_MAX_WARPS = 32, SP_MAX_BLOCK = SP_WARP * SP_MAX_WARPS };

static inline cudaStream_t sp_stream_of(const sp_device *device) { return (cudaStream_t)device->stream; }

static inline int64_t sp_divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Whether 16-byte accesses may begin at `data`; NULL, which stands for what is not wanted, does no harm. */
static inline bool sp_is_wide(const void *data) { return (uintptr_t)data % 16 == 0; }

static inline sp_status sp_require_bf16(const char *layer, sp_dtype act) {
    SP_REQUIRE(act == SP_DTYPE_BF16, SP_UNSUPPORTED, "%s on a GPU: activations of %s: only bf16", layer,
               sp_dtype_name(act));
    return SP_OK;
}

/* ---- eight numbers ---- */

struct sp_eight {
    float at[8];
};

/* bf16 are the upper halves of f32. */
static __device__ __forceinline__ sp_eight sp_eight_of(uint4 bits) {
    const uint32_t pairs[4] = {bits.x, bits.y, bits.z, bits.w};
    sp_eight out;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out.at[2 * i] = __uint_as_float(pairs[i] << 16);
        out.at[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
    }
    return out;
}

static __device__ __forceinline__ sp_eight sp_load(const sp_bf16 *from) {
    return sp_eight_of(*reinterpret_cast<const uint4 *>(from));
}

static __device__ __forceinline__ sp_eight sp_load(const __half *from) {
    uint4 bits = *reinterpret_cast<const uint4 *>(from);
    const uint32_t pairs[4] = {bits.x, bits.y, bits.z, bits.w};
    sp_eight out;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out.at[2 * i] = __half2float(__ushort_as_half((unsigned short)(pairs[i] & 0xffffu)));
        out.at[2 * i + 1] = __half2float(__ushort_as_half((unsigned short)(pairs[i] >> 16)));
    }
    return out;
}

static __device__ __forceinline__ sp_eight sp_load(const float *from) {
    float4 low = reinterpret_cast<const float4 *>(from)[0], high = reinterpret_cast<const float4 *>(from)[1];
    return sp_eight{{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
}

static __device__ __forceinline__ uint32_t sp_pair_bits(__nv_bfloat162 pair) {
    return (uint32_t)__bfloat16_as_ushort(pair.y) << 16 | __bfloat16_as_ushort(pair.x);
}

static __device__ __forceinline__ uint4 sp_bf16_bits(const sp_eight &in) {
    return uint4{sp_pair_bits(__floats2bfloat162_rn(in.at[0], in.at[1])),
                 sp_pair_bits(__floats2bfloat162_rn(in.at[2], in.at[3])),
                 sp_pair_bits(__floats2bfloat162_rn(in.at[4], in.at[5])),
                 sp_pair_bits(__floats2bfloat162_rn(in.at[6], in.at[7]))};
}

static __device__ __forceinline__ void sp_store(sp_bf16 *to, const sp_eight &in) {
    *reinterpret_cast<uint4 *>(to) = sp_bf16_bits(in);
}

static __device__ __forceinline__ void sp_store(__half *to, const sp_eight &in) {
    uint32_t pairs[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        pairs[i] = (uint32_t)__half_as_ushort(__float2half_rn(in.at[2 * i + 1])) << 16 |
                   __half_as_ushort(__float2half_rn(in.at[2 * i]));
    *reinterpret_cast<uint4 *>(to) = uint4{pairs[0], pairs[1], pairs[2], pairs[3]};
}

static __device__ __forceinline__ void sp_store(float *to, const sp_eight &in) {
    reinterpret_cast<float4 *>(to)[0] = float4{in.at[0], in.at[1], in.at[2], in.at[3]};
    reinterpret_cast<float4 *>(to)[1] = float4{in.at[4], in.at[5], in.at[6], in.at[7]};
}

static __device__ __forceinline__ float sp_load_one(const sp_bf16 *from) { return __bfloat162float(*from); }
static __device__ __forceinline__ float sp_load_one(const __half *from) { return __half2float(*from); }
static __device__ __forceinline__ float sp_load_one(const float *from) { return *from; }
static __device__ __forceinline__ void sp_store_one(sp_bf16 *to, float value) { *to = __float2bfloat16_rn(value); }
static __device__ __forceinline__ void sp_store_one(__half *to, float value) { *to = __float2half_rn(value); }
static __device__ __forceinline__ void sp_store_one(float *to, float value) { *to = value; }

/* ---- over a block ---- */

struct sp_add {
    template <typename T> __device__ __forceinline__ T operator()(T a, T b) const { return a + b; }
};
struct sp_larger {
    __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

/* `combine` over all threads of the block, given to all of them; whole warps.  `warps` (SP_MAX_WARPS), shared, may be
 * used again after the next barrier. */
template <typename T, typename Combine>
static __device__ __forceinline__ T sp_over_block(T value, T *warps, Combine combine) {
#pragma unroll
    for (int lane = SP_WARP / 2; lane > 0; lane /= 2) value = combine(value, __shfl_xor_sync(~0u, value, lane));
    int n_warps = (int)blockDim.x / SP_WARP;
    if (n_warps == 1) return value;
    if (threadIdx.x % SP_WARP == 0) warps[threadIdx.x / SP_WARP] = value;
    __syncthreads();
    value = warps[0];
    for (int i = 1; i < n_warps; i++) value = combine(value, warps[i]);
    return value;
}

#endif
