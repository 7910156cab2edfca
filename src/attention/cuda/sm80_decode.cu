/* Attention decode by the row sm80, on the host.
 *
 *   workspace   | key_lengths | page_table | partial rows |
 *
 * those that the problem has, each at a multiple of SP_ALIGNMENT. */
#include "attention/cuda/sm80_host.cuh"
#include "attention/cuda/sm80_launch.cuh"
#include "device/cuda_check.cuh"

extern "C" {
#include "attention/cuda/sm80.h"
#include "base/memory.h"
}

enum {
    SPLIT_STEP = 4 * DECODE_KEYS, /* keys: a split has a multiple of it */
    SPLIT_LEAST = 256,            /* keys of a split, unless there are fewer */
    ROUNDS = 6,                   /* blocks of threads for each multiprocessor, about */
};

static sp_status plan_splits(const sp_attention *problem, gpu_splits *splits) {
    int64_t group = problem->q.shape[2] / problem->k.shape[2], n_multiprocessors, keys = gpu_longest_keys(problem);
    int64_t n_tiles = (problem->q.shape[1] * group + DECODE_ROWS - 1) / DECODE_ROWS;
    int64_t items = problem->q.shape[0] * problem->k.shape[2] * n_tiles;
    int count = 0;
    SP_CUDA_TRY(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, problem->q.device - 1));
    n_multiprocessors = count;
    int64_t wanted = items > 0 ? (ROUNDS * n_multiprocessors + items - 1) / items : 1;
    int64_t most = keys / SPLIT_LEAST > 1 ? keys / SPLIT_LEAST : 1, n = wanted < most ? wanted : most;
    *splits = gpu_splits_of(problem, keys, n, SPLIT_STEP);
    return SP_OK;
}

extern "C" sp_status sp_sm80_decode_workspace(const sp_attention *problem, int64_t *n_bytes) {
    gpu_splits splits;
    SP_TRY(plan_splits(problem, &splits));
    *n_bytes = 0;
    (void)gpu_lists_carve(problem, NULL, n_bytes);
    gpu_splits_carve(problem, &splits, NULL, n_bytes);
    return SP_OK;
}

extern "C" sp_status sp_sm80_decode(const sp_attention *problem, void *workspace) {
    int64_t used = 0;
    gpu_splits splits;
    SP_TRY(plan_splits(problem, &splits));
    gpu_lists placed = gpu_lists_carve(problem, workspace, &used);
    gpu_splits_carve(problem, &splits, workspace, &used);
    SP_TRY(gpu_lists_copy(problem, &placed));
    gpu_view view = gpu_view_of(problem, &placed);
    cudaStream_t stream = (cudaStream_t)problem->stream;
    sp_dtype dtype = problem->q.dtype;
    int width = view.D > view.Dv ? view.D : view.Dv;
    if (view.T == 0 || view.H == 0 || view.n_sequences == 0) return SP_OK;
    if (width <= 64) return sp_sm80_decode_64(&view, &splits, dtype, stream);
    if (width <= 128) return sp_sm80_decode_128(&view, &splits, dtype, stream);
    return sp_sm80_decode_256(&view, &splits, dtype, stream);
}
