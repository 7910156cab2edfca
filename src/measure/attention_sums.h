/* What attention maps come to by the sums of their rows: nothing of size T x T is kept. */
#ifndef SP_MEASURE_ATTENTION_SUMS_H
#define SP_MEASURE_ATTENTION_SUMS_H

#include <stdint.h>

#include "base/status.h"
#include "softpick/attention.h"

enum { SP_SINK_THRESHOLDS = 2 };
extern const double sp_sink_thresholds[SP_SINK_THRESHOLDS]; /* 0.3, 0.2 */

enum { SP_NEAR_ZEROS = 2 };
extern const float sp_near_zeros[SP_NEAR_ZEROS]; /* 1e-6, 1e-2: an output below this in all channels counts as none */

#define SP_SMALL_WEIGHT    1e-5f /* a weight up to this counts as zero in sparsity_threshold */
#define SP_SILENT_SHARE    0.95  /* share of tokens above which a head counts as silent, or dead */
#define SP_SINK_LENGTH_MIN 64    /* tokens: shorter sequences say little about sinks (the first query alone is 1/T) */

/* What sequences, or the first so many tokens of each, say of their first token. */
typedef struct sp_sink_sums {
    int64_t n_sequences;
    double first_mass;  /* sum over sequences of the mean weight on the first token */
    double first_share; /* the same of the weight divided by its row's sum, over the rows that are not silent */
    int64_t n_sinks[SP_SINK_THRESHOLDS];       /* sequences whose mean weight exceeds the threshold */
    int64_t n_sinks_share[SP_SINK_THRESHOLDS]; /* the same by the share */
} sp_sink_sums;

/* Sums of one head of one layer; all means are taken from them. */
typedef struct sp_head_sums {
    int64_t n_queries;
    int64_t n_silent;                   /* queries whose weights are all exactly 0 */
    int64_t n_near_zero[SP_NEAR_ZEROS]; /* queries whose output is below sp_near_zeros in all channels */
    int64_t n_pairs;                    /* (query, key) that the mask lets see each other */
    int64_t n_zero;                     /* pairs of weight exactly 0 */
    int64_t n_small;                    /* pairs of weight <= SP_SMALL_WEIGHT */
    double mass;                        /* sum over queries of the row's sum */
    sp_sink_sums sinks;                 /* of the sequences long enough for a sink rate */
} sp_head_sums;

/* Sinks by length: the first t rows of a causal pass are the pass over the first t tokens. */
typedef struct sp_sink_lengths {
    int64_t n;
    const int64_t *length; /* (n), rising */
    sp_sink_sums *sums;    /* (H,n): of the sequences that are as long */
} sp_sink_lengths;

/* Adds every head of the problem (q, k and out filled; out.data NULL: outputs are not looked at) to heads (H), and to
 * `lengths` (NULL: not wanted).  Sequences shorter than `sink_length_min` tokens are left out of heads[].sinks.
 * Independent of the number of threads. */
SP_MUST_CHECK sp_status sp_head_sums_add(sp_head_sums *heads, const sp_sink_lengths *lengths,
                                         const sp_attention *problem, int64_t sink_length_min);

#endif
