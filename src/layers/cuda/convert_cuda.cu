/* Conversions between f32, bf16 and f16 on a CUDA device, to nearest even. */
#include <inttypes.h>

#include "device/cuda_check.cuh"
#include "layers/cuda/eight.cuh"

extern "C" {
#include "layers/cuda/layers_cuda.h"
}

enum { BLOCK = 256 };

/* Eight numbers for a thread where `wide`, and one for each of the first threads of what is left. */
template <typename Out, typename In>
static __global__ void __launch_bounds__(BLOCK)
    convert_kernel(Out *__restrict__ out, const In *__restrict__ in, int64_t n, bool wide) {
    const int64_t first = blockIdx.x * (int64_t)BLOCK + threadIdx.x, step = gridDim.x * (int64_t)BLOCK;
    const int64_t n_wide = wide ? n / 8 : 0;
    for (int64_t i = first; i < n_wide; i += step) sp_store(out + 8 * i, sp_load(in + 8 * i));
    for (int64_t i = 8 * n_wide + first; i < n; i += step) sp_store_one(out + i, sp_load_one(in + i));
}

template <typename Out, typename In> static sp_status launch(sp_device *device, void *out, const void *in, int64_t n) {
    int64_t most = 64 * (int64_t)device->n_multiprocessors, blocks = sp_divide_up(sp_divide_up(n, 8), BLOCK);
    convert_kernel<<<(unsigned)(blocks < most ? blocks : most), BLOCK, 0, sp_stream_of(device)>>>(
        (Out *)out, (const In *)in, n, sp_is_wide(out) && sp_is_wide(in));
    SP_CUDA_LAUNCHED("convert");
    return SP_OK;
}

template <typename Out>
static sp_status launch_to(sp_device *device, void *out, const void *in, sp_dtype in_dtype, int64_t n) {
    if (in_dtype == SP_DTYPE_F32) return launch<Out, float>(device, out, in, n);
    return in_dtype == SP_DTYPE_BF16 ? launch<Out, sp_bf16>(device, out, in, n)
                                     : launch<Out, __half>(device, out, in, n);
}

static bool is_float(sp_dtype dtype) {
    return dtype == SP_DTYPE_F32 || dtype == SP_DTYPE_BF16 || dtype == SP_DTYPE_F16;
}

extern "C" sp_status sp_cuda_convert(sp_device *device, void *out, sp_dtype out_dtype, const void *in,
                                     sp_dtype in_dtype, int64_t n) {
    SP_REQUIRE(is_float(out_dtype) && is_float(in_dtype), SP_UNSUPPORTED,
               "conversion on a GPU from %s to %s: only f32, bf16 and f16", sp_dtype_name(in_dtype),
               sp_dtype_name(out_dtype));
    SP_REQUIRE(n >= 0, SP_BAD_ARGUMENT, "conversion on a GPU of %" PRId64 " numbers", n);
    if (n == 0) return SP_OK;
    if (out_dtype == SP_DTYPE_F32) return launch_to<float>(device, out, in, in_dtype, n);
    return out_dtype == SP_DTYPE_BF16 ? launch_to<sp_bf16>(device, out, in, in_dtype, n)
                                      : launch_to<__half>(device, out, in, in_dtype, n);
}
