/* The host's side of every device call; a CUDA device's is in cuda.cu. */
#include "device/device.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"
#include "device/cuda_device.h"
#include "softpick/device.h"

static sp_device host;

sp_device *sp_device_host(void) { return &host; }

sp_status sp_device_open(sp_device **out, int32_t id) {
    *out = NULL;
    SP_REQUIRE(id >= 0, SP_NO_DEVICE, "there is no device %" PRId32, id);
    if (id == 0) {
        *out = &host;
        return SP_OK;
    }
    sp_device *device = calloc(1, sizeof *device);
    SP_REQUIRE(device, SP_OUT_OF_MEMORY, "no memory for a device");
    device->id = id;
    sp_status status = sp_cuda_open(device);
    if (status == SP_OK)
        *out = device;
    else
        free(device);
    return status;
}

void sp_device_close(sp_device *device) {
    if (!device || device == &host) return;
    if (device->matmul) device->matmul_free(device->matmul);
    sp_cuda_release(device, device->scratch);
    sp_cuda_close(device);
    free(device);
}

sp_status sp_device_allocate(sp_device *device, void **out, int64_t bytes, const char *what) {
    return device->id ? sp_cuda_allocate(device, out, bytes, what) : sp_allocate(out, bytes, what);
}

void sp_device_release(sp_device *device, void *memory) {
    if (device->id)
        sp_cuda_release(device, memory);
    else
        free(memory);
}

sp_status sp_device_scratch(sp_device *device, void **out, int64_t bytes) {
    *out = NULL;
    if (bytes > device->scratch_bytes) {
        sp_device_release(device, device->scratch);
        device->scratch = NULL;
        device->scratch_bytes = 0;
        SP_TRY(sp_device_allocate(device, &device->scratch, bytes, "scratch memory"));
        device->scratch_bytes = bytes;
    }
    *out = device->scratch;
    return SP_OK;
}

sp_status sp_device_memory(sp_device *device, int64_t *free_bytes, int64_t *total_bytes) {
    if (device->id) return sp_cuda_memory(device, free_bytes, total_bytes);
    int64_t page = sysconf(_SC_PAGESIZE);
    *free_bytes = sp_available_bytes();
    *total_bytes = sysconf(_SC_PHYS_PAGES) * page;
    return SP_OK;
}

static sp_status copy(void *to, const void *from, int64_t bytes) {
    if (bytes > 0) memcpy(to, from, (size_t)bytes);
    return SP_OK;
}

sp_status sp_device_upload(sp_device *device, void *to, const void *from, int64_t bytes) {
    return device->id ? sp_cuda_upload(device, to, from, bytes) : copy(to, from, bytes);
}

sp_status sp_device_download(sp_device *device, void *to, const void *from, int64_t bytes) {
    return device->id ? sp_cuda_download(device, to, from, bytes) : copy(to, from, bytes);
}

sp_status sp_device_zero(sp_device *device, void *memory, int64_t bytes) {
    if (device->id) return sp_cuda_zero(device, memory, bytes);
    if (bytes > 0) memset(memory, 0, (size_t)bytes);
    return SP_OK;
}

sp_status sp_device_copy_rows(sp_device *device, void *to, int64_t to_stride, const void *from, int64_t from_stride,
                              int64_t row_bytes, int64_t n) {
    if (device->id) return sp_cuda_copy_rows(device, to, to_stride, from, from_stride, row_bytes, n);
    for (int64_t i = 0; i < n; i++)
        memcpy((char *)to + i * to_stride, (const char *)from + i * from_stride, (size_t)row_bytes);
    return SP_OK;
}

sp_status sp_device_wait(sp_device *device) { return device->id ? sp_cuda_wait(device) : SP_OK; }

sp_status sp_device_read_begin(sp_device *device, const void **host_data, const void *data, int64_t bytes) {
    *host_data = NULL;
    if (!device->id) {
        *host_data = data;
        return SP_OK;
    }
    void *copied;
    SP_TRY(sp_allocate(&copied, bytes, "a copy of what lies on the GPU"));
    sp_status status = sp_cuda_download(device, copied, data, bytes);
    if (status == SP_OK)
        *host_data = copied;
    else
        free(copied);
    return status;
}

void sp_device_read_end(sp_device *device, const void *host_data) {
    if (device->id) free((void *)(uintptr_t)host_data);
}

sp_status sp_device_free_bytes(int32_t id, int64_t *free_bytes, int64_t *total_bytes) {
    sp_device *device;
    SP_TRY(sp_device_open(&device, id));
    sp_status status = sp_device_memory(device, free_bytes, total_bytes);
    sp_device_close(device);
    return status;
}

/* ---- time ---- */

sp_status sp_device_mark_new(sp_device *device, void **mark) {
    if (device->id) return sp_cuda_mark_new(device, mark);
    *mark = calloc(1, sizeof(struct timespec));
    SP_REQUIRE(*mark, SP_OUT_OF_MEMORY, "no memory for a time");
    return SP_OK;
}

void sp_device_mark_free(sp_device *device, void *mark) {
    if (device->id)
        sp_cuda_mark_free(mark);
    else
        free(mark);
}

sp_status sp_device_mark(sp_device *device, void *mark) {
    if (device->id) return sp_cuda_mark(device, mark);
    timespec_get(mark, TIME_UTC);
    return SP_OK;
}

sp_status sp_device_seconds_between(sp_device *device, const void *first, const void *last, double *seconds) {
    if (device->id) return sp_cuda_seconds_between(first, last, seconds);
    const struct timespec *a = first, *b = last;
    *seconds = (double)(b->tv_sec - a->tv_sec) + 1e-9 * (double)(b->tv_nsec - a->tv_nsec);
    return SP_OK;
}
