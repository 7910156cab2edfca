/* Cross entropy over rows of logits on a CUDA device, and what they say of given tokens: loss = log(sum e^x) - x[target], gradient = softmax(x) - onehot.
 *
 * A block works on one row.  A row of bf16 that fits is held in registers: it is read once and its gradient written
 * once.  Others are read twice, the second time mostly out of the L2 cache.  Rows may begin anywhere: what lies before
 * the first multiple of 16 bytes and behind the last is worked on number by number, one per thread. */
#include <float.h>
#include <inttypes.h>

#include "device/cuda_check.cuh"
#include "layers/cuda/eight.cuh"

extern "C" {
#include "layers/cuda/layers_cuda.h"
}

enum { BLOCK = 512 };

/* ---- sixteen bytes of logits ---- */

template <typename T> struct pack {
    static const int WIDTH = 16 / (int)sizeof(T);
    float at[WIDTH];
};

static __device__ __forceinline__ pack<sp_bf16> unpacked(const sp_bf16 *, uint4 bits) {
    sp_eight eight = sp_eight_of(bits);
    pack<sp_bf16> out;
#pragma unroll
    for (int i = 0; i < 8; i++) out.at[i] = eight.at[i];
    return out;
}

static __device__ __forceinline__ pack<float> unpacked(const float *, uint4 bits) {
    return pack<float>{
        {__uint_as_float(bits.x), __uint_as_float(bits.y), __uint_as_float(bits.z), __uint_as_float(bits.w)}};
}

static __device__ __forceinline__ uint4 packed(const pack<sp_bf16> &in) {
    sp_eight eight;
#pragma unroll
    for (int i = 0; i < 8; i++) eight.at[i] = in.at[i];
    return sp_bf16_bits(eight);
}

static __device__ __forceinline__ uint4 packed(const pack<float> &in) {
    return uint4{__float_as_uint(in.at[0]), __float_as_uint(in.at[1]), __float_as_uint(in.at[2]),
                 __float_as_uint(in.at[3])};
}

/* ---- a row ---- */

/* V numbers: n_edge of them outside of whole packs, at most one for each of the first threads. */
template <typename T> struct row {
    T *data;
    int V, head, n_packs, n_edge;

    __device__ __forceinline__ row(T *begin, int64_t length) : data(begin), V((int)length) {
        const int width = pack<T>::WIDTH;
        head = (int)((16 - (uintptr_t)begin % 16) % 16 / sizeof(T));
        if (head > V) head = V;
        n_packs = (V - head) / width;
        n_edge = V - n_packs * width;
    }
    /* Places of a pack's first number and of number t of the edge. */
    __device__ __forceinline__ int pack_place(int i) const { return head + i * pack<T>::WIDTH; }
    __device__ __forceinline__ int edge_place(int t) const { return t < head ? t : t + n_packs * pack<T>::WIDTH; }
    __device__ __forceinline__ uint4 read(int i) const {
        return *reinterpret_cast<const uint4 *>(data + pack_place(i));
    }
    __device__ __forceinline__ void write(int i, uint4 bits) const {
        *reinterpret_cast<uint4 *>(data + pack_place(i)) = bits;
    }
};

/* Sum of e^(x - top); top may grow.  It starts finite, so that logits of minus infinity weigh 0. */
struct running_sum {
    float top = -FLT_MAX, sum = 0.0f;

    template <typename T> __device__ __forceinline__ void add(const pack<T> &in) {
        float highest = top;
#pragma unroll
        for (int i = 0; i < pack<T>::WIDTH; i++) highest = fmaxf(highest, in.at[i]);
        sum *= __expf(top - highest);
#pragma unroll
        for (int i = 0; i < pack<T>::WIDTH; i++) sum += __expf(in.at[i] - highest);
        top = highest;
    }
    __device__ __forceinline__ void add_one(float x) {
        float highest = fmaxf(top, x);
        sum = sum * __expf(top - highest) + __expf(x - highest);
        top = highest;
    }
};

template <typename T> static __device__ void clear(const row<T> &logits) {
    for (int i = (int)threadIdx.x; i < logits.n_packs; i += BLOCK) logits.write(i, uint4{});
    if ((int)threadIdx.x < logits.n_edge) sp_store_one(logits.data + logits.edge_place((int)threadIdx.x), 0.0f);
}

/* The gradient in place of a logit: factor e^(x - top), less `scale` at the target. */
struct gradient_of {
    float top, factor, scale;
    int target;

    __device__ __forceinline__ float operator()(float x, int place) const {
        float softmax = __expf(x - top) * factor;
        return place == target ? softmax - scale : softmax;
    }
    template <typename T> __device__ __forceinline__ uint4 operator()(pack<T> in, int place) const {
#pragma unroll
        for (int i = 0; i < pack<T>::WIDTH; i++) in.at[i] = (*this)(in.at[i], place + i);
        return packed(in);
    }
};

/* HELD: packs of a row that each thread holds in registers; 0: the row is read twice. */
template <typename T, int HELD>
static __global__ void __launch_bounds__(BLOCK, HELD ? 2 : 3)
    cross_entropy_kernel(double *__restrict__ losses, T *__restrict__ logits_begin, const int32_t *__restrict__ targets,
                         int64_t V, bool gradient, float scale) {
    __shared__ float warps[2][SP_MAX_WARPS];
    const int t = (int)threadIdx.x;
    const row<T> logits(logits_begin + blockIdx.x * V, V);
    const int target = targets[blockIdx.x];
    if (target < 0) {
        if (gradient) clear(logits);
        if (t == 0) losses[blockIdx.x] = 0.0;
        return;
    }
    float at_target = sp_load_one(logits.data + target), edge = 0.0f;
    uint4 held[HELD ? HELD : 1];
    if (HELD) {
#pragma unroll
        for (int p = 0; p < HELD; p++)
            if (t + p * BLOCK < logits.n_packs) held[p] = logits.read(t + p * BLOCK);
    }
    running_sum mine;
    if (t < logits.n_edge) {
        edge = sp_load_one(logits.data + logits.edge_place(t));
        mine.add_one(edge);
    }
    if (HELD) {
#pragma unroll
        for (int p = 0; p < HELD; p++)
            if (t + p * BLOCK < logits.n_packs) mine.add(unpacked(logits.data, held[p]));
    } else {
#pragma unroll 4
        for (int i = t; i < logits.n_packs; i += BLOCK) mine.add(unpacked(logits.data, logits.read(i)));
    }
    float top = sp_over_block(mine.top, warps[0], sp_larger());
    float sum = sp_over_block(mine.sum * __expf(mine.top - top), warps[1], sp_add());
    if (t == 0) losses[blockIdx.x] = log((double)sum) + ((double)top - (double)at_target);
    if (!gradient) return;
    const gradient_of change = {top, scale / sum, scale, target};
    if (HELD) {
#pragma unroll
        for (int p = 0; p < HELD; p++) {
            int i = t + p * BLOCK;
            if (i < logits.n_packs) logits.write(i, change(unpacked(logits.data, held[p]), logits.pack_place(i)));
        }
    } else {
#pragma unroll 4
        for (int i = t; i < logits.n_packs; i += BLOCK)
            logits.write(i, change(unpacked(logits.data, logits.read(i)), logits.pack_place(i)));
    }
    if (t < logits.n_edge) {
        int place = logits.edge_place(t);
        sp_store_one(logits.data + place, change(edge, place));
    }
}

template <typename T, int HELD>
static sp_status launch(sp_device *device, double *losses, void *logits, const int32_t *targets, int64_t n, int64_t V,
                        bool gradient, float scale) {
    cross_entropy_kernel<T, HELD>
        <<<(unsigned)n, BLOCK, 0, sp_stream_of(device)>>>(losses, (T *)logits, targets, V, gradient, scale);
    SP_CUDA_LAUNCHED("cross entropy");
    return SP_OK;
}

typedef sp_status (*launcher)(sp_device *device, double *losses, void *logits, const int32_t *targets, int64_t n,
                              int64_t V, bool gradient, float scale);

/* Rows of bf16 that two or four, and eight packs for each thread can hold. */
static launcher launcher_of(sp_dtype dtype, int64_t V) {
    if (dtype == SP_DTYPE_F32) return launch<float, 0>;
    if (V <= 8 * 2 * BLOCK) return launch<sp_bf16, 2>;
    if (V <= 8 * 4 * BLOCK) return launch<sp_bf16, 4>;
    return V <= 8 * 8 * BLOCK ? launch<sp_bf16, 8> : launch<sp_bf16, 0>;
}

extern "C" sp_status sp_cuda_cross_entropy(sp_device *device, double *losses, void *logits, sp_dtype logits_dtype,
                                           const int32_t *targets, int64_t n, int64_t V, bool gradient,
                                           float gradient_scale) {
    SP_REQUIRE(logits_dtype == SP_DTYPE_BF16 || logits_dtype == SP_DTYPE_F32, SP_UNSUPPORTED,
               "cross entropy on a GPU: logits of %s: only f32 and bf16", sp_dtype_name(logits_dtype));
    SP_REQUIRE(n >= 0 && n <= INT32_MAX && V >= 1 && V <= INT32_MAX / 2, SP_BAD_ARGUMENT,
               "cross entropy on a GPU: %" PRId64 " rows of %" PRId64 " logits", n, V);
    if (n == 0) return SP_OK;
    return launcher_of(logits_dtype, V)(device, losses, logits, targets, n, V, gradient, gradient_scale);
}

/* ---- predictions ---- */

/* Whether a logit at `place` comes before the target where logits stand from the largest on, equal ones in order. */
static __device__ __forceinline__ bool is_before(float x, int place, float at_target, int target) {
    return x > at_target || (x == at_target && place < target);
}

static __global__ void __launch_bounds__(BLOCK)
    predictions_kernel(float *__restrict__ log_probabilities, bool *__restrict__ greedy,
                       const float *__restrict__ logits_begin, const int32_t *__restrict__ targets, int64_t V) {
    __shared__ float warps[2][SP_MAX_WARPS];
    const int t = (int)threadIdx.x;
    const row<const float> logits(logits_begin + blockIdx.x * V, V);
    const int target = targets[blockIdx.x];
    const float at_target = logits.data[target];
    bool before = false;
    running_sum mine;
    if (t < logits.n_edge) {
        const int place = logits.edge_place(t);
        mine.add_one(logits.data[place]);
        before = is_before(logits.data[place], place, at_target, target);
    }
#pragma unroll 4
    for (int i = t; i < logits.n_packs; i += BLOCK) {
        const pack<float> in = unpacked(logits.data, logits.read(i));
        mine.add(in);
#pragma unroll
        for (int j = 0; j < pack<float>::WIDTH; j++)
            before |= is_before(in.at[j], logits.pack_place(i) + j, at_target, target);
    }
    float top = sp_over_block(mine.top, warps[0], sp_larger());
    float sum = sp_over_block(mine.sum * __expf(mine.top - top), warps[1], sp_add());
    const bool any_before = __syncthreads_or(before);
    if (t > 0) return;
    log_probabilities[blockIdx.x] = at_target - top - logf(sum);
    greedy[blockIdx.x] = !any_before && !isnan(at_target);
}

extern "C" sp_status sp_cuda_predictions(sp_device *device, float *log_probabilities, bool *greedy, const float *logits,
                                         const int32_t *targets, int64_t n, int64_t V) {
    SP_REQUIRE(n >= 0 && n <= INT32_MAX && V >= 1 && V <= INT32_MAX / 2, SP_BAD_ARGUMENT,
               "predictions on a GPU: %" PRId64 " rows of %" PRId64 " logits", n, V);
    if (n == 0) return SP_OK;
    predictions_kernel<<<(unsigned)n, BLOCK, 0, sp_stream_of(device)>>>(log_probabilities, greedy, logits, targets, V);
    SP_CUDA_LAUNCHED("predictions");
    return SP_OK;
}
