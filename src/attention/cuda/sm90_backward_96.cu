/* Backward on Hopper for heads of 96 channels. */
#include "attention/cuda/sm90_backward_launch.cuh"

sp_status sp_sm90_backward_96(const hopper_backward *job, sp_dtype dtype, cudaStream_t stream) {
    return launch_hopper_backward_of<96>(job, dtype, stream);
}
