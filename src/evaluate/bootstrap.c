/* lm-eval draws samples in lots of 1000: lot i by Random(i).choices(values, k=n).  Sums run in the order of the draws, so
 * that the result is Python's but for the compensated summation of Python 3.12 and later. */
#include "evaluate/bootstrap.h"

#include <math.h>
#include <stdlib.h>

#include "base/memory.h"
#include "evaluate/python_random.h"

enum { LOT = 1000 };

static double mean(const double *values, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += values[i];
    return sum / (double)n;
}

static double sample_deviation(const double *values, int64_t n) {
    double centre = mean(values, n), squares = 0;
    for (int64_t i = 0; i < n; i++) squares += (values[i] - centre) * (values[i] - centre);
    return sqrt(squares / (double)(n - 1));
}

static void draw_lot(double *perplexities, int64_t n_lot, int64_t lot, const double *values, int64_t n) {
    sp_python_random random;
    sp_python_random_seed(&random, (uint64_t)lot);
    for (int64_t sample = 0; sample < n_lot; sample++) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++) sum += values[(int64_t)(sp_python_random_uniform(&random) * (double)n)];
        perplexities[sample] = exp(-(sum / (double)n));
    }
}

sp_status sp_bootstrap_perplexity(double *standard_error, const double *values, int64_t n, int64_t n_samples) {
    double *perplexities = NULL;
    SP_TRY(sp_allocate((void **)&perplexities, n_samples * (int64_t)sizeof *perplexities, "bootstrap samples"));
    int64_t n_lot = n_samples < LOT ? n_samples : LOT, n_lots = n_samples / n_lot;
#pragma omp parallel for schedule(dynamic)
    for (int64_t lot = 0; lot < n_lots; lot++) draw_lot(perplexities + lot * n_lot, n_lot, lot, values, n);
    *standard_error = sample_deviation(perplexities, n_lots * n_lot);
    free(perplexities);
    return SP_OK;
}
