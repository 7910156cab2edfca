/* Views of DLPack tensors.  The public declaration (softpick/dlpack.h) needs DLPack's own header; here the tensor is seen
 * through the equal layout of base/dlpack.h. */
#include "base/dlpack.h"

#include <inttypes.h>
#include <stddef.h>

#include "base/memory.h"
#include "base/status.h"
#include "softpick/tensor.h"

SP_API sp_status sp_tensor_from_dlpack(sp_tensor *out, const sp_dlpack_tensor *tensor);

/* DLPack's numbers for kinds of numbers and of memory. */
enum { CODE_INT = 0, CODE_UINT = 1, CODE_FLOAT = 2, CODE_BFLOAT = 4, CODE_BOOL = 6, CODE_E4M3FN = 10, CODE_E5M2 = 12 };
enum { DEVICE_CPU = 1, DEVICE_CUDA = 2, DEVICE_CUDA_HOST = 3 };

static const struct {
    uint8_t code, bits;
    sp_dtype dtype;
} dtypes[] = {
    {CODE_FLOAT, 32, SP_DTYPE_F32}, {CODE_BFLOAT, 16, SP_DTYPE_BF16},   {CODE_FLOAT, 16, SP_DTYPE_F16},
    {CODE_FLOAT, 64, SP_DTYPE_F64}, {CODE_INT, 64, SP_DTYPE_I64},       {CODE_INT, 32, SP_DTYPE_I32},
    {CODE_INT, 16, SP_DTYPE_I16},   {CODE_INT, 8, SP_DTYPE_I8},         {CODE_UINT, 8, SP_DTYPE_U8},
    {CODE_BOOL, 8, SP_DTYPE_BOOL},  {CODE_E4M3FN, 8, SP_DTYPE_F8_E4M3}, {CODE_E5M2, 8, SP_DTYPE_F8_E5M2},
};

static sp_status read_dtype(sp_dtype *out, const sp_dlpack_tensor *tensor) {
    SP_REQUIRE(tensor->dtype_lanes == 1, SP_UNSUPPORTED, "the DLPack tensor has %d lanes to a number, not 1",
               (int)tensor->dtype_lanes);
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (dtypes[i].code == tensor->dtype_code && dtypes[i].bits == tensor->dtype_bits) {
            *out = dtypes[i].dtype;
            return SP_OK;
        }
    return sp_fail(SP_UNSUPPORTED, "the DLPack tensor has numbers of type code %d with %d bits: no dtype here",
                   (int)tensor->dtype_code, (int)tensor->dtype_bits);
}

static sp_status read_device(int32_t *out, const sp_dlpack_tensor *tensor) {
    int32_t type = tensor->device_type, id = tensor->device_id;
    bool host = type == DEVICE_CPU || type == DEVICE_CUDA_HOST;
    SP_REQUIRE(host || type == DEVICE_CUDA, SP_UNSUPPORTED,
               "the DLPack tensor is on a device of type %" PRId32 ", neither host memory nor a CUDA device", type);
    SP_REQUIRE(host || (id >= 0 && id < INT32_MAX), SP_BAD_ARGUMENT, "the DLPack tensor is on CUDA device %" PRId32,
               id);
    *out = host ? 0 : 1 + id;
    return SP_OK;
}

/* Shape, strides and whether a dimension is 0. */
static sp_status read_dimensions(sp_tensor *view, const sp_dlpack_tensor *tensor, bool *empty) {
    int64_t row_major = 1;
    SP_REQUIRE(tensor->n_dims >= 0 && (tensor->n_dims == 0 || tensor->shape), SP_BAD_ARGUMENT,
               "the DLPack tensor has %" PRId32 " dimensions%s", tensor->n_dims,
               tensor->n_dims > 0 ? " and no shape" : "");
    SP_REQUIRE(tensor->n_dims <= SP_MAX_DIMS, SP_UNSUPPORTED,
               "the DLPack tensor has %" PRId32 " dimensions, more than %d", tensor->n_dims, (int)SP_MAX_DIMS);
    view->n_dims = tensor->n_dims;
    for (int32_t i = tensor->n_dims - 1; i >= 0; i--) {
        int64_t size = tensor->shape[i];
        SP_REQUIRE(size >= 0, SP_BAD_ARGUMENT, "the DLPack tensor has a dimension of %" PRId64, size);
        view->shape[i] = size;
        view->stride[i] = tensor->strides ? tensor->strides[i] : row_major;
        *empty = *empty || size == 0;
        SP_REQUIRE(sp_multiply_sizes(row_major, size ? size : 1, &row_major), SP_BAD_ARGUMENT,
                   "the DLPack tensor is too large to count");
    }
    return SP_OK;
}

static sp_status read_data(void **out, const sp_dlpack_tensor *tensor, sp_dtype dtype, bool empty) {
    int64_t bytes = sp_dtype_bytes(dtype);
    uintptr_t address = (uintptr_t)tensor->data + (uintptr_t)tensor->byte_offset;
    if (empty && !tensor->data) return SP_OK;
    SP_REQUIRE(tensor->data, SP_BAD_ARGUMENT, "the DLPack tensor has no data");
    SP_REQUIRE(address % (uintptr_t)bytes == 0, SP_UNSUPPORTED,
               "the DLPack tensor's numbers are not at multiples of their %" PRId64 " bytes", bytes);
    *out = (char *)tensor->data + tensor->byte_offset;
    return SP_OK;
}

sp_status sp_tensor_from_dlpack(sp_tensor *out, const sp_dlpack_tensor *tensor) {
    sp_tensor view = {0};
    bool empty = false;
    *out = view;
    SP_REQUIRE(tensor, SP_BAD_ARGUMENT, "the DLPack tensor is NULL");
    SP_TRY(read_dtype(&view.dtype, tensor));
    SP_TRY(read_device(&view.device, tensor));
    SP_TRY(read_dimensions(&view, tensor, &empty));
    SP_TRY(read_data(&view.data, tensor, view.dtype, empty));
    *out = view;
    return SP_OK;
}
