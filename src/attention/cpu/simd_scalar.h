/* The vector vocabulary in plain C: four lanes of the compiler's generic vectors, which become whatever the target's
 * baseline has.  The same names, with more lanes, are in simd_avx2.h and simd_avx512.h.
 *
 * v is a vector of V_WIDTH floats, v_mask one truth per lane.  Loads and stores need no alignment.  All comparisons
 * with NaN are false, v_max(a, NaN) is NaN and v_max(NaN, b) is b. */
#include <stdint.h>
#include <string.h>

#include "formats/halves.h"

typedef float v __attribute__((vector_size(16)));
typedef int32_t v_mask __attribute__((vector_size(16)));

enum {
    V_WIDTH = 4,
    TILE_ROWS = 4, /* accumulators of a matrix product: TILE_ROWS x TILE_VECTORS registers */
    TILE_VECTORS = 2,
    LIVE_VECTORS = 8,  /* of a row held in registers while its live keys are added */
    LIVE_PERCENT = 40, /* of the numerators not 0: below, live keys one by one are faster than the product */
};

static inline v v_set(float x) { return (v){x, x, x, x}; }

static inline v v_load(const float *from) {
    v x;
    memcpy(&x, from, sizeof x);
    return x;
}

static inline void v_store(float *to, v x) { memcpy(to, &x, sizeof x); }

static inline v v_add(v a, v b) { return a + b; }
static inline v v_sub(v a, v b) { return a - b; }
static inline v v_mul(v a, v b) { return a * b; }
/* a * b + c */
static inline v v_fma(v a, v b, v c) { return a * b + c; }

static inline v_mask v_greater(v a, v b) { return (v_mask)(a > b); }
static inline v_mask v_at_most(v a, v b) { return (v_mask)(a <= b); }
/* yes where the mask is true, else no */
static inline v v_select(v_mask mask, v yes, v no) { return (v)((mask & (v_mask)yes) | (~mask & (v_mask)no)); }
static inline bool v_any(v_mask mask) { return mask[0] | mask[1] | mask[2] | mask[3]; }
/* Bit i is the truth of lane i. */
static inline uint32_t v_bits(v_mask mask) {
    v_mask bits = mask & (v_mask){1, 2, 4, 8};
    return (uint32_t)(bits[0] | bits[1] | bits[2] | bits[3]);
}
static inline v v_max(v a, v b) { return v_select(v_greater(a, b), a, b); }

/* True in the lanes [first, end); the bounds may lie outside the vector. */
static inline v_mask v_lanes(int64_t first, int64_t end) {
    v_mask lane = {0, 1, 2, 3}, low = lane * 0 + (int32_t)(first < 0 ? 0 : first > 4 ? 4 : first);
    v_mask high = lane * 0 + (int32_t)(end < 0 ? 0 : end > 4 ? 4 : end);
    return (v_mask)(lane >= low) & (v_mask)(lane < high);
}

/* The nearest integer; beyond 2^22 some value near x. */
static inline v v_round(v x) {
    const v magic = v_set(0x1.8p23f);
    return (x + magic) - magic;
}

/* 2^n for integers n <= 127; 0, or the denormal number, below -126. */
static inline v v_power(v n) {
    n = v_max(n, v_set(-127));
    n = v_select(v_greater(n, v_set(127)), v_set(127), n);
    return (v)((__builtin_convertvector(n, v_mask) + 127) << 23);
}

static inline float v_sum(v x) { return (x[0] + x[1]) + (x[2] + x[3]); }
/* Lane i is the sum of x[i]'s lanes, for x of V_WIDTH vectors. */
static inline v v_sums(const v *x) { return (v){v_sum(x[0]), v_sum(x[1]), v_sum(x[2]), v_sum(x[3])}; }
static inline float v_highest(v x) {
    float a = x[0] > x[1] ? x[0] : x[1], b = x[2] > x[3] ? x[2] : x[3];
    return a > b ? a : b;
}

/* By way of memcpy: the 16 bits may lie in memory of any type. */
static inline v v_load_bf16(const uint16_t *from) {
    uint16_t x[V_WIDTH];
    memcpy(x, from, sizeof x);
    return (v){sp_bf16_to_f32(x[0]), sp_bf16_to_f32(x[1]), sp_bf16_to_f32(x[2]), sp_bf16_to_f32(x[3])};
}

/* The same of 2 V_WIDTH numbers: those in even and those in odd places. */
static inline void v_load_bf16_pair(const uint16_t *from, v *even, v *odd) {
    uint16_t x[2 * V_WIDTH];
    memcpy(x, from, sizeof x);
    *even = (v){sp_bf16_to_f32(x[0]), sp_bf16_to_f32(x[2]), sp_bf16_to_f32(x[4]), sp_bf16_to_f32(x[6])};
    *odd = (v){sp_bf16_to_f32(x[1]), sp_bf16_to_f32(x[3]), sp_bf16_to_f32(x[5]), sp_bf16_to_f32(x[7])};
}

static inline void v_store_bf16(uint16_t *to, v x) {
    uint16_t halves[V_WIDTH];
    for (int i = 0; i < V_WIDTH; i++) halves[i] = sp_bf16_from_f32(x[i]);
    memcpy(to, halves, sizeof halves);
}

static inline v v_load_f16(const uint16_t *from) {
    uint16_t x[V_WIDTH];
    memcpy(x, from, sizeof x);
    return (v){sp_f16_to_f32(x[0]), sp_f16_to_f32(x[1]), sp_f16_to_f32(x[2]), sp_f16_to_f32(x[3])};
}

static inline void v_store_f16(uint16_t *to, v x) {
    uint16_t halves[V_WIDTH];
    for (int i = 0; i < V_WIDTH; i++) halves[i] = sp_f16_from_f32(x[i]);
    memcpy(to, halves, sizeof halves);
}

/* to[j * to_stride + i] = from[i * from_stride + j] for a square of V_WIDTH. */
static inline void v_transpose(float *to, int64_t to_stride, const float *from, int64_t from_stride) {
    for (int j = 0; j < V_WIDTH; j++)
        v_store(to + j * to_stride,
                (v){from[j], from[from_stride + j], from[2 * from_stride + j], from[3 * from_stride + j]});
}
