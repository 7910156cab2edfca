/* How a block of scores becomes weights on a GPU: the elementwise form of the rule in normalizer.h.
 *
 *   y = 2^(t - c) - 2^-c        both powers by the same ex2.approx: a score of 0 gives exactly 0
 *
 * Its absolute error is 2^-22 of 2^-c, which disappears in 16-bit weights.  Scores come as products s, t = scale s with a
 * scale per row, so that t - c is one fused operation.  What a row does not see has y = 0, in every normalizer.
 *
 * No highest score is looked for where it is not needed: a row's shift is measured in its first block; later a block is
 * weighed with the shift as it is, and if a sum of numerators exceeds HIGH_SUM, its scores are computed again and
 * measured.  HIGH_SUM is below what 16-bit floats hold, and a measured block has no numerator above 1. */
#ifndef SP_ATTENTION_CUDA_WEIGH_CUH
#define SP_ATTENTION_CUDA_WEIGH_CUH

#include "attention/cuda/mma.cuh"

extern "C" {
#include "attention/normalizer.h"
}

#define HIGH_SUM 1024.0f

/* What all rows of a head have in common, as the elementwise form needs it. */
struct weigh_rule {
    bool rectified;     /* scores that are not positive weigh nothing */
    float minus_lambda; /* softpick alone */
};

/* One row of queries, as each of the four lanes that hold its scores keeps it. */
struct weigh_row {
    float scale; /* t = scale s */
    float shift; /* c */
    float unit;  /* 2^-c */
    float sum;   /* of this lane's denominator terms, relative to 2^c */
};

/* Keys [first, end) that a row sees, counted from the block's first. */
struct weigh_range {
    int first, end;
};

__device__ __forceinline__ bool weigh_sees(weigh_range range, int key) { return key >= range.first && key < range.end; }

__device__ __forceinline__ void weigh_set_shift(weigh_row &row, float shift) {
    row.shift = shift;
    row.unit = power_of_two_near(-shift);
}

/* The numerator of score s, before what is negative is cut off; *term: what it adds to the denominator. */
template <bool PICKS> __device__ __forceinline__ float weigh_plain(const weigh_row &row, float s, float *term) {
    float y = power_of_two_near(fmaf(s, row.scale, -row.shift));
    if (PICKS) y -= row.unit;
    *term = PICKS ? fabsf(y) : y;
    return y;
}

/* The same with any lambda, for a key that may not be seen, or rectified. */
template <bool PICKS>
__device__ __forceinline__ float weigh_any(const weigh_row &row, const weigh_rule &rule, float s, bool seen,
                                           float *term) {
    float y = weigh_plain<PICKS>(row, s, term);
    bool dead = !PICKS && rule.rectified && s * row.scale <= 0;
    y = seen && !dead ? y : 0;
    *term = PICKS ? fmaxf(y, rule.minus_lambda * y) : y;
    return y;
}

#endif
