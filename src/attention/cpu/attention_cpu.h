/* Attention on the CPU: what the instruction sets' bodies (attention_cpu.inc) and the driver (attention_cpu.c) share.
 *
 * A pass is cut into items, each computed by one thread from first to last in a fixed order, so that results depend on
 * neither the number of threads nor their timing:
 *   forward    up to n_queries queries of one head      rows   one head
 *   backward   a key/value head, or a chunk of its keys where heads alone are too few for many threads
 * Keys are cut into chunks by the shape alone, each of about the same number of scores, and a head's dq is the sum of
 * its chunks' in their order.  Chunks are items of their own where threads would be idle otherwise: they share the
 * head's prepared queries, and their dq are kept until all are done.  Else one thread goes through a head's chunks.
 * Inside, everything is f32: rows are widened when they are packed and narrowed when they are stored. */
#ifndef SP_ATTENTION_CPU_H
#define SP_ATTENTION_CPU_H

#include "attention/cpu/items.h"
#include "attention/problem.h"

enum {
    SP_CPU_LANES = 16, /* inner dimensions are padded to the widest vector, with zeros */
    SP_CPU_ROWS = 8,   /* queries computed together */
    SP_CPU_KEYS = 64,  /* keys of a block: K and V of a block at D = 64 fill most of a 48 KB first-level cache */
    SP_CPU_QUERIES_FORWARD = 256,    /* of an item at most: what packing a block of keys is spread over */
    SP_CPU_QUERIES_BACKWARD = 64,    /* of a block */
    SP_CPU_RESIDENT_BYTES = 1 << 19, /* of queries, dout and dq: half of a second-level cache of 1 MB */
    SP_CPU_CHUNKS = 16,              /* of a head's keys at most: what the dq of the chunks take is bounded */
    SP_CPU_CHUNK_ITEMS = 32,         /* keys are cut while there are fewer items */
    SP_CPU_CHUNK_SCORES = 1 << 17,   /* of a chunk at least: one of them takes half a millisecond */
    SP_CPU_QUERIES_PREPARED = 256,   /* of an item that prepares or sums */
    SP_CPU_GRADIENT_FLOATS = 8,      /* room for a query_constants */
    SP_CPU_NOTE_FLOATS = 8,          /* room for a row_notes */
};

/* Query rows prepared for backward. */
typedef struct sp_cpu_queries {
    float *q;        /* (T,D) scaled as in forward */
    float *dout;     /* (T,Dv) */
    float *gradient; /* (T,GRADIENT_FLOATS) a query_constants each */
    float *dq;       /* (T,D) from row dq_first on */
    int64_t dq_first;
} sp_cpu_queries;

/* One pass over one problem. */
typedef struct sp_cpu_plan {
    const sp_attention *problem;
    int64_t D, Dv;        /* padded to SP_CPU_LANES */
    int64_t max_q, max_k; /* longest sequence, padded to SP_CPU_ROWS and SP_CPU_KEYS */
    int64_t n_queries;    /* of a forward item at most, a multiple of SP_CPU_ROWS */
    int64_t n_items;
    bool statistics;            /* some are wanted */
    sp_liveness_shape liveness; /* of the words */
    int n_threads;
    sp_cpu_item *items;

    /* backward */
    double *dsink, *drow_factor; /* (n_sequences,H,n_sums) of SP_CPU_QUERIES_PREPARED queries each, 0 for none */
    int64_t n_sums;
    int64_t n_chunks;   /* of a sequence at most */
    int64_t *cuts;      /* (n_sequences, n_chunks + 1): chunk c is keys [cuts[c], cuts[c + 1]) */
    int64_t chunk_keys; /* of an item at most, padded to SP_CPU_KEYS */

    /* backward, if chunks are items */
    bool shares;
    int64_t shared_rows;   /* of a query head, those of all sequences */
    sp_cpu_queries shared; /* (H,shared_rows,...), dq (n_chunks,H,shared_rows,D) */
    int64_t n_row_items;   /* that prepare queries before the items, and sum dq after them */
    sp_cpu_item *row_items;
} sp_cpu_plan;

/* The bodies of one instruction set.  `scratch` is the thread's own, of sp_cpu_scratch_floats. */
typedef struct sp_cpu_body {
    void (*forward)(const sp_cpu_plan *plan, const sp_cpu_item *item, float *scratch);
    void (*backward)(const sp_cpu_plan *plan, const sp_cpu_item *item, float *scratch);
    void (*backward_before)(const sp_cpu_plan *plan, const sp_cpu_item *item, float *scratch); /* row items */
    void (*backward_after)(const sp_cpu_plan *plan, const sp_cpu_item *item, float *scratch);
    void (*rows)(const sp_cpu_plan *plan, const sp_cpu_item *item, float *scratch, sp_attention_row_function function,
                 void *user);
} sp_cpu_body;

extern const sp_cpu_body sp_cpu_body_scalar, sp_cpu_body_avx2, sp_cpu_body_avx512, sp_cpu_body_neon;

/* ---- scratch of one thread; all sizes in floats ---------------------------------------------------------------- */

typedef struct sp_cpu_forward_scratch {
    float *q;     /* (n_queries,D) scaled: its products are scores in log2 units */
    float *out;   /* (n_queries,Dv) */
    float *shift; /* (n_queries) */
    float *sum;   /* (n_queries,LANES) */
    float *kt;    /* (D,KEYS) one block of keys, transposed */
    float *v;     /* (KEYS,Dv) one block of values */
    float *score; /* (ROWS,KEYS) scores, then numerators */
    float *row;   /* (LANES, max(D,Dv)) rows on their way into kt */
    float *notes; /* (n_queries,NOTE_FLOATS) a row_notes each, if statistics are wanted */
} sp_cpu_forward_scratch;

typedef struct sp_cpu_backward_scratch {
    sp_cpu_queries queries; /* (max_q,...) of a query head; none if they are shared */
    float *part;            /* (RESIDENT or PREPARED queries, D) dq of one chunk */
    float *row;             /* (LANES, max(D,Dv)) */
    float *dk, *dv;         /* (chunk_keys,D) (chunk_keys,Dv) */
    float *kt, *k, *vt;     /* (D,KEYS) (KEYS,D) (Dv,KEYS) one block */
    float *score, *value;   /* (QUERIES_BACKWARD,KEYS) scores then weights; dout . v then score gradients */
} sp_cpu_backward_scratch;

typedef struct sp_cpu_rows_scratch {
    float *q;      /* (ROWS,D) */
    float *kt;     /* (max_k/KEYS, D, KEYS) all keys of the head */
    float *score;  /* (ROWS,max_k) */
    float *weight; /* (max_k) one row */
    float *row;    /* (LANES,D) */
} sp_cpu_rows_scratch;

/* Point the members into `base` and return how many floats they take; with base NULL only that. */
int64_t sp_cpu_forward_carve(const sp_cpu_plan *plan, float *base, sp_cpu_forward_scratch *scratch);
int64_t sp_cpu_backward_carve(const sp_cpu_plan *plan, float *base, sp_cpu_backward_scratch *scratch);
int64_t sp_cpu_rows_carve(const sp_cpu_plan *plan, float *base, sp_cpu_rows_scratch *scratch);

/* Queries [first, end) of a sequence. */
typedef struct sp_cpu_range {
    int64_t first, end;
} sp_cpu_range;

/* The queries that see some key of [first, end). */
sp_cpu_range sp_cpu_queries_that_see(const sp_attention *problem, const sp_sequence *sequence, int64_t first,
                                     int64_t end);

/* Where queries [first, + SP_CPU_QUERIES_PREPARED) have their part of dsink and drow_factor. */
static inline int64_t sp_cpu_sums_index(const sp_cpu_plan *plan, int64_t sequence, int64_t h, int64_t first) {
    return (sequence * plan->problem->q.shape[2] + h) * plan->n_sums + first / SP_CPU_QUERIES_PREPARED;
}

/* Queries that stay in the second-level cache, with dout and dq, while keys pass by. */
int64_t sp_cpu_resident_queries(const sp_cpu_plan *plan);

/* The shared rows of query head h of sequence i, dq that of one chunk. */
sp_cpu_queries sp_cpu_shared_queries(const sp_cpu_plan *plan, int64_t i, int64_t h, int64_t chunk);

/* ---- the driver ------------------------------------------------------------------------------------------------- */

SP_MUST_CHECK sp_status sp_cpu_workspace(const sp_attention *problem, sp_attention_pass pass, int n_threads,
                                         int64_t *n_bytes);
/* `workspace`: as many bytes as sp_cpu_workspace says for the same arguments. */
void sp_cpu_run(const sp_cpu_body *body, const sp_attention *problem, sp_attention_pass pass, int n_threads,
                void *workspace);
SP_MUST_CHECK sp_status sp_cpu_rows(const sp_cpu_body *body, const sp_attention *problem,
                                    sp_attention_row_function function, void *user);

#endif
