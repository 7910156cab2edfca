/* A build without CUDA: no devices.  With CUDA the build takes cuda.cu instead. */
#include "base/status.h"
#include "softpick/device.h"

bool sp_cuda_built(void) { return false; }

int sp_cuda_device_count(void) { return 0; }

sp_status sp_cuda_device_describe(int index, sp_cuda_device *out) {
    *out = (sp_cuda_device){0};
    return sp_fail(SP_NO_DEVICE, "CUDA device %d was asked for, but this build has no CUDA code", index);
}
