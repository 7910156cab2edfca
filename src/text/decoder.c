/* Decoding token by token.  A token enters the first step of the chain; what a step is sure of goes on to the next, what
 * may still change waits in the step: the bytes of a character that is not whole, a run of byte tokens, spaces that are
 * stripped if nothing follows.  `finish` flushes the steps in their order.  Decoding a list is the same with all of its
 * tokens, so the two cannot differ. */
#include "text/decoder.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"
#include "text/utf8.h"

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */
enum { N_REPLACEMENT = sizeof replacement - 1 };

typedef struct step_state {
    sp_bytes held;  /* waits for more */
    sp_bytes made;  /* what the step makes of a token */
    int64_t n_seen; /* tokens; STRIP of fused text: marks that were stripped from its beginning */
    bool began;     /* STRIP of fused text: something else stood there.  PIECES: text came out */
    bool mark_seen; /* PIECES: the last token began with the space that was dropped */
} step_state;

struct sp_decoder {
    const sp_tokenizer *tokenizer;
    bool skip_special;
    step_state states[SP_DECODE_STEPS_MAX];
    sp_bytes text; /* sure */
};

/* ---- GPT-2's table ---- */

/* Printable bytes of Latin-1 stand for themselves, the 68 others, in their order, are U+0100 and on. */
static bool stands_for_itself(int byte) {
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
}

int sp_byte_level_byte(uint32_t character) {
    if (character < 0x100) return stands_for_itself((int)character) ? (int)character : -1;
    for (int byte = 0, at = 0x100; byte < 0x100; byte++)
        if (!stands_for_itself(byte) && at++ == (int)character) return byte;
    return -1;
}

void sp_byte_level_character(uint8_t byte, char text[3]) {
    int character = byte;
    if (!stands_for_itself(byte)) {
        character = 0x100;
        for (int before = 0; before < byte; before++) character += !stands_for_itself(before);
    }
    text[0] = (char)(character < 0x80 ? character : 0xc0 | character >> 6);
    text[1] = (char)(character < 0x80 ? 0 : 0x80 | (character & 0x3f));
    text[2] = 0;
}

sp_status sp_byte_level_decode(sp_bytes *out, const char *text, int64_t n_bytes, bool *all) {
    int64_t n_before = out->n;
    SP_TRY(sp_bytes_reserve(out, n_bytes));
    const uint8_t *at = (const uint8_t *)text, *end = at + n_bytes;
    int byte = 0;
    while (at < end && byte >= 0) {
        if (*at < 0x80) {
            byte = sp_byte_level_byte(*at++);
        } else if (end - at >= 2 && *at >= 0xc2 && *at <= 0xc5) {
            byte = sp_byte_level_byte((uint32_t)(at[0] & 0x1f) << 6 | (at[1] & 0x3f));
            at += 2;
        } else {
            byte = -1;
        }
        if (byte >= 0) out->data[out->n++] = (char)byte;
    }
    *all = byte >= 0;
    if (!*all) out->n = n_before;
    return SP_OK;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

int sp_byte_token(const char *text, int64_t n_bytes) {
    if (n_bytes != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    int high = hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : 16 * high + low;
}

/* ---- steps ---- */

static sp_status feed(sp_decoder *decoder, int at, const char *text, int64_t n_bytes);

/* Gives on what is whole of the bytes that are held.  At the end the rest is U+FFFD as well: `each_byte` tells whether
 * a malformed byte stands alone for one or with those that belong to it. */
static sp_status feed_characters(sp_decoder *decoder, int at, bool at_end, bool each_byte) {
    step_state *state = &decoder->states[at];
    sp_bytes *held = &state->held;
    int64_t begin = 0;
    state->made.n = 0;
    while (begin < held->n) {
        int64_t n = sp_utf8_next(held->data + begin, held->n - begin);
        if (n == 0 && !at_end) break;
        if (n > 0)
            SP_TRY(sp_bytes_add(&state->made, held->data + begin, n));
        else
            SP_TRY(sp_bytes_add(&state->made, replacement, N_REPLACEMENT));
        begin += n > 0 ? n : each_byte ? 1 : n < 0 ? -n : held->n - begin;
    }
    SP_TRY(sp_bytes_replace(held, 0, begin, NULL, 0));
    return state->made.n > 0 ? feed(decoder, at + 1, state->made.data, state->made.n) : SP_OK;
}

static sp_status feed_byte_level(sp_decoder *decoder, int at, const char *text, int64_t n_bytes) {
    step_state *state = &decoder->states[at];
    bool all;
    SP_TRY(sp_byte_level_decode(&state->held, text, n_bytes, &all));
    if (!all) SP_TRY(sp_bytes_add(&state->held, text, n_bytes));
    return feed_characters(decoder, at, false, false);
}

static bool is_utf8(const char *text, int64_t n_bytes) {
    int64_t at = 0;
    for (int64_t n; at < n_bytes; at += n)
        if ((n = sp_utf8_next(text + at, n_bytes - at)) <= 0) return false;
    return true;
}

static sp_status flush_bytes(sp_decoder *decoder, int at) {
    sp_bytes *held = &decoder->states[at].held;
    int64_t n = held->n;
    held->n = 0;
    if (n == 0) return SP_OK;
    if (is_utf8(held->data, n)) return feed(decoder, at + 1, held->data, n);
    for (int64_t i = 0; i < n; i++) SP_TRY(feed(decoder, at + 1, replacement, N_REPLACEMENT));
    return SP_OK;
}

static sp_status feed_byte_fallback(sp_decoder *decoder, int at, const char *text, int64_t n_bytes) {
    int byte = sp_byte_token(text, n_bytes);
    char one = (char)byte;
    if (byte >= 0) return sp_bytes_add(&decoder->states[at].held, &one, 1);
    SP_TRY(flush_bytes(decoder, at));
    return feed(decoder, at + 1, text, n_bytes);
}

static sp_status feed_replace(sp_decoder *decoder, int at, const char *text, int64_t n_bytes) {
    step_state *state = &decoder->states[at];
    state->made.n = 0;
    SP_TRY(sp_bytes_add(&state->made, text, n_bytes));
    SP_TRY(sp_text_normalizer_apply(decoder->tokenizer->decoding.steps[at].normalizer, &state->made));
    return feed(decoder, at + 1, state->made.data, state->made.n);
}

/* `text` with a space for every `mark`, or nothing, at the end of `out`. */
static sp_status add_marks_as_spaces(sp_bytes *out, const char *text, int64_t n_bytes, const char *mark, bool drop) {
    size_t n_mark = strlen(mark);
    for (int64_t i = 0; i < n_bytes;) {
        bool is_mark = n_bytes - i >= (int64_t)n_mark && memcmp(text + i, mark, n_mark) == 0;
        if (!is_mark) SP_TRY(sp_bytes_add(out, text + i, 1));
        if (is_mark && !drop) SP_TRY(sp_bytes_add(out, " ", 1));
        i += is_mark ? (int64_t)n_mark : 1;
    }
    return SP_OK;
}

static sp_status feed_metaspace(sp_decoder *decoder, int at, const char *text, int64_t n_bytes) {
    const sp_decode_step *step = &decoder->tokenizer->decoding.steps[at];
    step_state *state = &decoder->states[at];
    bool first = state->n_seen++ == 0;
    state->made.n = 0;
    SP_TRY(add_marks_as_spaces(&state->made, text, n_bytes, step->mark, first && step->strips_first));
    return feed(decoder, at + 1, state->made.data, state->made.n);
}

static int64_t count_marks(const char *text, int64_t n_bytes, const char *mark, int64_t most) {
    int64_t n = 0, n_mark = (int64_t)strlen(mark);
    while (n < most && n_bytes - n * n_mark >= n_mark && memcmp(text + n * n_mark, mark, (size_t)n_mark) == 0) n++;
    return n;
}

static int64_t count_marks_at_end(const char *text, int64_t n_bytes, const char *mark, int64_t most) {
    int64_t n = 0, n_mark = (int64_t)strlen(mark);
    while (n < most && n_bytes >= (n + 1) * n_mark &&
           memcmp(text + n_bytes - (n + 1) * n_mark, mark, (size_t)n_mark) == 0)
        n++;
    return n;
}

/* Marks at the end of fused text wait until something follows them. */
static sp_status strip_fused(sp_decoder *decoder, int at, const char *text, int64_t n_bytes) {
    const sp_decode_step *step = &decoder->tokenizer->decoding.steps[at];
    step_state *state = &decoder->states[at];
    int64_t n_mark = (int64_t)strlen(step->mark);
    if (!state->began) {
        int64_t n = count_marks(text, n_bytes, step->mark, step->start - state->n_seen);
        state->n_seen += n;
        text += n * n_mark;
        n_bytes -= n * n_mark;
        state->began = n_bytes > 0 || state->n_seen == step->start;
    }
    SP_TRY(sp_bytes_add(&state->held, text, n_bytes));
    int64_t n_kept = n_mark * count_marks_at_end(state->held.data, state->held.n, step->mark, step->stop);
    int64_t n_sure = state->held.n - n_kept;
    state->made.n = 0;
    SP_TRY(sp_bytes_add(&state->made, state->held.data, n_sure));
    SP_TRY(sp_bytes_replace(&state->held, 0, n_sure, NULL, 0));
    return feed(decoder, at + 1, state->made.data, state->made.n);
}

static sp_status feed_strip(sp_decoder *decoder, int at, const char *text, int64_t n_bytes) {
    const sp_decode_step *step = &decoder->tokenizer->decoding.steps[at];
    if (step->fused) return strip_fused(decoder, at, text, n_bytes);
    int64_t n_mark = (int64_t)strlen(step->mark);
    int64_t first = n_mark * count_marks(text, n_bytes, step->mark, step->start);
    int64_t last = n_mark * count_marks_at_end(text + first, n_bytes - first, step->mark, step->stop);
    return feed(decoder, at + 1, text + first, n_bytes - first - last);
}

/* One token is made of all where the steps after need that; STRIP can do with parts of it. */
static bool must_collect(const sp_decoding *decoding, int at) {
    for (int next = at + 1; next < decoding->n_steps; next++)
        if (decoding->steps[next].kind != SP_DECODE_STRIP && decoding->steps[next].kind != SP_DECODE_FUSE) return true;
    return false;
}

static sp_status feed_fuse(sp_decoder *decoder, int at, const char *text, int64_t n_bytes) {
    if (must_collect(&decoder->tokenizer->decoding, at)) return sp_bytes_add(&decoder->states[at].held, text, n_bytes);
    return feed(decoder, at + 1, text, n_bytes);
}

static sp_status feed_spaces(sp_decoder *decoder, int at, const char *text, int64_t n_bytes) {
    if (decoder->states[at].n_seen++ > 0) SP_TRY(feed(decoder, at + 1, " ", 1));
    return feed(decoder, at + 1, text, n_bytes);
}

/* sentencepiece drops one space at the beginning: of the first token that has any text, and of those after it as long
 * as nothing came out (where it removes extra spaces, `start` 2: also after such a space alone). */
static sp_status feed_pieces(sp_decoder *decoder, int at, const char *text, int64_t n_bytes) {
    const sp_decode_step *step = &decoder->tokenizer->decoding.steps[at];
    step_state *state = &decoder->states[at];
    int byte = sp_byte_token(text, n_bytes);
    char one = (char)byte;
    if (byte >= 0) {
        SP_TRY(sp_bytes_add(&state->held, &one, 1));
        state->began = true;
        return feed_characters(decoder, at, false, true);
    }
    SP_TRY(feed_characters(decoder, at, true, true));
    bool drops = step->start > 0 && !state->began && !state->mark_seen;
    int64_t n = drops ? count_marks(text, n_bytes, step->mark, 1) * (int64_t)strlen(step->mark) : 0;
    if (n > 0 && step->start == 1) state->mark_seen = true;
    state->made.n = 0;
    SP_TRY(add_marks_as_spaces(&state->made, text + n, n_bytes - n, step->mark, false));
    state->began |= state->made.n > 0;
    return feed(decoder, at + 1, state->made.data, state->made.n);
}

static sp_status flush_held(sp_decoder *decoder, int at) {
    sp_bytes *held = &decoder->states[at].held;
    return held->n > 0 ? feed(decoder, at + 1, held->data, held->n) : SP_OK;
}

static sp_status flush_characters(sp_decoder *decoder, int at) { return feed_characters(decoder, at, true, false); }

static sp_status flush_pieces(sp_decoder *decoder, int at) { return feed_characters(decoder, at, true, true); }

/* By sp_decode_kind; flush NULL: nothing of what it holds comes out at the end. */
static const struct {
    sp_status (*feed)(sp_decoder *decoder, int at, const char *text, int64_t n_bytes);
    sp_status (*flush)(sp_decoder *decoder, int at);
} workings[] = {
    [SP_DECODE_REPLACE] = {feed_replace, NULL},
    [SP_DECODE_BYTE_FALLBACK] = {feed_byte_fallback, flush_bytes},
    [SP_DECODE_BYTE_LEVEL] = {feed_byte_level, flush_characters},
    [SP_DECODE_METASPACE] = {feed_metaspace, NULL},
    [SP_DECODE_STRIP] = {feed_strip, NULL},
    [SP_DECODE_FUSE] = {feed_fuse, flush_held},
    [SP_DECODE_SPACES] = {feed_spaces, NULL},
    [SP_DECODE_PIECES] = {feed_pieces, flush_pieces},
};

static sp_status feed(sp_decoder *decoder, int at, const char *text, int64_t n_bytes) {
    const sp_decoding *decoding = &decoder->tokenizer->decoding;
    if (at == decoding->n_steps) return sp_bytes_add(&decoder->text, text, n_bytes);
    return workings[decoding->steps[at].kind].feed(decoder, at, text, n_bytes);
}

/* ---- the calls ---- */

sp_status sp_decoder_new(sp_decoder **out, const sp_tokenizer *tokenizer, bool skip_special) {
    *out = NULL;
    SP_REQUIRE(tokenizer, SP_BAD_ARGUMENT, "decoding: no tokenizer");
    sp_decoder *decoder = calloc(1, sizeof *decoder);
    SP_REQUIRE(decoder, SP_OUT_OF_MEMORY, "decoding: no memory");
    decoder->tokenizer = tokenizer;
    decoder->skip_special = skip_special;
    *out = decoder;
    return SP_OK;
}

void sp_decoder_free(sp_decoder *decoder) {
    if (!decoder) return;
    for (int i = 0; i < SP_DECODE_STEPS_MAX; i++) {
        sp_bytes_free(&decoder->states[i].held);
        sp_bytes_free(&decoder->states[i].made);
    }
    sp_bytes_free(&decoder->text);
    free(decoder);
}

static sp_status feed_token(sp_decoder *decoder, int32_t id) {
    const sp_tokenizer *tokenizer = decoder->tokenizer;
    SP_REQUIRE(id >= 0 && id < tokenizer->vocabulary, SP_BAD_ARGUMENT,
               "token %" PRId32 ": the vocabulary has %" PRId64 " pieces", id, tokenizer->vocabulary);
    const sp_token *token = &tokenizer->tokens[id];
    if (!token->text) return SP_OK;
    /* sentencepiece ends a run of byte pieces there, tokenizer.json's decoders do not see it */
    if (token->special && decoder->skip_special)
        return tokenizer->decoding.steps[0].kind == SP_DECODE_PIECES ? feed(decoder, 0, "", 0) : SP_OK;
    if (token->surface) return feed(decoder, 0, token->surface, (int64_t)strlen(token->surface));
    return feed(decoder, 0, token->text, token->n_bytes);
}

static sp_status flush_all(sp_decoder *decoder) {
    const sp_decoding *decoding = &decoder->tokenizer->decoding;
    for (int at = 0; at < decoding->n_steps; at++)
        if (workings[decoding->steps[at].kind].flush) SP_TRY(workings[decoding->steps[at].kind].flush(decoder, at));
    for (int at = 0; at < decoding->n_steps; at++) {
        step_state *state = &decoder->states[at];
        state->held.n = state->n_seen = 0;
        state->began = state->mark_seen = false;
    }
    return SP_OK;
}

sp_status sp_decoder_push(sp_decoder *decoder, int32_t token, const char **text, int64_t *n_bytes) {
    decoder->text.n = 0;
    *text = "";
    *n_bytes = 0;
    SP_TRY(feed_token(decoder, token));
    if (decoder->text.n > 0) *text = decoder->text.data;
    *n_bytes = decoder->text.n;
    return SP_OK;
}

sp_status sp_decoder_finish(sp_decoder *decoder, const char **text, int64_t *n_bytes) {
    decoder->text.n = 0;
    *text = "";
    *n_bytes = 0;
    SP_TRY(flush_all(decoder));
    if (decoder->text.n > 0) *text = decoder->text.data;
    *n_bytes = decoder->text.n;
    return SP_OK;
}

sp_status sp_tokenizer_decode(const sp_tokenizer *tokenizer, const int32_t *tokens, int64_t n_tokens, char **text,
                              int64_t *n_bytes) {
    *text = NULL;
    *n_bytes = 0;
    SP_REQUIRE(tokenizer && n_tokens >= 0 && (tokens || n_tokens == 0), SP_BAD_ARGUMENT,
               "decoding: no tokenizer or no tokens");
    for (int64_t i = 0; i < n_tokens; i++)
        SP_REQUIRE(tokens[i] >= 0 && tokens[i] < tokenizer->vocabulary, SP_BAD_ARGUMENT,
                   "token %" PRId32 " at %" PRId64 ": the vocabulary has %" PRId64 " pieces", tokens[i], i,
                   tokenizer->vocabulary);
    sp_decoder *decoder;
    SP_TRY(sp_decoder_new(&decoder, tokenizer, true));
    sp_status status = SP_OK;
    for (int64_t i = 0; i < n_tokens; i++) SP_TRY_OR_DONE(feed_token(decoder, tokens[i]));
    SP_TRY_OR_DONE(flush_all(decoder));
    SP_TRY_OR_DONE(sp_bytes_add(&decoder->text, "", 1));
    *text = decoder->text.data;
    *n_bytes = decoder->text.n - 1;
    decoder->text = (sp_bytes){0};
done:
    sp_decoder_free(decoder);
    return status;
}
