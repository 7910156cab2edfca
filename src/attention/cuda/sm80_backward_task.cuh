/* What backward's kernels are told: the problem in the numbers that a GPU counts with, and how it is cut.
 *
 * Queries of a sequence are cut into tiles of 64, keys into blocks of as many as the kernel's width says.  What belongs
 * to the tiles of all sequences and heads (row_facts, dq_sum, dq_turn) lies head by head: (H, n_tiles). */
#ifndef SP_ATTENTION_CUDA_SM80_BACKWARD_TASK_CUH
#define SP_ATTENTION_CUDA_SM80_BACKWARD_TASK_CUH

#include <cuda_runtime.h>
#include <stdint.h>

extern "C" {
#include "attention/problem.h"
}

constexpr int TILE_QUERIES = 64;

/* As sp_sequence, its number, and where its tiles and blocks begin among those of all sequences. */
struct backward_sequence {
    int number, b, q_first, k_first, n_q, n_k, n_k_rows, tile_first, block_first;
};

/* Keys, or blocks of keys. */
struct key_range {
    int first, end;
};

/* A tensor (B,T,H,D); strides in bytes. */
struct backward_tensor {
    char *data;
    int64_t batch, row, head;
    int width;

    __host__ __device__ char *at(int b, int row_index, int h) const {
        return data + b * batch + row_index * row + h * head;
    }
};

/* What the main kernel reads of a query's row.  Rows past the sequence's end: scale 0, log2_d +inf, the rest 0. */
struct alignas(16) backward_row {
    float scale;  /* dot product to score in log2 units */
    float log2_d; /* log2 of the denominator D */
    float unit;   /* 1/D, by the same rounding as the powers: in softpick and rectified; -1 in the softmaxes */
    float delta;  /* dout . out */
};

/* The same of two neighbouring rows, for a kernel whose rows have one scale. */
struct alignas(16) backward_row_pair {
    float log2_d[2], least[2], delta[2], none[2]; /* least: the next number above 1/D; in the softmaxes 0 */
};

struct backward_task {
    backward_tensor q, k, v, out, dout, dq, dk, dv;
    const float *lse, *sink, *row_factor;
    float *dsink, *drow_factor;
    bool softpick, rectifies, causal, any_order; /* rectifies: scores that are not positive weigh nothing */
    int window;
    float scale, lambda;
    int H, Hkv, T;

    bool together;                       /* all blocks of a head can be at work at the same time: set at the launch */
    int most_blocks;                     /* of a sequence */
    bool pairs;                          /* row_facts are backward_row_pairs */
    int tiles_together;                  /* a sequence's number of tiles is rounded up to a multiple of this */
    int n_sequences, n_tiles, n_blocks;  /* the last two: of all sequences, for one head */
    backward_sequence first;             /* of a dense problem whose sequences are all like it */
    int sequence_tiles, sequence_blocks; /* tiles and blocks of each of these */
    const backward_sequence *sequences;  /* else: (n_sequences) */

    backward_row *row_facts; /* (H, n_tiles, 64) */
    float *dq_sum;           /* (H, n_tiles, 64 * padded width), in the order of the main kernel's registers */
    int *dq_turn;            /* (H, n_tiles): how many blocks have added their share of dq, in order */
    int *ticket;             /* blocks of keys that have begun */
    float *partial;          /* (H, n_tiles): what a tile adds to dsink, or to drow_factor */

    const uint32_t
        *liveness; /* words of forward, or NULL: as in sp_attention, (n_sequences, H, word_tiles, word_blocks) */
    int word_tiles, word_blocks;
    key_range *tile_blocks; /* with liveness, (H, n_tiles): between which words a tile has something to say */
};

/* ---- cutting ---------------------------------------------------------------------------------------------------- */

/* Keys that query t of the sequence sees: as sp_problem_visible. */
static __host__ __device__ __forceinline__ key_range visible_keys(const backward_task &task,
                                                                  const backward_sequence &sequence, int t) {
    int next = t + sequence.n_k - sequence.n_q + 1;
    key_range range = {0, sequence.n_k};
    if ((task.causal || task.window) && next < range.end) range.end = next > 0 ? next : 0;
    if (task.window && next > task.window) range.first = next - task.window;
    if (range.first > range.end) range.first = range.end;
    return range;
}

/* Keys that the queries of a tile see between them. */
static __device__ __forceinline__ key_range tile_keys(const backward_task &task, const backward_sequence &sequence,
                                                      int tile) {
    int t = tile * TILE_QUERIES;
    return {visible_keys(task, sequence, t).first,
            visible_keys(task, sequence, min(t + TILE_QUERIES, sequence.n_q) - 1).end};
}

/* log(position + 2) of query t: as sp_problem_log_position. */
static __device__ __forceinline__ float log_position(const backward_sequence &sequence, int t) {
    return __logf((float)max(t + sequence.n_k - sequence.n_q, 0) + 2.0f);
}

/* The i-th sequence of a dense problem whose sequences are alike. */
static __device__ __forceinline__ backward_sequence alike_sequence(const backward_task &task, int i) {
    backward_sequence sequence = task.first;
    sequence.number = sequence.b = i;
    sequence.tile_first = i * task.sequence_tiles;
    sequence.block_first = i * task.sequence_blocks;
    return sequence;
}

/* The sequence that tile `tile` of all tiles belongs to. */
static __device__ inline backward_sequence sequence_of_tile(const backward_task &task, int tile) {
    if (!task.sequences) return alike_sequence(task, tile / task.sequence_tiles);
    int low = 0, high = task.n_sequences; /* the last one that begins at or before the tile: others there are empty */
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (task.sequences[middle].tile_first <= tile)
            low = middle;
        else
            high = middle;
    }
    return task.sequences[low];
}

/* The sequence whose blocks, counted for all key heads, hold item `item`. */
static __device__ inline backward_sequence sequence_of_item(const backward_task &task, int item) {
    if (!task.sequences) return alike_sequence(task, item / (task.Hkv * task.sequence_blocks));
    int low = 0, high = task.n_sequences;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (task.sequences[middle].block_first * task.Hkv <= item)
            low = middle;
        else
            high = middle;
    }
    return task.sequences[low];
}

/* Where tile `tile` of a sequence, head h, lies among the tiles of all. */
static __device__ __forceinline__ int64_t tile_index(const backward_task &task, const backward_sequence &sequence,
                                                     int h, int tile) {
    return (int64_t)h * task.n_tiles + sequence.tile_first + tile;
}

/* The liveness words of a tile: one for each 128 keys. */
static __device__ __forceinline__ const uint32_t *tile_words(const backward_task &task,
                                                             const backward_sequence &sequence, int h, int tile) {
    return task.liveness + (((int64_t)sequence.number * task.H + h) * task.word_tiles + tile) * task.word_blocks;
}

/* ---- what the files of this kernel offer each other ------------------------------------------------------------- */

/* Describe the problem, all but the workspace; then point the task into that (or into nothing, to count), which tells
 * its bytes; then queue what comes before a main kernel. */
SP_MUST_CHECK sp_status sp_backward_describe(backward_task *task, const sp_attention *problem, int tiles_together);
int64_t sp_backward_carve(backward_task *task, const sp_attention *problem, char *workspace);
SP_MUST_CHECK sp_status sp_backward_prepare(const backward_task *task, const sp_attention *problem);

/* The main kernel and the one that narrows dq, for heads of up to 64, 128 and 256 channels. */
sp_status sp_sm80_backward_64(const backward_task *task, sp_dtype dtype, cudaStream_t stream);
sp_status sp_sm80_backward_128(const backward_task *task, sp_dtype dtype, cudaStream_t stream);
sp_status sp_sm80_backward_256(const backward_task *task, sp_dtype dtype, cudaStream_t stream);

/* Keys of a block, by padded width. */
constexpr int block_keys(int width) { return width == 256 ? 64 : 128; }

#endif
