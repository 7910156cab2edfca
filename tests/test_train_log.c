/* The log: whole lines, cut at the restored step, one process at a time. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "train/log.h"

static char folder[64], path[128];

static int make_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/softpick-log-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/log.jsonl", folder);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    return sp_folder_remove(folder) == SP_OK ? 0 : -1;
}

static void write_text(const char *text) { assert_int_equal(sp_file_write(path, text, (int64_t)strlen(text)), SP_OK); }

static void expect_text(const char *expected) {
    char *text;
    assert_int_equal(sp_file_read(path, &text, NULL), SP_OK);
    assert_string_equal(text, expected);
    free(text);
}

static void truncate_and_expect(int64_t step, const char *expected) {
    sp_train_log log;
    assert_int_equal(sp_train_log_open(&log, folder), SP_OK);
    assert_int_equal(sp_train_log_truncate(&log, step), SP_OK);
    sp_train_log_close(&log);
    expect_text(expected);
}

static void lines_are_visible_at_once_and_appended(void **state) {
    (void)state;
    write_text("{\"step\":0}\n");
    sp_train_log log;
    assert_int_equal(sp_train_log_open(&log, folder), SP_OK);
    assert_int_equal(sp_train_log_add(&log, json_pack("{si}", "step", 1)), SP_OK);
    expect_text("{\"step\":0}\n{\"step\":1}\n");
    json_t *line = json_pack("{si}", "step", 2);
    assert_int_equal(json_object_set_new(line, "loss", sp_json_number(NAN)), 0);
    assert_int_equal(sp_train_log_add(&log, line), SP_OK);
    expect_text("{\"step\":0}\n{\"step\":1}\n{\"step\":2,\"loss\":null}\n");
    assert_int_equal(sp_train_log_sync(&log), SP_OK);
    sp_train_log_close(&log);
}

static void cut_keeps_the_lines_up_to_the_step(void **state) {
    (void)state;
    const char *text = "{\"step\":0}\n{\"step\":1}\n{\"step\":2}\n{\"step\":2,\"event\":\"x\"}\n{\"step\":3}\n";
    write_text(text);
    truncate_and_expect(3, text);
    truncate_and_expect(2, "{\"step\":0}\n{\"step\":1}\n{\"step\":2}\n{\"step\":2,\"event\":\"x\"}\n");
    truncate_and_expect(0, "{\"step\":0}\n");
    truncate_and_expect(-1, "");
    truncate_and_expect(5, "");
}

static void cut_drops_an_incomplete_or_damaged_line(void **state) {
    (void)state;
    write_text("{\"step\":0}\n{\"step\":1}\n{\"ste");
    truncate_and_expect(9, "{\"step\":0}\n{\"step\":1}\n");
    write_text("{\"step\":0}\n\n{\"step\":1}\n");
    truncate_and_expect(9, "{\"step\":0}\n");
    write_text("{\"step\":0}\n{\"step\":\"1\"}\n{\"step\":1}\n");
    truncate_and_expect(9, "{\"step\":0}\n");
}

static void lines_added_after_a_cut_stand_at_its_place(void **state) {
    (void)state;
    write_text("{\"step\":0}\n{\"step\":1}\n{\"step\":2}\n");
    sp_train_log log;
    assert_int_equal(sp_train_log_open(&log, folder), SP_OK);
    assert_int_equal(sp_train_log_truncate(&log, 1), SP_OK);
    assert_int_equal(sp_train_log_add(&log, json_pack("{si}", "step", 7)), SP_OK);
    sp_train_log_close(&log);
    expect_text("{\"step\":0}\n{\"step\":1}\n{\"step\":7}\n");
}

static void second_writer_is_refused(void **state) {
    (void)state;
    sp_train_log first, second;
    assert_int_equal(sp_train_log_open(&first, folder), SP_OK);
    assert_int_equal(sp_train_log_open(&second, folder), SP_IO);
    assert_non_null(strstr(sp_last_message(), "another process"));
    sp_train_log_close(&first);
    assert_int_equal(sp_train_log_open(&second, folder), SP_OK);
    sp_train_log_close(&second);
}

static void missing_folder_and_full_disk_are_named(void **state) {
    (void)state;
    sp_train_log log;
    assert_int_equal(sp_train_log_open(&log, "/nonexistent/run"), SP_IO);
    assert_non_null(strstr(sp_last_message(), "/nonexistent/run/log.jsonl"));
    log = (sp_train_log){.file = fopen("/dev/full", "a"), .path = "/dev/full"};
    assert_int_equal(sp_train_log_add(&log, json_pack("{si}", "step", 1)), SP_IO);
    assert_non_null(strstr(sp_last_message(), "/dev/full: No space left"));
    sp_train_log_close(&log);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lines_are_visible_at_once_and_appended, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(cut_keeps_the_lines_up_to_the_step, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(cut_drops_an_incomplete_or_damaged_line, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(lines_added_after_a_cut_stand_at_its_place, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(second_writer_is_refused, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(missing_folder_and_full_disk_are_named, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
