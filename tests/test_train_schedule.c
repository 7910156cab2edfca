/* Learning rates: the published formulas at chosen steps, and what holds at every step. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "softpick/train.h"
#include "train/schedule.h"

static const sp_schedule all[] = {SP_SCHEDULE_COSINE, SP_SCHEDULE_LINEAR, SP_SCHEDULE_WSD, SP_SCHEDULE_CONSTANT};

static sp_train_options options_of(sp_schedule schedule) {
    return (sp_train_options){.B = 2,
                              .T = 8,
                              .n_accumulate = 3,
                              .schedule = schedule,
                              .learning_rate = 1e-3,
                              .rate_floor = 0.1,
                              .warmup_steps = 10,
                              .decay_fraction = 0.25};
}

/* Values computed apart, in Python, from the formulas: 100 steps, 10 of warm-up. */
static void schedules_give_the_published_values(void **state) {
    (void)state;
    static const struct {
        sp_schedule schedule;
        int64_t step;
        double rate;
    } cases[] = {
        {SP_SCHEDULE_COSINE, 0, 1e-3 / 11},
        {SP_SCHEDULE_COSINE, 9, 1e-2 / 11},
        {SP_SCHEDULE_COSINE, 10, 9.997318632e-04}, /* p = 1/91 */
        {SP_SCHEDULE_COSINE, 99, 1.002681368e-04}, /* p = 90/91 */
        {SP_SCHEDULE_LINEAR, 55, 5.450549451e-04}, /* p = 46/91 */
        {SP_SCHEDULE_WSD, 74, 1e-3},
        {SP_SCHEDULE_WSD, 75, 8.234954784e-04}, /* p = 1/26 */
        {SP_SCHEDULE_WSD, 99, 1.174773919e-04}, /* p = 25/26 */
        {SP_SCHEDULE_CONSTANT, 10, 1e-3},
        {SP_SCHEDULE_CONSTANT, 99999, 1e-3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sp_train_options options = options_of(cases[i].schedule);
        double rate = sp_train_learning_rate(&options, 100, cases[i].step);
        assert_true(fabs(rate / cases[i].rate - 1) < 1e-8);
    }
}

static void rate_rises_then_falls_and_stays_between_floor_and_peak(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        sp_train_options options = options_of(all[i]);
        double before = 0;
        for (int64_t step = 0; step < 200; step++) {
            double rate = sp_train_learning_rate(&options, 200, step);
            assert_true(rate > 0 && rate <= options.learning_rate * (1 + 1e-12));
            assert_true(step >= 10 ? rate >= 1e-4 && rate <= 1e-3 * (1 + 1e-12) : rate > before);
            if (step > 10) assert_true(rate <= before);
            before = rate;
        }
    }
}

static void last_rate_is_near_the_floor(void **state) {
    (void)state;
    for (int i = SP_SCHEDULE_COSINE; i <= SP_SCHEDULE_WSD; i++) {
        sp_train_options options = options_of((sp_schedule)i);
        double rate = sp_train_learning_rate(&options, 10000, 9999);
        assert_true(rate < 1.01e-4);
    }
}

static void default_warmup_is_a_tenth_and_at_most_100(void **state) {
    (void)state;
    sp_train_options options = options_of(SP_SCHEDULE_COSINE);
    options.warmup_steps = -1;
    assert_int_equal(sp_train_warmup_steps(&options, 20), 2);
    assert_int_equal(sp_train_warmup_steps(&options, 1000), 100);
    assert_int_equal(sp_train_warmup_steps(&options, 100000), 100);
    assert_int_equal(sp_train_warmup_steps(&options, 0), 100);
    options.warmup_steps = 0;
    assert_int_equal(sp_train_warmup_steps(&options, 20), 0);
    assert_true(sp_train_learning_rate(&options, 20, 0) <= 1e-3);
}

static void steps_are_the_fewer_of_steps_and_tokens(void **state) {
    (void)state;
    sp_train_options options = options_of(SP_SCHEDULE_COSINE); /* 48 tokens per step */
    assert_int_equal(sp_train_n_steps(&options), 0);
    options.n_tokens = 49;
    assert_int_equal(sp_train_n_steps(&options), 2);
    options.n_tokens = 48;
    assert_int_equal(sp_train_n_steps(&options), 1);
    options.n_steps = 7;
    assert_int_equal(sp_train_n_steps(&options), 1);
    options.n_tokens = 4800;
    assert_int_equal(sp_train_n_steps(&options), 7);
    options.n_tokens = 0;
    assert_int_equal(sp_train_n_steps(&options), 7);
}

static void names_are_found_again(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        sp_schedule found;
        assert_int_equal(sp_schedule_find(&found, sp_schedule_name(all[i])), SP_OK);
        assert_int_equal(found, all[i]);
    }
    sp_schedule found = SP_SCHEDULE_WSD;
    assert_int_equal(sp_schedule_find(&found, "cosinus"), SP_BAD_ARGUMENT);
    assert_non_null(strstr(sp_last_message(), "cosinus"));
    assert_string_equal(sp_schedule_name((sp_schedule)4), "?");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schedules_give_the_published_values),
        cmocka_unit_test(rate_rises_then_falls_and_stays_between_floor_and_peak),
        cmocka_unit_test(last_rate_is_near_the_floor),
        cmocka_unit_test(default_warmup_is_a_tenth_and_at_most_100),
        cmocka_unit_test(steps_are_the_fewer_of_steps_and_tokens),
        cmocka_unit_test(names_are_found_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
