/* RMSNorm (arXiv 1910.07467) over rows.
 * The gradient of the weight is summed over SECTIONS runs of rows, each by one thread, and the sums then
 * added in order: the bits do not depend on the number of threads. */
#include "layers/layers_cpu.h"

#include <stddef.h>
#include <string.h>

#include "layers/row_kernels.h"

enum { SECTIONS = 64 };

sp_status sp_cpu_rmsnorm_forward(sp_device *device, void *y, sp_dtype act, float *rstd, const float *x,
                                 const float *weight, int64_t N, int64_t C, float eps) {
    (void)device;
    const sp_row_kernels *kernels = sp_row_kernels_best();
    int64_t row_bytes = C * sp_dtype_bytes(act);
#pragma omp parallel for schedule(static) if (N > 1)
    for (int64_t n = 0; n < N; n++) {
        float r = kernels->rmsnorm((char *)y + n * row_bytes, act, x + n * C, weight, C, eps);
        if (rstd) rstd[n] = r;
    }
    return SP_OK;
}

int64_t sp_cpu_rmsnorm_workspace(int64_t C) { return SECTIONS * C * (int64_t)sizeof(float); }

typedef struct norm_gradient {
    const sp_row_kernels *kernels;
    float *dx;
    char *dx_act, *y; /* NULL when not wanted */
    const char *dy;
    sp_dtype act;
    const float *x, *weight, *rstd;
    int64_t C, row_bytes;
} norm_gradient;

static void row_gradient(const norm_gradient *g, float *sum, int64_t n) {
    float *dx = g->dx + n * g->C;
    const float *x = g->x + n * g->C;
    g->kernels->rmsnorm_gradient(dx, sum, g->dy + n * g->row_bytes, g->act, x, g->weight, g->rstd[n], g->C);
    if (g->dx_act) g->kernels->convert(g->dx_act + n * g->row_bytes, g->act, dx, SP_DTYPE_F32, g->C);
    if (g->y) g->kernels->rmsnorm_again(g->y + n * g->row_bytes, g->act, x, g->weight, g->rstd[n], g->C);
}

sp_status sp_cpu_rmsnorm_backward(sp_device *device, float *dx, void *dx_act, void *y, float *dweight, const void *dy,
                                  sp_dtype act, const float *x, const float *weight, const float *rstd, int64_t N,
                                  int64_t C, void *workspace) {
    (void)device;
    norm_gradient g = {.kernels = sp_row_kernels_best(),
                       .dx = dx,
                       .dx_act = dx_act,
                       .y = y,
                       .dy = dy,
                       .act = act,
                       .x = x,
                       .weight = weight,
                       .rstd = rstd,
                       .C = C,
                       .row_bytes = C * sp_dtype_bytes(act)};
    float *sums = workspace; /* (SECTIONS, C) */
#pragma omp parallel for schedule(static)
    for (int64_t section = 0; section < SECTIONS; section++) {
        float *sum = sums + section * C;
        memset(sum, 0, (size_t)C * sizeof *sum);
        for (int64_t n = section * N / SECTIONS; n < (section + 1) * N / SECTIONS; n++) row_gradient(&g, sum, n);
    }
    for (int64_t section = 0; section < SECTIONS; section++) g.kernels->add(dweight, sums + section * C, C);
    return SP_OK;
}
