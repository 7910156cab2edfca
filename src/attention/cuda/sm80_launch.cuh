/* The kernels of the row sm80, one function for each padded width of a head: each queues its work on the stream. */
#ifndef SP_ATTENTION_CUDA_SM80_LAUNCH_CUH
#define SP_ATTENTION_CUDA_SM80_LAUNCH_CUH

#include <cuda_runtime.h>

#include "attention/cuda/view.cuh"

/* Where statistics of rows go, (B,H,T) each, on the GPU; NULL: not wanted. */
struct gpu_notes {
    float *mass, *first_mass, *entropy, *highest;
    int64_t *zeros, *small; /* weights up to small_limit */
    float small_limit;
    bool count_underflow; /* zeros: weights that are 0, not those that are 0 by the formula */
};

/* Decode: rows of a tile, keys of a warp's step, and floats of a partial row before its outputs. */
enum { DECODE_ROWS = 16, DECODE_KEYS = 16, PARTIAL_HEAD = 4 };

/* How decode cuts its work. */
struct gpu_splits {
    int n, keys;    /* splits of the keys, and how many keys each has, a multiple of DECODE_KEYS */
    int n_tiles;    /* tiles of DECODE_ROWS rows, of which there are T (H / Hkv) */
    float *partial; /* (B,H,T,n) partial rows; NULL where n is 1 */
    int64_t stride; /* floats of a partial row */
};

#define SM80_KERNELS(width)                                                                                            \
    sp_status sp_sm80_forward_##width(const gpu_view *view, sp_dtype dtype, cudaStream_t stream);                      \
    /* view->lse NULL: log denominators are computed first */                                                          \
    sp_status sp_sm80_statistics_##width(const gpu_view *view, const gpu_notes *to, sp_dtype dtype,                    \
                                         cudaStream_t stream);                                                         \
    sp_status sp_sm80_decode_##width(const gpu_view *view, const gpu_splits *splits, sp_dtype dtype,                   \
                                     cudaStream_t stream);

extern "C" {
SM80_KERNELS(64)
SM80_KERNELS(128)
SM80_KERNELS(256)
}

#endif
