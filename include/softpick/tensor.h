/* A view of numbers in memory, and the letters that name dimensions everywhere.  Stable: may only grow.
 *
 *   B  sequences in a batch        H    query heads               C  channels of the model (H*D unless said)
 *   T  query positions             Hkv  key/value heads (H % Hkv == 0)
 *   S  key positions               D    channels of a head        F  hidden width of the feed-forward
 *   V  vocabulary                  L    layers                    N  tokens of a batch, B*T
 *
 * A shape is written (B,T,H,D); the last dimension is contiguous unless said. */
#ifndef SOFTPICK_TENSOR_H
#define SOFTPICK_TENSOR_H

#include <stdint.h>

#include "softpick/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How one number is stored.  Values are fixed: they stand in files. */
typedef enum sp_dtype {
    SP_DTYPE_F32 = 0,
    SP_DTYPE_BF16 = 1,
    SP_DTYPE_F16 = 2,
    SP_DTYPE_F64 = 3,
    SP_DTYPE_I64 = 4,
    SP_DTYPE_I32 = 5,
    SP_DTYPE_I16 = 6,
    SP_DTYPE_I8 = 7,
    SP_DTYPE_U8 = 8,
    SP_DTYPE_BOOL = 9,
    SP_DTYPE_F8_E4M3 = 10,
    SP_DTYPE_F8_E5M2 = 11,
    SP_DTYPE_COUNT
} sp_dtype;

/* Bytes of one number; 0 for a value outside the enum. */
SP_API int64_t sp_dtype_bytes(sp_dtype dtype);
/* "f32", "bf16", ...; "?" for a value outside the enum. */
SP_API const char *sp_dtype_name(sp_dtype dtype);

enum { SP_MAX_DIMS = 6 };

/* A view: it never owns `data`.  Strides count elements, not bytes. */
typedef struct sp_tensor {
    void *data;
    sp_dtype dtype;
    int32_t device; /* 0: host memory; 1 + i: CUDA device i */
    int64_t n_dims;
    int64_t shape[SP_MAX_DIMS];
    int64_t stride[SP_MAX_DIMS];
} sp_tensor;

/* A contiguous (row-major) host view of `n_dims` dimensions. */
SP_API sp_tensor sp_tensor_view(void *data, sp_dtype dtype, int64_t n_dims, const int64_t *shape);
/* Product of the shape (1 for a scalar). */
SP_API int64_t sp_tensor_count(const sp_tensor *tensor);

#ifdef __cplusplus
}
#endif
#endif
