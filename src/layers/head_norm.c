/* RMSNorm of each query and key head by itself (arXiv 2010.04245 proposed the place, Qwen3 and fla the form).
 * The gradient of the weight is summed over SECTIONS runs of tokens, as in rmsnorm.c. */
#include "layers/layers_cpu.h"

#include <string.h>

#include "layers/row_kernels.h"

enum { SECTIONS = 64 };

sp_status sp_cpu_head_norm_forward(sp_device *device, void *x, sp_dtype act, int64_t row_stride, void *kept,
                                   int64_t kept_stride, const float *weight, int64_t N, int64_t n_heads, int64_t D,
                                   float eps) {
    (void)device;
    const sp_row_kernels *kernels = sp_row_kernels_best();
    int64_t act_bytes = sp_dtype_bytes(act);
#pragma omp parallel for schedule(static) if (N > 1)
    for (int64_t n = 0; n < N; n++) {
        char *row = (char *)x + n * row_stride * act_bytes;
        if (kept) memcpy((char *)kept + n * kept_stride * act_bytes, row, (size_t)(n_heads * D * act_bytes));
        kernels->head_norm(row, act, weight, n_heads, D, eps);
    }
    return SP_OK;
}

sp_status sp_cpu_head_norm_backward(sp_device *device, void *dx, sp_dtype act, int64_t row_stride, float *dweight,
                                    const void *kept, int64_t kept_stride, const float *weight, int64_t N,
                                    int64_t n_heads, int64_t D, float eps, void *workspace) {
    (void)device;
    const sp_row_kernels *kernels = sp_row_kernels_best();
    int64_t act_bytes = sp_dtype_bytes(act);
    float *sums = workspace; /* (SECTIONS, D) */
#pragma omp parallel for schedule(static)
    for (int64_t section = 0; section < SECTIONS; section++) {
        float *sum = sums + section * D;
        memset(sum, 0, (size_t)D * sizeof *sum);
        for (int64_t n = section * N / SECTIONS; n < (section + 1) * N / SECTIONS; n++)
            kernels->head_norm_gradient((char *)dx + n * row_stride * act_bytes, sum, act,
                                        (const char *)kept + n * kept_stride * act_bytes, weight, n_heads, D, eps);
    }
    for (int64_t section = 0; section < SECTIONS; section++) kernels->add(dweight, sums + section * D, D);
    return SP_OK;
}
