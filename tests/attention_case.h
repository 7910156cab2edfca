/* One attention problem with its memory, for tests: made from a short description, filled with normal random numbers,
 * outputs and everything outside of the tensors filled with NaN.  Each array is of exactly the size that is needed. */
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
    bool head_major;                               /* memory is (B,H,T,D) */
    bool statistics, liveness, compute_dead;
    int64_t window, n_packed;  /* n_packed > 0: that many packed sequences, B = 1 */
    int64_t page_size;         /* > 0: k and v are paged, with lengths; for decode alone */
    float lambda, eps, spread; /* spread: standard deviation of the scores */
    uint64_t seed;
} attention_shape;

enum { ATTENTION_CASE_TENSORS = 8 };

/* Where the memory of cases comes from: a test may put functions of its own here.  All bits of it are set. */
typedef struct case_memory {
    void *(*allocate)(int64_t bytes);
    void (*release)(void *memory);
} case_memory;

static inline void *case_allocate_plain(int64_t bytes) {
    void *memory;
    if (sp_allocate(&memory, bytes, "a test case") != SP_OK) abort();
    memset(memory, 0xff, (size_t)bytes); /* NaN in every float type */
    return memory;
}

static case_memory case_source = {case_allocate_plain, free};

static inline void *case_allocate(int64_t bytes) { return case_source.allocate(bytes); }
static inline void case_release(void *memory) { case_source.release(memory); }

typedef struct attention_case {
    sp_attention problem;
    sp_tensor *tensors[ATTENTION_CASE_TENSORS]; /* q k v out dout dq dk dv */
    void *blocks[ATTENTION_CASE_TENSORS];
    int64_t block_bytes[ATTENTION_CASE_TENSORS];
    float *lse, *sink, *row_factor, *dsink, *drow_factor;
    int64_t *key_lengths, *cu_q, *cu_k, *page_table;
    sp_attention_statistics statistics;
    uint32_t *liveness;
    int64_t n_lse, n_liveness;
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

/* A tensor with gaps between tokens (or heads) and between sequences. */
static inline void case_tensor(attention_case *c, int i, bool head_major, sp_dtype dtype, int64_t b, int64_t t,
                               int64_t h, int64_t d) {
    int64_t outer = head_major ? t * d + 3 : h * d + 3, batch = (head_major ? h : t) * outer + 5;
    bool empty = !b || !t || !h || !d;
    sp_tensor tensor = {.dtype = dtype,
                        .n_dims = 4,
                        .shape = {b, t, h, d},
                        .stride = {batch, head_major ? d : outer, head_major ? outer : d, 1}};
    int64_t count = empty ? 0 : 1;
    for (int j = 0; j < 4 && !empty; j++) count += (tensor.shape[j] - 1) * tensor.stride[j];
    c->block_bytes[i] = count * sp_dtype_bytes(dtype);
    tensor.data = c->blocks[i] = case_allocate(c->block_bytes[i]);
    *c->tensors[i] = tensor;
}

/* q, k, v (or their gradients) as parts of one buffer (B, T, (H+2Hkv)D). */
static inline void case_interleave(attention_case *c, int q, int k, int v, const attention_shape *s) {
    int64_t token = s->H * s->D + s->Hkv * (s->D + s->Dv), bytes = sp_dtype_bytes(s->dtype);
    c->block_bytes[q] = s->B * s->T * token * bytes;
    case_release(c->blocks[q]);
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

/* Near enough to a standard normal number, and cheap: the sum of four uniform ones. */
static inline double case_normal(uint64_t seed, uint64_t stream, uint64_t index) {
    uint64_t bits = sp_random_bits(seed, stream, index), sum = 0;
    for (int i = 0; i < 4; i++) sum += bits >> (16 * i) & 0xffff;
    return ((double)sum - 2 * 65535.0) * (1.7320508 / 65536);
}

static inline void case_fill(const sp_tensor *tensor, double spread, uint64_t seed, uint64_t stream) {
    uint64_t index = 0;
    for (int64_t b = 0; b < tensor->shape[0]; b++)
        for (int64_t t = 0; t < tensor->shape[1]; t++)
            for (int64_t h = 0; h < tensor->shape[2]; h++)
                for (int64_t d = 0; d < tensor->shape[3]; d++)
                    case_store(tensor, b, t, h, d, spread * case_normal(seed, stream, index++));
}

/* Outputs become NaN again (dsink and drow_factor, which are accumulated into, become 0). */
static inline void case_poison(attention_case *c) {
    static const int outputs[] = {3, 5, 6, 7};
    for (int i = 0; i < 4; i++) memset(c->blocks[outputs[i]], 0xff, (size_t)c->block_bytes[outputs[i]]);
    memset(c->lse, 0xff, (size_t)c->n_lse * sizeof *c->lse);
    memset(c->dsink, 0, (size_t)c->problem.q.shape[2] * sizeof *c->dsink);
    memset(c->drow_factor, 0, (size_t)c->problem.q.shape[2] * sizeof *c->drow_factor);
    const sp_attention_statistics *statistics = &c->statistics;
    float *const floats[] = {statistics->mass, statistics->first_mass, statistics->entropy, statistics->highest};
    for (int i = 0; i < 4; i++)
        if (floats[i]) memset(floats[i], 0xff, (size_t)c->n_lse * sizeof *floats[i]);
    if (statistics->zeros) memset(statistics->zeros, 0xff, (size_t)c->n_lse * sizeof *statistics->zeros);
    if (c->liveness) memset(c->liveness, 0xff, (size_t)c->n_liveness * sizeof *c->liveness);
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

/* Keys from the lengths on become NaN: what is not there must not be looked at. */
static inline void case_lengths(attention_case *c, const attention_shape *s) {
    sp_attention *p = &c->problem;
    p->key_lengths = c->key_lengths = case_allocate(s->B * (int64_t)sizeof *c->key_lengths);
    for (int64_t b = 0; b < s->B; b++)
        c->key_lengths[b] = (int64_t)sp_random_below(s->seed, 7, (uint64_t)b, (uint64_t)s->S + 1);
    for (int64_t b = 0; b < s->B && !s->page_size; b++)
        for (int64_t t = c->key_lengths[b]; t < s->S; t++)
            for (int64_t h = 0; h < s->Hkv; h++) {
                for (int64_t d = 0; d < s->D; d++) case_store(&p->k, b, t, h, d, NAN);
                for (int64_t d = 0; d < s->Dv; d++) case_store(&p->v, b, t, h, d, NAN);
            }
}

static inline int64_t case_pages_per_sequence(const attention_shape *s) {
    return (s->S + s->page_size - 1) / s->page_size;
}

/* Pages in random order; what no sequence uses is NaN, and so are table entries of no use (-1). */
static inline void case_pages(attention_case *c, const attention_shape *s) {
    sp_attention *p = &c->problem;
    int64_t per_sequence = case_pages_per_sequence(s), n_pages = p->k.shape[0];
    p->pages_per_sequence = per_sequence;
    p->page_table = c->page_table = case_allocate(s->B * per_sequence * (int64_t)sizeof *c->page_table);
    for (int64_t b = 0; b < s->B; b++)
        for (int64_t i = 0; i < per_sequence && i * s->page_size < c->key_lengths[b]; i++)
            c->page_table[b * per_sequence + i] =
                (int64_t)sp_random_permuted(s->seed, 14, (uint64_t)(b * per_sequence + i), (uint64_t)n_pages);
    for (int i = 1; i < 3; i++) memset(c->blocks[i], 0xff, (size_t)c->block_bytes[i]);
    for (int64_t b = 0; b < s->B; b++)
        for (int64_t j = 0; j < c->key_lengths[b]; j++) {
            int64_t page = c->page_table[b * per_sequence + j / s->page_size], slot = j % s->page_size;
            uint64_t row = (uint64_t)(b * s->S + j);
            for (int64_t h = 0; h < s->Hkv; h++) {
                for (int64_t d = 0; d < s->D; d++)
                    case_store(&p->k, page, slot, h, d,
                               case_normal(s->seed, 15, (row << 24) + (uint64_t)(h * s->D + d)));
                for (int64_t d = 0; d < s->Dv; d++)
                    case_store(&p->v, page, slot, h, d,
                               case_normal(s->seed, 16, (row << 24) + (uint64_t)(h * s->Dv + d)));
            }
        }
}

static inline void case_lists(attention_case *c, const attention_shape *s) {
    sp_attention *p = &c->problem;
    if (s->lengths) case_lengths(c, s);
    if (s->page_size) case_pages(c, s);
    if (!s->n_packed) return;
    p->n_sequences = s->n_packed;
    p->cu_q = c->cu_q = case_starts(s->n_packed, s->T, s->seed, 8);
    if (s->S != s->T) p->cu_k = c->cu_k = case_starts(s->n_packed, s->S, s->seed, 9);
}

/* What forward tells beside its output. */
static inline void case_extras(attention_case *c, const attention_shape *s) {
    sp_attention *p = &c->problem;
    p->compute_dead = s->compute_dead;
    if (s->statistics)
        p->statistics = c->statistics = (sp_attention_statistics){.mass = case_allocate(c->n_lse * 4),
                                                                  .first_mass = case_allocate(c->n_lse * 4),
                                                                  .entropy = case_allocate(c->n_lse * 4),
                                                                  .highest = case_allocate(c->n_lse * 4),
                                                                  .zeros = case_allocate(c->n_lse * 8)};
    if (!s->liveness) return;
    if (sp_attention_liveness_words(p, &c->n_liveness) != SP_OK) abort();
    p->liveness = c->liveness = case_allocate(c->n_liveness * (int64_t)sizeof *p->liveness);
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
        bool paged = s->page_size && (kinds[i] == 1 || kinds[i] == 2);
        int64_t n_pages = paged ? s->B * case_pages_per_sequence(s) + 2 : 0;
        case_tensor(c, i, s->head_major, s->dtype, paged ? n_pages : s->B, paged ? s->page_size : shape[0], shape[1],
                    shape[2]);
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
    c->lse = case_allocate(c->n_lse * (int64_t)sizeof *c->lse);
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
    case_extras(c, s);
    case_poison(c);
}

static inline void case_close(attention_case *c) {
    const sp_attention_statistics *statistics = &c->statistics;
    void *const all[] = {c->lse,
                         c->sink,
                         c->row_factor,
                         c->dsink,
                         c->drow_factor,
                         c->key_lengths,
                         c->cu_q,
                         c->cu_k,
                         c->page_table,
                         statistics->mass,
                         statistics->first_mass,
                         statistics->entropy,
                         statistics->highest,
                         statistics->zeros,
                         c->liveness};
    for (int i = 0; i < ATTENTION_CASE_TENSORS; i++) case_release(c->blocks[i]);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) case_release(all[i]);
}

/* Runs a pass with a workspace full of NaN, of exactly the size asked for. */
static inline sp_status case_run(attention_case *c, sp_attention_pass pass, int n_threads) {
    static sp_status (*const passes[])(const sp_attention *, void *, int64_t, int) = {
        [SP_ATTENTION_FORWARD] = sp_attention_forward,
        [SP_ATTENTION_BACKWARD] = sp_attention_backward,
        [SP_ATTENTION_DECODE] = sp_attention_decode,
    };
    int64_t bytes = 0;
    sp_status status = sp_attention_workspace(&c->problem, pass, n_threads, &bytes);
    if (status != SP_OK) return status;
    void *workspace = case_allocate(bytes);
    status = passes[pass](&c->problem, workspace, bytes, n_threads);
    case_release(workspace);
    return status;
}

/* All numbers of a tensor, as double; to be freed. */
static inline double *case_numbers(const sp_tensor *tensor) {
    double *numbers = case_allocate_plain((sp_tensor_count(tensor) + 1) * (int64_t)sizeof *numbers), *next = numbers;
    for (int64_t b = 0; b < tensor->shape[0]; b++)
        for (int64_t t = 0; t < tensor->shape[1]; t++)
            for (int64_t h = 0; h < tensor->shape[2]; h++)
                for (int64_t d = 0; d < tensor->shape[3]; d++) *next++ = case_load(tensor, b, t, h, d);
    return numbers;
}

static inline void case_describe(const attention_shape *s, char *text, size_t n) {
    snprintf(text, n,
             "B%lld T%lld S%lld H%lld/%lld D%lld/%lld %s %s%s%s%s%s%s%s%s window %lld packed %lld lambda %g eps %g "
             "spread %g "
             "page %lld seed %llu",
             (long long)s->B, (long long)s->T, (long long)s->S, (long long)s->H, (long long)s->Hkv, (long long)s->D,
             (long long)s->Dv, sp_dtype_name(s->dtype), sp_normalizer_name(s->normalizer), s->causal ? " causal" : "",
             s->interleaved ? " interleaved" : "", s->row_factor ? " row_factor" : "", s->lengths ? " lengths" : "",
             s->head_major ? " head_major" : "", s->statistics ? " statistics" : "", s->liveness ? " liveness" : "",
             (long long)s->window, (long long)s->n_packed, (double)s->lambda, (double)s->eps, (double)s->spread,
             (long long)s->page_size, (unsigned long long)s->seed);
}

#endif
