/* Numbers that are NaN or infinite.  Values of keys without weight, masked or dead, matter nowhere.  What a query, a key
 * or a live value makes of its rows is not hidden, and does not go to other rows' outputs. */
#define _GNU_SOURCE /* setenv */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_agree.h"
#include "base/status.h"

enum { T_SPOILED = 77 };

static void spoil_row(const sp_tensor *tensor, int64_t t, double value) {
    for (int64_t d = 0; d < tensor->shape[3]; d++)
        if (d % 3 == 0) case_store(tensor, 0, t, 0, d, value);
}

static void spoil_query(attention_case *c, const void *user) {
    spoil_row(&c->problem.q, c->problem.q.shape[1] > T_SPOILED ? T_SPOILED : 1, *(const double *)user);
}

static void spoil_key(attention_case *c, const void *user) {
    spoil_row(&c->problem.k, T_SPOILED, *(const double *)user);
}

static void spoil_value(attention_case *c, const void *user) {
    spoil_row(&c->problem.v, T_SPOILED, *(const double *)user);
}

/* The score of key j is j % 5 - 2 for every query.  What is not positive is spoiled, in places whole blocks of it. */
static void spoil_dead_values(attention_case *c, const void *user) {
    const sp_tensor *q = &c->problem.q, *k = &c->problem.k;
    c->problem.scale = 1;
    for (int64_t b = 0; b < q->shape[0]; b++)
        for (int64_t d = 0; d < q->shape[3]; d++) {
            for (int64_t t = 0; t < q->shape[1]; t++)
                for (int64_t h = 0; h < q->shape[2]; h++) case_store(q, b, t, h, d, d == 0);
            for (int64_t j = 0; j < k->shape[1]; j++) {
                double score = j / 32 % 3 == 1 ? -1 : (double)(j % 5 - 2);
                for (int64_t h = 0; h < k->shape[2]; h++) case_store(k, b, j, h, d, d ? 0 : score);
                if (d == 0 && score <= 0) spoil_row(&c->problem.v, j, *(const double *)user);
            }
        }
}

/* A row that is NaN may make NaN of other gradients of its sequence and key head, the first: they are of no use any
 * more. */
static void forgive_tensor(const attention_case *truth, const attention_case *ours, int i) {
    const sp_tensor *wanted = truth->tensors[i], *found = ours->tensors[i];
    int64_t heads = i == 5 ? truth->problem.q.shape[2] / truth->problem.k.shape[2] : 1;
    for (int64_t t = 0; t < wanted->shape[1]; t++)
        for (int64_t h = 0; h < heads; h++)
            for (int64_t d = 0; d < wanted->shape[3]; d++)
                if (isnan(case_load(found, 0, t, h, d))) case_store(found, 0, t, h, d, case_load(wanted, 0, t, h, d));
}

static void forgive_keys(const attention_case *truth, const attention_case *ours) { forgive_tensor(truth, ours, 6); }

static void forgive_all(const attention_case *truth, const attention_case *ours) {
    for (int i = 5; i < 8; i++) forgive_tensor(truth, ours, i);
}

/* In every dtype and normalizer. */
static bool check_spoiled(const char *name, agree_prepare prepare, double value,
                          void (*forgive)(const attention_case *truth, const attention_case *ours)) {
    bool near = true;
    for (int i = 0; i < 4 * SP_NORMALIZER_COUNT; i++) {
        agree_case a = {.prepare = prepare, .user = &value, .forgive = forgive};
        a.shape = (attention_shape){.B = 2,
                                    .T = 150,
                                    .S = 150,
                                    .H = 4,
                                    .Hkv = 2,
                                    .D = 16,
                                    .Dv = 24,
                                    .causal = true,
                                    .lambda = 1,
                                    .eps = SP_EPS_DEFAULT,
                                    .spread = 3,
                                    .seed = 3,
                                    .statistics = true};
        a.shape.normalizer = (sp_normalizer)(i / 4);
        a.shape.dtype = (sp_dtype)(i % 2);
        if (i / 2 % 2) a.shape.T = 100, a.shape.causal = false, a.shape.lambda = 0;
        bool rectifies = i / 4 == SP_NORMALIZER_SOFTPICK || i / 4 == SP_NORMALIZER_RECTIFIED;
        if (forgive != forgive_all && !rectifies) continue; /* in a softmax every key has weight */
        near = agree_check(name, a) && near;
        a.pass = SP_ATTENTION_DECODE, a.shape.T = 5, a.shape.S = 1100, a.shape.statistics = false;
        near = agree_check(name, a) && near;
    }
    return near;
}

static void dead_values_matter_nowhere(void **state) {
    (void)state;
    assert_true(check_spoiled("NaN in dead values", spoil_dead_values, (double)NAN, NULL));
    assert_true(check_spoiled("-inf in dead values", spoil_dead_values, -(double)INFINITY, NULL));
}

static void a_value_matters_to_rows_with_weight_on_it(void **state) {
    (void)state;
    assert_true(check_spoiled("NaN in a value", spoil_value, (double)NAN, forgive_keys));
}

static void a_query_or_key_matters_to_its_rows(void **state) {
    (void)state;
    bool near = check_spoiled("NaN in a query", spoil_query, (double)NAN, forgive_all);
    assert_true(check_spoiled("NaN in a key", spoil_key, (double)NAN, forgive_all) && near);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dead_values_matter_nowhere),
        cmocka_unit_test(a_value_matters_to_rows_with_weight_on_it),
        cmocka_unit_test(a_query_or_key_matters_to_its_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
