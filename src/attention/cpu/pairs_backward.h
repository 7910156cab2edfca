/* Backward over packed bf16 pairs: how the work is cut, and what lies in the workspace.  The driver is in
 * pairs_backward.c, the bodies in pairs_backward.inc.
 *
 * Keys stand still.  An item is a chunk of the keys of one key/value head; it runs through its chunk slab by slab, and
 * for each slab through the blocks of queries of each query head of the group.  It owns dk and dv of its keys.
 * Where heads alone would leave threads idle, a head has several chunks: then each chunk sums its own part of dq, and
 * the parts are added in the order of the keys.  How many chunks there are follows from the shapes alone, so results
 * do not depend on the number of threads. */
#ifndef SP_ATTENTION_PAIRS_BACKWARD_H
#define SP_ATTENTION_PAIRS_BACKWARD_H

#include "attention/problem.h"

enum {
    SP_PAIRS_UNIT = 32,    /* queries and keys are computed in units of 32 x 32 */
    SP_PAIRS_PART = 256,   /* queries packed, and stored, by one thread at a time */
    SP_PAIRS_MAX_UNITS = 8 /* of a slab, and of a block of queries */
};

/* What is kept for each query of a head, 16 queries together: vectors of 16 floats. */
typedef enum sp_pairs_row_constant {
    SP_PAIRS_ROW_SCALE, /* dot product to score in log2 units */
    SP_PAIRS_ROW_SHIFT, /* -lse; very low for a row without weights */
    SP_PAIRS_ROW_ONE,   /* 2^-lse */
    SP_PAIRS_ROW_SLOPE, /* dot product to score in natural units */
    SP_PAIRS_ROW_LIVE,  /* slope * delta */
    SP_PAIRS_ROW_DEAD,  /* slope * lambda * delta */
    SP_PAIRS_ROW_WILD,  /* first float: not 0 if a number of these queries' q or dout is not finite */
    SP_PAIRS_ROW_CONSTANTS
} sp_pairs_row_constant;

/* The queries of one head of one sequence, padded to whole units with zeros. */
typedef struct sp_pairs_queries {
    uint16_t *q_columns, *dout_columns; /* [query/16][d/32] pairs along d: right operands of K q and V dout */
    uint16_t *q_rows, *dout_rows;       /* [query/32][d/16] pairs along queries: right operands of ds q and w dout */
    float *constants;                   /* [query/16][SP_PAIRS_ROW_CONSTANTS][16] */
} sp_pairs_queries;

/* One item's keys and sums.  `n` below: keys of a chunk. */
typedef struct sp_pairs_keys {
    uint16_t *k_rows, *v_rows; /* [key/16][d/32] rows: left operands */
    uint16_t *k_columns;       /* [d/16][key/32] k transposed: left operand of dq' = k' ds' */
    float *dk, *dv;            /* [key/16][d/16] */
    uint8_t *wild;             /* [key/32]: some number of k is not finite */
} sp_pairs_keys;

/* Scratch of one thread. */
typedef struct sp_pairs_backward_scratch {
    sp_pairs_keys keys;
    sp_pairs_queries queries;    /* where chunks do not share them */
    float *dq;                   /* likewise: [query/32][d/16][2] of dq transposed, see pairs_backward.inc */
    uint16_t *weight, *gradient; /* [key/16][query/32] rows of a slab against a block of queries: left operands */
    uint16_t *gradient_pairs;    /* [query/16][key/32] pairs along keys: right operand */
} sp_pairs_backward_scratch;

typedef struct sp_pairs_backward_item {
    int64_t sequence, head;  /* key/value head */
    int64_t chunk;           /* of the sequence */
    int64_t first_part, row; /* of the sequence: see sp_pairs_backward_part */
    int64_t work;            /* scores to compute */
} sp_pairs_backward_item;

/* Queries of one head that are packed, and whose dq is stored, together. */
typedef struct sp_pairs_backward_part {
    int64_t sequence, first; /* first query */
    int64_t row;             /* of the sequence's first query among all padded rows */
} sp_pairs_backward_part;

typedef struct sp_pairs_backward {
    const sp_attention *problem;
    int64_t D, Dv;         /* padded to SP_PAIRS_UNIT */
    int64_t slab, n_block; /* keys of a slab, queries of a block: multiples of SP_PAIRS_UNIT */
    int64_t chunk;         /* keys of a chunk: a multiple of slab */
    int64_t n_chunks;      /* of the longest sequence; more than one: queries are shared */
    int64_t max_q, max_k;  /* of a sequence and of a chunk, padded */
    int64_t n_rows;        /* queries of all sequences, padded */
    int64_t n_items, n_parts;
    int n_threads;
    sp_pairs_backward_item *items;
    sp_pairs_backward_part *parts;
    double *dsink, *drow_factor; /* (H,n_parts): summed in order at the end */
    char *queries;               /* (H,n_rows) of query_bytes, where shared */
    float *dq;                   /* (n_chunks,H,n_rows,D) where shared */
    char *scratch;               /* (n_threads) of scratch_bytes */
    int64_t scratch_bytes;
} sp_pairs_backward;

/* The body of one instruction set. */
typedef struct sp_pairs_backward_body {
    void (*open)(void), (*close)(void); /* of a thread */
    void (*pack)(const sp_pairs_backward *plan, int64_t part, int64_t h);
    void (*item)(const sp_pairs_backward *plan, const sp_pairs_backward_item *item, char *scratch);
    void (*store)(const sp_pairs_backward *plan, int64_t part, int64_t h);
} sp_pairs_backward_body;

extern const sp_pairs_backward_body sp_pairs_backward_amx, sp_pairs_backward_avx512_bf16;

/* Point the members into `base` and return how many bytes they take; with base NULL only that. */
int64_t sp_pairs_queries_carve(const sp_pairs_backward *plan, char *base, int64_t n_rows, sp_pairs_queries *queries);
int64_t sp_pairs_backward_carve(const sp_pairs_backward *plan, char *base, sp_pairs_backward_scratch *scratch);

static inline int64_t sp_pairs_n_chunks(const sp_pairs_backward *plan, const sp_sequence *sequence) {
    return sequence->n_k > plan->chunk ? (sequence->n_k + plan->chunk - 1) / plan->chunk : 1;
}

SP_MUST_CHECK sp_status sp_pairs_backward_workspace(const sp_attention *problem, int n_threads, int64_t *n_bytes);
void sp_pairs_backward_run(const sp_pairs_backward_body *body, const sp_attention *problem, int n_threads,
                           void *workspace);

#endif
