/* CUDA devices, by the runtime.  A build without a CUDA compiler takes cuda_none.c instead. */
#include <cuda_runtime.h>
#include <stdio.h>

extern "C" {
#include "base/status.h"
#include "softpick/device.h"
}

extern "C" bool sp_cuda_built(void) { return true; }

/* No driver, or one too old, is the same to a caller as no device. */
extern "C" int sp_cuda_device_count(void) {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

extern "C" sp_status sp_cuda_device_describe(int index, sp_cuda_device *out) {
    *out = sp_cuda_device{};
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
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
