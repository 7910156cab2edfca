/* The view of a problem that kernels get, made on the host. */
#ifndef SP_ATTENTION_CUDA_SM80_HOST_CUH
#define SP_ATTENTION_CUDA_SM80_HOST_CUH

#include "attention/cuda/view.cuh"

/* The lists of a problem in the GPU's memory; NULL: the problem has none. */
struct gpu_lists {
    int64_t *cu_q, *cu_k, *key_lengths, *page_table;
};

/* Takes their memory from `workspace`, each at a multiple of SP_ALIGNMENT. */
gpu_lists gpu_lists_carve(const sp_attention *problem, void *workspace, int64_t *used);
/* Queues their copies.  The host's lists may change as soon as the call returns. */
SP_MUST_CHECK sp_status gpu_lists_copy(const sp_attention *problem, const gpu_lists *placed);

gpu_view gpu_view_of(const sp_attention *problem, const gpu_lists *placed);

#endif
