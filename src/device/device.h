/* A device is a value: the host, or one CUDA device with a stream of its own.  Code that computes takes one and does not
 * ask which it is; memory belongs to the device that it was taken from.
 *
 * On a CUDA device every call but those that say "waits" only queues its work on the stream, in order; what fails
 * there later is reported by the next call that waits.  On the host all is done when a call returns. */
#ifndef SP_DEVICE_DEVICE_H
#define SP_DEVICE_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

typedef struct sp_device {
    int32_t id;   /* as in sp_tensor: 0 the host, 1 + i CUDA device i */
    void *stream; /* cudaStream_t; NULL on the host */
    void *matmul; /* what layers/ keeps with this device, for matrix products above all; NULL until needed */
    void (*matmul_free)(void *matmul);
    void *scratch; /* reusable memory of the device, grown by sp_device_scratch */
    int64_t scratch_bytes;
    int n_multiprocessors; /* of a CUDA device */
} sp_device;

/* The host as a device: needs no opening or closing. */
sp_device *sp_device_host(void);
/* 0: the host.  1 + i: CUDA device i, SM 8.0 or newer; SP_NO_DEVICE or SP_UNSUPPORTED with the reason otherwise. */
SP_MUST_CHECK sp_status sp_device_open(sp_device **out, int32_t id);
void sp_device_close(sp_device *device);

/* Memory of the device at a multiple of 256 bytes (host: SP_ALIGNMENT), zeroed; `what` names the use in messages. */
SP_MUST_CHECK sp_status sp_device_allocate(sp_device *device, void **out, int64_t bytes, const char *what);
void sp_device_release(sp_device *device, void *memory);
/* At least `bytes` of memory that the device keeps for whoever asks next: valid until the next call of this. */
SP_MUST_CHECK sp_status sp_device_scratch(sp_device *device, void **out, int64_t bytes);
/* Bytes that are free and that the device has; the host: of the whole system. */
SP_MUST_CHECK sp_status sp_device_memory(sp_device *device, int64_t *free_bytes, int64_t *total_bytes);

/* Host to device; the host's memory may change as soon as the call returns. */
SP_MUST_CHECK sp_status sp_device_upload(sp_device *device, void *to, const void *host, int64_t bytes);
/* Device to host; waits. */
SP_MUST_CHECK sp_status sp_device_download(sp_device *device, void *host, const void *from, int64_t bytes);
SP_MUST_CHECK sp_status sp_device_zero(sp_device *device, void *memory, int64_t bytes);
/* n rows of row_bytes within the device; strides in bytes. */
SP_MUST_CHECK sp_status sp_device_copy_rows(sp_device *device, void *to, int64_t to_stride, const void *from,
                                            int64_t from_stride, int64_t row_bytes, int64_t n);
/* Waits for all that is queued. */
SP_MUST_CHECK sp_status sp_device_wait(sp_device *device);

/* Host memory with the bytes of `data`: `data` itself on the host, else a copy (waits).  *host_data is NULL on failure. */
SP_MUST_CHECK sp_status sp_device_read_begin(sp_device *device, const void **host_data, const void *data,
                                             int64_t bytes);
void sp_device_read_end(sp_device *device, const void *host_data);

/* A point in the device's work, and the seconds between two that have passed (after a wait). */
SP_MUST_CHECK sp_status sp_device_mark_new(sp_device *device, void **mark);
void sp_device_mark_free(sp_device *device, void *mark);
SP_MUST_CHECK sp_status sp_device_mark(sp_device *device, void *mark);
SP_MUST_CHECK sp_status sp_device_seconds_between(sp_device *device, const void *first, const void *last,
                                                  double *seconds);

#endif
