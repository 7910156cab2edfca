/* Rows on which kernels go wrong, by every variant against the definition: no positive score, scores of exactly 0, huge,
 * tiny and rising ones, blocks of zeros. */
#define _GNU_SOURCE /* setenv */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_agree.h"
#include "base/status.h"

/* Scores are q[t] . k[j], of channels chosen so that they are exact in every dtype: the scale is 1. */
typedef struct pattern {
    const char *name;
    double (*q)(int64_t t, int64_t d);
    double (*k)(int64_t j, int64_t d, int64_t place);
    int64_t place;
    bool coarse; /* terms so large that f16 is left out: nothing but their rounding would be seen */
} pattern;

/* ---- the patterns ----------------------------------------------------------------------------------------------- */

/* The score is the key's first channel. */
static double same_q(int64_t t, int64_t d) { return (void)t, d == 0; }

/* The score is the key's first channel times -1, 0 or 1. */
static double turning_q(int64_t t, int64_t d) { return d == 0 ? (double)(t % 3 - 1) : 0; }

/* The score is four times the key's first channel. */
static double large_q(int64_t t, int64_t d) { return (void)t, d == 0 ? 4 : 0; }

/* Each 16 queries look at another channel. */
static double slab_q(int64_t t, int64_t d) { return d == t / 16 % 8; }

static double all_negative(int64_t j, int64_t d, int64_t place) {
    (void)place;
    return d == 0 ? -0.5 - (double)(j % 7) : 0;
}

static double all_zero(int64_t j, int64_t d, int64_t place) { return (void)j, (void)d, (void)place, 0; }

static double one_positive(int64_t j, int64_t d, int64_t place) { return d ? 0 : j == place ? 3 : -2; }

/* Far below zero but for the keys from `place` on. */
static double late_positive(int64_t j, int64_t d, int64_t place) { return d ? 0 : j >= place ? 2 : -120; }

static double huge(int64_t j, int64_t d, int64_t place) { return d ? 0 : (double)((j * place) % 11 - 5) * 2048; }

/* Each block must raise the row's shift, and then none. */
static double rising(int64_t j, int64_t d, int64_t place) {
    return d ? 0 : (double)(j % 3 - 1) * (double)(j < 128 ? j : place) * 0.5;
}

/* Higher by far from each 100 keys to the next. */
static double stairs(int64_t j, int64_t d, int64_t place) {
    return d ? 0 : (double)(j % 3 - 1) * (double)(j / 100 * place + j % 7);
}

/* Around 8 in log2 units above a shift of 0, of 8 and so on: where the shift is or is not raised. */
static double threshold(int64_t j, int64_t d, int64_t place) {
    return d ? 0 : (double)(1 + j / 50 % 3) * (5.53125 + 0.03125 * (double)(j % place));
}

static double constant_one(int64_t j, int64_t d, int64_t place) { return (void)j, (void)place, d ? 0 : 1.5; }

static double tiny(int64_t j, int64_t d, int64_t place) { return d ? 0 : (double)(j % 5 - 2) * ldexp(1, -(int)place); }

static double turning(int64_t j, int64_t d, int64_t place) { return d ? 0 : (double)(j % place - 2); }

/* Every third score is beyond what a float can hold. */
static double below_floats(int64_t j, int64_t d, int64_t place) {
    return d ? 0 : j % 3 == place ? -3e38 : 0.25 * (double)(j % 5 - 2);
}

/* Blocks of 16 keys whose scores are all negative, `place` of 100. */
static double slabs(int64_t j, int64_t d, int64_t place) {
    bool dead = (int64_t)sp_random_below(5, (uint64_t)d, (uint64_t)j / 16, 100) < place;
    return (dead ? -1 : 1) * (0.25 + 0.125 * (double)(j % 11));
}

static const pattern patterns[] = {
    {"all negative", same_q, all_negative, 0, false},
    {"all zero", same_q, all_zero, 0, false},
    {"positive at last", same_q, late_positive, 150, false},
    {"one positive at last", same_q, late_positive, 199, false},
    {"far below zero", same_q, late_positive, INT64_MAX, false},
    {"huge", same_q, huge, 37, true},
    {"huge and turning", turning_q, huge, 5, true},
    {"rising", same_q, rising, 64, false},
    {"rising and turning", turning_q, rising, 400, false},
    {"stairs", same_q, stairs, 12, false},
    {"high stairs", same_q, stairs, 48, true},
    {"high stairs and turning", turning_q, stairs, 48, true},
    {"threshold", same_q, threshold, 2, false},
    {"threshold", same_q, threshold, 3, false},
    {"constant", same_q, constant_one, 0, false},
    {"constant and turning", turning_q, constant_one, 0, false},
    {"tiny", same_q, tiny, 12, false},
    {"tinier", turning_q, tiny, 22, false},
    {"turning", turning_q, turning, 5, false},
    {"overflowing below", large_q, below_floats, 1, true},
    {"no dead blocks", slab_q, slabs, 0, false},
    {"half of the blocks dead", slab_q, slabs, 50, false},
    {"most blocks dead", slab_q, slabs, 98, false},
    {"all blocks dead", slab_q, slabs, 100, false},
};

static void prepare_pattern(attention_case *c, const void *user) {
    const pattern *scores = user;
    const sp_tensor *q = &c->problem.q, *k = &c->problem.k;
    c->problem.scale = 1;
    for (int64_t b = 0; b < q->shape[0]; b++)
        for (int64_t d = 0; d < q->shape[3]; d++) {
            for (int64_t t = 0; t < q->shape[1]; t++)
                for (int64_t h = 0; h < q->shape[2]; h++) case_store(q, b, t, h, d, scores->q(t, d));
            for (int64_t j = 0; j < k->shape[1]; j++)
                for (int64_t h = 0; h < k->shape[2]; h++) case_store(k, b, j, h, d, scores->k(j, d, scores->place));
        }
}

/* ---- checking --------------------------------------------------------------------------------------------------- */

static const attention_shape medium = {.B = 1,
                                       .T = 200,
                                       .S = 200,
                                       .H = 1,
                                       .Hkv = 1,
                                       .D = 16,
                                       .Dv = 24,
                                       .causal = true,
                                       .lambda = 1,
                                       .eps = SP_EPS_DEFAULT,
                                       .spread = 3,
                                       .seed = 3};

static const sp_dtype dtypes[] = {SP_DTYPE_F32, SP_DTYPE_BF16, SP_DTYPE_F16};

/* Few queries that see all, more queries than keys, decode, and all causal. */
static bool check_shapes(const pattern *scores, attention_shape shape, bool whole) {
    static const struct {
        sp_attention_pass pass;
        int64_t T, S;
    } sizes[] = {{SP_ATTENTION_FORWARD, 3, 600},
                 {SP_ATTENTION_FORWARD, 70, 5},
                 {SP_ATTENTION_DECODE, 2, 1200},
                 {SP_ATTENTION_FORWARD, 200, 200}};
    bool near = true;
    for (int i = 0; i < (whole ? 4 : 3); i++) {
        agree_case a = {.shape = shape, .pass = sizes[i].pass, .prepare = prepare_pattern, .user = scores};
        a.shape.T = sizes[i].T, a.shape.S = sizes[i].S;
        near = agree_check(scores->name, a) && near;
    }
    return near;
}

static void patterns_of_scores_agree_with_the_definition(void **state) {
    (void)state;
    bool near = true;
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
        for (int kind = 0; kind < SP_NORMALIZER_COUNT; kind++)
            for (int dtype = 0; dtype < (kind == 0 && !patterns[i].coarse ? 3 : 2); dtype++) {
                attention_shape shape = medium;
                shape.normalizer = (sp_normalizer)kind;
                shape.dtype = dtypes[dtype];
                near = check_shapes(&patterns[i], shape, kind < 2) && near;
                shape.lambda = 0, shape.eps = 0;
                if (kind != SP_NORMALIZER_SOFTPICK) continue;
                near = check_shapes(&patterns[i], shape, false) && near;
                shape.lambda = 0.5f, shape.eps = 0.25f;
                near = check_shapes(&patterns[i], shape, false) && near;
            }
    assert_true(near);
}

static void one_positive_score_at_each_position(void **state) {
    (void)state;
    bool near = true;
    for (int64_t place = 0; place < 150; place++)
        for (int dtype = 0; dtype < 2; dtype++) {
            pattern scores = {"one positive", same_q, one_positive, place, false};
            attention_shape shape = medium;
            shape.dtype = dtypes[dtype];
            shape.T = 3, shape.S = 150, shape.causal = false, shape.H = 1;
            near =
                agree_check(scores.name, (agree_case){.shape = shape, .prepare = prepare_pattern, .user = &scores}) &&
                near;
        }
    assert_true(near);
}

/* Ends of windows in every place of the blocks that keys are taken in. */
static void windows_of_any_length(void **state) {
    (void)state;
    static const int64_t windows[] = {1, 15, 16, 17, 100, 128, 255, 256, 257, 300, 513};
    bool near = true;
    for (size_t i = 0; i < sizeof windows / sizeof *windows; i++)
        for (int kind = 0; kind < 2; kind++)
            for (int dtype = 0; dtype < 2; dtype++) {
                agree_case a = {.shape = medium};
                a.shape.normalizer = (sp_normalizer)kind;
                a.shape.dtype = dtypes[dtype];
                a.shape.window = windows[i];
                a.shape.T = 40, a.shape.S = 700, a.shape.liveness = true;
                near = agree_check("a window", a) && near;
                a.pass = SP_ATTENTION_DECODE, a.shape.T = 3, a.shape.S = 2100, a.shape.liveness = false;
                near = agree_check("a window", a) && near;
            }
    assert_true(near);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_of_scores_agree_with_the_definition),
        cmocka_unit_test(one_positive_score_at_each_position),
        cmocka_unit_test(windows_of_any_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
