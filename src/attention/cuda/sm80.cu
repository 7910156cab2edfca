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
    if (pass != SP_ATTENTION_FORWARD) return "it computes forward alone so far";
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
    view.n_tiles = longest_queries(problem);
    return view;
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
    SP_TRY(copy_lists(problem, &placed));
    gpu_view view = view_of(problem, &placed);
    sp_dtype dtype = problem->q.dtype;
    cudaStream_t stream = (cudaStream_t)problem->stream;
    int width = view.D > view.Dv ? view.D : view.Dv;
    if (width <= 64) return sp_sm80_forward_64(&view, dtype, stream);
    if (width <= 128) return sp_sm80_forward_128(&view, dtype, stream);
    return sp_sm80_forward_256(&view, dtype, stream);
}
