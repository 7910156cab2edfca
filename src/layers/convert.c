/* Conversion between f32, bf16 and f16. */
#include "layers/layers_cpu.h"

#include "layers/row_kernels.h"

enum { RUN = 4096 };

void sp_convert(void *out, sp_dtype out_dtype, const void *in, sp_dtype in_dtype, int64_t n) {
    const sp_row_kernels *kernels = sp_row_kernels_best();
    int64_t out_bytes = sp_dtype_bytes(out_dtype), in_bytes = sp_dtype_bytes(in_dtype);
#pragma omp parallel for schedule(static) if (n > RUN)
    for (int64_t i = 0; i < n; i += RUN)
        kernels->convert((char *)out + i * out_bytes, out_dtype, (const char *)in + i * in_bytes, in_dtype,
                         n - i < RUN ? n - i : RUN);
}

sp_status sp_cpu_convert(sp_device *device, void *out, sp_dtype out_dtype, const void *in, sp_dtype in_dtype,
                         int64_t n) {
    (void)device;
    sp_convert(out, out_dtype, in, in_dtype, n);
    return SP_OK;
}
