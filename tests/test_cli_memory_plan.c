/* The tool's memory plan: a run that fits passes, one that cannot is refused in one line with settings that would fit. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "cli/memory_plan.h"

static sp_model_options options;
static sp_model_config config;

/* A model whose sequences take so much each that what else happens on this machine moves no count by more than one. */
static cli_run_shape large_run(int64_t B, int64_t accumulate) {
    options = sp_model_options_default();
    options.training = true;
    config = sp_model_config_default();
    config.n_layers = 4;
    int64_t available = sp_available_bytes(), T = 64;
    sp_model_memory needs = {0};
    for (; needs.total < available / 6 && T < 1 << 22; T *= 2)
        assert_int_equal(sp_model_plan_memory(&needs, &config, &options, 1, T), SP_OK);
    return (cli_run_shape){&config, &options, B, T, accumulate};
}

static int64_t total_of(const cli_run_shape *run, int64_t B, bool recompute) {
    sp_model_options chosen = *run->options;
    sp_model_memory needs;
    chosen.recompute = recompute;
    assert_int_equal(sp_model_plan_memory(&needs, run->config, &chosen, B, run->T), SP_OK);
    return needs.total;
}

/* The number behind the n-th "--name" of the message; -1: there is none. */
static int64_t number_behind(const char *name, int n) {
    const char *at = sp_last_message();
    for (; (at = strstr(at, name)); at++)
        if (n-- == 0) return strtoll(at + strlen(name), NULL, 10);
    return -1;
}

static void what_fits_passes(void **state) {
    (void)state;
    cli_memory_plan plan;
    cli_run_shape run = large_run(1, 1);
    run.T = 64;
    assert_int_equal(cli_plan_memory(&plan, &run), SP_OK);
    assert_int_equal(plan.needs.total, total_of(&run, 1, false));
    assert_true(plan.free_bytes >= plan.needs.total);
}

static void settings_that_are_named_fit_and_keep_the_step(void **state) {
    (void)state;
    cli_memory_plan plan;
    cli_run_shape run = large_run(360, 7);
    assert_int_equal(cli_plan_memory(&plan, &run), SP_OUT_OF_MEMORY);
    assert_null(strchr(sp_last_message(), '\n'));
    assert_non_null(strstr(sp_last_message(), "a batch of 360 x "));
    const char *end = strrchr(sp_last_message(), ' ');
    assert_string_equal(end, " --recompute");
    for (int i = 0; i < 2; i++) {
        int64_t B = number_behind("--batch ", i), accumulate = number_behind("--accumulate ", i);
        assert_true(B >= 1 && B < 360);
        assert_int_equal(B * accumulate, 360 * 7);
        assert_true(total_of(&run, B, i == 1) <= plan.free_bytes);
    }
    assert_true(number_behind("--batch ", 1) > number_behind("--batch ", 0));
}

static void largest_batch_is_named_where_steps_have_one_batch(void **state) {
    (void)state;
    cli_memory_plan plan;
    cli_run_shape run = large_run(1000, 0);
    assert_int_equal(cli_plan_memory(&plan, &run), SP_OUT_OF_MEMORY);
    assert_null(strstr(sp_last_message(), "--accumulate"));
    for (int i = 0; i < 2; i++) {
        int64_t B = number_behind("--batch ", i);
        assert_true(total_of(&run, B, i == 1) <= plan.free_bytes);
        assert_true(total_of(&run, B + 1, i == 1) > plan.free_bytes);
    }
}

static void recomputation_alone_is_named_where_it_is_enough(void **state) {
    (void)state;
    cli_memory_plan plan;
    cli_run_shape run = large_run(1, 1);
    while (total_of(&run, 1, false) <= sp_available_bytes()) run.T += run.T / 4;
    if (total_of(&run, 1, true) > sp_available_bytes()) skip();
    assert_int_equal(cli_plan_memory(&plan, &run), SP_OUT_OF_MEMORY);
    assert_non_null(strstr(sp_last_message(), ": it would fit with --recompute"));
    options.recompute = true;
    assert_int_equal(cli_plan_memory(&plan, &run), SP_OK);
}

static void length_is_named_where_no_batch_fits(void **state) {
    (void)state;
    cli_memory_plan plan;
    cli_run_shape run = large_run(2, 1);
    run.T *= 256;
    int64_t T = run.T;
    assert_int_equal(cli_plan_memory(&plan, &run), SP_OUT_OF_MEMORY);
    assert_non_null(strstr(sp_last_message(), "--batch 1 --recompute --length "));
    run.T = number_behind("--length ", 0);
    assert_true(run.T < T && total_of(&run, 1, true) <= plan.free_bytes);
    run.T *= 2;
    assert_true(total_of(&run, 1, true) > plan.free_bytes);
}

static void model_that_is_too_large_is_said_to_be(void **state) {
    (void)state;
    cli_memory_plan plan;
    cli_run_shape run = large_run(2, 1);
    config.n_layers = 1 << 16;
    run.T = 16;
    assert_int_equal(cli_plan_memory(&plan, &run), SP_OUT_OF_MEMORY);
    assert_non_null(strstr(sp_last_message(), "GiB: no batch would fit"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_fits_passes),
        cmocka_unit_test(settings_that_are_named_fit_and_keep_the_step),
        cmocka_unit_test(largest_batch_is_named_where_steps_have_one_batch),
        cmocka_unit_test(recomputation_alone_is_named_where_it_is_enough),
        cmocka_unit_test(length_is_named_where_no_batch_fits),
        cmocka_unit_test(model_that_is_too_large_is_said_to_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
