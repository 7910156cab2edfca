/* Aligned memory, and sizes that refuse to overflow. */
#ifndef SP_BASE_MEMORY_H
#define SP_BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { SP_ALIGNMENT = 64 }; /* bytes: a cache line, and one AVX-512 vector */

/* Zeroed memory of `bytes` (>= 0) at a multiple of SP_ALIGNMENT; fails with the size in the message when there is none,
 * or when less is free.  `what` names the use.  Free with free(). */
SP_MUST_CHECK sp_status sp_allocate(void **out, int64_t bytes, const char *what);

/* Bytes of memory that the system can give without pushing others out, free swap included; INT64_MAX where it does not
 * say. */
int64_t sp_available_bytes(void);

/* a*b and a+b of non-negative sizes; false if the result does not fit. */
bool sp_multiply_sizes(int64_t a, int64_t b, int64_t *out);
bool sp_add_sizes(int64_t a, int64_t b, int64_t *out);

static inline int64_t sp_round_up(int64_t value, int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

/* Takes `n` things of `bytes` each from `base`, the next at a multiple of SP_ALIGNMENT.  `base` NULL: they are only
 * counted.  What does not fit an int64_t leaves *used at INT64_MAX for good. */
void *sp_carve(void *base, int64_t *used, int64_t n, size_t bytes);

#endif
