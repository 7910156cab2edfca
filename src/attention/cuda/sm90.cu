/* The row sm90 on the host: what it accepts, the maps by which the copy engine finds tensors, forward.
 *
 *   workspace   | number of the next tile | what the view needs |
 */
#include <cuda.h>

#include "attention/cuda/sm80_host.cuh"
#include "attention/cuda/sm90_launch.cuh"
#include "device/cuda_check.cuh"

extern "C" {
#include "attention/cuda/sm80.h"
#include "attention/cuda/sm90.h"
#include "attention/cuda/sm90_backward.h"
#include "base/memory.h"
}

/* ---- what is accepted ------------------------------------------------------------------------------------------- */

static bool is_hopper(int device) {
    int major = 0;
    return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess && major == 9;
}

/* The copy engine takes strides from 16 bytes to 2^40. */
static bool strides_fit(const sp_tensor *tensor) {
    for (int i = 0; i < 3; i++)
        if (tensor->shape[i] > 1 && (tensor->stride[i] < 8 || tensor->stride[i] >= (int64_t)1 << 39)) return false;
    return true;
}

static const char *refusal_of_problem(const sp_attention *problem, sp_attention_pass pass) {
    if (pass == SP_ATTENTION_DECODE) return "it computes forward and backward alone so far";
    if (!is_hopper(problem->q.device - 1)) return "the GPU's compute capability is not 9";
    if (pass == SP_ATTENTION_BACKWARD) return sp_sm90_backward_refusal(problem);
    if (problem->q.shape[3] > 128 || problem->v.shape[3] > 128) return "heads are wider than 128 channels";
    if (problem->normalizer == SP_NORMALIZER_RECTIFIED) return "rectified is not among its normalizers";
    if (problem->normalizer == SP_NORMALIZER_SOFTPICK && problem->lambda != 1) return "lambda is not 1";
    if (sp_problem_wants_statistics(problem)) return "statistics are wanted";
    if (sp_tensor_count(&problem->k) == 0 || sp_tensor_count(&problem->v) == 0) return "there are no keys";
    if (!strides_fit(&problem->q) || !strides_fit(&problem->k) || !strides_fit(&problem->v))
        return "rows of a tensor overlap";
    return NULL;
}

extern "C" bool sp_sm90_accepts(const sp_attention *problem, sp_attention_pass pass, const char **why) {
    if (!sp_sm80_accepts(problem, pass, why)) return false; /* what holds for all GPUs */
    const char *reason = refusal_of_problem(problem, pass);
    *why = reason ? reason : "";
    return !reason;
}

/* ---- maps --------------------------------------------------------------------------------------------------------- */

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

/* Boxes of 64 channels of n_rows rows of a (B,T,H,D) tensor. */
static sp_status make_map(CUtensorMap *map, map_encoder encoder, const sp_tensor *tensor, int n_rows) {
    const int order[] = {3, 1, 2, 0}; /* D T H B */
    const CUtensorMapDataType type =
        tensor->dtype == SP_DTYPE_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    cuuint64_t sizes[4], strides[3];
    cuuint32_t box[] = {64, (cuuint32_t)n_rows, 1, 1}, every[] = {1, 1, 1, 1};
    for (int i = 0; i < 4; i++) {
        sizes[i] = (cuuint64_t)tensor->shape[order[i]];
        if (i > 0) strides[i - 1] = sizes[i] > 1 ? (cuuint64_t)tensor->stride[order[i]] * 2 : 16;
    }
    CUresult result =
        encoder(map, type, 4, tensor->data, sizes, strides, box, every, CU_TENSOR_MAP_INTERLEAVE_NONE,
                CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    SP_REQUIRE(result == CUDA_SUCCESS, SP_DEVICE_FAILED, "CUDA: cuTensorMapEncodeTiled: error %d", (int)result);
    return SP_OK;
}

/* ---- the kernels of each width ------------------------------------------------------------------------------------ */

typedef struct width_kernels {
    int width, queries, keys; /* of a tile, of a block */
    sp_status (*forward)(const hopper_forward *job, sp_dtype dtype, cudaStream_t stream);
} width_kernels;

static const width_kernels widths[] = {
    {64, SM90_QUERIES_64, SM90_KEYS_64, sp_sm90_forward_64},
    {128, SM90_QUERIES_128, SM90_KEYS_128, sp_sm90_forward_128},
};

static const width_kernels *kernels_of(const sp_attention *problem) {
    return &widths[problem->q.shape[3] > 64 || problem->v.shape[3] > 64];
}

/* ---- forward ---------------------------------------------------------------------------------------------------- */

extern "C" sp_status sp_sm90_forward_workspace(const sp_attention *problem, int64_t *n_bytes) {
    *n_bytes = SP_ALIGNMENT + gpu_view_bytes(problem, kernels_of(problem)->queries);
    return SP_OK;
}

extern "C" sp_status sp_sm90_forward(const sp_attention *problem, void *workspace) {
    const width_kernels *kernels = kernels_of(problem);
    cudaStream_t stream = (cudaStream_t)problem->stream;
    hopper_forward job = {};
    map_encoder encoder = NULL;
    job.next_item = (int *)workspace;
    SP_TRY(gpu_view_begin(problem, kernels->queries, (char *)workspace + SP_ALIGNMENT, &job.view));
    if (job.view.n_items == 0) return SP_OK;
    SP_TRY(find_encoder(&encoder));
    SP_TRY(make_map(&job.q, encoder, &problem->q, 64));
    SP_TRY(make_map(&job.k, encoder, &problem->k, kernels->keys));
    SP_TRY(make_map(&job.v, encoder, &problem->v, kernels->keys));
    SP_CUDA_TRY(cudaMemsetAsync(job.next_item, 0, sizeof *job.next_item, stream));
    return kernels->forward(&job, problem->q.dtype, stream);
}
