/* An attention problem that has passed the checks, as the code that computes sees it: a list of sequences, and for
 * each query the run of keys that it sees. */
#ifndef SP_ATTENTION_PROBLEM_H
#define SP_ATTENTION_PROBLEM_H

#include <math.h>

#include "softpick/attention.h"

/* Queries and keys that see each other: one batch entry, or one packed sequence. */
typedef struct sp_sequence {
    int64_t b;            /* index in the tensors' B */
    int64_t q_first;      /* its first query in the tensors' T */
    int64_t k_first;      /* its first key in the tensors' S */
    int64_t n_q;          /* T of the sequence */
    int64_t n_k;          /* S of the sequence, after key_lengths */
    int64_t n_k_rows;     /* S before key_lengths: rows of dk and dv to write */
    const int64_t *pages; /* of a paged cache, else NULL */
} sp_sequence;

/* Keys [first, end) of a sequence; end >= first. */
typedef struct sp_key_range {
    int64_t first, end;
} sp_key_range;

/* Checks every argument that the pass uses; the sentence of a failure names the first wrong one. */
SP_MUST_CHECK sp_status sp_problem_check(const sp_attention *problem, sp_attention_pass pass);
/* The same for a call that needs q and k alone. */
SP_MUST_CHECK sp_status sp_problem_check_keys(const sp_attention *problem);
/* Copies the members that the caller's struct has; the others are zero.  Fails if it has none or more than are known. */
SP_MUST_CHECK sp_status sp_problem_read(sp_attention *copy, const sp_attention *callers);

static inline int64_t sp_problem_n_sequences(const sp_attention *problem) {
    return problem->cu_q ? problem->n_sequences : problem->q.shape[0];
}

static inline sp_sequence sp_problem_sequence(const sp_attention *problem, int64_t i) {
    const int64_t n_q = problem->q.shape[1], n_k = problem->k.shape[1], *cu_q = problem->cu_q;
    if (problem->page_table) {
        int64_t length = problem->key_lengths[i];
        return (sp_sequence){i, 0, 0, n_q, length, length, problem->page_table + i * problem->pages_per_sequence};
    }
    if (!cu_q) return (sp_sequence){i, 0, 0, n_q, problem->key_lengths ? problem->key_lengths[i] : n_k, n_k, NULL};
    const int64_t *cu_k = problem->cu_k ? problem->cu_k : cu_q;
    int64_t length = cu_k[i + 1] - cu_k[i];
    return (sp_sequence){0, cu_q[i], cu_k[i], cu_q[i + 1] - cu_q[i], length, length, NULL};
}

/* Keys that query t of the sequence sees.  Both ends grow with t. */
static inline sp_key_range sp_problem_visible(const sp_attention *problem, const sp_sequence *sequence, int64_t t) {
    int64_t next = t + sequence->n_k - sequence->n_q + 1; /* one past the query's own position */
    sp_key_range range = {0, sequence->n_k};
    if ((problem->causal || problem->window) && next < range.end) range.end = next > 0 ? next : 0;
    if (problem->window && next > problem->window) range.first = next - problem->window;
    if (range.first > range.end) range.first = range.end;
    return range;
}

/* log(position + 2) of query t: what multiplies the row factor.  Queries before the first key count as position 0. */
static inline double sp_problem_log_position(const sp_sequence *sequence, int64_t t) {
    int64_t position = t + sequence->n_k - sequence->n_q;
    return log((double)(position > 0 ? position : 0) + 2.0);
}

/* What a dot product of query t and head h is multiplied by to become a score. */
static inline double sp_problem_scale(const sp_attention *problem) {
    return problem->scale != 0 ? (double)problem->scale : 1.0 / sqrt((double)problem->q.shape[3]);
}

static inline double sp_problem_row_scale(const sp_attention *problem, const sp_sequence *sequence, int64_t h,
                                          int64_t t) {
    double scale = sp_problem_scale(problem);
    return problem->row_factor ? scale * (double)problem->row_factor[h] * sp_problem_log_position(sequence, t) : scale;
}

/* Key/value head of query head h. */
static inline int64_t sp_problem_key_head(const sp_attention *problem, int64_t h) {
    return h / (problem->q.shape[2] / problem->k.shape[2]);
}

/* Index of a row's one number in lse (B,H,T). */
static inline int64_t sp_problem_lse_index(const sp_attention *problem, const sp_sequence *sequence, int64_t h,
                                           int64_t t) {
    return (sequence->b * problem->q.shape[2] + h) * problem->q.shape[1] + sequence->q_first + t;
}

static inline bool sp_problem_wants_statistics(const sp_attention *problem) {
    const sp_attention_statistics *wanted = &problem->statistics;
    return wanted->mass || wanted->first_mass || wanted->entropy || wanted->highest || wanted->zeros;
}

/* How the liveness words lie: tiles of 64 queries and of 128 keys of the longest sequence. */
typedef struct sp_liveness_shape {
    int64_t n_query_tiles, n_key_tiles;
} sp_liveness_shape;

sp_liveness_shape sp_problem_liveness_shape(const sp_attention *problem);

/* The words of queries [64 tile, 64 tile + 64) of head h of sequence i. */
static inline uint32_t *sp_problem_liveness(const sp_attention *problem, sp_liveness_shape shape, int64_t i, int64_t h,
                                            int64_t tile) {
    int64_t head = i * problem->q.shape[2] + h;
    return problem->liveness + (head * shape.n_query_tiles + tile) * shape.n_key_tiles;
}

/* First number of row `row` of head h of a tensor (B,T,H,D), rows counted in the tensor's T. */
static inline char *sp_problem_row(const sp_tensor *tensor, int64_t b, int64_t row, int64_t h) {
    int64_t index = b * tensor->stride[0] + row * tensor->stride[1] + h * tensor->stride[2];
    return (char *)tensor->data + index * sp_dtype_bytes(tensor->dtype);
}

/* First number of key (or value) j of a sequence, head h; k and v may be paged. */
static inline char *sp_problem_key_row(const sp_tensor *tensor, const sp_sequence *sequence, int64_t j, int64_t h) {
    if (!sequence->pages) return sp_problem_row(tensor, sequence->b, sequence->k_first + j, h);
    int64_t page_size = tensor->shape[1];
    return sp_problem_row(tensor, sequence->pages[j / page_size], j % page_size, h);
}

#endif
