/* AdamW (arXiv 1711.05101) on a CUDA device, and the sums that a training step asks for.
 *
 * Sums: SECTIONS blocks, a number that depends on no device, leave a sum each in scratch memory; one more block adds
 * those.  Everything is added in double and in an order that depends on n alone. */
#include <inttypes.h>
#include <math.h>

#include "device/cuda_check.cuh"
#include "layers/cuda/eight.cuh"

extern "C" {
#include "layers/cuda/layers_cuda.h"
#include "layers/row_kernels.h"
}

enum { BLOCK = 256, SECTIONS = 1024 };

/* ---- sums ---- */

static __device__ __forceinline__ double term(float x) { return (double)x * (double)x; }
static __device__ __forceinline__ double term(double x) { return x; }

static __device__ __forceinline__ double terms(const float *x) {
    float4 four = *reinterpret_cast<const float4 *>(x);
    return (term(four.x) + term(four.y)) + (term(four.z) + term(four.w));
}
static __device__ __forceinline__ double terms(const double *x) {
    double2 two = *reinterpret_cast<const double2 *>(x);
    return two.x + two.y;
}

/* sections[blockIdx.x] = sum of the block's share of the terms of `values`: squares of floats, doubles themselves. */
template <typename T>
static __global__ void __launch_bounds__(BLOCK)
    sum_kernel(double *__restrict__ sections, const T *__restrict__ values, int64_t n) {
    __shared__ double warps[SP_MAX_WARPS];
    const int64_t width = 16 / (int)sizeof(T), n_wide = n / width, step = gridDim.x * (int64_t)BLOCK;
    const int64_t first = blockIdx.x * (int64_t)BLOCK + threadIdx.x;
    double sum = 0.0;
#pragma unroll 4
    for (int64_t i = first; i < n_wide; i += step) sum += terms(values + i * width);
    if (first < n - n_wide * width) sum += term(values[n_wide * width + first]);
    sum = sp_over_block(sum, warps, sp_add());
    if (threadIdx.x == 0) sections[blockIdx.x] = sum;
}

template <typename T> static sp_status sum_of(sp_device *device, double *out, const T *values, int64_t n) {
    SP_REQUIRE(n >= 0, SP_BAD_ARGUMENT, "a sum of %" PRId64 " numbers on a GPU", n);
    SP_REQUIRE(sp_is_wide(values), SP_BAD_ARGUMENT,
               "a sum on a GPU of numbers that do not begin at a multiple of 16 bytes");
    void *scratch;
    SP_TRY(sp_device_scratch(device, &scratch, (SECTIONS + 2) * (int64_t)sizeof(double)));
    double *total = (double *)scratch, *sections = total + 2;
    sum_kernel<<<SECTIONS, BLOCK, 0, sp_stream_of(device)>>>(sections, values, n);
    SP_CUDA_LAUNCHED("sum");
    sum_kernel<double><<<1, BLOCK, 0, sp_stream_of(device)>>>(total, sections, SECTIONS);
    SP_CUDA_LAUNCHED("sum of the sections");
    return sp_device_download(device, out, total, sizeof *out);
}

extern "C" sp_status sp_cuda_sum(sp_device *device, double *sum, const double *values, int64_t n) {
    return sum_of(device, sum, values, n);
}

extern "C" sp_status sp_cuda_norm(sp_device *device, double *norm, const float *gradient, int64_t n) {
    double squares;
    SP_TRY(sum_of(device, &squares, gradient, n));
    *norm = sqrt(squares);
    return SP_OK;
}

/* ---- AdamW ---- */

/* m and v overwritten; returns the new value.  The same order of roundings as on the CPU, but for fused products. */
static __device__ __forceinline__ float step(float value, float gradient, float *m, float *v,
                                             const sp_adamw_factors &f) {
    float g = gradient * f.gradient_scale;
    *m = f.beta1 * *m + f.one_minus_beta1 * g;
    *v = f.beta2 * *v + f.one_minus_beta2 * g * g;
    return value * f.keep - f.rate * *m / (sqrtf(*v) * f.root_correction + f.eps);
}

/* Eight numbers for a thread; what is left of n, fewer than eight, one for each of the first threads. */
static __global__ void __launch_bounds__(BLOCK)
    adamw_kernel(float *__restrict__ values, sp_bf16 *__restrict__ halves, const float *__restrict__ gradient,
                 float *__restrict__ m, float *__restrict__ v, int64_t n, sp_adamw_factors factors) {
    const int64_t thread = blockIdx.x * (int64_t)BLOCK + threadIdx.x, n_wide = n / 8;
    if (thread < n_wide) {
        const int64_t i = 8 * thread;
        sp_eight g = sp_load(gradient + i), value = sp_load(values + i), first = sp_load(m + i),
                 second = sp_load(v + i);
#pragma unroll
        for (int j = 0; j < 8; j++) value.at[j] = step(value.at[j], g.at[j], &first.at[j], &second.at[j], factors);
        sp_store(values + i, value);
        sp_store(m + i, first);
        sp_store(v + i, second);
        if (halves) sp_store(halves + i, value);
    }
    if (thread < n - 8 * n_wide) {
        const int64_t i = 8 * n_wide + thread;
        float value = step(values[i], gradient[i], m + i, v + i, factors);
        values[i] = value;
        if (halves) sp_store_one(halves + i, value);
    }
}

extern "C" sp_status sp_cuda_adamw_step(sp_device *device, float *values, uint16_t *halves, const float *gradient,
                                        float *m, float *v, int64_t n, float gradient_scale, const sp_adamw *options) {
    SP_REQUIRE(n >= 0 && n / 8 / BLOCK < INT32_MAX, SP_BAD_ARGUMENT, "adamw on a GPU: %" PRId64 " numbers", n);
    SP_REQUIRE(sp_is_wide(values) && sp_is_wide(halves) && sp_is_wide(gradient) && sp_is_wide(m) && sp_is_wide(v),
               SP_BAD_ARGUMENT, "adamw on a GPU: an array that does not begin at a multiple of 16 bytes");
    if (n == 0) return SP_OK;
    adamw_kernel<<<(unsigned)sp_divide_up(sp_divide_up(n, 8), BLOCK), BLOCK, 0, sp_stream_of(device)>>>(
        values, (sp_bf16 *)halves, gradient, m, v, n, sp_adamw_factors_of(options, gradient_scale));
    SP_CUDA_LAUNCHED("adamw");
    return SP_OK;
}
