/* The product of tiles.h by AVX512_BF16's dot products of pairs, VDPBF16PS: 8 rows x 2 tiles of columns in registers.
 * `between` is never called: the processor itself finds the work that can overlap. */
#include <immintrin.h>

#include "attention/cpu/tiles.h"

enum { DOT_ROWS = 8, DOT_COLUMNS = 2 };

static inline void tiles_open(void) {}
static inline void tiles_close(void) {}

ALWAYS_INLINE __m512 dot_add(__m512 sum, __m512i a, __m512i b) {
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

/* Rows of one tile of a and one of b. */
ALWAYS_INLINE void dot_tile(__m512 sum[DOT_ROWS][DOT_COLUMNS], const uint16_t *a, const uint16_t *b, int64_t b_outer,
                            const int columns) {
    for (int64_t pair = 0; pair < 16; pair++) {
        __m512i right[DOT_COLUMNS];
#pragma GCC unroll 2
        for (int j = 0; j < columns; j++) right[j] = _mm512_loadu_si512(b + j * b_outer + pair * 32);
#pragma GCC unroll 8
        for (int i = 0; i < DOT_ROWS; i++) {
            int32_t left;
            memcpy(&left, a + i * 32 + pair * 2, sizeof left);
#pragma GCC unroll 2
            for (int j = 0; j < columns; j++) sum[i][j] = dot_add(sum[i][j], _mm512_set1_epi32(left), right[j]);
        }
    }
}

/* DOT_ROWS rows of `columns` tiles of c. */
ALWAYS_INLINE void dot_block(float *c, const uint16_t *a, int64_t a_inner, const uint16_t *b, int64_t b_outer,
                             int64_t b_inner, uint32_t live, const bool add, const int columns) {
    __m512 sum[DOT_ROWS][DOT_COLUMNS];
#pragma GCC unroll 8
    for (int i = 0; i < DOT_ROWS; i++)
#pragma GCC unroll 2
        for (int j = 0; j < columns; j++)
            sum[i][j] = add ? _mm512_loadu_ps(c + j * TILE_FLOATS + i * 16) : _mm512_setzero_ps();
    for (; live; live &= live - 1) {
        int64_t x = __builtin_ctz(live);
        dot_tile(sum, a + x * a_inner, b + x * b_inner, b_outer, columns);
    }
#pragma GCC unroll 8
    for (int i = 0; i < DOT_ROWS; i++)
#pragma GCC unroll 2
        for (int j = 0; j < columns; j++) _mm512_storeu_ps(c + j * TILE_FLOATS + i * 16, sum[i][j]);
}

ALWAYS_INLINE void tiles_product(float *c, int64_t c_row, tile_operand a, tile_operand b, int64_t m, int64_t n,
                                 int64_t k, const bool add, const uint32_t *live, tile_between between, void *state) {
    const uint32_t all = (uint32_t)((UINT64_C(1) << k) - 1);
    (void)between, (void)state;
    for (int64_t j = 0; j < n; j += DOT_COLUMNS)
        for (int64_t i = 0; i < m; i++) {
            uint32_t tiles = live ? live[i] & all : all;
            if (!tiles) continue;
            const uint16_t *columns = b.first + j * b.outer;
            for (int64_t row = 0; row < 16; row += DOT_ROWS) {
                float *to = c + i * c_row + j * TILE_FLOATS + row * 16;
                const uint16_t *rows = a.first + i * a.outer + row * 32;
                if (n - j >= DOT_COLUMNS)
                    dot_block(to, rows, a.inner, columns, b.outer, b.inner, tiles, add, DOT_COLUMNS);
                else
                    dot_block(to, rows, a.inner, columns, b.outer, b.inner, tiles, add, 1);
            }
        }
}
