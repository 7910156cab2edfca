/* What the layers keep with a CUDA device from call to call: the library of matrix products, and host memory out of
 * which the device copies.  It hangs on the device, which frees it when it is closed. */
#ifndef SP_LAYERS_KEPT_CUDA_H
#define SP_LAYERS_KEPT_CUDA_H

#include "device/device.h"

typedef struct sp_kept {
    struct sp_cublaslt *products; /* matmul_cublaslt.cu's; NULL until the first product */
    void *staging;                /* page-locked host memory */
    int64_t staging_bytes;
    void *copied; /* cudaEvent_t: passed when the device has read the staging memory */
} sp_kept;

/* Made by the first call. */
SP_MUST_CHECK sp_status sp_kept_of(sp_device *device, sp_kept **out);

/* At least `bytes` of host memory to write into; waits until the device has read what was there before. */
SP_MUST_CHECK sp_status sp_kept_staging(sp_device *device, void **out, int64_t bytes);
/* Queues the copy of the first `bytes` of that memory to the device. */
SP_MUST_CHECK sp_status sp_kept_upload(sp_device *device, void *to, int64_t bytes);

#endif
