/* An attention problem as kernels see it: sizes that fit 32 bits, strides in numbers, lists in the GPU's memory. */
#ifndef SP_ATTENTION_CUDA_VIEW_CUH
#define SP_ATTENTION_CUDA_VIEW_CUH

#include <stdint.h>

#include "attention/cuda/weigh.cuh"

extern "C" {
#include "attention/problem.h"
}

/* (B,T,H,D) */
struct gpu_tensor {
    void *data;
    int64_t batch, row, head; /* strides */
};

struct gpu_view {
    gpu_tensor q, k, v, out;
    float *lse; /* NULL: not wanted */
    int T, S, H, group /* H / Hkv */, Hkv, D, Dv, n_sequences;
    bool causal; /* a query sees no key after its own position */
    int window;  /* keys that a query sees at most; 0: all */
    float scale;
    const float *row_factor; /* (H) or NULL */
    sp_normalizer normalizer;
    float lambda, eps;
    const float *sink;                        /* (H), softmax_sink alone */
    const int64_t *cu_q, *cu_k, *key_lengths; /* as in sp_attention */
    const int64_t *page_table;
    int64_t pages_per_sequence;
    int page_size;
    int n_tiles;     /* tiles of queries of the longest sequence */
    int section;     /* sequences times key/value heads that are worked through together */
    int2 *items;     /* packed sequences: all tiles, sequence and place in it; else NULL */
    int64_t n_items; /* tiles of all heads */
};

/* As sp_sequence. */
struct gpu_sequence {
    int b, q_first, k_first, n_q, n_k;
};

__device__ __forceinline__ gpu_sequence view_sequence(const gpu_view &view, int i) {
    if (!view.cu_q) return {i, 0, 0, view.T, view.key_lengths ? (int)view.key_lengths[i] : view.S};
    int q = (int)view.cu_q[i], k = (int)view.cu_k[i];
    return {0, q, k, (int)view.cu_q[i + 1] - q, (int)view.cu_k[i + 1] - k};
}

/* Keys that the query at `position` sees; may be empty with end < first. */
__device__ __forceinline__ weigh_range view_visible(const gpu_view &view, const gpu_sequence &sequence, int position) {
    return {view.window ? max(position - view.window + 1, 0) : 0,
            view.causal ? min(position + 1, sequence.n_k) : sequence.n_k};
}

/* What a dot product of the query at `position` is multiplied by to become a score in natural units. */
__device__ __forceinline__ float view_row_scale(const gpu_view &view, int h, int position) {
    return view.row_factor ? view.scale * view.row_factor[h] * logf((float)max(position, 0) + 2.0f) : view.scale;
}

__device__ __forceinline__ row_rule view_rule(const gpu_view &view, int h) {
    return {view.normalizer, view.eps, view.lambda, view.normalizer == SP_NORMALIZER_SOFTMAX_SINK ? view.sink[h] : 0};
}

__device__ __forceinline__ weigh_rule view_weigh_rule(const gpu_view &view) {
    return {view.normalizer == SP_NORMALIZER_RECTIFIED, -view.lambda};
}

/* First number of row `row` of head `h`. */
template <typename half_t>
__device__ __forceinline__ half_t *tensor_row(const gpu_tensor &tensor, int b, int64_t row, int h) {
    return (half_t *)tensor.data + b * tensor.batch + row * tensor.row + h * tensor.head;
}

/* Index of a row's one number in lse (B,H,T). */
__device__ __forceinline__ int64_t view_row_index(const gpu_view &view, const gpu_sequence &sequence, int h, int t) {
    return ((int64_t)sequence.b * view.H + h) * view.T + sequence.q_first + t;
}

/* One piece of work of a kernel that goes over tiles of queries, the longest first; within a section the heads that
 * share keys lie next to each other. */
struct gpu_item {
    int sequence, h, tile;
};

__device__ __forceinline__ gpu_item view_item(const gpu_view &view, int index) {
    if (view.items) {
        int2 item = view.items[index / view.H];
        return {item.x, index % view.H, item.y};
    }
    int n_heads = view.n_sequences * view.Hkv, per_section = view.section * view.group * view.n_tiles;
    int first = index / per_section * view.section, heads = min(view.section, n_heads - first) * view.group;
    int rest = index % per_section, head = rest % heads, key_head = first + head / view.group;
    return {key_head / view.Hkv, key_head % view.Hkv * view.group + head % view.group, view.n_tiles - 1 - rest / heads};
}

#endif
