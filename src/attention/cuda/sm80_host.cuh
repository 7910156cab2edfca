/* The view of a problem that kernels get, made on the host. */
#ifndef SP_ATTENTION_CUDA_SM80_HOST_CUH
#define SP_ATTENTION_CUDA_SM80_HOST_CUH

#include "attention/cuda/sm80_launch.cuh"
#include "attention/cuda/view.cuh"

/* The lists of a problem in the GPU's memory; NULL: the problem has none. */
struct gpu_lists {
    int64_t *cu_q, *cu_k, *key_lengths, *page_table;
};

/* The list of tiles of packed sequences; n = 0: there is none. */
struct gpu_items {
    int2 *list;
    int *counts; /* memory to sort with */
    int64_t n;
};

/* Takes their memory from `workspace`, each at a multiple of SP_ALIGNMENT. */
gpu_lists gpu_lists_carve(const sp_attention *problem, void *workspace, int64_t *used);
/* Queues their copies.  The host's lists may change as soon as the call returns. */
SP_MUST_CHECK sp_status gpu_lists_copy(const sp_attention *problem, const gpu_lists *placed);

/* For tiles of `rows` queries. */
gpu_items gpu_items_carve(const sp_attention *problem, int rows, void *workspace, int64_t *used);
/* Queues the making of the list that view->items is to be. */
SP_MUST_CHECK sp_status gpu_items_make(const gpu_view *view, const gpu_items *placed, int rows, cudaStream_t stream);

/* Without tiles: for decode. */
gpu_view gpu_view_of(const sp_attention *problem, const gpu_lists *placed);
/* What kernels over tiles of `rows` queries need before them: bytes of workspace, and the view, complete, with what makes
 * its lists queued. */
int64_t gpu_view_bytes(const sp_attention *problem, int rows);
SP_MUST_CHECK sp_status gpu_view_begin(const sp_attention *problem, int rows, void *workspace, gpu_view *view);

/* Decode: keys that some query of the longest sequence sees, at most, from a multiple of DECODE_KEYS on; n splits of them, each
 * of a multiple of `step`; and the memory of their partial rows. */
int64_t gpu_longest_keys(const sp_attention *problem);
gpu_splits gpu_splits_of(const sp_attention *problem, int64_t keys, int64_t n, int step);
void gpu_splits_carve(const sp_attention *problem, gpu_splits *splits, void *workspace, int64_t *used);

#endif
