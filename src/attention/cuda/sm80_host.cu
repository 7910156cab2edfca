/* The view of a problem that kernels get: sizes, strides, and the problem's lists copied to the GPU. */
#include "attention/cuda/sm80_host.cuh"
#include "device/cuda_check.cuh"

extern "C" {
#include "base/memory.h"
}

/* ---- lists ------------------------------------------------------------------------------------------------------ */

typedef struct list {
    const int64_t *from;
    int64_t n;
} list;

enum { N_LISTS = 4 };

/* In the order of gpu_lists. */
static void lists_of(const sp_attention *problem, list lists[N_LISTS]) {
    const list all[N_LISTS] = {{problem->cu_q, problem->n_sequences + 1},
                               {problem->cu_k, problem->n_sequences + 1},
                               {problem->key_lengths, problem->q.shape[0]},
                               {problem->page_table, problem->q.shape[0] * problem->pages_per_sequence}};
    for (int i = 0; i < N_LISTS; i++) lists[i] = all[i];
}

gpu_lists gpu_lists_carve(const sp_attention *problem, void *workspace, int64_t *used) {
    list lists[N_LISTS];
    int64_t *placed[N_LISTS];
    lists_of(problem, lists);
    for (int i = 0; i < N_LISTS; i++)
        placed[i] = lists[i].from ? (int64_t *)sp_carve(workspace, used, lists[i].n, sizeof(int64_t)) : NULL;
    return {placed[0], problem->cu_k ? placed[1] : placed[0], placed[2], placed[3]};
}

/* From pageable memory the runtime copies to a buffer of its own before it returns. */
sp_status gpu_lists_copy(const sp_attention *problem, const gpu_lists *placed) {
    int64_t *const to[N_LISTS] = {placed->cu_q, placed->cu_k, placed->key_lengths, placed->page_table};
    list lists[N_LISTS];
    lists_of(problem, lists);
    for (int i = 0; i < N_LISTS; i++)
        if (lists[i].from && lists[i].n > 0)
            SP_CUDA_TRY(cudaMemcpyAsync(to[i], lists[i].from, (size_t)lists[i].n * sizeof(int64_t),
                                        cudaMemcpyHostToDevice, (cudaStream_t)problem->stream));
    return SP_OK;
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

gpu_view gpu_view_of(const sp_attention *problem, const gpu_lists *placed) {
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
    view.page_table = placed->page_table, view.pages_per_sequence = problem->pages_per_sequence;
    view.page_size = (int)problem->k.shape[1];
    view.section = section_of(problem);
    return view;
}

static int64_t longest_queries(const sp_attention *problem) {
    int64_t longest = 0;
    for (int64_t i = 0; i < sp_problem_n_sequences(problem); i++) {
        int64_t n = sp_problem_sequence(problem, i).n_q;
        if (n > longest) longest = n;
    }
    return longest;
}

int64_t gpu_view_bytes(const sp_attention *problem, int rows) {
    int64_t used = 0;
    (void)gpu_lists_carve(problem, NULL, &used);
    (void)gpu_items_carve(problem, rows, NULL, &used);
    return used;
}

sp_status gpu_view_begin(const sp_attention *problem, int rows, void *workspace, gpu_view *view) {
    int64_t used = 0;
    gpu_lists lists = gpu_lists_carve(problem, workspace, &used);
    gpu_items items = gpu_items_carve(problem, rows, workspace, &used);
    *view = gpu_view_of(problem, &lists);
    view->n_tiles = (int)((longest_queries(problem) + rows - 1) / rows);
    view->items = items.list;
    view->n_items = (problem->cu_q ? items.n : (int64_t)view->n_sequences * view->n_tiles) * view->H;
    SP_REQUIRE(view->n_items < INT32_MAX, SP_UNSUPPORTED,
               "attention of %lld tiles of queries is more than a GPU takes at once", (long long)view->n_items);
    SP_TRY(gpu_lists_copy(problem, &lists));
    return gpu_items_make(view, &items, rows, (cudaStream_t)problem->stream);
}

/* ---- splits of decode ----------------------------------------------------------------------------------------------- */

int64_t gpu_longest_keys(const sp_attention *problem) {
    int64_t longest = 0, T = problem->q.shape[1];
    for (int64_t i = 0; i < problem->q.shape[0]; i++) {
        int64_t n = sp_problem_sequence(problem, i).n_k;
        if (n > longest) longest = n;
    }
    bool cut = problem->window && longest - T > problem->window;
    return cut ? problem->window + T + DECODE_KEYS : longest;
}

gpu_splits gpu_splits_of(const sp_attention *problem, int64_t keys, int64_t n, int step) {
    int64_t group = problem->q.shape[2] / problem->k.shape[2];
    gpu_splits splits = {};
    splits.keys = (int)sp_round_up((keys + n - 1) / n, step);
    splits.n = keys > 0 ? (int)((keys + splits.keys - 1) / splits.keys) : 1;
    splits.n_tiles = (int)((problem->q.shape[1] * group + DECODE_ROWS - 1) / DECODE_ROWS);
    splits.stride = sp_round_up(problem->v.shape[3] + PARTIAL_HEAD, PARTIAL_HEAD);
    return splits;
}

void gpu_splits_carve(const sp_attention *problem, gpu_splits *splits, void *workspace, int64_t *used) {
    int64_t rows = problem->q.shape[0] * problem->q.shape[1] * problem->q.shape[2];
    if (splits->n > 1)
        splits->partial = (float *)sp_carve(workspace, used, rows * splits->n, (size_t)splits->stride * sizeof(float));
}
