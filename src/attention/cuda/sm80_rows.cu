/* Queries and keys of a problem on a GPU, copied to the host: for the few rows of attention weights that pictures show. */
#include <stdlib.h>

#include "device/cuda_check.cuh"

extern "C" {
#include "attention/cuda/sm80.h"
#include "base/memory.h"
}

/* *to: memory of the host with the bytes of `from`; NULL for NULL. */
static sp_status download(void **to, const void *from, int64_t bytes, void *stream) {
    *to = NULL;
    if (!from || bytes == 0) return SP_OK;
    SP_TRY(sp_allocate(to, bytes, "queries and keys for attention rows"));
    SP_CUDA_TRY(cudaMemcpyAsync(*to, from, (size_t)bytes, cudaMemcpyDeviceToHost, (cudaStream_t)stream));
    return SP_OK;
}

/* Bytes from the first number of a tensor to its last. */
static int64_t span_of(const sp_tensor *tensor) {
    int64_t count = 1;
    for (int i = 0; i < 4; i++) count += (tensor->shape[i] - 1) * tensor->stride[i];
    return sp_tensor_count(tensor) == 0 ? 0 : count * sp_dtype_bytes(tensor->dtype);
}

static sp_status download_all(sp_attention *host, const sp_attention *problem) {
    int64_t head_bytes = problem->q.shape[2] * (int64_t)sizeof(float);
    void *stream = problem->stream;
    SP_TRY(download(&host->q.data, problem->q.data, span_of(&problem->q), stream));
    SP_TRY(download(&host->k.data, problem->k.data, span_of(&problem->k), stream));
    SP_TRY(download((void **)&host->sink, problem->sink, head_bytes, stream));
    SP_TRY(download((void **)&host->row_factor, problem->row_factor, head_bytes, stream));
    SP_CUDA_TRY(cudaStreamSynchronize((cudaStream_t)stream));
    return SP_OK;
}

extern "C" sp_status sp_sm80_keys_download(const sp_attention *problem, sp_attention *host) {
    *host = *problem;
    host->q.device = host->k.device = 0;
    host->q.data = host->k.data = NULL;
    host->sink = host->row_factor = NULL;
    host->stream = NULL;
    sp_status status = download_all(host, problem);
    if (status != SP_OK) sp_sm80_keys_release(host);
    return status;
}

extern "C" void sp_sm80_keys_release(sp_attention *host) {
    free(host->q.data);
    free(host->k.data);
    free((void *)(uintptr_t)host->sink);
    free((void *)(uintptr_t)host->row_factor);
    host->q.data = host->k.data = NULL;
    host->sink = host->row_factor = NULL;
}
