/* Stored numbers are rounded to the nearest, ties to even, by every variant: two keys of equal weight give the mean of
 * their values, which for neighbouring 16-bit numbers is a tie. */
#define _GNU_SOURCE /* setenv */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "attention/select.h"
#include "attention_case.h"

enum { WIDTH = 128 };

static float widened(sp_dtype dtype, uint16_t bits) {
    return dtype == SP_DTYPE_BF16 ? sp_bf16_to_f32(bits) : sp_f16_to_f32(bits);
}

static uint16_t narrowed(sp_dtype dtype, float x) {
    return dtype == SP_DTYPE_BF16 ? sp_bf16_from_f32(x) : sp_f16_from_f32(x);
}

/* Neighbours whose lower has the bits first, first + 1, ...: one query with scores of 0, softmax. */
static void check_neighbours(const char *row, sp_dtype dtype, uint16_t first) {
    attention_shape shape = {
        .B = 1, .T = 1, .S = 2, .H = 1, .Hkv = 1, .D = 16, .Dv = WIDTH, .dtype = dtype, .seed = 1, .eps = 0};
    attention_case c;
    const char *name;
    shape.normalizer = SP_NORMALIZER_SOFTMAX;
    case_open(&c, &shape);
    for (int64_t d = 0; d < shape.D; d++) case_store(&c.problem.q, 0, 0, 0, d, 0);
    uint16_t *low = (uint16_t *)(void *)sp_problem_row(&c.problem.v, 0, 0, 0);
    uint16_t *high = (uint16_t *)(void *)sp_problem_row(&c.problem.v, 0, 1, 0);
    const uint16_t *out = (const uint16_t *)(void *)sp_problem_row(&c.problem.out, 0, 0, 0);
    for (int i = 0; i < WIDTH; i++) {
        low[i] = (uint16_t)(first + i);
        high[i] = (uint16_t)(first + i + 1);
    }
    if (sp_attention_choose(&c.problem, SP_ATTENTION_FORWARD, &name) == SP_OK) {
        assert_int_equal(case_run(&c, SP_ATTENTION_FORWARD, 1), SP_OK);
        for (int i = 0; i < WIDTH; i++) {
            uint16_t wanted = narrowed(dtype, (widened(dtype, low[i]) + widened(dtype, high[i])) / 2);
            if (out[i] != wanted)
                fail_msg("%s: the mean of %04x and %04x is stored as %04x, not %04x", row, (unsigned)low[i],
                         (unsigned)high[i], (unsigned)out[i], (unsigned)wanted);
        }
    }
    case_close(&c);
}

static void means_of_neighbours_round_to_even(void **state) {
    (void)state;
    for (int i = 0; i < sp_attention_table.n_rows; i++) {
        const char *row = sp_variant_at(&sp_attention_table, i)->name;
        setenv("SP_ATTENTION", row, 1);
        for (int sign = 0; sign <= 0x8000; sign += 0x8000) {
            for (int bits = 0x0800; bits + WIDTH < 0x7800; bits += 7 * WIDTH) /* bf16, from 2^-111 to 2^113 */
                check_neighbours(row, SP_DTYPE_BF16, (uint16_t)(sign + bits));
            for (int bits = 0; bits + WIDTH < 0x7c00; bits += 7 * WIDTH) /* f16: all that is finite */
                check_neighbours(row, SP_DTYPE_F16, (uint16_t)(sign + bits));
        }
        unsetenv("SP_ATTENTION");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(means_of_neighbours_round_to_even)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
