/* The kernels of decode in the row sm90, one function for each padded width of a head: each queues its work on the stream. */
#ifndef SP_ATTENTION_CUDA_SM90_DECODE_LAUNCH_CUH
#define SP_ATTENTION_CUDA_SM90_DECODE_LAUNCH_CUH

#include <cuda.h>

#include "attention/cuda/sm80_launch.cuh"

/* Everything that decode gets. */
struct hopper_decode {
    gpu_view view;
    gpu_splits splits;
    CUtensorMap k, v; /* boxes of 64 channels of DECODE_KEYS keys */
    bool compute_dead;
};

/* Blocks of threads that are in a multiprocessor at a time, for each padded width. */
enum { SM90_DECODE_RESIDENT_64 = 2, SM90_DECODE_RESIDENT_128 = 2, SM90_DECODE_RESIDENT_256 = 1 };

extern "C" {
sp_status sp_sm90_decode_64(const hopper_decode *job, sp_dtype dtype, cudaStream_t stream);
sp_status sp_sm90_decode_128(const hopper_decode *job, sp_dtype dtype, cudaStream_t stream);
sp_status sp_sm90_decode_256(const hopper_decode *job, sp_dtype dtype, cudaStream_t stream);
}

#endif
