/* Attention of few queries against a long cache on GPUs from SM 8.0 (decode_rows.cuh tells how the work is cut).
 *
 *   shared memory   | warp 0: K, V of stage 0 | K, V of stage 1 | ... | warp 1: ...
 *
 * Each warp takes every WARPS-th step of 16 keys of the split, with copies, sums and outputs of its own, and waits for no
 * other.  At the end the warps' rows are joined in order, and written as outputs or, where there are several splits, as
 * partial rows that a second kernel joins in order. */
#ifndef SP_ATTENTION_CUDA_SM80_DECODE_CUH
#define SP_ATTENTION_CUDA_SM80_DECODE_CUH

#include "attention/cuda/decode_rows.cuh"
#include "device/cuda_check.cuh"

template <int WIDTH> struct decode_sizes;
template <> struct decode_sizes<64> {
    enum { WARPS = 4, STAGES = 4 };
};
template <> struct decode_sizes<128> {
    enum { WARPS = 4, STAGES = 3 };
};
template <> struct decode_sizes<256> {
    enum { WARPS = 2, STAGES = 3 };
};

template <int WIDTH> struct decode_shape : decode_sizes<WIDTH> {
    typedef decode_sizes<WIDTH> sizes;
    enum {
        THREADS = sizes::WARPS * LANES,
        KEYS_BYTES = DECODE_KEYS * WIDTH * 2,
        WARP_BYTES = 2 * sizes::STAGES * KEYS_BYTES,
        SHARED_BYTES = sizes::WARPS * WARP_BYTES,
    };
    static_assert((int)WARP_BYTES >= DECODE_ROWS * (WIDTH + PARTIAL_HEAD) * 4, "a warp's partial rows take its stages");
};

/* ---- one warp --------------------------------------------------------------------------------------------------- */

template <typename half_t, bool PICKS, int WIDTH> struct decode_warp : decode_rows<half_t, PICKS, WIDTH> {
    typedef decode_shape<WIDTH> shape;
    typedef decode_rows<half_t, PICKS, WIDTH> rows;
    using rows::s, rows::q, rows::p, rows::out, rows::row, rows::seen, rows::special, rows::measured;

    uint32_t stages;             /* this warp's shared memory */
    uint32_t k_offset, v_offset; /* of this lane's rows of B within a tile */

    __device__ __forceinline__ void begin(const gpu_view &view, const decode_job &job, uint32_t shared) {
        int lane = threadIdx.x % LANES;
        stages = shared + threadIdx.x / LANES * shape::WARP_BYTES;
        k_offset = chunk_offset<WIDTH>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
        v_offset = chunk_offset<WIDTH>(lane % 16, lane / 16);
        rows::begin_rows(view, job);
    }

    /* Begins to copy the 16 keys and values from `key` on; zeros for those that are not there. */
    __device__ __forceinline__ void load(const gpu_view &view, const decode_job &job, int stage, int key) {
        constexpr int CHUNKS = WIDTH / CHUNK;
        int lane = threadIdx.x % LANES, chunk = lane % CHUNKS, page = job.sequence.b, slot = key + lane;
        if (view.page_table && lane < DECODE_KEYS && slot < job.sequence.n_k) {
            page = (int)view.page_table[job.sequence.b * view.pages_per_sequence + slot / view.page_size];
            slot = slot % view.page_size;
        }
        uint32_t tile = stages + stage * 2 * shape::KEYS_BYTES;
#pragma unroll
        for (int i = 0; i < DECODE_KEYS * CHUNKS / LANES; i++) {
            int at = (i * LANES + lane) / CHUNKS; /* key within the step */
            int c = CHUNKS > LANES ? (i * LANES + lane) % CHUNKS : chunk;
            int its_page = __shfl_sync(~0u, page, at), its_slot = __shfl_sync(~0u, slot, at);
            bool there = key + at < job.sequence.n_k;
            const half_t *k = tensor_row<half_t>(view.k, there ? its_page : 0, there ? its_slot : 0, job.key_head);
            const half_t *v = tensor_row<half_t>(view.v, there ? its_page : 0, there ? its_slot : 0, job.key_head);
            int k_bytes = there ? min(max(2 * (view.D - c * CHUNK), 0), (int)CHUNK_BYTES) : 0;
            int v_bytes = there ? min(max(2 * (view.Dv - c * CHUNK), 0), (int)CHUNK_BYTES) : 0;
            uint32_t to = tile + chunk_offset<WIDTH>(at, c);
            copy_chunk(to, k_bytes ? k + c * CHUNK : k, k_bytes);
            copy_chunk(to + shape::KEYS_BYTES, v_bytes ? v + c * CHUNK : v, v_bytes);
        }
    }

    __device__ __forceinline__ void compute_scores(uint32_t k_tile) {
#pragma unroll
        for (int i = 0; i < 8; i++) s[i / 4][i % 4] = 0;
#pragma unroll
        for (int step = 0; step < rows::STEPS; step++) {
            uint32_t b[4];
            load_matrices(b, k_tile + (k_offset ^ (step * 2 * CHUNK_BYTES)));
            mma_16816<half_t>(s[0], q[step], b);
            mma_16816<half_t>(s[1], q[step], b + 2);
        }
    }

    __device__ __forceinline__ void add_step(int stage, int key) {
        uint32_t k_tile = stages + stage * 2 * shape::KEYS_BYTES, v_tile = k_tile + shape::KEYS_BYTES;
        int column = key + threadIdx.x % 4 * 2;
        bool sees_all = key >= max(seen[0].first, seen[1].first) && key + DECODE_KEYS <= min(seen[0].end, seen[1].end);
        bool any = special || !__all_sync(~0u, sees_all);
        float sums[2];
        for (bool again = !measured;; again = true) {
            compute_scores(k_tile);
            if (again) rows::measure(column);
            if (any)
                rows::template weigh<true>(column, sums);
            else
                rows::template weigh<false>(column, sums);
            if (again || !__any_sync(~0u, sums[0] > HIGH_SUM || sums[1] > HIGH_SUM)) break;
        }
        measured = true;
        row[0].sum += sums[0], row[1].sum += sums[1];
#pragma unroll
        for (int j = 0; j < rows::WIDTH_TILES; j += 2) {
            uint32_t b[4];
            load_matrices_transposed(b, v_tile + (v_offset ^ (j * CHUNK_BYTES)));
            mma_16816<half_t>(out[j], p[0], b);
            mma_16816<half_t>(out[j + 1], p[0], b + 2);
        }
    }
};

/* ---- the kernels ------------------------------------------------------------------------------------------------- */

template <typename half_t, bool PICKS, int WIDTH>
__global__ void __launch_bounds__(decode_shape<WIDTH>::THREADS)
    decode_kernel(const __grid_constant__ gpu_view view, const __grid_constant__ gpu_splits splits) {
    typedef decode_shape<WIDTH> shape;
    extern __shared__ __align__(1024) char shared[];
    const int head = blockIdx.x / splits.n / splits.n_tiles;
    const decode_job job = decode_job_at(view, splits, head / view.Hkv, head % view.Hkv,
                                         blockIdx.x / splits.n % splits.n_tiles, blockIdx.x % splits.n);
    const int index = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const int n_all = job.end > job.begin ? (job.end - job.begin + DECODE_KEYS - 1) / DECODE_KEYS : 0;
    const int n_steps = (n_all - index + shape::WARPS - 1) / shape::WARPS;
    auto key_of = [&](int i) { return job.begin + (i * shape::WARPS + index) * DECODE_KEYS; };

    decode_warp<half_t, PICKS, WIDTH> warp;
    warp.begin(view, job, shared_address(shared));
#pragma unroll
    for (int i = 0; i < shape::STAGES - 1; i++) {
        if (i < n_steps) warp.load(view, job, i, key_of(i));
        copies_commit();
    }
    for (int i = 0; i < n_steps; i++) {
        int next = i + shape::STAGES - 1;
        copies_wait<shape::STAGES - 2>();
        __syncwarp(); /* step i is there for all lanes, and all are done with the stage that is overwritten next */
        if (next < n_steps) warp.load(view, job, next % shape::STAGES, key_of(next));
        copies_commit();
        warp.add_step(i % shape::STAGES, key_of(i));
    }
    __syncwarp();
    warp.leave((float *)(shared + index * shape::WARP_BYTES));
    __syncthreads();
    for (int i = index; i < DECODE_ROWS; i += shape::WARPS) {
        decode_row at = decode_row_of(view, job, i);
        if (!at.there) continue;
        partial_rows rows = {(const float *)shared + i * (WIDTH + PARTIAL_HEAD), shape::WARP_BYTES / 4, shape::WARPS};
        if (splits.n == 1) {
            decode_finish<half_t>(view, job.sequence, at.t, at.h, rows, lane, LANES);
            continue;
        }
        float *to = partial_of(view, splits, job.sequence.b, at.h, at.t) + job.split * splits.stride;
        float shift = rows.shift(), sum = rows.sum(1, shift);
        if (lane == 0) to[0] = shift, to[1] = sum;
        for (int d = lane; d < view.Dv; d += LANES) to[PARTIAL_HEAD + d] = rows.sum(PARTIAL_HEAD + d, shift);
    }
}

/* One warp for each row. */
template <typename half_t>
__global__ void __launch_bounds__(128)
    decode_join_kernel(const __grid_constant__ gpu_view view, const __grid_constant__ gpu_splits splits) {
    int64_t row = (int64_t)blockIdx.x * (blockDim.x / LANES) + threadIdx.x / LANES;
    int t = (int)(row % view.T), h = (int)(row / view.T % view.H), b = (int)(row / view.T / view.H);
    if (b >= view.n_sequences) return;
    partial_rows rows = {partial_of(view, splits, b, h, t), splits.stride, splits.n};
    decode_finish<half_t>(view, view_sequence(view, b), t, h, rows, threadIdx.x % LANES, LANES);
}

/* ---- launching -------------------------------------------------------------------------------------------------- */

template <typename half_t, bool PICKS, int WIDTH>
static sp_status decode_launch(const gpu_view *view, const gpu_splits *splits, cudaStream_t stream) {
    typedef decode_shape<WIDTH> shape;
    int64_t rows = (int64_t)view->n_sequences * view->H * view->T;
    int64_t n_items = (int64_t)view->n_sequences * view->Hkv * splits->n_tiles * splits->n;
    auto kernel = decode_kernel<half_t, PICKS, WIDTH>;
    SP_REQUIRE(n_items < INT32_MAX && rows < INT32_MAX, SP_UNSUPPORTED,
               "decode of %lld rows is more than a GPU takes at once", (long long)rows);
    SP_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape::SHARED_BYTES));
    kernel<<<(unsigned)n_items, shape::THREADS, shape::SHARED_BYTES, stream>>>(*view, *splits);
    SP_CUDA_LAUNCHED("attention decode");
    if (splits->n == 1) return SP_OK;
    decode_join_kernel<half_t><<<(unsigned)((rows + 3) / 4), 128, 0, stream>>>(*view, *splits);
    SP_CUDA_LAUNCHED("joining the splits of attention decode");
    return SP_OK;
}

template <int WIDTH>
static sp_status decode_dispatch(const gpu_view *view, const gpu_splits *splits, sp_dtype dtype, cudaStream_t stream) {
    bool picks = view->normalizer == SP_NORMALIZER_SOFTPICK;
    if (dtype == SP_DTYPE_BF16)
        return picks ? decode_launch<__nv_bfloat16, true, WIDTH>(view, splits, stream)
                     : decode_launch<__nv_bfloat16, false, WIDTH>(view, splits, stream);
    return picks ? decode_launch<__half, true, WIDTH>(view, splits, stream)
                 : decode_launch<__half, false, WIDTH>(view, splits, stream);
}

#endif
