/* Aligned memory, and sizes that refuse to overflow. */
#include "base/memory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

sp_status sp_allocate(void **out, int64_t bytes, const char *what) {
    *out = NULL;
    int64_t rounded;
    if (bytes < 0 || !sp_add_sizes(bytes, SP_ALIGNMENT, &rounded))
        return sp_fail(SP_OUT_OF_MEMORY, "%s: a size of %" PRId64 " bytes is out of range", what, bytes);
    size_t size = (size_t)sp_round_up(bytes ? bytes : 1, SP_ALIGNMENT);
    void *memory = aligned_alloc(SP_ALIGNMENT, size);
    if (!memory) return sp_fail(SP_OUT_OF_MEMORY, "%s: no memory for %" PRId64 " bytes", what, bytes);
    memset(memory, 0, size);
    *out = memory;
    return SP_OK;
}

bool sp_multiply_sizes(int64_t a, int64_t b, int64_t *out) { return !__builtin_mul_overflow(a, b, out); }

bool sp_add_sizes(int64_t a, int64_t b, int64_t *out) { return !__builtin_add_overflow(a, b, out); }
