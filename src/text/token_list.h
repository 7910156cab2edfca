/* A list of tokens that grows. */
#ifndef SP_TEXT_TOKEN_LIST_H
#define SP_TEXT_TOKEN_LIST_H

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

typedef struct sp_token_list {
    int32_t *items;
    int64_t n, capacity;
} sp_token_list; /* a zeroed one is empty; free(items) */

/* Room for n_more tokens behind those that are there. */
SP_MUST_CHECK static inline sp_status sp_token_list_reserve(sp_token_list *list, int64_t n_more) {
    if (n_more <= list->capacity - list->n) return SP_OK;
    int64_t capacity = list->n + list->n / 2 + n_more + 64;
    int32_t *items = realloc(list->items, (size_t)capacity * sizeof *items);
    SP_REQUIRE(items, SP_OUT_OF_MEMORY, "encoding: no memory for %" PRId64 " tokens", capacity);
    list->items = items;
    list->capacity = capacity;
    return SP_OK;
}

SP_MUST_CHECK static inline sp_status sp_token_list_add(sp_token_list *list, const int32_t *tokens, int64_t n) {
    SP_TRY(sp_token_list_reserve(list, n));
    if (n > 0) memcpy(list->items + list->n, tokens, (size_t)n * sizeof *tokens);
    list->n += n;
    return SP_OK;
}

#endif
