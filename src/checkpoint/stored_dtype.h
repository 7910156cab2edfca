/* How safetensors files name the dtypes. */
#ifndef SP_CHECKPOINT_STORED_DTYPE_H
#define SP_CHECKPOINT_STORED_DTYPE_H

#include "softpick/tensor.h"

typedef struct sp_stored_dtype {
    const char *name; /* as in the header of a file */
    int bits;         /* of one number */
    sp_dtype dtype;   /* SP_DTYPE_COUNT: a dtype of the format that this library has no name for */
} sp_stored_dtype;

/* NULL: the format has no dtype of that name. */
const sp_stored_dtype *sp_stored_dtype_find(const char *name);
/* Row of a dtype of ours; NULL for a value outside the enum. */
const sp_stored_dtype *sp_stored_dtype_of(sp_dtype dtype);

#endif
