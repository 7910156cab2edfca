/* What the definition tells beside the output: statistics and liveness against the formulas of the public header worked
 * out here from the scores, decode and pages against forward on the same keys in a row. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_case.h"

enum { T = 150, S = 200, H = 2 };

typedef struct outputs {
    float mass[H * T], first_mass[H * T], entropy[H * T], highest[H * T];
    int64_t zeros[H * T];
    uint32_t liveness[H * 3 * 2]; /* 3 tiles of 64 queries, 2 of 128 keys */
} outputs;

static attention_shape shape_of(sp_normalizer normalizer) {
    return (attention_shape){.B = 1,
                             .T = T,
                             .S = S,
                             .H = H,
                             .Hkv = 1,
                             .D = 4,
                             .Dv = 4,
                             .dtype = SP_DTYPE_F64,
                             .normalizer = normalizer,
                             .causal = true,
                             .window = 90,
                             .lambda = 0.5f,
                             .eps = 1e-6f,
                             .spread = 1.5f,
                             .seed = 3};
}

static void run(attention_case *c, outputs *wanted, sp_normalizer normalizer) {
    attention_shape shape = shape_of(normalizer);
    memset(wanted, 0xff, sizeof *wanted);
    case_open(c, &shape);
    c->problem.statistics =
        (sp_attention_statistics){wanted->mass, wanted->first_mass, wanted->entropy, wanted->highest, wanted->zeros};
    c->problem.liveness = wanted->liveness;
    int64_t n_words;
    assert_int_equal(sp_attention_liveness_words(&c->problem, &n_words), SP_OK);
    assert_int_equal(n_words, H * 3 * 2);
    assert_int_equal(sp_attention_define_forward(&c->problem), SP_OK);
}

static double score(const attention_case *c, int64_t h, int64_t t, int64_t j) {
    double sum = 0;
    for (int64_t d = 0; d < 4; d++) sum += case_load(&c->problem.q, 0, t, h, d) * case_load(&c->problem.k, 0, j, 0, d);
    return sum / 2;
}

/* The weight before it is divided by the denominator. */
static double numerator(sp_normalizer normalizer, double s) {
    if (normalizer == SP_NORMALIZER_SOFTPICK) return s > 0 ? expm1(s) : 0;
    return normalizer == SP_NORMALIZER_RECTIFIED && s <= 0 ? 0 : exp(s);
}

static bool live(const outputs *got, int64_t h, int64_t t, int64_t j) {
    uint32_t word = got->liveness[(h * 3 + t / 64) * 2 + j / 128];
    return word >> (t % 64 / 16 * 8 + j % 128 / 16) & 1;
}

static void check_row(const attention_case *c, const outputs *got, int64_t h, int64_t t) {
    sp_normalizer normalizer = c->problem.normalizer;
    int64_t own = t + S - T, first = own - 89 > 0 ? own - 89 : 0, zeros = 0;
    double d = exp2((double)c->problem.lse[h * T + t]), mass = 0, highest = -INFINITY, entropy = 0;
    for (int64_t j = first; j <= own; j++) {
        double s = score(c, h, t, j), w = numerator(normalizer, s) / d;
        mass += w;
        zeros += w == 0;
        highest = fmax(highest, s);
        assert_true(w == 0 || live(got, h, t, j));
    }
    for (int64_t j = first; j <= own; j++) {
        double p = numerator(normalizer, score(c, h, t, j)) / d / mass;
        if (p > 0) entropy -= p * log(p);
    }
    int64_t i = h * T + t;
    assert_float_equal((double)got->mass[i], mass, 1e-5);
    assert_float_equal((double)got->first_mass[i], first == 0 ? numerator(normalizer, score(c, h, t, 0)) / d : 0, 1e-5);
    assert_float_equal((double)got->entropy[i], entropy, 1e-4);
    assert_float_equal((double)got->highest[i], highest, 1e-5);
    assert_int_equal(got->zeros[i], zeros);
}

/* Every live bit has a cause. */
static void check_live_blocks(const attention_case *c, const outputs *got, int64_t h) {
    for (int64_t t0 = 0; t0 < T; t0 += 16)
        for (int64_t j0 = 0; j0 < S; j0 += 16) {
            bool any = false;
            for (int64_t t = t0; t < t0 + 16 && t < T; t++)
                for (int64_t j = j0; j < j0 + 16 && j < S; j++) {
                    int64_t own = t + S - T;
                    bool seen = j <= own && j > own - 90;
                    any = any || (seen && numerator(c->problem.normalizer, score(c, h, t, j)) > 0);
                }
            assert_int_equal(live(got, h, t0, j0), any);
        }
}

static void statistics_and_liveness_are_the_formulas(void **state) {
    (void)state;
    static const sp_normalizer kinds[] = {SP_NORMALIZER_SOFTPICK, SP_NORMALIZER_SOFTMAX, SP_NORMALIZER_SOFTMAX_PLUS_ONE,
                                          SP_NORMALIZER_RECTIFIED};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        attention_case c;
        outputs got;
        run(&c, &got, kinds[i]);
        for (int64_t h = 0; h < H; h++) {
            for (int64_t t = 0; t < T; t++) check_row(&c, &got, h, t);
            check_live_blocks(&c, &got, h);
        }
        case_close(&c);
    }
}

static void row_that_sees_nothing(void **state) {
    (void)state;
    attention_shape shape = shape_of(SP_NORMALIZER_SOFTPICK);
    shape.S = T, shape.T = S; /* the first 50 queries stand before the first key */
    attention_case c;
    float mass[H * S], highest[H * S], entropy[H * S];
    case_open(&c, &shape);
    c.problem.statistics = (sp_attention_statistics){.mass = mass, .highest = highest, .entropy = entropy};
    assert_int_equal(sp_attention_define_forward(&c.problem), SP_OK);
    assert_true(mass[0] == 0 && entropy[0] == 0 && highest[0] == -INFINITY && isfinite(highest[S - 1]));
    case_close(&c);
}

static void pages_hold_the_same_keys(void **state) {
    (void)state;
    enum { PAGE = 16, PER_SEQUENCE = 13, N_PAGES = 40, B = 2 };
    attention_shape shape = shape_of(SP_NORMALIZER_SOFTPICK);
    shape.B = B, shape.T = 3, shape.window = 0;
    attention_case linear, paged;
    const int64_t lengths[B] = {S, 77};
    int64_t table[B * PER_SEQUENCE];
    case_open(&linear, &shape);
    linear.problem.key_lengths = lengths;
    assert_int_equal(sp_attention_define_decode(&linear.problem), SP_OK);
    shape.B = N_PAGES, shape.S = PAGE;
    case_open(&paged, &shape);
    memset(paged.blocks[1], 0xff, (size_t)paged.block_bytes[1]); /* NaN where no key lies */
    memset(paged.blocks[2], 0xff, (size_t)paged.block_bytes[2]);
    sp_attention *p = &paged.problem;
    p->q = linear.problem.q;
    p->out.shape[0] = B;
    p->key_lengths = lengths;
    p->page_table = table;
    p->pages_per_sequence = PER_SEQUENCE;
    for (int64_t i = 0; i < B * PER_SEQUENCE; i++) table[i] = (i * 7 + 3) % N_PAGES;
    for (int64_t b = 0; b < B; b++)
        for (int64_t j = 0; j < lengths[b]; j++)
            for (int64_t d = 0; d < 4; d++) {
                int64_t page = table[b * PER_SEQUENCE + j / PAGE];
                case_store(&p->k, page, j % PAGE, 0, d, case_load(&linear.problem.k, b, j, 0, d));
                case_store(&p->v, page, j % PAGE, 0, d, case_load(&linear.problem.v, b, j, 0, d));
            }
    assert_int_equal(sp_attention_define_decode(p), SP_OK);
    for (int64_t b = 0; b < B; b++)
        for (int64_t t = 0; t < 3; t++)
            for (int64_t h = 0; h < H; h++)
                for (int64_t d = 0; d < 4; d++)
                    assert_true(case_load(&p->out, b, t, h, d) == case_load(&linear.problem.out, b, t, h, d));
    assert_memory_equal(p->lse, linear.problem.lse, (size_t)linear.n_lse * sizeof *p->lse);
    case_close(&linear), case_close(&paged);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statistics_and_liveness_are_the_formulas),
        cmocka_unit_test(row_that_sees_nothing),
        cmocka_unit_test(pages_hold_the_same_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
