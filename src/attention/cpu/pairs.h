/* Attention over packed bf16: what the bodies (pairs_*.inc, compiled once for AMX and once for AVX512_BF16) and the
 * driver (pairs.c) share.
 *
 * Keys and values of a sequence and key/value head are packed once, into the layouts of tiles.h, in blocks of
 * SP_PAIRS_KEYS keys; then items, up to n_queries queries of one head, are computed by one thread each, in a fixed
 * order, so that results do not depend on the number of threads.
 *
 *   keys    [block][16 tiles of 16 keys][D/32][16 pairs][16 keys][2]        b of  scores = queries keys'
 *   values  [block][Dv/16][8 groups of 32 keys][16 pairs][16 columns][2]   b of  out += weights values
 *
 * with D and Dv padded to 32, keys to whole groups, by zeros.  Packing tells the groups whose values are not all finite:
 * they may not be multiplied by a weight of 0, and are computed key by key. */
#ifndef SP_ATTENTION_PAIRS_H
#define SP_ATTENTION_PAIRS_H

#include "attention/cpu/items.h"
#include "attention/problem.h"

enum {
    SP_PAIRS_KEYS = 256, /* of a block */
    SP_PAIRS_GROUP = 32, /* keys of a tile of weights */
    SP_PAIRS_GROUPS = SP_PAIRS_KEYS / SP_PAIRS_GROUP,
    SP_PAIRS_QUERIES = 512,   /* of an item at most: what reading a block of keys again is spread over */
    SP_PAIRS_PART_KEYS = 128, /* whose scores are computed together */
    SP_PAIRS_STEP = 32,       /* queries that go through a block together */
    SP_PAIRS_WIDTH = 256,     /* of a head at most */
};

typedef struct sp_pairs_plan {
    const sp_attention *problem;
    int64_t D, Dv;     /* padded */
    int64_t n_queries; /* of an item at most */
    int64_t n_items, n_blocks;
    int n_threads;
    sp_cpu_item *items;
    int64_t *first_block;    /* (n_sequences + 1): of head 0 of the sequence; its heads follow each other */
    uint16_t *keys, *values; /* packed */
    uint8_t *wild;           /* (n_blocks) bit g: group g of the block's values is not all finite */
} sp_pairs_plan;

/* Queries that a thread has under way; all sizes in bytes by sp_pairs_forward_carve. */
typedef struct sp_pairs_forward_scratch {
    uint16_t *q;         /* [n_queries/16][D/32] tiles of rows */
    float *out;          /* [n_queries/16][Dv/16] tiles */
    float *sum;          /* (n_queries,16) lanes of the denominators */
    float *scale;        /* (n_queries) what a product with a key is multiplied by to be a score in log2 units */
    float *minus_shift;  /* (n_queries) */
    float *unit;         /* (n_queries) 2^-shift */
    float *score[2];     /* [STEP/16][PART/16] tiles, of a part and the next */
    uint16_t *weight[2]; /* [STEP/16][GROUPS] tiles of rows */
} sp_pairs_forward_scratch;

typedef struct sp_pairs_body {
    void (*open)(void); /* before and after the work of a thread */
    void (*close)(void);
    void (*pack)(const sp_pairs_plan *plan, int64_t block);
    void (*forward)(const sp_pairs_plan *plan, const sp_cpu_item *item, void *scratch);
} sp_pairs_body;

extern const sp_pairs_body sp_pairs_body_amx, sp_pairs_body_avx512_bf16;

/* Whether these bodies can do the problem; if not, *why says what they lack. */
bool sp_pairs_accept(const sp_attention *problem, sp_attention_pass pass, const char **why);
SP_MUST_CHECK sp_status sp_pairs_forward_workspace(const sp_attention *problem, int n_threads, int64_t *n_bytes);
void sp_pairs_forward_run(const sp_pairs_body *body, const sp_attention *problem, int n_threads, void *workspace);

/* Points the members into `base`; returns the bytes they take.  With base NULL only that. */
int64_t sp_pairs_forward_carve(const sp_pairs_plan *plan, void *base, sp_pairs_forward_scratch *scratch);

/* Index of the packed block that holds key `key` of a key/value head. */
static inline int64_t sp_pairs_block(const sp_pairs_plan *plan, int64_t sequence, int64_t key_head, int64_t key) {
    int64_t first = plan->first_block[sequence], n = plan->first_block[sequence + 1] - first;
    return first + n / plan->problem->k.shape[2] * key_head + key / SP_PAIRS_KEYS;
}

#endif
