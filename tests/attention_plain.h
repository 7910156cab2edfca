/* Attention by plain loops in float: what the accuracy of the fast code is measured against.  The same formulas as
 * definition.c, in the precision of the fast code, without any of its care: results are stored in the problem's
 * tensors. */
#ifndef SP_TESTS_ATTENTION_PLAIN_H
#define SP_TESTS_ATTENTION_PLAIN_H

#include "attention_case.h"

typedef struct plain_row {
    float *s, *w;
    sp_key_range keys;
} plain_row;

static inline float plain_dot(const sp_tensor *a, int64_t b, int64_t t, int64_t h, const sp_tensor *c, int64_t t2,
                              int64_t h2) {
    float sum = 0;
    for (int64_t d = 0; d < a->shape[3]; d++)
        sum += (float)case_load(a, b, t, h, d) * (float)case_load(c, b, t2, h2, d);
    return sum;
}

static inline float plain_term(const sp_attention *p, float s, float shift) {
    float u = expf(s - shift) - expf(-shift);
    if (p->normalizer == SP_NORMALIZER_SOFTPICK) return s <= 0 ? -p->lambda * u : u;
    return p->normalizer == SP_NORMALIZER_RECTIFIED && s <= 0 ? 0 : expf(s - shift);
}

static inline float plain_constant(const sp_attention *p, int64_t h, float shift) {
    switch (p->normalizer) {
    case SP_NORMALIZER_SOFTPICK: return p->eps * expf(-shift);
    case SP_NORMALIZER_SOFTMAX_PLUS_ONE: return expf(-shift);
    case SP_NORMALIZER_SOFTMAX_SINK: return expf(p->sink[h] - shift);
    default: return 0;
    }
}

/* Scores of a row, and ln D from them. */
static inline float plain_scores(const sp_attention *p, const sp_sequence *sequence, int64_t h, int64_t t,
                                 plain_row *row) {
    float scale = (float)sp_problem_row_scale(p, sequence, h, t), sum;
    row->keys = sp_problem_visible(p, sequence, t);
    if (row->keys.first == row->keys.end) return INFINITY;
    bool free_shift = p->normalizer == SP_NORMALIZER_SOFTMAX, sink = p->normalizer == SP_NORMALIZER_SOFTMAX_SINK;
    float shift = free_shift ? -INFINITY : sink ? p->sink[h] : 0;
    for (int64_t j = row->keys.first; j < row->keys.end; j++) {
        row->s[j] = scale * plain_dot(&p->q, sequence->b, sequence->q_first + t, h, &p->k, sequence->k_first + j,
                                      sp_problem_key_head(p, h));
        shift = fmaxf(shift, row->s[j]);
    }
    sum = plain_constant(p, h, shift);
    for (int64_t j = row->keys.first; j < row->keys.end; j++) sum += plain_term(p, row->s[j], shift);
    return sum == 0 ? INFINITY : shift + logf(sum);
}

static inline float plain_weight(const sp_attention *p, float s, float log_d) {
    if (p->normalizer == SP_NORMALIZER_SOFTPICK) return s <= 0 ? 0 : expf(s - log_d) - expf(-log_d);
    return p->normalizer == SP_NORMALIZER_RECTIFIED && s <= 0 ? 0 : expf(s - log_d);
}

static inline void plain_add(const sp_tensor *to, float *sums, int64_t index, float a, const sp_tensor *x, int64_t b,
                             int64_t t, int64_t h) {
    for (int64_t d = 0; d < to->shape[3]; d++) sums[index * to->shape[3] + d] += a * (float)case_load(x, b, t, h, d);
}

static inline void plain_store(const sp_tensor *tensor, int64_t b, int64_t first, int64_t n, int64_t h,
                               const float *sums) {
    for (int64_t t = 0; t < n; t++)
        for (int64_t d = 0; d < tensor->shape[3]; d++)
            case_store(tensor, b, first + t, h, d, (double)sums[t * tensor->shape[3] + d]);
}

static inline float *plain_zeros(int64_t n) {
    float *zeros = case_allocate((n + 1) * (int64_t)sizeof *zeros);
    memset(zeros, 0, (size_t)n * sizeof *zeros);
    return zeros;
}

static inline void plain_forward(const sp_attention *p) {
    plain_row row = {plain_zeros(p->k.shape[1]), plain_zeros(p->k.shape[1]), {0, 0}};
    for (int64_t i = 0; i < sp_problem_n_sequences(p); i++)
        for (int64_t h = 0; h < p->q.shape[2]; h++) {
            sp_sequence sequence = sp_problem_sequence(p, i);
            float *out = plain_zeros(sequence.n_q * p->out.shape[3]);
            for (int64_t t = 0; t < sequence.n_q; t++) {
                float log_d = plain_scores(p, &sequence, h, t, &row);
                p->lse[sp_problem_lse_index(p, &sequence, h, t)] = log_d * 1.442695f;
                for (int64_t j = row.keys.first; j < row.keys.end; j++)
                    plain_add(&p->out, out, t, plain_weight(p, row.s[j], log_d), &p->v, sequence.b,
                              sequence.k_first + j, sp_problem_key_head(p, h));
            }
            plain_store(&p->out, sequence.b, sequence.q_first, sequence.n_q, h, out);
            free(out);
        }
    free(row.s);
    free(row.w);
}

/* One head: adds to dq (T,D), dk (S,D), dv (S,Dv), dsink and drow_factor. */
static inline void plain_head_backward(const sp_attention *p, const sp_sequence *sequence, int64_t h, plain_row *row,
                                       float *dq, float *dk, float *dv) {
    int64_t kh = sp_problem_key_head(p, h), b = sequence->b;
    for (int64_t t = 0; t < sequence->n_q; t++) {
        int64_t tq = sequence->q_first + t;
        float scale = (float)sp_problem_row_scale(p, sequence, h, t),
              log_position = (float)(sp_problem_log_position(sequence, t) * sp_problem_scale(p));
        plain_scores(p, sequence, h, t, row);
        float log_d = p->lse[sp_problem_lse_index(p, sequence, h, t)] / 1.442695f;
        float delta = plain_dot(&p->dout, b, tq, h, &p->out, tq, h);
        for (int64_t j = row->keys.first; j < row->keys.end; j++) {
            int64_t tk = sequence->k_first + j;
            float s = row->s[j], w = plain_weight(p, s, log_d), g = plain_dot(&p->dout, b, tq, h, &p->v, tk, kh);
            float ds = w * (g - delta);
            if (p->normalizer == SP_NORMALIZER_SOFTPICK)
                ds = expf(s - log_d) * (s <= 0 ? p->lambda * delta : g - delta);
            plain_add(&p->dv, dv, j, w, &p->dout, b, tq, h);
            plain_add(&p->dq, dq, t, scale * ds, &p->k, b, tk, kh);
            plain_add(&p->dk, dk, j, scale * ds, &p->q, b, tq, h);
            if (p->drow_factor) p->drow_factor[h] += ds * log_position * plain_dot(&p->q, b, tq, h, &p->k, tk, kh);
        }
        if (p->normalizer == SP_NORMALIZER_SOFTMAX_SINK) p->dsink[h] -= expf(p->sink[h] - log_d) * delta;
    }
}

static inline void plain_backward(const sp_attention *p) {
    plain_row row = {plain_zeros(p->k.shape[1]), plain_zeros(p->k.shape[1]), {0, 0}};
    int64_t group = p->q.shape[2] / p->k.shape[2];
    for (int64_t i = 0; i < sp_problem_n_sequences(p); i++)
        for (int64_t kh = 0; kh < p->k.shape[2]; kh++) {
            sp_sequence sequence = sp_problem_sequence(p, i);
            float *dk = plain_zeros(sequence.n_k_rows * p->k.shape[3]);
            float *dv = plain_zeros(sequence.n_k_rows * p->v.shape[3]);
            for (int64_t h = kh * group; h < (kh + 1) * group; h++) {
                float *dq = plain_zeros(sequence.n_q * p->q.shape[3]);
                plain_head_backward(p, &sequence, h, &row, dq, dk, dv);
                plain_store(&p->dq, sequence.b, sequence.q_first, sequence.n_q, h, dq);
                free(dq);
            }
            plain_store(&p->dk, sequence.b, sequence.k_first, sequence.n_k_rows, kh, dk);
            plain_store(&p->dv, sequence.b, sequence.k_first, sequence.n_k_rows, kh, dv);
            free(dk);
            free(dv);
        }
    free(row.s);
    free(row.w);
}

#endif
