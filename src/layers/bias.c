/* Biases of linear layers.  A column of the gradient is summed by one thread, over runs of RUN rows and then over the
 * runs: the bits do not depend on the number of threads. */
#include "layers/layers_cpu.h"

#include <string.h>

#include "layers/row_kernels.h"

enum { COLUMNS = 512, RUN = 256 };

sp_status sp_cpu_bias_add(sp_device *device, void *y, sp_dtype y_dtype, int64_t y_stride, const float *bias, int64_t N,
                          int64_t M) {
    (void)device;
    const sp_row_kernels *kernels = sp_row_kernels_best();
    int64_t row_bytes = y_stride * sp_dtype_bytes(y_dtype);
#pragma omp parallel for schedule(static) if (N > 1)
    for (int64_t n = 0; n < N; n++) kernels->add_to((char *)y + n * row_bytes, y_dtype, bias, M);
    return SP_OK;
}

int64_t sp_cpu_bias_workspace(int64_t M) {
    (void)M;
    return 0;
}

sp_status sp_cpu_bias_backward(sp_device *device, float *dbias, const void *dy, int64_t dy_stride, sp_dtype act,
                               int64_t N, int64_t M, void *workspace) {
    (void)device;
    (void)workspace;
    const sp_row_kernels *kernels = sp_row_kernels_best();
    int64_t act_bytes = sp_dtype_bytes(act);
#pragma omp parallel for schedule(static)
    for (int64_t m = 0; m < M; m += COLUMNS) {
        int64_t n_columns = M - m < COLUMNS ? M - m : COLUMNS;
        for (int64_t first = 0; first < N; first += RUN) {
            float sum[COLUMNS] = {0};
            for (int64_t n = first; n < N && n < first + RUN; n++)
                kernels->add_from(sum, (const char *)dy + (n * dy_stride + m) * act_bytes, act, n_columns);
            kernels->add(dbias + m, sum, n_columns);
        }
    }
    return SP_OK;
}
