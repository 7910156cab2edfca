/* Backward for heads of up to 128 channels. */
#include "attention/cuda/sm80_backward.cuh"

sp_status sp_sm80_backward_128(const backward_task *task, sp_dtype dtype, cudaStream_t stream) {
    return launch_backward_of<backward_layout<128, 4, 2, 2, 32, 1>>(task, dtype, stream);
}
