/* What the tests of attention's measures share: problems, and their weights by plain loops in double. */
#ifndef SP_TESTS_MEASURE_SUPPORT_H
#define SP_TESTS_MEASURE_SUPPORT_H

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "softpick/attention.h"

/* ---- problems -------------------------------------------------------------------------------------------------- */

typedef struct fixture {
    float *q, *k, *out;
    sp_attention problem;
} fixture;

/* (B,T,H,D) queries, (B,T,Hkv,D) keys, zeros; outputs of one channel, all 1.  scale 1. */
static inline void fixture_open(fixture *f, int64_t B, int64_t T, int64_t H, int64_t Hkv, int64_t D) {
    f->q = calloc((size_t)(B * T * H * D), sizeof *f->q);
    f->k = calloc((size_t)(B * T * Hkv * D), sizeof *f->k);
    f->out = malloc((size_t)(B * T * H) * sizeof *f->out);
    assert_true(f->q && f->k && f->out);
    for (int64_t i = 0; i < B * T * H; i++) f->out[i] = 1;
    sp_attention_init(&f->problem);
    f->problem.q = sp_tensor_view(f->q, SP_DTYPE_F32, 4, (int64_t[]){B, T, H, D});
    f->problem.k = sp_tensor_view(f->k, SP_DTYPE_F32, 4, (int64_t[]){B, T, Hkv, D});
    f->problem.out = sp_tensor_view(f->out, SP_DTYPE_F32, 4, (int64_t[]){B, T, H, 1});
    f->problem.scale = 1;
}

static inline void fixture_close(fixture *f) {
    free(f->q);
    free(f->k);
    free(f->out);
}

static inline void fixture_randomize(fixture *f, uint64_t seed, double spread) {
    for (int64_t i = 0; i < sp_tensor_count(&f->problem.q); i++)
        f->q[i] = (float)(spread * sp_random_normal(seed, 1, (uint64_t)i));
    for (int64_t i = 0; i < sp_tensor_count(&f->problem.k); i++)
        f->k[i] = (float)(spread * sp_random_normal(seed, 2, (uint64_t)i));
}

static inline void assert_near(double value, double expected, double tolerance) {
    if (!(fabs(value - expected) <= tolerance)) fail_msg("%.17g is not %.17g", value, expected);
}

/* Numerator and its part of the denominator of one score, by the definitions of the normalizers. */
static inline double numerator(const sp_attention *problem, double s) {
    switch (problem->normalizer) {
    case SP_NORMALIZER_SOFTPICK: return s > 0 ? expm1(s) : 0;
    case SP_NORMALIZER_RECTIFIED: return s > 0 ? exp(s) : 0;
    default: return exp(s);
    }
}

static inline double outside_keys(const sp_attention *problem, int64_t h) {
    switch (problem->normalizer) {
    case SP_NORMALIZER_SOFTPICK: return problem->eps;
    case SP_NORMALIZER_SOFTMAX_PLUS_ONE: return 1;
    case SP_NORMALIZER_SOFTMAX_SINK: return exp(problem->sink[h]);
    default: return 0;
    }
}

/* The weights of row t of (b,h), for the keys 0..t. */
static inline void plain_row(const fixture *f, int64_t b, int64_t h, int64_t t, double *weights) {
    const int64_t *q = f->problem.q.shape, *k = f->problem.k.shape;
    int64_t T = q[1], H = q[2], D = q[3], Hkv = k[2];
    double sum = outside_keys(&f->problem, h);
    for (int64_t j = 0; j <= t; j++) {
        double s = 0;
        for (int64_t d = 0; d < D; d++)
            s += (double)f->q[((b * T + t) * H + h) * D + d] * f->k[((b * T + j) * Hkv + h / (H / Hkv)) * D + d];
        s *= f->problem.scale;
        weights[j] = numerator(&f->problem, s);
        bool negative = f->problem.normalizer == SP_NORMALIZER_SOFTPICK && s < 0;
        sum += negative ? -f->problem.lambda * expm1(s) : weights[j];
    }
    for (int64_t j = 0; j <= t; j++) weights[j] = sum > 0 ? weights[j] / sum : 0;
}

#endif
