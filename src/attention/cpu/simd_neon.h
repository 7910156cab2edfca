/* The vector vocabulary of simd_scalar.h, which says what each name means, in the Advanced SIMD that every 64-bit Arm
 * has.  Loads and stores go by way of memcpy: the numbers may lie in memory of any type, which vld1 does not allow. */
#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

typedef float32x4_t v;
typedef uint32x4_t v_mask;

enum {
    V_WIDTH = 4,
    TILE_ROWS = 8, /* 8 x 3 accumulators, 3 vectors, 1 broadcast: 28 of the 32 registers */
    TILE_VECTORS = 3,
    LIVE_VECTORS = 8,
    LIVE_PERCENT = 40,
};

static inline v v_set(float x) { return vdupq_n_f32(x); }

static inline v v_load(const float *from) {
    v x;
    memcpy(&x, from, sizeof x);
    return x;
}

static inline void v_store(float *to, v x) { memcpy(to, &x, sizeof x); }

static inline v v_add(v a, v b) { return vaddq_f32(a, b); }
static inline v v_sub(v a, v b) { return vsubq_f32(a, b); }
static inline v v_mul(v a, v b) { return vmulq_f32(a, b); }
static inline v v_fma(v a, v b, v c) { return vfmaq_f32(c, a, b); }

static inline v_mask v_greater(v a, v b) { return vcgtq_f32(a, b); }
static inline v_mask v_at_most(v a, v b) { return vcleq_f32(a, b); }
static inline v v_select(v_mask mask, v yes, v no) { return vbslq_f32(mask, yes, no); }
static inline bool v_any(v_mask mask) { return vmaxvq_u32(mask) != 0; }
static inline uint32_t v_bits(v_mask mask) { return vaddvq_u32(vandq_u32(mask, (v_mask){1, 2, 4, 8})); }
/* Not vmaxq, which takes NaN from either side. */
static inline v v_max(v a, v b) { return v_select(v_greater(a, b), a, b); }

static inline v_mask v_lanes(int64_t first, int64_t end) {
    const int32x4_t lane = {0, 1, 2, 3};
    int32_t low = (int32_t)(first < 0 ? 0 : first > 4 ? 4 : first), high = (int32_t)(end < 0 ? 0 : end > 4 ? 4 : end);
    return vandq_u32(vcgeq_s32(lane, vdupq_n_s32(low)), vcltq_s32(lane, vdupq_n_s32(high)));
}

static inline v v_round(v x) { return vrndnq_f32(x); }

static inline v v_power(v n) {
    n = vminnmq_f32(vmaxnmq_f32(n, v_set(-127)), v_set(127));
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23));
}

static inline float v_sum(v x) { return vaddvq_f32(x); }
static inline v v_sums(const v *x) { return vpaddq_f32(vpaddq_f32(x[0], x[1]), vpaddq_f32(x[2], x[3])); }
static inline float v_highest(v x) { return vmaxnmvq_f32(x); }

static inline v v_load_bf16(const uint16_t *from) {
    uint16x4_t halves;
    memcpy(&halves, from, sizeof halves);
    return vreinterpretq_f32_u32(vshll_n_u16(halves, 16));
}

static inline void v_load_bf16_pair(const uint16_t *from, v *even, v *odd) {
    uint32x4_t bits;
    memcpy(&bits, from, sizeof bits);
    *even = vreinterpretq_f32_u32(vshlq_n_u32(bits, 16));
    *odd = vreinterpretq_f32_u32(vandq_u32(bits, vdupq_n_u32(0xffff0000)));
}

static inline void v_store_bf16(uint16_t *to, v x) {
    uint32x4_t bits = vreinterpretq_u32_f32(x), odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
    uint16x4_t halves = vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), rounded, quiet), 16);
    memcpy(to, &halves, sizeof halves);
}

static inline v v_load_f16(const uint16_t *from) {
    float16x4_t halves;
    memcpy(&halves, from, sizeof halves);
    return vcvt_f32_f16(halves);
}

static inline void v_store_f16(uint16_t *to, v x) {
    float16x4_t halves = vcvt_f16_f32(x);
    memcpy(to, &halves, sizeof halves);
}

static inline void v_transpose(float *to, int64_t to_stride, const float *from, int64_t from_stride) {
    v a = v_load(from), b = v_load(from + from_stride);
    v c = v_load(from + 2 * from_stride), d = v_load(from + 3 * from_stride);
    v ac_low = vzip1q_f32(a, c), ac_high = vzip2q_f32(a, c); /* a0 c0 a1 c1 and a2 c2 a3 c3 */
    v bd_low = vzip1q_f32(b, d), bd_high = vzip2q_f32(b, d);
    v_store(to, vzip1q_f32(ac_low, bd_low));
    v_store(to + to_stride, vzip2q_f32(ac_low, bd_low));
    v_store(to + 2 * to_stride, vzip1q_f32(ac_high, bd_high));
    v_store(to + 3 * to_stride, vzip2q_f32(ac_high, bd_high));
}
