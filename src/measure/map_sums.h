/* What attention maps come to where single weights count: which keys collect it, how it is spread over a row, and which
 * blocks hold none.  Whole rows are walked on the host, SP_MAP_ROWS queries of one sequence at a time; nothing of size
 * T x T is kept. */
#ifndef SP_MEASURE_MAP_SUMS_H
#define SP_MEASURE_MAP_SUMS_H

#include <stdint.h>

#include "base/status.h"
#include "softpick/model.h"

/* Blocks of attention weights that a kernel may leave out when all in them are exactly 0. */
typedef struct sp_block_size {
    const char *name;
    int64_t queries, keys;
    bool group; /* ... in all heads that share a key */
} sp_block_size;

enum { SP_BLOCK_SIZES = 5, SP_MAP_ROWS = 64 };
extern const sp_block_size sp_block_sizes[SP_BLOCK_SIZES]; /* 16x16 first; queries divide SP_MAP_ROWS */

#define SP_KEY_SINK 0.3 /* a key whose mean weight, over the queries that see it, exceeds this is a sink */

typedef struct sp_map_head {
    int64_t n_blocks[SP_BLOCK_SIZES], n_dead[SP_BLOCK_SIZES]; /* of a group: counted with its first head */
    int64_t n_queries, n_live;                                /* queries; those with a weight above 0 */
    double largest, largest_share; /* sums of a row's largest weight: over all queries; of its row, over live ones */
    int64_t n_wide;                /* live queries that see at least two keys */
    double entropy, entropy_share; /* sums of the row's entropy in nats: over live queries; over ln(keys), wide ones */
    int64_t n_sequences, n_elsewhere; /* sequences; those with a sink in their first half that is not key 0 */
} sp_map_head;

/* Sums over all layers, samples and heads.  Bins are logarithmic: sp_map_bin. */
typedef struct sp_map_bin_sums {
    /* by position of the key; each key of a sequence is one entry */
    int64_t n_keys, n_sinks;
    double key_weight,
        key_share; /* mean weight over the queries that see the key; the same of their rows' sums, over live ones */
    /* by number of keys a query sees */
    int64_t n_queries, n_live;
    double largest, largest_share;
} sp_map_bin_sums;

typedef struct sp_map_sums {
    int64_t H, T, n_bins;
    int64_t group;         /* query heads that share a key head */
    sp_map_head *heads;    /* (L,H) */
    sp_map_bin_sums *bins; /* (n_bins): over layers, heads and samples */
} sp_map_sums;

/* For sequences of up to T tokens. */
SP_MUST_CHECK sp_status sp_map_sums_open(sp_map_sums *sums, const sp_model_config *config, int64_t T);
void sp_map_sums_close(sp_map_sums *sums); /* a zeroed struct is fine */

/* Adds the problem of a layer (q and k filled).  Sequences shorter than `length_min` are left out of what concerns
 * single keys.  Independent of the number of threads. */
SP_MUST_CHECK sp_status sp_map_sums_add(sp_map_sums *sums, int64_t layer, const sp_attention *problem,
                                        int64_t length_min);

/* The bin of the i-th key (or of i + 1 keys), i >= 0: one for each number below 32, then 16 for each doubling. */
int64_t sp_map_bin(int64_t i);
/* The smallest i in a bin. */
int64_t sp_map_bin_first(int64_t bin);

#endif
