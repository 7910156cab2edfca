/* One matrix product with free strides, and the table of what can run it. */
#ifndef SP_LAYERS_MATMUL_H
#define SP_LAYERS_MATMUL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "device/variant.h"
#include "softpick/tensor.h"

/* A matrix in memory; strides in elements, one of them 1. */
typedef struct sp_matrix {
    const void *data;
    sp_dtype dtype;
    int64_t row_stride, column_stride;
} sp_matrix;

/* c (M,N) = a (M,K) b (K,N), or c += when `accumulate`; summed in f32; M, N, K >= 1.  a and b: f32 or bf16, both alike;
 * c: f32, or the dtype of a and then not accumulated into. */
typedef struct sp_product {
    int64_t M, N, K;
    sp_matrix a, b;
    void *c;
    sp_dtype c_dtype;
    int64_t c_stride;
    bool accumulate;
} sp_product;

/* One row of the table. */
typedef struct sp_matmul_row {
    sp_variant variant; /* its problem: a sp_product, of which it reads the dtypes */
    sp_status (*run)(const sp_product *product);
} sp_matmul_row;

/* Best first; SP_MATMUL may name a row. */
extern const sp_variant_table sp_matmul_table;

SP_MUST_CHECK sp_status sp_matmul_run(const sp_product *product);

SP_MUST_CHECK sp_status sp_matmul_onednn(const sp_product *product);
SP_MUST_CHECK sp_status sp_matmul_plain(const sp_product *product);

#endif
