/* The row sm80 on the host: what it accepts, and the view of the problem that its kernels get.
 *
 *   workspace   | cu_q | cu_k, or as cu_q | key_lengths |
 *
 * each part at a multiple of SP_ALIGNMENT, those that the problem has. */
#include "attention/cuda/sm80_launch.cuh"
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

static const char *refusal_of_problem(const sp_attention *problem, sp_attention_pass pass) {
    const sp_tensor *const tensors[] = {&problem->q,    &problem->k,  &problem->v,  &problem->out,
                                        &problem->dout, &problem->dq, &problem->dk, &problem->dv};
    const int64_t most = (int64_t)1 << 30;
    if (problem->q.device <= 0) return "the tensors are not on a GPU";
    if (problem->q.dtype != SP_DTYPE_BF16 && problem->q.dtype != SP_DTYPE_F16) return "it computes bf16 and f16 alone";
    if (problem->q.shape[3] > 256 || problem->v.shape[3] > 256) return "heads are wider than 256 channels";
    if (pass == SP_ATTENTION_DECODE) return "it computes forward and backward alone so far";
    if (problem->liveness) return "it has no use for liveness words";
    if (problem->q.shape[1] > most || problem->k.shape[1] > most) return "a sequence is longer than 2^30 tokens";
    for (int i = 0; i < (pass == SP_ATTENTION_BACKWARD ? 8 : 4); i++)
        if (!rows_aligned(tensors[i])) return "rows of a tensor do not begin at multiples of 16 bytes";
    if (!has_capability(problem->q.device - 1)) return "the GPU's compute capability is below 8.0";
    return NULL;
}

extern "C" bool sp_sm80_accepts(const sp_attention *problem, sp_attention_pass pass, const char **why) {
    const char *reason = refusal_of_problem(problem, pass);
    *why = reason ? reason : "";
    return !reason;
}

/* ---- the view --------------------------------------------------------------------------------------------------- */

static gpu_tensor tensor_of(const sp_tensor *tensor) {
    return {tensor->data, tensor->stride[0], tensor->stride[1], tensor->stride[2]};
}

/* Sequences times key heads whose keys and values stay in the L2 cache together: those that fill half of it or so. */
static int section_of(const sp_attention *problem) {
    const int64_t cache = 16 << 20, heads = sp_problem_n_sequences(problem) * problem->k.shape[2];
    int64_t bytes = problem->k.shape[1] * (problem->q.shape[3] + problem->v.shape[3]) * 2;
    int64_t section = bytes > 0 ? cache / bytes : heads;
    if (problem->cu_q) section = heads;
    return (int)(section < 1 ? 1 : section > heads ? heads : section);
}

static int longest_queries(const sp_attention *problem) {
    int64_t longest = 0;
    for (int64_t i = 0; i < sp_problem_n_sequences(problem); i++) {
        int64_t n = sp_problem_sequence(problem, i).n_q;
        if (n > longest) longest = n;
    }
    return (int)longest;
}

/* The lists of the problem, where they lie in the workspace. */
typedef struct lists {
    int64_t *cu_q, *cu_k, *key_lengths;
} lists;

static lists carve_lists(const sp_attention *problem, void *workspace, int64_t *used) {
    int64_t n = problem->n_sequences + 1;
    lists placed = {NULL, NULL, NULL};
    if (problem->cu_q) {
        placed.cu_q = (int64_t *)sp_carve(workspace, used, n, sizeof(int64_t));
        placed.cu_k = problem->cu_k ? (int64_t *)sp_carve(workspace, used, n, sizeof(int64_t)) : placed.cu_q;
    }
    if (problem->key_lengths)
        placed.key_lengths = (int64_t *)sp_carve(workspace, used, problem->q.shape[0], sizeof(int64_t));
    return placed;
}

/* The host's list may change as soon as the call returns: such a copy goes by way of the runtime's own memory. */
static sp_status copy_list(int64_t *to, const int64_t *from, int64_t n, void *stream) {
    if (!from || n == 0) return SP_OK;
    SP_CUDA_TRY(cudaMemcpyAsync(to, from, (size_t)n * sizeof *to, cudaMemcpyHostToDevice, (cudaStream_t)stream));
    return SP_OK;
}

static sp_status copy_lists(const sp_attention *problem, const lists *placed) {
    SP_TRY(copy_list(placed->cu_q, problem->cu_q, problem->n_sequences + 1, problem->stream));
    SP_TRY(copy_list(placed->cu_k, problem->cu_k, problem->n_sequences + 1, problem->stream));
    return copy_list(placed->key_lengths, problem->key_lengths, problem->q.shape[0], problem->stream);
}

static gpu_view view_of(const sp_attention *problem, const lists *placed) {
    gpu_view view = {};
    view.q = tensor_of(&problem->q), view.k = tensor_of(&problem->k);
    view.v = tensor_of(&problem->v), view.out = tensor_of(&problem->out);
    view.lse = problem->lse;
    view.T = (int)problem->q.shape[1], view.S = (int)problem->k.shape[1];
    view.H = (int)problem->q.shape[2], view.Hkv = (int)problem->k.shape[2], view.group = view.H / view.Hkv;
    view.D = (int)problem->q.shape[3], view.Dv = (int)problem->v.shape[3];
    view.n_sequences = (int)sp_problem_n_sequences(problem);
    view.causal = problem->causal || problem->window;
    view.window = (int)(problem->window > INT32_MAX / 2 ? INT32_MAX / 2 : problem->window);
    view.scale = (float)sp_problem_scale(problem);
    view.row_factor = problem->row_factor;
    view.normalizer = problem->normalizer;
    view.lambda = problem->lambda, view.eps = problem->eps;
    view.sink = problem->sink;
    view.cu_q = placed->cu_q, view.cu_k = placed->cu_k, view.key_lengths = placed->key_lengths;
    view.section = section_of(problem);
    view.longest = longest_queries(problem);
    return view;
}

static sp_status forward(const gpu_view *view, sp_dtype dtype, cudaStream_t stream) {
    int width = view->D > view->Dv ? view->D : view->Dv;
    if (width <= 64) return sp_sm80_forward_64(view, dtype, stream);
    if (width <= 128) return sp_sm80_forward_128(view, dtype, stream);
    return sp_sm80_forward_256(view, dtype, stream);
}

static sp_status statistics(const gpu_view *view, const gpu_notes *to, sp_dtype dtype, cudaStream_t stream) {
    if (view->D <= 64) return sp_sm80_statistics_64(view, to, dtype, stream);
    if (view->D <= 128) return sp_sm80_statistics_128(view, to, dtype, stream);
    return sp_sm80_statistics_256(view, to, dtype, stream);
}

/* ---- forward ---------------------------------------------------------------------------------------------------- */

extern "C" sp_status sp_sm80_forward_workspace(const sp_attention *problem, int64_t *n_bytes) {
    *n_bytes = 0;
    (void)carve_lists(problem, NULL, n_bytes);
    return SP_OK;
}

extern "C" sp_status sp_sm80_forward(const sp_attention *problem, void *workspace) {
    int64_t used = 0;
    lists placed = carve_lists(problem, workspace, &used);
    cudaStream_t stream = (cudaStream_t)problem->stream;
    SP_TRY(copy_lists(problem, &placed));
    gpu_view view = view_of(problem, &placed);
    SP_TRY(forward(&view, problem->q.dtype, stream));
    if (!sp_problem_wants_statistics(problem)) return SP_OK;
    const sp_attention_statistics *wanted = &problem->statistics;
    gpu_notes to = {};
    to.mass = wanted->mass, to.first_mass = wanted->first_mass;
    to.entropy = wanted->entropy, to.highest = wanted->highest;
    to.zeros = wanted->zeros;
    return statistics(&view, &to, problem->q.dtype, stream);
}

/* ---- sums of rows ------------------------------------------------------------------------------------------------- */

/* Arrays of the GPU as long as those on the host, and the lists of the problem, in one allocation. */
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

static sp_status row_sums(const sp_attention *problem, float small, const sp_row_sums *sums, void *memory) {
    int64_t used = 0, n = problem->q.shape[0] * problem->q.shape[2] * problem->q.shape[1];
    cudaStream_t stream = (cudaStream_t)problem->stream;
    lists placed = carve_lists(problem, memory, &used);
    gpu_notes to = carve_sums(sums, n, memory, &used);
    to.small_limit = small;
    to.count_underflow = true;
    SP_TRY(copy_lists(problem, &placed));
    gpu_view view = view_of(problem, &placed);
    view.lse = NULL;
    SP_TRY(statistics(&view, &to, problem->q.dtype, stream));
    return copy_sums(sums, &to, n, stream);
}

extern "C" sp_status sp_sm80_row_sums(const sp_attention *problem, float small, const sp_row_sums *sums) {
    int64_t bytes = 0;
    void *memory = NULL;
    (void)carve_lists(problem, NULL, &bytes);
    (void)carve_sums(sums, problem->q.shape[0] * problem->q.shape[2] * problem->q.shape[1], NULL, &bytes);
    SP_CUDA_TRY(cudaMalloc(&memory, (size_t)(bytes > 0 ? bytes : 1)));
    sp_status status = row_sums(problem, small, sums, memory);
    cudaError_t error = cudaFree(memory);
    return status != SP_OK ? status : sp_cuda_status(error, "cudaFree", __FILE__, __LINE__);
}
