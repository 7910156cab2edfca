/* The two 16-bit floats, one number at a time.  Rounding is to nearest, ties to even.  Rows of them: sp_convert in
 * layers. */
#ifndef SP_FORMATS_HALVES_H
#define SP_FORMATS_HALVES_H

#include <stdint.h>
#include <string.h>

static inline uint32_t sp_f32_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float sp_f32_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float sp_bf16_to_f32(uint16_t half) { return sp_f32_from_bits((uint32_t)half << 16); }

static inline uint16_t sp_bf16_from_f32(float value) {
    uint32_t bits = sp_f32_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u); /* NaN stays NaN */
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static inline float sp_f16_to_f32(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = half >> 10 & 31u, fraction = half & 0x3ffu;
    if (exponent == 31) return sp_f32_from_bits(sign | 0x7f800000u | fraction << 13);
    if (exponent == 0) return sp_f32_from_bits(sign | sp_f32_bits((float)fraction * 0x1p-24f));
    return sp_f32_from_bits(sign | (exponent + 112u) << 23 | fraction << 13);
}

static inline uint16_t sp_f16_from_f32(float value) {
    uint32_t bits = sp_f32_bits(value), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (size >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and more round to infinity */
    /* Below 2^-14 the last bit is worth 2^-24, as it is in floats of [0.5,1): the addition rounds. */
    if (size < 0x38800000u) return (uint16_t)(sign | (sp_f32_bits(sp_f32_from_bits(size) + 0.5f) - 0x3f000000u));
    return (uint16_t)(sign | (size + 0xfffu + (size >> 13 & 1u) - 0x38000000u) >> 13);
}

#endif
