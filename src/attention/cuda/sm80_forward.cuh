/* Attention forward on GPUs from SM 8.0: one block of threads works through the keys of one tile of queries, from the last
 * key to the first, after the manner of FlashAttention-2 (arXiv 2307.08691): scores, numerators and outputs stay in
 * registers.
 *
 *   shared memory   | Q tile, later the outputs | K, V of stage 0 | K, V of stage 1 | ...
 *
 * Each warp has 16 PARTS rows of its own and the same life as the others but for the barrier of each block of keys:
 *   scores    S = Q K^T                            for blocks that some row of the warp sees
 *   weigh     P = numerators, rounded; denominator (weigh.cuh); where sums are too high: measure, and scores again
 *   outputs   O = O + P V
 * Channels beyond D and Dv, queries beyond T and keys beyond S are zeros in shared memory; global memory outside of the
 * tensors' rows is never touched.  A value that is NaN or infinite reaches all rows of a tile that sees its block,
 * since 0 NaN = NaN. */
#ifndef SP_ATTENTION_CUDA_SM80_FORWARD_CUH
#define SP_ATTENTION_CUDA_SM80_FORWARD_CUH

#include "attention/cuda/view.cuh"
#include "device/cuda_check.cuh"

/* Sizes, one for each padded width of a head. */
template <int WIDTH> struct forward_sizes;
template <> struct forward_sizes<64> {
    enum { KEYS = 64, PARTS = 2, STAGES = 2, BLOCKS = 2 /* on a multiprocessor */, Q_STAYS = 1 /* in registers */ };
};
template <> struct forward_sizes<128> {
    enum { KEYS = 64, PARTS = 2, STAGES = 2, BLOCKS = 2, Q_STAYS = 0 };
};
template <> struct forward_sizes<256> {
    enum { KEYS = 32, PARTS = 1, STAGES = 2, BLOCKS = 2, Q_STAYS = 0 };
};

template <int WIDTH> struct forward_shape : forward_sizes<WIDTH> {
    typedef forward_sizes<WIDTH> sizes;
    enum {
        WARPS = 4,
        THREADS = WARPS * LANES,
        WARP_ROWS = 16 * sizes::PARTS,
        ROWS = WARPS * WARP_ROWS,
        STEPS = WIDTH / 16,          /* of 16 channels */
        KEY_TILES = sizes::KEYS / 8, /* of 8 keys */
        WIDTH_TILES = WIDTH / 8,     /* of 8 channels */
        Q_BYTES = ROWS * WIDTH * 2,
        KEYS_BYTES = sizes::KEYS * WIDTH * 2,
        SHARED_BYTES = Q_BYTES + 2 * sizes::STAGES * KEYS_BYTES,
    };
};

/* ---- loading ---------------------------------------------------------------------------------------------------- */

/* Copies rows [first, first + n) of head h, n <= N, to a tile of N rows; the rest of the tile is zeros. */
template <int WIDTH, int N, int THREADS>
__device__ __forceinline__ void load_tile(uint32_t tile, const char *rows, int64_t stride_bytes, int width, int n) {
    constexpr int CHUNKS = WIDTH / CHUNK, ROWS = THREADS / CHUNKS;
    static_assert(N % ROWS == 0, "every thread copies as many chunks");
    int chunk = threadIdx.x % CHUNKS, row = threadIdx.x / CHUNKS;
    int bytes = min(max(2 * (width - chunk * CHUNK), 0), (int)CHUNK_BYTES);
    const char *from = rows + row * stride_bytes + chunk * CHUNK_BYTES;
    uint32_t to = tile + chunk_offset<WIDTH>(row, chunk);
#pragma unroll
    for (int i = 0; i < N / ROWS; i++) {
        bool inside = row + i * ROWS < n && bytes > 0;
        /* rows move on by a multiple of 8 where there are 8 of them or more, and a chunk keeps its place */
        uint32_t place = ROWS % 8 == 0 ? to + i * ROWS * WIDTH * 2 : tile + chunk_offset<WIDTH>(row + i * ROWS, chunk);
        copy_chunk(place, inside ? from + i * ROWS * stride_bytes : rows, inside ? bytes : 0);
    }
}

/* What a block of threads works on. */
struct forward_job {
    gpu_sequence sequence;
    int h, first_row, n_rows; /* queries of the sequence */
    int offset;               /* position of a query less its number */
    const char *q, *k, *v;    /* the head's first query of the tile, and first key and value of the sequence */
    int key_begin, key_end;   /* keys that some query of the tile sees */
};

template <typename half_t> __device__ __forceinline__ forward_job forward_job_of(const gpu_view &view, int rows) {
    forward_job job;
    gpu_item item = view_item(view, blockIdx.x);
    job.sequence = view_sequence(view, item.sequence);
    job.h = item.h;
    job.first_row = item.tile * rows;
    job.n_rows = min(rows, job.sequence.n_q - job.first_row);
    job.offset = job.sequence.n_k - job.sequence.n_q;
    int b = job.sequence.b, key_head = item.h / view.group;
    job.q = (const char *)tensor_row<half_t>(view.q, b, job.sequence.q_first + job.first_row, item.h);
    job.k = (const char *)tensor_row<half_t>(view.k, b, job.sequence.k_first, key_head);
    job.v = (const char *)tensor_row<half_t>(view.v, b, job.sequence.k_first, key_head);
    job.key_begin = view_visible(view, job.sequence, job.first_row + job.offset).first;
    job.key_end = view_visible(view, job.sequence, job.first_row + job.n_rows - 1 + job.offset).end;
    return job;
}

/* ---- one warp --------------------------------------------------------------------------------------------------- */

template <typename half_t, bool PICKS, int WIDTH> struct forward_warp {
    typedef forward_shape<WIDTH> shape;
    enum { PARTS = shape::PARTS, KEY_TILES = shape::KEY_TILES, Q_STEPS = shape::Q_STAYS ? shape::STEPS : 1 };

    uint32_t q_address;          /* of this lane's row of A */
    uint32_t k_offset, v_offset; /* of this lane's rows of B within a tile */
    uint32_t q[PARTS][Q_STEPS][4];
    float s[PARTS][KEY_TILES][4];    /* scores */
    uint32_t p[PARTS][KEY_TILES][2]; /* numerators, rounded */
    float out[PARTS][shape::WIDTH_TILES][4];
    weigh_row row[PARTS][2];
    int position[PARTS][2];            /* of each row */
    int first_position, last_position; /* of the warp's rows */
    weigh_rule rule;
    bool measured, special; /* special: every block needs weigh_any */

    __device__ __forceinline__ void begin(const gpu_view &view, const forward_job &job, uint32_t shared) {
        int lane = threadIdx.x % LANES, warp_row = threadIdx.x / LANES * shape::WARP_ROWS;
        q_address = shared + chunk_offset<WIDTH>(warp_row + lane % 16, lane / 16);
        k_offset = chunk_offset<WIDTH>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
        v_offset = chunk_offset<WIDTH>(lane % 16, lane / 16);
        first_position = job.first_row + warp_row + job.offset;
        last_position = first_position + shape::WARP_ROWS - 1;
        rule = view_weigh_rule(view);
        special = rule.rectified || (PICKS && rule.minus_lambda != -1);
        measured = false;
        row_rule life = view_rule(view, job.h);
        float shift = row_begin(&life);
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                position[part][half] = first_position + 16 * part + 8 * half + lane / 4;
                row[part][half].scale = view_row_scale(view, job.h, position[part][half]) * LOG2_E;
                row[part][half].sum = 0;
                weigh_set_shift(row[part][half], shift);
            }
#pragma unroll
            for (int j = 0; j < shape::WIDTH_TILES; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) out[part][j][i] = 0;
        }
    }

    __device__ __forceinline__ void load_queries(uint32_t a[4], int part, int step) {
        load_matrices(a, (q_address + part * 16 * WIDTH * 2) ^ (step * 2 * CHUNK_BYTES));
    }

    /* After the Q tile has arrived. */
    __device__ __forceinline__ void keep_queries() {
        if constexpr (shape::Q_STAYS) {
#pragma unroll
            for (int part = 0; part < PARTS; part++)
#pragma unroll
                for (int step = 0; step < Q_STEPS; step++) load_queries(q[part][step], part, step);
        }
    }

    __device__ __forceinline__ void compute_scores(uint32_t k_tile) {
#pragma unroll
        for (int part = 0; part < PARTS; part++)
#pragma unroll
            for (int j = 0; j < KEY_TILES; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) s[part][j][i] = 0;
#pragma unroll
        for (int step = 0; step < shape::STEPS; step++) {
            uint32_t a[PARTS][4], b[4];
#pragma unroll
            for (int part = 0; part < PARTS; part++) {
                if constexpr (shape::Q_STAYS) {
#pragma unroll
                    for (int i = 0; i < 4; i++) a[part][i] = q[part][step][i];
                } else {
                    load_queries(a[part], part, step);
                }
            }
            uint32_t address = k_tile + (k_offset ^ (step * 2 * CHUNK_BYTES));
#pragma unroll
            for (int j = 0; j < KEY_TILES; j += 2) {
                load_matrices(b, address + j * 8 * WIDTH * 2);
#pragma unroll
                for (int part = 0; part < PARTS; part++) {
                    mma_16816<half_t>(s[part][j], a[part], b);
                    mma_16816<half_t>(s[part][j + 1], a[part], b + 2);
                }
            }
        }
    }

    /* Raises the shift of rows to their highest score in the block that begins at `key`. */
    __device__ __forceinline__ void measure(const gpu_view &view, const gpu_sequence &sequence, int key) {
        int column = key + threadIdx.x % 4 * 2;
#pragma unroll
        for (int part = 0; part < PARTS; part++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                weigh_row &r = row[part][half];
                weigh_range seen = view_visible(view, sequence, position[part][half]);
                float highest = -INFINITY, factor;
#pragma unroll
                for (int j = 0; j < KEY_TILES; j++)
#pragma unroll
                    for (int i = 0; i < 2; i++)
                        if (weigh_sees(seen, column + 8 * j + i))
                            highest = fmaxf(highest, s[part][j][2 * half + i] * r.scale);
                highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 1));
                highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 2));
                weigh_set_shift(r, row_raise(highest, r.shift, &factor));
                r.sum *= factor;
#pragma unroll
                for (int j = 0; j < shape::WIDTH_TILES; j++)
#pragma unroll
                    for (int i = 0; i < 2; i++) out[part][j][2 * half + i] *= factor;
            }
    }

    /* Scores of the block that begins at `key` become numerators; sums: those of the block's denominator terms. */
    template <bool ANY>
    __device__ __forceinline__ void weigh(const gpu_view &view, const gpu_sequence &sequence, int key,
                                          float sums[PARTS][2]) {
        int column = key + threadIdx.x % 4 * 2;
#pragma unroll
        for (int part = 0; part < PARTS; part++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                weigh_row &r = row[part][half];
                weigh_range seen = {0, 0};
                if (ANY) seen = view_visible(view, sequence, position[part][half]);
                float sum = 0;
#pragma unroll
                for (int j = 0; j < KEY_TILES; j++) {
                    float y[2], term;
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        float score = s[part][j][2 * half + i];
                        if (ANY)
                            y[i] = weigh_any<PICKS>(r, rule, score, weigh_sees(seen, column + 8 * j + i), &term);
                        else
                            y[i] = weigh_plain<PICKS>(r, score, &term);
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
            uint32_t address = v_tile + v_offset + step * 16 * WIDTH * 2;
#pragma unroll
            for (int j = 0; j < shape::WIDTH_TILES; j += 2) {
                load_matrices_transposed(b, address ^ (j * CHUNK_BYTES));
#pragma unroll
                for (int part = 0; part < PARTS; part++) {
                    mma_16816<half_t>(out[part][j], a[part], b);
                    mma_16816<half_t>(out[part][j + 1], a[part], b + 2);
                }
            }
        }
    }

    /* Whether a row of the warp sees a key of the block that begins at `key`; *all: whether all rows see all of it. */
    __device__ __forceinline__ bool sees_block(const gpu_view &view, const gpu_sequence &sequence, int key, bool *all) {
        weigh_range first = view_visible(view, sequence, first_position);
        weigh_range last = view_visible(view, sequence, last_position);
        *all = key >= last.first && key + shape::KEYS <= first.end;
        return key < last.end && key + shape::KEYS > first.first;
    }

    __device__ __forceinline__ void add_block(const gpu_view &view, const gpu_sequence &sequence, int key,
                                              uint32_t k_tile, uint32_t v_tile) {
        bool all;
        float sums[PARTS][2];
        if (!sees_block(view, sequence, key, &all)) return;
        for (bool again = !measured;; again = true) {
            compute_scores(k_tile);
            if (again) measure(view, sequence, key);
            if (all && !special)
                weigh<false>(view, sequence, key, sums);
            else
                weigh<true>(view, sequence, key, sums);
            bool high = false;
#pragma unroll
            for (int part = 0; part < PARTS; part++)
                high = high || sums[part][0] > HIGH_SUM || sums[part][1] > HIGH_SUM;
            if (again || !__any_sync(~0u, high)) break;
        }
        measured = true;
#pragma unroll
        for (int part = 0; part < PARTS; part++) row[part][0].sum += sums[part][0], row[part][1].sum += sums[part][1];
        add_values(v_tile);
    }

    /* Ends the rows: outputs go to the Q tile, in which the warp's rows are its own, log denominators to memory. */
    __device__ __forceinline__ void finish(const gpu_view &view, const forward_job &job, char *shared) {
        row_rule life = view_rule(view, job.h);
        int lane = threadIdx.x % LANES, warp_row = threadIdx.x / LANES * shape::WARP_ROWS;
        float *lse =
            view.lse ? view.lse + ((int64_t)job.sequence.b * view.H + job.h) * view.T + job.sequence.q_first : NULL;
#pragma unroll
        for (int part = 0; part < PARTS; part++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                weigh_row &r = row[part][half];
                int local = warp_row + 16 * part + 8 * half + lane / 4;
                weigh_range seen = view_visible(view, job.sequence, position[part][half]);
                float sum = r.sum, factor = 0, log_sum = INFINITY;
                sum += __shfl_xor_sync(~0u, sum, 1);
                sum += __shfl_xor_sync(~0u, sum, 2);
                if (seen.first < seen.end) factor = row_finish(&life, r.shift, sum, &log_sum);
                if (lse && lane % 4 == 0 && local < job.n_rows) lse[job.first_row + local] = log_sum;
#pragma unroll
                for (int j = 0; j < shape::WIDTH_TILES; j++) {
                    uint32_t pair = pack_pair<half_t>(fmaf(out[part][j][2 * half], factor, 0.0f),
                                                      fmaf(out[part][j][2 * half + 1], factor, 0.0f));
                    *(uint32_t *)(shared + chunk_offset<WIDTH>(local, j) + lane % 4 * 4) = pair;
                }
            }
    }

    __device__ __forceinline__ void store(const gpu_view &view, const forward_job &job, const char *shared) {
        constexpr int CHUNKS = WIDTH / CHUNK;
        int lane = threadIdx.x % LANES, warp_row = threadIdx.x / LANES * shape::WARP_ROWS;
        half_t *rows = tensor_row<half_t>(view.out, job.sequence.b, job.sequence.q_first + job.first_row, job.h);
#pragma unroll
        for (int i = 0; i < shape::WARP_ROWS * CHUNKS / LANES; i++) {
            int local = warp_row + (i * LANES + lane) / CHUNKS, chunk = (i * LANES + lane) % CHUNKS;
            int n = min(view.Dv - chunk * CHUNK, (int)CHUNK);
            if (local >= job.n_rows || n <= 0) continue;
            const char *from = shared + chunk_offset<WIDTH>(local, chunk);
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
__global__ void __launch_bounds__(forward_shape<WIDTH>::THREADS, forward_shape<WIDTH>::BLOCKS)
    forward_kernel(const __grid_constant__ gpu_view view) {
    typedef forward_shape<WIDTH> shape;
    extern __shared__ __align__(1024) char shared[];
    const forward_job job = forward_job_of<half_t>(view, shape::ROWS);
    if (job.n_rows <= 0) return;
    const uint32_t tiles = shared_address(shared) + shape::Q_BYTES;
    const int first = job.key_begin / shape::KEYS, last = (job.key_end + shape::KEYS - 1) / shape::KEYS - 1;
    const int n_blocks = last - first + 1;

    auto load_block = [&](int i) { /* the i-th from the last */
                                   if (i < n_blocks) {
                                       int key = (last - i) * shape::KEYS, n = job.sequence.n_k - key;
                                       uint32_t tile = tiles + i % shape::STAGES * 2 * shape::KEYS_BYTES;
                                       load_tile<WIDTH, shape::KEYS, shape::THREADS>(tile, job.k + key * view.k.row * 2,
                                                                                     view.k.row * 2, view.D, n);
                                       load_tile<WIDTH, shape::KEYS, shape::THREADS>(tile + shape::KEYS_BYTES,
                                                                                     job.v + key * view.v.row * 2,
                                                                                     view.v.row * 2, view.Dv, n);
                                   }
                                   copies_commit();
    };

    forward_warp<half_t, PICKS, WIDTH> warp;
    warp.begin(view, job, tiles - shape::Q_BYTES);
    if (n_blocks > 0) {
        load_tile<WIDTH, shape::ROWS, shape::THREADS>(tiles - shape::Q_BYTES, job.q, view.q.row * 2, view.D,
                                                      job.n_rows);
#pragma unroll
        for (int i = 0; i < shape::STAGES - 1; i++) load_block(i);
    }
    for (int i = 0; i < n_blocks; i++) {
        copies_wait<shape::STAGES - 2>();
        __syncthreads(); /* block i is there for all, and all are done with the stage that is overwritten next */
        if (i == 0) warp.keep_queries();
        load_block(i + shape::STAGES - 1);
        uint32_t tile = tiles + i % shape::STAGES * 2 * shape::KEYS_BYTES;
        warp.add_block(view, job.sequence, (last - i) * shape::KEYS, tile, tile + shape::KEYS_BYTES);
    }
    warp.finish(view, job, shared);
    __syncwarp();
    warp.store(view, job, shared);
}

template <typename half_t, bool PICKS, int WIDTH>
static sp_status forward_launch(const gpu_view *view, int64_t n_items, cudaStream_t stream) {
    typedef forward_shape<WIDTH> shape;
    auto kernel = forward_kernel<half_t, PICKS, WIDTH>;
    SP_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape::SHARED_BYTES));
    kernel<<<(unsigned)n_items, shape::THREADS, shape::SHARED_BYTES, stream>>>(*view);
    SP_CUDA_LAUNCHED("attention forward");
    return SP_OK;
}

template <int WIDTH> static sp_status forward_dispatch(const gpu_view *view, sp_dtype dtype, cudaStream_t stream) {
    gpu_view placed = *view;
    placed.n_tiles = (view->n_tiles + forward_shape<WIDTH>::ROWS - 1) / forward_shape<WIDTH>::ROWS;
    int64_t n_items = (int64_t)view->n_sequences * view->H * placed.n_tiles;
    bool picks = view->normalizer == SP_NORMALIZER_SOFTPICK;
    if (n_items == 0) return SP_OK;
    SP_REQUIRE(n_items < INT32_MAX, SP_UNSUPPORTED,
               "attention of %lld tiles of queries is more than a GPU takes at once", (long long)n_items);
    if (dtype == SP_DTYPE_BF16)
        return picks ? forward_launch<__nv_bfloat16, true, WIDTH>(&placed, n_items, stream)
                     : forward_launch<__nv_bfloat16, false, WIDTH>(&placed, n_items, stream);
    return picks ? forward_launch<__half, true, WIDTH>(&placed, n_items, stream)
                 : forward_launch<__half, false, WIDTH>(&placed, n_items, stream);
}

#endif
