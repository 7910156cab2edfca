/* What forward tells beside its output (statistics of each row, liveness words): every variant against the
 * definition. */
#define _GNU_SOURCE /* setenv */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention/select.h"
#include "attention_signs.h"
#include "base/status.h"

/* A case with all that can be noted of it. */
typedef struct noted_case {
    attention_case c;
    int64_t n_words;
} noted_case;

static void noted_open(noted_case *noted, const attention_shape *shape, bool signs) {
    sp_attention *p = &noted->c.problem;
    case_open(&noted->c, shape);
    if (signs) case_signs(&noted->c, shape->seed);
    float **const members[] = {&p->statistics.mass, &p->statistics.first_mass, &p->statistics.entropy,
                               &p->statistics.highest};
    for (int i = 0; i < 4; i++) *members[i] = case_allocate((noted->c.n_lse + 1) * (int64_t)sizeof(float));
    p->statistics.zeros = case_allocate((noted->c.n_lse + 1) * (int64_t)sizeof(int64_t));
    assert_int_equal(sp_attention_liveness_words(p, &noted->n_words), SP_OK);
    p->liveness = case_allocate((noted->n_words + 1) * (int64_t)sizeof *p->liveness);
}

static void noted_close(noted_case *noted) {
    const sp_attention_statistics *statistics = &noted->c.problem.statistics;
    free(statistics->mass), free(statistics->first_mass), free(statistics->entropy), free(statistics->highest);
    free(statistics->zeros), free(noted->c.problem.liveness);
    case_close(&noted->c);
}

static bool close_to(const char *what, const char *name, const float *truth, const float *ours, int64_t n,
                     double relative, double absolute) {
    for (int64_t i = 0; i < n; i++) {
        if (truth[i] == ours[i]) continue; /* infinities too */
        double error = fabs((double)truth[i] - (double)ours[i]);
        if (error <= absolute + relative * fabs((double)truth[i])) continue;
        fprintf(stderr, "%s: %s of row %lld is %.9g, should be %.9g\n", what, name, (long long)i, (double)ours[i],
                (double)truth[i]);
        return false;
    }
    return true;
}

static bool same_counts(const char *what, const attention_case *truth, const attention_case *ours, int64_t n_words) {
    for (int64_t i = 0; i < truth->n_lse; i++)
        if (truth->problem.statistics.zeros[i] != ours->problem.statistics.zeros[i]) {
            fprintf(stderr, "%s: zeros of row %lld are %lld, should be %lld\n", what, (long long)i,
                    (long long)ours->problem.statistics.zeros[i], (long long)truth->problem.statistics.zeros[i]);
            return false;
        }
    for (int64_t i = 0; i < n_words; i++)
        if (truth->problem.liveness[i] != ours->problem.liveness[i]) {
            fprintf(stderr, "%s: liveness word %lld is %08x, should be %08x\n", what, (long long)i,
                    ours->problem.liveness[i], truth->problem.liveness[i]);
            return false;
        }
    return true;
}

/* Whether a variant tells what the definition does.  With `signs` no score is near 0, and counts agree exactly. */
static bool agrees(const char *variant, const attention_shape *shape, bool signs, const noted_case *truth) {
    noted_case ours;
    char what[256];
    case_describe(shape, what, sizeof what - 16);
    snprintf(what + strlen(what), 16, " [%s]", variant);
    noted_open(&ours, shape, signs);
    setenv("SP_ATTENTION", variant, 1);
    if (case_run(&ours.c, SP_ATTENTION_FORWARD, shape->seed % 3 == 0 ? 3 : 1) != SP_OK)
        fail_msg("%s: %s", what, sp_last_message());
    unsetenv("SP_ATTENTION");
    const sp_attention_statistics *a = &truth->c.problem.statistics, *b = &ours.c.problem.statistics;
    double size =
        signs ? 10 : fmax(1, (double)shape->spread); /* of the scores: their error is what weights are off by */
    if (shape->row_factor) size *= 4;
    int64_t n = truth->c.n_lse;
    bool near = close_to(what, "mass", a->mass, b->mass, n, 2e-6 * size, 1e-6);
    near = close_to(what, "first mass", a->first_mass, b->first_mass, n, 2e-6 * size, 2e-6) && near;
    near = close_to(what, "entropy", a->entropy, b->entropy, n, 2e-6 * size, 1e-5 * size) && near;
    near = close_to(what, "highest", a->highest, b->highest, n, 1e-6, 1e-6 * size) && near;
    if (signs) near = same_counts(what, &truth->c, &ours.c, truth->n_words) && near;
    noted_close(&ours);
    return near;
}

/* Every variant that the CPU can run and that takes the problem. */
static bool check_shape(const attention_shape *shape, bool signs) {
    noted_case truth;
    bool near = true;
    noted_open(&truth, shape, signs);
    assert_int_equal(sp_attention_define_forward(&truth.c.problem), SP_OK);
    for (int i = 0; i < sp_attention_table.n_rows; i++) {
        const char *name;
        if (case_takes(&truth.c, SP_ATTENTION_FORWARD, i, &name)) near = agrees(name, shape, signs, &truth) && near;
    }
    noted_close(&truth);
    return near;
}

static attention_shape sample_shape(uint64_t seed) {
    static const int64_t widths[] = {8, 16, 24, 64, 128}, lengths[] = {1, 15, 64, 65, 127, 200, 300};
    attention_shape s = {.seed = seed, .B = 2, .eps = SP_EPS_DEFAULT};
    s.Hkv = 1 + (int64_t)sp_random_below(seed, 1, 0, 2);
    s.H = s.Hkv * (1 + (int64_t)sp_random_below(seed, 1, 1, 2));
    s.D = widths[sp_random_below(seed, 1, 2, 5)];
    s.Dv = widths[sp_random_below(seed, 1, 3, 5)];
    s.T = lengths[sp_random_below(seed, 1, 4, 7)];
    s.S = sp_random_below(seed, 1, 5, 3) ? s.T : lengths[sp_random_below(seed, 1, 6, 7)];
    s.dtype = (sp_dtype)(int[]){SP_DTYPE_F32, SP_DTYPE_BF16, SP_DTYPE_F16}[sp_random_below(seed, 1, 7, 3)];
    s.normalizer = (sp_normalizer)(seed % 2 ? 0 : sp_random_below(seed, 1, 8, SP_NORMALIZER_COUNT));
    s.causal = sp_random_below(seed, 1, 9, 3) != 0;
    s.window = sp_random_below(seed, 1, 10, 4) ? 0 : 70;
    s.lengths = !sp_random_below(seed, 1, 11, 4);
    s.n_packed = !s.lengths && !sp_random_below(seed, 1, 12, 4) ? 3 : 0;
    if (s.n_packed) s.B = 1;
    s.lambda = (float)sp_random_below(seed, 1, 13, 3) * 0.5f;
    s.row_factor = !sp_random_below(seed, 1, 14, 4);
    s.spread = (float)(int[]){1, 1, 4, 20}[sp_random_below(seed, 1, 15, 4)];
    return s;
}

static void statistics_agree_with_the_definition(void **state) {
    (void)state;
    bool near = true;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        attention_shape shape = sample_shape(seed);
        near = check_shape(&shape, false) && near;
    }
    assert_true(near);
}

static void counts_and_liveness_words_are_those_of_the_definition(void **state) {
    (void)state;
    bool near = true;
    for (uint64_t seed = 101; seed <= 180; seed++) {
        attention_shape shape = sample_shape(seed);
        shape.row_factor = false;
        near = check_shape(&shape, true) && near;
    }
    assert_true(near);
}

/* Entropy while the shift rises again and again: scores grow along the keys, a hundred and more in the end. */
static void entropy_survives_a_rising_shift(void **state) {
    (void)state;
    attention_shape shape = {.B = 1, .T = 300, .S = 300, .H = 1, .Hkv = 1, .D = 8, .Dv = 8, .causal = true};
    shape.lambda = 1, shape.eps = SP_EPS_DEFAULT, shape.seed = 5, shape.spread = 30;
    for (int kind = 0; kind < SP_NORMALIZER_COUNT; kind++) {
        noted_case truth, ours;
        shape.normalizer = (sp_normalizer)kind;
        noted_open(&truth, &shape, false), noted_open(&ours, &shape, false);
        for (int i = 0; i < 2; i++)
            for (int64_t t = 0; t < shape.T; t++)
                for (int64_t d = 0; d < shape.D; d++) {
                    const sp_attention *p = i ? &truth.c.problem : &ours.c.problem;
                    case_store(&p->q, 0, t, 0, d, 1);
                    case_store(&p->k, 0, t, 0, d, (double)(t / 8) - 1);
                }
        assert_int_equal(sp_attention_define_forward(&truth.c.problem), SP_OK);
        assert_int_equal(case_run(&ours.c, SP_ATTENTION_FORWARD, 1), SP_OK);
        const sp_attention_statistics *a = &truth.c.problem.statistics, *b = &ours.c.problem.statistics;
        assert_true(
            close_to(sp_normalizer_name(shape.normalizer), "entropy", a->entropy, b->entropy, shape.T, 0, 1e-4));
        assert_true(close_to(sp_normalizer_name(shape.normalizer), "mass", a->mass, b->mass, shape.T, 0, 1e-5));
        noted_close(&truth), noted_close(&ours);
    }
}

static void notes_change_no_bit_of_the_output(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        attention_shape shape = sample_shape(seed);
        if (shape.dtype == SP_DTYPE_BF16) shape.dtype = SP_DTYPE_F16; /* rows for bf16 alone give no statistics */
        noted_case noted;
        attention_case c;
        noted_open(&noted, &shape, false), case_open(&c, &shape);
        assert_int_equal(case_run(&noted.c, SP_ATTENTION_FORWARD, 1), SP_OK);
        assert_int_equal(case_run(&c, SP_ATTENTION_FORWARD, 1), SP_OK);
        assert_memory_equal(noted.c.blocks[3], c.blocks[3], (size_t)c.block_bytes[3]);
        assert_memory_equal(noted.c.lse, c.lse, (size_t)c.n_lse * sizeof *c.lse);
        noted_close(&noted), case_close(&c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statistics_agree_with_the_definition),
        cmocka_unit_test(counts_and_liveness_words_are_those_of_the_definition),
        cmocka_unit_test(entropy_survives_a_rising_shift),
        cmocka_unit_test(notes_change_no_bit_of_the_output),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
