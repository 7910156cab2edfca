/* Attention forward on GPUs from SM 8.0: one block of threads works through the keys of one tile of queries, from the last
 * key to the first, after the manner of FlashAttention-2 (arXiv 2307.08691): scores, numerators and outputs stay in
 * registers.
 *
 *   shared memory   | Q tile, later the outputs | K, V of stage 0 | K, V of stage 1 | ...
 *
 * Each warp lives by itself but for the barrier of each block of keys:
 *   scores    S = Q K^T                            for blocks that some row of the warp sees
 *   weigh     P = numerators, rounded; denominator (weigh.cuh); where sums are too high: scores again, and measure
 *   outputs   O = O + P V
 * A value that is NaN or infinite reaches all rows of a tile that sees its block, since 0 NaN = NaN. */
#ifndef SP_ATTENTION_CUDA_SM80_FORWARD_CUH
#define SP_ATTENTION_CUDA_SM80_FORWARD_CUH

#include "attention/cuda/sm80_scores.cuh"
#include "device/cuda_check.cuh"

/* ---- one warp --------------------------------------------------------------------------------------------------- */

template <typename half_t, bool PICKS, int WIDTH> struct forward_warp : score_warp<half_t, WIDTH> {
    typedef tile_shape<WIDTH> shape;
    typedef score_warp<half_t, WIDTH> scores;
    enum { PARTS = shape::PARTS, KEY_TILES = shape::KEY_TILES };

    uint32_t v_offset;               /* of this lane's row of B within a tile */
    uint32_t p[PARTS][KEY_TILES][2]; /* numerators, rounded */
    float out[PARTS][shape::WIDTH_TILES][4];
    weigh_row row[PARTS][2];
    weigh_rule rule;
    bool measured, special; /* special: every block needs weigh_any */

    __device__ __forceinline__ void begin(const gpu_view &view, const tile_job &job, uint32_t q_tile) {
        this->begin_scores(job, q_tile);
        v_offset = chunk_offset<WIDTH>(threadIdx.x % 16, threadIdx.x % LANES / 16);
        rule = view_weigh_rule(view);
        special = rule.rectified || (PICKS && rule.minus_lambda != -1);
        measured = false;
        row_rule life = view_rule(view, job.h);
        float shift = row_begin(&life);
        EACH_ROW(part, half, PARTS) {
            row[part][half].scale = view_row_scale(view, job.h, this->position_of(part, half)) * LOG2_E;
            row[part][half].sum = 0;
            weigh_set_shift(row[part][half], shift);
#pragma unroll
            for (int j = 0; j < shape::WIDTH_TILES; j++) out[part][j][2 * half] = out[part][j][2 * half + 1] = 0;
        }
    }

    /* Raises the shift of rows to their highest score in the block that begins at `key`. */
    __device__ __forceinline__ void measure(const gpu_view &view, const tile_job &job, int key) {
        int column = this->first_column(key);
        EACH_ROW(part, half, PARTS) {
            weigh_row &r = row[part][half];
            weigh_range seen = view_visible(view, job.sequence, this->position_of(part, half));
            float highest = -INFINITY, factor;
#pragma unroll
            for (int j = 0; j < KEY_TILES; j++)
#pragma unroll
                for (int i = 0; i < 2; i++)
                    if (weigh_sees(seen, column + 8 * j + i))
                        highest = fmaxf(highest, this->s[part][j][2 * half + i] * r.scale);
            highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 1));
            highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 2));
            weigh_set_shift(r, row_raise(highest, r.shift, &factor));
            r.sum *= factor;
#pragma unroll
            for (int j = 0; j < shape::WIDTH_TILES; j++)
                out[part][j][2 * half] *= factor, out[part][j][2 * half + 1] *= factor;
        }
    }

    /* Scores of the block that begins at `key` become numerators; sums: those of the block's denominator terms. */
    template <bool ANY>
    __device__ __forceinline__ void weigh(const gpu_view &view, const tile_job &job, int key, float sums[PARTS][2]) {
        int column = this->first_column(key);
        EACH_ROW(part, half, PARTS) {
            const weigh_row &r = row[part][half];
            weigh_range seen = {0, 0};
            if (ANY) seen = view_visible(view, job.sequence, this->position_of(part, half));
            float sum = 0;
#pragma unroll
            for (int j = 0; j < KEY_TILES; j++) {
                float y[2], term;
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float score = this->s[part][j][2 * half + i];
                    y[i] = ANY ? weigh_any<PICKS>(r, rule, score, weigh_sees(seen, column + 8 * j + i), &term)
                               : weigh_plain<PICKS>(r, score, &term);
                    sum += term;
                }
                p[part][j][half] = PICKS ? pack_positive_pair<half_t>(y[0], y[1]) : pack_pair<half_t>(y[0], y[1]);
            }
            sums[part][half] = sum;
        }
    }

    __device__ __forceinline__ void add_values(uint32_t v_tile) {
#pragma unroll
        for (int step = 0; step < shape::KEYS / 16; step++) {
            uint32_t a[PARTS][4], b[4];
#pragma unroll
            for (int part = 0; part < PARTS; part++)
#pragma unroll
                for (int i = 0; i < 4; i++) a[part][i] = p[part][2 * step + i / 2][i % 2];
#pragma unroll
            for (int j = 0; j < shape::WIDTH_TILES; j += 2) {
                load_matrices_transposed(b, v_tile + (v_offset ^ (j * CHUNK_BYTES)) + step * 16 * WIDTH * 2);
#pragma unroll
                for (int part = 0; part < PARTS; part++) {
                    mma_16816<half_t>(out[part][j], a[part], b);
                    mma_16816<half_t>(out[part][j + 1], a[part], b + 2);
                }
            }
        }
    }

    __device__ __forceinline__ void add_block(const gpu_view &view, const tile_job &job, int key, uint32_t k_tile,
                                              uint32_t v_tile) {
        bool all;
        float sums[PARTS][2];
        if (!this->sees_block(view, job, key, &all)) return;
        for (bool again = !measured;; again = true) {
            bool high = false;
            asm volatile("" : "+r"(key)); /* or what weigh<true> compares is computed ahead, for each block */
            this->compute_scores(k_tile);
            if (again) measure(view, job, key);
            if (all && !special)
                weigh<false>(view, job, key, sums);
            else
                weigh<true>(view, job, key, sums);
            EACH_ROW(part, half, PARTS) high = high || sums[part][half] > HIGH_SUM;
            if (again || !__any_sync(~0u, high)) break;
        }
        measured = true;
        EACH_ROW(part, half, PARTS) row[part][half].sum += sums[part][half];
        add_values(v_tile);
    }

    /* Ends the rows: outputs go to the Q tile, in which the warp's rows are its own, log denominators to memory. */
    __device__ __forceinline__ void finish(const gpu_view &view, const tile_job &job, char *q_tile) {
        row_rule life = view_rule(view, job.h);
        int lane = threadIdx.x % LANES, warp_row = threadIdx.x / LANES * shape::WARP_ROWS;
        float *lse = view.lse ? view.lse + view_row_index(view, job.sequence, job.h, job.first_row) : NULL;
        EACH_ROW(part, half, PARTS) {
            weigh_row &r = row[part][half];
            int local = warp_row + 16 * part + 8 * half + lane / 4;
            weigh_range seen = view_visible(view, job.sequence, this->position_of(part, half));
            float sum = row_sum(r.sum), factor = 0, log_sum = INFINITY;
            if (seen.first < seen.end) factor = row_finish(&life, r.shift, sum, &log_sum);
            if (lse && lane % 4 == 0 && local < job.n_rows) lse[local] = log_sum;
#pragma unroll
            for (int j = 0; j < shape::WIDTH_TILES; j++)
                *(uint32_t *)(q_tile + chunk_offset<WIDTH>(local, j) + lane % 4 * 4) = pack_pair<half_t>(
                    fmaf(out[part][j][2 * half], factor, 0.0f), fmaf(out[part][j][2 * half + 1], factor, 0.0f));
        }
    }

    __device__ __forceinline__ void store(const gpu_view &view, const tile_job &job, const char *q_tile) {
        constexpr int CHUNKS = WIDTH / CHUNK;
        int lane = threadIdx.x % LANES, warp_row = threadIdx.x / LANES * shape::WARP_ROWS;
        half_t *rows = tensor_row<half_t>(view.out, job.sequence.b, job.sequence.q_first + job.first_row, job.h);
#pragma unroll
        for (int i = 0; i < shape::WARP_ROWS * CHUNKS / LANES; i++) {
            int local = warp_row + (i * LANES + lane) / CHUNKS, chunk = (i * LANES + lane) % CHUNKS;
            int n = min(view.Dv - chunk * CHUNK, (int)CHUNK);
            if (local >= job.n_rows || n <= 0) continue;
            const char *from = q_tile + chunk_offset<WIDTH>(local, chunk);
            half_t *to = rows + local * view.out.row + chunk * CHUNK;
            if (n == CHUNK)
                *(uint4 *)to = *(const uint4 *)from;
            else
                for (int j = 0; j < n; j++) to[j] = ((const half_t *)from)[j];
        }
    }
};

/* ---- the kernel --------------------------------------------------------------------------------------------------- */

template <typename half_t, bool PICKS, int WIDTH>
__global__ void __launch_bounds__(tile_shape<WIDTH>::THREADS, tile_shape<WIDTH>::BLOCKS)
    forward_kernel(const __grid_constant__ gpu_view view) {
    typedef tile_shape<WIDTH> shape;
    extern __shared__ __align__(1024) char shared[];
    const tile_job job = tile_job_of(view, shape::ROWS);
    if (job.n_rows <= 0) return;
    const uint32_t q_tile = shared_address(shared), stages = q_tile + shape::Q_BYTES;
    const int first = job.key_begin / shape::KEYS, last = (job.key_end + shape::KEYS - 1) / shape::KEYS - 1;
    const int n_blocks = last - first + 1;

    typedef tile_loader<WIDTH, shape::KEYS, shape::THREADS> keys_loader;
    keys_loader k_loader(job_keys<half_t>(view, view.k, job, last * shape::KEYS), view.k.row, view.D);
    keys_loader v_loader(job_keys<half_t>(view, view.v, job, last * shape::KEYS), view.v.row, view.Dv);
    /* the i-th block from the last; they are asked for in order */
    auto load_block = [&](int i) {
        if (i < n_blocks) {
            int n = job.sequence.n_k - (last - i) * shape::KEYS;
            uint32_t tile = stages + i % shape::STAGES * 2 * shape::KEYS_BYTES;
            k_loader.load(tile, n), k_loader.step_back();
            v_loader.load(tile + shape::KEYS_BYTES, n), v_loader.step_back();
        }
        copies_commit();
    };

    forward_warp<half_t, PICKS, WIDTH> warp;
    warp.begin(view, job, q_tile);
    tile_loader<WIDTH, shape::ROWS, shape::THREADS> q_loader(job_queries<half_t>(view, job), view.q.row, view.D);
    if (n_blocks > 0) q_loader.load(q_tile, job.n_rows);
#pragma unroll
    for (int i = 0; i < shape::STAGES - 1; i++) load_block(i);
    for (int i = 0; i < n_blocks; i++) {
        copies_wait<shape::STAGES - 2>();
        __syncthreads(); /* block i is there for all, and all are done with the stage that is overwritten next */
        if (i == 0) warp.keep_queries();
        load_block(i + shape::STAGES - 1);
        uint32_t k = stages + i % shape::STAGES * 2 * shape::KEYS_BYTES;
        warp.add_block(view, job, (last - i) * shape::KEYS, k, k + shape::KEYS_BYTES);
    }
    warp.finish(view, job, shared);
    __syncwarp();
    warp.store(view, job, shared);
}

/* ---- launching -------------------------------------------------------------------------------------------------- */

template <typename half_t, bool PICKS, int WIDTH>
static sp_status forward_launch(const gpu_view *view, cudaStream_t stream) {
    typedef tile_shape<WIDTH> shape;
    const int shared_bytes = shape::Q_BYTES + 2 * shape::STAGES * shape::KEYS_BYTES;
    auto kernel = forward_kernel<half_t, PICKS, WIDTH>;
    SP_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
    kernel<<<(unsigned)view->n_items, shape::THREADS, shared_bytes, stream>>>(*view);
    SP_CUDA_LAUNCHED("attention forward");
    return SP_OK;
}

template <int WIDTH> static sp_status forward_dispatch(const gpu_view *view, sp_dtype dtype, cudaStream_t stream) {
    bool picks = view->normalizer == SP_NORMALIZER_SOFTPICK;
    if (dtype == SP_DTYPE_BF16)
        return picks ? forward_launch<__nv_bfloat16, true, WIDTH>(view, stream)
                     : forward_launch<__nv_bfloat16, false, WIDTH>(view, stream);
    return picks ? forward_launch<__half, true, WIDTH>(view, stream)
                 : forward_launch<__half, false, WIDTH>(view, stream);
}

#endif
