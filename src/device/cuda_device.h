/* What device.c asks of CUDA; cuda_none.c answers in a build without it. */
#ifndef SP_DEVICE_CUDA_DEVICE_H
#define SP_DEVICE_CUDA_DEVICE_H

#include "device/device.h"

SP_MUST_CHECK sp_status sp_cuda_open(sp_device *device);
void sp_cuda_close(sp_device *device);
SP_MUST_CHECK sp_status sp_cuda_allocate(sp_device *device, void **out, int64_t bytes, const char *what);
void sp_cuda_release(sp_device *device, void *memory);
SP_MUST_CHECK sp_status sp_cuda_memory(sp_device *device, int64_t *free_bytes, int64_t *total_bytes);
SP_MUST_CHECK sp_status sp_cuda_upload(sp_device *device, void *to, const void *host, int64_t bytes);
SP_MUST_CHECK sp_status sp_cuda_download(sp_device *device, void *host, const void *from, int64_t bytes);
SP_MUST_CHECK sp_status sp_cuda_zero(sp_device *device, void *memory, int64_t bytes);
SP_MUST_CHECK sp_status sp_cuda_copy_rows(sp_device *device, void *to, int64_t to_stride, const void *from,
                                          int64_t from_stride, int64_t row_bytes, int64_t n);
SP_MUST_CHECK sp_status sp_cuda_wait(sp_device *device);
SP_MUST_CHECK sp_status sp_cuda_mark_new(sp_device *device, void **mark);
void sp_cuda_mark_free(void *mark);
SP_MUST_CHECK sp_status sp_cuda_mark(sp_device *device, void *mark);
SP_MUST_CHECK sp_status sp_cuda_seconds_between(const void *first, const void *last, double *seconds);

#endif
