/* Decode on the CPU: few queries against a long cache.  What the driver (decode.c) and the instruction sets' bodies
 * (decode.inc) share.
 *
 * The keys of a sequence are cut into chunks.  A chunk gives each query row that sees it a partial row: shift, sum and
 * out by the online rule, not yet divided; afterwards the partial rows of a query are merged in the order of the chunks.
 * Where chunks begin follows from the problem alone, so the bits do not depend on how chunks and heads are dealt
 * out to threads.
 *
 *   workspace   | partial rows (B, n_chunks, H, T, Dv + DECODE_TAIL) | scratch of thread 0 | scratch of thread 1 | ...
 *
 * A query row of a key/value head is one of the group * T pairs of a head of its group and a query: a key's numbers are
 * taken from memory once for all of them. */
#ifndef SP_ATTENTION_DECODE_H
#define SP_ATTENTION_DECODE_H

#include "attention/problem.h"

enum {
    SP_DECODE_PAIR = 32,    /* inner dimensions are padded to two of the widest vectors, with zeros */
    SP_DECODE_KEYS = 64,    /* of a block, at most */
    SP_DECODE_ROWS = 64,    /* query rows of an item, at most unless one query has more */
    SP_DECODE_CHUNK = 1024, /* keys of a chunk at least, where all queries fit in an item */
    SP_DECODE_LONGEST_CHUNK = 4096,
    SP_DECODE_TAIL = 16, /* floats after a partial row's out: shift, sum, and what fills a cache line */
};

/* What one thread does at a time: some key/value heads and queries of a sequence against the keys of a chunk. */
typedef struct sp_decode_item {
    int64_t b, chunk;
    int64_t head, n_heads;    /* key/value heads */
    int64_t query, n_queries; /* of the sequence */
    sp_key_range keys;        /* of the chunk, that one of the queries sees; not empty */
} sp_decode_item;

typedef struct sp_decode_plan {
    const sp_attention *problem;
    int64_t group;             /* heads of a key/value head */
    int64_t D, Dv;             /* padded to SP_DECODE_PAIR */
    int64_t block;             /* keys of a block */
    int64_t chunk, n_chunks;   /* keys of a chunk; chunks of the longest sequence */
    int64_t n_heads, n_parts;  /* key/value heads of an item at most; items for all of them */
    int64_t n_queries, n_runs; /* queries of an item at most; items for all of them */
    int64_t n_items;
    int n_threads;
    float *partial;
} sp_decode_plan;

/* Partial row of query t, head h, in a chunk of sequence b: out, then shift and sum. */
static inline float *sp_decode_partial(const sp_decode_plan *plan, int64_t b, int64_t chunk, int64_t h, int64_t t) {
    const int64_t *shape = plan->problem->q.shape;
    return plan->partial + (((b * plan->n_chunks + chunk) * shape[2] + h) * shape[1] + t) * (plan->Dv + SP_DECODE_TAIL);
}

/* Of one thread, in floats. */
typedef struct sp_decode_scratch {
    float *q;        /* (n_heads, rows, D) scaled: its products are scores in log2 units */
    float *score[2]; /* (rows, KEYS) scores, then numerators, of two units in turn */
    float *row;      /* (2, Dv) */
} sp_decode_scratch;

/* Points the members into `base` and returns how many floats they take; with base NULL only that. */
int64_t sp_decode_carve(const sp_decode_plan *plan, float *base, sp_decode_scratch *scratch);

typedef struct sp_decode_body {
    void (*partial)(const sp_decode_plan *plan, const sp_decode_item *item, float *scratch);
    /* Merges the partial rows of all queries of head h, and writes out and lse. */
    void (*merge)(const sp_decode_plan *plan, int64_t b, int64_t h, float *scratch);
} sp_decode_body;

extern const sp_decode_body sp_decode_body_scalar, sp_decode_body_avx2, sp_decode_body_avx512, sp_decode_body_neon;

SP_MUST_CHECK sp_status sp_decode_workspace(const sp_attention *problem, int n_threads, int64_t *n_bytes);
/* `workspace`: as many bytes as sp_decode_workspace says for the same arguments. */
void sp_decode_run(const sp_decode_body *body, const sp_attention *problem, int n_threads, void *workspace);

#endif
