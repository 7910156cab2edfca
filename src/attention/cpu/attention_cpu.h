/* Attention on the CPU: what the instruction sets' bodies (attention_cpu.inc) and the driver (attention_cpu.c) share.
 *
 * A pass is cut into items, each computed by one thread from first to last in a fixed order, so that results depend on
 * neither the number of threads nor their timing:
 *   forward   up to n_queries queries of one head      backward, rows   one key/value head, one head
 * Inside, everything is f32: rows are widened when they are packed and narrowed when they are stored. */
#ifndef SP_ATTENTION_CPU_H
#define SP_ATTENTION_CPU_H

#include "attention/problem.h"

enum {
    SP_CPU_LANES = 16, /* inner dimensions are padded to the widest vector, with zeros */
    SP_CPU_ROWS = 8,   /* queries computed together */
    SP_CPU_KEYS = 64,  /* keys of a block: K and V of a block at D = 64 fill most of a 48 KB first-level cache */
    SP_CPU_QUERIES_FORWARD = 256, /* of an item at most: what packing a block of keys is spread over */
    SP_CPU_QUERIES_BACKWARD = 64, /* of a block */
    SP_CPU_GRADIENT_FLOATS = 8,   /* room for a row_gradient */
    SP_CPU_NOTE_FLOATS = 8,       /* room for a row_notes */
};

typedef struct sp_cpu_item {
    int64_t sequence;
    int64_t head;     /* backward: the key/value head */
    int64_t first, n; /* queries */
    int64_t work;     /* scores to compute */
} sp_cpu_item;

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
    double *dsink, *drow_factor; /* (n_sequences,H): summed in order at the end */
} sp_cpu_plan;

/* The bodies of one instruction set.  `scratch` is the thread's own, of sp_cpu_scratch_floats. */
typedef struct sp_cpu_body {
    void (*forward)(const sp_cpu_plan *plan, const sp_cpu_item *item, float *scratch);
    void (*backward)(const sp_cpu_plan *plan, const sp_cpu_item *item, float *scratch);
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
    float *q, *dq;        /* (max_q,D) q scaled as above */
    float *dout;          /* (max_q,Dv) */
    float *row;           /* (LANES, max(D,Dv)) */
    float *gradient;      /* (max_q,GRADIENT_FLOATS) a row_gradient each */
    float *dk, *dv;       /* (max_k,D) (max_k,Dv) */
    float *kt, *k, *vt;   /* (D,KEYS) (KEYS,D) (Dv,KEYS) one block */
    float *score, *value; /* (QUERIES_BACKWARD,KEYS) scores then weights; dout . v then score gradients */
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

/* ---- the driver ------------------------------------------------------------------------------------------------- */

SP_MUST_CHECK sp_status sp_cpu_workspace(const sp_attention *problem, sp_attention_pass pass, int n_threads,
                                         int64_t *n_bytes);
/* `workspace`: as many bytes as sp_cpu_workspace says for the same arguments. */
void sp_cpu_run(const sp_cpu_body *body, const sp_attention *problem, sp_attention_pass pass, int n_threads,
                void *workspace);
SP_MUST_CHECK sp_status sp_cpu_rows(const sp_cpu_body *body, const sp_attention *problem,
                                    sp_attention_row_function function, void *user);

#endif
