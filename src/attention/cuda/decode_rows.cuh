/* Attention of few queries against a long cache, what all GPUs' rows do alike: the queries of all heads that share keys are
 * the rows of one product, 16 at a time; the keys are cut into splits, one for each block of threads; each warp keeps sums
 * and outputs of its own, which are joined in order at the end, and so are the splits:
 *
 *   partial row   | shift | sum | 0 | 0 | Dv outputs relative to 2^shift | */
#ifndef SP_ATTENTION_CUDA_DECODE_ROWS_CUH
#define SP_ATTENTION_CUDA_DECODE_ROWS_CUH

#include "attention/cuda/sm80_launch.cuh"

/* ---- what a block of threads works on --------------------------------------------------------------------------- */

struct decode_job {
    gpu_sequence sequence;
    int key_head, first_row; /* of the rows query * group + head of the group */
    int begin, end;          /* keys of this split that some row sees; begin is a multiple of 16 */
    int split;
    weigh_range some, all; /* keys that some row sees, and that every row does */
};

__device__ __forceinline__ decode_job decode_job_at(const gpu_view &view, const gpu_splits &splits, int sequence,
                                                    int key_head, int tile, int split) {
    decode_job job;
    job.split = split;
    job.sequence = view_sequence(view, sequence);
    job.key_head = key_head;
    job.first_row = tile * DECODE_ROWS;
    int n_rows = min(view.T * view.group - job.first_row, (int)DECODE_ROWS), offset = job.sequence.n_k - view.T;
    weigh_range first = view_visible(view, job.sequence, job.first_row / view.group + offset);
    weigh_range last = view_visible(view, job.sequence, (job.first_row + n_rows - 1) / view.group + offset);
    job.some = {first.first, last.end};
    job.all = {last.first, first.end};
    job.begin = first.first / DECODE_KEYS * DECODE_KEYS + split * splits.keys;
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

/* Numbers c and c + 1 of a row of `width`, where c is even; 0 if not both are there.  Without a branch, for which one load
 * would wait for the other. */
template <typename half_t> __device__ __forceinline__ uint32_t load_pair(const half_t *row, int c, int width) {
    uint32_t pair;
    asm volatile("{\n"
                 ".reg .pred there;\n"
                 "setp.lt.s32 there, %2, %3;\n"
                 "mov.b32 %0, 0;\n"
                 "@there ld.global.b32 %0, [%1];\n"
                 "}"
                 : "=r"(pair)
                 : "l"(row + c), "r"(c + 1), "r"(width)
                 : "memory");
    return pair;
}

/* ---- the rows of one warp ----------------------------------------------------------------------------------------- */

/* Queries, scores for KEYS keys, and outputs of 16 rows in the registers of a warp.  In place of rows that are not there the
 * first one is computed again. */
template <typename half_t, bool PICKS, int WIDTH, int KEYS = DECODE_KEYS> struct decode_rows {
    enum { STEPS = WIDTH / 16, WIDTH_TILES = WIDTH / 8, KEY_TILES = KEYS / 8 };

    uint32_t q[STEPS][4];
    float s[KEY_TILES][4]; /* before they are scaled */
    uint32_t p[KEY_TILES / 2][4];
    float out[WIDTH_TILES][4];
    weigh_row row[2];
    weigh_range seen[2];
    weigh_rule rule;
    bool measured, special;

    __device__ __forceinline__ void begin_rows(const gpu_view &view, const decode_job &job) {
        int lane = threadIdx.x % LANES, column = lane % 4 * 2;
        rule = view_weigh_rule(view);
        special = rule.rectified || (PICKS && rule.minus_lambda != -1);
        measured = false;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            decode_row at = decode_row_of(view, job, lane / 4 + 8 * half);
            if (!at.there) at = decode_row_of(view, job, 0);
            row_rule life = view_rule(view, at.h);
            row[half].scale = view_row_scale(view, at.h, at.position) * LOG2_E;
            row[half].sum = 0;
            weigh_set_shift(row[half], row_begin(&life));
            seen[half] = view_visible(view, job.sequence, at.position);
            const half_t *from = tensor_row<half_t>(view.q, job.sequence.b, at.t, at.h);
#pragma unroll
            for (int i = 0; i < 2 * STEPS; i++) q[i / 2][half + i % 2 * 2] = load_pair(from, 8 * i + column, view.D);
            if (view.D % 2 == 0) continue;
#pragma unroll
            for (int i = 0; i < 2 * STEPS; i++)
                if (8 * i + column + 1 == view.D)
                    q[i / 2][half + i % 2 * 2] = *(const uint16_t *)(from + 8 * i + column);
        }
#pragma unroll
        for (int j = 0; j < WIDTH_TILES; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) out[j][i] = 0;
    }

    __device__ __forceinline__ void measure(int column) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float highest = -INFINITY, factor;
#pragma unroll
            for (int i = 0; i < 2 * KEY_TILES; i++)
                if (weigh_sees(seen[half], column + i / 2 * 8 + i % 2))
                    highest = fmaxf(highest, s[i / 2][2 * half + i % 2] * row[half].scale);
            highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 1));
            highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 2));
            weigh_set_shift(row[half], row_raise(highest, row[half].shift, &factor));
            row[half].sum *= factor;
#pragma unroll
            for (int j = 0; j < WIDTH_TILES; j++) out[j][2 * half] *= factor, out[j][2 * half + 1] *= factor;
        }
    }

    template <bool ANY> __device__ __forceinline__ void weigh(int column, float sums[2]) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float y[2 * KEY_TILES], term;
            sums[half] = 0;
#pragma unroll
            for (int i = 0; i < 2 * KEY_TILES; i++) {
                float score = s[i / 2][2 * half + i % 2];
                bool sees = !ANY || weigh_sees(seen[half], column + i / 2 * 8 + i % 2);
                y[i] = ANY ? weigh_any<PICKS>(row[half], rule, score, sees, &term)
                           : weigh_plain<PICKS>(row[half], score, &term);
                sums[half] += term;
            }
#pragma unroll
            for (int j = 0; j < KEY_TILES; j++)
                p[j / 2][half + j % 2 * 2] = PICKS ? pack_positive_pair<half_t>(y[2 * j], y[2 * j + 1])
                                                   : pack_pair<half_t>(y[2 * j], y[2 * j + 1]);
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
            for (int j = 0; j < WIDTH_TILES; j++)
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

#endif
