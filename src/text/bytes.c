/* Growing by half again, so that a buffer kept over many texts stops allocating. */
#include "text/bytes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* At least n_more behind n of `capacity` things; *to is the new capacity. */
static sp_status grown(int64_t n, int64_t n_more, int64_t bytes_each, int64_t *to) {
    int64_t wanted, bytes;
    SP_REQUIRE(sp_add_sizes(n, n_more, &wanted) && sp_add_sizes(wanted, wanted / 2 + 64, to) &&
                   sp_multiply_sizes(*to, bytes_each, &bytes),
               SP_OUT_OF_MEMORY, "encoding: a text of %" PRId64 " and %" PRId64 " more does not fit", n, n_more);
    return SP_OK;
}

sp_status sp_bytes_reserve(sp_bytes *bytes, int64_t n_more) {
    if (n_more <= bytes->capacity - bytes->n) return SP_OK;
    int64_t capacity;
    SP_TRY(grown(bytes->n, n_more, 1, &capacity));
    char *data = realloc(bytes->data, (size_t)capacity);
    SP_REQUIRE(data, SP_OUT_OF_MEMORY, "encoding: no memory for %" PRId64 " bytes of text", capacity);
    bytes->data = data;
    bytes->capacity = capacity;
    return SP_OK;
}

sp_status sp_bytes_add(sp_bytes *bytes, const char *data, int64_t n) {
    SP_TRY(sp_bytes_reserve(bytes, n));
    if (n > 0) memcpy(bytes->data + bytes->n, data, (size_t)n);
    bytes->n += n;
    return SP_OK;
}

sp_status sp_bytes_replace(sp_bytes *bytes, int64_t begin, int64_t end, const char *data, int64_t n) {
    SP_TRY(sp_bytes_reserve(bytes, n));
    if (bytes->n > end) memmove(bytes->data + begin + n, bytes->data + end, (size_t)(bytes->n - end));
    if (n > 0) memcpy(bytes->data + begin, data, (size_t)n);
    bytes->n += n - (end - begin);
    return SP_OK;
}

void sp_bytes_free(sp_bytes *bytes) {
    free(bytes->data);
    *bytes = (sp_bytes){0};
}

sp_status sp_spans_add(sp_spans *spans, int64_t begin, int64_t end) {
    if (spans->n == spans->capacity) {
        int64_t capacity;
        SP_TRY(grown(spans->n, 1, sizeof *spans->items, &capacity));
        sp_span *items = realloc(spans->items, (size_t)capacity * sizeof *items);
        SP_REQUIRE(items, SP_OUT_OF_MEMORY, "encoding: no memory for %" PRId64 " pieces of text", capacity);
        spans->items = items;
        spans->capacity = capacity;
    }
    spans->items[spans->n++] = (sp_span){begin, end};
    return SP_OK;
}

void sp_spans_free(sp_spans *spans) {
    free(spans->items);
    *spans = (sp_spans){0};
}
