/* Every call of the CUDA runtime goes through these: a failure becomes a status and a sentence with call and place. */
#ifndef SP_DEVICE_CUDA_CHECK_CUH
#define SP_DEVICE_CUDA_CHECK_CUH

#include <cuda_runtime.h>
#include <string.h>

extern "C" {
#include "base/status.h"
}

/* Path within the source tree. */
static inline const char *sp_cuda_place(const char *file) {
    const char *inside = strstr(file, "/src/");
    return inside ? inside + 1 : file;
}

static inline sp_status sp_cuda_status(cudaError_t error, const char *call, const char *file, int line) {
    if (error == cudaSuccess) return SP_OK;
    sp_status status = error == cudaErrorMemoryAllocation ? SP_OUT_OF_MEMORY : SP_DEVICE_FAILED;
    return sp_fail(status, "CUDA: %s: %s (%s:%d)", call, cudaGetErrorString(error), sp_cuda_place(file), line);
}

#define SP_CUDA_TRY(call) SP_TRY(sp_cuda_status((call), #call, __FILE__, __LINE__))

/* After a launch: whether it was accepted.  What fails while it runs is reported by the next call that waits. */
#define SP_CUDA_LAUNCHED(name) SP_TRY(sp_cuda_status(cudaGetLastError(), name, __FILE__, __LINE__))

#endif
