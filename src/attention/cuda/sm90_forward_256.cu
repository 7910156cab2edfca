/* Attention forward on Hopper for heads of up to 256 channels. */
#include "attention/cuda/sm90_forward.cuh"

extern "C" sp_status sp_sm90_forward_256(const hopper_forward *job, sp_dtype dtype, cudaStream_t stream) {
    return hopper_dispatch<shape_256>(job, dtype, stream);
}
