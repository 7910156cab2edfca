/* Windows over long texts: those of lm-eval's get_rolling_token_windows with a context of one token. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "evaluate/rolling.h"

/* Ten tokens, four at once: [prefix 0 1 2] -> 0..3, [3 4 5 6] -> 4..7, [5 6 7 8] -> 8 9; token t stands at t + 1. */
static void windows_are_those_of_lm_eval(void **state) {
    (void)state;
    static const sp_rolling_window expected[] = {{0, 5, 4}, {4, 5, 4}, {6, 5, 2}};
    assert_int_equal(sp_rolling_n_windows(10, 4), 3);
    for (int64_t i = 0; i < 3; i++) {
        sp_rolling_window window = sp_rolling_window_at(i, 10, 4);
        assert_memory_equal(&window, &expected[i], sizeof window);
    }
}

static void each_token_is_predicted_once_from_all_that_is_seen(void **state) {
    (void)state;
    for (int64_t n = 0; n < 40; n++) {
        for (int64_t length = 1; length < 12; length++) {
            int64_t predicted = 0;
            for (int64_t i = 0; i < sp_rolling_n_windows(n, length); i++) {
                sp_rolling_window window = sp_rolling_window_at(i, n, length);
                int64_t end = window.first + window.n_tokens - 1; /* of the text */
                assert_int_equal(end - window.n_scored, predicted);
                assert_true(window.n_scored >= 1 && window.n_scored < window.n_tokens);
                assert_true(window.n_tokens == length + 1 || window.first == 0);
                predicted = end;
            }
            assert_int_equal(predicted, n);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_are_those_of_lm_eval),
        cmocka_unit_test(each_token_is_predicted_once_from_all_that_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
