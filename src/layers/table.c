/* The table of devices that have layers: the host, and CUDA where the build has it. */
#include "layers/layers.h"

#include <stddef.h>

#include "layers/cuda/layers_cuda.h"
#include "layers/layers_cpu.h"

const sp_layers sp_layers_cpu = {
    .linear_forward = sp_cpu_linear_forward,
    .linear_backward_input = sp_cpu_linear_backward_input,
    .linear_backward_weight = sp_cpu_linear_backward_weight,
    .bias_add = sp_cpu_bias_add,
    .bias_backward = sp_cpu_bias_backward,
    .bias_workspace = sp_cpu_bias_workspace,
    .rmsnorm_forward = sp_cpu_rmsnorm_forward,
    .rmsnorm_backward = sp_cpu_rmsnorm_backward,
    .rmsnorm_workspace = sp_cpu_rmsnorm_workspace,
    .head_norm_forward = sp_cpu_head_norm_forward,
    .head_norm_backward = sp_cpu_head_norm_backward,
    .rope_apply = sp_cpu_rope_apply,
    .swiglu_forward = sp_cpu_swiglu_forward,
    .swiglu_backward = sp_cpu_swiglu_backward,
    .embedding_forward = sp_cpu_embedding_forward,
    .embedding_backward = sp_cpu_embedding_backward,
    .embedding_workspace = sp_cpu_embedding_workspace,
    .gather_rows = sp_cpu_gather_rows,
    .cross_entropy = sp_cpu_cross_entropy,
    .predictions = sp_cpu_predictions,
    .sum = sp_cpu_sum,
    .norm = sp_cpu_norm,
    .adamw_step = sp_cpu_adamw_step,
    .convert = sp_cpu_convert,
};

const sp_layers *sp_layers_on_id(int32_t device_id) {
#if SP_WITH_CUDA
    if (device_id) return &sp_layers_cuda;
#endif
    (void)device_id; /* without CUDA no other device can be opened */
    return &sp_layers_cpu;
}
