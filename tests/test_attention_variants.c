/* Every variant of the table, by name, against the definition. */
#define _GNU_SOURCE /* setenv */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention/select.h"
#include "attention_case.h"
#include "attention_plain.h"
#include "base/status.h"
#include "near.h"
#include "softpick/device.h"

/* One unit in the last place, relative to the number. */
static double dtype_ulp(sp_dtype dtype) {
    return dtype == SP_DTYPE_BF16 ? 0x1p-7 : dtype == SP_DTYPE_F16 ? 0x1p-10 : 0x1p-22;
}

/* Compares one tensor of three copies of a case.  `size`: of the terms that may cancel in its elements. */
static bool compare_tensor(const char *what, int i, const attention_case *truth, const attention_case *ours,
                           const attention_case *plain, double size) {
    static const char *const names[] = {"q", "k", "v", "out", "dout", "dq", "dk", "dv"};
    char label[320];
    snprintf(label, sizeof label, "%s: %s", what, names[i]);
    int64_t n = sp_tensor_count(truth->tensors[i]);
    double *a = case_numbers(truth->tensors[i]), *b = case_numbers(ours->tensors[i]);
    double *c = case_numbers(plain->tensors[i]);
    bool near = near_check(label, a, b, c, n, dtype_ulp(truth->problem.q.dtype) * fmax(near_largest(a, n), size));
    free(a), free(b), free(c);
    return near;
}

static bool compare_floats(const char *what, const char *name, const float *truth, const float *ours,
                           const float *plain, int64_t n, double slack) {
    char label[320];
    snprintf(label, sizeof label, "%s: %s", what, name);
    double *a = case_allocate((n + 1) * 8), *b = case_allocate((n + 1) * 8), *c = case_allocate((n + 1) * 8);
    for (int64_t i = 0; i < n; i++) a[i] = (double)truth[i], b[i] = (double)ours[i], c[i] = (double)plain[i];
    bool near = near_check(label, a, b, c, n, slack);
    free(a), free(b), free(c);
    return near;
}

/* Both passes of one variant against the definition and the plain loops. */
static bool agrees(const char *variant, const attention_shape *shape, int n_threads, const attention_case *truth,
                   const attention_case *plain) {
    attention_case ours;
    char what[256];
    case_describe(shape, what, sizeof what - 16);
    snprintf(what + strlen(what), 16, " [%s]", variant);
    case_open(&ours, shape);
    setenv("SP_ATTENTION", variant, 1);
    if (case_run(&ours, SP_ATTENTION_FORWARD, n_threads) != SP_OK ||
        case_run(&ours, SP_ATTENTION_BACKWARD, n_threads) != SP_OK)
        fail_msg("%s: %s", what, sp_last_message());
    unsetenv("SP_ATTENTION");
    /* g = dout . v has the size of sqrt(Dv), whatever becomes of it */
    double g = 4 * sqrt((double)shape->Dv), ulp = dtype_ulp(shape->dtype), scores = fmax(1, (double)shape->spread);
    double sums = g * ulp * sqrt((double)(shape->B * shape->T)), dots = sqrt((double)shape->D) * (double)shape->spread;
    bool near = compare_floats(what, "lse", truth->lse, ours.lse, plain->lse, truth->n_lse, 1e-6);
    near = compare_tensor(what, 3, truth, &ours, plain, 0) && near;
    for (int i = 5; i < 8; i++) near = compare_tensor(what, i, truth, &ours, plain, i == 7 ? 0 : g * scores) && near;
    near = compare_floats(what, "dsink", truth->dsink, ours.dsink, plain->dsink, shape->H, sums) && near;
    near = compare_floats(what, "drow_factor", truth->drow_factor, ours.drow_factor, plain->drow_factor, shape->H,
                          sums * dots) &&
           near;
    case_close(&ours);
    return near;
}

/* Every variant that the CPU can run, on one shape. */
static void check_shape(const attention_shape *shape, int n_threads) {
    attention_case truth, plain;
    bool near = true;
    case_open(&truth, shape), case_open(&plain, shape);
    assert_int_equal(sp_attention_define_forward(&truth.problem), SP_OK);
    assert_int_equal(sp_attention_define_backward(&truth.problem), SP_OK);
    plain_forward(&plain.problem);
    plain_backward(&plain.problem);
    for (int i = 0; i < sp_attention_table.n_rows; i++) {
        const sp_variant *row = sp_variant_at(&sp_attention_table, i);
        if (!(row->needs & ~sp_cpu_features())) near = agrees(row->name, shape, n_threads, &truth, &plain) && near;
    }
    case_close(&truth), case_close(&plain);
    assert_true(near);
}

static int64_t pick(uint64_t seed, uint64_t stream, const int64_t *list, uint64_t n) {
    return list[sp_random_below(seed, stream, 0, n)];
}

static bool chance(uint64_t seed, uint64_t stream, uint64_t one_in) {
    return sp_random_below(seed, stream, 0, one_in) == 0;
}

#define PICK(stream, ...)                                                                                              \
    pick(seed, stream, (const int64_t[]){__VA_ARGS__}, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

/* The `seed`-th shape of an endless list. */
static attention_shape sample_shape(uint64_t seed) {
    attention_shape s = {.seed = seed, .lambda = 1, .eps = SP_EPS_DEFAULT};
    s.B = PICK(1, 0, 1, 1, 2, 3);
    s.Hkv = PICK(2, 1, 1, 2, 3);
    s.H = s.Hkv * PICK(3, 1, 1, 2, 4);
    s.D = PICK(4, 1, 8, 16, 24, 32, 40, 64, 80, 96, 128);
    s.Dv = chance(seed, 5, 4) ? PICK(6, 1, 8, 17, 32, 48, 72, 128) : s.D;
    s.T = PICK(7, 0, 1, 7, 31, 63, 64, 65, 100, 127, 128, 129, 191, 200);
    s.S = chance(seed, 8, 3) ? PICK(9, 0, 1, 5, 63, 64, 65, 128, 130, 200) : s.T;
    s.dtype = (sp_dtype)PICK(10, SP_DTYPE_F32, SP_DTYPE_F32, SP_DTYPE_BF16, SP_DTYPE_F16);
    s.normalizer = (sp_normalizer)PICK(11, 0, 0, 0, 1, 2, 3, 4);
    s.causal = !chance(seed, 12, 3);
    s.window = chance(seed, 13, 4) ? PICK(14, 1, 2, 17, 64, 100) : 0;
    s.interleaved = s.S == s.T && chance(seed, 15, 2);
    s.row_factor = chance(seed, 16, 4);
    s.lengths = chance(seed, 17, 4);
    s.n_packed = !s.lengths && chance(seed, 18, 4) ? PICK(19, 1, 3, 7) : 0;
    if (s.n_packed) s.B = 1;
    if (chance(seed, 20, 3)) s.lambda = (float)PICK(21, 0, 1, 3) * 0.5f;
    if (chance(seed, 22, 4)) s.eps = (float)PICK(23, 0, 1) * 0.25f;
    s.spread = (float)PICK(24, 1, 1, 1, 4, 40);
    return s;
}

static void every_variant_agrees_with_the_definition(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        attention_shape shape = sample_shape(seed);
        check_shape(&shape, seed % 10 == 0 ? 3 : 1);
    }
    attention_shape long_ = {.B = 1,
                             .T = 1000,
                             .S = 1000,
                             .H = 1,
                             .Hkv = 1,
                             .D = 32,
                             .Dv = 32,
                             .causal = true,
                             .lambda = 1,
                             .eps = SP_EPS_DEFAULT,
                             .spread = 2,
                             .seed = 1};
    check_shape(&long_, 2);
    long_.window = 200, long_.dtype = SP_DTYPE_BF16, long_.normalizer = SP_NORMALIZER_SOFTMAX;
    check_shape(&long_, 2);
}

/* Calls `check` with each variant of the table forced in turn; those the CPU lacks are told and passed over. */
static void with_each_variant(void (*check)(const char *variant)) {
    for (int i = 0; i < sp_attention_table.n_rows; i++) {
        const sp_variant *row = sp_variant_at(&sp_attention_table, i);
        if (row->needs & ~sp_cpu_features()) {
            print_message("variant %s: not run, this CPU lacks what it needs\n", row->name);
            continue;
        }
        setenv("SP_ATTENTION", row->name, 1);
        check(row->name);
        unsetenv("SP_ATTENTION");
    }
}

/* ---- properties that hold to the bit ---------------------------------------------------------------------------- */

static const attention_shape medium = {.B = 2,
                                       .T = 200,
                                       .S = 200,
                                       .H = 4,
                                       .Hkv = 2,
                                       .D = 40,
                                       .Dv = 24,
                                       .causal = true,
                                       .lambda = 1,
                                       .eps = SP_EPS_DEFAULT,
                                       .spread = 3,
                                       .seed = 3};

static void run_both(attention_case *c, int n_threads) {
    case_poison(c);
    assert_int_equal(case_run(c, SP_ATTENTION_FORWARD, n_threads), SP_OK);
    assert_int_equal(case_run(c, SP_ATTENTION_BACKWARD, n_threads), SP_OK);
}

static void assert_same_outputs(const attention_case *a, const attention_case *b) {
    for (int i = 0; i < ATTENTION_CASE_TENSORS; i++)
        assert_memory_equal(a->blocks[i], b->blocks[i], (size_t)a->block_bytes[i]);
    assert_memory_equal(a->lse, b->lse, (size_t)a->n_lse * sizeof *a->lse);
    assert_memory_equal(a->dsink, b->dsink, (size_t)a->problem.q.shape[2] * sizeof *a->dsink);
    assert_memory_equal(a->drow_factor, b->drow_factor, (size_t)a->problem.q.shape[2] * sizeof *a->drow_factor);
}

static void check_repeats(const char *variant) {
    (void)variant;
    for (int kind = 0; kind < SP_NORMALIZER_COUNT; kind++) {
        attention_shape shape = medium;
        shape.normalizer = (sp_normalizer)kind;
        shape.row_factor = kind == 0;
        attention_case once, again;
        case_open(&once, &shape), case_open(&again, &shape);
        run_both(&once, 1);
        for (int n_threads = 1; n_threads <= 4; n_threads += 3) {
            run_both(&again, n_threads);
            assert_same_outputs(&once, &again);
        }
        case_close(&once), case_close(&again);
    }
}

static void same_bits_again_and_with_any_number_of_threads(void **state) {
    (void)state;
    with_each_variant(check_repeats);
}

/* Gaps between tensors keep their NaN, that is: nothing is written outside. */
static void check_gaps(const char *variant) {
    (void)variant;
    attention_case c;
    case_open(&c, &medium);
    run_both(&c, 1);
    static const int outputs[] = {3, 5, 6, 7};
    for (int i = 0; i < 4; i++) {
        sp_tensor *tensor = c.tensors[outputs[i]];
        double *numbers = case_numbers(tensor);
        for (int64_t j = 0; j < sp_tensor_count(tensor); j++) assert_true(isfinite(numbers[j]));
        free(numbers);
        const float *block = c.blocks[outputs[i]];
        int64_t token = tensor->stride[1], used = tensor->shape[2] * tensor->shape[3];
        for (int64_t t = 0; t < tensor->shape[1]; t++)
            for (int64_t gap = used; gap < token; gap++) assert_true(isnan(block[t * token + gap]));
    }
    case_close(&c);
}

static void all_outputs_and_nothing_else_are_written(void **state) {
    (void)state;
    with_each_variant(check_gaps);
}

/* NaN in one query makes that row NaN and no other. */
static void check_nan_query(const char *variant) {
    (void)variant;
    for (int kind = 0; kind < SP_NORMALIZER_COUNT; kind++) {
        attention_shape shape = medium;
        shape.normalizer = (sp_normalizer)kind;
        attention_case c;
        case_open(&c, &shape);
        case_store(&c.problem.q, 1, 77, 2, 5, NAN);
        assert_int_equal(case_run(&c, SP_ATTENTION_FORWARD, 1), SP_OK);
        for (int64_t t = 0; t < shape.T; t++)
            for (int64_t h = 0; h < shape.H; h++)
                assert_true(isnan(case_load(&c.problem.out, 1, t, h, 3)) == (t == 77 && h == 2));
        case_close(&c);
    }
}

static void nan_in_a_query_stays_in_its_row(void **state) {
    (void)state;
    with_each_variant(check_nan_query);
}

/* One positive score among many that are far below zero: its value comes out whole, wherever it stands. */
static void check_one_positive(const char *variant) {
    (void)variant;
    static const int64_t places[] = {0, 15, 63, 64, 130, 199};
    for (int i = 0; i < 6; i++) {
        attention_shape shape = medium;
        shape.B = 1, shape.T = 1, shape.H = shape.Hkv = shape.D = 1, shape.Dv = 3, shape.eps = 0, shape.lambda = 0;
        attention_case c;
        case_open(&c, &shape);
        case_store(&c.problem.q, 0, 0, 0, 0, 1);
        for (int64_t j = 0; j < shape.S; j++) case_store(&c.problem.k, 0, j, 0, 0, j == places[i] ? 3 : -200);
        assert_int_equal(case_run(&c, SP_ATTENTION_FORWARD, 1), SP_OK);
        for (int64_t d = 0; d < 3; d++) {
            double value = case_load(&c.problem.v, 0, places[i], 0, d);
            assert_true(fabs(case_load(&c.problem.out, 0, 0, 0, d) - value) <= 2e-7 * fabs(value));
        }
        case_close(&c);
    }
}

static void one_positive_score_takes_all_when_lambda_is_zero(void **state) {
    (void)state;
    with_each_variant(check_one_positive);
}

/* Scores of exactly 0 in every position have no weight, whatever shift the others bring about. */
static void check_zero_scores(const char *variant) {
    (void)variant;
    for (double top = 0; top < 200; top += 33) {
        attention_shape shape = medium;
        shape.B = 1, shape.T = 1, shape.H = shape.Hkv = shape.D = 1, shape.Dv = 1;
        attention_case c;
        case_open(&c, &shape);
        case_store(&c.problem.q, 0, 0, 0, 0, 1);
        for (int64_t j = 0; j < shape.S; j++) {
            case_store(&c.problem.k, 0, j, 0, 0, j == 70 ? top : 0);
            case_store(&c.problem.v, 0, j, 0, 0, j == 70 ? 0 : 1e30);
        }
        assert_int_equal(case_run(&c, SP_ATTENTION_FORWARD, 1), SP_OK);
        assert_true(case_load(&c.problem.out, 0, 0, 0, 0) == 0);
        case_close(&c);
    }
}

static void scores_of_exactly_zero_weigh_nothing(void **state) {
    (void)state;
    with_each_variant(check_zero_scores);
}

/* ---- the choice ------------------------------------------------------------------------------------------------- */

static void the_best_row_that_the_features_allow_is_chosen(void **state) {
    (void)state;
    attention_case c;
    const char *chosen, *name, *why;
    uint32_t features = sp_cpu_features();
    bool found = false;
    case_open(&c, &medium);
    assert_int_equal(sp_attention_choose(&c.problem, SP_ATTENTION_FORWARD, &chosen), SP_OK);
    assert_string_equal(chosen, features & SP_CPU_AVX512 ? "avx512" : features & SP_CPU_AVX2 ? "avx2" : "scalar");
    for (int i = 0; i < sp_attention_table.n_rows; i++) {
        bool takes = sp_attention_variant(&c.problem, SP_ATTENTION_FORWARD, i, &name, &why);
        assert_true(takes == (strlen(why) == 0)); /* a refusal gives its reason */
        found = found || strcmp(name, chosen) == 0;
        assert_true(takes == found); /* those above the chosen row refuse, those below would do */
    }
    assert_false(sp_attention_variant(&c.problem, SP_ATTENTION_FORWARD, 99, &name, &why));
    assert_null(name);
    case_close(&c);
}

static void a_forced_row_runs_or_the_call_fails(void **state) {
    (void)state;
    attention_case c;
    const char *name;
    case_open(&c, &medium);
    setenv("SP_ATTENTION", "scalar", 1);
    assert_int_equal(sp_attention_choose(&c.problem, SP_ATTENTION_FORWARD, &name), SP_OK);
    assert_string_equal(name, "scalar");
    setenv("SP_ATTENTION", "sclar", 1);
    assert_int_equal(sp_attention_choose(&c.problem, SP_ATTENTION_FORWARD, &name), SP_BAD_ARGUMENT);
    assert_non_null(strstr(sp_last_message(), "SP_ATTENTION=sclar"));
    setenv("SP_ATTENTION", "avx512", 1);
    if (!(sp_cpu_features() & SP_CPU_AVX512))
        assert_int_equal(sp_attention_choose(&c.problem, SP_ATTENTION_FORWARD, &name), SP_UNSUPPORTED);
    unsetenv("SP_ATTENTION");
    case_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_variant_agrees_with_the_definition),
        cmocka_unit_test(same_bits_again_and_with_any_number_of_threads),
        cmocka_unit_test(all_outputs_and_nothing_else_are_written),
        cmocka_unit_test(nan_in_a_query_stays_in_its_row),
        cmocka_unit_test(one_positive_score_takes_all_when_lambda_is_zero),
        cmocka_unit_test(scores_of_exactly_zero_weigh_nothing),
        cmocka_unit_test(the_best_row_that_the_features_allow_is_chosen),
        cmocka_unit_test(a_forced_row_runs_or_the_call_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
