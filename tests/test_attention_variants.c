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

/* Both passes of the chosen variant on one shape. */
static void check_shape(const char *variant, const attention_shape *shape, int n_threads) {
    attention_case truth, ours, plain;
    char what[256];
    case_describe(shape, what, sizeof what - 16);
    snprintf(what + strlen(what), 16, " [%s]", variant);
    case_open(&truth, shape), case_open(&ours, shape), case_open(&plain, shape);
    assert_int_equal(sp_attention_define_forward(&truth.problem), SP_OK);
    assert_int_equal(sp_attention_define_backward(&truth.problem), SP_OK);
    plain_forward(&plain.problem);
    plain_backward(&plain.problem);
    if (case_run(&ours, SP_ATTENTION_FORWARD, n_threads) != SP_OK ||
        case_run(&ours, SP_ATTENTION_BACKWARD, n_threads) != SP_OK)
        fail_msg("%s: %s", what, sp_last_message());
    /* g = dout . v has the size of sqrt(Dv), whatever becomes of it */
    double g = 4 * sqrt((double)shape->Dv), ulp = dtype_ulp(shape->dtype);
    double sums = g * ulp * sqrt((double)(shape->B * shape->T)), dots = sqrt((double)shape->D) * (double)shape->spread;
    bool near = compare_floats(what, "lse", truth.lse, ours.lse, plain.lse, truth.n_lse, 1e-6);
    near = compare_tensor(what, 3, &truth, &ours, &plain, 0) && near;
    for (int i = 5; i < 8; i++)
        near = compare_tensor(what, i, &truth, &ours, &plain, i == 7 ? 0 : g * fmax(1, (double)shape->spread)) && near;
    near = compare_floats(what, "dsink", truth.dsink, ours.dsink, plain.dsink, shape->H, sums) && near;
    near = compare_floats(what, "drow_factor", truth.drow_factor, ours.drow_factor, plain.drow_factor, shape->H,
                          sums * dots) &&
           near;
    case_close(&truth), case_close(&ours), case_close(&plain);
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

static void check_samples(const char *variant) {
    for (uint64_t seed = 1; seed <= 150; seed++) {
        attention_shape shape = sample_shape(seed);
        check_shape(variant, &shape, 1 + (int)(seed % 3));
    }
}

static void every_variant_agrees_with_the_definition(void **state) {
    (void)state;
    with_each_variant(check_samples);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_variant_agrees_with_the_definition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
