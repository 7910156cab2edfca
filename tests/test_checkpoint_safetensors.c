/* safetensors files: what is written is read back, and every rule of the format is held against a file that breaks it. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>

#include "checkpoint_support.h"

static const char *scratch_path(void **state, const char *name) { return path_in(*state, name); }

/* ---- round trips ------------------------------------------------------------------------------------------------ */

static void every_dtype_comes_back_bit_for_bit(void **state) {
    const char *path = scratch_path(state, "dtypes.safetensors");
    static uint64_t data[SP_DTYPE_COUNT][15];
    sp_named_tensor tensors[SP_DTYPE_COUNT];
    for (int i = 0; i < SP_DTYPE_COUNT; i++) {
        fill(data[i], sizeof data[i], (uint64_t)i);
        tensors[i] = (sp_named_tensor){sp_dtype_name((sp_dtype)i),
                                       sp_tensor_view(data[i], (sp_dtype)i, 3, (int64_t[]){3, 1, 5})};
    }
    assert_int_equal(sp_safetensors_write(path, tensors, SP_DTYPE_COUNT), SP_OK);
    sp_safetensors *file;
    assert_int_equal(sp_safetensors_open(&file, path), SP_OK);
    assert_int_equal(sp_safetensors_count(file), SP_DTYPE_COUNT);
    for (int i = 0; i < SP_DTYPE_COUNT; i++) {
        const sp_tensor *tensor = sp_safetensors_find(file, tensors[i].name);
        assert_non_null(tensor);
        assert_int_equal(tensor->dtype, i);
        assert_int_equal(tensor->n_dims, 3);
        assert_memory_equal(tensor->shape, tensors[i].tensor.shape, 3 * sizeof(int64_t));
        assert_memory_equal(tensor->stride, tensors[i].tensor.stride, 3 * sizeof(int64_t));
        assert_true(holds(tensor, (uint64_t)i));
    }
    sp_safetensors_close(file);
}

static void empty_and_scalar_tensors_come_back(void **state) {
    const char *path = scratch_path(state, "edges.safetensors");
    float one = 1.5f;
    sp_named_tensor tensors[] = {
        {"scalar", sp_tensor_view(&one, SP_DTYPE_F32, 0, NULL)},
        {"empty", sp_tensor_view(NULL, SP_DTYPE_F32, 2, (int64_t[]){3, 0})},
        {"also empty", sp_tensor_view(NULL, SP_DTYPE_U8, 1, (int64_t[]){0})},
    };
    assert_int_equal(sp_safetensors_write(path, tensors, 3), SP_OK);
    sp_safetensors *file;
    assert_int_equal(sp_safetensors_open(&file, path), SP_OK);
    assert_int_equal(sp_safetensors_find(file, "scalar")->n_dims, 0);
    assert_memory_equal(sp_safetensors_find(file, "scalar")->data, &one, sizeof one);
    assert_int_equal(sp_tensor_count(sp_safetensors_find(file, "empty")), 0);
    assert_int_equal(sp_safetensors_find(file, "empty")->shape[0], 3);
    assert_int_equal(sp_safetensors_find(file, "also empty")->dtype, SP_DTYPE_U8);
    sp_safetensors_close(file);
}

static void file_without_tensors_is_fine(void **state) {
    const char *path = scratch_path(state, "none.safetensors");
    assert_int_equal(sp_safetensors_write(path, NULL, 0), SP_OK);
    sp_safetensors *file;
    assert_int_equal(sp_safetensors_open(&file, path), SP_OK);
    assert_int_equal(sp_safetensors_count(file), 0);
    assert_null(sp_safetensors_find(file, "a"));
    assert_string_equal(sp_safetensors_metadata(file, "format"), "pt");
    assert_null(sp_safetensors_metadata(file, "other"));
    sp_safetensors_close(file);
}

static void thousands_of_tensors_are_found_by_name(void **state) {
    enum { N = 3000 };
    const char *path = scratch_path(state, "many.safetensors");
    static char names[N][32];
    static uint16_t data[N][4];
    static sp_named_tensor tensors[N];
    for (int i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "model.layers.%d.weight", (i * 7919) % N);
        fill(data[i], sizeof data[i], (uint64_t)i);
        tensors[i] = (sp_named_tensor){names[i], sp_tensor_view(data[i], SP_DTYPE_BF16, 1, (int64_t[]){1 + i % 4})};
    }
    assert_int_equal(sp_safetensors_write(path, tensors, N), SP_OK);
    sp_safetensors *file;
    assert_int_equal(sp_safetensors_open(&file, path), SP_OK);
    for (int i = 0; i < N; i++) {
        const sp_tensor *tensor = sp_safetensors_find(file, names[i]);
        assert_non_null(tensor);
        assert_int_equal(tensor->shape[0], 1 + i % 4);
        assert_true(holds(tensor, (uint64_t)i));
    }
    assert_null(sp_safetensors_find(file, "model.layers.3000.weight"));
    sp_safetensors_close(file);
}

static void data_lies_aligned_large_dtypes_first(void **state) {
    const char *path = scratch_path(state, "order.safetensors");
    uint64_t data[4] = {0};
    sp_named_tensor tensors[] = {
        {"b", sp_tensor_view(data, SP_DTYPE_U8, 1, (int64_t[]){3})},
        {"z", sp_tensor_view(data, SP_DTYPE_F64, 1, (int64_t[]){1})},
        {"a", sp_tensor_view(data, SP_DTYPE_U8, 1, (int64_t[]){3})},
        {"h", sp_tensor_view(data, SP_DTYPE_BF16, 1, (int64_t[]){3})},
    };
    assert_int_equal(sp_safetensors_write(path, tensors, 4), SP_OK);
    sp_file_map map;
    assert_int_equal(sp_file_map_open(&map, path), SP_OK);
    uint64_t length;
    memcpy(&length, map.data, sizeof length);
    assert_int_equal(length % 8, 0);
    assert_int_equal(map.n_bytes, 8 + (int64_t)length + 8 + 6 + 3 + 3);
    sp_file_map_close(&map);
    sp_safetensors *file;
    assert_int_equal(sp_safetensors_open(&file, path), SP_OK);
    static const char *const order[] = {"z", "h", "a", "b"};
    for (int i = 0; i < 4; i++) assert_string_equal(sp_safetensors_name(file, i), order[i]);
    sp_safetensors_close(file);
}

/* Old writers did not pad the header. */
static void crooked_data_is_seen_aligned(void **state) {
    (void)state;
    static const char header[] = "{\"flag\":{\"dtype\":\"BOOL\",\"shape\":[1],\"data_offsets\":[0,1]},"
                                 "\"number\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[1,9]}}";
    uint8_t bytes[512];
    for (int shift = 0; shift < 4; shift++) {
        sp_safetensors *file;
        int64_t n = craft(bytes + shift, header, 9);
        assert_int_equal(sp_safetensors_parse(&file, bytes + shift, n, "crooked"), SP_OK);
        const sp_tensor *number = sp_safetensors_find(file, "number");
        assert_int_equal((uintptr_t)number->data % 4, 0);
        assert_memory_equal(number->data, ((uint8_t[]){1, 2, 3, 4, 5, 6, 7, 8}), 8);
        sp_safetensors_close(file);
    }
}

/* ---- damaged files ---------------------------------------------------------------------------------------------- */

#define TENSOR(dtype, shape, offsets) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define ONE_FLOAT                     TENSOR("F32", "[1]", "[0,4]")

static const struct damage {
    const char *what, *header;
    int64_t n_data;
    sp_status status;
    const char *says; /* beside the name of the file */
} damages[] = {
    {"not an object", "[1]", 0, SP_BAD_FILE, "begin with '{'"},
    {"blank before the object", " {}", 0, SP_BAD_FILE, "begin with '{'"},
    {"no header", "", 0, SP_BAD_FILE, "begin with '{'"},
    {"cut JSON", "{\"weight\":", 0, SP_BAD_FILE, "line 1"},
    {"text after the object", "{} x", 0, SP_BAD_FILE, "line 1"},
    {"not UTF-8", "{\"we\xff\":1}", 0, SP_BAD_FILE, "line 1"},
    {"duplicate name", "{\"weight\":" ONE_FLOAT ",\"weight\":" ONE_FLOAT "}", 4, SP_BAD_FILE, "weight"},
    {"metadata not an object", "{\"__metadata__\":3}", 0, SP_BAD_FILE, "__metadata__"},
    {"metadata not a string", "{\"__metadata__\":{\"rank\":3}}", 0, SP_BAD_FILE, "'rank' is not a string"},
    {"tensor not an object", "{\"weight\":[]}", 0, SP_BAD_FILE, "'weight'"},
    {"no dtype", "{\"weight\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, SP_BAD_FILE, "'weight' has no dtype"},
    {"dtype a number", "{\"weight\":{\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, SP_BAD_FILE,
     "'weight' has no dtype"},
    {"unknown dtype", "{\"weight\":" TENSOR("F31", "[1]", "[0,4]") "}", 4, SP_BAD_FILE,
     "'weight': unknown dtype 'F31'"},
    {"dtype below a byte", "{\"weight\":" TENSOR("F4", "[2]", "[0,1]") "}", 1, SP_UNSUPPORTED,
     "'weight': dtype F4 (4 bits a number) is not supported"},
    {"dtype without a name here", "{\"weight\":" TENSOR("U64", "[1]", "[0,8]") "}", 8, SP_UNSUPPORTED,
     "'weight': dtype U64"},
    {"no shape", "{\"weight\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, SP_BAD_FILE, "'weight' has no shape"},
    {"negative dimension", "{\"weight\":" TENSOR("F32", "[-1]", "[0,4]") "}", 4, SP_BAD_FILE, "'weight': dimension 0"},
    {"fractional dimension", "{\"weight\":" TENSOR("F32", "[1,1.0]", "[0,4]") "}", 4, SP_BAD_FILE,
     "'weight': dimension 1"},
    {"dimension above 64 bits", "{\"weight\":" TENSOR("F32", "[99999999999999999999]", "[0,4]") "}", 4, SP_BAD_FILE,
     "not a whole number"},
    {"product above 64 bits", "{\"weight\":" TENSOR("F32", "[4294967296,4294967296]", "[0,4]") "}", 4, SP_BAD_FILE,
     "'weight': its shape is too large"},
    {"bytes above 64 bits", "{\"weight\":" TENSOR("F32", "[4611686018427387904]", "[0,0]") "}", 0, SP_BAD_FILE,
     "'weight': its shape is too large"},
    {"strides above 64 bits", "{\"weight\":" TENSOR("U8", "[0,4294967296,4294967296]", "[0,0]") "}", 0, SP_BAD_FILE,
     "'weight': its shape is too large"},
    {"too many dimensions", "{\"weight\":" TENSOR("F32", "[1,1,1,1,1,1,1]", "[0,4]") "}", 4, SP_UNSUPPORTED,
     "'weight' has 7 dimensions"},
    {"no offsets", "{\"weight\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, SP_BAD_FILE, "'weight' has no pair"},
    {"three offsets", "{\"weight\":" TENSOR("F32", "[1]", "[0,4,4]") "}", 4, SP_BAD_FILE, "'weight' has no pair"},
    {"offsets not whole", "{\"weight\":" TENSOR("F32", "[1]", "[0,4.0]") "}", 4, SP_BAD_FILE, "not whole numbers"},
    {"negative offset", "{\"weight\":" TENSOR("F32", "[1]", "[-4,0]") "}", 4, SP_BAD_FILE,
     "'weight': data_offsets [-4,0]"},
    {"offsets backwards", "{\"weight\":" TENSOR("F32", "[1]", "[4,0]") "}", 4, SP_BAD_FILE,
     "'weight': data_offsets [4,0]"},
    {"size and shape differ", "{\"weight\":" TENSOR("F32", "[2]", "[0,4]") "}", 4, SP_BAD_FILE,
     "'weight': its shape takes 8 bytes, its data_offsets 4"},
    {"hole at the start", "{\"weight\":" TENSOR("F32", "[1]", "[4,8]") "}", 8, SP_BAD_FILE,
     "'weight' begins at byte 4"},
    {"hole between", "{\"first\":" ONE_FLOAT ",\"weight\":" TENSOR("F32", "[1]", "[8,12]") "}", 12, SP_BAD_FILE,
     "'weight' begins at byte 8 of the data, the one before it ends at 4: a hole"},
    {"overlap", "{\"first\":" ONE_FLOAT ",\"weight\":" TENSOR("F32", "[1]", "[2,6]") "}", 6, SP_BAD_FILE,
     "'weight' begins at byte 2 of the data, the one before it ends at 4: they overlap"},
    {"twice the same bytes", "{\"first\":" ONE_FLOAT ",\"weight\":" ONE_FLOAT "}", 4, SP_BAD_FILE, "they overlap"},
    {"data cut", "{\"weight\":" ONE_FLOAT "}", 3, SP_BAD_FILE, "'weight' ends at byte 4 of the data, which has 3"},
    {"trailing bytes", "{\"weight\":" ONE_FLOAT "}", 5, SP_BAD_FILE, "1 bytes follow the last tensor"},
};
enum { N_DAMAGES = sizeof damages / sizeof *damages };

static void assert_one_line_with(const char *part, const char *also) {
    if (!strstr(sp_last_message(), part) || !strstr(sp_last_message(), also) || strchr(sp_last_message(), '\n'))
        fail_msg("message \"%s\" should name \"%s\" and \"%s\"", sp_last_message(), part, also);
}

static void every_damage_is_refused_by_name(void **state) {
    const char *path = scratch_path(state, "damaged.safetensors");
    for (int i = 0; i < N_DAMAGES; i++) {
        uint8_t bytes[1024];
        int64_t n = craft(bytes, damages[i].header, damages[i].n_data);
        assert_int_equal(sp_file_write(path, bytes, n), SP_OK);
        sp_safetensors *file = (sp_safetensors *)bytes;
        sp_status status = sp_safetensors_open(&file, path);
        if (status != damages[i].status)
            fail_msg("%s: status %d, message \"%s\"", damages[i].what, (int)status, sp_last_message());
        assert_null(file);
        assert_one_line_with(path, damages[i].says);
    }
}

/* The crafted files differ from this one by their damage alone. */
static void undamaged_file_is_read(void **state) {
    (void)state;
    uint8_t bytes[1024];
    int64_t n = craft(bytes, "{\"first\":" ONE_FLOAT ",\"weight\":" TENSOR("F32", "[1]", "[4,8]") "} ", 8);
    sp_safetensors *file;
    assert_int_equal(sp_safetensors_parse(&file, bytes, n, "whole"), SP_OK);
    sp_safetensors_close(file);
}

static void every_cut_of_a_file_is_refused(void **state) {
    (void)state;
    uint8_t bytes[1024];
    int64_t n = craft(bytes, "{\"first\":" ONE_FLOAT ",\"weight\":" TENSOR("F32", "[1]", "[4,8]") "}", 8);
    for (int64_t cut = 0; cut < n; cut++) {
        uint8_t *exact = malloc((size_t)cut + 1); /* a read past the cut shows under a sanitizer */
        memcpy(exact + 1, bytes, (size_t)cut);
        sp_safetensors *file;
        assert_int_equal(sp_safetensors_parse(&file, exact + 1, cut, "cut"), SP_BAD_FILE);
        assert_null(file);
        free(exact);
    }
}

static void header_length_is_bounded(void **state) {
    (void)state;
    static const struct {
        uint64_t length;
        const char *says;
    } cases[] = {
        {100000001, "at most 100000000"},
        {UINT64_MAX, "at most 100000000"},
        {UINT64_MAX - 7, "at most 100000000"},
        {100000000, "cut short"},
        {3, "cut short"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t bytes[10] = {0};
        memcpy(bytes, &cases[i].length, 8);
        memcpy(bytes + 8, "{}", 2);
        sp_safetensors *file;
        assert_int_equal(sp_safetensors_parse(&file, bytes, sizeof bytes, "long"), SP_BAD_FILE);
        assert_one_line_with("long: ", cases[i].says);
    }
}

static void name_with_line_ends_stays_one_line(void **state) {
    (void)state;
    uint8_t bytes[1024];
    int64_t n = craft(bytes, "{\"a\\nb\":[]}", 0);
    sp_safetensors *file;
    assert_int_equal(sp_safetensors_parse(&file, bytes, n, "lines"), SP_BAD_FILE);
    assert_one_line_with("lines: ", "a b");
}

static void missing_and_empty_files_are_named(void **state) {
    sp_safetensors *file;
    const char *missing = scratch_path(state, "missing.safetensors"), *empty = scratch_path(state, "empty.safetensors");
    assert_int_equal(sp_safetensors_open(&file, missing), SP_IO);
    assert_one_line_with(missing, "No such file");
    assert_int_equal(sp_file_write(empty, "", 0), SP_OK);
    assert_int_equal(sp_safetensors_open(&file, empty), SP_BAD_FILE);
    assert_one_line_with(empty, "0 bytes: too short");
    assert_int_equal(sp_safetensors_open(&file, *state), SP_IO);
    assert_one_line_with(*state, "not a regular file");
}

/* ---- bad calls -------------------------------------------------------------------------------------------------- */

static void writer_refuses_what_it_cannot_store(void **state) {
    const char *path = scratch_path(state, "kept.safetensors");
    float data[4] = {0};
    sp_tensor good = sp_tensor_view(data, SP_DTYPE_F32, 2, (int64_t[]){2, 2});
    sp_tensor transposed = good, elsewhere = good, nowhere = good, unknown = good, negative = good, deep = good;
    transposed.stride[0] = 1, transposed.stride[1] = 2;
    elsewhere.device = 1;
    nowhere.data = NULL;
    unknown.dtype = SP_DTYPE_COUNT;
    negative.shape[0] = -1;
    deep.n_dims = SP_MAX_DIMS + 1;
    const struct {
        sp_named_tensor tensors[2];
        const char *says;
    } cases[] = {
        {{{"ok", good}, {"x", transposed}}, "'x' is not contiguous"},
        {{{"ok", good}, {"x", elsewhere}}, "'x' is not in host"},
        {{{"ok", good}, {"x", nowhere}}, "'x' has no data"},
        {{{"ok", good}, {"x", unknown}}, "'x' has no valid dtype"},
        {{{"ok", good}, {"x", negative}}, "'x': dimension 0"},
        {{{"ok", good}, {"x", deep}}, "'x' has 7 dimensions"},
        {{{"x", good}, {"x", good}}, "named 'x'"},
        {{{"ok", good}, {"__metadata__", good}}, "reserved"},
        {{{"ok", good}, {"\xff", good}}, "not UTF-8"},
    };
    assert_int_equal(sp_safetensors_write(path, &cases[0].tensors[0], 1), SP_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(sp_safetensors_write(path, cases[i].tensors, 2), SP_BAD_ARGUMENT);
        assert_one_line_with(path, cases[i].says);
        sp_safetensors *file; /* the file that was there is as it was */
        assert_int_equal(sp_safetensors_open(&file, path), SP_OK);
        assert_int_equal(sp_safetensors_count(file), 1);
        sp_safetensors_close(file);
    }
}

static void dimension_of_size_one_may_have_any_stride(void **state) {
    const char *path = scratch_path(state, "one.safetensors");
    float data[3] = {1, 2, 3};
    sp_tensor row = sp_tensor_view(data, SP_DTYPE_F32, 2, (int64_t[]){1, 3});
    row.stride[0] = 77;
    assert_int_equal(sp_safetensors_write(path, &(sp_named_tensor){"row", row}, 1), SP_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_dtype_comes_back_bit_for_bit),
        cmocka_unit_test(empty_and_scalar_tensors_come_back),
        cmocka_unit_test(file_without_tensors_is_fine),
        cmocka_unit_test(thousands_of_tensors_are_found_by_name),
        cmocka_unit_test(data_lies_aligned_large_dtypes_first),
        cmocka_unit_test(crooked_data_is_seen_aligned),
        cmocka_unit_test(every_damage_is_refused_by_name),
        cmocka_unit_test(undamaged_file_is_read),
        cmocka_unit_test(every_cut_of_a_file_is_refused),
        cmocka_unit_test(header_length_is_bounded),
        cmocka_unit_test(name_with_line_ends_stays_one_line),
        cmocka_unit_test(missing_and_empty_files_are_named),
        cmocka_unit_test(writer_refuses_what_it_cannot_store),
        cmocka_unit_test(dimension_of_size_one_may_have_any_stride),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
