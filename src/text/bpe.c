/* Encoding words by BPE.
 *
 * The rule: of all neighbours that merge, those of the lowest rank do so first, the leftmost of equals; again until none
 * merge.  A short word looks for the lowest rank again each time; a long one keeps the candidates in a heap and the
 * symbols in a linked list, n log n in all.
 *
 * A vocabulary with "▁" for spaces comes without a splitter: a whole text is one word.  It is cut nonetheless, where no
 * merge can reach over the cut: before a "▁" behind a byte with which no left side of a merge with "▁..." ends, and
 * around newlines that are tokens of their own.  So words can be remembered, and the tokens are the same. */
#include "text/bpe.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "text/bpe_tables.h"
#include "text/decoder.h"
#include "text/utf8.h"
#include "text/word_cache.h"

enum { SHORT_WORD = 48, MARK_BYTES = 3 };

typedef struct symbol {
    int32_t id;             /* -1: it was merged into the one before */
    int32_t previous, next; /* -1: none */
} symbol;

typedef struct candidate {
    int32_t rank, at; /* the symbol on the left */
    int32_t id;       /* what they become */
} candidate;

struct sp_bpe_worker {
    const sp_bpe *bpe;
    sp_word_cache cache;
    sp_token_list ids; /* of the characters of a word */
    sp_bytes unit;     /* a character with prefix and suffix */
    symbol *symbols;
    candidate *heap;
    int64_t n_heap, capacity; /* of symbols; the heap has room for three times as many */
};

/* ---- characters ---- */

static sp_status add_id(sp_token_list *ids, int32_t id) { return sp_token_list_add(ids, &id, 1); }

/* Byte tokens for all bytes of a character, or none. */
static sp_status add_byte_tokens(const sp_bpe *bpe, const char *text, int64_t n_bytes, sp_token_list *ids, bool *all) {
    *all = bpe->byte_fallback;
    for (int64_t i = 0; i < n_bytes && *all; i++) *all = bpe->byte_tokens[(uint8_t)text[i]] >= 0;
    for (int64_t i = 0; i < n_bytes && *all; i++) SP_TRY(add_id(ids, bpe->byte_tokens[(uint8_t)text[i]]));
    return SP_OK;
}

/* A character that no token exists for.  It waits (`*waits`): with fuse_unk neighbours become one, and byte tokens do not
 * end that. */
static sp_status add_unknown(const sp_bpe *bpe, const char *text, int64_t n_bytes, sp_token_list *ids, bool *waits) {
    char character[3];
    if (bpe->byte_level) {
        sp_byte_level_character((uint8_t)*text, character);
        text = character;
        n_bytes = (int64_t)strlen(character);
    }
    bool all;
    SP_TRY(add_byte_tokens(bpe, text, n_bytes, ids, &all));
    if (all || bpe->unk < 0) return SP_OK;
    if (*waits && !bpe->fuse_unk) SP_TRY(add_id(ids, bpe->unk));
    *waits = true;
    return SP_OK;
}

static sp_status add_character(sp_bpe_worker *worker, const char *text, int64_t n_bytes, bool first, bool last,
                               bool *waits) {
    const sp_bpe *bpe = worker->bpe;
    int32_t id = n_bytes == 1 ? bpe->first_tokens[(uint8_t)*text] : -1;
    if (id < 0) {
        worker->unit.n = 0;
        if (!first && bpe->prefix) SP_TRY(sp_bytes_add(&worker->unit, bpe->prefix, (int64_t)strlen(bpe->prefix)));
        SP_TRY(sp_bytes_add(&worker->unit, text, n_bytes));
        if (last && bpe->suffix) SP_TRY(sp_bytes_add(&worker->unit, bpe->suffix, (int64_t)strlen(bpe->suffix)));
        text = worker->unit.data;
        n_bytes = worker->unit.n;
        const sp_bpe_name *name = sp_bpe_find(bpe, text, n_bytes);
        id = name ? name->id : -1;
    }
    if (id < 0) return add_unknown(bpe, text, n_bytes, &worker->ids, waits);
    if (*waits) SP_TRY(add_id(&worker->ids, bpe->unk));
    *waits = false;
    return add_id(&worker->ids, id);
}

static sp_status list_characters(sp_bpe_worker *worker, const char *text, int64_t n_bytes) {
    bool waits = false;
    worker->ids.n = 0;
    for (int64_t at = 0, n; at < n_bytes; at += n) {
        n = worker->bpe->byte_level ? 1 : sp_utf8_next(text + at, n_bytes - at);
        SP_REQUIRE(n > 0, SP_BAD_ARGUMENT, "encoding: the text is not UTF-8 at byte %" PRId64 " of a word", at);
        SP_TRY(add_character(worker, text + at, n, at == 0, at + n == n_bytes, &waits));
    }
    return waits ? add_id(&worker->ids, worker->bpe->unk) : SP_OK;
}

/* ---- short words ---- */

static int64_t merge_short(const sp_bpe *bpe, int32_t *ids, int64_t n) {
    const sp_bpe_merge *merges[SHORT_WORD]; /* of i and i + 1 */
    for (int64_t i = 0; i + 1 < n; i++) merges[i] = sp_bpe_find_merge(bpe, sp_bpe_pair(ids[i], ids[i + 1]));
    while (n > 1) {
        int64_t best = -1;
        for (int64_t i = 0; i + 1 < n; i++)
            if (merges[i] && (best < 0 || merges[i]->rank < merges[best]->rank)) best = i;
        if (best < 0) return n;
        ids[best] = merges[best]->id;
        n--;
        for (int64_t i = best + 1; i < n; i++) {
            ids[i] = ids[i + 1];
            merges[i - 1] = merges[i];
        }
        if (best > 0) merges[best - 1] = sp_bpe_find_merge(bpe, sp_bpe_pair(ids[best - 1], ids[best]));
        if (best + 1 < n) merges[best] = sp_bpe_find_merge(bpe, sp_bpe_pair(ids[best], ids[best + 1]));
    }
    return n;
}

/* ---- long words ---- */

static bool comes_first(const candidate *a, const candidate *b) {
    return a->rank < b->rank || (a->rank == b->rank && a->at < b->at);
}

static void push(sp_bpe_worker *worker, candidate added) {
    int64_t at = worker->n_heap++;
    for (int64_t parent; at > 0; at = parent) {
        parent = (at - 1) / 2;
        if (!comes_first(&added, &worker->heap[parent])) break;
        worker->heap[at] = worker->heap[parent];
    }
    worker->heap[at] = added;
}

static candidate pop(sp_bpe_worker *worker) {
    candidate *heap = worker->heap, top = heap[0], last = heap[--worker->n_heap];
    int64_t at = 0, n = worker->n_heap;
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && comes_first(&heap[child + 1], &heap[child])) child++;
        if (!comes_first(&heap[child], &last)) break;
        heap[at] = heap[child];
    }
    if (n > 0) heap[at] = last;
    return top;
}

static void push_pair(sp_bpe_worker *worker, int64_t left) {
    if (left < 0 || worker->symbols[left].next < 0) return;
    int32_t right = worker->symbols[left].next;
    const sp_bpe_merge *merge =
        sp_bpe_find_merge(worker->bpe, sp_bpe_pair(worker->symbols[left].id, worker->symbols[right].id));
    if (merge) push(worker, (candidate){merge->rank, (int32_t)left, merge->id});
}

static sp_status reserve_symbols(sp_bpe_worker *worker, int64_t n) {
    if (n <= worker->capacity) return SP_OK;
    SP_REQUIRE(n < INT32_MAX, SP_UNSUPPORTED, "encoding: a word of %" PRId64 " characters is too long", n);
    int64_t capacity = n + n / 2;
    worker->capacity = 0;
    free(worker->symbols);
    free(worker->heap);
    worker->symbols = malloc((size_t)capacity * sizeof *worker->symbols);
    worker->heap = malloc((size_t)capacity * 3 * sizeof *worker->heap);
    SP_REQUIRE(worker->symbols && worker->heap, SP_OUT_OF_MEMORY,
               "encoding: no memory for a word of %" PRId64 " characters", n);
    worker->capacity = capacity;
    return SP_OK;
}

/* A candidate counts only if its two symbols are still what they were: then they merge to the same token. */
static void merge_at(sp_bpe_worker *worker, candidate top) {
    symbol *symbols = worker->symbols, *left = &symbols[top.at];
    if (left->id < 0 || left->next < 0) return;
    symbol *right = &symbols[left->next];
    const sp_bpe_merge *merge = sp_bpe_find_merge(worker->bpe, sp_bpe_pair(left->id, right->id));
    if (!merge || merge->id != top.id) return;
    left->id = top.id;
    right->id = -1;
    left->next = right->next;
    if (left->next >= 0) symbols[left->next].previous = top.at;
    push_pair(worker, left->previous);
    push_pair(worker, top.at);
}

static sp_status merge_long(sp_bpe_worker *worker, sp_token_list *ids) {
    int64_t n = ids->n;
    SP_TRY(reserve_symbols(worker, n));
    worker->n_heap = 0;
    for (int64_t i = 0; i < n; i++)
        worker->symbols[i] = (symbol){ids->items[i], (int32_t)i - 1, i + 1 < n ? (int32_t)i + 1 : -1};
    for (int64_t i = 0; i < n; i++) push_pair(worker, i);
    while (worker->n_heap > 0) merge_at(worker, pop(worker));
    ids->n = 0;
    for (int64_t i = 0; i >= 0; i = worker->symbols[i].next) ids->items[ids->n++] = worker->symbols[i].id;
    return SP_OK;
}

/* ---- words ---- */

/* Leaves the tokens in worker->ids. */
static sp_status encode_word(sp_bpe_worker *worker, const char *text, int64_t n_bytes) {
    const sp_bpe *bpe = worker->bpe;
    if (bpe->ignore_merges) {
        const sp_bpe_name *name = sp_bpe_find(bpe, text, n_bytes);
        worker->ids.n = 0;
        if (name) return add_id(&worker->ids, name->id);
    }
    SP_TRY(list_characters(worker, text, n_bytes));
    if (worker->ids.n > SHORT_WORD) return merge_long(worker, &worker->ids);
    worker->ids.n = merge_short(bpe, worker->ids.items, worker->ids.n);
    return SP_OK;
}

static sp_status add_word(sp_bpe_worker *worker, const char *text, int64_t n_bytes, sp_token_list *out) {
    uint64_t hash = 0;
    if (n_bytes <= SP_CACHED_BYTES_MAX) {
        hash = sp_word_hash(text, n_bytes);
        const sp_cached_word *word = sp_word_cache_find(&worker->cache, text, n_bytes, hash);
        if (word) return sp_token_list_add(out, worker->cache.tokens.items + word->first, word->n_tokens);
    }
    SP_TRY(encode_word(worker, text, n_bytes));
    if (n_bytes <= SP_CACHED_BYTES_MAX)
        SP_TRY(sp_word_cache_add(&worker->cache, text, n_bytes, hash, worker->ids.items, worker->ids.n));
    return sp_token_list_add(out, worker->ids.items, worker->ids.n);
}

static bool is_mark(const char *text, int64_t n_bytes) {
    return n_bytes >= MARK_BYTES && memcmp(text, "\xe2\x96\x81", MARK_BYTES) == 0;
}

/* Bytes up to the next cut, or to the end. */
static int64_t bytes_to_cut(const sp_bpe *bpe, const char *text, int64_t n_bytes) {
    bool newlines = bpe->newlines_apart;
    if (newlines && *text == '\n') return 1;
    for (int64_t at = 1; at < n_bytes; at++) {
        if (newlines && text[at] == '\n') return at;
        if (bpe->has_mark && text[at] == '\xe2' && !bpe->crosses_mark[(uint8_t)text[at - 1]] &&
            is_mark(text + at, n_bytes - at))
            return at;
    }
    return n_bytes;
}

sp_status sp_bpe_encode(sp_bpe_worker *worker, const char *text, int64_t n_bytes, sp_token_list *out) {
    bool cuts = worker->bpe->has_mark || worker->bpe->newlines_apart;
    for (int64_t at = 0, n; at < n_bytes; at += n) {
        n = cuts ? bytes_to_cut(worker->bpe, text + at, n_bytes - at) : n_bytes;
        SP_TRY(add_word(worker, text + at, n, out));
    }
    return SP_OK;
}

/* ---- workers ---- */

sp_status sp_bpe_worker_new(sp_bpe_worker **out, const sp_bpe *bpe) {
    *out = calloc(1, sizeof **out);
    SP_REQUIRE(*out, SP_OUT_OF_MEMORY, "encoding: no memory");
    (*out)->bpe = bpe;
    return SP_OK;
}

void sp_bpe_worker_free(sp_bpe_worker *worker) {
    if (!worker) return;
    sp_word_cache_free(&worker->cache);
    sp_bytes_free(&worker->unit);
    free(worker->ids.items);
    free(worker->symbols);
    free(worker->heap);
    free(worker);
}
