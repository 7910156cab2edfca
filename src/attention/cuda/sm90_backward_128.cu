/* Backward on Hopper for heads of 128 channels. */
#include "attention/cuda/sm90_backward_launch.cuh"

sp_status sp_sm90_backward_128(const hopper_backward *job, sp_dtype dtype, cudaStream_t stream) {
    return launch_hopper_backward_of<128>(job, dtype, stream);
}
