/* Attention by plain loops in float: what the accuracy of the fast code is measured against.  The same formulas as
 * definition.c, in the precision of the fast code, without any of its care: results are stored in the problem's
 * tensors.  With `round` weights and score gradients are rounded to bf16 before they are multiplied by v, dout, k and
 * q, as code must that multiplies bf16 by bf16. */
#ifndef SP_TESTS_ATTENTION_PLAIN_H
#define SP_TESTS_ATTENTION_PLAIN_H

#include "attention_case.h"

/* One head of one sequence, widened. */
typedef struct plain_head {
    const sp_attention *p;
    sp_sequence sequence;
    int64_t h, key_head;
    bool round;
    float *q, *k, *v, *out;     /* (T,D) (S,D) (S,Dv) (T,Dv) */
    float *dout, *dq, *dk, *dv; /* as those */
    float *s;                   /* (S) scores of one row */
    sp_key_range keys;          /* which of them */
} plain_head;

static inline float *plain_zeros(int64_t n) {
    float *zeros = case_allocate_plain((n + 1) * (int64_t)sizeof *zeros);
    memset(zeros, 0, (size_t)n * sizeof *zeros);
    return zeros;
}

static inline float *plain_load(const sp_tensor *tensor, int64_t b, int64_t first, int64_t n, int64_t h) {
    int64_t width = tensor->shape[3];
    float *dense = plain_zeros(n * width);
    for (int64_t t = 0; t < n; t++)
        for (int64_t d = 0; d < width; d++) dense[t * width + d] = (float)case_load(tensor, b, first + t, h, d);
    return dense;
}

/* Keys or values, which may be paged; none from the length on. */
static inline float *plain_load_keys(const plain_head *head, const sp_tensor *tensor) {
    const sp_sequence *sequence = &head->sequence;
    int64_t width = tensor->shape[3];
    if (!sequence->pages) return plain_load(tensor, sequence->b, sequence->k_first, sequence->n_k, head->key_head);
    float *dense = plain_zeros(sequence->n_k * width);
    for (int64_t j = 0; j < sequence->n_k; j++)
        for (int64_t d = 0; d < width; d++)
            dense[j * width + d] = (float)case_load(tensor, sequence->pages[j / tensor->shape[1]], j % tensor->shape[1],
                                                    head->key_head, d);
    return dense;
}

static inline void plain_store(const sp_tensor *tensor, int64_t b, int64_t first, int64_t n, int64_t h,
                               const float *dense) {
    int64_t width = tensor->shape[3];
    for (int64_t t = 0; t < n; t++)
        for (int64_t d = 0; d < width; d++) case_store(tensor, b, first + t, h, d, (double)dense[t * width + d]);
}

static inline plain_head plain_open(const sp_attention *p, int64_t i, int64_t h, bool round) {
    plain_head head = {
        .p = p, .sequence = sp_problem_sequence(p, i), .h = h, .key_head = sp_problem_key_head(p, h), .round = round};
    const sp_sequence *sequence = &head.sequence;
    head.q = plain_load(&p->q, sequence->b, sequence->q_first, sequence->n_q, h);
    head.k = plain_load_keys(&head, &p->k);
    head.v = plain_load_keys(&head, &p->v);
    head.s = plain_zeros(sequence->n_k);
    return head;
}

static inline void plain_close(plain_head *head) {
    free(head->q), free(head->k), free(head->v), free(head->out), free(head->s), free(head->dout), free(head->dq);
}

static inline float plain_dot(const float *a, const float *b, int64_t n) {
    float sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static inline void plain_add(float *y, float a, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += a * x[i];
}

static inline float plain_round(const plain_head *head, float x) {
    return head->round ? sp_bf16_to_f32(sp_bf16_from_f32(x)) : x;
}

/* ---- one row ---------------------------------------------------------------------------------------------------- */

static inline bool plain_rectifies(const sp_attention *p) {
    return p->normalizer == SP_NORMALIZER_SOFTPICK || p->normalizer == SP_NORMALIZER_RECTIFIED;
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

static inline float plain_scale(const plain_head *head, int64_t t) {
    return (float)sp_problem_row_scale(head->p, &head->sequence, head->h, t);
}

/* Scores of row t, and ln D from them. */
static inline float plain_scores(plain_head *head, int64_t t) {
    const sp_attention *p = head->p;
    int64_t D = p->q.shape[3];
    head->keys = sp_problem_visible(p, &head->sequence, t);
    if (head->keys.first == head->keys.end) return INFINITY;
    bool free_shift = p->normalizer == SP_NORMALIZER_SOFTMAX, sink = p->normalizer == SP_NORMALIZER_SOFTMAX_SINK;
    float shift = free_shift ? -INFINITY : sink ? p->sink[head->h] : 0;
    for (int64_t j = head->keys.first; j < head->keys.end; j++) {
        head->s[j] = plain_scale(head, t) * plain_dot(head->q + t * D, head->k + j * D, D);
        shift = fmaxf(shift, head->s[j]);
    }
    float sum = plain_constant(p, head->h, shift);
    for (int64_t j = head->keys.first; j < head->keys.end; j++) sum += plain_term(p, head->s[j], shift);
    return sum == 0 ? INFINITY : shift + logf(sum);
}

static inline float plain_weight(const sp_attention *p, float s, float log_d) {
    if (plain_rectifies(p) && s <= 0) return 0;
    return p->normalizer == SP_NORMALIZER_SOFTPICK ? expf(s - log_d) - expf(-log_d) : expf(s - log_d);
}

/* ---- forward (and decode) ---------------------------------------------------------------------------------------- */

static inline void plain_statistics(const plain_head *head, int64_t t, float log_d) {
    const sp_attention_statistics *wanted = &head->p->statistics;
    if (!wanted->mass) return;
    int64_t index = sp_problem_lse_index(head->p, &head->sequence, head->h, t), zeros = 0;
    float mass = 0, entropy = 0, highest = -INFINITY;
    for (int64_t j = head->keys.first; j < head->keys.end; j++) {
        mass += plain_weight(head->p, head->s[j], log_d);
        zeros += plain_rectifies(head->p) && head->s[j] <= 0;
        if (isnan(head->s[j]) || head->s[j] > highest) highest = head->s[j];
    }
    for (int64_t j = head->keys.first; j < head->keys.end; j++) {
        float part = plain_weight(head->p, head->s[j], log_d) / mass;
        if (part != 0 && mass != 0) entropy -= part * logf(part);
    }
    bool sees_first = head->keys.first == 0 && head->keys.end > 0;
    wanted->mass[index] = mass;
    wanted->first_mass[index] = sees_first ? plain_weight(head->p, head->s[0], log_d) + 0 * mass : 0;
    wanted->entropy[index] = entropy;
    wanted->highest[index] = highest;
    wanted->zeros[index] = zeros;
}

static inline void plain_forward(const sp_attention *p, bool round) {
    int64_t Dv = p->out.shape[3];
    for (int64_t i = 0; i < sp_problem_n_sequences(p); i++)
        for (int64_t h = 0; h < p->q.shape[2]; h++) {
            plain_head head = plain_open(p, i, h, round);
            const sp_sequence *sequence = &head.sequence;
            head.out = plain_zeros(sequence->n_q * Dv);
            for (int64_t t = 0; t < sequence->n_q; t++) {
                float log_d = plain_scores(&head, t);
                if (p->lse) p->lse[sp_problem_lse_index(p, sequence, h, t)] = log_d * 1.442695f;
                for (int64_t j = head.keys.first; j < head.keys.end; j++) {
                    float w = plain_round(&head, plain_weight(p, head.s[j], log_d));
                    if (w != 0) plain_add(head.out + t * Dv, w, head.v + j * Dv, Dv);
                }
                plain_statistics(&head, t, log_d);
            }
            plain_store(&p->out, sequence->b, sequence->q_first, sequence->n_q, h, head.out);
            plain_close(&head);
        }
}

/* ---- backward --------------------------------------------------------------------------------------------------- */

static inline void plain_row_backward(plain_head *head, int64_t t) {
    const sp_attention *p = head->p;
    int64_t D = p->q.shape[3], Dv = p->v.shape[3];
    const float *q = head->q + t * D, *dout = head->dout + t * Dv;
    float scale = plain_scale(head, t);
    float log_position = (float)(sp_problem_log_position(&head->sequence, t) * sp_problem_scale(p));
    plain_scores(head, t);
    float log_d = p->lse[sp_problem_lse_index(p, &head->sequence, head->h, t)] / 1.442695f;
    float delta = plain_dot(dout, head->out + t * Dv, Dv);
    for (int64_t j = head->keys.first; j < head->keys.end; j++) {
        float s = head->s[j], w = plain_weight(p, s, log_d), g = 0, ds = 0;
        bool dead = plain_rectifies(p) && s <= 0;
        if (!dead) g = plain_dot(dout, head->v + j * Dv, Dv);
        if (p->normalizer == SP_NORMALIZER_SOFTPICK)
            ds = expf(s - log_d) * (dead ? p->lambda * delta : g - delta);
        else if (!dead)
            ds = w * (g - delta);
        w = plain_round(head, w), ds = plain_round(head, ds);
        if (w != 0) plain_add(head->dv + j * Dv, w, dout, Dv);
        plain_add(head->dq + t * D, scale * ds, head->k + j * D, D);
        plain_add(head->dk + j * D, scale * ds, q, D);
        if (p->drow_factor) p->drow_factor[head->h] += ds * log_position * plain_dot(q, head->k + j * D, D);
    }
    if (p->normalizer == SP_NORMALIZER_SOFTMAX_SINK) p->dsink[head->h] -= expf(p->sink[head->h] - log_d) * delta;
}

static inline void plain_backward(const sp_attention *p, bool round) {
    int64_t group = p->q.shape[2] / p->k.shape[2], D = p->q.shape[3], Dv = p->v.shape[3];
    for (int64_t i = 0; i < sp_problem_n_sequences(p); i++)
        for (int64_t kh = 0; kh < p->k.shape[2]; kh++) {
            sp_sequence sequence = sp_problem_sequence(p, i);
            float *dk = plain_zeros(sequence.n_k_rows * D), *dv = plain_zeros(sequence.n_k_rows * Dv);
            for (int64_t h = kh * group; h < (kh + 1) * group; h++) {
                plain_head head = plain_open(p, i, h, round);
                head.dout = plain_load(&p->dout, sequence.b, sequence.q_first, sequence.n_q, h);
                head.out = plain_load(&p->out, sequence.b, sequence.q_first, sequence.n_q, h);
                head.dq = plain_zeros(sequence.n_q * D);
                head.dk = dk, head.dv = dv;
                for (int64_t t = 0; t < sequence.n_q; t++) plain_row_backward(&head, t);
                plain_store(&p->dq, sequence.b, sequence.q_first, sequence.n_q, h, head.dq);
                plain_close(&head);
            }
            plain_store(&p->dk, sequence.b, sequence.k_first, sequence.n_k_rows, kh, dk);
            plain_store(&p->dv, sequence.b, sequence.k_first, sequence.n_k_rows, kh, dv);
            free(dk);
            free(dv);
        }
}

#endif
