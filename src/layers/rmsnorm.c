/* RMSNorm (arXiv 1910.07467) over rows.
 * The gradient of the weight is summed over SECTIONS runs of rows, each by one thread, and the sums then
 * added in order: the bits do not depend on the number of threads. */
#include "layers/layers.h"

#include <stddef.h>
#include <string.h>

#include "layers/row_kernels.h"

enum { SECTIONS = 64 };

void sp_rmsnorm_forward(void *y, sp_dtype act, float *rstd, const float *x, const float *weight, int64_t N, int64_t C,
                        float eps) {
    const sp_row_kernels *kernels = sp_row_kernels_best();
    int64_t row_bytes = C * sp_dtype_bytes(act);
#pragma omp parallel for schedule(static) if (N > 1)
    for (int64_t n = 0; n < N; n++) {
        float r = kernels->rmsnorm((char *)y + n * row_bytes, act, x + n * C, weight, C, eps);
        if (rstd) rstd[n] = r;
    }
}

int64_t sp_rmsnorm_workspace(int64_t C) { return SECTIONS * C * (int64_t)sizeof(float); }

void sp_rmsnorm_backward(float *dx, float *dweight, const void *dy, sp_dtype act, const float *x, const float *weight,
                         const float *rstd, int64_t N, int64_t C, void *workspace) {
    const sp_row_kernels *kernels = sp_row_kernels_best();
    int64_t row_bytes = C * sp_dtype_bytes(act);
    float *sums = workspace; /* (SECTIONS, C) */
#pragma omp parallel for schedule(static)
    for (int64_t section = 0; section < SECTIONS; section++) {
        float *sum = sums + section * C;
        memset(sum, 0, (size_t)C * sizeof *sum);
        for (int64_t n = section * N / SECTIONS; n < (section + 1) * N / SECTIONS; n++)
            kernels->rmsnorm_gradient(dx + n * C, sum, (const char *)dy + n * row_bytes, act, x + n * C, weight,
                                      rstd[n], C);
    }
    for (int64_t section = 0; section < SECTIONS; section++) kernels->add(dweight, sums + section * C, C);
}
