/* A build without CUDA: no devices.  With CUDA the build takes cuda.cu instead. */
#include "base/status.h"
#include "device/cuda_device.h"
#include "softpick/device.h"

bool sp_cuda_built(void) { return false; }

int sp_cuda_device_count(void) { return 0; }

sp_status sp_cuda_device_describe(int index, sp_cuda_device *out) {
    *out = (sp_cuda_device){0};
    return sp_fail(SP_NO_DEVICE, "CUDA device %d was asked for, but this build has no CUDA code", index);
}

sp_status sp_cuda_open(sp_device *device) {
    sp_cuda_device facts;
    return sp_cuda_device_describe(device->id - 1, &facts);
}

/* No device can be open: nobody comes here. */
static sp_status no_device(void) { return sp_fail(SP_NO_DEVICE, "this build has no CUDA code"); }

void sp_cuda_close(sp_device *device) { (void)device; }
sp_status sp_cuda_allocate(sp_device *device, void **out, int64_t bytes, const char *what) {
    (void)device, (void)out, (void)bytes, (void)what;
    return no_device();
}
void sp_cuda_release(sp_device *device, void *memory) { (void)device, (void)memory; }
sp_status sp_cuda_memory(sp_device *device, int64_t *free_bytes, int64_t *total_bytes) {
    (void)device, (void)free_bytes, (void)total_bytes;
    return no_device();
}
sp_status sp_cuda_upload(sp_device *device, void *to, const void *host, int64_t bytes) {
    (void)device, (void)to, (void)host, (void)bytes;
    return no_device();
}
sp_status sp_cuda_download(sp_device *device, void *host, const void *from, int64_t bytes) {
    (void)device, (void)host, (void)from, (void)bytes;
    return no_device();
}
sp_status sp_cuda_zero(sp_device *device, void *memory, int64_t bytes) {
    (void)device, (void)memory, (void)bytes;
    return no_device();
}
sp_status sp_cuda_copy_rows(sp_device *device, void *to, int64_t to_stride, const void *from, int64_t from_stride,
                            int64_t row_bytes, int64_t n) {
    (void)device, (void)to, (void)to_stride, (void)from, (void)from_stride, (void)row_bytes, (void)n;
    return no_device();
}
sp_status sp_cuda_wait(sp_device *device) {
    (void)device;
    return no_device();
}
sp_status sp_cuda_mark_new(sp_device *device, void **mark) {
    (void)device, (void)mark;
    return no_device();
}
void sp_cuda_mark_free(void *mark) { (void)mark; }
sp_status sp_cuda_mark(sp_device *device, void *mark) {
    (void)device, (void)mark;
    return no_device();
}
sp_status sp_cuda_seconds_between(const void *first, const void *last, double *seconds) {
    (void)first, (void)last, (void)seconds;
    return no_device();
}
