/* Decode of the row sm90 on the host.  It only queues work on problem->stream. */
#ifndef SP_ATTENTION_CUDA_SM90_DECODE_H
#define SP_ATTENTION_CUDA_SM90_DECODE_H

#include "attention/problem.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Why decode does not compute the problem, beside what holds for all passes; NULL: it does. */
const char *sp_sm90_decode_refusal(const sp_attention *problem);

SP_MUST_CHECK sp_status sp_sm90_decode_workspace(const sp_attention *problem, int64_t *n_bytes);
SP_MUST_CHECK sp_status sp_sm90_decode(const sp_attention *problem, void *workspace);

#ifdef __cplusplus
}
#endif
#endif
