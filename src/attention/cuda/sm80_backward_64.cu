/* Backward for heads of up to 64 channels. */
#include "attention/cuda/sm80_backward.cuh"

sp_status sp_sm80_backward_64(const backward_task *task, sp_dtype dtype, cudaStream_t stream) {
    return launch_backward_of<backward_layout<64, 4, 2, 1, 32, 2>>(task, dtype, stream);
}
