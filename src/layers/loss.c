/* Cross entropy over rows of logits, what they say of given tokens, and sums.  Sums are taken over SECTIONS runs of numbers and then
 * in order: the bits do not depend on the number of threads. */
#include "layers/layers_cpu.h"

#include <string.h>

#include "layers/row_kernels.h"

enum { SECTIONS = 256 };

sp_status sp_cpu_cross_entropy(sp_device *device, double *losses, void *logits, sp_dtype logits_dtype,
                               const int32_t *targets, int64_t n, int64_t V, bool gradient, float gradient_scale) {
    (void)device;
    const sp_row_kernels *kernels = sp_row_kernels_best();
    int64_t row_bytes = V * sp_dtype_bytes(logits_dtype);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        char *row = (char *)logits + i * row_bytes;
        losses[i] = 0;
        if (targets[i] >= 0)
            losses[i] = kernels->cross_entropy(row, logits_dtype, targets[i], V, gradient, gradient_scale);
        else if (gradient)
            memset(row, 0, (size_t)row_bytes);
    }
    return SP_OK;
}

sp_status sp_cpu_predictions(sp_device *device, float *log_probabilities, bool *greedy, const float *logits,
                             const int32_t *targets, int64_t n, int64_t V) {
    (void)device;
    const sp_row_kernels *kernels = sp_row_kernels_best();
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++)
        log_probabilities[i] = kernels->prediction(logits + i * V, targets[i], V, &greedy[i]);
    return SP_OK;
}

sp_status sp_cpu_sum(sp_device *device, double *sum, const double *values, int64_t n) {
    (void)device;
    double sums[SECTIONS] = {0};
#pragma omp parallel for schedule(static) if (n > SECTIONS * 64)
    for (int64_t section = 0; section < SECTIONS; section++)
        for (int64_t i = section * n / SECTIONS; i < (section + 1) * n / SECTIONS; i++) sums[section] += values[i];
    *sum = 0;
    for (int64_t section = 0; section < SECTIONS; section++) *sum += sums[section];
    return SP_OK;
}
