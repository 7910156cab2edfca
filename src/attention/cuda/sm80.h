/* The row sm80: attention on GPUs of compute capability 8.0 and newer, by mma.sync.  What is here only queues work on
 * problem->stream. */
#ifndef SP_ATTENTION_CUDA_SM80_H
#define SP_ATTENTION_CUDA_SM80_H

#include "attention/problem.h"
#include "attention/row_sums.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Why no row for GPUs computes this pass of the problem, or, where liveness words are wanted of forward, none that does
 * not write them; NULL: one may.  A static sentence. */
const char *sp_gpu_refusal(const sp_attention *problem, sp_attention_pass pass, bool writes_liveness);

/* Whether the row computes this pass of the problem; if not, *why is a static sentence. */
bool sp_sm80_accepts(const sp_attention *problem, sp_attention_pass pass, const char **why);

SP_MUST_CHECK sp_status sp_sm80_forward_workspace(const sp_attention *problem, int64_t *n_bytes);
SP_MUST_CHECK sp_status sp_sm80_forward(const sp_attention *problem, void *workspace);
SP_MUST_CHECK sp_status sp_sm80_decode_workspace(const sp_attention *problem, int64_t *n_bytes);
SP_MUST_CHECK sp_status sp_sm80_decode(const sp_attention *problem, void *workspace);

/* As sp_attention_row_sums; takes memory of the GPU for a while, and waits. */
SP_MUST_CHECK sp_status sp_sm80_row_sums(const sp_attention *problem, float small, const sp_row_sums *sums);

/* *host: the problem with its queries, keys, sink and row factors copied to host memory, and nothing else (waits).
 * Give them back by sp_sm80_keys_release. */
SP_MUST_CHECK sp_status sp_sm80_keys_download(const sp_attention *problem, sp_attention *host);
void sp_sm80_keys_release(sp_attention *host);

#ifdef __cplusplus
}
#endif
#endif
