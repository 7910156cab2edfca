/* Status names, messages, log lines, the macros that pass failures on. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"

static void every_code_has_its_own_name(void **state) {
    (void)state;
    for (int a = 0; a <= SP_INTERNAL; a++) {
        assert_string_not_equal(sp_status_name((sp_status)a), "unknown status");
        for (int b = 0; b < a; b++) assert_string_not_equal(sp_status_name((sp_status)a), sp_status_name((sp_status)b));
    }
    assert_string_equal(sp_status_name((sp_status)(SP_INTERNAL + 1)), "unknown status");
    assert_string_equal(sp_status_name((sp_status)-1), "unknown status");
}

static void failure_keeps_its_code_and_sentence(void **state) {
    (void)state;
    assert_int_equal(sp_fail(SP_BAD_ARGUMENT, "k has %d heads, q has %d", 6, 8), SP_BAD_ARGUMENT);
    assert_string_equal(sp_last_message(), "k has 6 heads, q has 8");
    assert_int_equal(sp_fail(SP_IO, "model: %s", sp_last_message()), SP_IO);
    assert_string_equal(sp_last_message(), "model: k has 6 heads, q has 8");
}

static void message_is_one_line_and_bounded(void **state) {
    (void)state;
    char longest[5000];
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = 0;
    assert_int_equal(sp_fail(SP_BAD_FILE, "a\nb\tc\x7f\x01 \xc3\xa9 %s", longest), SP_BAD_FILE);
    assert_memory_equal(sp_last_message(), "a b c   \xc3\xa9 xxx", 14);
    assert_int_equal(strlen(sp_last_message()), 1023);
}

static void *fail_elsewhere(void *unused) {
    (void)unused;
    static char seen[64];
    snprintf(seen, sizeof seen, "%s", sp_last_message());
    (void)sp_fail(SP_IO, "elsewhere");
    return seen;
}

static void each_thread_has_its_message(void **state) {
    (void)state;
    pthread_t thread;
    void *seen;
    (void)sp_fail(SP_IO, "here");
    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
    assert_int_equal(pthread_join(thread, &seen), 0);
    assert_string_equal(seen, "");
    assert_string_equal(sp_last_message(), "here");
}

static int n_released;

static sp_status pass_on(sp_status from_call, int value) {
    SP_TRY(from_call);
    SP_REQUIRE(value > 0, SP_BAD_ARGUMENT, "value %d is not positive", value);
    return SP_OK;
}

static sp_status pass_on_and_release(sp_status from_call, int value) {
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(from_call);
    SP_REQUIRE_OR_DONE(value > 0, SP_BAD_ARGUMENT, "value %d is not positive", value);
done:
    n_released++;
    return status;
}

static void macros_pass_failures_on(void **state) {
    (void)state;
    sp_status (*const functions[])(sp_status, int) = {pass_on, pass_on_and_release};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(functions[i](SP_OK, 1), SP_OK);
        assert_int_equal(functions[i](SP_CANCELLED, 1), SP_CANCELLED);
        assert_int_equal(functions[i](SP_OK, -3), SP_BAD_ARGUMENT);
        assert_string_equal(sp_last_message(), "value -3 is not positive");
    }
    assert_int_equal(n_released, 3);
}

static char logged[64];
static sp_log_level logged_level;

static void keep_line(void *user, sp_log_level level, const char *line) {
    snprintf(logged, sizeof logged, "%s%s", (const char *)user, line);
    logged_level = level;
}

static void log_lines_go_where_they_are_sent(void **state) {
    (void)state;
    static char prefix[] = "log: ";
    sp_log(SP_LOG_WARNING, "nobody listens");
    sp_log_set(keep_line, prefix);
    sp_log(SP_LOG_INFO, "%d\nfiles", 3);
    assert_string_equal(logged, "log: 3 files");
    assert_int_equal(logged_level, SP_LOG_INFO);
    sp_log_set(NULL, NULL);
    sp_log(SP_LOG_WARNING, "nobody listens");
    assert_string_equal(logged, "log: 3 files");
}

static void version_has_three_numbers(void **state) {
    (void)state;
    int major, minor, patch;
    char rest;
    assert_int_equal(sscanf(sp_version(), "%d.%d.%d%c", &major, &minor, &patch, &rest), 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_its_own_name),     cmocka_unit_test(failure_keeps_its_code_and_sentence),
        cmocka_unit_test(message_is_one_line_and_bounded), cmocka_unit_test(each_thread_has_its_message),
        cmocka_unit_test(macros_pass_failures_on),         cmocka_unit_test(log_lines_go_where_they_are_sent),
        cmocka_unit_test(version_has_three_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
