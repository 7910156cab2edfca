/* Sums over the residual stream.  Massive activations: Sun et al. (arXiv 2402.17762). */
#include "measure/hidden_sums.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

sp_status sp_hidden_sums_open(sp_hidden_sums *sums, int64_t n_layers, int64_t C) {
    *sums = (sp_hidden_sums){.n_layers = n_layers, .C = C};
    int64_t n = n_layers + 2;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_allocate((void **)&sums->moments, n * (int64_t)sizeof *sums->moments, "measures"));
    SP_TRY_OR_DONE(sp_allocate((void **)&sums->n_massive, n * (int64_t)sizeof *sums->n_massive, "measures"));
    SP_TRY_OR_DONE(sp_allocate((void **)&sums->medians, n * (int64_t)sizeof *sums->medians, "measures"));
    SP_TRY_OR_DONE(sp_allocate((void **)&sums->n_medians, n * (int64_t)sizeof *sums->n_medians, "measures"));
    SP_TRY_OR_DONE(sp_allocate((void **)&sums->peaks, n_layers * C * (int64_t)sizeof *sums->peaks, "measures"));
    SP_TRY_OR_DONE(sp_allocate((void **)&sums->counts, SP_MEDIAN_COUNTS * (int64_t)sizeof *sums->counts, "measures"));
done:
    if (status != SP_OK) sp_hidden_sums_close(sums);
    return status;
}

void sp_hidden_sums_close(sp_hidden_sums *sums) {
    free(sums->moments);
    free(sums->n_massive);
    free(sums->medians);
    free(sums->n_medians);
    free(sums->peaks);
    free(sums->counts);
    *sums = (sp_hidden_sums){0};
}

/* Bits of |x|: magnitudes are ordered as these integers are. */
static uint32_t magnitude_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x7fffffffu;
}

/* The bin in which the count of the numbers up to it first exceeds *rank; *rank becomes the rank within it. */
static uint32_t bin_of_rank(const int64_t *counts, int64_t *rank) {
    uint32_t bin = 0;
    for (; *rank >= counts[bin]; bin++) *rank -= counts[bin];
    return bin;
}

float sp_median_magnitude(const float *x, int64_t n, int64_t *counts) {
    int64_t rank = (n - 1) / 2;
    memset(counts, 0, SP_MEDIAN_COUNTS * sizeof *counts);
    for (int64_t i = 0; i < n; i++) counts[magnitude_bits(x[i]) >> 16]++;
    uint32_t high = bin_of_rank(counts, &rank);

    memset(counts, 0, SP_MEDIAN_COUNTS * sizeof *counts);
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = magnitude_bits(x[i]);
        if (bits >> 16 == high) counts[bits & 0xffffu]++;
    }
    uint32_t bits = high << 16 | bin_of_rank(counts, &rank);
    float median;
    memcpy(&median, &bits, sizeof median);
    return median;
}

static void add_massive(sp_hidden_sums *sums, int64_t layer, int64_t sample, const float *x, int64_t T) {
    int64_t C = sums->C;
    sp_peak *peaks = sums->peaks + (layer - 1) * C;
    float median = sp_median_magnitude(x, T * C, sums->counts);
    sums->medians[layer] += (double)median;
    sums->n_medians[layer]++;
    double bound = fmax(SP_MASSIVE_VALUE, SP_MASSIVE_RATIO * (double)median);
    for (int64_t t = 0; t < T; t++)
        for (int64_t c = 0; c < C; c++) {
            float value = x[t * C + c];
            sums->n_massive[layer] += (double)fabsf(value) > bound;
            if (fabsf(value) > fabsf(peaks[c].value)) peaks[c] = (sp_peak){value, layer, sample, t, c, median};
        }
}

void sp_hidden_sums_add(sp_hidden_sums *sums, int64_t layer, int64_t sample, const float *x, int64_t T) {
    sp_moments moments = sp_moments_of(x, T * sums->C);
    sp_moments_merge(&sums->moments[layer], &moments);
    if (layer >= 1 && layer <= sums->n_layers && T > 0) add_massive(sums, layer, sample, x, T);
}
