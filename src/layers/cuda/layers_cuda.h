/* The layers on a CUDA device, one file each; layers_cuda.cu puts them into the table that callers see.  What each does
 * stands in layers/layers.h.  Activations are bf16; rows of activations are multiples of 8 numbers wide and begin at
 * multiples of 16 bytes, logits excepted. */
#ifndef SP_LAYERS_LAYERS_CUDA_H
#define SP_LAYERS_LAYERS_CUDA_H

#include "layers/layers.h"

extern const sp_layers sp_layers_cuda;

sp_status sp_cuda_linear_forward(sp_device *device, void *y, sp_dtype y_dtype, int64_t y_stride, const void *x,
                                 int64_t x_stride, const void *w, sp_dtype act, const float *residual, int64_t N,
                                 int64_t K, int64_t M);
sp_status sp_cuda_linear_backward_input(sp_device *device, void *dx, sp_dtype dx_dtype, int64_t dx_stride,
                                        const void *dy, int64_t dy_stride, const void *w, sp_dtype act, int64_t N,
                                        int64_t K, int64_t M);
sp_status sp_cuda_linear_backward_weight(sp_device *device, float *dw, const void *dy, int64_t dy_stride, const void *x,
                                         int64_t x_stride, sp_dtype act, int64_t N, int64_t K, int64_t M);

sp_status sp_cuda_bias_add(sp_device *device, void *y, sp_dtype y_dtype, int64_t y_stride, const float *bias, int64_t N,
                           int64_t M);
sp_status sp_cuda_bias_backward(sp_device *device, float *dbias, const void *dy, int64_t dy_stride, sp_dtype act,
                                int64_t N, int64_t M, void *workspace);
int64_t sp_cuda_bias_workspace(int64_t M);

sp_status sp_cuda_rmsnorm_forward(sp_device *device, void *y, sp_dtype act, float *rstd, const float *x,
                                  const float *weight, int64_t N, int64_t C, float eps);
sp_status sp_cuda_rmsnorm_backward(sp_device *device, float *dx, void *dx_act, void *y, float *dweight, const void *dy,
                                   sp_dtype act, const float *x, const float *weight, const float *rstd, int64_t N,
                                   int64_t C, void *workspace);
int64_t sp_cuda_rmsnorm_workspace(int64_t C);

sp_status sp_cuda_head_norm_forward(sp_device *device, void *x, sp_dtype act, int64_t row_stride, void *kept,
                                    int64_t kept_stride, const float *weight, int64_t N, int64_t n_heads, int64_t D,
                                    float eps);
sp_status sp_cuda_head_norm_backward(sp_device *device, void *dx, sp_dtype act, int64_t row_stride, float *dweight,
                                     const void *kept, int64_t kept_stride, const float *weight, int64_t N,
                                     int64_t n_heads, int64_t D, float eps, void *workspace);

sp_status sp_cuda_rope_apply(sp_device *device, void *x, sp_dtype act, int64_t row_stride, const int32_t *positions,
                             const float *table, int64_t N, int64_t n_heads, int64_t D, bool inverse);

sp_status sp_cuda_swiglu_forward(sp_device *device, void *s, const void *gu, sp_dtype act, int64_t N, int64_t F);
sp_status sp_cuda_swiglu_backward(sp_device *device, void *dgu, void *s, const void *ds, const void *gu, sp_dtype act,
                                  int64_t N, int64_t F);

sp_status sp_cuda_embedding_forward(sp_device *device, float *x, const float *table, const int32_t *tokens, int64_t N,
                                    int64_t C);
sp_status sp_cuda_embedding_backward(sp_device *device, float *dtable, const float *dx, const int32_t *tokens,
                                     int64_t N, int64_t C, void *workspace);
int64_t sp_cuda_embedding_workspace(int64_t N);

sp_status sp_cuda_gather_rows(sp_device *device, void *to, const void *from, int64_t from_stride, const int32_t *rows,
                              int64_t row_bytes, int64_t n);

sp_status sp_cuda_cross_entropy(sp_device *device, double *losses, void *logits, sp_dtype logits_dtype,
                                const int32_t *targets, int64_t n, int64_t V, bool gradient, float gradient_scale);
sp_status sp_cuda_predictions(sp_device *device, float *log_probabilities, bool *greedy, const float *logits,
                              const int32_t *targets, int64_t n, int64_t V);

sp_status sp_cuda_sum(sp_device *device, double *sum, const double *values, int64_t n);
sp_status sp_cuda_norm(sp_device *device, double *norm, const float *gradient, int64_t n);
sp_status sp_cuda_adamw_step(sp_device *device, float *values, uint16_t *halves, const float *gradient, float *m,
                             float *v, int64_t n, float gradient_scale, const sp_adamw *options);

sp_status sp_cuda_convert(sp_device *device, void *out, sp_dtype out_dtype, const void *in, sp_dtype in_dtype,
                          int64_t n);

#endif
