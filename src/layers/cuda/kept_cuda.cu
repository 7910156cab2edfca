/* What the layers keep with a CUDA device. */
#include <stdlib.h>

#include "device/cuda_check.cuh"

extern "C" {
#include "layers/cuda/kept_cuda.h"
#include "layers/cuda/matmul_cublaslt.h"
}

/* Failures here concern what is thrown away. */
static void kept_free(void *memory) {
    sp_kept *kept = (sp_kept *)memory;
    sp_cublaslt_free(kept->products);
    (void)cudaFreeHost(kept->staging);
    if (kept->copied) (void)cudaEventDestroy((cudaEvent_t)kept->copied);
    free(kept);
}

extern "C" sp_status sp_kept_of(sp_device *device, sp_kept **out) {
    if (!device->matmul) {
        *out = NULL;
        device->matmul = calloc(1, sizeof(sp_kept));
        SP_REQUIRE(device->matmul, SP_OUT_OF_MEMORY, "no memory for what the layers keep with a GPU");
        device->matmul_free = kept_free;
    }
    *out = (sp_kept *)device->matmul;
    return SP_OK;
}

extern "C" sp_status sp_kept_staging(sp_device *device, void **out, int64_t bytes) {
    *out = NULL;
    sp_kept *kept;
    SP_TRY(sp_kept_of(device, &kept));
    if (!kept->copied) {
        cudaEvent_t event;
        SP_CUDA_TRY(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
        kept->copied = event;
    }
    SP_CUDA_TRY(cudaEventSynchronize((cudaEvent_t)kept->copied));
    if (bytes > kept->staging_bytes) {
        SP_CUDA_TRY(cudaFreeHost(kept->staging));
        kept->staging = NULL;
        kept->staging_bytes = 0;
        SP_CUDA_TRY(cudaMallocHost(&kept->staging, (size_t)bytes));
        kept->staging_bytes = bytes;
    }
    *out = kept->staging;
    return SP_OK;
}

extern "C" sp_status sp_kept_upload(sp_device *device, void *to, int64_t bytes) {
    sp_kept *kept;
    SP_TRY(sp_kept_of(device, &kept));
    cudaStream_t stream = (cudaStream_t)device->stream;
    SP_CUDA_TRY(cudaMemcpyAsync(to, kept->staging, (size_t)bytes, cudaMemcpyHostToDevice, stream));
    SP_CUDA_TRY(cudaEventRecord((cudaEvent_t)kept->copied, stream));
    return SP_OK;
}
