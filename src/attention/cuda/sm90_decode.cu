/* Attention decode by the row sm90, on the host.
 *
 *   workspace   | key_lengths | page_table | partial rows |
 *
 * those that the problem has, each at a multiple of SP_ALIGNMENT. */
#include "attention/cuda/sm80_host.cuh"
#include "attention/cuda/sm90_decode_launch.cuh"
#include "attention/cuda/sm90_map.cuh"
#include "device/cuda_check.cuh"

extern "C" {
#include "attention/cuda/sm90_decode.h"
#include "base/memory.h"
}

enum {
    SPLIT_STEP = 32,   /* keys: a split has a multiple of it */
    SPLIT_LEAST = 256, /* keys of a split, unless there are fewer */
    BLOCK_COST = 64,   /* what a block of threads costs beside its keys, in keys */
    JOIN_COST = 64,    /* what joining the splits costs */
};

/* The kernels of each width. */
typedef struct width_kernels {
    int width, resident;
    sp_status (*decode)(const hopper_decode *job, sp_dtype dtype, cudaStream_t stream);
} width_kernels;

static const width_kernels widths[] = {
    {64, SM90_DECODE_RESIDENT_64, sp_sm90_decode_64},
    {128, SM90_DECODE_RESIDENT_128, sp_sm90_decode_128},
    {256, SM90_DECODE_RESIDENT_256, sp_sm90_decode_256},
};

static const width_kernels *kernels_of(const sp_attention *problem) {
    const width_kernels *kernels = widths;
    while (kernels->width < problem->q.shape[3] || kernels->width < problem->v.shape[3]) kernels++;
    return kernels;
}

extern "C" const char *sp_sm90_decode_refusal(const sp_attention *problem) {
    if (problem->normalizer == SP_NORMALIZER_RECTIFIED) return "rectified is not among its normalizers";
    if (sp_tensor_count(&problem->k) == 0 || sp_tensor_count(&problem->v) == 0) return "there are no keys";
    if (!strides_fit(&problem->k) || !strides_fit(&problem->v)) return "rows of a tensor overlap";
    if (problem->q.shape[0] > UINT16_MAX) return "there are more than 65535 sequences";
    if (problem->page_table && problem->k.shape[1] % DECODE_KEYS != 0)
        return "the page size is not a multiple of 16 keys";
    return NULL;
}

/* ---- cutting the work --------------------------------------------------------------------------------------------- */

/* Of all numbers of splits that by which the multiprocessors, `places` blocks of threads at a time, are done first. */
static int64_t best_splits(int64_t items, int64_t keys, int64_t places) {
    int64_t best = 1, best_cost = INT64_MAX, most = 4 * places / (items > 0 ? items : 1);
    if (most > keys / SPLIT_LEAST) most = keys / SPLIT_LEAST;
    for (int64_t n = 1; n == 1 || n <= most; n++) {
        int64_t rounds = (items * n + places - 1) / places, share = sp_round_up((keys + n - 1) / n, SPLIT_STEP);
        int64_t cost = rounds * (share + BLOCK_COST) + (n > 1 ? JOIN_COST : 0);
        if (cost < best_cost) best = n, best_cost = cost;
    }
    return best;
}

static sp_status plan_splits(const sp_attention *problem, gpu_splits *splits) {
    int64_t group = problem->q.shape[2] / problem->k.shape[2], keys = gpu_longest_keys(problem);
    int64_t n_tiles = (problem->q.shape[1] * group + DECODE_ROWS - 1) / DECODE_ROWS;
    int64_t items = problem->q.shape[0] * problem->k.shape[2] * n_tiles;
    int n_multiprocessors = 0;
    SP_CUDA_TRY(cudaDeviceGetAttribute(&n_multiprocessors, cudaDevAttrMultiProcessorCount, problem->q.device - 1));
    int64_t n = best_splits(items, keys, (int64_t)n_multiprocessors * kernels_of(problem)->resident);
    *splits = gpu_splits_of(problem, keys, n, SPLIT_STEP);
    return SP_OK;
}

/* ---- running ------------------------------------------------------------------------------------------------------- */

extern "C" sp_status sp_sm90_decode_workspace(const sp_attention *problem, int64_t *n_bytes) {
    gpu_splits splits;
    SP_TRY(plan_splits(problem, &splits));
    *n_bytes = 0;
    (void)gpu_lists_carve(problem, NULL, n_bytes);
    gpu_splits_carve(problem, &splits, NULL, n_bytes);
    return SP_OK;
}

extern "C" sp_status sp_sm90_decode(const sp_attention *problem, void *workspace) {
    int64_t used = 0;
    map_encoder encoder = NULL;
    hopper_decode job = {};
    SP_TRY(plan_splits(problem, &job.splits));
    gpu_lists placed = gpu_lists_carve(problem, workspace, &used);
    gpu_splits_carve(problem, &job.splits, workspace, &used);
    job.view = gpu_view_of(problem, &placed);
    job.compute_dead = problem->compute_dead;
    if (job.view.T == 0 || job.view.H == 0 || job.view.n_sequences == 0) return SP_OK;
    SP_TRY(gpu_lists_copy(problem, &placed));
    SP_TRY(find_encoder(&encoder));
    const CUtensorMapL2promotion ahead = CU_TENSOR_MAP_L2_PROMOTION_L2_128B; /* 256: slower where values are few */
    SP_TRY(make_map(&job.k, encoder, &problem->k, DECODE_KEYS, ahead));
    SP_TRY(make_map(&job.v, encoder, &problem->v, DECODE_KEYS, ahead));
    return kernels_of(problem)->decode(&job, problem->q.dtype, (cudaStream_t)problem->stream);
}
