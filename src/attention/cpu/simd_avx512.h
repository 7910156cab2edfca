/* The vector vocabulary of simd_scalar.h, which says what each name means, in AVX-512 (F, BW, DQ, VL). */
#include <immintrin.h>
#include <stdint.h>

typedef __m512 v;
typedef __mmask16 v_mask;

enum {
    V_WIDTH = 16,
    TILE_ROWS = 8, /* 8 x 2 accumulators: 16 chains keep two FMA units of latency 4 busy */
    TILE_VECTORS = 2,
    LIVE_VECTORS = 8,  /* of a row held in registers while its live keys are added */
    LIVE_PERCENT = 35, /* of the numerators not 0: below, live keys one by one are faster than the product */
};

static inline v v_set(float x) { return _mm512_set1_ps(x); }
static inline v v_load(const float *from) { return _mm512_loadu_ps(from); }
static inline void v_store(float *to, v x) { _mm512_storeu_ps(to, x); }
static inline v v_add(v a, v b) { return _mm512_add_ps(a, b); }
static inline v v_sub(v a, v b) { return _mm512_sub_ps(a, b); }
static inline v v_mul(v a, v b) { return _mm512_mul_ps(a, b); }
static inline v v_fma(v a, v b, v c) { return _mm512_fmadd_ps(a, b, c); }
static inline v v_max(v a, v b) { return _mm512_max_ps(a, b); }

static inline v_mask v_greater(v a, v b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
static inline v_mask v_at_most(v a, v b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
static inline v v_select(v_mask mask, v yes, v no) { return _mm512_mask_blend_ps(mask, no, yes); }
static inline bool v_any(v_mask mask) { return mask != 0; }
static inline uint32_t v_bits(v_mask mask) { return mask; }

static inline v_mask v_lanes(int64_t first, int64_t end) {
    uint32_t low = (uint32_t)(first < 0    ? 0
                              : first > 16 ? 16
                                           : first),
             high = (uint32_t)(end < 0    ? 0
                               : end > 16 ? 16
                                          : end);
    return (v_mask)(((1u << high) - 1) & ~((1u << low) - 1));
}

static inline v v_round(v x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline v v_power(v n) { return _mm512_scalef_ps(v_set(1), n); }

static inline float v_sum(v x) { return _mm512_reduce_add_ps(x); }
/* Halves, quarters, pairs and lanes in turn: at each step two vectors become one that holds the sums of both. */
static inline v v_sums(const v *x) {
    static const int place[16] = {0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15};
    __m512 halves[8], quarters[4], pairs[2];
    for (int i = 0; i < 8; i++) {
        __m512 a = x[place[i]], b = x[place[i + 8]];
        halves[i] = _mm512_add_ps(_mm512_mask_blend_ps(0xff00, a, b), _mm512_shuffle_f32x4(a, b, 0x4e));
    }
    for (int i = 0; i < 4; i++)
        quarters[i] = _mm512_add_ps(_mm512_shuffle_f32x4(halves[i], halves[i + 4], 0x88),
                                    _mm512_shuffle_f32x4(halves[i], halves[i + 4], 0xdd));
    for (int i = 0; i < 2; i++)
        pairs[i] = _mm512_add_ps(_mm512_mask_blend_ps(0xcccc, quarters[i], quarters[i + 2]),
                                 _mm512_shuffle_ps(quarters[i], quarters[i + 2], 0x4e));
    return _mm512_add_ps(_mm512_shuffle_ps(pairs[0], pairs[1], 0x88), _mm512_shuffle_ps(pairs[0], pairs[1], 0xdd));
}

static inline float v_highest(v x) { return _mm512_reduce_max_ps(x); }

static inline v v_load_bf16(const uint16_t *from) {
    __m256i halves = _mm256_loadu_si256((const __m256i *)(const void *)from);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

static inline void v_load_bf16_pair(const uint16_t *from, v *even, v *odd) {
    __m512i bits = _mm512_loadu_si512(from);
    *even = _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
    *odd = _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(-0x10000)));
}

static inline void v_store_bf16(uint16_t *to, v x) {
    __m512i bits = _mm512_castps_si512(x), high = _mm512_srli_epi32(bits, 16);
    __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    rounded = _mm512_mask_or_epi32(_mm512_srli_epi32(rounded, 16), nan, high, _mm512_set1_epi32(0x40));
    _mm256_storeu_si256((__m256i *)(void *)to, _mm512_cvtepi32_epi16(rounded));
}

static inline v v_load_f16(const uint16_t *from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)from));
}

static inline void v_store_f16(uint16_t *to, v x) {
    _mm256_storeu_si256((__m256i *)(void *)to, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

static inline v quarters(v a, v b, const int odd) {
    return odd ? _mm512_shuffle_f32x4(a, b, 0xdd) : _mm512_shuffle_f32x4(a, b, 0x88);
}

static inline void v_transpose(float *to, int64_t to_stride, const float *from, int64_t from_stride) {
    __m512 pairs[16], quads[16]; /* columns of 2, then of 4 rows, in each quarter */
    for (int i = 0; i < 16; i += 2) {
        __m512 even = v_load(from + i * from_stride), odd = v_load(from + (i + 1) * from_stride);
        pairs[i] = _mm512_unpacklo_ps(even, odd);
        pairs[i + 1] = _mm512_unpackhi_ps(even, odd);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            quads[i + 2 * j] = _mm512_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0x44);
            quads[i + 2 * j + 1] = _mm512_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0xee);
        }
    for (int i = 0; i < 4; i++) { /* quarter L of quads[i], quads[i+4], ... is column 4 L + i */
        v even_low = quarters(quads[i], quads[i + 4], 0), even_high = quarters(quads[i + 8], quads[i + 12], 0);
        v odd_low = quarters(quads[i], quads[i + 4], 1), odd_high = quarters(quads[i + 8], quads[i + 12], 1);
        v_store(to + i * to_stride, quarters(even_low, even_high, 0));
        v_store(to + (i + 4) * to_stride, quarters(odd_low, odd_high, 0));
        v_store(to + (i + 8) * to_stride, quarters(even_low, even_high, 1));
        v_store(to + (i + 12) * to_stride, quarters(odd_low, odd_high, 1));
    }
}
