/* The standard error of a mean's function by resampling, with the random numbers and in the order of lm-eval. */
#ifndef SP_EVALUATE_BOOTSTRAP_H
#define SP_EVALUATE_BOOTSTRAP_H

#include <stdint.h>

#include "base/status.h"

enum { SP_BOOTSTRAP_SAMPLES = 100000 }; /* lm-eval's number */

/* Standard error of exp(-mean(values)), n >= 2: the sample standard deviation over `n_samples` (a multiple of 1000, or
 * fewer than 1000 as one lot) samples of n values drawn with replacement.  n * n_samples additions, on all threads. */
SP_MUST_CHECK sp_status sp_bootstrap_perplexity(double *standard_error, const double *values, int64_t n,
                                                int64_t n_samples);

#endif
