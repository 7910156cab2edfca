/* What the CPU is said to offer, under an SP_CPU that cannot be: nothing is taken away, and choosing fails. */
#define _GNU_SOURCE /* setenv */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "device/variant.h"
#include "softpick/device.h"

static int set_limit(void **state) {
    (void)state;
    return setenv("SP_CPU", "avx3", 1);
}

static void unknown_limit_is_named(void **state) {
    (void)state;
    static const sp_variant rows[] = {{"plain", 0, NULL}};
    const sp_variant_table table = {"SP_NO_SUCH_VARIABLE", rows, sizeof *rows, 1};
    int index;
    assert_int_equal(sp_cpu_check(), SP_BAD_ARGUMENT);
#if defined(__aarch64__)
    assert_string_equal(sp_last_message(), "SP_CPU=avx3: it can be scalar or neon");
#elif defined(__x86_64__)
    assert_string_equal(sp_last_message(), "SP_CPU=avx3: it can be scalar, avx2, avx512, avx512_bf16 or amx");
#endif
    assert_int_equal(sp_variant_choose(&table, NULL, &index), SP_BAD_ARGUMENT);
    assert_int_equal(index, -1);
}

static void features_have_names_and_build_on_each_other(void **state) {
    (void)state;
    const char *name;
    uint32_t bit, all = 0, features = sp_cpu_features();
    bool had = true;
    for (int i = 0; sp_cpu_feature_at(i, &name, &bit); i++) {
        assert_true(strlen(name) > 0 && !(all & bit));
        assert_true(had || !(features & bit));
        had = features & bit;
        all |= bit;
    }
    assert_int_equal(features & ~all, 0);
    assert_false(sp_cpu_feature_at(-1, &name, &bit));
}

static void machine_is_described(void **state) {
    (void)state;
    assert_true(strlen(sp_cpu_model()) > 0);
    assert_true(sp_cpu_count() >= 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_limit_is_named),
        cmocka_unit_test(features_have_names_and_build_on_each_other),
        cmocka_unit_test(machine_is_described),
    };
    return cmocka_run_group_tests(tests, set_limit, NULL);
}
