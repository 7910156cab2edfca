/* The online rule of every normalizer, once for CPUs and GPUs: the life of a row.  How a vector of scores is weighed stands
 * in cpu/weigh_cpu.h and cuda/weigh.cuh.
 *
 * Scores come in log2 units, t = s log2(e), block after block.  A row keeps
 *   shift  c, a whole number: exact powers of two follow from it, and raising it loses nothing
 *   sum    the denominator relative to 2^c, one partial sum per lane
 *   out    sum of numerators times values, relative to 2^c                   (kept by the caller)
 * The shift may be stale: it is raised only when a score exceeds it by more than 8, so terms stay below 2^9 or so
 * (GPUs look at sums of terms instead: weigh.cuh).
 * In the softpick family it never falls below 0, whatever the scores are.
 *
 *   y = 2^-c (2^t - 1)                     numerator max(y,0), denominator max(y, -lambda y)
 *
 * Derivation and error: docs/softpick.md. */
#ifndef SP_ATTENTION_NORMALIZER_H
#define SP_ATTENTION_NORMALIZER_H

#include <math.h>

#include "softpick/attention.h"

#ifdef __CUDACC__
#define RULE static __device__ __forceinline__
#else
#define RULE static inline
#endif

/* How scores become weights.  Softmax, softmax-plus-one and the learned sink differ only at begin and finish. */
typedef enum rule_kind { RULE_SOFTPICK, RULE_EXPONENTIAL, RULE_RECTIFIED } rule_kind;

static inline rule_kind rule_of(sp_normalizer normalizer) {
    switch (normalizer) {
    case SP_NORMALIZER_SOFTPICK: return RULE_SOFTPICK;
    case SP_NORMALIZER_RECTIFIED: return RULE_RECTIFIED;
    default: return RULE_EXPONENTIAL;
    }
}

/* What the rows of one head have in common. */
typedef struct row_rule {
    sp_normalizer normalizer;
    float eps, lambda; /* of softpick */
    float sink;        /* of softmax_sink */
} row_rule;

/* Stand-ins for a score that is not there: its power of two is 0 under any shift >= LOWEST_SHIFT. */
#define ABSENT_SCORE (-0x1p100f)
#define LOWEST_SHIFT (-0x1p99f)
#define LOG2_E       0x1.715476p+0f
#define LN_2         0x1.62e430p-1f

/* 2^n for a whole n (or one far below -126). */
RULE float power_of_two(float n) { return n < -126 ? 0 : ldexpf(1, (int)n); }

/* ---- begin, raise, (add), finish -------------------------------------------------------------------------------- */

RULE float row_begin(const row_rule *rule) {
    switch (rule->normalizer) {
    case SP_NORMALIZER_SOFTMAX: return LOWEST_SHIFT;
    case SP_NORMALIZER_SOFTMAX_SINK: return fmaxf(ceilf(rule->sink * LOG2_E), LOWEST_SHIFT);
    default: return 0;
    }
}

/* True if the highest score of a block asks for a higher shift. */
RULE bool row_must_rise(float highest, float shift) { return highest > shift + 8; }

/* The shift for a row whose highest score so far is `highest`; *factor: what sum and out are multiplied by. */
RULE float row_raise(float highest, float shift, float *factor) {
    float raised = fmaxf(ceilf(highest), shift);
    *factor = power_of_two(shift - raised);
    return raised;
}

/* Ends a row whose lanes sum to `sum`.  Returns what `out` is multiplied by; *lse: log2 of the denominator. */
RULE float row_finish(const row_rule *rule, float shift, float sum, float *lse) {
    switch (rule->normalizer) {
    case SP_NORMALIZER_SOFTPICK: sum += rule->eps * power_of_two(-shift); break;
    case SP_NORMALIZER_SOFTMAX_PLUS_ONE: sum += power_of_two(-shift); break;
    case SP_NORMALIZER_SOFTMAX_SINK: sum += exp2f(rule->sink * LOG2_E - shift); break;
    default: break;
    }
    *lse = sum == 0 ? INFINITY : shift + log2f(sum);
    return sum == 0 ? 0 : 1 / sum;
}

/* ---- backward ------------------------------------------------------------------------------------------------- */

/* What a row needs to recompute its weights and score gradients from lse = shift + log2(1/factor). */
typedef struct row_gradient {
    float shift, unit; /* whole part of lse and 2^-shift */
    float factor;      /* 2^(shift - lse), in [0.7,1.5]; 0 for a row without weights */
    float live, dead;  /* factor * delta, and factor * lambda * delta */
} row_gradient;

RULE row_gradient row_gradient_begin(float lambda, float lse, float delta) {
    row_gradient row = {0, 1, 0, 0, 0};
    if (isinf(lse)) return row;
    row.shift = rintf(lse);
    row.unit = power_of_two(-row.shift);
    row.factor = exp2f(row.shift - lse);
    row.live = row.factor * delta;
    row.dead = row.factor * lambda * delta;
    return row;
}

#endif
