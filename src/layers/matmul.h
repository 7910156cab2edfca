/* One matrix product with free strides, and the table of what can run it. */
#ifndef SP_LAYERS_MATMUL_H
#define SP_LAYERS_MATMUL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "softpick/tensor.h"

/* A matrix in memory; strides in elements, one of them 1. */
typedef struct sp_matrix {
    const void *data;
    sp_dtype dtype;
    int64_t row_stride, column_stride;
} sp_matrix;

/* c (M,N) = a (M,K) b (K,N), or c += when `accumulate`.  a and b: f32 or bf16, both alike; c: f32, or the
 * dtype of a, rows contiguous.  Accumulation in f32. */
typedef struct sp_product {
    int64_t M, N, K;
    sp_matrix a, b;
    void *c;
    sp_dtype c_dtype;
    int64_t c_stride;
    bool accumulate; /* c is f32 then */
} sp_product;

typedef struct sp_product_variant {
    const char *name;
    bool (*accepts)(sp_dtype inputs);
    sp_status (*run)(const sp_product *product);
} sp_product_variant;

/* The first row that accepts, or the one that SP_MATMUL names. */
SP_MUST_CHECK sp_status sp_matmul_run(const sp_product *product);
/* The i-th row, best first; NULL past the end. */
const sp_product_variant *sp_product_variant_at(int i);

bool sp_matmul_onednn_accepts(sp_dtype inputs);
SP_MUST_CHECK sp_status sp_matmul_onednn_run(const sp_product *product);
bool sp_matmul_plain_accepts(sp_dtype inputs);
SP_MUST_CHECK sp_status sp_matmul_plain_run(const sp_product *product);

#endif
