/* What the residual stream comes to: moments and extremes of every layer, massive activations. */
#ifndef SP_MEASURE_HIDDEN_SUMS_H
#define SP_MEASURE_HIDDEN_SUMS_H

#include <stdint.h>

#include "base/status.h"
#include "measure/moments.h"

#define SP_MASSIVE_VALUE 100.0  /* Sun et al.: a massive activation is larger than this ... */
#define SP_MASSIVE_RATIO 1000.0 /* ... and larger than this many medians of its hidden state */

/* The largest activation of one channel of the residual stream after a block. */
typedef struct sp_peak {
    float value; /* with its sign; 0: none seen */
    int64_t layer, sample, position, channel;
    float median; /* of |x| over the hidden state (tokens x channels of one sample after one block) it stands in */
} sp_peak;

typedef struct sp_hidden_sums {
    int64_t n_layers; /* L */
    int64_t C;
    sp_moments *moments; /* (L+2): embedding, after block 1..L, after the final norm */
    int64_t *n_massive;  /* (L+2): massive activations; counted after blocks alone */
    double *medians;     /* (L+2): sum over samples of the median magnitude, after blocks alone */
    int64_t *n_medians;  /* (L+2) */
    sp_peak *peaks;      /* (L,C): after each block */
    int64_t *counts;     /* workspace of the median */
} sp_hidden_sums;

SP_MUST_CHECK sp_status sp_hidden_sums_open(sp_hidden_sums *sums, int64_t n_layers, int64_t C);
void sp_hidden_sums_close(sp_hidden_sums *sums); /* a zeroed struct is fine */

/* Adds x (T,C), the stream of one sample at `layer` (0..L+1). */
void sp_hidden_sums_add(sp_hidden_sums *sums, int64_t layer, int64_t sample, const float *x, int64_t T);

/* Exact lower median of |x| over n >= 1 numbers (NaN counts as the largest); counts: SP_MEDIAN_COUNTS of workspace. */
enum { SP_MEDIAN_COUNTS = 1 << 16 };
float sp_median_magnitude(const float *x, int64_t n, int64_t *counts);

#endif
