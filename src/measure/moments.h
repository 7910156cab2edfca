/* Mean, central moments and extremes of a stream of numbers, in double, without keeping the stream. */
#ifndef SP_MEASURE_MOMENTS_H
#define SP_MEASURE_MOMENTS_H

#include <stdint.h>

/* A zeroed struct is the empty stream. */
typedef struct sp_moments {
    int64_t n;
    double mean, m2, m3, m4; /* m_k: sum of (x - mean)^k */
    double min, max;
} sp_moments;

/* The moments of n numbers.  Independent of the number of threads. */
sp_moments sp_moments_of(const float *x, int64_t n);
/* Adds the stream `more` to `sum`. */
void sp_moments_merge(sp_moments *sum, const sp_moments *more);
/* Fourth central moment over squared variance: 3 for a Gaussian.  NaN when all numbers are equal or there is none. */
double sp_moments_kurtosis(const sp_moments *moments);

#endif
