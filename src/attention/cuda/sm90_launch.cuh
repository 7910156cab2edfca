/* The kernels of the row sm90, one function for each padded width of a head: each queues its work on the stream. */
#ifndef SP_ATTENTION_CUDA_SM90_LAUNCH_CUH
#define SP_ATTENTION_CUDA_SM90_LAUNCH_CUH

#include <cuda.h>

#include "attention/cuda/view.cuh"

/* Everything that forward gets. */
struct hopper_forward {
    gpu_view view;       /* n_items tiles of as many queries as the width's sizes say */
    int *next_item;      /* 0 before the launch */
    CUtensorMap q, k, v; /* boxes of 64 channels: of 64 queries, or of a block of keys */
    uint32_t *liveness;  /* NULL: not wanted; else (sequences, H, n_query_words, n_key_words) */
    uint32_t *votes; /* NULL: not wanted; else (sequences, H, n_query_words, n_vote_blocks): of 64 queries and a block
                            of keys, one byte for each 16 queries, one bit for each 16 keys */
    int n_query_words, n_key_words, n_vote_blocks;
    int vote_slabs;    /* bits of a byte that count */
    bool compute_dead; /* as in sp_attention */
};

/* Queries of a tile and keys of a block, for each padded width. */
enum {
    SM90_QUERIES_64 = 192,
    SM90_KEYS_64 = 96,
    SM90_QUERIES_96 = 128,
    SM90_KEYS_96 = 128,
    SM90_QUERIES_128 = 128,
    SM90_KEYS_128 = 128,
    SM90_QUERIES_192 = 128,
    SM90_KEYS_192 = 64,
    SM90_QUERIES_256 = 128,
    SM90_KEYS_256 = 48,
};

extern "C" {
/* Writes the words: what is seen and, where there are votes, has some. */
sp_status sp_sm90_liveness(const hopper_forward *job, cudaStream_t stream);

sp_status sp_sm90_forward_64(const hopper_forward *job, sp_dtype dtype, cudaStream_t stream);
sp_status sp_sm90_forward_96(const hopper_forward *job, sp_dtype dtype, cudaStream_t stream);
sp_status sp_sm90_forward_128(const hopper_forward *job, sp_dtype dtype, cudaStream_t stream);
sp_status sp_sm90_forward_192(const hopper_forward *job, sp_dtype dtype, cudaStream_t stream);
sp_status sp_sm90_forward_256(const hopper_forward *job, sp_dtype dtype, cudaStream_t stream);
}

#endif
