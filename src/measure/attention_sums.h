/* What attention maps come to, summed row by row: nothing of size T x T is kept. */
#ifndef SP_MEASURE_ATTENTION_SUMS_H
#define SP_MEASURE_ATTENTION_SUMS_H

#include <stdint.h>

#include "base/status.h"
#include "softpick/attention.h"

enum { SP_SINK_THRESHOLDS = 2 };
extern const double sp_sink_thresholds[SP_SINK_THRESHOLDS]; /* 0.3, 0.2 */

#define SP_SMALL_WEIGHT    1e-5f /* a weight up to this counts as zero in sparsity_threshold */
#define SP_NEAR_ZERO       1e-6f /* an output below this in all channels counts as none in dead_heads */
#define SP_SILENT_SHARE    0.95  /* share of tokens above which a head counts as silent, or dead */
#define SP_SINK_LENGTH_MIN 64    /* tokens: shorter sequences say little about sinks (the first query alone is 1/T) */

/* Sums of one head of one layer; all means are taken from them. */
typedef struct sp_head_sums {
    int64_t n_queries;
    int64_t n_silent;    /* queries whose weights are all exactly 0 */
    int64_t n_near_zero; /* queries whose output is below SP_NEAR_ZERO in all channels */
    int64_t n_pairs;     /* (query, key) that the mask lets see each other */
    int64_t n_zero;      /* pairs of weight exactly 0 */
    int64_t n_small;     /* pairs of weight <= SP_SMALL_WEIGHT */
    double mass;         /* sum over queries of the row's sum */

    /* over the sequences long enough for a sink rate */
    int64_t n_sequences;
    double first_mass;  /* sum over sequences of the mean weight on the first token */
    double first_share; /* the same of the weight divided by its row's sum, over the rows that are not silent */
    int64_t n_sinks[SP_SINK_THRESHOLDS];       /* sequences whose mean weight exceeds the threshold */
    int64_t n_sinks_share[SP_SINK_THRESHOLDS]; /* the same by the share */
} sp_head_sums;

/* Adds every head of the problem (q, k and out filled; out.data NULL: outputs are not looked at) to heads (H).
 * Sequences shorter than `sink_length_min` tokens are left out of what concerns the first token.  Independent of the
 * number of threads. */
SP_MUST_CHECK sp_status sp_head_sums_add(sp_head_sums *heads, const sp_attention *problem, int64_t sink_length_min);

#endif
