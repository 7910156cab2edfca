/* The vector vocabulary of simd_scalar.h, which says what each name means, in AVX2 with FMA and F16C. */
#include <immintrin.h>
#include <stdint.h>

typedef __m256 v;
typedef __m256 v_mask;

enum {
    V_WIDTH = 8,
    TILE_ROWS = 4, /* 4 x 3 accumulators, 3 vectors, 1 broadcast: the 16 registers */
    TILE_VECTORS = 3,
    LIVE_VECTORS = 8,
    LIVE_PERCENT = 40,
};

static inline v v_set(float x) { return _mm256_set1_ps(x); }
static inline v v_load(const float *from) { return _mm256_loadu_ps(from); }
static inline void v_store(float *to, v x) { _mm256_storeu_ps(to, x); }
static inline v v_add(v a, v b) { return _mm256_add_ps(a, b); }
static inline v v_sub(v a, v b) { return _mm256_sub_ps(a, b); }
static inline v v_mul(v a, v b) { return _mm256_mul_ps(a, b); }
static inline v v_fma(v a, v b, v c) { return _mm256_fmadd_ps(a, b, c); }
static inline v v_max(v a, v b) { return _mm256_max_ps(a, b); }

static inline v_mask v_greater(v a, v b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
static inline v_mask v_at_most(v a, v b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
static inline v v_select(v_mask mask, v yes, v no) { return _mm256_blendv_ps(no, yes, mask); }
static inline bool v_any(v_mask mask) { return _mm256_movemask_ps(mask) != 0; }
static inline uint32_t v_bits(v_mask mask) { return (uint32_t)_mm256_movemask_ps(mask); }

static inline v_mask v_lanes(int64_t first, int64_t end) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    int low = (int)(first < 0 ? 0 : first > 8 ? 8 : first), high = (int)(end < 0 ? 0 : end > 8 ? 8 : end);
    __m256i at_least = _mm256_cmpgt_epi32(lane, _mm256_set1_epi32(low - 1));
    return _mm256_castsi256_ps(_mm256_and_si256(at_least, _mm256_cmpgt_epi32(_mm256_set1_epi32(high), lane)));
}

static inline v v_round(v x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

static inline v v_power(v n) {
    n = _mm256_min_ps(_mm256_max_ps(n, v_set(-127)), v_set(127));
    __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}

static inline float v_sum(v x) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline v v_sums(const v *x) {
    __m256 low = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
    __m256 high = _mm256_hadd_ps(_mm256_hadd_ps(x[4], x[5]), _mm256_hadd_ps(x[6], x[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
}

static inline float v_highest(v x) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

static inline v v_load_bf16(const uint16_t *from) {
    __m128i halves = _mm_loadu_si128((const __m128i *)(const void *)from);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

static inline void v_load_bf16_pair(const uint16_t *from, v *even, v *odd) {
    __m256i bits = _mm256_loadu_si256((const __m256i *)(const void *)from);
    *even = _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
    *odd = _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(-0x10000)));
}

static inline void v_store_bf16(uint16_t *to, v x) {
    __m256i bits = _mm256_castps_si256(x), high = _mm256_srli_epi32(bits, 16);
    __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    rounded = _mm256_blendv_epi8(_mm256_srli_epi32(rounded, 16), quiet, nan);
    __m128i low = _mm256_castsi256_si128(rounded), upper = _mm256_extracti128_si256(rounded, 1);
    _mm_storeu_si128((__m128i *)(void *)to, _mm_packus_epi32(low, upper));
}

static inline v v_load_f16(const uint16_t *from) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)from));
}

static inline void v_store_f16(uint16_t *to, v x) {
    _mm_storeu_si128((__m128i *)(void *)to, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

static inline void v_transpose(float *to, int64_t to_stride, const float *from, int64_t from_stride) {
    __m256 pairs[8], quads[8]; /* columns of 2, then of 4 rows, in each half */
    for (int i = 0; i < 8; i += 2) {
        __m256 even = v_load(from + i * from_stride), odd = v_load(from + (i + 1) * from_stride);
        pairs[i] = _mm256_unpacklo_ps(even, odd);
        pairs[i + 1] = _mm256_unpackhi_ps(even, odd);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            quads[i + 2 * j] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0x44);
            quads[i + 2 * j + 1] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0xee);
        }
    for (int i = 0; i < 4; i++) {
        v_store(to + i * to_stride, _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x20));
        v_store(to + (i + 4) * to_stride, _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x31));
    }
}
