/* The row sm90: attention on Hopper GPUs (compute capability 9.0), by wgmma and the copy engine.  What is here only queues
 * work on problem->stream. */
#ifndef SP_ATTENTION_CUDA_SM90_H
#define SP_ATTENTION_CUDA_SM90_H

#include "attention/problem.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Whether the row computes this pass of the problem; if not, *why is a static sentence. */
bool sp_sm90_accepts(const sp_attention *problem, sp_attention_pass pass, const char **why);

SP_MUST_CHECK sp_status sp_sm90_forward_workspace(const sp_attention *problem, int64_t *n_bytes);
SP_MUST_CHECK sp_status sp_sm90_forward(const sp_attention *problem, void *workspace);

#ifdef __cplusplus
}
#endif
#endif
