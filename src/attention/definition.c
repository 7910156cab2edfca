/* The definition of attention with every normalizer, and its derivative: plain loops in double.
 *
 * Everything else in this folder is tested against this file, and this file against central differences and against
 * vectors computed by other means (tests/vectors).  docs/softpick.md derives the formulas.  With s the scores of
 * one row over the keys that its query sees, w the weights, g_j = dout . v_j and delta = sum_j w_j g_j:
 *
 *   softpick      D = sum max(e^s-1,0) + lambda sum max(1-e^s,0) + eps     w = max(e^s-1,0) / D
 *                 ds = e^s/D * (s > 0 ? g - delta : lambda * delta)
 *   softmax       D = sum e^s            (+ 1, or + e^sink)                w = e^s / D
 *                 ds = w * (g - delta)                                     dsink = -e^sink/D * delta
 *   rectified     the softmax of the scores > 0 alone
 *
 * ln D stands for D everywhere, so that scores of any size work.  A row with D = 0 has ln D = +inf and weights 0.
 * One head of one sequence is widened to double, computed, and narrowed: the formulas see dense arrays. */
#include "attention/problem.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "formats/halves.h"

/* ---- the formulas, one row ------------------------------------------------------------------------------------ */

/* e^-shift (e^s - 1), without cancellation near s = 0 and without overflow for s <= shift. */
static double shifted_expm1(double s, double shift) {
    return s < 1 ? exp(-shift) * expm1(s) : exp(s - shift) - exp(-shift);
}

static bool rectifies(sp_normalizer normalizer) {
    return normalizer == SP_NORMALIZER_SOFTPICK || normalizer == SP_NORMALIZER_RECTIFIED;
}

/* What a key adds to D, relative to e^shift.  Comparisons are such that NaN goes through. */
static double denominator_term(const sp_attention *problem, double s, double shift) {
    switch (problem->normalizer) {
    case SP_NORMALIZER_SOFTPICK: {
        double u = shifted_expm1(s, shift);
        return s <= 0 ? -(double)problem->lambda * u : u;
    }
    case SP_NORMALIZER_RECTIFIED: return s <= 0 ? 0 : exp(s - shift);
    default: return exp(s - shift);
    }
}

/* ln of what D holds without any key. */
static double log_constant(const sp_attention *problem, int64_t h) {
    switch (problem->normalizer) {
    case SP_NORMALIZER_SOFTPICK: return log((double)problem->eps);
    case SP_NORMALIZER_SOFTMAX_PLUS_ONE: return 0;
    case SP_NORMALIZER_SOFTMAX_SINK: return (double)problem->sink[h];
    default: return -INFINITY;
    }
}

/* ln D of a row of n scores.  Any shift gives the same D; this one keeps every term within range. */
static double log_denominator(const sp_attention *problem, int64_t h, const double *s, int64_t n) {
    if (n == 0) return INFINITY;
    double constant = log_constant(problem, h);
    double shift = problem->normalizer == SP_NORMALIZER_SOFTMAX        ? s[0]
                   : problem->normalizer == SP_NORMALIZER_SOFTMAX_SINK ? constant
                                                                       : 0;
    for (int64_t j = 0; j < n; j++) shift = s[j] > shift ? s[j] : shift;
    double sum = exp(constant - shift);
    for (int64_t j = 0; j < n; j++) sum += denominator_term(problem, s[j], shift);
    return sum == 0 ? INFINITY : shift + log(sum);
}

static double weight(const sp_attention *problem, double s, double log_d) {
    switch (problem->normalizer) {
    case SP_NORMALIZER_SOFTPICK: return s <= 0 ? 0 : shifted_expm1(s, log_d);
    case SP_NORMALIZER_RECTIFIED: return s <= 0 ? 0 : exp(s - log_d);
    default: return exp(s - log_d);
    }
}

static double score_gradient(const sp_attention *problem, double s, double log_d, double g, double delta) {
    if (problem->normalizer == SP_NORMALIZER_RECTIFIED && s <= 0) return 0;
    if (problem->normalizer != SP_NORMALIZER_SOFTPICK) return weight(problem, s, log_d) * (g - delta);
    return exp(s - log_d) * (s <= 0 ? (double)problem->lambda * delta : g - delta);
}

/* ---- one head of one sequence, widened -------------------------------------------------------------------------- */

typedef struct wide_head {
    const sp_attention *problem;
    sp_sequence sequence;
    int64_t h;
    double *q, *k, *v, *out;     /* (T,D) (S,D) (S,Dv) (T,Dv) */
    double *dout, *dq, *dk, *dv; /* as those */
    double *s, *w;               /* (S): one row; entry j is key first + j */
    double dsink, drow_factor;   /* sums over the queries */
} wide_head;

static double dot(const double *a, const double *b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* y += a x */
static void add_scaled(double *y, double a, const double *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += a * x[i];
}

/* Scores and weights of query t; returns ln D. */
static double compute_row(wide_head *head, int64_t t, sp_key_range keys) {
    const sp_attention *problem = head->problem;
    int64_t D = problem->q.shape[3], n = keys.end - keys.first;
    double scale = sp_problem_row_scale(problem, &head->sequence, head->h, t);
    for (int64_t j = 0; j < n; j++) head->s[j] = scale * dot(head->q + t * D, head->k + (keys.first + j) * D, D);
    double log_d = log_denominator(problem, head->h, head->s, n);
    for (int64_t j = 0; j < n; j++) head->w[j] = weight(problem, head->s[j], log_d);
    return log_d;
}

/* What the row of query t says beside its output. */
static void row_statistics(const wide_head *head, int64_t t, sp_key_range keys) {
    const sp_attention *problem = head->problem;
    const sp_attention_statistics *wanted = &problem->statistics;
    int64_t index = sp_problem_lse_index(problem, &head->sequence, head->h, t), zeros = 0;
    double mass = 0, entropy = 0, highest = -INFINITY;
    for (int64_t j = 0; j < keys.end - keys.first; j++) {
        double s = head->s[j];
        mass += head->w[j];
        zeros += rectifies(problem->normalizer) && s <= 0;
        if (isnan(s) || s > highest) highest = s; /* NaN stays */
    }
    for (int64_t j = 0; j < keys.end - keys.first; j++)
        if (head->w[j] != 0) entropy -= head->w[j] / mass * log(head->w[j] / mass);
    if (wanted->mass) wanted->mass[index] = (float)mass;
    /* NaN anywhere in a row is NaN in each of its sums */
    if (wanted->first_mass)
        wanted->first_mass[index] = keys.first == 0 && keys.end > 0 ? (float)(head->w[0] + 0 * mass) : 0;
    if (wanted->entropy) wanted->entropy[index] = (float)entropy;
    if (wanted->highest) wanted->highest[index] = (float)highest;
    if (wanted->zeros) wanted->zeros[index] = zeros;
}

static void row_liveness(const wide_head *head, int64_t t, sp_key_range keys, uint32_t *words) {
    for (int64_t j = keys.first; j < keys.end; j++) {
        if (rectifies(head->problem->normalizer) && head->s[j - keys.first] <= 0) continue;
        int64_t block = t % SP_LIVENESS_QUERIES / SP_LIVENESS_BLOCK * (SP_LIVENESS_KEYS / SP_LIVENESS_BLOCK) +
                        j % SP_LIVENESS_KEYS / SP_LIVENESS_BLOCK;
        words[j / SP_LIVENESS_KEYS] |= 1u << block;
    }
}

/* Row t of the head, which is that of sequence `sequence`. */
static void row_forward(wide_head *head, int64_t sequence, int64_t t) {
    const sp_attention *problem = head->problem;
    int64_t Dv = problem->v.shape[3];
    sp_key_range keys = sp_problem_visible(problem, &head->sequence, t);
    double log_d = compute_row(head, t, keys), *out = head->out + t * Dv;
    for (int64_t j = keys.first; j < keys.end; j++) /* a dead key's value is not looked at, whatever it holds */
        if (head->w[j - keys.first] != 0) add_scaled(out, head->w[j - keys.first], head->v + j * Dv, Dv);
    if (problem->lse)
        problem->lse[sp_problem_lse_index(problem, &head->sequence, head->h, t)] = (float)(log_d / log(2.0));
    row_statistics(head, t, keys);
    if (!problem->liveness) return;
    sp_liveness_shape shape = sp_problem_liveness_shape(problem);
    row_liveness(head, t, keys, sp_problem_liveness(problem, shape, sequence, head->h, t / SP_LIVENESS_QUERIES));
}

/* Adds query t's part to the gradients of its keys and of itself. */
static void row_backward(wide_head *head, int64_t t, sp_key_range keys) {
    const sp_attention *problem = head->problem;
    int64_t D = problem->q.shape[3], Dv = problem->v.shape[3];
    const double *q = head->q + t * D, *dout = head->dout + t * Dv;
    double log_d = compute_row(head, t, keys), delta = 0, ds_s = 0;
    double scale = sp_problem_row_scale(problem, &head->sequence, head->h, t);
    for (int64_t j = keys.first; j < keys.end; j++) {
        double w = head->w[j - keys.first];
        if (w == 0) continue;
        delta += w * dot(dout, head->v + j * Dv, Dv);
        add_scaled(head->dv + j * Dv, w, dout, Dv);
    }
    for (int64_t j = keys.first; j < keys.end; j++) {
        const double *k = head->k + j * D;
        double s = head->s[j - keys.first], g = 0;
        if (!(rectifies(problem->normalizer) && s <= 0)) g = dot(dout, head->v + j * Dv, Dv); /* else not looked at */
        double ds = score_gradient(problem, s, log_d, g, delta);
        add_scaled(head->dq + t * D, scale * ds, k, D);
        add_scaled(head->dk + j * D, scale * ds, q, D);
        ds_s += ds * dot(q, k, D);
    }
    head->drow_factor += ds_s * sp_problem_scale(problem) * sp_problem_log_position(&head->sequence, t);
    if (problem->normalizer == SP_NORMALIZER_SOFTMAX_SINK)
        head->dsink -= exp(log_constant(problem, head->h) - log_d) * delta;
}

static void head_backward(wide_head *head) {
    head->dsink = head->drow_factor = 0;
    for (int64_t t = 0; t < head->sequence.n_q; t++) {
        sp_key_range keys = sp_problem_visible(head->problem, &head->sequence, t);
        if (keys.first < keys.end) row_backward(head, t, keys);
    }
    if (head->problem->dsink) head->problem->dsink[head->h] += (float)head->dsink;
    if (head->problem->drow_factor) head->problem->drow_factor[head->h] += (float)head->drow_factor;
}

/* ---- widening and narrowing ------------------------------------------------------------------------------------- */

static double load(const char *row, sp_dtype dtype, int64_t i) {
    switch (dtype) {
    case SP_DTYPE_F64: return ((const double *)(const void *)row)[i];
    case SP_DTYPE_BF16: return (double)sp_bf16_to_f32(((const uint16_t *)(const void *)row)[i]);
    case SP_DTYPE_F16: return (double)sp_f16_to_f32(((const uint16_t *)(const void *)row)[i]);
    default: return (double)((const float *)(const void *)row)[i];
    }
}

static void store(char *row, sp_dtype dtype, int64_t i, double value) {
    switch (dtype) {
    case SP_DTYPE_F64: ((double *)(void *)row)[i] = value; break;
    case SP_DTYPE_BF16: ((uint16_t *)(void *)row)[i] = sp_bf16_from_f32((float)value); break;
    case SP_DTYPE_F16: ((uint16_t *)(void *)row)[i] = sp_f16_from_f32((float)value); break;
    default: ((float *)(void *)row)[i] = (float)value;
    }
}

/* Rows [first, first + n) of head h. */
static void widen(double *dense, const sp_tensor *tensor, int64_t b, int64_t first, int64_t n, int64_t h) {
    int64_t width = tensor->shape[3];
    for (int64_t t = 0; t < n; t++) {
        const char *row = sp_problem_row(tensor, b, first + t, h);
        for (int64_t i = 0; i < width; i++) dense[t * width + i] = load(row, tensor->dtype, i);
    }
}

/* The keys or values of a sequence, which may be paged. */
static void widen_keys(double *dense, const sp_tensor *tensor, const sp_sequence *sequence, int64_t h) {
    int64_t width = tensor->shape[3];
    for (int64_t j = 0; j < sequence->n_k; j++) {
        const char *row = sp_problem_key_row(tensor, sequence, j, h);
        for (int64_t i = 0; i < width; i++) dense[j * width + i] = load(row, tensor->dtype, i);
    }
}

static void narrow(const sp_tensor *tensor, int64_t b, int64_t first, int64_t n, int64_t h, const double *dense) {
    int64_t width = tensor->shape[3];
    for (int64_t t = 0; t < n; t++) {
        char *row = sp_problem_row(tensor, b, first + t, h);
        for (int64_t i = 0; i < width; i++) store(row, tensor->dtype, i, dense[t * width + i]);
    }
}

/* ---- all heads -------------------------------------------------------------------------------------------------- */

static int64_t longest_keys(const sp_attention *problem) {
    int64_t longest = 0;
    for (int64_t i = 0; i < sp_problem_n_sequences(problem); i++) {
        int64_t n = sp_problem_sequence(problem, i).n_k_rows;
        if (n > longest) longest = n;
    }
    return longest;
}

/* Points the head's arrays into one allocation that holds the longest sequence. */
static sp_status head_open(wide_head *head, void **memory, const sp_attention *problem) {
    int64_t T = problem->q.shape[1], S = longest_keys(problem), D = problem->q.shape[3], Dv = problem->v.shape[3];
    const int64_t sizes[] = {T * D, S * D, S * Dv, T * Dv, T * Dv, T * D, S * D, S * Dv, S, S};
    double **const arrays[] = {&head->q,  &head->k,  &head->v,  &head->out, &head->dout,
                               &head->dq, &head->dk, &head->dv, &head->s,   &head->w};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    int64_t total = 0;
    for (int i = 0; i < COUNT; i++) total += sizes[i];
    SP_TRY(sp_allocate(memory, total * (int64_t)sizeof(double), "the definition's rows"));
    double *next = *memory;
    for (int i = 0; i < COUNT; i++) {
        *arrays[i] = next;
        next += sizes[i];
    }
    head->problem = problem;
    return SP_OK;
}

static void head_read(wide_head *head, const sp_sequence *sequence, int64_t h) {
    const sp_attention *problem = head->problem;
    int64_t key_head = sp_problem_key_head(problem, h);
    head->sequence = *sequence;
    head->h = h;
    widen(head->q, &problem->q, sequence->b, sequence->q_first, sequence->n_q, h);
    widen_keys(head->k, &problem->k, sequence, key_head);
    widen_keys(head->v, &problem->v, sequence, key_head);
}

static void clear(double *array, int64_t n) { memset(array, 0, (size_t)n * sizeof *array); }

/* Forward and decode are one. */
static sp_status define_forward(const sp_attention *callers, sp_attention_pass pass) {
    sp_attention copy;
    const sp_attention *problem = &copy;
    int64_t n_words;
    SP_TRY(sp_problem_read(&copy, callers));
    SP_TRY(sp_problem_check(problem, pass));
    if (problem->liveness) {
        SP_TRY(sp_attention_liveness_words(problem, &n_words));
        memset(problem->liveness, 0, (size_t)n_words * sizeof *problem->liveness);
    }
    wide_head head = {0};
    void *memory = NULL;
    SP_TRY(head_open(&head, &memory, problem));
    for (int64_t i = 0; i < sp_problem_n_sequences(problem); i++) {
        sp_sequence sequence = sp_problem_sequence(problem, i);
        for (int64_t h = 0; h < problem->q.shape[2]; h++) {
            head_read(&head, &sequence, h);
            clear(head.out, sequence.n_q * problem->v.shape[3]);
            for (int64_t t = 0; t < sequence.n_q; t++) row_forward(&head, i, t);
            narrow(&problem->out, sequence.b, sequence.q_first, sequence.n_q, h, head.out);
        }
    }
    free(memory);
    return SP_OK;
}

sp_status sp_attention_define_forward(const sp_attention *problem) {
    return define_forward(problem, SP_ATTENTION_FORWARD);
}

sp_status sp_attention_define_decode(const sp_attention *problem) {
    return define_forward(problem, SP_ATTENTION_DECODE);
}

sp_status sp_attention_define_backward(const sp_attention *callers) {
    sp_attention copy;
    const sp_attention *problem = &copy;
    SP_TRY(sp_problem_read(&copy, callers));
    SP_TRY(sp_problem_check(problem, SP_ATTENTION_BACKWARD));
    int64_t D = problem->q.shape[3], Dv = problem->v.shape[3], H = problem->q.shape[2];
    wide_head head = {0};
    void *memory = NULL;
    SP_TRY(head_open(&head, &memory, problem));
    for (int64_t i = 0; i < sp_problem_n_sequences(problem); i++) {
        sp_sequence sequence = sp_problem_sequence(problem, i);
        for (int64_t h = 0; h < H; h++) {
            int64_t key_head = sp_problem_key_head(problem, h);
            head_read(&head, &sequence, h);
            widen(head.dout, &problem->dout, sequence.b, sequence.q_first, sequence.n_q, h);
            clear(head.dq, sequence.n_q * D);
            if (h == 0 || key_head != sp_problem_key_head(problem, h - 1)) { /* first head of its group */
                clear(head.dk, sequence.n_k_rows * D);
                clear(head.dv, sequence.n_k_rows * Dv);
            }
            head_backward(&head);
            narrow(&problem->dq, sequence.b, sequence.q_first, sequence.n_q, h, head.dq);
            if (h == H - 1 || key_head != sp_problem_key_head(problem, h + 1)) { /* last head of its group */
                narrow(&problem->dk, sequence.b, sequence.k_first, sequence.n_k_rows, key_head, head.dk);
                narrow(&problem->dv, sequence.b, sequence.k_first, sequence.n_k_rows, key_head, head.dv);
            }
        }
    }
    free(memory);
    return SP_OK;
}
