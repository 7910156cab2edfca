/* The memory layout of DLPack's DLTensor, as fixed for all its versions to date, so that the library is built
 * without its header.  A test holds the two side by side. */
#ifndef SP_BASE_DLPACK_H
#define SP_BASE_DLPACK_H

#include <stdint.h>

typedef struct sp_dlpack_tensor {
    void *data;
    int32_t device_type;
    int32_t device_id;
    int32_t n_dims;
    uint8_t dtype_code;
    uint8_t dtype_bits;
    uint16_t dtype_lanes;
    int64_t *shape;
    int64_t *strides; /* in numbers; NULL: row-major */
    uint64_t byte_offset;
} sp_dlpack_tensor;

#endif
