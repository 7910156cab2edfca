/* A buffer of bytes that grows, and spans of bytes in one: what the stages of a tokenizer hand to each other. */
#ifndef SP_TEXT_BYTES_H
#define SP_TEXT_BYTES_H

#include <stdint.h>

#include "base/status.h"

typedef struct sp_bytes {
    char *data; /* n bytes, no 0 behind them; NULL while nothing was ever added */
    int64_t n, capacity;
} sp_bytes; /* a zeroed one is empty */

/* Room for n_more bytes behind those that are there. */
SP_MUST_CHECK sp_status sp_bytes_reserve(sp_bytes *bytes, int64_t n_more);
SP_MUST_CHECK sp_status sp_bytes_add(sp_bytes *bytes, const char *data, int64_t n);
/* Bytes [begin, end) give way to n others, which lie elsewhere. */
SP_MUST_CHECK sp_status sp_bytes_replace(sp_bytes *bytes, int64_t begin, int64_t end, const char *data, int64_t n);
void sp_bytes_free(sp_bytes *bytes);

typedef struct sp_span {
    int64_t begin, end; /* bytes */
} sp_span;

typedef struct sp_spans {
    sp_span *items;
    int64_t n, capacity;
} sp_spans; /* a zeroed one is empty */

SP_MUST_CHECK sp_status sp_spans_add(sp_spans *spans, int64_t begin, int64_t end);
void sp_spans_free(sp_spans *spans);

#endif
