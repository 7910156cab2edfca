/* Backward on NVIDIA GPUs from compute capability 8.0 on. */
#ifndef SP_ATTENTION_CUDA_SM80_BACKWARD_H
#define SP_ATTENTION_CUDA_SM80_BACKWARD_H

#include "attention/problem.h"

/* Bytes of workspace on the GPU. */
SP_MUST_CHECK sp_status sp_sm80_backward_workspace(const sp_attention *problem, int64_t *n_bytes);
/* Queues the pass on problem->stream and returns.  The problem has been checked: f16 or bf16, rows at multiples of 16
 * bytes, D and Dv at most 256. */
SP_MUST_CHECK sp_status sp_sm80_backward(const sp_attention *problem, void *workspace);

#endif
