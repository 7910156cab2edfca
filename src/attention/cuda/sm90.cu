/* The row sm90 on the host: what it accepts, forward.
 *
 *   workspace   | number of the next tile | what the view needs | votes |
 */
#include "attention/cuda/sm80_host.cuh"
#include "attention/cuda/sm90_launch.cuh"
#include "attention/cuda/sm90_map.cuh"
#include "device/cuda_check.cuh"

extern "C" {
#include "attention/cuda/sm80.h"
#include "attention/cuda/sm90.h"
#include "attention/cuda/sm90_backward.h"
#include "attention/cuda/sm90_decode.h"
#include "base/memory.h"
}

/* ---- what is accepted ------------------------------------------------------------------------------------------- */

static bool is_hopper(int device) {
    int major = 0;
    return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess && major == 9;
}

static const char *refusal_of_problem(const sp_attention *problem, sp_attention_pass pass) {
    if (!is_hopper(problem->q.device - 1)) return "the GPU's compute capability is not 9";
    if (pass == SP_ATTENTION_DECODE) return sp_sm90_decode_refusal(problem);
    if (pass == SP_ATTENTION_BACKWARD) return sp_sm90_backward_refusal(problem);
    if (sp_problem_wants_statistics(problem)) return "statistics are wanted";
    if (sp_tensor_count(&problem->k) == 0 || sp_tensor_count(&problem->v) == 0) return "there are no keys";
    if (!strides_fit(&problem->q) || !strides_fit(&problem->k) || !strides_fit(&problem->v))
        return "rows of a tensor overlap";
    return NULL;
}

extern "C" bool sp_sm90_accepts(const sp_attention *problem, sp_attention_pass pass, const char **why) {
    const char *reason = sp_gpu_refusal(problem, pass, true);
    if (!reason) reason = refusal_of_problem(problem, pass);
    *why = reason ? reason : "";
    return !reason;
}

/* ---- the kernels of each width ------------------------------------------------------------------------------------ */

typedef struct width_kernels {
    int width, queries, keys; /* of a tile, of a block */
    sp_status (*forward)(const hopper_forward *job, sp_dtype dtype, cudaStream_t stream);
} width_kernels;

static const width_kernels widths[] = {
    {64, SM90_QUERIES_64, SM90_KEYS_64, sp_sm90_forward_64},
    {96, SM90_QUERIES_96, SM90_KEYS_96, sp_sm90_forward_96},
    {128, SM90_QUERIES_128, SM90_KEYS_128, sp_sm90_forward_128},
    {192, SM90_QUERIES_192, SM90_KEYS_192, sp_sm90_forward_192},
    {256, SM90_QUERIES_256, SM90_KEYS_256, sp_sm90_forward_256},
};

static const width_kernels *kernels_of(const sp_attention *problem) {
    const width_kernels *kernels = widths;
    while (kernels->width < problem->q.shape[3] || kernels->width < problem->v.shape[3]) kernels++;
    return kernels;
}

/* ---- forward ---------------------------------------------------------------------------------------------------- */

/* Votes are kept where a weight may be 0: as words if a block is as wide as a word, else in the workspace. */
static void carve_votes(hopper_forward *job, const sp_attention *problem, int keys, void *workspace, int64_t *used) {
    sp_liveness_shape shape = sp_problem_liveness_shape(problem);
    job->liveness = problem->liveness;
    job->n_query_words = (int)shape.n_query_tiles, job->n_key_words = (int)shape.n_key_tiles;
    job->vote_slabs = keys / SP_LIVENESS_BLOCK;
    job->n_vote_blocks = (int)((shape.n_key_tiles * SP_LIVENESS_KEYS + keys - 1) / keys);
    if (!problem->liveness || rule_of(problem->normalizer) == RULE_EXPONENTIAL) return;
    int64_t n_rows = sp_problem_n_sequences(problem) * problem->q.shape[2] * shape.n_query_tiles;
    job->votes = keys == SP_LIVENESS_KEYS
                     ? job->liveness
                     : (uint32_t *)sp_carve(workspace, used, n_rows * job->n_vote_blocks, sizeof(uint32_t));
}

extern "C" sp_status sp_sm90_forward_workspace(const sp_attention *problem, int64_t *n_bytes) {
    const width_kernels *kernels = kernels_of(problem);
    hopper_forward job = {};
    *n_bytes = SP_ALIGNMENT + gpu_view_bytes(problem, kernels->queries);
    carve_votes(&job, problem, kernels->keys, NULL, n_bytes);
    return SP_OK;
}

extern "C" sp_status sp_sm90_forward(const sp_attention *problem, void *workspace) {
    const width_kernels *kernels = kernels_of(problem);
    cudaStream_t stream = (cudaStream_t)problem->stream;
    hopper_forward job = {};
    map_encoder encoder = NULL;
    job.next_item = (int *)workspace;
    SP_TRY(gpu_view_begin(problem, kernels->queries, (char *)workspace + SP_ALIGNMENT, &job.view));
    if (job.view.n_items == 0) return SP_OK;
    int64_t used = SP_ALIGNMENT + gpu_view_bytes(problem, kernels->queries);
    carve_votes(&job, problem, kernels->keys, workspace, &used);
    job.compute_dead = problem->compute_dead;
    SP_TRY(find_encoder(&encoder));
    SP_TRY(make_map(&job.q, encoder, &problem->q, 64));
    SP_TRY(make_map(&job.k, encoder, &problem->k, kernels->keys));
    SP_TRY(make_map(&job.v, encoder, &problem->v, kernels->keys));
    SP_CUDA_TRY(cudaMemsetAsync(job.next_item, 0, sizeof *job.next_item, stream));
    SP_TRY(kernels->forward(&job, problem->q.dtype, stream));
    return sp_sm90_liveness(&job, stream);
}
