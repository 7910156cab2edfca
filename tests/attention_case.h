/* One attention problem with its memory, for tests: made from a short description, filled with normal random numbers,
 * outputs and everything outside of the tensors filled with NaN. */
#ifndef SP_TESTS_ATTENTION_CASE_H
#define SP_TESTS_ATTENTION_CASE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention/problem.h"
#include "base/memory.h"
#include "base/random.h"
#include "formats/halves.h"

typedef struct attention_shape {
    int64_t B, T, S, H, Hkv, D, Dv;
    sp_dtype dtype;
    sp_normalizer normalizer;
    bool causal, interleaved, row_factor, lengths; /* interleaved: q, k and v of a token side by side (T = S) */
    int64_t window, n_packed;                      /* n_packed > 0: that many packed sequences, B = 1 */
    float lambda, eps, spread;                     /* spread: standard deviation of the scores */
    uint64_t seed;
} attention_shape;

enum { ATTENTION_CASE_TENSORS = 8 };

typedef struct attention_case {
    sp_attention problem;
    sp_tensor *tensors[ATTENTION_CASE_TENSORS]; /* q k v out dout dq dk dv */
    void *blocks[ATTENTION_CASE_TENSORS];
    int64_t block_bytes[ATTENTION_CASE_TENSORS];
    float *lse, *sink, *row_factor, *dsink, *drow_factor;
    int64_t *key_lengths, *cu_q, *cu_k;
    int64_t n_lse;
} attention_case;

static inline double case_load(const sp_tensor *tensor, int64_t b, int64_t t, int64_t h, int64_t d) {
    const char *row = sp_problem_row(tensor, b, t, h);
    switch (tensor->dtype) {
    case SP_DTYPE_F64: return ((const double *)(const void *)row)[d];
    case SP_DTYPE_BF16: return (double)sp_bf16_to_f32(((const uint16_t *)(const void *)row)[d]);
    case SP_DTYPE_F16: return (double)sp_f16_to_f32(((const uint16_t *)(const void *)row)[d]);
    default: return (double)((const float *)(const void *)row)[d];
    }
}

static inline void case_store(const sp_tensor *tensor, int64_t b, int64_t t, int64_t h, int64_t d, double value) {
    char *row = sp_problem_row(tensor, b, t, h);
    switch (tensor->dtype) {
    case SP_DTYPE_F64: ((double *)(void *)row)[d] = value; break;
    case SP_DTYPE_BF16: ((uint16_t *)(void *)row)[d] = sp_bf16_from_f32((float)value); break;
    case SP_DTYPE_F16: ((uint16_t *)(void *)row)[d] = sp_f16_from_f32((float)value); break;
    default: ((float *)(void *)row)[d] = (float)value;
    }
}

static inline void *case_allocate(int64_t bytes) {
    void *memory;
    if (sp_allocate(&memory, bytes, "a test case") != SP_OK) abort();
    memset(memory, 0xff, (size_t)bytes); /* NaN in every float type */
    return memory;
}

/* A tensor with gaps between tokens and between sequences. */
static inline void case_tensor(attention_case *c, int i, sp_dtype dtype, int64_t b, int64_t t, int64_t h, int64_t d) {
    int64_t token = h * d + 3, count = b * (t * token + 5) + 1;
    c->block_bytes[i] = count * sp_dtype_bytes(dtype);
    c->blocks[i] = case_allocate(c->block_bytes[i]);
    *c->tensors[i] = (sp_tensor){.data = c->blocks[i],
                                 .dtype = dtype,
                                 .n_dims = 4,
                                 .shape = {b, t, h, d},
                                 .stride = {t * token + 5, token, d, 1}};
}

/* q, k, v (or their gradients) as parts of one buffer (B, T, (H+2Hkv)D). */
static inline void case_interleave(attention_case *c, int q, int k, int v, const attention_shape *s) {
    int64_t token = s->H * s->D + s->Hkv * (s->D + s->Dv), bytes = sp_dtype_bytes(s->dtype);
    c->block_bytes[q] = s->B * s->T * token * bytes;
    free(c->blocks[q]);
    c->blocks[q] = case_allocate(c->block_bytes[q]);
    const int64_t offset[3] = {0, s->H * s->D, s->H * s->D + s->Hkv * s->D};
    const int index[3] = {q, k, v};
    for (int i = 0; i < 3; i++) {
        sp_tensor *tensor = c->tensors[index[i]];
        tensor->data = (char *)c->blocks[q] + offset[i] * bytes;
        tensor->stride[0] = s->T * token;
        tensor->stride[1] = token;
    }
}

static inline void case_fill(const sp_tensor *tensor, double spread, uint64_t seed, uint64_t stream) {
    uint64_t index = 0;
    for (int64_t b = 0; b < tensor->shape[0]; b++)
        for (int64_t t = 0; t < tensor->shape[1]; t++)
            for (int64_t h = 0; h < tensor->shape[2]; h++)
                for (int64_t d = 0; d < tensor->shape[3]; d++)
                    case_store(tensor, b, t, h, d, spread * sp_random_normal(seed, stream, index++));
}

/* Outputs become NaN again (dsink and drow_factor, which are accumulated into, become 0). */
static inline void case_poison(attention_case *c) {
    static const int outputs[] = {3, 5, 6, 7};
    for (int i = 0; i < 4; i++) memset(c->blocks[outputs[i]], 0xff, (size_t)c->block_bytes[outputs[i]]);
    memset(c->lse, 0xff, (size_t)c->n_lse * sizeof *c->lse);
    memset(c->dsink, 0, (size_t)c->problem.q.shape[2] * sizeof *c->dsink);
    memset(c->drow_factor, 0, (size_t)c->problem.q.shape[2] * sizeof *c->drow_factor);
}

/* n + 1 starts of sequences whose lengths are random, some of them 0. */
static inline int64_t *case_starts(int64_t n, int64_t total, uint64_t seed, uint64_t stream) {
    int64_t *starts = case_allocate((n + 1) * (int64_t)sizeof *starts);
    starts[0] = 0;
    for (int64_t i = 1; i <= n; i++) {
        int64_t left = total - starts[i - 1];
        int64_t length = i % 3 == 2 ? 0 : (int64_t)sp_random_below(seed, stream, (uint64_t)i, (uint64_t)left + 1);
        starts[i] = i == n ? total : starts[i - 1] + length;
    }
    return starts;
}

static inline void case_lists(attention_case *c, const attention_shape *s) {
    sp_attention *p = &c->problem;
    if (s->lengths) {
        c->key_lengths = case_allocate(s->B * (int64_t)sizeof *c->key_lengths);
        for (int64_t b = 0; b < s->B; b++)
            c->key_lengths[b] = (int64_t)sp_random_below(s->seed, 7, (uint64_t)b, (uint64_t)s->S + 1);
        p->key_lengths = c->key_lengths;
        for (int64_t b = 0; b < s->B; b++) /* what is not there must not be looked at */
            for (int64_t t = c->key_lengths[b]; t < s->S; t++)
                for (int64_t h = 0; h < s->Hkv; h++) {
                    for (int64_t d = 0; d < s->D; d++) case_store(&p->k, b, t, h, d, NAN);
                    for (int64_t d = 0; d < s->Dv; d++) case_store(&p->v, b, t, h, d, NAN);
                }
    }
    if (!s->n_packed) return;
    p->n_sequences = s->n_packed;
    p->cu_q = c->cu_q = case_starts(s->n_packed, s->T, s->seed, 8);
    if (s->S != s->T) p->cu_k = c->cu_k = case_starts(s->n_packed, s->S, s->seed, 9);
}

static inline void case_open(attention_case *c, const attention_shape *s) {
    *c = (attention_case){0};
    sp_attention *p = &c->problem;
    sp_attention_init(p);
    sp_tensor *tensors[ATTENTION_CASE_TENSORS] = {&p->q, &p->k, &p->v, &p->out, &p->dout, &p->dq, &p->dk, &p->dv};
    memcpy(c->tensors, tensors, sizeof tensors);
    static const int kinds[ATTENTION_CASE_TENSORS] = {0, 1, 2, 3, 3, 0, 1, 2};
    const int64_t shapes[4][3] = {{s->T, s->H, s->D}, {s->S, s->Hkv, s->D}, {s->S, s->Hkv, s->Dv}, {s->T, s->H, s->Dv}};
    for (int i = 0; i < ATTENTION_CASE_TENSORS; i++) {
        const int64_t *shape = shapes[kinds[i]];
        case_tensor(c, i, s->dtype, s->B, shape[0], shape[1], shape[2]);
    }
    if (s->interleaved) {
        case_interleave(c, 0, 1, 2, s);
        case_interleave(c, 5, 6, 7, s);
    }
    case_fill(&p->q, s->spread != 0 ? (double)s->spread : 1.0, s->seed, 1);
    for (int i = 1; i < 5; i++)
        if (i != 3) case_fill(c->tensors[i], 1, s->seed, (uint64_t)i + 1);
    p->normalizer = s->normalizer;
    p->causal = s->causal;
    p->window = s->window;
    p->lambda = s->lambda;
    p->eps = s->eps;
    c->n_lse = s->B * s->H * s->T;
    c->lse = case_allocate((c->n_lse + 1) * (int64_t)sizeof *c->lse);
    float **const heads[] = {&c->sink, &c->row_factor, &c->dsink, &c->drow_factor};
    for (uint64_t i = 0; i < 4; i++) {
        *heads[i] = case_allocate(s->H * (int64_t)sizeof **heads[i]);
        for (int64_t h = 0; h < s->H; h++)
            (*heads[i])[h] =
                (float)sp_random_normal(s->seed, 10 + i, (uint64_t)h) * (i == 1 ? 0.2f : 1) + (i == 1 ? 0.3f : 0);
    }
    p->lse = c->lse;
    p->sink = c->sink;
    p->row_factor = s->row_factor ? c->row_factor : NULL;
    p->dsink = s->normalizer == SP_NORMALIZER_SOFTMAX_SINK ? c->dsink : NULL;
    p->drow_factor = s->row_factor ? c->drow_factor : NULL;
    case_lists(c, s);
    case_poison(c);
}

static inline void case_close(attention_case *c) {
    for (int i = 0; i < ATTENTION_CASE_TENSORS; i++) free(c->blocks[i]);
    free(c->lse), free(c->sink), free(c->row_factor), free(c->dsink), free(c->drow_factor);
    free(c->key_lengths), free(c->cu_q), free(c->cu_k);
}

/* Runs a pass with a workspace full of NaN. */
static inline sp_status case_run(attention_case *c, sp_attention_pass pass, int n_threads) {
    int64_t bytes = 0;
    sp_status status = sp_attention_workspace(&c->problem, pass, n_threads, &bytes);
    if (status != SP_OK) return status;
    void *workspace = case_allocate(bytes);
    status = pass == SP_ATTENTION_FORWARD ? sp_attention_forward(&c->problem, workspace, bytes, n_threads)
                                          : sp_attention_backward(&c->problem, workspace, bytes, n_threads);
    free(workspace);
    return status;
}

/* All numbers of a tensor, as double. */
static inline double *case_numbers(const sp_tensor *tensor) {
    double *numbers = case_allocate((sp_tensor_count(tensor) + 1) * (int64_t)sizeof *numbers), *next = numbers;
    for (int64_t b = 0; b < tensor->shape[0]; b++)
        for (int64_t t = 0; t < tensor->shape[1]; t++)
            for (int64_t h = 0; h < tensor->shape[2]; h++)
                for (int64_t d = 0; d < tensor->shape[3]; d++) *next++ = case_load(tensor, b, t, h, d);
    return numbers;
}

static inline void case_describe(const attention_shape *s, char *text, size_t n) {
    snprintf(text, n,
             "B%lld T%lld S%lld H%lld/%lld D%lld/%lld %s %s%s%s%s%s window %lld packed %lld lambda %g eps %g spread %g "
             "seed %llu",
             (long long)s->B, (long long)s->T, (long long)s->S, (long long)s->H, (long long)s->Hkv, (long long)s->D,
             (long long)s->Dv, sp_dtype_name(s->dtype), sp_normalizer_name(s->normalizer), s->causal ? " causal" : "",
             s->interleaved ? " interleaved" : "", s->row_factor ? " row_factor" : "", s->lengths ? " lengths" : "",
             (long long)s->window, (long long)s->n_packed, (double)s->lambda, (double)s->eps, (double)s->spread,
             (unsigned long long)s->seed);
}

#endif
