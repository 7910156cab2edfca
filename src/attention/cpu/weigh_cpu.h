/* The online rule of normalizer.h for a vector of scores, once for all vector widths of the CPU.  A file that includes
 * this has included its vector vocabulary (simd_*.h) first.
 *
 *   y = 2^-c (2^t - 1)
 *
 * is computed without cancellation: t = n + f with n whole, q = 2^f - 1 by a polynomial without constant term, then
 * y = 2^(n-c) q + (2^(n-c) - 2^-c).  A score of 0 gives exactly 0.  The softmaxes use the same with 2^(n-c) alone. */
#include "attention/normalizer.h"
#include "attention/problem.h"

/* What a masked score is replaced by before rule_weigh. */
static inline float rule_masked_score(rule_kind rule) { return rule == RULE_EXPONENTIAL ? ABSENT_SCORE : 0; }

static inline row_rule row_rule_of(const sp_attention *problem, int64_t h) {
    return (row_rule){.normalizer = problem->normalizer,
                      .eps = problem->eps,
                      .lambda = problem->lambda,
                      .sink = problem->normalizer == SP_NORMALIZER_SOFTMAX_SINK ? problem->sink[h] : 0};
}

/* One whole number a lane. */
typedef int32_t v_whole __attribute__((vector_size(V_WIDTH * 4)));

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
