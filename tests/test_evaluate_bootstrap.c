/* The bootstrap, against numbers of lm-eval 0.4.13: bootstrap_stderr(perplexity, values, samples) on Python 3.11. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "evaluate/bootstrap.h"

/* values = [-((i * 7919) % 1000) / 100 for i in range(50)] */
static void standard_errors_are_those_of_lm_eval(void **state) {
    (void)state;
    double values[50], error;
    for (int i = 0; i < 50; i++) values[i] = -((i * 7919) % 1000) / 100.0;
    assert_int_equal(sp_bootstrap_perplexity(&error, values, 50, 2000), SP_OK);
    assert_true(fabs(error / 53.35203166805544 - 1) < 1e-12);
    assert_int_equal(sp_bootstrap_perplexity(&error, values, 50, 100), SP_OK);
    assert_true(fabs(error / 45.50587677542168 - 1) < 1e-12);
    assert_int_equal(sp_bootstrap_perplexity(&error, (double[]){-1.5, -2.25}, 2, 1000), SP_OK);
    assert_true(fabs(error / 1.7273082742299255 - 1) < 1e-12);
}

static void equal_values_have_no_error(void **state) {
    (void)state;
    double error;
    assert_int_equal(sp_bootstrap_perplexity(&error, (double[]){-2, -2, -2}, 3, 1000), SP_OK);
    assert_true(error < 1e-12); /* the mean of equal numbers is rounded */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(standard_errors_are_those_of_lm_eval),
        cmocka_unit_test(equal_values_have_no_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
