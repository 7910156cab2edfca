/* Attention forward for heads of up to 128 channels. */
#include "attention/cuda/sm80_forward.cuh"
#include "attention/cuda/sm80_launch.cuh"

extern "C" sp_status sp_sm80_forward_128(const gpu_view *view, sp_dtype dtype, cudaStream_t stream) {
    return forward_dispatch<128>(view, dtype, stream);
}
