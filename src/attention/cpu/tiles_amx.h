/* The product of tiles.h by AMX tile registers.
 *
 * Two tiles of c, one above the other, are summed while the two before them wait to be stored: a store of a tile that
 * the next product needs would hold it up, so the stores are placed behind the first steps of the next pair.
 * Tiles 0,1 and 2,3 take turns as sums; 4,5 hold a, 6 holds b. */
#include "attention/cpu/tiles.h"

static inline void tiles_open(void) { tile_configure(); }
static inline void tiles_close(void) { tile_release(); }

/* Two tiles of c: those of rows i and i + 1. */
typedef struct tile_sums {
    float *upper, *lower;
} tile_sums;

ALWAYS_INLINE void sums_begin(const int turn, const tile_sums *sums, const bool add) {
    if (add) {
        if (turn)
            TILE_LOAD(2, sums->upper);
        else
            TILE_LOAD(0, sums->upper);
        if (turn)
            TILE_LOAD(3, sums->lower);
        else
            TILE_LOAD(1, sums->lower);
    } else {
        if (turn)
            TILE_ZERO(2);
        else
            TILE_ZERO(0);
        if (turn)
            TILE_ZERO(3);
        else
            TILE_ZERO(1);
    }
}

ALWAYS_INLINE void store_upper(const int turn, const tile_sums *sums) {
    if (turn)
        TILE_STORE(sums->upper, 2);
    else
        TILE_STORE(sums->upper, 0);
}

ALWAYS_INLINE void store_lower(const int turn, const tile_sums *sums) {
    if (turn)
        TILE_STORE(sums->lower, 3);
    else
        TILE_STORE(sums->lower, 1);
}

ALWAYS_INLINE void sums_add(const int turn, const uint16_t *upper, const uint16_t *lower, const uint16_t *b,
                            const bool upper_live, const bool lower_live) {
    TILE_LOAD_ONCE(6, b);
    if (upper_live) {
        TILE_LOAD(4, upper);
        if (turn)
            TILE_DOT(2, 4, 6);
        else
            TILE_DOT(0, 4, 6);
    }
    if (lower_live) {
        TILE_LOAD(5, lower);
        if (turn)
            TILE_DOT(3, 5, 6);
        else
            TILE_DOT(1, 5, 6);
    }
}

/* One pair of tiles over k; `old` (none: upper NULL) is stored on the way. */
ALWAYS_INLINE void sums_run(const int turn, const tile_sums *sums, const tile_sums *old, const uint16_t *a,
                            int64_t a_outer, int64_t a_inner, const uint16_t *b, int64_t b_inner, uint32_t upper,
                            uint32_t lower, const bool add, tile_between between, void *state) {
    uint32_t left = upper | lower;
    sums_begin(turn, sums, add);
    for (int step = 0; left; step++, left &= left - 1) {
        int64_t x = __builtin_ctz(left);
        const uint16_t *first = a + x * a_inner;
        sums_add(turn, first, first + a_outer, b + x * b_inner, upper >> x & 1, lower >> x & 1);
        bool last = (left & (left - 1)) == 0;
        if (old->upper && (step == 1 || (step == 0 && last))) store_upper(!turn, old);
        if (old->upper && (step == 2 || (step < 2 && last))) store_lower(!turn, old);
        between(state);
    }
}

ALWAYS_INLINE void tiles_product(float *c, int64_t c_row, tile_operand a, tile_operand b, int64_t m, int64_t n,
                                 int64_t k, const bool add, const uint32_t *live, tile_between between, void *state) {
    const uint32_t all = (uint32_t)((UINT64_C(1) << k) - 1);
    tile_sums old = {NULL, NULL};
    int turn = 0;
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < m; i += 2) {
            uint32_t upper = live ? live[i] & all : all, lower = live ? live[i + 1] & all : all;
            if (!(upper | lower)) continue;
            float *at = c + i * c_row + j * TILE_FLOATS;
            const tile_sums sums = {at, at + c_row};
            const uint16_t *rows = a.first + i * a.outer, *columns = b.first + j * b.outer;
            if (turn)
                sums_run(1, &sums, &old, rows, a.outer, a.inner, columns, b.inner, upper, lower, add, between, state);
            else
                sums_run(0, &sums, &old, rows, a.outer, a.inner, columns, b.inner, upper, lower, add, between, state);
            old = sums;
            turn = !turn;
        }
    if (!old.upper) return;
    if (turn)
        store_upper(0, &old), store_lower(0, &old);
    else
        store_upper(1, &old), store_lower(1, &old);
}
