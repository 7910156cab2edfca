/* One matrix product of bf16 on a CUDA device, in cuBLASLt's terms: matrices by columns. */
#ifndef SP_LAYERS_MATMUL_CUBLASLT_H
#define SP_LAYERS_MATMUL_CUBLASLT_H

#include <stdbool.h>
#include <stdint.h>

#include "device/device.h"
#include "softpick/tensor.h"

enum { SP_CUBLASLT_WORKSPACE_BYTES = 64 << 20 };

/* d (m,n) = a (m,k) b (k,n), plus c (m,n) where that is not NULL; summed in f32.  Element (i,j) of a matrix lies at
 * i + j * stride; of a transposed one, a or b, at j + i * stride. */
typedef struct sp_cublaslt_product {
    int64_t m, n, k;
    const void *a, *b;
    int64_t a_stride, b_stride;
    bool a_transposed, b_transposed;
    const void *c; /* of d_dtype; may be d */
    void *d;
    sp_dtype d_dtype; /* f32 or bf16 */
    int64_t c_stride, d_stride;
} sp_cublaslt_product;

SP_MUST_CHECK sp_status sp_cublaslt_run(sp_device *device, const sp_cublaslt_product *product);
void sp_cublaslt_free(struct sp_cublaslt *library);

#endif
