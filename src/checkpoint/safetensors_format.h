/* What reader and writer of safetensors files share: limits, the reserved name, how files name the dtypes. */
#ifndef SP_CHECKPOINT_SAFETENSORS_FORMAT_H
#define SP_CHECKPOINT_SAFETENSORS_FORMAT_H

#include "softpick/checkpoint.h"

enum {
    SP_SAFETENSORS_HEADER_MAX = 100000000, /* bytes: the format's own limit */
    SP_SAFETENSORS_LENGTH_BYTES = 8,       /* of the header's length, in front of it */
};

#define SP_SAFETENSORS_METADATA "__metadata__"

typedef struct sp_stored_dtype {
    const char *name; /* as in the header of a file */
    int bits;         /* of one number */
    sp_dtype dtype;   /* SP_DTYPE_COUNT: a dtype of the format that this library has no name for */
} sp_stored_dtype;

/* NULL: the format has no dtype of that name. */
const sp_stored_dtype *sp_stored_dtype_find(const char *name);
/* Row of a dtype of ours; NULL for a value outside the enum. */
const sp_stored_dtype *sp_stored_dtype_of(sp_dtype dtype);

/* sp_safetensors_write, with tensors of f32 written as `dtype` (f32, bf16, f16). */
SP_MUST_CHECK sp_status sp_safetensors_write_as(const char *path, const sp_named_tensor *tensors, int64_t n_tensors,
                                                sp_dtype dtype);

#endif
