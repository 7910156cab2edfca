/* Maps by which the copy engine finds tensors. */
#ifndef SP_ATTENTION_CUDA_SM90_MAP_CUH
#define SP_ATTENTION_CUDA_SM90_MAP_CUH

#include <cuda.h>

#include "device/cuda_check.cuh"

extern "C" {
#include "softpick/tensor.h"
}

/* The copy engine takes strides from 16 bytes to 2^40. */
static bool strides_fit(const sp_tensor *tensor) {
    for (int i = 0; i < 3; i++)
        if (tensor->shape[i] > 1 && (tensor->stride[i] < 8 || tensor->stride[i] >= (int64_t)1 << 39)) return false;
    return true;
}

typedef CUresult (*map_encoder)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                                const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                                CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* The driver's function, found through the runtime: the driver's library is not linked. */
static sp_status find_encoder(map_encoder *encoder) {
    void *function = NULL;
    cudaDriverEntryPointQueryResult found;
    SP_CUDA_TRY(
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found));
    SP_REQUIRE(found == cudaDriverEntryPointSuccess && function, SP_DEVICE_FAILED,
               "CUDA: the driver has no cuTensorMapEncodeTiled");
    *encoder = (map_encoder)function;
    return SP_OK;
}

/* Boxes of 64 channels of n_rows rows of a (B,T,H,D) tensor; `ahead`: the bytes that L2 fetches at a time. */
static sp_status make_map(CUtensorMap *map, map_encoder encoder, const sp_tensor *tensor, int n_rows,
                          CUtensorMapL2promotion ahead = CU_TENSOR_MAP_L2_PROMOTION_L2_256B) {
    const int order[] = {3, 1, 2, 0}; /* D T H B */
    const CUtensorMapDataType type =
        tensor->dtype == SP_DTYPE_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    cuuint64_t sizes[4], strides[3];
    cuuint32_t box[] = {64, (cuuint32_t)n_rows, 1, 1}, every[] = {1, 1, 1, 1};
    for (int i = 0; i < 4; i++) {
        sizes[i] = (cuuint64_t)tensor->shape[order[i]];
        if (i > 0) strides[i - 1] = sizes[i] > 1 ? (cuuint64_t)tensor->stride[order[i]] * 2 : 16;
    }
    CUresult result = encoder(map, type, 4, tensor->data, sizes, strides, box, every, CU_TENSOR_MAP_INTERLEAVE_NONE,
                              CU_TENSOR_MAP_SWIZZLE_128B, ahead, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    SP_REQUIRE(result == CUDA_SUCCESS, SP_DEVICE_FAILED, "CUDA: cuTensorMapEncodeTiled: error %d", (int)result);
    return SP_OK;
}

#endif
