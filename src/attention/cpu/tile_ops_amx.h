/* The instructions of AMX that products of bf16 need, each named once.  A tile register holds 16 rows of 64 bytes;
 * its number is a literal.  The clobber keeps memory accesses on their side: compilers' own intrinsics do not all say
 * that a tile load reads memory.  tests/tiles_emulated.h defines the same names in plain C. */
#include <stdint.h>

/* All 8 tiles whole: 16 rows of 64 bytes. */
static inline void tile_configure(void) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < 8; i++) config.row_bytes[i] = 64, config.rows[i] = 16;
    __asm__ volatile("ldtilecfg %0" : : "m"(config) : "memory");
}

static inline void tile_release(void) { __asm__ volatile("tilerelease" : : : "memory"); }

#define TILE_LOAD(tile, from)                                                                                          \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile : : "r"((const void *)(from)), "r"((int64_t)64) : "memory")
/* The same of what is not soon read again: it leaves the first-level cache to others. */
#define TILE_LOAD_ONCE(tile, from)                                                                                     \
    __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm" #tile : : "r"((const void *)(from)), "r"((int64_t)64) : "memory")
#define TILE_STORE(to, tile)                                                                                           \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"((void *)(to)), "r"((int64_t)64) : "memory")
#define TILE_ZERO(tile) __asm__ volatile("tilezero %%tmm" #tile : : : "memory")
/* c (16,16) f32 += a (16,32) b (16 pairs,16,2) bf16 */
#define TILE_DOT(c, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c : : : "memory")
