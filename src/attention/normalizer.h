/* The online rule of every normalizer, once for all vector widths.  A file that includes this has included its vector
 * vocabulary (cpu/simd_*.h) first.
 *
 * Scores come in log2 units, t = s log2(e), block after block.  A row keeps
 *   shift  c, a whole number: exact powers of two follow from it, and raising it loses nothing
 *   sum    the denominator relative to 2^c, one partial sum per lane
 *   out    sum of numerators times values, relative to 2^c                   (kept by the caller)
 * The shift may be stale: it is raised only when a score exceeds it by more than 8, so terms stay below 2^9 or so.
 * In the softpick family it never falls below 0, whatever the scores are.
 *
 *   y = 2^-c (2^t - 1)                     numerator max(y,0), denominator max(y, -lambda y)
 *
 * is computed without cancellation: t = n + f with n whole, q = 2^f - 1 by a polynomial without constant term, then
 * y = 2^(n-c) q + (2^(n-c) - 2^-c).  A score of 0 gives exactly 0.  The softmaxes use the same with 2^(n-c) alone.
 * Derivation and error: docs/softpick.md. */
#include "attention/problem.h"

/* How scores become weights.  Softmax, softmax-plus-one and the learned sink differ only at begin and finish. */
typedef enum rule_kind { RULE_SOFTPICK, RULE_EXPONENTIAL, RULE_RECTIFIED } rule_kind;

static inline rule_kind rule_of(sp_normalizer normalizer) {
    switch (normalizer) {
    case SP_NORMALIZER_SOFTPICK: return RULE_SOFTPICK;
    case SP_NORMALIZER_RECTIFIED: return RULE_RECTIFIED;
    default: return RULE_EXPONENTIAL;
    }
}

/* Stand-ins for a score that is not there: its power of two is 0 under any shift >= LOWEST_SHIFT. */
#define ABSENT_SCORE (-0x1p100f)
#define LOWEST_SHIFT (-0x1p99f)
#define LOG2_E       0x1.715476p+0f
#define LN_2         0x1.62e430p-1f

/* What a masked score is replaced by before rule_weigh. */
static inline float rule_masked_score(rule_kind rule) { return rule == RULE_EXPONENTIAL ? ABSENT_SCORE : 0; }

/* 2^n for a whole n (or one far below -126). */
static inline float power_of_two(float n) { return n < -126 ? 0 : ldexpf(1, (int)n); }

/* One whole number a lane. */
typedef int32_t v_whole __attribute__((vector_size(V_WIDTH * 4)));

/* ---- a row's life: begin, raise, (add), finish ------------------------------------------------------------------ */

static inline float row_begin(const sp_attention *problem, int64_t h) {
    switch (problem->normalizer) {
    case SP_NORMALIZER_SOFTMAX: return LOWEST_SHIFT;
    case SP_NORMALIZER_SOFTMAX_SINK: return fmaxf(ceilf(problem->sink[h] * LOG2_E), LOWEST_SHIFT);
    default: return 0;
    }
}

/* True if the highest score of a block asks for a higher shift. */
static inline bool row_must_rise(float highest, float shift) { return highest > shift + 8; }

/* The shift for a row whose highest score so far is `highest`; *factor: what sum and out are multiplied by. */
static inline float row_raise(float highest, float shift, float *factor) {
    float raised = fmaxf(ceilf(highest), shift);
    *factor = power_of_two(shift - raised);
    return raised;
}

/* Ends a row whose lanes sum to `sum`.  Returns what `out` is multiplied by; *lse: log2 of the denominator. */
static inline float row_finish(const sp_attention *problem, int64_t h, float shift, float sum, float *lse) {
    switch (problem->normalizer) {
    case SP_NORMALIZER_SOFTPICK: sum += problem->eps * power_of_two(-shift); break;
    case SP_NORMALIZER_SOFTMAX_PLUS_ONE: sum += power_of_two(-shift); break;
    case SP_NORMALIZER_SOFTMAX_SINK: sum += exp2f(problem->sink[h] * LOG2_E - shift); break;
    default: break;
    }
    *lse = sum == 0 ? INFINITY : shift + log2f(sum);
    return sum == 0 ? 0 : 1 / sum;
}

/* ---- forward: a vector of scores becomes numerators and denominator terms ------------------------------------- */

/* 2^f = 1 + f * polynomial(f) for |f| <= 1/2; Chebyshev interpolation, relative error 2.2e-8. */
static inline v power_minus_one(v f) {
    v p = v_fma(v_set(0x1.44138ap-13f), f, v_set(0x1.5f0890p-10f));
    p = v_fma(p, f, v_set(0x1.3b2a54p-7f));
    p = v_fma(p, f, v_set(0x1.c6af6cp-5f));
    p = v_fma(p, f, v_set(0x1.ebfbe0p-3f));
    p = v_fma(p, f, v_set(0x1.62e430p-1f));
    return v_mul(p, f);
}

/* log2 x; numbers below 2^-126 count as that.  With x = 2^n m, m near 1:
 * log2 m = 2/ln 2 atanh((m-1)/(m+1)), whose series ends at 2e-8 of it. */
static inline v log2_of(v x) {
    v_whole bits = (v_whole)v_max(x, v_set(0x1p-126f)), n = (bits - 0x3f3504f3) >> 23; /* m in [sqrt(1/2), sqrt 2) */
    v m = (v)(bits - n * 0x800000), z = v_sub(m, v_set(1)) / v_add(m, v_set(1)), square = v_mul(z, z);
    v series = v_fma(square, v_set(1.0f / 9), v_set(1.0f / 7));
    series = v_fma(square, series, v_set(1.0f / 5));
    series = v_fma(square, series, v_set(1.0f / 3));
    series = v_fma(square, series, v_set(1));
    return v_fma(v_mul(z, v_set(2 * LOG2_E)), series, __builtin_convertvector(n, v));
}

/* 2^(t-c) = power * (1 + fraction), the power exact.  A score that overflowed to -inf is one that is not there. */
static inline void split_power(v t, v shift, v *power, v *fraction) {
    t = v_max(v_set(ABSENT_SCORE), t); /* this way round NaN stays */
    v n = v_round(t);
    *fraction = power_minus_one(v_sub(t, n));
    *power = v_power(v_sub(n, shift));
}

/* Scores without weight in the softpick family.  NaN is not one: it must show in its row. */
static inline v_mask is_dead(v t) { return v_at_most(t, v_set(0)); }

/* `unit` is v_power(-c).  Returns the numerator; *term is the denominator's. */
static inline v rule_weigh(const rule_kind rule, v t, v shift, v unit, v minus_lambda, v *term) {
    v power, fraction;
    split_power(t, shift, &power, &fraction);
    if (rule == RULE_SOFTPICK) {
        v y = v_fma(power, fraction, v_sub(power, unit));
        *term = v_max(v_mul(minus_lambda, y), y);
        return v_max(y, v_set(0));
    }
    v e = v_fma(power, fraction, power);
    if (rule == RULE_RECTIFIED) e = v_select(is_dead(t), v_set(0), e);
    *term = e;
    return e;
}

/* ---- backward ------------------------------------------------------------------------------------------------- */

/* What a row needs to recompute its weights and score gradients from lse = shift + log2(1/factor). */
typedef struct row_gradient {
    float shift, unit; /* whole part of lse and 2^-shift */
    float factor;      /* 2^(shift - lse), in [0.7,1.5]; 0 for a row without weights */
    float live, dead;  /* factor * delta, and factor * lambda * delta */
} row_gradient;

static inline row_gradient row_gradient_begin(const sp_attention *problem, float lse, float delta) {
    if (isinf(lse)) return (row_gradient){.unit = 1};
    float shift = rintf(lse), factor = exp2f(shift - lse);
    return (row_gradient){.shift = shift,
                          .unit = power_of_two(-shift),
                          .factor = factor,
                          .live = factor * delta,
                          .dead = factor * problem->lambda * delta};
}

/* Returns the weights of scores t (ABSENT_SCORE where masked) and *gradient, that of the scores in natural units,
 * from the value gradient g = dout . v. */
static inline v rule_differentiate(const rule_kind rule, v t, v g, const row_gradient *row, v *gradient) {
    v power, fraction, factor = v_set(row->factor);
    split_power(t, v_set(row->shift), &power, &fraction);
    v e = v_fma(power, fraction, power), live = v_sub(v_mul(factor, g), v_set(row->live));
    if (rule == RULE_EXPONENTIAL) {
        *gradient = v_mul(e, live);
        return v_mul(factor, e);
    }
    v_mask dead = is_dead(t);
    if (rule == RULE_RECTIFIED) {
        *gradient = v_select(dead, v_set(0), v_mul(e, live));
        return v_select(dead, v_set(0), v_mul(factor, e));
    }
    *gradient = v_mul(e, v_select(dead, v_set(row->dead), live));
    v y = v_fma(power, fraction, v_sub(power, v_set(row->unit)));
    return v_select(dead, v_set(0), v_mul(factor, y));
}
