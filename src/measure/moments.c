/* Moments by two passes over short blocks, merged by the pairwise formulas of Chan et al. (1979) and Pebay (2008).
 * Raw sums of powers would lose everything to cancellation where the mean is large against the spread; here a
 * difference from the block's own mean is taken before any power.
 *
 * Blocks have a fixed length and are merged in order, so the bits do not depend on the threads. */
#include "measure/moments.h"

#include <math.h>

enum { BLOCK = 4096, GROUP = 64 }; /* numbers in a block; blocks computed before they are merged */

static sp_moments block_moments(const float *x, int64_t n) {
    double sum = 0, min = x[0], max = x[0];
    for (int64_t i = 0; i < n; i++) {
        sum += x[i];
        min = x[i] < min ? x[i] : min;
        max = x[i] > max ? x[i] : max;
    }
    sp_moments block = {.n = n, .mean = sum / (double)n, .min = min, .max = max};
    for (int64_t i = 0; i < n; i++) {
        double d = x[i] - block.mean, d2 = d * d;
        block.m2 += d2;
        block.m3 += d2 * d;
        block.m4 += d2 * d2;
    }
    return block;
}

void sp_moments_merge(sp_moments *sum, const sp_moments *more) {
    if (more->n == 0) return;
    if (sum->n == 0) {
        *sum = *more;
        return;
    }
    const sp_moments a = *sum, b = *more;
    double na = (double)a.n, nb = (double)b.n, n = na + nb, d = b.mean - a.mean, r = d / n;
    sum->n = a.n + b.n;
    sum->mean = a.mean + r * nb;
    sum->m2 = a.m2 + b.m2 + d * r * na * nb;
    sum->m3 = a.m3 + b.m3 + d * r * r * na * nb * (na - nb) + 3 * r * (na * b.m2 - nb * a.m2);
    sum->m4 = a.m4 + b.m4 + d * r * r * r * na * nb * (na * na - na * nb + nb * nb) +
              6 * r * r * (na * na * b.m2 + nb * nb * a.m2) + 4 * r * (na * b.m3 - nb * a.m3);
    sum->min = fmin(a.min, b.min);
    sum->max = fmax(a.max, b.max);
}

sp_moments sp_moments_of(const float *x, int64_t n) {
    sp_moments sum = {0}, part[GROUP];
    int64_t n_blocks = (n + BLOCK - 1) / BLOCK;
    for (int64_t group = 0; group < n_blocks; group += GROUP) {
        int64_t end = group + GROUP < n_blocks ? group + GROUP : n_blocks;
#pragma omp parallel for schedule(static)
        for (int64_t i = group; i < end; i++)
            part[i - group] = block_moments(x + i * BLOCK, i + 1 < n_blocks ? BLOCK : n - i * BLOCK);
        for (int64_t i = group; i < end; i++) sp_moments_merge(&sum, &part[i - group]);
    }
    return sum;
}

double sp_moments_kurtosis(const sp_moments *moments) {
    double variance = moments->m2 / (double)moments->n;
    return moments->m4 / (double)moments->n / (variance * variance);
}
