/* The 16-bit floats: every value there and back, and rounding against its definition. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "base/random.h"
#include "formats/halves.h"

static void every_half_comes_back(void **state) {
    (void)state;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        uint16_t half = (uint16_t)bits;
        float wide = sp_bf16_to_f32(half), narrow = sp_f16_to_f32(half);
        if (isnan(wide))
            assert_true(isnan(sp_bf16_to_f32(sp_bf16_from_f32(wide))));
        else
            assert_int_equal(sp_bf16_from_f32(wide), half);
        if (isnan(narrow))
            assert_true(isnan(sp_f16_to_f32(sp_f16_from_f32(narrow))));
        else
            assert_int_equal(sp_f16_from_f32(narrow), half);
    }
}

/* No neighbour is nearer; of two that are as near, the even one is taken. */
static void check_nearest(float value, uint16_t (*from)(float), float (*to)(uint16_t)) {
    uint16_t half = from(value);
    double error = fabs((double)to(half) - (double)value);
    for (int step = -1; step <= 1; step += 2) {
        double other = fabs((double)to((uint16_t)(half + step)) - (double)value);
        assert_true(isnan(other) || error < other || (error == other && half % 2 == 0));
    }
}

static void rounding_is_to_nearest_even(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 20000; i++) {
        float value = (float)ldexp(sp_random_uniform(1, 2, i) + 0.5, (int)(i % 38) - 24);
        check_nearest(value, sp_f16_from_f32, sp_f16_to_f32);
        check_nearest(value, sp_bf16_from_f32, sp_bf16_to_f32);
    }
    for (uint32_t i = 1; i < 0x7bff; i += 7) { /* halfway between two neighbours */
        float middle = 0.5f * (sp_f16_to_f32((uint16_t)i) + sp_f16_to_f32((uint16_t)(i + 1)));
        check_nearest(middle, sp_f16_from_f32, sp_f16_to_f32);
    }
    assert_int_equal(sp_f16_from_f32(65519), 0x7bff);
    assert_int_equal(sp_f16_from_f32(65520), 0x7c00);
    assert_int_equal(sp_f16_from_f32(-1e30f), 0xfc00);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_comes_back),
        cmocka_unit_test(rounding_is_to_nearest_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
