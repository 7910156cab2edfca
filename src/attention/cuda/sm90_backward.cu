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
    if (D > 128 || D % 8 || problem->v.shape[3] != D)
        return "its backward computes heads of up to 128 channels alone, a multiple of 8, values as wide as keys";
    if (problem->row_factor) return "its backward knows no row factors";
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
    if (tile * TILE_QUERIES >= sequence.n_q) return;
    const float4 *sum =
        (const float4 *)(task.dq_sum + ((int64_t)h * task.n_tiles + blockIdx.x) * (TILE_QUERIES * WIDTH));
#pragma unroll
    for (int j = 0; j < WIDTH / 8; j += 4) {
        uint32_t words[2][4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float4 four = sum[(j + i) * GROUP_THREADS + threadIdx.x];
            words[0][i] = pack_pair<half_t>(four.x * task.scale, four.y * task.scale);
            words[1][i] = pack_pair<half_t>(four.z * task.scale, four.w * task.scale);
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint32_t(&w)[4] = words[half];
            int t = first + 8 * half;
            transpose_words(words[half]);
            half_t *row = (half_t *)task.dq.at(sequence.b, sequence.q_first + t, h);
            if (t < sequence.n_q && 8 * (j + lane % 4) < task.dq.width)
                *(uint4 *)(row + 8 * (j + lane % 4)) = make_uint4(w[0], w[1], w[2], w[3]);
        }
    }
}

/* With blocks in order the last one to add has written dq. */
static sp_status narrow(const backward_task *task, sp_dtype dtype, int width, cudaStream_t stream) {
    if (!task->any_order) return SP_OK;
    auto *kernel =
        dtype == SP_DTYPE_BF16
            ? (width == 64 ? hopper_backward_narrow_kernel<__nv_bfloat16, 64>
                           : hopper_backward_narrow_kernel<__nv_bfloat16, 128>)
            : (width == 64 ? hopper_backward_narrow_kernel<__half, 64> : hopper_backward_narrow_kernel<__half, 128>);
    kernel<<<dim3(task->n_tiles, task->H), GROUP_THREADS, 0, stream>>>(*task);
    SP_CUDA_LAUNCHED("attention backward: dq");
    return SP_OK;
}

/* ---- widths -------------------------------------------------------------------------------------------------------- */

typedef struct width_kernel {
    int width, tiles_together; /* tiles of 64 queries that a step of the kernel takes */
    int64_t section_bytes;     /* of tensors that are worked through together */
    sp_status (*run)(const hopper_backward *job, sp_dtype dtype, cudaStream_t stream);
} width_kernel;

static const width_kernel widths[] = {
    {64, hopper_backward_shape<64, false>::PASSES, 32 << 20, sp_sm90_backward_64},
    {96, hopper_backward_shape<96, false>::PASSES, 64 << 20, sp_sm90_backward_96},
    {128, hopper_backward_shape<128, false>::PASSES, 64 << 20, sp_sm90_backward_128},
};

static const width_kernel *kernel_of(const sp_attention *problem) {
    const width_kernel *kernel = widths;
    while (kernel->width < problem->q.shape[3]) kernel++;
    return kernel;
}

/* ---- the pass ----------------------------------------------------------------------------------------------------- */

/* Key heads, with their query heads, that are worked through together. */
static int section_of(const sp_attention *problem, int n_heads) {
    const width_kernel *kernel = kernel_of(problem);
    const int64_t group = problem->q.shape[2] / problem->k.shape[2];
    int64_t bytes = kernel->width * (group * problem->q.shape[1] * (2 + 2 + 4) + problem->k.shape[1] * (2 + 2 + 2 + 2));
    int64_t section = kernel->section_bytes / bytes;
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

static sp_status describe(hopper_backward *job, const sp_attention *problem) {
    SP_TRY(sp_backward_describe(&job->task, problem, kernel_of(problem)->tiles_together));
    job->task.pairs = true;
    if (problem->liveness && job->task.softpick && !problem->compute_dead) {
        sp_liveness_shape words = sp_problem_liveness_shape(problem);
        job->task.liveness = problem->liveness;
        job->task.word_tiles = (int)words.n_query_tiles, job->task.word_blocks = (int)words.n_key_tiles;
    }
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
    SP_TRY(make_maps(&job, problem, TILE_QUERIES * kernel_of(problem)->tiles_together, block_keys(64)));
    sp_backward_carve(&job.task, problem, (char *)workspace);
    SP_TRY(sp_backward_prepare(&job.task, problem));
    const width_kernel *kernel = kernel_of(problem);
    SP_TRY(kernel->run(&job, problem->q.dtype, (cudaStream_t)problem->stream));
    return narrow(&job.task, problem->q.dtype, kernel->width, (cudaStream_t)problem->stream);
}
