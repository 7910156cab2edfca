/* Choice of a variant from a table of invented rows. */
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

typedef struct invented_row {
    sp_variant variant;
    int something;
} invented_row;

/* The problem is an int: rows take what is large enough. */
static bool takes_large(const void *problem, const char **why) {
    *why = "too small";
    return *(const int *)problem > 100;
}

static bool takes_medium(const void *problem, const char **why) {
    *why = "still too small";
    return *(const int *)problem > 10;
}

static const invented_row rows[] = {
    {{"impossible", 1u << 31, NULL}, 1},
    {{"large", 0, takes_large}, 2},
    {{"medium", 0, takes_medium}, 3},
};

static const sp_variant_table table = {"SP_INVENTED", rows, sizeof *rows, 3};

static void first_row_that_takes_the_problem_is_chosen(void **state) {
    (void)state;
    int index, large = 1000, medium = 50;
    assert_int_equal(sp_variant_choose(&table, &large, &index), SP_OK);
    assert_int_equal(index, 1);
    assert_int_equal(sp_variant_choose(&table, &medium, &index), SP_OK);
    assert_int_equal(index, 2);
    assert_string_equal(sp_variant_at(&table, 2)->name, "medium");
}

static void refusals_give_their_reason(void **state) {
    (void)state;
    int index, small = 1;
    const char *why;
    assert_int_equal(sp_variant_choose(&table, &small, &index), SP_UNSUPPORTED);
    assert_non_null(strstr(sp_last_message(), "still too small"));
    assert_false(sp_variant_takes(&table, 0, &small, &why));
    assert_non_null(strstr(why, "the CPU lacks"));
    assert_false(sp_variant_takes(&table, 1, &small, &why));
    assert_string_equal(why, "too small");
}

static void the_environment_names_a_row_or_the_choice_fails(void **state) {
    (void)state;
    int index, large = 1000, medium = 50;
    setenv("SP_INVENTED", "medium", 1);
    assert_int_equal(sp_variant_choose(&table, &large, &index), SP_OK);
    assert_int_equal(index, 2);
    setenv("SP_INVENTED", "large", 1);
    assert_int_equal(sp_variant_choose(&table, &medium, &index), SP_UNSUPPORTED);
    assert_non_null(strstr(sp_last_message(), "SP_INVENTED=large: this variant refuses: too small"));
    setenv("SP_INVENTED", "huge", 1);
    assert_int_equal(sp_variant_choose(&table, &large, &index), SP_BAD_ARGUMENT);
    assert_non_null(strstr(sp_last_message(), "SP_INVENTED=huge: there is no variant of that name"));
    unsetenv("SP_INVENTED");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_row_that_takes_the_problem_is_chosen),
        cmocka_unit_test(refusals_give_their_reason),
        cmocka_unit_test(the_environment_names_a_row_or_the_choice_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
