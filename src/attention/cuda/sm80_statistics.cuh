/* What each row of attention weights comes to, on GPUs from SM 8.0: scores once more, without values, against the row's log
 * denominator; where that is not given, twice.  No weight leaves the registers.
 *
 *   shared memory   | Q tile | K of stage 0 | K of stage 1 | ... */
#ifndef SP_ATTENTION_CUDA_SM80_STATISTICS_CUH
#define SP_ATTENTION_CUDA_SM80_STATISTICS_CUH

#include "attention/cuda/sm80_launch.cuh"
#include "attention/cuda/sm80_scores.cuh"
#include "device/cuda_check.cuh"

/* ---- one warp --------------------------------------------------------------------------------------------------- */

/* What a lane has summed of one row. */
struct row_notes {
    float mass, first, products /* sum w ln w */, highest;
    int zeros, small;
};

template <typename half_t, int WIDTH> struct statistics_warp : score_warp<half_t, WIDTH> {
    typedef tile_shape<WIDTH> shape;
    enum { PARTS = shape::PARTS, KEY_TILES = shape::KEY_TILES };

    weigh_row row[PARTS][2]; /* here `scale` is that of natural scores */
    float lse[PARTS][2];
    row_notes notes[PARTS][2];
    rule_kind kind;
    weigh_rule rule;

    __device__ __forceinline__ void begin(const gpu_view &view, const tile_job &job, uint32_t q_tile) {
        this->begin_scores(job, q_tile);
        row_rule life = view_rule(view, job.h);
        kind = view.normalizer == SP_NORMALIZER_SOFTPICK    ? RULE_SOFTPICK
               : view.normalizer == SP_NORMALIZER_RECTIFIED ? RULE_RECTIFIED
                                                            : RULE_EXPONENTIAL;
        rule = view_weigh_rule(view);
        EACH_ROW(part, half, PARTS) {
            row[part][half].scale = view_row_scale(view, job.h, this->position_of(part, half));
            row[part][half].sum = 0;
            weigh_set_shift(row[part][half], row_begin(&life));
            notes[part][half] = {0, 0, 0, -INFINITY, 0, 0};
        }
    }

    /* Adds the block's terms to the denominators. */
    __device__ __forceinline__ void add_terms(const gpu_view &view, const tile_job &job, int key) {
        int column = this->first_column(key);
        EACH_ROW(part, half, PARTS) {
            weigh_range seen = view_visible(view, job.sequence, this->position_of(part, half));
            weigh_row r = row[part][half];
            r.scale *= LOG2_E;
            float highest = -INFINITY, factor, term;
#pragma unroll
            for (int j = 0; j < 2 * KEY_TILES; j++)
                if (weigh_sees(seen, column + j / 2 * 8 + j % 2))
                    highest = fmaxf(highest, this->s[part][j / 2][2 * half + j % 2] * r.scale);
            highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 1));
            highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 2));
            weigh_set_shift(r, row_raise(highest, r.shift, &factor));
            r.sum *= factor;
#pragma unroll
            for (int j = 0; j < 2 * KEY_TILES; j++) {
                float score = this->s[part][j / 2][2 * half + j % 2];
                bool sees = weigh_sees(seen, column + j / 2 * 8 + j % 2);
                if (kind == RULE_SOFTPICK)
                    (void)weigh_any<true>(r, rule, score, sees, &term);
                else
                    (void)weigh_any<false>(r, rule, score, sees, &term);
                r.sum += term;
            }
            r.scale = row[part][half].scale;
            row[part][half] = r;
        }
    }

    /* log denominators: those of forward, or from the sums. */
    __device__ __forceinline__ void set_lse(const gpu_view &view, const tile_job &job) {
        row_rule life = view_rule(view, job.h);
        EACH_ROW(part, half, PARTS) {
            int t = this->position_of(part, half) - job.offset;
            if (view.lse)
                lse[part][half] =
                    t < job.first_row + job.n_rows ? view.lse[view_row_index(view, job.sequence, job.h, t)] : INFINITY;
            else
                (void)row_finish(&life, row[part][half].shift, row_sum(row[part][half].sum), &lse[part][half]);
        }
    }

    /* Weight of natural score s. */
    __device__ __forceinline__ float weight(float s, float log_sum) const {
        if (kind != RULE_EXPONENTIAL && s <= 0) return 0;
        if (kind != RULE_SOFTPICK) return exp2f(s * LOG2_E - log_sum);
        float unit = exp2f(-log_sum);
        return s < 1 ? unit * expm1f(s) : exp2f(s * LOG2_E - log_sum) - unit;
    }

    /* Notes the block's weights. */
    __device__ __forceinline__ void add_notes(const gpu_view &view, const tile_job &job, int key, const gpu_notes &to) {
        int column = this->first_column(key);
        EACH_ROW(part, half, PARTS) {
            weigh_range seen = view_visible(view, job.sequence, this->position_of(part, half));
            row_notes &note = notes[part][half];
#pragma unroll
            for (int j = 0; j < 2 * KEY_TILES; j++) {
                int at = column + j / 2 * 8 + j % 2;
                if (!weigh_sees(seen, at)) continue;
                float s = this->s[part][j / 2][2 * half + j % 2] * row[part][half].scale;
                float w = weight(s, lse[part][half]);
                note.mass += w;
                if (at == 0) note.first = w;
                if (w != 0) note.products += w * logf(w);
                if (s > note.highest || isnan(s)) note.highest = s; /* NaN stays */
                note.zeros += to.count_underflow ? w == 0 : kind != RULE_EXPONENTIAL && s <= 0;
                note.small += w <= to.small_limit;
            }
        }
    }

    __device__ __forceinline__ void store(const gpu_view &view, const tile_job &job, const gpu_notes &to) {
        EACH_ROW(part, half, PARTS) {
            row_notes &note = notes[part][half];
            int t = this->position_of(part, half) - job.offset;
            int64_t index = view_row_index(view, job.sequence, job.h, t);
            float mass = row_sum(note.mass), products = row_sum(note.products), first = row_sum(note.first);
#pragma unroll
            for (int lane = 1; lane < 4; lane *= 2) {
                float other = __shfl_xor_sync(~0u, note.highest, lane);
                note.highest = other > note.highest || isnan(other) ? other : note.highest;
                note.zeros += __shfl_xor_sync(~0u, note.zeros, lane);
                note.small += __shfl_xor_sync(~0u, note.small, lane);
            }
            if (threadIdx.x % 4 != 0 || t >= job.first_row + job.n_rows) continue;
            weigh_range seen = view_visible(view, job.sequence, this->position_of(part, half));
            bool sees_first = seen.first == 0 && seen.end > 0;
            if (to.mass) to.mass[index] = mass;
            if (to.first_mass) to.first_mass[index] = sees_first ? first + 0 * mass : 0; /* NaN anywhere shows */
            if (to.entropy) to.entropy[index] = mass == 0 ? 0 : logf(mass) - products / mass;
            if (to.highest) to.highest[index] = note.highest;
            if (to.zeros) to.zeros[index] = note.zeros;
            if (to.small) to.small[index] = note.small;
        }
    }
};

/* ---- the kernel --------------------------------------------------------------------------------------------------- */

template <typename half_t, int WIDTH>
__global__ void __launch_bounds__(tile_shape<WIDTH>::THREADS, 2)
    statistics_kernel(const __grid_constant__ gpu_view view, const __grid_constant__ gpu_notes to) {
    typedef tile_shape<WIDTH> shape;
    extern __shared__ __align__(1024) char shared[];
    const tile_job job = tile_job_of(view, shape::ROWS);
    if (job.n_rows <= 0) return;
    const uint32_t q_tile = shared_address(shared), stages = q_tile + shape::Q_BYTES;
    const int first = job.key_begin / shape::KEYS, last = (job.key_end + shape::KEYS - 1) / shape::KEYS - 1;
    const int n_blocks = last >= first ? last - first + 1 : 0, n_turns = view.lse ? n_blocks : 2 * n_blocks;

    /* the i-th block from the last; all of them twice where log denominators are not given */
    auto load_block = [&](int i) {
        if (i < n_turns) {
            int key = (last - i % n_blocks) * shape::KEYS;
            const char *keys = job_keys<half_t>(view, view.k, job, key);
            tile_loader<WIDTH, shape::KEYS, shape::THREADS> loader(keys, view.k.row, view.D);
            loader.load(stages + i % shape::STAGES * shape::KEYS_BYTES, job.sequence.n_k - key);
        }
        copies_commit();
    };

    statistics_warp<half_t, WIDTH> warp;
    warp.begin(view, job, q_tile);
    tile_loader<WIDTH, shape::ROWS, shape::THREADS> q_loader(job_queries<half_t>(view, job), view.q.row, view.D);
    if (n_blocks > 0) q_loader.load(q_tile, job.n_rows);
#pragma unroll
    for (int i = 0; i < shape::STAGES - 1; i++) load_block(i);
    for (int i = 0; i < n_turns; i++) {
        int key = (last - i % n_blocks) * shape::KEYS;
        bool all;
        copies_wait<shape::STAGES - 2>();
        __syncthreads(); /* block i is there for all, and all are done with the stage that is overwritten next */
        if (i == 0) warp.keep_queries();
        if (i == n_turns - n_blocks) warp.set_lse(view, job);
        load_block(i + shape::STAGES - 1);
        if (!warp.sees_block(view, job, key, &all)) continue;
        warp.compute_scores(stages + i % shape::STAGES * shape::KEYS_BYTES);
        if (i < n_turns - n_blocks)
            warp.add_terms(view, job, key);
        else
            warp.add_notes(view, job, key, to);
    }
    warp.store(view, job, to);
}

/* ---- launching -------------------------------------------------------------------------------------------------- */

template <typename half_t, int WIDTH>
static sp_status statistics_launch(const gpu_view *view, const gpu_notes *to, cudaStream_t stream) {
    typedef tile_shape<WIDTH> shape;
    const int shared_bytes = shape::Q_BYTES + shape::STAGES * shape::KEYS_BYTES;
    auto kernel = statistics_kernel<half_t, WIDTH>;
    SP_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
    kernel<<<(unsigned)view->n_items, shape::THREADS, shared_bytes, stream>>>(*view, *to);
    SP_CUDA_LAUNCHED("attention statistics");
    return SP_OK;
}

template <int WIDTH>
static sp_status statistics_dispatch(const gpu_view *view, const gpu_notes *to, sp_dtype dtype, cudaStream_t stream) {
    return dtype == SP_DTYPE_BF16 ? statistics_launch<__nv_bfloat16, WIDTH>(view, to, stream)
                                  : statistics_launch<__half, WIDTH>(view, to, stream);
}

#endif
