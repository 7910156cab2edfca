/* Backward for heads of up to 256 channels. */
#include "attention/cuda/sm80_backward.cuh"

sp_status sp_sm80_backward_256(const backward_task *task, sp_dtype dtype, cudaStream_t stream) {
    return launch_backward_of<backward_layout<256, 2, 2, 4, 16, 1>>(task, dtype, stream);
}
