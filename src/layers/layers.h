/* The layers of a LLaMA-style model, forward and backward, on any device: one table of functions per kind of device.
 * Tensors are raw pointers to the device's memory, contiguous unless a row stride (in elements) is given; "act" is the
 * dtype of activations, f32 or bf16 (CUDA: bf16 alone).  The residual stream x, norms' weights, gradients of weights
 * and all accumulation are f32.  On a CUDA device a call queues its work and returns.
 * N tokens, C channels, F feed-forward width, V vocabulary, K and M: inputs and outputs of a product. */
#ifndef SP_LAYERS_LAYERS_H
#define SP_LAYERS_LAYERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "device/device.h"
#include "softpick/tensor.h"

typedef struct sp_adamw {
    double learning_rate, beta1, beta2, eps, weight_decay;
    int64_t step; /* 1, 2, ...: for the bias correction */
} sp_adamw;

typedef struct sp_layers {
    /* ---- matrix products ---- */

    /* y (N,M) = x (N,K) w^T, w (M,K); x, w of dtype `act`; y f32 or `act`.  With `residual` (N,M) f32, contiguous, and
     * y f32: y = residual + x w^T; y may be residual itself. */
    sp_status (*linear_forward)(sp_device *device, void *y, sp_dtype y_dtype, int64_t y_stride, const void *x,
                                int64_t x_stride, const void *w, sp_dtype act, const float *residual, int64_t N,
                                int64_t K, int64_t M);
    /* dx (N,K) of dtype dx_dtype = dy (N,M) w (M,K); dy and w of dtype `act`. */
    sp_status (*linear_backward_input)(sp_device *device, void *dx, sp_dtype dx_dtype, int64_t dx_stride,
                                       const void *dy, int64_t dy_stride, const void *w, sp_dtype act, int64_t N,
                                       int64_t K, int64_t M);
    /* dw (M,K) f32 += dy^T (M,N) x (N,K); dy and x of dtype `act`. */
    sp_status (*linear_backward_weight)(sp_device *device, float *dw, const void *dy, int64_t dy_stride, const void *x,
                                        int64_t x_stride, sp_dtype act, int64_t N, int64_t K, int64_t M);

    /* ---- biases ---- */

    /* y (N,M) of y_dtype, f32 or bf16, += bias (M) in every row. */
    sp_status (*bias_add)(sp_device *device, void *y, sp_dtype y_dtype, int64_t y_stride, const float *bias, int64_t N,
                          int64_t M);
    /* dbias (M) f32 += the sum of the rows of dy (N,M) of dtype `act`.  workspace: bias_workspace bytes. */
    sp_status (*bias_backward)(sp_device *device, float *dbias, const void *dy, int64_t dy_stride, sp_dtype act,
                               int64_t N, int64_t M, void *workspace);
    int64_t (*bias_workspace)(int64_t M);

    /* ---- RMSNorm (arXiv 1910.07467): y = x / sqrt(mean(x^2) + eps) * weight ---- */

    /* y (N,C) of dtype act, overwritten; rstd (N), overwritten: 1/sqrt(mean(x^2) + eps), NULL when not wanted. */
    sp_status (*rmsnorm_forward)(sp_device *device, void *y, sp_dtype act, float *rstd, const float *x,
                                 const float *weight, int64_t N, int64_t C, float eps);
    /* dx (N,C) f32 and dweight (C) accumulated into.  Overwritten unless NULL: dx_act (N,C) of dtype act, the new dx;
     * y (N,C) of dtype act, the forward's value again (y may be dy).  workspace: rmsnorm_workspace bytes. */
    sp_status (*rmsnorm_backward)(sp_device *device, float *dx, void *dx_act, void *y, float *dweight, const void *dy,
                                  sp_dtype act, const float *x, const float *weight, const float *rstd, int64_t N,
                                  int64_t C, void *workspace);
    int64_t (*rmsnorm_workspace)(int64_t C);

    /* ---- RMSNorm of each head by itself, before the rotation; weight (D), the same for all heads ---- */

    /* n_heads heads of each token in place: x (N, n_heads, D)@row_stride.  kept (N, n_heads, D)@kept_stride overwritten
     * with what x was, which the backward pass needs; NULL when not wanted. */
    sp_status (*head_norm_forward)(sp_device *device, void *x, sp_dtype act, int64_t row_stride, void *kept,
                                   int64_t kept_stride, const float *weight, int64_t N, int64_t n_heads, int64_t D,
                                   float eps);
    /* dx (N, n_heads, D)@row_stride holds the gradient of the normed heads and is overwritten with that of `kept`;
     * dweight (D) accumulated into.  workspace: rmsnorm_workspace(D) bytes. */
    sp_status (*head_norm_backward)(sp_device *device, void *dx, sp_dtype act, int64_t row_stride, float *dweight,
                                    const void *kept, int64_t kept_stride, const float *weight, int64_t N,
                                    int64_t n_heads, int64_t D, float eps, void *workspace);

    /* ---- RoPE, half-split: the pair is (i, i + D/2) ---- */

    /* Turns n_heads heads of each token in place: x (N, n_heads, D)@row_stride; table: sp_rope_table's, positions (N).
     * `inverse`: by the opposite angle, which is the backward pass. */
    sp_status (*rope_apply)(sp_device *device, void *x, sp_dtype act, int64_t row_stride, const int32_t *positions,
                            const float *table, int64_t N, int64_t n_heads, int64_t D, bool inverse);

    /* ---- SwiGLU: s = silu(g) * u, with g and u side by side in gu (N,2F) ---- */

    sp_status (*swiglu_forward)(sp_device *device, void *s, const void *gu, sp_dtype act, int64_t N, int64_t F);
    /* dgu (N,2F) overwritten; s (N,F) overwritten with the forward's value again (for the weight gradient of the layer
     * that follows), NULL when not wanted.  dgu may be gu, s may be ds. */
    sp_status (*swiglu_backward)(sp_device *device, void *dgu, void *s, const void *ds, const void *gu, sp_dtype act,
                                 int64_t N, int64_t F);

    /* ---- embedding ---- */

    /* x (N,C) f32 = rows of table (V,C) f32. */
    sp_status (*embedding_forward)(sp_device *device, float *x, const float *table, const int32_t *tokens, int64_t N,
                                   int64_t C);
    /* dtable (V,C) accumulated into, each row in the order of its tokens.  `tokens` (N) in HOST memory.
     * workspace: embedding_workspace bytes. */
    sp_status (*embedding_backward)(sp_device *device, float *dtable, const float *dx, const int32_t *tokens, int64_t N,
                                    int64_t C, void *workspace);
    int64_t (*embedding_workspace)(int64_t N);

    /* ---- rows ---- */

    /* Row i of `to` (n rows of row_bytes, one after another) = row rows[i] of `from`, whose rows lie from_stride bytes
     * apart. */
    sp_status (*gather_rows)(sp_device *device, void *to, const void *from, int64_t from_stride, const int32_t *rows,
                             int64_t row_bytes, int64_t n);

    /* ---- cross entropy ---- */

    /* losses (n) overwritten: -log softmax(logits)[target] in nats, 0 in rows without a target (< 0).  logits (n,V) of
     * dtype `logits_dtype`, overwritten with gradient_scale * d loss / d logits when `gradient` (rows without a target:
     * 0). */
    sp_status (*cross_entropy)(sp_device *device, double *losses, void *logits, sp_dtype logits_dtype,
                               const int32_t *targets, int64_t n, int64_t V, bool gradient, float gradient_scale);
    /* log_probabilities (n) overwritten: log softmax(logits)[target] in nats; greedy (n) overwritten: whether the target is
     * the first of the row's largest logits.  logits (n,V) f32, targets >= 0. */
    sp_status (*predictions)(sp_device *device, float *log_probabilities, bool *greedy, const float *logits,
                             const int32_t *targets, int64_t n, int64_t V);
    /* *sum (host) = sum of n numbers, in an order that depends on n alone; waits. */
    sp_status (*sum)(sp_device *device, double *sum, const double *values, int64_t n);

    /* ---- optimizer ---- */

    /* *norm (host): Euclidean norm of `gradient` (n), summed in double in an order that depends on n alone; waits.  NaN
     * or inf if any number is. */
    sp_status (*norm)(sp_device *device, double *norm, const float *gradient, int64_t n);
    /* One AdamW step (arXiv 1711.05101) on n numbers: values, m, v f32 (n) updated in place; gradient f32 (n), multiplied
     * by gradient_scale as it is read; halves (n) bf16 overwritten with the new values, NULL when not wanted. */
    sp_status (*adamw_step)(sp_device *device, float *values, uint16_t *halves, const float *gradient, float *m,
                            float *v, int64_t n, float gradient_scale, const sp_adamw *options);

    /* ---- conversion ---- */

    /* n numbers between f32, bf16 and f16, rounded to nearest even, NaN kept. */
    sp_status (*convert)(sp_device *device, void *out, sp_dtype out_dtype, const void *in, sp_dtype in_dtype,
                         int64_t n);

    int64_t matmul_bytes; /* of the device's memory that products keep for themselves */
} sp_layers;

/* The table of a device (id as in sp_tensor); a row for each kind. */
const sp_layers *sp_layers_on_id(int32_t device_id);
extern const sp_layers sp_layers_cpu;

/* The angles of rotary positions: pair i of a head turns by theta^(-2i/D) from one position to the next. */
typedef struct sp_rope {
    double theta;
    double factor; /* angles are divided by it; 0: by nothing */
    /* Where not 0, llama3's rule: an angle that makes more than high_turns turns within so many positions stays, one that
     * makes less than low_turns is divided, and between them it is blended. */
    double original_positions, low_turns, high_turns;
} sp_rope;
/* Table (n_positions, D): cos in [0,D/2), sin in [D/2,D); host memory. */
void sp_rope_table(float *table, int64_t n_positions, int64_t D, const sp_rope *rope);
/* sp_layers_cpu.convert: in parallel when n is large.  CPUs with AVX512-BF16 round numbers below 2^-126 to 0 in bf16. */
void sp_convert(void *out, sp_dtype out_dtype, const void *in, sp_dtype in_dtype, int64_t n);
/* Name of what runs products of this dtype on the CPU ("onednn", "plain"); NULL if nothing can. */
const char *sp_matmul_variant(sp_dtype act);
/* True if bf16 products are faster than f32 on this CPU: by oneDNN, with AVX512-BF16 or AMX. */
bool sp_matmul_bf16_pays(void);

#endif
