/* What the tests of layers share: reproducible numbers, rounding written a second time, comparisons. */
#ifndef SP_TEST_LAYERS_H
#define SP_TEST_LAYERS_H

#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "layers/layers.h"

/* A function of the CPU's table that must succeed. */
#define CPU(function, ...) assert_int_equal(sp_layers_cpu.function(sp_device_host(), __VA_ARGS__), SP_OK)

/* Round to nearest even by arithmetic instead of bits: 8 significant bits. */
static inline double round_to_bf16(double value) {
    if (value == 0.0 || !isfinite(value)) return value;
    int exponent;
    double fraction = frexp(value, &exponent);
    return ldexp(nearbyint(ldexp(fraction, 8)), exponent - 8);
}

static inline double number_at(const void *data, sp_dtype dtype, int64_t i) {
    if (dtype == SP_DTYPE_F32) return ((const float *)data)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)data)[i] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline void number_set(void *data, sp_dtype dtype, int64_t i, double value) {
    float narrow = (float)(dtype == SP_DTYPE_F32 ? value : round_to_bf16((double)(float)value));
    if (dtype == SP_DTYPE_F32) {
        ((float *)data)[i] = narrow;
        return;
    }
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    ((uint16_t *)data)[i] = (uint16_t)(bits >> 16);
}

static inline void *numbers(sp_dtype dtype, int64_t n) {
    void *data = malloc((size_t)(n + 1) * (size_t)sp_dtype_bytes(dtype));
    assert_non_null(data);
    memset(data, 0xff, (size_t)(n + 1) * (size_t)sp_dtype_bytes(dtype)); /* NaN in every dtype */
    return data;
}

static inline void *random_numbers(sp_dtype dtype, int64_t n, uint64_t stream, double scale) {
    void *data = numbers(dtype, n);
    for (int64_t i = 0; i < n; i++) number_set(data, dtype, i, scale * sp_random_normal(1, stream, (uint64_t)i));
    return data;
}

/* The number behind the last one is still the NaN that numbers() wrote. */
static inline void assert_end_untouched(const void *data, sp_dtype dtype, int64_t n) {
    assert_true(isnan(number_at(data, dtype, n)));
}

/* |actual - expected| <= bound * (scale + |expected|), printed when not. */
static inline void assert_near(double actual, double expected, double bound, double scale, const char *what,
                               int64_t i) {
    if (fabs(actual - expected) <= bound * (scale + fabs(expected))) return;
    print_error("%s[%lld]: %.9g, expected %.9g\n", what, (long long)i, actual, expected);
    fail();
}

/* Half a unit in the last place, relative, of a result stored in this dtype; f32 with room for `terms`
 * roundings. */
static inline double bound_of(sp_dtype dtype, double terms) {
    return dtype == SP_DTYPE_BF16 ? 0x1p-8 : terms * 0x1p-24;
}

#endif
