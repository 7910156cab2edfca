/* JSON: strict reading with named errors, writing that reads back. */
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
#include "base/json.h"

static char scratch[64], path[128];

static int make_scratch(void **state) {
    (void)state;
    snprintf(scratch, sizeof scratch, "/tmp/softpick-json-XXXXXX");
    if (!mkdtemp(scratch)) return -1;
    snprintf(path, sizeof path, "%s/values.json", scratch);
    return 0;
}

static int remove_scratch(void **state) {
    (void)state;
    return sp_folder_remove(scratch) == SP_OK ? 0 : -1;
}

static void assert_message_has(const char *part) {
    if (!strstr(sp_last_message(), part) || strchr(sp_last_message(), '\n'))
        fail_msg("message \"%s\" should name \"%s\"", sp_last_message(), part);
}

static void whole_numbers_beyond_64_bits_are_reals(void **state) {
    (void)state;
    static const char text[] =
        "{\"a\\\"1\": 1000000000000000019884624838656, \"b\": -99999999999999999999,\n"
        " \"c\": 9223372036854775807, \"d\": [12, 12345678901234567890.5, \"99999999999999999999\"]}";
    json_t *json;
    assert_int_equal(sp_json_parse(&json, text, sizeof text - 1, "values"), SP_OK);
    assert_true(fabs(json_real_value(json_object_get(json, "a\"1")) / 1e30 - 1) < 1e-15);
    assert_true(fabs(json_real_value(json_object_get(json, "b")) / -1e20 - 1) < 1e-15);
    assert_true(fabs(json_number_value(json_object_get(json, "c")) / 9223372036854775807.0 - 1) < 1e-15);
    json_t *list = json_object_get(json, "d");
    assert_true(json_is_integer(json_array_get(list, 0)));
    assert_true(fabs(json_real_value(json_array_get(list, 1)) / 12345678901234567890.5 - 1) < 1e-15);
    assert_string_equal(json_string_value(json_array_get(list, 2)), "99999999999999999999");
    json_decref(json);
}

static void wrong_text_is_refused_by_line_and_column(void **state) {
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "values: line 1"},
        {"{\"a\":1,}", "values: line 1, column 8"},
        {"{\n \"a\": x\n}", "values: line 2"},
        {"{\"a\":1,\"a\":2}", "duplicate object key"},
        {"{\"a\":{\"b\":1,\"b\":1}}", "duplicate object key"},
        {"{} {}", "end of file expected"},
        {"{\"a\":1e999}", "real number overflow"},
        {"{\"a\":NaN}", "values: line 1"},
        {"{\"a\":\"\xff\"}", "unable to decode byte 0xff"},
        {"{\"a\\u0000b\":1}", "values: line 1"},
        {"{'a':1}", "values: line 1"},
        {"{\"a\":01}", "values: line 1"},
        {"{\"a\":1} // why", "values: line 1"},
        {"{\"a\":\"line\nend\"}", "values: line 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *json = (json_t *)path;
        sp_status status = sp_json_parse(&json, cases[i].text, (int64_t)strlen(cases[i].text), "values");
        if (status != SP_BAD_FILE) fail_msg("'%s' was read", cases[i].text);
        assert_null(json);
        assert_message_has(cases[i].says);
    }
}

static void deep_nesting_is_refused_not_a_crash(void **state) {
    (void)state;
    enum { DEPTH = 1000000 };
    char *text = malloc(DEPTH);
    memset(text, '[', DEPTH);
    json_t *json;
    assert_int_equal(sp_json_parse(&json, text, DEPTH, "deep"), SP_BAD_FILE);
    assert_message_has("deep: line 1");
    free(text);
}

static void text_need_not_end_in_zero(void **state) {
    (void)state;
    char *exact = malloc(2); /* a read past it shows under a sanitizer */
    memcpy(exact, "{}", 2);
    json_t *json;
    assert_int_equal(sp_json_parse(&json, exact, 2, "exact"), SP_OK);
    json_decref(json);
    free(exact);
}

static void document_comes_back_in_its_order(void **state) {
    (void)state;
    json_t *json = json_pack("{s:I, s:[i,b,n], s:{s:s}, s:f}", "z", (json_int_t)INT64_MAX, "a", 1, 1, "m", "t",
                             "\xc3\xa9\"\n", "f", 0.1);
    json_t *back;
    char *first, *second;
    assert_int_equal(sp_json_write(path, json), SP_OK);
    assert_int_equal(sp_json_read(&back, path), SP_OK);
    assert_true(json_equal(json, back));
    assert_int_equal(sp_json_format(&first, json, 1), SP_OK);
    assert_int_equal(sp_json_format(&second, back, 1), SP_OK);
    assert_string_equal(first, second);
    assert_string_equal(first,
                        "{\"z\":9223372036854775807,\"a\":[1,true,null],\"m\":{\"t\":\"\xc3\xa9\\\"\\n\"},\"f\":0.1}");
    free(first);
    free(second);
    json_decref(json);
    json_decref(back);
}

static void twelve_digits_of_a_number_are_kept(void **state) {
    (void)state;
    static const double values[] = {0.1, 1e-15, 3.14159265358979, 1e300, -2.5e-300, 1e-6};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        json_t *json = json_pack("[f]", values[i]), *back;
        char *text;
        assert_int_equal(sp_json_format(&text, json, 1), SP_OK);
        assert_int_equal(sp_json_parse(&back, text, (int64_t)strlen(text), "number"), SP_OK);
        double read = json_real_value(json_array_get(back, 0));
        assert_true(fabs(read - values[i]) <= 1e-11 * fabs(values[i]));
        free(text);
        json_decref(json);
        json_decref(back);
    }
}

static void numbers_that_are_not_finite_become_null(void **state) {
    (void)state;
    json_t *numbers[] = {sp_json_number(NAN), sp_json_number(INFINITY), sp_json_number(-INFINITY), sp_json_number(2.5)};
    for (int i = 0; i < 3; i++) assert_true(json_is_null(numbers[i]));
    assert_true(json_real_value(numbers[3]) == 2.5);
    for (int i = 0; i < 4; i++) json_decref(numbers[i]);
}

static void missing_and_empty_files_are_named(void **state) {
    (void)state;
    char missing[128];
    snprintf(missing, sizeof missing, "%s/missing.json", scratch);
    json_t *json;
    assert_int_equal(sp_json_read(&json, missing), SP_IO);
    assert_message_has("missing.json: No such file");
    assert_int_equal(sp_file_write(path, "", 0), SP_OK);
    assert_int_equal(sp_json_read(&json, path), SP_BAD_FILE);
    assert_message_has("values.json: the file is empty");
    assert_null(json);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_numbers_beyond_64_bits_are_reals),
        cmocka_unit_test(wrong_text_is_refused_by_line_and_column),
        cmocka_unit_test(deep_nesting_is_refused_not_a_crash),
        cmocka_unit_test(text_need_not_end_in_zero),
        cmocka_unit_test(document_comes_back_in_its_order),
        cmocka_unit_test(twelve_digits_of_a_number_are_kept),
        cmocka_unit_test(numbers_that_are_not_finite_become_null),
        cmocka_unit_test(missing_and_empty_files_are_named),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
