/* Attention forward on Hopper for heads of up to 64 channels in short packed sequences. */
#include "attention/cuda/sm90_forward.cuh"

extern "C" sp_status sp_sm90_forward_64_short(const hopper_forward *job, sp_dtype dtype, cudaStream_t stream) {
    return hopper_dispatch<shape_64_short>(job, dtype, stream);
}
