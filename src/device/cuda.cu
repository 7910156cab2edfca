/* CUDA devices, by the runtime.  A build without a CUDA compiler takes cuda_none.c instead. */
#include <stdio.h>

#include "device/cuda_check.cuh"

extern "C" {
#include "device/cuda_device.h"
#include "softpick/device.h"
}

extern "C" bool sp_cuda_built(void) { return true; }

/* No driver, or one too old, is the same to a caller as no device. */
extern "C" int sp_cuda_device_count(void) {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

/* The runtime says of a missing driver what it says of an old one. */
static sp_status no_driver(int index) {
    int driver = 0, runtime = 0;
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    if (driver == 0)
        return sp_fail(SP_NO_DEVICE, "CUDA device %d was asked for, but this machine has no NVIDIA driver", index);
    return sp_fail(SP_NO_DEVICE,
                   "CUDA device %d was asked for: the NVIDIA driver is one for CUDA %d.%d, %d.%d is needed", index,
                   driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
}

extern "C" sp_status sp_cuda_device_describe(int index, sp_cuda_device *out) {
    *out = sp_cuda_device{};
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaErrorInsufficientDriver) return no_driver(index);
    SP_REQUIRE(error == cudaSuccess, SP_NO_DEVICE, "CUDA device %d was asked for: %s", index,
               cudaGetErrorString(error));
    SP_REQUIRE(index >= 0 && index < count, SP_NO_DEVICE, "CUDA device %d was asked for, this machine has %d", index,
               count);
    cudaDeviceProp facts;
    error = cudaGetDeviceProperties(&facts, index);
    SP_REQUIRE(error == cudaSuccess, SP_DEVICE_FAILED, "CUDA device %d: %s", index, cudaGetErrorString(error));
    snprintf(out->name, sizeof out->name, "%s", facts.name);
    out->compute_major = facts.major;
    out->compute_minor = facts.minor;
    out->n_multiprocessors = facts.multiProcessorCount;
    out->memory_bytes = (int64_t)facts.totalGlobalMem;
    return SP_OK;
}

static cudaStream_t stream_of(const sp_device *device) { return (cudaStream_t)device->stream; }

extern "C" sp_status sp_cuda_open(sp_device *device) {
    sp_cuda_device facts;
    int index = device->id - 1;
    SP_TRY(sp_cuda_device_describe(index, &facts));
    SP_REQUIRE(facts.compute_major >= 8, SP_UNSUPPORTED,
               "CUDA device %d, %s, has compute capability %d.%d: 8.0 or newer is needed", index, facts.name,
               facts.compute_major, facts.compute_minor);
    device->n_multiprocessors = facts.n_multiprocessors;
    SP_CUDA_TRY(cudaSetDevice(index));
    cudaStream_t stream;
    SP_CUDA_TRY(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    device->stream = stream;
    return SP_OK;
}

/* Nothing can be done about failures here: they were reported before, or concern what is thrown away. */
extern "C" void sp_cuda_close(sp_device *device) { (void)cudaStreamDestroy(stream_of(device)); }
extern "C" void sp_cuda_release(sp_device *device, void *memory) {
    (void)device;
    (void)cudaFree(memory);
}

extern "C" sp_status sp_cuda_memory(sp_device *device, int64_t *free_bytes, int64_t *total_bytes) {
    size_t free_now = 0, total = 0;
    SP_CUDA_TRY(cudaSetDevice(device->id - 1));
    SP_CUDA_TRY(cudaMemGetInfo(&free_now, &total));
    *free_bytes = (int64_t)free_now;
    *total_bytes = (int64_t)total;
    return SP_OK;
}

extern "C" sp_status sp_cuda_allocate(sp_device *device, void **out, int64_t bytes, const char *what) {
    *out = NULL;
    SP_CUDA_TRY(cudaSetDevice(device->id - 1));
    void *memory = NULL;
    cudaError_t error = cudaMalloc(&memory, (size_t)(bytes > 0 ? bytes : 1));
    if (error == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError(); /* it is not to be reported again by the next launch */
        int64_t free_now = 0, total = 0;
        SP_TRY(sp_cuda_memory(device, &free_now, &total));
        return sp_fail(SP_OUT_OF_MEMORY, "%s: no %.2f GiB of GPU memory: %.2f of %.2f GiB are free", what,
                       (double)bytes / 0x1p30, (double)free_now / 0x1p30, (double)total / 0x1p30);
    }
    SP_CUDA_TRY(error);
    sp_status status = sp_cuda_zero(device, memory, bytes);
    if (status == SP_OK)
        *out = memory;
    else
        (void)cudaFree(memory);
    return status;
}

/* From pageable memory the runtime copies to a buffer of its own before it returns. */
extern "C" sp_status sp_cuda_upload(sp_device *device, void *to, const void *host, int64_t bytes) {
    SP_CUDA_TRY(cudaMemcpyAsync(to, host, (size_t)bytes, cudaMemcpyHostToDevice, stream_of(device)));
    return SP_OK;
}

extern "C" sp_status sp_cuda_download(sp_device *device, void *host, const void *from, int64_t bytes) {
    SP_CUDA_TRY(cudaMemcpyAsync(host, from, (size_t)bytes, cudaMemcpyDeviceToHost, stream_of(device)));
    return sp_cuda_wait(device);
}

extern "C" sp_status sp_cuda_zero(sp_device *device, void *memory, int64_t bytes) {
    SP_CUDA_TRY(cudaMemsetAsync(memory, 0, (size_t)bytes, stream_of(device)));
    return SP_OK;
}

extern "C" sp_status sp_cuda_copy_rows(sp_device *device, void *to, int64_t to_stride, const void *from,
                                       int64_t from_stride, int64_t row_bytes, int64_t n) {
    if (to_stride == row_bytes && from_stride == row_bytes) { /* twice as fast as rows */
        SP_CUDA_TRY(cudaMemcpyAsync(to, from, (size_t)(row_bytes * n), cudaMemcpyDeviceToDevice, stream_of(device)));
        return SP_OK;
    }
    SP_CUDA_TRY(cudaMemcpy2DAsync(to, (size_t)to_stride, from, (size_t)from_stride, (size_t)row_bytes, (size_t)n,
                                  cudaMemcpyDeviceToDevice, stream_of(device)));
    return SP_OK;
}

extern "C" sp_status sp_cuda_wait(sp_device *device) {
    SP_CUDA_TRY(cudaStreamSynchronize(stream_of(device)));
    return SP_OK;
}

extern "C" sp_status sp_cuda_mark_new(sp_device *device, void **mark) {
    (void)device;
    cudaEvent_t event;
    *mark = NULL;
    SP_CUDA_TRY(cudaEventCreate(&event));
    *mark = event;
    return SP_OK;
}

extern "C" void sp_cuda_mark_free(void *mark) { (void)cudaEventDestroy((cudaEvent_t)mark); }

extern "C" sp_status sp_cuda_mark(sp_device *device, void *mark) {
    SP_CUDA_TRY(cudaEventRecord((cudaEvent_t)mark, stream_of(device)));
    return SP_OK;
}

extern "C" sp_status sp_cuda_seconds_between(const void *first, const void *last, double *seconds) {
    float milliseconds = 0;
    SP_CUDA_TRY(cudaEventElapsedTime(&milliseconds, (cudaEvent_t)(uintptr_t)first, (cudaEvent_t)(uintptr_t)last));
    *seconds = 1e-3 * (double)milliseconds;
    return SP_OK;
}
