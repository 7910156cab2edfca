/* An endless list of attention problems: the cross product of all that a problem may be, sampled.  A number of the list
 * is all it takes to get at a problem again. */
#ifndef SP_TESTS_ATTENTION_SAMPLE_H
#define SP_TESTS_ATTENTION_SAMPLE_H

#include "attention_case.h"

static inline int64_t sample_of(uint64_t seed, uint64_t stream, const int64_t *list, uint64_t n) {
    return list[sp_random_below(seed, stream, 1, n)];
}

static inline bool sample_chance(uint64_t seed, uint64_t stream, uint64_t one_in) {
    return sp_random_below(seed, stream, 1, one_in) == 0;
}

#define SAMPLE(stream, ...)                                                                                            \
    sample_of(seed, stream, (const int64_t[]){__VA_ARGS__}, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

/* Heads, sequences and channels are taken away until the products number at most `limit`. */
static inline void sample_shrink(attention_shape *s, int64_t limit) {
    while (s->B * s->H * (s->T + 1) * (s->S + 1) * (s->D + s->Dv) > limit) {
        if (s->B > 1)
            s->B--;
        else if (s->H > s->Hkv)
            s->H -= s->Hkv;
        else if (s->Hkv > 1)
            s->H = --s->Hkv;
        else if (s->D > 16 || s->Dv > 16)
            s->D = s->Dv = 16;
        else
            break;
    }
}

static inline void sample_options(attention_shape *s, uint64_t seed) {
    s->normalizer = (sp_normalizer)SAMPLE(11, 0, 0, 0, 0, 1, 2, 3, 4);
    s->dtype = (sp_dtype)SAMPLE(10, SP_DTYPE_F32, SP_DTYPE_BF16, SP_DTYPE_BF16, SP_DTYPE_F16);
    s->causal = !sample_chance(seed, 12, 3);
    s->window = sample_chance(seed, 13, 4) ? SAMPLE(14, 1, 2, 17, 64, 100) : 0;
    s->row_factor = sample_chance(seed, 16, 5);
    s->lengths = sample_chance(seed, 17, 5);
    s->compute_dead = sample_chance(seed, 28, 3);
    s->lambda = sample_chance(seed, 20, 3) ? (float)SAMPLE(21, 0, 0, 1, 3) * 0.5f : 1;
    s->eps = sample_chance(seed, 22, 3) ? (float)SAMPLE(23, 0, 1, 4) * 0.25f : SP_EPS_DEFAULT;
    s->spread = (float)SAMPLE(24, 1, 1, 1, 4, 40);
}

/* Problems for forward and backward. */
static inline attention_shape sample_shape(uint64_t seed, int64_t limit) {
    attention_shape s = {.seed = seed};
    sample_options(&s, seed);
    s.B = SAMPLE(1, 1, 1, 1, 1, 1, 2, 2, 3, 0);
    s.Hkv = SAMPLE(2, 1, 1, 1, 2, 3, 5);
    s.H = s.Hkv * SAMPLE(3, 1, 1, 2, 4, 8);
    s.D = sample_chance(seed, 4, 5) ? SAMPLE(5, 1, 7, 8, 17, 20, 33, 100)
                                    : 8 * (int64_t)(2 + sp_random_below(seed, 6, 1, 31));
    s.D = sample_chance(seed, 25, 2) ? SAMPLE(26, 32, 64, 64, 96, 128, 192, 256) : s.D;
    s.Dv = sample_chance(seed, 27, 4) ? SAMPLE(29, 1, 8, 16, 24, 64, 72, 128, 256) : s.D;
    s.T = SAMPLE(7, 0, 1, 7, 63, 64, 65, 127, 128, 129, 191);
    s.S = sample_chance(seed, 8, 3) ? SAMPLE(9, 0, 1, 7, 63, 64, 65, 127, 128, 129, 191, 300) : s.T;
    if (sample_chance(seed, 38, 8)) s.S = SAMPLE(39, 400, 520, 700);
    if (sample_chance(seed, 40, 30)) s.T = s.S = 600;
    if (s.window && s.S >= 400) s.window = SAMPLE(41, 100, 300, 450);
    if (sample_chance(seed, 30, 40)) s.T = s.S = 1000;
    if (sample_chance(seed, 31, 40)) s.S = 1000;
    if (sample_chance(seed, 32, 1000)) s.T = s.S = 4096, limit *= 200;
    s.interleaved = s.S == s.T && sample_chance(seed, 15, 3);
    s.head_major = !s.interleaved && sample_chance(seed, 33, 3);
    s.n_packed = !s.lengths && sample_chance(seed, 18, 4) ? SAMPLE(19, 1, 3, 7) : 0;
    if (s.n_packed) s.B = 1;
    s.statistics = sample_chance(seed, 34, 4);
    s.liveness = sample_chance(seed, 35, 2);
    sample_shrink(&s, limit);
    return s;
}

/* Problems for decode: few queries, linear or paged keys. */
static inline attention_shape sample_decode(uint64_t seed, int64_t limit) {
    attention_shape s = {.seed = seed};
    sample_options(&s, seed);
    s.B = SAMPLE(1, 1, 1, 1, 2, 3, 0);
    s.Hkv = SAMPLE(2, 1, 1, 2, 3, 5);
    s.H = s.Hkv * SAMPLE(3, 1, 1, 2, 4, 8);
    s.D = sample_chance(seed, 4, 4) ? SAMPLE(5, 1, 8, 17, 20, 33, 100) : SAMPLE(26, 16, 24, 64, 80, 128, 192, 256);
    s.Dv = sample_chance(seed, 27, 4) ? SAMPLE(29, 1, 8, 16, 24, 72, 128, 256) : s.D;
    s.T = SAMPLE(7, 0, 1, 1, 1, 2, 3, 4, 7, 9, 16, 33);
    s.S = SAMPLE(9, 0, 1, 5, 16, 63, 64, 65, 129, 500, 1023, 1024, 1025, 2049, 3000);
    s.page_size = sample_chance(seed, 36, 2) ? SAMPLE(37, 1, 16, 16, 64, 100) : 0;
    s.lengths = s.lengths || s.page_size;
    s.head_major = sample_chance(seed, 33, 3);
    sample_shrink(&s, limit);
    return s;
}

/* How many problems a test samples: `usual`, or what SOFTPICK_TEST_SEEDS says. */
static inline uint64_t sample_count(uint64_t usual) {
    const char *wanted = getenv("SOFTPICK_TEST_SEEDS");
    return wanted ? strtoull(wanted, NULL, 10) : usual;
}

/* The first: SOFTPICK_TEST_FIRST, or 1. */
static inline uint64_t sample_first(void) {
    const char *wanted = getenv("SOFTPICK_TEST_FIRST");
    return wanted ? strtoull(wanted, NULL, 10) : 1;
}

#endif
