/* Words that were met, in front of sentencepiece.
 *
 * " the" is looked up as "the": sentencepiece is given the word without its first space and puts its dummy space there,
 * which gives the tokens of " the".  The word at the beginning of a text keeps its spaces: there the dummy space comes
 * on top.  A word that begins with a newline gets the dummy space too; its tokens are dropped, unless it begins
 * the text. */
#define _GNU_SOURCE
#include "text/word_encoder.h"

#include <stdlib.h>
#include <string.h>

#include "text/word_cache.h"

static const char mark[] = "\xe2\x96\x81"; /* U+2581, which stands for a space in pieces */
enum { MARK_BYTES = sizeof mark - 1 };

struct sp_word_encoder {
    const sp_sentencepiece *model;
    const int32_t *dummy; /* n_dummy tokens of a lone space */
    int64_t n_dummy;
    sp_word_cache cache;
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

/* Tokens of one word at the end of `list`, by sentencepiece. */
static sp_status encode_word(const sp_word_encoder *encoder, const char *text, int64_t n_bytes, sp_token_list *list) {
    int32_t *tokens;
    int64_t n;
    SP_TRY(sp_sentencepiece_encode(encoder->model, text, n_bytes, &tokens, &n));
    int64_t skip = *text == '\n' ? encoder->n_dummy : 0;
    if (skip > n) skip = n;
    sp_status status = sp_token_list_add(list, tokens + skip, n - skip);
    free(tokens);
    return status;
}

static sp_status add_word(sp_word_encoder *encoder, const char *text, int64_t n_bytes, sp_token_list *out) {
    if (n_bytes > SP_CACHED_BYTES_MAX) return encode_word(encoder, text, n_bytes, out);
    uint64_t hash = sp_word_hash(text, n_bytes);
    const sp_cached_word *word = sp_word_cache_find(&encoder->cache, text, n_bytes, hash);
    if (word) return sp_token_list_add(out, encoder->cache.tokens.items + word->first, word->n_tokens);
    int64_t first = out->n;
    SP_TRY(encode_word(encoder, text, n_bytes, out));
    return sp_word_cache_add(&encoder->cache, text, n_bytes, hash, out->items + first, out->n - first);
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
                               sp_token_list *out) {
    if (!inside || *text != ' ' || encoder->n_dummy == 0) return add_word(encoder, text, n_bytes, out);
    if (n_bytes == 1) return sp_token_list_add(out, encoder->dummy, encoder->n_dummy);
    return add_word(encoder, text + 1, n_bytes - 1, out);
}

sp_status sp_word_encoder_encode(sp_word_encoder *encoder, const char *text, int64_t n_bytes, bool continues,
                                 sp_token_list *out) {
    if (n_bytes == 0) return SP_OK;
    if (*text == '\n' && !continues) SP_TRY(sp_token_list_add(out, encoder->dummy, encoder->n_dummy));
    /* the mark itself in a text is a space to sentencepiece: such a text is left to it as a whole */
    if (memmem(text, (size_t)n_bytes, mark, MARK_BYTES)) return encode_word(encoder, text, n_bytes, out);
    for (int64_t at = 0, n; at < n_bytes; at += n) {
        n = word_bytes(text + at, n_bytes - at);
        SP_TRY(add_next_word(encoder, text + at, n, at > 0, out));
    }
    return SP_OK;
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
    *out = encoder;
    return SP_OK;
}

void sp_word_encoder_free(sp_word_encoder *encoder) {
    if (!encoder) return;
    sp_word_cache_free(&encoder->cache);
    free(encoder);
}
