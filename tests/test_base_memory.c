/* Memory comes zeroed and aligned; sizes that cannot be are refused by name. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "softpick/tensor.h"

static void memory_is_zeroed_and_aligned(void **state) {
    (void)state;
    for (int64_t bytes = 0; bytes < 300; bytes += 7) {
        void *memory;
        assert_int_equal(sp_allocate(&memory, bytes, "a test"), SP_OK);
        assert_int_equal((uintptr_t)memory % SP_ALIGNMENT, 0);
        for (int64_t i = 0; i < bytes; i++) assert_int_equal(((char *)memory)[i], 0);
        free(memory);
    }
}

static void sizes_that_cannot_be_are_refused(void **state) {
    (void)state;
    static const int64_t sizes[] = {-1, INT64_MAX, INT64_MAX - 10, (int64_t)1 << 60};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *memory = &memory;
        assert_int_equal(sp_allocate(&memory, sizes[i], "the moon"), SP_OUT_OF_MEMORY);
        assert_null(memory);
        assert_non_null(strstr(sp_last_message(), "the moon: "));
    }
}

static void products_and_sums_know_their_end(void **state) {
    (void)state;
    int64_t out;
    assert_true(sp_multiply_sizes((int64_t)1 << 31, (int64_t)1 << 31, &out));
    assert_true(out == (int64_t)1 << 62);
    assert_false(sp_multiply_sizes((int64_t)1 << 32, (int64_t)1 << 31, &out));
    assert_true(sp_add_sizes(INT64_MAX - 1, 1, &out));
    assert_false(sp_add_sizes(INT64_MAX, 1, &out));
    assert_int_equal(sp_round_up(65, 64), 128);
    assert_int_equal(sp_round_up(64, 64), 64);
}

static void parts_are_carved_from_aligned_places(void **state) {
    (void)state;
    _Alignas(SP_ALIGNMENT) char block[256];
    int64_t used = 0;
    assert_ptr_equal(sp_carve(block, &used, 3, 4), block);
    assert_ptr_equal(sp_carve(block, &used, 65, 1), block + 64);
    assert_int_equal(used, 192);
    assert_null(sp_carve(NULL, &used, 1, 64));
    assert_int_equal(used, 256);
    assert_null(sp_carve(block, &used, INT64_MAX / 4, 8));
    assert_true(used == INT64_MAX);
    assert_null(sp_carve(block, &used, 1, 1)); /* for good */
    assert_true(used == INT64_MAX);
}

static void a_view_is_row_major(void **state) {
    (void)state;
    float numbers[24];
    sp_tensor view = sp_tensor_view(numbers, SP_DTYPE_F32, 3, (int64_t[]){2, 3, 4});
    assert_int_equal(sp_tensor_count(&view), 24);
    assert_int_equal(view.stride[0], 12);
    assert_int_equal(view.stride[1], 4);
    assert_int_equal(view.stride[2], 1);
    view = sp_tensor_view(numbers, SP_DTYPE_F32, 0, NULL);
    assert_int_equal(sp_tensor_count(&view), 1);
    assert_int_equal(sp_dtype_bytes((sp_dtype)99), 0);
    assert_string_equal(sp_dtype_name((sp_dtype)99), "?");
    assert_string_equal(sp_dtype_name(SP_DTYPE_BF16), "bf16");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zeroed_and_aligned),
        cmocka_unit_test(sizes_that_cannot_be_are_refused),
        cmocka_unit_test(products_and_sums_know_their_end),
        cmocka_unit_test(parts_are_carved_from_aligned_places),
        cmocka_unit_test(a_view_is_row_major),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
