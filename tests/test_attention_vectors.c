/* The definition and every variant against vectors computed from the formulas by numpy (vectors/make_attention.py),
 * among them the rows on which the published kernels fail. */
#define _GNU_SOURCE /* setenv */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>

#include "attention/select.h"
#include "attention_case.h"
#include "base/status.h"
#include "softpick/device.h"

static json_t *cases;

static int load_cases(void **state) {
    (void)state;
    char path[1024];
    const char *slash = strrchr(__FILE__, '/');
    snprintf(path, sizeof path, "%.*s/vectors/attention.json", slash ? (int)(slash - __FILE__) : 1,
             slash ? __FILE__ : ".");
    json_error_t error;
    cases = json_load_file(path, 0, &error);
    if (!cases) print_error("%s: %s\n", path, error.text);
    return cases ? 0 : -1;
}

static int free_cases(void **state) {
    (void)state;
    json_decref(cases);
    return 0;
}

static double number(const json_t *list, size_t i) {
    const json_t *x = json_array_get(list, i);
    return json_is_string(x) ? INFINITY : json_number_value(x);
}

static int64_t integer(const json_t *entry, const char *key) { return json_integer_value(json_object_get(entry, key)); }

static float real(const json_t *entry, const char *key) { return (float)json_real_value(json_object_get(entry, key)); }

static void read_tensor(const sp_tensor *tensor, const json_t *list) {
    size_t i = 0;
    assert_int_equal(json_array_size(list), sp_tensor_count(tensor));
    for (int64_t b = 0; b < tensor->shape[0]; b++)
        for (int64_t t = 0; t < tensor->shape[1]; t++)
            for (int64_t h = 0; h < tensor->shape[2]; h++)
                for (int64_t d = 0; d < tensor->shape[3]; d++)
                    case_store(tensor, b, t, h, d, (double)(float)number(list, i++));
}

static void open_entry(attention_case *c, const json_t *entry, sp_dtype dtype) {
    attention_shape shape = {.B = integer(entry, "B"),
                             .T = integer(entry, "T"),
                             .S = integer(entry, "S"),
                             .H = integer(entry, "H"),
                             .Hkv = integer(entry, "Hkv"),
                             .D = integer(entry, "D"),
                             .Dv = integer(entry, "Dv"),
                             .dtype = dtype,
                             .causal = json_is_true(json_object_get(entry, "causal")),
                             .row_factor = json_is_true(json_object_get(entry, "row_factor")),
                             .window = integer(entry, "window"),
                             .lambda = real(entry, "lambda"),
                             .eps = real(entry, "eps")};
    const json_t *lengths = json_object_get(entry, "key_lengths");
    const char *kind = json_string_value(json_object_get(entry, "normalizer"));
    assert_int_equal(sp_normalizer_find(&shape.normalizer, kind), SP_OK);
    case_open(c, &shape);
    c->problem.scale = real(entry, "scale");
    static const char *const inputs[] = {"q", "k", "v", NULL, "dout"};
    for (int i = 0; i < 5; i++)
        if (inputs[i]) read_tensor(c->tensors[i], json_object_get(entry, inputs[i]));
    for (int64_t h = 0; h < shape.H; h++) {
        c->sink[h] = (float)number(json_object_get(entry, "sink"), (size_t)h);
        c->row_factor[h] = (float)number(json_object_get(entry, "factor"), (size_t)h);
    }
    if (!json_is_array(lengths)) return;
    c->problem.key_lengths = c->key_lengths = case_allocate(shape.B * 8);
    for (int64_t b = 0; b < shape.B; b++) c->key_lengths[b] = (int64_t)number(lengths, (size_t)b);
}

/* Largest |score|: what float's relative error is multiplied by in an exponent. */
static double score_size(const json_t *entry, int64_t D) {
    double size = 0;
    const json_t *k = json_object_get(entry, "k");
    for (size_t i = 0; i < json_array_size(k); i++) size = fmax(size, fabs(number(k, i)));
    return D == 1 ? size : 10;
}

static void compare(const char *who, const json_t *entry, const char *key, const double *result, int64_t n,
                    double tolerance) {
    const json_t *list = json_object_get(entry, key);
    for (int64_t i = 0; i < n; i++) {
        double wanted = number(list, (size_t)i), error = fabs(result[i] - wanted);
        if (result[i] == wanted || error <= tolerance * (1 + fabs(wanted))) continue;
        fail_msg("%s, %s: %s[%lld] is %.17g, not %.17g", who, json_string_value(json_object_get(entry, "name")), key,
                 (long long)i, result[i], wanted);
    }
}

static void compare_all(const char *who, const attention_case *c, const json_t *entry, double tolerance) {
    static const char *const names[] = {"q", "k", "v", "out", "dout", "dq", "dk", "dv"};
    int64_t H = c->problem.q.shape[2];
    for (int i = 3; i < 8; i++) {
        if (i == 4) continue; /* dout is an input */
        double *numbers = case_numbers(c->tensors[i]);
        compare(who, entry, names[i], numbers, sp_tensor_count(c->tensors[i]), tolerance);
        free(numbers);
    }
    double *lse = case_allocate((c->n_lse + 1) * 8), *sums = case_allocate(H * 8);
    for (int64_t i = 0; i < c->n_lse; i++) lse[i] = (double)c->lse[i];
    compare(who, entry, "lse", lse, c->n_lse, fmax(tolerance, 2e-7)); /* stored as float */
    for (int64_t h = 0; h < H; h++) sums[h] = (double)c->dsink[h];
    compare(who, entry, "dsink", sums, H, fmax(tolerance, 2e-7));
    for (int64_t h = 0; h < H; h++) sums[h] = (double)c->drow_factor[h];
    if (c->problem.row_factor) compare(who, entry, "dfactor", sums, H, fmax(tolerance, 2e-7) * 10);
    free(lse), free(sums);
}

static void definition_agrees_with_the_vectors(void **state) {
    (void)state;
    size_t i;
    const json_t *entry;
    json_array_foreach(cases, i, entry) {
        attention_case c;
        open_entry(&c, entry, SP_DTYPE_F64);
        assert_int_equal(sp_attention_define_forward(&c.problem), SP_OK);
        assert_int_equal(sp_attention_define_backward(&c.problem), SP_OK);
        compare_all("definition", &c, entry, 1e-12 * (10 + score_size(entry, c.problem.q.shape[3])));
        case_close(&c);
    }
}

static void every_variant_agrees_with_the_vectors(void **state) {
    (void)state;
    size_t i;
    const json_t *entry;
    for (int row = 0; row < sp_attention_table.n_rows; row++) {
        const sp_variant *variant = sp_variant_at(&sp_attention_table, row);
        if (variant->needs & ~sp_cpu_features()) continue;
        setenv("SP_ATTENTION", variant->name, 1);
        json_array_foreach(cases, i, entry) {
            attention_case c;
            open_entry(&c, entry, SP_DTYPE_F32);
            const char *name;
            if (sp_attention_choose(&c.problem, SP_ATTENTION_BACKWARD, &name) == SP_UNSUPPORTED) {
                case_close(&c); /* a row for bf16 */
                continue;
            }
            assert_int_equal(case_run(&c, SP_ATTENTION_FORWARD, 1), SP_OK);
            assert_int_equal(case_run(&c, SP_ATTENTION_BACKWARD, 1), SP_OK);
            compare_all(variant->name, &c, entry, 4e-7 * (10 + score_size(entry, c.problem.q.shape[3])));
            case_close(&c);
        }
    }
    unsetenv("SP_ATTENTION");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(definition_agrees_with_the_vectors),
        cmocka_unit_test(every_variant_agrees_with_the_vectors),
    };
    return cmocka_run_group_tests(tests, load_cases, free_cases);
}
