/* Aligned memory, and sizes that refuse to overflow. */
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int64_t sp_available_bytes(void) {
    FILE *file = fopen("/proc/meminfo", "re");
    if (!file) return INT64_MAX;
    char line[256];
    long long kilobytes, available = -1, swap = 0;
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "MemAvailable: %lld", &kilobytes) == 1) available = kilobytes;
        if (sscanf(line, "SwapFree: %lld", &kilobytes) == 1) swap = kilobytes;
    }
    fclose(file);
    return available < 0 ? INT64_MAX : 1024 * (int64_t)(available + swap);
}

sp_status sp_allocate(void **out, int64_t bytes, const char *what) {
    *out = NULL;
    int64_t rounded;
    if (bytes < 0 || !sp_add_sizes(bytes, SP_ALIGNMENT, &rounded))
        return sp_fail(SP_OUT_OF_MEMORY, "%s: a size of %" PRId64 " bytes is out of range", what, bytes);
    /* Systems promise more memory than there is and kill who uses it: what cannot fit is refused here. */
    int64_t available = bytes >= ((int64_t)1 << 28) ? sp_available_bytes() : INT64_MAX;
    SP_REQUIRE(bytes <= available, SP_OUT_OF_MEMORY, "%s: %.1f GB are needed, %.1f GB of memory are free", what,
               (double)bytes * 1e-9, (double)available * 1e-9);
    size_t size = (size_t)sp_round_up(bytes ? bytes : 1, SP_ALIGNMENT);
    void *memory = aligned_alloc(SP_ALIGNMENT, size);
    if (!memory) return sp_fail(SP_OUT_OF_MEMORY, "%s: no memory for %" PRId64 " bytes", what, bytes);
    memset(memory, 0, size);
    *out = memory;
    return SP_OK;
}

bool sp_multiply_sizes(int64_t a, int64_t b, int64_t *out) { return !__builtin_mul_overflow(a, b, out); }

void *sp_carve(void *base, int64_t *used, int64_t n, size_t bytes) {
    int64_t at = *used, size;
    bool fits = sp_multiply_sizes(n, (int64_t)bytes, &size) && size <= INT64_MAX - SP_ALIGNMENT &&
                sp_add_sizes(at, sp_round_up(size, SP_ALIGNMENT), used);
    if (!fits) *used = INT64_MAX;
    return base && fits ? (char *)base + at : NULL;
}

bool sp_add_sizes(int64_t a, int64_t b, int64_t *out) { return !__builtin_add_overflow(a, b, out); }
