/* The list of tiles of packed sequences, the longest first: made on the GPU, where the sequences' begins are.
 *
 * A tile's place in its sequence stands for its length.  Tiles are counted by place, the counts summed up from the last
 * place on, and each tile takes the next number of its place: a counting sort. */
#include "attention/cuda/sm80_host.cuh"
#include "device/cuda_check.cuh"

extern "C" {
#include "base/memory.h"
}

enum { SORTERS = 1024 };

/* counts[i] becomes the sum of those before it. */
__device__ static void sum_before(int *counts, int n) {
    __shared__ int sums[SORTERS];
    int before = 0, i = threadIdx.x;
    for (int first = 0; first < n; first += SORTERS) {
        int count = first + i < n ? counts[first + i] : 0, sum = count;
        for (int step = 1; step < SORTERS; step *= 2) {
            sums[i] = sum;
            __syncthreads();
            sum += i >= step ? sums[i - step] : 0;
            __syncthreads();
        }
        if (first + i < n) counts[first + i] = before + sum - count;
        sums[i] = sum;
        __syncthreads();
        before += sums[SORTERS - 1];
        __syncthreads();
    }
}

/* Calls f(sequence, tile, index of the place counted from the last) for each tile of each sequence. */
template <typename function>
__device__ __forceinline__ static void each_tile(const gpu_view &view, int rows, function f) {
    for (int i = threadIdx.x; i < view.n_sequences; i += SORTERS) {
        int n_tiles = (view_sequence(view, i).n_q + rows - 1) / rows;
        for (int tile = 0; tile < n_tiles; tile++) f(i, tile, view.n_tiles - 1 - tile);
    }
}

__global__ static void __launch_bounds__(SORTERS)
    items_kernel(const __grid_constant__ gpu_view view, int rows, int2 *items, int *counts) {
    for (int i = threadIdx.x; i < view.n_tiles; i += SORTERS) counts[i] = 0;
    __syncthreads();
    each_tile(view, rows, [&](int, int, int place) { atomicAdd(&counts[place], 1); });
    __syncthreads();
    sum_before(counts, view.n_tiles);
    each_tile(view, rows, [&](int i, int tile, int place) { items[atomicAdd(&counts[place], 1)] = {i, tile}; });
}

/* Tiles of all packed sequences, and of the longest. */
static int64_t count_tiles(const sp_attention *problem, int rows, int64_t *longest) {
    int64_t n = 0;
    *longest = 0;
    for (int64_t i = 0; i < problem->n_sequences; i++) {
        int64_t n_tiles = (problem->cu_q[i + 1] - problem->cu_q[i] + rows - 1) / rows;
        if (n_tiles > *longest) *longest = n_tiles;
        n += n_tiles;
    }
    return n;
}

gpu_items gpu_items_carve(const sp_attention *problem, int rows, void *workspace, int64_t *used) {
    gpu_items placed = {};
    int64_t longest;
    if (!problem->cu_q) return placed;
    placed.n = count_tiles(problem, rows, &longest);
    placed.list = (int2 *)sp_carve(workspace, used, placed.n, sizeof(int2));
    placed.counts = (int *)sp_carve(workspace, used, longest, sizeof(int));
    return placed;
}

sp_status gpu_items_make(const gpu_view *view, const gpu_items *placed, int rows, cudaStream_t stream) {
    if (placed->n == 0) return SP_OK;
    items_kernel<<<1, SORTERS, 0, stream>>>(*view, rows, placed->list, placed->counts);
    SP_CUDA_LAUNCHED("the list of tiles of packed sequences");
    return SP_OK;
}
