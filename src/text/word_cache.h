/* Words that were met and the tokens that they became: one thread's memory in front of an encoder. */
#ifndef SP_TEXT_WORD_CACHE_H
#define SP_TEXT_WORD_CACHE_H

#include <stdint.h>

#include "text/bytes.h"
#include "text/hash.h"
#include "text/token_list.h"

enum { SP_CACHED_BYTES_MAX = 64 }; /* longer words are rarely met again */

typedef struct sp_cached_word {
    uint64_t hash;
    uint32_t text;              /* where it begins in the texts */
    uint32_t first;             /* of its tokens in the list */
    uint16_t n_bytes, n_tokens; /* n_bytes 0: a free place */
} sp_cached_word;

typedef struct sp_word_cache {
    sp_cached_word *table;
    int64_t n_words, n_places; /* n_places: a power of two, or 0 at first */
    sp_bytes texts;
    sp_token_list tokens; /* of all words */
} sp_word_cache;          /* a zeroed one is empty */

void sp_word_cache_free(sp_word_cache *cache);

/* Adds a word of 1 to SP_CACHED_BYTES_MAX bytes that is not there.  A cache that has grown large is emptied first. */
SP_MUST_CHECK sp_status sp_word_cache_add(sp_word_cache *cache, const char *text, int64_t n_bytes, uint64_t hash,
                                          const int32_t *tokens, int64_t n_tokens);

static inline uint64_t sp_word_hash(const char *text, int64_t n_bytes) { return sp_hash_bytes(0, text, n_bytes); }

/* NULL if it is not there. */
static inline const sp_cached_word *sp_word_cache_find(const sp_word_cache *cache, const char *text, int64_t n_bytes,
                                                       uint64_t hash) {
    if (cache->n_places == 0) return NULL;
    for (uint64_t at = hash >> 20;; at++) {
        const sp_cached_word *word = &cache->table[at & (uint64_t)(cache->n_places - 1)];
        if (word->n_bytes == 0) return NULL;
        if (word->hash == hash && word->n_bytes == n_bytes &&
            memcmp(cache->texts.data + word->text, text, (size_t)n_bytes) == 0)
            return word;
    }
}

#endif
