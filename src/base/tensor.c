/* Tensor views and the table of dtypes. */
#include "softpick/tensor.h"

static const struct {
    const char *name;
    int64_t bytes;
} dtypes[SP_DTYPE_COUNT] = {
    [SP_DTYPE_F32] = {"f32", 4},   [SP_DTYPE_BF16] = {"bf16", 2},       [SP_DTYPE_F16] = {"f16", 2},
    [SP_DTYPE_F64] = {"f64", 8},   [SP_DTYPE_I64] = {"i64", 8},         [SP_DTYPE_I32] = {"i32", 4},
    [SP_DTYPE_I16] = {"i16", 2},   [SP_DTYPE_I8] = {"i8", 1},           [SP_DTYPE_U8] = {"u8", 1},
    [SP_DTYPE_BOOL] = {"bool", 1}, [SP_DTYPE_F8_E4M3] = {"f8_e4m3", 1}, [SP_DTYPE_F8_E5M2] = {"f8_e5m2", 1},
};

static int known(sp_dtype dtype) { return (int)dtype >= 0 && dtype < SP_DTYPE_COUNT; }

int64_t sp_dtype_bytes(sp_dtype dtype) { return known(dtype) ? dtypes[dtype].bytes : 0; }

const char *sp_dtype_name(sp_dtype dtype) { return known(dtype) ? dtypes[dtype].name : "?"; }

sp_tensor sp_tensor_view(void *data, sp_dtype dtype, int64_t n_dims, const int64_t *shape) {
    sp_tensor tensor = {.data = data, .dtype = dtype, .n_dims = n_dims};
    int64_t stride = 1;
    for (int64_t i = n_dims - 1; i >= 0; i--) {
        tensor.shape[i] = shape[i];
        tensor.stride[i] = stride;
        stride *= shape[i];
    }
    return tensor;
}

int64_t sp_tensor_count(const sp_tensor *tensor) {
    int64_t count = 1;
    for (int64_t i = 0; i < tensor->n_dims; i++) count *= tensor->shape[i];
    return count;
}
