/* The table of the layers on a CUDA device. */
extern "C" {
#include "layers/cuda/layers_cuda.h"
#include "layers/cuda/matmul_cublaslt.h"
}

/* In the order of sp_layers. */
const sp_layers sp_layers_cuda = {
    sp_cuda_linear_forward,
    sp_cuda_linear_backward_input,
    sp_cuda_linear_backward_weight,
    sp_cuda_bias_add,
    sp_cuda_bias_backward,
    sp_cuda_bias_workspace,
    sp_cuda_rmsnorm_forward,
    sp_cuda_rmsnorm_backward,
    sp_cuda_rmsnorm_workspace,
    sp_cuda_head_norm_forward,
    sp_cuda_head_norm_backward,
    sp_cuda_rope_apply,
    sp_cuda_swiglu_forward,
    sp_cuda_swiglu_backward,
    sp_cuda_embedding_forward,
    sp_cuda_embedding_backward,
    sp_cuda_embedding_workspace,
    sp_cuda_gather_rows,
    sp_cuda_cross_entropy,
    sp_cuda_predictions,
    sp_cuda_sum,
    sp_cuda_norm,
    sp_cuda_adamw_step,
    sp_cuda_convert,
    SP_CUBLASLT_WORKSPACE_BYTES,
};
