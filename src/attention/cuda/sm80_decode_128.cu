/* Attention decode for heads of up to 128 channels. */
#include "attention/cuda/sm80_decode.cuh"

extern "C" sp_status sp_sm80_decode_128(const gpu_view *view, const gpu_splits *splits, sp_dtype dtype,
                                        cudaStream_t stream) {
    return decode_dispatch<128>(view, splits, dtype, stream);
}
