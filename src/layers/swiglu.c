/* SwiGLU (arXiv 2002.05202): silu(g) * u over rows that hold g and u side by side. */
#include "layers/layers_cpu.h"

#include <stddef.h>

#include "layers/row_kernels.h"

sp_status sp_cpu_swiglu_forward(sp_device *device, void *s, const void *gu, sp_dtype act, int64_t N, int64_t F) {
    (void)device;
    const sp_row_kernels *kernels = sp_row_kernels_best();
    int64_t half = F * sp_dtype_bytes(act);
#pragma omp parallel for schedule(static) if (N > 1)
    for (int64_t n = 0; n < N; n++) {
        const char *g = (const char *)gu + n * 2 * half;
        kernels->swiglu((char *)s + n * half, g, g + half, act, F);
    }
    return SP_OK;
}

sp_status sp_cpu_swiglu_backward(sp_device *device, void *dgu, void *s, const void *ds, const void *gu, sp_dtype act,
                                 int64_t N, int64_t F) {
    (void)device;
    const sp_row_kernels *kernels = sp_row_kernels_best();
    int64_t half = F * sp_dtype_bytes(act);
#pragma omp parallel for schedule(static) if (N > 1)
    for (int64_t n = 0; n < N; n++) {
        char *dg = (char *)dgu + n * 2 * half;
        const char *g = (const char *)gu + n * 2 * half;
        kernels->swiglu_gradient(dg, dg + half, s ? (char *)s + n * half : NULL, (const char *)ds + n * half, g,
                                 g + half, act, F);
    }
    return SP_OK;
}
