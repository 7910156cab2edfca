/* Rows as GGUF stores them: bytes worked out by hand, and what rounding may cost. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "base/random.h"
#include "formats/blocks.h"
#include "formats/halves.h"

static void formats_are_found_by_number_and_by_name(void **state) {
    (void)state;
    assert_string_equal(sp_block_format_by_id(8)->name, "Q8_0");
    assert_ptr_equal(sp_block_format_find("q8_0"), sp_block_format_by_id(8));
    assert_ptr_equal(sp_block_format_of(SP_DTYPE_BF16), sp_block_format_by_id(30));
    assert_null(sp_block_format_by_id(12)->read);
    assert_null(sp_block_format_by_id(4));
    assert_null(sp_block_format_find("q9"));
    assert_null(sp_block_format_of(SP_DTYPE_COUNT));
}

static void q4_0_holds_low_halves_then_high_ones(void **state) {
    (void)state;
    uint8_t block[18];
    float out[32];
    uint16_t half = sp_f16_from_f32(0.5f);
    memcpy(block, &half, sizeof half);
    for (int i = 0; i < 16; i++) block[2 + i] = (uint8_t)(i | (15 - i) << 4);
    sp_block_format_find("Q4_0")->read(out, block, 1);
    for (int i = 0; i < 16; i++) {
        assert_true(out[i] == 0.5f * (float)(i - 8));
        assert_true(out[16 + i] == 0.5f * (float)(7 - i));
    }
}

static void q8_0_rounds_halves_away_from_zero(void **state) {
    (void)state;
    float in[32] = {127, 2.5f, -2.5f, 0.4f, -127}, out[32];
    uint8_t block[34];
    const sp_block_format *format = sp_block_format_find("Q8_0");
    format->write(block, in, 1);
    const int8_t expected[] = {127, 3, -3, 0, -127, 0};
    assert_memory_equal(block + 2, expected, sizeof expected);
    format->read(out, block, 1);
    assert_true(out[1] == 3 && out[2] == -3);
}

static void q8_0_is_within_half_a_step(void **state) {
    (void)state;
    enum { BLOCKS = 50 };
    float in[32 * BLOCKS], out[32 * BLOCKS];
    uint8_t blocks[34 * BLOCKS];
    const sp_block_format *format = sp_block_format_find("Q8_0");
    for (int64_t i = 0; i < 32 * BLOCKS; i++) in[i] = (float)sp_random_normal(7, 0, (uint64_t)i);
    format->write(blocks, in, BLOCKS);
    format->read(out, blocks, BLOCKS);
    for (int b = 0; b < BLOCKS; b++) {
        float largest = 0;
        for (int i = 0; i < 32; i++) largest = fmaxf(largest, fabsf(in[32 * b + i]));
        for (int i = 0; i < 32; i++)
            assert_true(fabsf(in[32 * b + i] - out[32 * b + i]) <= largest * (0.5f / 127 + 1e-3f));
    }
}

static void zeros_and_what_is_not_finite_give_defined_codes(void **state) {
    (void)state;
    float in[32] = {0}, out[32];
    uint8_t block[34];
    const sp_block_format *format = sp_block_format_find("Q8_0");
    format->write(block, in, 1);
    format->read(out, block, 1);
    for (int i = 0; i < 32; i++) assert_true(out[i] == 0);
    in[3] = NAN;
    in[4] = INFINITY;
    format->write(block, in, 1);
    assert_true((int8_t)block[2 + 3] >= -127);
}

static void single_numbers_come_back(void **state) {
    (void)state;
    static const char *const names[] = {"F32", "F16", "BF16"};
    float in[5] = {0, 1, -2.5f, 0.125f, 1024}, out[5];
    uint8_t bytes[1 + 5 * 4];
    for (int k = 0; k < 3; k++) { /* one byte off: files align nothing */
        sp_block_format_find(names[k])->write(bytes + 1, in, 5);
        sp_block_format_find(names[k])->read(out, bytes + 1, 5);
        assert_memory_equal(in, out, sizeof in);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_are_found_by_number_and_by_name),
        cmocka_unit_test(q4_0_holds_low_halves_then_high_ones),
        cmocka_unit_test(q8_0_rounds_halves_away_from_zero),
        cmocka_unit_test(q8_0_is_within_half_a_step),
        cmocka_unit_test(zeros_and_what_is_not_finite_give_defined_codes),
        cmocka_unit_test(single_numbers_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
