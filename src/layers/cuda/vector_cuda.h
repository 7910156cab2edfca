/* The product of a matrix of bf16 and one vector on a CUDA device. */
#ifndef SP_LAYERS_VECTOR_CUDA_H
#define SP_LAYERS_VECTOR_CUDA_H

#include <stdbool.h>
#include <stdint.h>

#include "device/device.h"
#include "softpick/tensor.h"

/* Whether the kernel's 16-byte accesses fit x (K) and w (M,K). */
bool sp_cuda_vector_takes(const void *x, const void *w, int64_t K, int64_t M);
/* y (M), f32 or bf16, = w (M,K) x (K), plus residual (M) where that is not NULL; y may be the residual. */
SP_MUST_CHECK sp_status sp_cuda_vector_run(sp_device *device, void *y, sp_dtype y_dtype, const void *x, const void *w,
                                           const float *residual, int64_t K, int64_t M);

#endif
