/* Attention of few queries against a long cache on GPUs from SM 8.0.  The queries of all heads that share keys are the
 * rows of one product, 16 at a time; the keys are cut into splits, one for each block of threads.
 *
 *   shared memory   | warp 0: K, V of stage 0 | K, V of stage 1 | ... | warp 1: ...
 *
 * Each warp takes every WARPS-th step of 16 keys of the split, with copies, sums and outputs of its own, and waits for no
 * other.  At the end the warps' rows are joined in order, and written as outputs or, where there are several splits, as
 * partial rows that a second kernel joins in order:
 *
 *   partial row   | shift | sum | 0 | 0 | Dv outputs relative to 2^shift | */
#ifndef SP_ATTENTION_CUDA_SM80_DECODE_CUH
#define SP_ATTENTION_CUDA_SM80_DECODE_CUH

#include "attention/cuda/sm80_launch.cuh"
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
        STEPS = WIDTH / 16,
        WIDTH_TILES = WIDTH / 8,
        KEYS_BYTES = DECODE_KEYS * WIDTH * 2,
        WARP_BYTES = 2 * sizes::STAGES * KEYS_BYTES,
        SHARED_BYTES = sizes::WARPS * WARP_BYTES,
    };
    static_assert((int)WARP_BYTES >= DECODE_ROWS * (WIDTH + PARTIAL_HEAD) * 4, "a warp's partial rows take its stages");
};

/* ---- what a block of threads works on --------------------------------------------------------------------------- */

struct decode_job {
    gpu_sequence sequence;
    int key_head, first_row; /* of the rows query * group + head of the group */
    int begin, end;          /* keys of this split that some row sees; begin is a multiple of 16 */
    int split;
};

__device__ __forceinline__ decode_job decode_job_of(const gpu_view &view, const gpu_splits &splits) {
    decode_job job;
    int index = blockIdx.x / splits.n, tile = index % splits.n_tiles, head = index / splits.n_tiles;
    job.split = blockIdx.x % splits.n;
    job.sequence = view_sequence(view, head / view.Hkv);
    job.key_head = head % view.Hkv;
    job.first_row = tile * DECODE_ROWS;
    int n_rows = min(view.T * view.group - job.first_row, (int)DECODE_ROWS), offset = job.sequence.n_k - view.T;
    weigh_range first = view_visible(view, job.sequence, job.first_row / view.group + offset);
    weigh_range last = view_visible(view, job.sequence, (job.first_row + n_rows - 1) / view.group + offset);
    job.begin = first.first / DECODE_KEYS * DECODE_KEYS + job.split * splits.keys;
    job.end = min(last.end, job.begin + splits.keys);
    return job;
}

/* One row of 16: its query and head. */
struct decode_row {
    int t, h, position;
    bool there;
};

__device__ __forceinline__ decode_row decode_row_of(const gpu_view &view, const decode_job &job, int i) {
    int row = job.first_row + i;
    int t = row / view.group;
    return {t, job.key_head * view.group + row % view.group, t + job.sequence.n_k - view.T, t < view.T};
}

/* Numbers c and c + 1 of a row of `width`; 0 beyond. */
template <typename half_t> __device__ __forceinline__ uint32_t load_pair(const half_t *row, int c, int width) {
    if (c + 1 < width) return *(const uint32_t *)(row + c);
    return c < width ? *(const uint16_t *)(row + c) : 0;
}

/* ---- one warp --------------------------------------------------------------------------------------------------- */

template <typename half_t, bool PICKS, int WIDTH> struct decode_warp {
    typedef decode_shape<WIDTH> shape;

    uint32_t stages;             /* this warp's shared memory */
    uint32_t k_offset, v_offset; /* of this lane's rows of B within a tile */
    uint32_t q[shape::STEPS][4];
    float s[2][4];
    uint32_t p[4];
    float out[shape::WIDTH_TILES][4];
    weigh_row row[2];
    weigh_range seen[2];
    weigh_rule rule;
    bool measured, special;

    __device__ __forceinline__ void begin(const gpu_view &view, const decode_job &job, uint32_t shared) {
        int lane = threadIdx.x % LANES, column = lane % 4 * 2;
        stages = shared + threadIdx.x / LANES * shape::WARP_BYTES;
        k_offset = chunk_offset<WIDTH>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
        v_offset = chunk_offset<WIDTH>(lane % 16, lane / 16);
        rule = view_weigh_rule(view);
        special = rule.rectified || (PICKS && rule.minus_lambda != -1);
        measured = false;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            decode_row at = decode_row_of(view, job, lane / 4 + 8 * half);
            row_rule life = view_rule(view, at.there ? at.h : 0);
            row[half].scale = view_row_scale(view, at.there ? at.h : 0, at.position) * LOG2_E;
            row[half].sum = 0;
            weigh_set_shift(row[half], row_begin(&life));
            seen[half] = view_visible(view, job.sequence, at.position);
            if (!at.there) seen[half] = {0, INT32_MAX}; /* of no use, but no reason for weigh_any */
            const half_t *from = tensor_row<half_t>(view.q, job.sequence.b, at.there ? at.t : 0, at.there ? at.h : 0);
            int width = at.there ? view.D : 0;
#pragma unroll
            for (int step = 0; step < shape::STEPS; step++) {
                q[step][half] = load_pair(from, 16 * step + column, width);
                q[step][half + 2] = load_pair(from, 16 * step + column + 8, width);
            }
        }
#pragma unroll
        for (int j = 0; j < shape::WIDTH_TILES; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) out[j][i] = 0;
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
        for (int step = 0; step < shape::STEPS; step++) {
            uint32_t b[4];
            load_matrices(b, k_tile + (k_offset ^ (step * 2 * CHUNK_BYTES)));
            mma_16816<half_t>(s[0], q[step], b);
            mma_16816<half_t>(s[1], q[step], b + 2);
        }
    }

    __device__ __forceinline__ void measure(int column) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float highest = -INFINITY, factor;
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (weigh_sees(seen[half], column + i / 2 * 8 + i % 2))
                    highest = fmaxf(highest, s[i / 2][2 * half + i % 2] * row[half].scale);
            highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 1));
            highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 2));
            weigh_set_shift(row[half], row_raise(highest, row[half].shift, &factor));
            row[half].sum *= factor;
#pragma unroll
            for (int j = 0; j < shape::WIDTH_TILES; j++) out[j][2 * half] *= factor, out[j][2 * half + 1] *= factor;
        }
    }

    template <bool ANY> __device__ __forceinline__ void weigh(int column, float sums[2]) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float y[4], term;
            sums[half] = 0;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float score = s[i / 2][2 * half + i % 2];
                bool sees = !ANY || weigh_sees(seen[half], column + i / 2 * 8 + i % 2);
                y[i] = ANY ? weigh_any<PICKS>(row[half], rule, score, sees, &term)
                           : weigh_plain<PICKS>(row[half], score, &term);
                sums[half] += term;
            }
            p[half] = PICKS ? pack_positive_pair<half_t>(y[0], y[1]) : pack_pair<half_t>(y[0], y[1]);
            p[half + 2] = PICKS ? pack_positive_pair<half_t>(y[2], y[3]) : pack_pair<half_t>(y[2], y[3]);
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
            if (again) measure(column);
            if (any)
                weigh<true>(column, sums);
            else
                weigh<false>(column, sums);
            if (again || !__any_sync(~0u, sums[0] > HIGH_SUM || sums[1] > HIGH_SUM)) break;
        }
        measured = true;
        row[0].sum += sums[0], row[1].sum += sums[1];
#pragma unroll
        for (int j = 0; j < shape::WIDTH_TILES; j += 2) {
            uint32_t b[4];
            load_matrices_transposed(b, v_tile + (v_offset ^ (j * CHUNK_BYTES)));
            mma_16816<half_t>(out[j], p, b);
            mma_16816<half_t>(out[j + 1], p, b + 2);
        }
    }

    /* Writes partial rows of WIDTH outputs to the warp's shared memory. */
    __device__ __forceinline__ void leave(float *partial) {
        int lane = threadIdx.x % LANES;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float *to = partial + (lane / 4 + 8 * half) * (WIDTH + PARTIAL_HEAD), sum = row[half].sum;
            sum += __shfl_xor_sync(~0u, sum, 1);
            sum += __shfl_xor_sync(~0u, sum, 2);
            if (lane % 4 == 0) to[0] = row[half].shift, to[1] = sum;
#pragma unroll
            for (int j = 0; j < shape::WIDTH_TILES; j++)
                *(float2 *)(to + PARTIAL_HEAD + 8 * j + lane % 4 * 2) = {out[j][2 * half], out[j][2 * half + 1]};
        }
    }
};

/* ---- joining partial rows ----------------------------------------------------------------------------------------- */

/* n partial rows, `stride` floats apart. */
struct partial_rows {
    const float *first;
    int64_t stride;
    int n;

    __device__ __forceinline__ float shift() const {
        float shift = first[0];
        for (int i = 1; i < n; i++) shift = fmaxf(shift, first[i * stride]);
        return shift;
    }

    /* Sum over the rows of number `at`, relative to 2^shift: 1 is the denominator, PARTIAL_HEAD the first output. */
    __device__ __forceinline__ float sum(int at, float shift) const {
        float sum = 0;
        for (int i = 0; i < n; i++) sum += power_of_two(first[i * stride] - shift) * first[i * stride + at];
        return sum;
    }
};

/* Ends a row whose numbers the lanes of a group share: lane `at` of `n` writes the outputs at, at + n, ... */
template <typename half_t>
__device__ __forceinline__ void decode_finish(const gpu_view &view, const gpu_sequence &sequence, int t, int h,
                                              const partial_rows &rows, int at, int n) {
    row_rule life = view_rule(view, h);
    weigh_range seen = view_visible(view, sequence, t + sequence.n_k - view.T);
    float shift = rows.shift(), factor = 0, lse = INFINITY;
    if (seen.first < seen.end) factor = row_finish(&life, shift, rows.sum(1, shift), &lse);
    half_t *out = tensor_row<half_t>(view.out, sequence.b, t, h);
    for (int d = at; d < view.Dv; d += n) {
        uint32_t pair = pack_pair<half_t>(fmaf(rows.sum(PARTIAL_HEAD + d, shift), factor, 0.0f), 0);
        *(uint16_t *)(out + d) = (uint16_t)pair;
    }
    if (view.lse && at == 0) view.lse[view_row_index(view, sequence, h, t)] = lse;
}

/* Partial row of query t of head h, split 0. */
__device__ __forceinline__ float *partial_of(const gpu_view &view, const gpu_splits &splits, int b, int h, int t) {
    return splits.partial + (((int64_t)b * view.H + h) * view.T + t) * splits.n * splits.stride;
}

/* ---- the kernels ------------------------------------------------------------------------------------------------- */

template <typename half_t, bool PICKS, int WIDTH>
__global__ void __launch_bounds__(decode_shape<WIDTH>::THREADS)
    decode_kernel(const __grid_constant__ gpu_view view, const __grid_constant__ gpu_splits splits) {
    typedef decode_shape<WIDTH> shape;
    extern __shared__ __align__(1024) char shared[];
    const decode_job job = decode_job_of(view, splits);
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
