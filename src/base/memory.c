/* Aligned memory, and sizes that refuse to overflow. */
#define _GNU_SOURCE
#include "base/memory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

sp_status sp_allocate(void **out, int64_t bytes, const char *what) {
    *out = NULL;
    int64_t rounded;
    if (bytes < 0 || !sp_add_sizes(bytes, SP_ALIGNMENT, &rounded))
        return sp_fail(SP_OUT_OF_MEMORY, "%s: a size of %" PRId64 " bytes is out of range", what, bytes);
    /* Systems promise more memory than there is and kill who uses it: a size that can never fit is refused here. */
    int64_t machine = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    SP_REQUIRE(machine <= 0 || bytes <= machine, SP_OUT_OF_MEMORY, "%s: %.1f GB are needed, the machine has %.1f GB",
               what, (double)bytes * 1e-9, (double)machine * 1e-9);
    size_t size = (size_t)sp_round_up(bytes ? bytes : 1, SP_ALIGNMENT);
    void *memory = aligned_alloc(SP_ALIGNMENT, size);
    if (!memory) return sp_fail(SP_OUT_OF_MEMORY, "%s: no memory for %" PRId64 " bytes", what, bytes);
    memset(memory, 0, size);
    *out = memory;
    return SP_OK;
}

bool sp_multiply_sizes(int64_t a, int64_t b, int64_t *out) { return !__builtin_mul_overflow(a, b, out); }

bool sp_add_sizes(int64_t a, int64_t b, int64_t *out) { return !__builtin_add_overflow(a, b, out); }
