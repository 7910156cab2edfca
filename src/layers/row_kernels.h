/* The arithmetic of every layer on one row of numbers, compiled once per instruction set (row_kernels.inc) and
 * chosen once at run time (row_kernels.c).  The layers' own files walk over rows, in parallel; nothing here starts a
 * thread or allocates. "act" is f32 or bf16. */
#ifndef SP_LAYERS_ROW_KERNELS_H
#define SP_LAYERS_ROW_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "softpick/tensor.h"

/* What one AdamW step multiplies with, rounded to f32 once. */
typedef struct sp_adamw_factors {
    float gradient_scale, beta1, one_minus_beta1, beta2, one_minus_beta2;
    float keep;            /* 1 - learning_rate * weight_decay */
    float rate;            /* learning_rate / (1 - beta1^step) */
    float root_correction; /* 1 / sqrt(1 - beta2^step) */
    float eps;
} sp_adamw_factors;

struct sp_adamw;
sp_adamw_factors sp_adamw_factors_of(const struct sp_adamw *options, float gradient_scale);

typedef struct sp_row_kernels {
    const char *name;
    uint32_t needs; /* bits of sp_cpu_feature */

    /* y (C) = x rstd weight; returns rstd */
    float (*rmsnorm)(void *y, sp_dtype act, const float *x, const float *weight, int64_t C, float eps);
    /* y (C) = x rstd weight, with the same bits */
    void (*rmsnorm_again)(void *y, sp_dtype act, const float *x, const float *weight, float rstd, int64_t C);
    /* dx (C) += ..., dweight (C) += ... */
    void (*rmsnorm_gradient)(float *dx, float *dweight, const void *dy, sp_dtype act, const float *x,
                             const float *weight, float rstd, int64_t C);
    /* n_heads heads of D numbers, one after the other, each divided by its own root mean square, times weight (D) */
    void (*head_norm)(void *x, sp_dtype act, const float *weight, int64_t n_heads, int64_t D, float eps);
    /* dx: of the normed heads, then of x; dweight (D) += ... */
    void (*head_norm_gradient)(void *dx, float *dweight, sp_dtype act, const void *x, const float *weight,
                               int64_t n_heads, int64_t D, float eps);
    /* n_heads heads of D numbers, one after the other; angles: cos (D/2), sin (D/2) */
    void (*rope)(void *x, sp_dtype act, const float *angles, int64_t n_heads, int64_t D, bool inverse);
    /* s (F), g (F), u (F) */
    void (*swiglu)(void *s, const void *g, const void *u, sp_dtype act, int64_t F);
    /* dg and du may be g and u, s may be ds or NULL */
    void (*swiglu_gradient)(void *dg, void *du, void *s, const void *ds, const void *g, const void *u, sp_dtype act,
                            int64_t F);
    /* returns -log softmax(logits)[target]; logits overwritten with gradient_scale * its gradient if
     * `gradient` */
    double (*cross_entropy)(void *logits, sp_dtype act, int64_t target, int64_t V, bool gradient, float gradient_scale);
    /* returns log softmax(logits)[target], f32; *greedy: no logit is larger, and none before the target as large */
    float (*prediction)(const float *logits, int64_t target, int64_t V, bool *greedy);
    /* out (n) += in (n) */
    void (*add)(float *out, const float *in, int64_t n);
    /* the same with `in` of dtype act, or with `out` of it */
    void (*add_from)(float *out, const void *in, sp_dtype act, int64_t n);
    void (*add_to)(void *out, sp_dtype act, const float *in, int64_t n);
    void (*adamw)(float *values, const float *gradient, float *m, float *v, int64_t n, const sp_adamw_factors *factors);
    double (*sum_of_squares)(const float *values, int64_t n);
    void (*convert)(void *out, sp_dtype out_dtype, const void *in, sp_dtype in_dtype, int64_t n);
} sp_row_kernels;

/* The best set for this CPU. */
const sp_row_kernels *sp_row_kernels_best(void);
/* The i-th set, best first, whether or not this CPU can run it; NULL past the end. */
const sp_row_kernels *sp_row_kernels_at(int i);
/* True if this CPU can run the set. */
bool sp_row_kernels_usable(const sp_row_kernels *kernels);

extern const sp_row_kernels sp_row_kernels_baseline;
#if defined(__x86_64__)
extern const sp_row_kernels sp_row_kernels_avx2;
extern const sp_row_kernels sp_row_kernels_avx512;
extern const sp_row_kernels sp_row_kernels_avx512_bf16;
#endif

#endif
