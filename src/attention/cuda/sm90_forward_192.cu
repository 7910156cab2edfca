/* Attention forward on Hopper for heads of up to 192 channels. */
#include "attention/cuda/sm90_forward.cuh"

extern "C" sp_status sp_sm90_forward_192(const hopper_forward *job, sp_dtype dtype, cudaStream_t stream) {
    return hopper_dispatch<shape_192>(job, dtype, stream);
}
