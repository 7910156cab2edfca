/* Cross entropy over rows of logits.  Losses are summed over SECTIONS runs of rows and then in order: the
 * bits do not depend on the number of threads. */
#include "layers/layers.h"

#include <string.h>

#include "layers/row_kernels.h"

enum { SECTIONS = 256 };

void sp_cross_entropy(double *loss_sum, int64_t *n_targets, void *logits, sp_dtype act, const int32_t *targets,
                      int64_t n, int64_t V, bool gradient, float gradient_scale) {
    const sp_row_kernels *kernels = sp_row_kernels_best();
    int64_t row_bytes = V * sp_dtype_bytes(act);
    double sums[SECTIONS] = {0};
    int64_t counts[SECTIONS] = {0};
#pragma omp parallel for schedule(static)
    for (int64_t section = 0; section < SECTIONS; section++) {
        for (int64_t i = section * n / SECTIONS; i < (section + 1) * n / SECTIONS; i++) {
            char *row = (char *)logits + i * row_bytes;
            if (targets[i] >= 0) {
                sums[section] += kernels->cross_entropy(row, act, targets[i], V, gradient, gradient_scale);
                counts[section]++;
            } else if (gradient)
                memset(row, 0, (size_t)row_bytes);
        }
    }
    for (int64_t section = 0; section < SECTIONS; section++) {
        *loss_sum += sums[section];
        *n_targets += counts[section];
    }
}
