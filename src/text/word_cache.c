/* Open addressing with a load of at most a half. */
#include "text/word_cache.h"

#include <inttypes.h>
#include <stdlib.h>

enum { PLACES_AT_FIRST = 1 << 10, WORDS_MAX = 1 << 18 };

void sp_word_cache_free(sp_word_cache *cache) {
    free(cache->table);
    sp_bytes_free(&cache->texts);
    free(cache->tokens.items);
    *cache = (sp_word_cache){0};
}

static void put(sp_word_cache *cache, const sp_cached_word *word) {
    uint64_t at = word->hash >> 20;
    while (cache->table[at & (uint64_t)(cache->n_places - 1)].n_bytes) at++;
    cache->table[at & (uint64_t)(cache->n_places - 1)] = *word;
}

static sp_status grow(sp_word_cache *cache) {
    sp_cached_word *old = cache->table;
    int64_t n_old = cache->n_places, n = n_old ? 4 * n_old : PLACES_AT_FIRST;
    sp_cached_word *table = calloc((size_t)n, sizeof *table);
    SP_REQUIRE(table, SP_OUT_OF_MEMORY, "encoding: no memory for %" PRId64 " words", n);
    cache->table = table;
    cache->n_places = n;
    for (int64_t i = 0; i < n_old; i++)
        if (old[i].n_bytes) put(cache, &old[i]);
    free(old);
    return SP_OK;
}

static void clear(sp_word_cache *cache) {
    memset(cache->table, 0, (size_t)cache->n_places * sizeof *cache->table);
    cache->n_words = cache->texts.n = cache->tokens.n = 0;
}

sp_status sp_word_cache_add(sp_word_cache *cache, const char *text, int64_t n_bytes, uint64_t hash,
                            const int32_t *tokens, int64_t n_tokens) {
    if (cache->n_words == WORDS_MAX) clear(cache);
    if (2 * (cache->n_words + 1) > cache->n_places) SP_TRY(grow(cache));
    sp_cached_word word = {hash, (uint32_t)cache->texts.n, (uint32_t)cache->tokens.n, (uint16_t)n_bytes,
                           (uint16_t)n_tokens};
    SP_TRY(sp_bytes_add(&cache->texts, text, n_bytes));
    SP_TRY(sp_token_list_add(&cache->tokens, tokens, n_tokens));
    put(cache, &word);
    cache->n_words++;
    return SP_OK;
}
