/* The names of src/attention/cpu/tile_ops_amx.h in plain C, so that code for AMX tiles can be tested on any machine:
 * what the instructions do, apart from their treatment of numbers too small for a normal float. */
#ifndef SP_TESTS_TILES_EMULATED_H
#define SP_TESTS_TILES_EMULATED_H

#include <stdint.h>
#include <string.h>

#include "formats/halves.h"

static _Thread_local unsigned char emulated_tiles[8][16 * 64];
static _Thread_local int emulated_configured; /* tiles are used between configuration and release alone */

static inline void tile_configure(void) { emulated_configured++; }
static inline void tile_release(void) { emulated_configured--; }

static inline unsigned char *emulated_tile(int tile) {
    if (emulated_configured != 1) __builtin_trap();
    return emulated_tiles[tile];
}

static inline void emulated_dot(float *c, const uint16_t *a, const uint16_t *b) {
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 16; n++)
            for (int pair = 0; pair < 16; pair++) {
                float even = sp_bf16_to_f32(a[m * 32 + 2 * pair]) * sp_bf16_to_f32(b[pair * 32 + 2 * n]);
                float odd = sp_bf16_to_f32(a[m * 32 + 2 * pair + 1]) * sp_bf16_to_f32(b[pair * 32 + 2 * n + 1]);
                c[m * 16 + n] += even + odd;
            }
}

#define TILE_LOAD(tile, from)      ((void)memcpy(emulated_tile(tile), (const void *)(from), 1024))
#define TILE_LOAD_ONCE(tile, from) TILE_LOAD(tile, from)
#define TILE_STORE(to, tile)       ((void)memcpy((void *)(to), emulated_tile(tile), 1024))
#define TILE_ZERO(tile)            ((void)memset(emulated_tile(tile), 0, 1024))
#define TILE_DOT(tile, rows, pairs)                                                                                    \
    emulated_dot((float *)(void *)emulated_tile(tile), (const uint16_t *)(const void *)emulated_tile(rows),            \
                 (const uint16_t *)(const void *)emulated_tile(pairs))

#endif
