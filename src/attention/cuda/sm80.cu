/* The row sm80 on the host: what it accepts, forward, statistics and sums of rows. */
#include "attention/cuda/sm80_host.cuh"
#include "attention/cuda/sm80_launch.cuh"
#include "attention/cuda/sm80_scores.cuh"
#include "device/cuda_check.cuh"

extern "C" {
#include "attention/cuda/sm80.h"
#include "base/memory.h"
}

/* ---- what is accepted ------------------------------------------------------------------------------------------- */

/* Copies of 16 bytes need rows that begin at a multiple of them. */
static bool rows_aligned(const sp_tensor *tensor) {
    for (int i = 0; i < 3; i++)
        if (tensor->shape[i] > 1 && tensor->stride[i] % CHUNK != 0) return false;
    return (uintptr_t)tensor->data % CHUNK_BYTES == 0;
}

static bool has_capability(int device) {
    int major = 0;
    return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess && major >= 8;
}

extern "C" const char *sp_gpu_refusal(const sp_attention *problem, sp_attention_pass pass, bool writes_liveness) {
    const sp_tensor *const tensors[] = {&problem->q,    &problem->k,  &problem->v,  &problem->out,
                                        &problem->dout, &problem->dq, &problem->dk, &problem->dv};
    const int64_t most = (int64_t)1 << 30;
    if (problem->q.device <= 0) return "the tensors are not on a GPU";
    if (problem->q.dtype != SP_DTYPE_BF16 && problem->q.dtype != SP_DTYPE_F16) return "it computes bf16 and f16 alone";
    if (problem->q.shape[3] > 256 || problem->v.shape[3] > 256) return "heads are wider than 256 channels";
    if (problem->liveness && !writes_liveness && pass == SP_ATTENTION_FORWARD && sp_tensor_count(&problem->k) > 0)
        return "it writes no liveness words";
    if (problem->q.shape[1] > most || problem->k.shape[1] > most ||
        (problem->page_table && problem->pages_per_sequence * problem->k.shape[1] > most))
        return "a sequence is longer than 2^30 tokens";
    for (int i = 0; i < (pass == SP_ATTENTION_BACKWARD ? 8 : 4); i++)
        if (!rows_aligned(tensors[i])) return "rows of a tensor do not begin at multiples of 16 bytes";
    if (!has_capability(problem->q.device - 1)) return "the GPU's compute capability is below 8.0";
    return NULL;
}

extern "C" bool sp_sm80_accepts(const sp_attention *problem, sp_attention_pass pass, const char **why) {
    const char *reason = sp_gpu_refusal(problem, pass, false);
    *why = reason ? reason : "";
    return !reason;
}

/* ---- the kernels of each width ------------------------------------------------------------------------------------ */

typedef struct width_kernels {
    int width, rows; /* of a tile of queries */
    sp_status (*forward)(const gpu_view *view, sp_dtype dtype, cudaStream_t stream);
    sp_status (*statistics)(const gpu_view *view, const gpu_notes *to, sp_dtype dtype, cudaStream_t stream);
} width_kernels;

static const width_kernels widths[] = {
    {64, tile_shape<64>::ROWS, sp_sm80_forward_64, sp_sm80_statistics_64},
    {128, tile_shape<128>::ROWS, sp_sm80_forward_128, sp_sm80_statistics_128},
    {256, tile_shape<256>::ROWS, sp_sm80_forward_256, sp_sm80_statistics_256},
};

static const width_kernels *kernels_of(const sp_attention *problem) {
    const width_kernels *kernels = widths;
    while (kernels->width < problem->q.shape[3] || kernels->width < problem->v.shape[3]) kernels++;
    return kernels;
}

/* ---- forward ---------------------------------------------------------------------------------------------------- */

extern "C" sp_status sp_sm80_forward_workspace(const sp_attention *problem, int64_t *n_bytes) {
    *n_bytes = gpu_view_bytes(problem, kernels_of(problem)->rows);
    return SP_OK;
}

extern "C" sp_status sp_sm80_forward(const sp_attention *problem, void *workspace) {
    const width_kernels *kernels = kernels_of(problem);
    const sp_attention_statistics *wanted = &problem->statistics;
    cudaStream_t stream = (cudaStream_t)problem->stream;
    gpu_view view;
    SP_TRY(gpu_view_begin(problem, kernels->rows, workspace, &view));
    if (view.n_items == 0) return SP_OK;
    SP_TRY(kernels->forward(&view, problem->q.dtype, stream));
    if (!sp_problem_wants_statistics(problem)) return SP_OK;
    gpu_notes to = {};
    to.mass = wanted->mass, to.first_mass = wanted->first_mass;
    to.entropy = wanted->entropy, to.highest = wanted->highest;
    to.zeros = wanted->zeros;
    return kernels->statistics(&view, &to, problem->q.dtype, stream);
}

/* ---- sums of rows ------------------------------------------------------------------------------------------------- */

/* Arrays of the GPU as long as those on the host. */
static gpu_notes carve_sums(const sp_row_sums *sums, int64_t n, void *memory, int64_t *used) {
    gpu_notes to = {};
    if (sums->mass) to.mass = (float *)sp_carve(memory, used, n, sizeof(float));
    if (sums->first) to.first_mass = (float *)sp_carve(memory, used, n, sizeof(float));
    if (sums->zeros) to.zeros = (int64_t *)sp_carve(memory, used, n, sizeof(int64_t));
    if (sums->small) to.small = (int64_t *)sp_carve(memory, used, n, sizeof(int64_t));
    return to;
}

static sp_status copy_sums(const sp_row_sums *sums, const gpu_notes *from, int64_t n, cudaStream_t stream) {
    const struct {
        void *to;
        const void *from;
        size_t size;
    } parts[] = {{sums->mass, from->mass, sizeof(float)},
                 {sums->first, from->first_mass, sizeof(float)},
                 {sums->zeros, from->zeros, sizeof(int64_t)},
                 {sums->small, from->small, sizeof(int64_t)}};
    for (int i = 0; i < 4; i++)
        if (parts[i].to && n > 0)
            SP_CUDA_TRY(
                cudaMemcpyAsync(parts[i].to, parts[i].from, (size_t)n * parts[i].size, cudaMemcpyDeviceToHost, stream));
    SP_CUDA_TRY(cudaStreamSynchronize(stream));
    return SP_OK;
}

/* `memory`: | what the view needs | the arrays | */
static sp_status row_sums(const sp_attention *problem, float small, const sp_row_sums *sums, void *memory) {
    const width_kernels *kernels = kernels_of(problem);
    int64_t used = gpu_view_bytes(problem, kernels->rows);
    int64_t n = problem->q.shape[0] * problem->q.shape[2] * problem->q.shape[1];
    cudaStream_t stream = (cudaStream_t)problem->stream;
    gpu_view view;
    gpu_notes to = carve_sums(sums, n, memory, &used);
    to.small_limit = small;
    to.count_underflow = true;
    SP_TRY(gpu_view_begin(problem, kernels->rows, memory, &view));
    view.lse = NULL;
    if (view.n_items == 0) return SP_OK;
    SP_TRY(kernels->statistics(&view, &to, problem->q.dtype, stream));
    return copy_sums(sums, &to, n, stream);
}

extern "C" sp_status sp_sm80_row_sums(const sp_attention *problem, float small, const sp_row_sums *sums) {
    int64_t bytes = gpu_view_bytes(problem, kernels_of(problem)->rows);
    void *memory = NULL;
    (void)carve_sums(sums, problem->q.shape[0] * problem->q.shape[2] * problem->q.shape[1], NULL, &bytes);
    SP_CUDA_TRY(cudaMalloc(&memory, (size_t)(bytes > 0 ? bytes : 1)));
    sp_status status = row_sums(problem, small, sums, memory);
    cudaError_t error = cudaFree(memory);
    return status != SP_OK ? status : sp_cuda_status(error, "cudaFree", __FILE__, __LINE__);
}
