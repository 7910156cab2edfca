/* The row sm90's backward: by Hopper's own instructions. */
#ifndef SP_ATTENTION_CUDA_SM90_BACKWARD_H
#define SP_ATTENTION_CUDA_SM90_BACKWARD_H

#include <stdbool.h>

#include "attention/problem.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Why backward does not compute the problem, beside what holds for all passes, a static sentence; NULL: it does. */
const char *sp_sm90_backward_refusal(const sp_attention *problem);

/* Bytes of workspace on the GPU. */
SP_MUST_CHECK sp_status sp_sm90_backward_workspace(const sp_attention *problem, int64_t *n_bytes);
/* Queues the pass on problem->stream and returns.  The problem has been accepted. */
SP_MUST_CHECK sp_status sp_sm90_backward(const sp_attention *problem, void *workspace);

#ifdef __cplusplus
}
#endif
#endif
