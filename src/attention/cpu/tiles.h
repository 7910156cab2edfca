/* Matrix products over packed bf16: the layouts, and the one product that tiles_amx.h and tiles_dot.h each offer.
 *
 *   a   "rows"   tiles of 16 rows x 32 numbers                    what a row is contracted over runs along the tile
 *   b   "pairs"  tiles of 16 pairs x 16 columns x 2 numbers       pair p holds numbers 2p and 2p+1 of each column
 *   c   f32      tiles of 16 rows x 16 columns
 *
 *   tiles_open(), tiles_close()    around the work of a thread
 *   tiles_product(c, c_row, a, b, m, n, k, add, live, between, state)
 *       c (m,n) = or += a (m,k) b (k,n), all counted in tiles, m even.
 *       Tile (i,j) of c lies at c + i*c_row + j*TILE_FLOATS; tile (i,x) of a at a.first + i*a.outer + x*a.inner; tile (x,j)
 *       of b at b.first + j*b.outer + x*b.inner.
 *       live: bit x of live[i] is 0 where tile (i,x) of a holds zeros alone and is passed over; NULL: none does.  With `add`
 *       alone; k <= 32.
 *       between: may be called, with `state`, any number of times while products are under way: a place for other work
 *       that touches none of a, b, c. */
#ifndef SP_ATTENTION_TILES_H
#define SP_ATTENTION_TILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum { TILE_ROWS_16 = 16, TILE_HALVES = 512, TILE_FLOATS = 256 };

typedef struct tile_operand {
    const uint16_t *first;
    int64_t outer, inner; /* numbers from a tile to the next: along m or n, and along k */
} tile_operand;

typedef void (*tile_between)(void *state);

ALWAYS_INLINE void nothing_between(void *state) { (void)state; }

#endif
