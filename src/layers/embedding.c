/* Embedding: rows of a table by token, and the gradient added back to them; rows of any array by number. */
#include "layers/layers_cpu.h"

#include <omp.h>
#include <string.h>

#include "layers/row_kernels.h"

sp_status sp_cpu_embedding_forward(sp_device *device, float *x, const float *table, const int32_t *tokens, int64_t N,
                                   int64_t C) {
    (void)device;
#pragma omp parallel for schedule(static) if (N > 1)
    for (int64_t n = 0; n < N; n++) memcpy(x + n * C, table + (int64_t)tokens[n] * C, (size_t)C * sizeof *x);
    return SP_OK;
}

sp_status sp_cpu_gather_rows(sp_device *device, void *to, const void *from, int64_t from_stride, const int32_t *rows,
                             int64_t row_bytes, int64_t n) {
    (void)device;
#pragma omp parallel for schedule(static) if (n > 1)
    for (int64_t i = 0; i < n; i++)
        memcpy((char *)to + i * row_bytes, (const char *)from + rows[i] * from_stride, (size_t)row_bytes);
    return SP_OK;
}

/* A thread owns the tokens whose number is its own modulo the number of threads: no two threads touch one
 * row, and every row adds its gradients in the order of n, so the bits do not depend on the number of
 * threads. */
sp_status sp_cpu_embedding_backward(sp_device *device, float *dtable, const float *dx, const int32_t *tokens, int64_t N,
                                    int64_t C, void *workspace) {
    (void)device, (void)workspace;
    const sp_row_kernels *kernels = sp_row_kernels_best();
#pragma omp parallel if (N > 1)
    {
        int32_t n_threads = omp_get_num_threads(), thread = omp_get_thread_num();
        for (int64_t n = 0; n < N; n++)
            if (tokens[n] % n_threads == thread) kernels->add(dtable + (int64_t)tokens[n] * C, dx + n * C, C);
    }
    return SP_OK;
}

int64_t sp_cpu_embedding_workspace(int64_t N) {
    (void)N;
    return 0;
}
