/* The layers of a LLaMA-style model, forward and backward, on the CPU.  Tensors are raw pointers, contiguous unless a
 * row stride (in elements) is given; "act" is the dtype of activations, f32 or bf16.  The residual stream x, norms'
 * weights, gradients of weights and all accumulation are f32.
 * N tokens, C channels, F feed-forward width, V vocabulary, K and M: inputs and outputs of a product. */
#ifndef SP_LAYERS_LAYERS_H
#define SP_LAYERS_LAYERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "softpick/tensor.h"

/* ---- matrix products (linear.c over matmul.c: oneDNN, or our plain loops) --------------------------------------- */

/* y (N,M) = x (N,K) w^T, w (M,K); x, w of dtype `act`; y f32 or bf16.  With `residual` (N,M) f32, contiguous, and y
 * f32: y = residual + x w^T; y may be residual itself. */
SP_MUST_CHECK sp_status sp_linear_forward(void *y, sp_dtype y_dtype, int64_t y_stride, const void *x, int64_t x_stride,
                                          const void *w, sp_dtype act, const float *residual, int64_t N, int64_t K,
                                          int64_t M);
/* dx (N,K) of dtype dx_dtype = dy (N,M) w (M,K); dy and w of dtype `act`. */
SP_MUST_CHECK sp_status sp_linear_backward_input(void *dx, sp_dtype dx_dtype, int64_t dx_stride, const void *dy,
                                                 int64_t dy_stride, const void *w, sp_dtype act, int64_t N, int64_t K,
                                                 int64_t M);
/* dw (M,K) f32 += dy^T (M,N) x (N,K); dy and x of dtype `act`. */
SP_MUST_CHECK sp_status sp_linear_backward_weight(float *dw, const void *dy, int64_t dy_stride, const void *x,
                                                  int64_t x_stride, sp_dtype act, int64_t N, int64_t K, int64_t M);
/* Name of what runs products of this dtype here ("onednn", "plain"); NULL if nothing can. */
const char *sp_matmul_variant(sp_dtype act);
/* True if bf16 products are faster than f32 here: by oneDNN, with AVX512-BF16 or AMX. */
bool sp_matmul_bf16_pays(void);

/* ---- RMSNorm (arXiv 1910.07467): y = x / sqrt(mean(x^2) + eps) * weight ------------------------------------------ */

/* y (N,C) of dtype act, overwritten; rstd (N), overwritten: 1/sqrt(mean(x^2) + eps), NULL when not wanted. */
void sp_rmsnorm_forward(void *y, sp_dtype act, float *rstd, const float *x, const float *weight, int64_t N, int64_t C,
                        float eps);
/* dx (N,C) f32 accumulated into; dweight (C) accumulated into; workspace: sp_rmsnorm_workspace(C) bytes. */
void sp_rmsnorm_backward(float *dx, float *dweight, const void *dy, sp_dtype act, const float *x, const float *weight,
                         const float *rstd, int64_t N, int64_t C, void *workspace);
int64_t sp_rmsnorm_workspace(int64_t C);

/* ---- RoPE, half-split: the pair is (i, i + D/2) ------------------------------------------------------------------ */

/* Table (n_positions, D): cos in [0,D/2), sin in [D/2,D). */
void sp_rope_table(float *table, int64_t n_positions, int64_t D, double theta);
/* Turns n_heads heads of each token in place: x (N, n_heads, D)@row_stride.  `inverse`: by the opposite angle, which
 * is the backward pass. */
void sp_rope_apply(void *x, sp_dtype act, int64_t row_stride, const int32_t *positions, const float *table, int64_t N,
                   int64_t n_heads, int64_t D, bool inverse);

/* ---- SwiGLU: s = silu(g) * u, with g and u side by side in gu (N,2F) --------------------------------------------- */

void sp_swiglu_forward(void *s, const void *gu, sp_dtype act, int64_t N, int64_t F);
/* dgu (N,2F) overwritten; s (N,F) overwritten with the forward's value again (for the weight gradient of the layer
 * that follows), NULL when not wanted.  dgu may be gu, s may be ds. */
void sp_swiglu_backward(void *dgu, void *s, const void *ds, const void *gu, sp_dtype act, int64_t N, int64_t F);

/* ---- embedding --------------------------------------------------------------------------------------------------- */

/* x (N,C) f32 = rows of table (V,C) f32. */
void sp_embedding_forward(float *x, const float *table, const int32_t *tokens, int64_t N, int64_t C);
/* dtable (V,C) accumulated into, in an order that does not depend on the threads' luck. */
void sp_embedding_backward(float *dtable, const float *dx, const int32_t *tokens, int64_t N, int64_t C);

/* ---- cross entropy ----------------------------------------------------------------------------------------------- */

/* loss_sum += sum over rows with target >= 0 of -log softmax(logits)[target], nats; *n_targets += their number.
 * logits (n,V) of dtype act, overwritten with gradient_scale * d loss / d logits when `gradient` (rows without a
 * target: 0). */
void sp_cross_entropy(double *loss_sum, int64_t *n_targets, void *logits, sp_dtype act, const int32_t *targets,
                      int64_t n, int64_t V, bool gradient, float gradient_scale);

/* ---- optimizer --------------------------------------------------------------------------------------------------- */

typedef struct sp_adamw {
    double learning_rate, beta1, beta2, eps, weight_decay;
    int64_t step; /* 1, 2, ...: for the bias correction */
} sp_adamw;
/* One AdamW step (arXiv 1711.05101) on n numbers, all f32 (n) and updated in place except `gradient`, which is
 * multiplied by gradient_scale as it is read. */
void sp_adamw_step(float *values, const float *gradient, float *m, float *v, int64_t n, float gradient_scale,
                   const sp_adamw *options);
/* Euclidean norm in double; the same bits for the same numbers whatever the thread count.  NaN or inf if any is. */
double sp_norm(const float *values, int64_t n);

/* ---- conversion -------------------------------------------------------------------------------------------------- */

/* n numbers between f32, bf16 and f16, rounded to nearest even, NaN kept; in parallel when n is large.  CPUs with
 * AVX512-BF16 round numbers below 2^-126 to 0 in bf16. */
void sp_convert(void *out, sp_dtype out_dtype, const void *in, sp_dtype in_dtype, int64_t n);

#endif
