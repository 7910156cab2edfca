/* A hash table of words and their tokens in front of sentencepiece.
 *
 * " the" is looked up as "the": sentencepiece is given the word without its first space and puts its dummy space there,
 * which gives the tokens of " the".  The word at the beginning of a text keeps its spaces: there the dummy space comes
 * on top.  A word that begins with a newline gets the dummy space too; its tokens are dropped, unless it begins
 * the text. */
#define _GNU_SOURCE
#include "text/word_encoder.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "text/hash.h"

static const char mark[] = "\xe2\x96\x81"; /* U+2581, which stands for a space in pieces */
enum {
    MARK_BYTES = sizeof mark - 1,
    WORD_BYTES_MAX = 64, /* longer ones are rarely met again */
    PLACES_AT_FIRST = 256,
    WORDS_MAX = 1 << 20,
};

typedef struct word {
    int64_t text;    /* where its letters begin in the list of all letters */
    int64_t n_bytes; /* 0: a free place */
    uint64_t hash;
    int64_t first, n_tokens; /* in the list of all tokens */
} word;

typedef struct token_list {
    int32_t *items;
    int64_t n, capacity;
} token_list;

struct sp_word_encoder {
    const sp_sentencepiece *model;
    const int32_t *dummy; /* n_dummy tokens of a lone space */
    int64_t n_dummy;
    word *table;
    int64_t n_words, n_places; /* n_places: a power of two */
    token_list tokens;         /* of all words */
    char *letters;             /* of all words */
    int64_t n_letters, capacity;
};

bool sp_words_stand_apart(const sp_sentencepiece *model) {
    int64_t vocabulary = sp_sentencepiece_vocabulary(model);
    for (int64_t id = 0; id < vocabulary; id++) {
        const char *piece = sp_sentencepiece_piece(model, (int32_t)id);
        while (strncmp(piece, mark, MARK_BYTES) == 0) piece += MARK_BYTES;
        if (strstr(piece, mark) || strchr(piece, ' ')) return false;
    }
    return true;
}

static sp_status add_tokens(token_list *list, const int32_t *tokens, int64_t n) {
    if (list->n + n > list->capacity) {
        int64_t capacity = 2 * list->capacity > list->n + n ? 2 * list->capacity : list->n + n + 64;
        int32_t *items = realloc(list->items, (size_t)capacity * sizeof *items);
        SP_REQUIRE(items, SP_OUT_OF_MEMORY, "encoding: no memory for %" PRId64 " tokens", capacity);
        list->items = items;
        list->capacity = capacity;
    }
    if (n > 0) memcpy(list->items + list->n, tokens, (size_t)n * sizeof *tokens);
    list->n += n;
    return SP_OK;
}

/* ---- the table ---- */

/* The place of a word, or the free one where it belongs. */
static word *find_place(const sp_word_encoder *encoder, const char *text, int64_t n_bytes, uint64_t hash) {
    for (int64_t at = (int64_t)(hash >> 20);; at++) {
        word *place = &encoder->table[at & (encoder->n_places - 1)];
        if (place->n_bytes == 0) return place;
        if (place->hash == hash && place->n_bytes == n_bytes &&
            memcmp(encoder->letters + place->text, text, (size_t)n_bytes) == 0)
            return place;
    }
}

static sp_status grow(sp_word_encoder *encoder) {
    word *old = encoder->table;
    int64_t n_old = encoder->n_places;
    word *table = calloc((size_t)(4 * n_old), sizeof *table);
    SP_REQUIRE(table, SP_OUT_OF_MEMORY, "encoding: no memory for %" PRId64 " words", 4 * n_old);
    encoder->table = table;
    encoder->n_places = 4 * n_old;
    for (int64_t i = 0; i < n_old; i++)
        if (old[i].n_bytes) *find_place(encoder, encoder->letters + old[i].text, old[i].n_bytes, old[i].hash) = old[i];
    free(old);
    return SP_OK;
}

/* Keeps the letters of a word behind those of all others. */
static sp_status keep_letters(sp_word_encoder *encoder, const char *text, int64_t n_bytes) {
    if (encoder->n_letters + n_bytes > encoder->capacity) {
        int64_t capacity = 2 * encoder->capacity + WORD_BYTES_MAX;
        char *letters = realloc(encoder->letters, (size_t)capacity);
        SP_REQUIRE(letters, SP_OUT_OF_MEMORY, "encoding: no memory for %" PRId64 " bytes of words", capacity);
        encoder->letters = letters;
        encoder->capacity = capacity;
    }
    memcpy(encoder->letters + encoder->n_letters, text, (size_t)n_bytes);
    encoder->n_letters += n_bytes;
    return SP_OK;
}

/* An encoder may live as long as the program: its memory is bounded by starting anew. */
static void forget_words(sp_word_encoder *encoder) {
    memset(encoder->table, 0, (size_t)encoder->n_places * sizeof *encoder->table);
    encoder->n_words = 0;
    encoder->n_letters = 0;
    encoder->tokens.n = 0;
}

/* ---- words ---- */

/* Tokens of one word at the end of `list`, by sentencepiece. */
static sp_status encode_word(const sp_word_encoder *encoder, const char *text, int64_t n_bytes, token_list *list) {
    int32_t *tokens;
    int64_t n;
    SP_TRY(sp_sentencepiece_encode(encoder->model, text, n_bytes, &tokens, &n));
    int64_t skip = *text == '\n' ? encoder->n_dummy : 0;
    sp_status status = add_tokens(list, tokens + skip, n - skip);
    free(tokens);
    return status;
}

static sp_status add_word(sp_word_encoder *encoder, const char *text, int64_t n_bytes, token_list *out) {
    if (n_bytes > WORD_BYTES_MAX) return encode_word(encoder, text, n_bytes, out);
    uint64_t hash = sp_hash_bytes(0, text, n_bytes);
    if (encoder->n_words == WORDS_MAX) forget_words(encoder);
    word *place = find_place(encoder, text, n_bytes, hash);
    if (place->n_bytes == 0) {
        int64_t first = encoder->tokens.n, letters = encoder->n_letters;
        SP_TRY(encode_word(encoder, text, n_bytes, &encoder->tokens));
        SP_TRY(keep_letters(encoder, text, n_bytes));
        *place = (word){letters, n_bytes, hash, first, encoder->tokens.n - first};
        SP_TRY(add_tokens(out, encoder->tokens.items + first, encoder->tokens.n - first));
        return 2 * ++encoder->n_words > encoder->n_places ? grow(encoder) : SP_OK;
    }
    return add_tokens(out, encoder->tokens.items + place->first, place->n_tokens);
}

/* Bytes of the word at `text`: its spaces, or its newline, and what follows up to the next space or newline. */
static int64_t word_bytes(const char *text, int64_t n_bytes) {
    int64_t n = *text == '\n' ? 1 : 0;
    if (n == 0)
        while (n < n_bytes && text[n] == ' ') n++;
    while (n < n_bytes && text[n] != ' ' && text[n] != '\n') n++;
    return n;
}

/* One word of a text; `inside`: not at its beginning. */
static sp_status add_next_word(sp_word_encoder *encoder, const char *text, int64_t n_bytes, bool inside,
                               token_list *out) {
    if (!inside || *text != ' ' || encoder->n_dummy == 0) return add_word(encoder, text, n_bytes, out);
    if (n_bytes == 1) return add_tokens(out, encoder->dummy, encoder->n_dummy);
    return add_word(encoder, text + 1, n_bytes - 1, out);
}

sp_status sp_word_encoder_encode(sp_word_encoder *encoder, const char *text, int64_t n_bytes, bool continues,
                                 int32_t **tokens, int64_t *n_tokens) {
    token_list out = {0};
    sp_status status = SP_OK;
    *tokens = NULL;
    *n_tokens = 0;
    /* the mark itself in a text is a space to sentencepiece: such a text is left to it as a whole */
    bool whole = memmem(text, (size_t)n_bytes, mark, MARK_BYTES) != NULL;
    if (n_bytes > 0 && *text == '\n' && !continues) SP_TRY_OR_DONE(add_tokens(&out, encoder->dummy, encoder->n_dummy));
    for (int64_t at = 0, n; at < n_bytes; at += n) {
        n = whole ? n_bytes : word_bytes(text + at, n_bytes - at);
        SP_TRY_OR_DONE(whole ? encode_word(encoder, text, n, &out)
                             : add_next_word(encoder, text + at, n, at > 0, &out));
    }
    *tokens = out.items;
    *n_tokens = out.n;
    out.items = NULL;
done:
    free(out.items);
    return status;
}

/* ---- the encoder ---- */

sp_status sp_word_encoder_new(sp_word_encoder **out, const sp_sentencepiece *model, const int32_t *dummy,
                              int64_t n_dummy) {
    *out = NULL;
    sp_word_encoder *encoder = calloc(1, sizeof *encoder);
    SP_REQUIRE(encoder, SP_OUT_OF_MEMORY, "encoding: no memory");
    encoder->model = model;
    encoder->dummy = dummy;
    encoder->n_dummy = n_dummy;
    encoder->n_places = PLACES_AT_FIRST;
    encoder->table = calloc(PLACES_AT_FIRST, sizeof *encoder->table);
    if (!encoder->table) {
        free(encoder);
        return sp_fail(SP_OUT_OF_MEMORY, "encoding: no memory for %d words", PLACES_AT_FIRST);
    }
    *out = encoder;
    return SP_OK;
}

void sp_word_encoder_free(sp_word_encoder *encoder) {
    if (!encoder) return;
    free(encoder->table);
    free(encoder->tokens.items);
    free(encoder->letters);
    free(encoder);
}
