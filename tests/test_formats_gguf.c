/* GGUF files: what is written is read back, and every rule of the format is held against a file that breaks it. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "checkpoint_support.h"
#include "formats/gguf.h"
#include "gguf_support.h"

/* ---- round trips ------------------------------------------------------------------------------------------------ */

static void keys_and_tensors_come_back(void **state) {
    const char *path = path_in(*state, "all.gguf");
    static const char *const texts[] = {"a", "", "c d"};
    const int64_t shape[] = {3, 32};
    float rows[96], back[96];
    sp_gguf_writer *writer;
    sp_gguf *file;
    for (int i = 0; i < 96; i++) rows[i] = (float)(i % 32 - 16) * 8;
    rows[0] = rows[32] = rows[64] = 127 * 8;
    assert_int_equal(sp_gguf_writer_new(&writer, path), SP_OK);
    assert_int_equal(sp_gguf_add_text(writer, "name", "a model"), SP_OK);
    assert_int_equal(sp_gguf_add_u32(writer, "count", 4294967295), SP_OK);
    assert_int_equal(sp_gguf_add_f32(writer, "eps", 1e-5), SP_OK);
    assert_int_equal(sp_gguf_add_flag(writer, "on", true), SP_OK);
    assert_int_equal(sp_gguf_add_texts(writer, "texts", texts, 3), SP_OK);
    assert_int_equal(sp_gguf_add_f32s(writer, "scores", (float[]){0, -1.5f}, 2), SP_OK);
    assert_int_equal(sp_gguf_add_i32s(writer, "types", (int32_t[]){1, -6}, 2), SP_OK);
    assert_int_equal(sp_gguf_add_u32(writer, "count", -1), SP_UNSUPPORTED);
    static const char *const formats[] = {"F32", "F16", "BF16", "Q8_0"};
    for (int i = 0; i < 4; i++)
        assert_int_equal(sp_gguf_add_tensor(writer, formats[i], sp_block_format_find(formats[i]), 2, shape), SP_OK);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(sp_gguf_write_rows(writer, rows, 32), SP_OK);
        assert_int_equal(sp_gguf_write_rows(writer, rows + 32, 64), SP_OK);
    }
    assert_false(sp_file_exists(path));
    assert_int_equal(sp_gguf_writer_finish(writer), SP_OK);
    sp_gguf_writer_free(writer);

    int64_t count = 0;
    double eps = 0;
    bool on = false;
    const char *name = NULL;
    assert_int_equal(sp_gguf_open(&file, path), SP_OK);
    assert_int_equal(sp_gguf_integer(file, "count", &count), SP_OK);
    assert_int_equal(sp_gguf_number(file, "eps", &eps), SP_OK);
    assert_int_equal(sp_gguf_flag(file, "on", &on), SP_OK);
    assert_int_equal(sp_gguf_text(file, "name", &name), SP_OK);
    assert_true(count == 4294967295 && eps == (double)1e-5f && on);
    assert_string_equal(name, "a model");
    assert_int_equal(sp_gguf_integer(file, "absent", &count), SP_OK);
    assert_int_equal(sp_gguf_integer(file, "eps", &count), SP_BAD_FILE);
    assert_int_equal(sp_gguf_integer(file, "types", &count), SP_BAD_FILE);
    assert_true(sp_gguf_number_at(sp_gguf_find(file, "scores"), 1) == -1.5);
    assert_int_equal(sp_gguf_integer_at(sp_gguf_find(file, "types"), 1), -6);
    const uint8_t *at = sp_gguf_find(file, "texts")->data;
    for (int i = 0; i < 3; i++) {
        sp_gguf_string text = sp_gguf_next_string(&at);
        assert_int_equal(text.n_bytes, strlen(texts[i]));
        assert_memory_equal(text.bytes, texts[i], strlen(texts[i]));
    }
    for (int i = 0; i < 4; i++) {
        const sp_gguf_tensor *tensor = sp_gguf_find_tensor(file, formats[i]);
        assert_true(tensor->n_dims == 2 && tensor->shape[0] == 3 && tensor->shape[1] == 32);
        tensor->format->read(back, tensor->data, 96 / tensor->format->items);
        assert_memory_equal(back, rows, sizeof rows);
    }
    sp_gguf_close(file);
}

static void unfinished_files_leave_nothing(void **state) {
    const char *path = path_in(*state, "half.gguf");
    sp_gguf_writer *writer;
    assert_int_equal(sp_gguf_writer_new(&writer, path), SP_OK);
    assert_int_equal(sp_gguf_add_tensor(writer, "a", sp_block_format_find("F32"), 1, (int64_t[]){4}), SP_OK);
    assert_int_equal(sp_gguf_write_rows(writer, (float[]){1, 2}, 2), SP_OK);
    assert_int_equal(sp_gguf_writer_finish(writer), SP_INTERNAL);
    sp_gguf_writer_free(writer);
    assert_false(sp_file_exists(path));
}

static void rows_that_are_not_whole_blocks_are_not_written(void **state) {
    sp_gguf_writer *writer;
    assert_int_equal(sp_gguf_writer_new(&writer, path_in(*state, "odd.gguf")), SP_OK);
    assert_int_equal(sp_gguf_add_tensor(writer, "a", sp_block_format_find("Q8_0"), 1, (int64_t[]){40}),
                     SP_BAD_ARGUMENT);
    assert_int_equal(sp_gguf_add_tensor(writer, "a", sp_block_format_find("Q4_0"), 1, (int64_t[]){32}),
                     SP_BAD_ARGUMENT);
    sp_gguf_writer_free(writer);
}

/* ---- rules ------------------------------------------------------------------------------------------------------ */

/* Version 2 or 3: a key of each simple kind, two tensors. */
static void make_valid(gguf_bytes *to, uint32_t version) {
    *to = (gguf_bytes){0};
    put_head(to, version, 2, 3);
    put_key_u32(to, "general.alignment", 64);
    put_key_text(to, "text", "value");
    put_key(to, "list", 9);
    put_u32(to, 8);
    put_u64(to, 2);
    put_text(to, "one");
    put_text(to, "two");
    put_tensor(to, "a", 3, 2, 0, 0);
    put_tensor(to, "b", 32, 1, 8, 64);
    pad_to(to, 64);
    for (int i = 0; i < 6; i++) put_f32(to, (float)i);
    pad_to(to, 64);
    for (int i = 0; i < 34; i++) put_bytes(to, "\1", 1);
}

static sp_status parse(const gguf_bytes *bytes) {
    sp_gguf *file;
    uint8_t *exact = malloc((size_t)bytes->n + 1); /* so that a sanitizer sees a byte too many */
    if (!exact) abort();
    uint8_t *data = realloc(exact, bytes->n ? (size_t)bytes->n : 1);
    memcpy(data, bytes->data, (size_t)bytes->n);
    sp_status status = sp_gguf_parse(&file, data, bytes->n, "file.gguf");
    assert_true((status == SP_OK) == (file != NULL));
    sp_gguf_close(file);
    free(data);
    return status;
}

static void versions_2_and_3_are_read(void **state) {
    (void)state;
    static gguf_bytes bytes;
    for (uint32_t version = 2; version <= 3; version++) {
        make_valid(&bytes, version);
        assert_int_equal(parse(&bytes), SP_OK);
    }
}

static void every_shorter_file_is_refused_by_name(void **state) {
    (void)state;
    static gguf_bytes bytes;
    make_valid(&bytes, 3);
    for (bytes.n--; bytes.n >= 0; bytes.n--) {
        assert_int_equal(parse(&bytes), SP_BAD_FILE);
        assert_memory_equal(sp_last_message(), "file.gguf: ", 11);
        assert_null(strchr(sp_last_message(), '\n'));
    }
}

static void changed_bytes_never_crash(void **state) {
    (void)state;
    static gguf_bytes bytes, changed;
    make_valid(&bytes, 3);
    for (int64_t at = 0; at < bytes.n; at++)
        for (int k = 0; k < 4; k++) {
            changed = bytes;
            changed.data[at] = (uint8_t[]){0, 0x7f, 0xff, (uint8_t)(bytes.data[at] + 1)}[k];
            (void)parse(&changed);
        }
}

static void expect(const gguf_bytes *bytes, sp_status status, const char *message) {
    assert_int_equal(parse(bytes), status);
    if (!strstr(sp_last_message(), message)) fail_msg("\"%s\" does not say \"%s\"", sp_last_message(), message);
}

static void heads_that_are_none_are_refused(void **state) {
    (void)state;
    static const struct {
        uint32_t version;
        uint64_t n_tensors, n_values;
        sp_status status;
        const char *message;
    } cases[] = {
        {1, 0, 0, SP_UNSUPPORTED, "version 1"},
        {4, 0, 0, SP_VERSION, "version 4"},
        {3u << 24, 0, 0, SP_UNSUPPORTED, "big-endian"},
        {3, 1, 0, SP_BAD_FILE, "more than the file has room for"},
        {3, UINT64_MAX, 0, SP_BAD_FILE, "more than the file has room for"},
        {3, 0, UINT64_MAX / 2, SP_BAD_FILE, "more than the file has room for"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static gguf_bytes bytes;
        bytes = (gguf_bytes){0};
        put_head(&bytes, cases[i].version, cases[i].n_tensors, cases[i].n_values);
        expect(&bytes, cases[i].status, cases[i].message);
    }
    static gguf_bytes other;
    put_bytes(&other, "GGML\3\0\0\0", 8);
    expect(&other, SP_BAD_FILE, "does not begin with GGUF");
}

typedef void value_writer(gguf_bytes *to);

static void key_twice(gguf_bytes *to) {
    put_key_u32(to, "same", 1);
    put_key_u32(to, "same", 1);
}

static void unknown_kind(gguf_bytes *to) {
    put_key_u32(to, "first", 1);
    put_key(to, "strange", 13);
    put_u64(to, 0);
}

static void bool_of_two(gguf_bytes *to) {
    put_key_u32(to, "first", 1);
    put_key(to, "flag", 7);
    put_bytes(to, "\2", 1);
}

static void arrays_in_array(gguf_bytes *to) {
    put_key_u32(to, "first", 1);
    put_key(to, "nested", 9);
    put_u32(to, 9);
    put_u64(to, 0);
}

static void long_string(gguf_bytes *to) {
    put_key_u32(to, "first", 1);
    put_key(to, "text", 8);
    put_u64(to, (1u << 30) + 1);
}

static void long_array(gguf_bytes *to) {
    put_key_u32(to, "first", 1);
    put_key(to, "list", 9);
    put_u32(to, 12);
    put_u64(to, UINT64_MAX);
}

static void array_beyond_the_end(gguf_bytes *to) {
    put_key_u32(to, "first", 1);
    put_key(to, "list", 9);
    put_u32(to, 8);
    put_u64(to, 1u << 29);
}

static void alignment_of_48(gguf_bytes *to) {
    put_key_u32(to, "general.alignment", 48);
    put_key_u32(to, "second", 1);
}

static void name_of_two_lines(gguf_bytes *to) {
    put_key_u32(to, "first", 1);
    put_key_u32(to, "two\nlines", 1);
}

static void text_with_zero(gguf_bytes *to) {
    put_key_u32(to, "first", 1);
    put_key(to, "text", 8);
    put_u64(to, 3);
    put_bytes(to, "a\0b", 3);
}

static void wrong_keys_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        value_writer *write;
        sp_status status;
        const char *message;
    } cases[] = {
        {key_twice, SP_BAD_FILE, "key same stands there twice"},
        {unknown_kind, SP_BAD_FILE, "key strange has the unknown type 13"},
        {bool_of_two, SP_BAD_FILE, "key flag has a bool of value 2"},
        {arrays_in_array, SP_UNSUPPORTED, "key nested is an array of arrays"},
        {long_string, SP_BAD_FILE, "key text has a string of 1073741825 bytes"},
        {long_array, SP_BAD_FILE, "key list has 18446744073709551615 items"},
        {array_beyond_the_end, SP_BAD_FILE, "ends in the middle of key list"},
        {alignment_of_48, SP_BAD_FILE, "general.alignment is 48"},
        {name_of_two_lines, SP_BAD_FILE, "not of printable letters"},
        {text_with_zero, SP_BAD_FILE, "key text has a string with a zero byte"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static gguf_bytes bytes;
        bytes = (gguf_bytes){0};
        put_head(&bytes, 3, 0, 2);
        cases[i].write(&bytes);
        expect(&bytes, cases[i].status, cases[i].message);
    }
}

static void wrong_tensors_are_refused_by_name(void **state) {
    (void)state;
    static const char long_name[] = "0123456789012345678901234567890123456789012345678901234567890123";
    static const struct {
        const char *name;
        int64_t first, second;
        uint32_t type;
        uint64_t offset;
        sp_status status;
        const char *message;
    } cases[] = {
        {"a", 4, 0, 0, 32, SP_BAD_FILE, "tensor a stands there twice"},
        {long_name, 4, 0, 0, 32, SP_BAD_FILE, "more than 63 letters"},
        {"b", 4, -1, 0, 32, SP_BAD_FILE, "tensor b: dimension 1 is -1"},
        {"b", INT64_MAX, 2, 0, 32, SP_BAD_FILE, "out of range"},
        {"b", INT64_MAX, 1, 0, 32, SP_BAD_FILE, "tensor b is too large"},
        {"b", 1 << 20, 1, 0, 32, SP_BAD_FILE, "tensor b takes 4194304 bytes, more than the file has left"},
        {"b", 4, 0, 99, 32, SP_BAD_FILE, "tensor b has the unknown type 99"},
        {"b", 256, 0, 12, 32, SP_UNSUPPORTED, "tensor b has type Q4_K"},
        {"b", 48, 0, 2, 32, SP_BAD_FILE, "tensor b: its rows of 48 numbers are not whole blocks of 32 (Q4_0)"},
        {"b", 4, 0, 0, 16, SP_BAD_FILE, "tensor b begins at byte 16 of the data: it should at 32"},
        {"b", 4, 0, 0, 64, SP_BAD_FILE, "tensor b begins at byte 64 of the data: it should at 32"},
        {"b", 5, 0, 0, 32, SP_BAD_FILE, "it is cut short"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static gguf_bytes bytes;
        bytes = (gguf_bytes){0};
        put_head(&bytes, 3, 2, 0);
        put_tensor(&bytes, "a", 4, 0, 0, 0);
        put_tensor(&bytes, cases[i].name, cases[i].first, cases[i].second, cases[i].type, cases[i].offset);
        pad_to(&bytes, 32);
        for (int k = 0; k < 12; k++) put_f32(&bytes, 1);
        expect(&bytes, cases[i].status, cases[i].message);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(keys_and_tensors_come_back, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(unfinished_files_leave_nothing, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(rows_that_are_not_whole_blocks_are_not_written, make_scratch, remove_scratch),
        cmocka_unit_test(versions_2_and_3_are_read),
        cmocka_unit_test(every_shorter_file_is_refused_by_name),
        cmocka_unit_test(changed_bytes_never_crash),
        cmocka_unit_test(heads_that_are_none_are_refused),
        cmocka_unit_test(wrong_keys_are_refused_by_name),
        cmocka_unit_test(wrong_tensors_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
