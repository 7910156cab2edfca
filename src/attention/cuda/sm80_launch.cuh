/* The kernels of the row sm80, one function for each padded width of a head. */
#ifndef SP_ATTENTION_CUDA_SM80_LAUNCH_CUH
#define SP_ATTENTION_CUDA_SM80_LAUNCH_CUH

#include <cuda_runtime.h>

#include "attention/cuda/view.cuh"

extern "C" {
/* Queues forward; view->n_tiles is the number of queries of the longest sequence. */
sp_status sp_sm80_forward_64(const gpu_view *view, sp_dtype dtype, cudaStream_t stream);
sp_status sp_sm80_forward_128(const gpu_view *view, sp_dtype dtype, cudaStream_t stream);
sp_status sp_sm80_forward_256(const gpu_view *view, sp_dtype dtype, cudaStream_t stream);
}

#endif
