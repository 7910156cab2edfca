/* Backward on Hopper: what stands around the main kernel (sm90_backward.cuh): what is accepted, dq's narrowing where the
 * main kernel leaves it, the pass.  What comes before the main kernel is shared with the row sm80 (sm80_backward.cu). */
#include "attention/cuda/sm90_backward_launch.cuh"
#include "attention/cuda/sm90_map.cuh"
#include "device/cuda_check.cuh"

extern "C" {
#include "attention/cuda/sm90_backward.h"
}

/* ---- what is accepted ------------------------------------------------------------------------------------------- */

extern "C" const char *sp_sm90_backward_refusal(const sp_attention *problem) {
    const sp_tensor *const read[] = {&problem->q, &problem->k, &problem->v, &problem->dout};
    int64_t D = problem->q.shape[3];
    if ((D != 64 && D != 128) || problem->v.shape[3] != D)
        return "its backward computes heads of 64 or 128 channels alone";
    if (problem->row_factor) return "its backward knows no row factors";
    if (problem->cu_q || problem->key_lengths) return "its backward computes dense problems alone";
    for (int i = 0; i < 4; i++) {
        if (sp_tensor_count(read[i]) == 0) return "a tensor is empty";
        if (!strides_fit(read[i])) return "rows of a tensor overlap";
    }
    return NULL;
}

/* ---- dq, narrowed --------------------------------------------------------------------------------------------------- */

/* A tile of 64 queries of one head, which lies in dq_sum as the main kernel's store_dq has it. */
template <typename half_t, int WIDTH>
static __global__ void __launch_bounds__(GROUP_THREADS)
    hopper_backward_narrow_kernel(const __grid_constant__ backward_task task) {
    const backward_sequence sequence = sequence_of_tile(task, blockIdx.x);
    const int h = blockIdx.y, tile = blockIdx.x - sequence.tile_first, lane = threadIdx.x % LANES;
    const int first = tile * TILE_QUERIES + threadIdx.x / LANES * 16 + lane / 4;
    const key_range keys = tile_keys(task, sequence, tile);
    const bool seen = keys.end > keys.first; /* else no block has been here */
    if (tile * TILE_QUERIES >= sequence.n_q || (seen && !task.any_order)) return;
    const float4 *sum =
        (const float4 *)(task.dq_sum + ((int64_t)h * task.n_tiles + blockIdx.x) * (TILE_QUERIES * WIDTH));
#pragma unroll
    for (int j = 0; j < WIDTH / 8; j += 4) {
        uint32_t words[2][4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float4 four = seen ? sum[(j + i) * GROUP_THREADS + threadIdx.x] : make_float4(0, 0, 0, 0);
            words[0][i] = pack_pair<half_t>(four.x * task.scale, four.y * task.scale);
            words[1][i] = pack_pair<half_t>(four.z * task.scale, four.w * task.scale);
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint32_t(&w)[4] = words[half];
            int t = first + 8 * half;
            transpose_words(words[half]);
            half_t *row = (half_t *)task.dq.at(sequence.b, sequence.q_first + t, h);
            if (t < sequence.n_q) *(uint4 *)(row + 8 * (j + lane % 4)) = make_uint4(w[0], w[1], w[2], w[3]);
        }
    }
}

/* With blocks in order the last one to add has written dq, where there is one. */
static sp_status narrow(const backward_task *task, sp_dtype dtype, int width, cudaStream_t stream) {
    const bool all_seen = !(task->causal || task->window) || task->first.n_k >= task->first.n_q;
    if (!task->any_order && all_seen) return SP_OK;
    auto *kernel =
        dtype == SP_DTYPE_BF16
            ? (width == 64 ? hopper_backward_narrow_kernel<__nv_bfloat16, 64>
                           : hopper_backward_narrow_kernel<__nv_bfloat16, 128>)
            : (width == 64 ? hopper_backward_narrow_kernel<__half, 64> : hopper_backward_narrow_kernel<__half, 128>);
    kernel<<<dim3(task->n_tiles, task->H), GROUP_THREADS, 0, stream>>>(*task);
    SP_CUDA_LAUNCHED("attention backward: dq");
    return SP_OK;
}

/* ---- the pass ----------------------------------------------------------------------------------------------------- */

/* Key heads, with their query heads, whose tensors stay in the L2 cache together. */
static int section_of(const sp_attention *problem, int n_heads) {
    const int64_t cache = 32 << 20, group = problem->q.shape[2] / problem->k.shape[2], D = problem->q.shape[3];
    int64_t bytes = D * (group * problem->q.shape[1] * (2 + 2 + 4) + problem->k.shape[1] * (2 + 2 + 2 + 2));
    int64_t section = cache / bytes;
    return (int)(section < 1 ? 1 : section > n_heads ? n_heads : section);
}

static sp_status make_maps(hopper_backward *job, const sp_attention *problem, int queries, int keys) {
    map_encoder encoder = NULL;
    SP_TRY(find_encoder(&encoder));
    SP_TRY(make_map(&job->q, encoder, &problem->q, queries));
    SP_TRY(make_map(&job->dout, encoder, &problem->dout, queries));
    SP_TRY(make_map(&job->k, encoder, &problem->k, keys));
    return make_map(&job->v, encoder, &problem->v, keys);
}

static int tiles_together(const sp_attention *problem) { return problem->q.shape[3] == 64 ? 2 : 1; }

static sp_status describe(hopper_backward *job, const sp_attention *problem) {
    SP_TRY(sp_backward_describe(&job->task, problem, tiles_together(problem)));
    job->task.pairs = true;
    job->n_heads = job->task.n_sequences * job->task.Hkv;
    job->n_blocks = job->task.most_blocks;
    job->section = section_of(problem, job->n_heads);
    return SP_OK;
}

extern "C" sp_status sp_sm90_backward_workspace(const sp_attention *problem, int64_t *n_bytes) {
    hopper_backward job;
    SP_TRY(describe(&job, problem));
    *n_bytes = sp_backward_carve(&job.task, problem, NULL);
    return SP_OK;
}

extern "C" sp_status sp_sm90_backward(const sp_attention *problem, void *workspace) {
    hopper_backward job;
    SP_TRY(describe(&job, problem));
    SP_TRY(make_maps(&job, problem, TILE_QUERIES * tiles_together(problem), block_keys(64)));
    sp_backward_carve(&job.task, problem, (char *)workspace);
    SP_TRY(sp_backward_prepare(&job.task, problem));
    auto *run = problem->q.shape[3] == 64 ? sp_sm90_backward_64 : sp_sm90_backward_128;
    SP_TRY(run(&job, problem->q.dtype, (cudaStream_t)problem->stream));
    return narrow(&job.task, problem->q.dtype, (int)problem->q.shape[3], (cudaStream_t)problem->stream);
}
