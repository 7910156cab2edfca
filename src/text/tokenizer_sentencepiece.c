/* sentencepiece models, used through their library.
 *
 * sentencepiece's time per byte grows with the length of its input (1 MB/s for 4 MB at once, 4 MB/s line by line), and
 * most words were met before: a text is encoded in chunks, and each chunk word by word.  The result is that of the whole
 * text when a newline is always a byte piece, as in LLaMA's vocabulary: then no piece reaches over it.  A chunk that
 * begins with a newline gets the dummy space that belongs to the beginning of a text; its tokens, known from encoding a
 * lone newline, are dropped.  Models of other kinds (`cuts` is false) encode each text as a whole. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "text/added_tokens.h"
#include "text/sentencepiece_model.h"
#include "text/sentencepiece_shim.h"
#include "text/tokenizer.h"
#include "text/word_encoder.h"

typedef struct model {
    sp_sentencepiece *library;
    sp_sentencepiece_facts facts;
    char *bytes, *texts;      /* of the file; of the pieces, with zeros */
    sp_added_tokens *special; /* control pieces as they stand in a text */
    bool cuts;                /* text may be cut before newlines */
    bool words;               /* words may be encoded apart as well */
    int32_t *dummy; /* n_dummy tokens of the dummy space before a newline that begins a text, and the newline */
    int64_t n_dummy;
} model;

/* ---- where texts may be cut ---- */

static bool is_newline(const model *m, int32_t id) {
    return sp_sentencepiece_is_byte(m->library, id) && strcmp(sp_sentencepiece_piece(m->library, id), "<0x0A>") == 0;
}

static bool some_piece_holds_newline(const model *m) {
    for (int64_t id = 0; id < m->facts.n_pieces; id++)
        if (memchr(m->facts.pieces[id].text, '\n', (size_t)m->facts.pieces[id].n_bytes)) return true;
    return false;
}

/* Spaces around the newline must stay as they are: a normalizer that trims would trim at each cut. */
static sp_status find_cuts(model *m) {
    static const char probe[] = "a  \n  \n b";
    enum { N_HEAD = 3 };
    int32_t *whole = NULL, *head = NULL, *tail = NULL;
    int64_t n_lone, n_whole, n_head, n_tail;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_sentencepiece_encode(m->library, "\n", 1, &m->dummy, &n_lone));
    if (n_lone == 0 || !is_newline(m, m->dummy[n_lone - 1]) || some_piece_holds_newline(m)) goto done;
    m->n_dummy = n_lone - 1;
    SP_TRY_OR_DONE(sp_sentencepiece_encode(m->library, probe, sizeof probe - 1, &whole, &n_whole));
    SP_TRY_OR_DONE(sp_sentencepiece_encode(m->library, probe, N_HEAD, &head, &n_head));
    SP_TRY_OR_DONE(sp_sentencepiece_encode(m->library, probe + N_HEAD, sizeof probe - 1 - N_HEAD, &tail, &n_tail));
    int64_t n_rest = n_tail - m->n_dummy;
    m->cuts = n_rest >= 0 && n_head + n_rest == n_whole && memcmp(whole, head, (size_t)n_head * sizeof *whole) == 0 &&
              memcmp(whole + n_head, tail + m->n_dummy, (size_t)n_rest * sizeof *whole) == 0;
    m->words = m->cuts && sp_words_stand_apart(m->library);
done:
    free(whole);
    free(head);
    free(tail);
    return status;
}

/* ---- encoding ---- */

typedef struct worker {
    const model *model;
    sp_word_encoder *words; /* NULL where words do not stand apart */
} worker;

static void worker_free(void *of) {
    worker *w = of;
    if (!w) return;
    sp_word_encoder_free(w->words);
    free(w);
}

static sp_status worker_new(void **out, const void *of) {
    const model *m = of;
    *out = NULL;
    worker *w = calloc(1, sizeof *w);
    SP_REQUIRE(w, SP_OUT_OF_MEMORY, "encoding: no memory");
    w->model = m;
    sp_status status = m->words ? sp_word_encoder_new(&w->words, m->library, m->dummy, m->n_dummy) : SP_OK;
    if (status == SP_OK)
        *out = w;
    else
        free(w);
    return status;
}

/* All tokens but the first `skip`. */
static sp_status add_behind(sp_token_list *out, const int32_t *tokens, int64_t n, int64_t skip) {
    return n > skip ? sp_token_list_add(out, tokens + skip, n - skip) : SP_OK;
}

/* Text behind a special piece, without the dummy space: it is encoded behind a newline, over which no piece reaches. */
static sp_status encode_behind(const worker *w, const char *text, int64_t n_bytes, sp_token_list *out) {
    int32_t *tokens;
    int64_t n;
    sp_bytes line = {0};
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_bytes_add(&line, "\n", 1));
    SP_TRY_OR_DONE(sp_bytes_add(&line, text, n_bytes));
    SP_TRY_OR_DONE(sp_sentencepiece_encode(w->model->library, line.data, line.n, &tokens, &n));
    status = add_behind(out, tokens, n, w->model->n_dummy + 1);
    free(tokens);
done:
    sp_bytes_free(&line);
    return status;
}

/* Without the dummy space, if the text continues another that ended before a newline. */
static sp_status encode_text(const worker *w, const char *text, int64_t n_bytes, bool continues, sp_token_list *out) {
    if (w->words) return sp_word_encoder_encode(w->words, text, n_bytes, continues, out);
    int32_t *tokens;
    int64_t n;
    SP_TRY(sp_sentencepiece_encode(w->model->library, text, n_bytes, &tokens, &n));
    sp_status status = add_behind(out, tokens, n, continues ? w->model->n_dummy : 0);
    free(tokens);
    return status;
}

static sp_status encode(void *of, const sp_encoding *item, sp_token_list *out) {
    const worker *w = of;
    sp_section_walk walk = {.set = item->flags & SP_ENCODE_SPECIAL ? w->model->special : NULL,
                            .text = item->text,
                            .n_bytes = item->n_bytes,
                            .special = true};
    for (sp_section section; sp_section_next(&walk, &section);) {
        const char *text = item->text + section.begin;
        int64_t n_bytes = section.end - section.begin;
        if (section.id >= 0)
            SP_TRY(sp_token_list_add(out, &section.id, 1));
        else if (section.begin > 0 && w->model->cuts)
            SP_TRY(encode_behind(w, text, n_bytes, out));
        else
            SP_TRY(encode_text(w, text, n_bytes, item->continues && section.begin == 0, out));
    }
    return SP_OK;
}

/* ---- opening ---- */

static void model_free(void *of) {
    model *m = of;
    if (!m) return;
    sp_sentencepiece_free(m->library);
    sp_sentencepiece_facts_free(&m->facts);
    sp_added_tokens_free(m->special);
    free(m->bytes);
    free(m->texts);
    free(m->dummy);
    free(m);
}

static const sp_tokenizer_kind kind = {"sentencepiece", model_free, worker_new, worker_free, encode};

static sp_status find_special(model *m) {
    sp_added_token *special = calloc((size_t)m->facts.n_pieces, sizeof *special);
    SP_REQUIRE(special, SP_OUT_OF_MEMORY, "no memory for the control pieces");
    int64_t n = 0;
    for (int64_t id = 0; id < m->facts.n_pieces; id++) {
        const sp_piece *piece = &m->facts.pieces[id];
        if (piece->type == SP_PIECE_CONTROL || piece->type == SP_PIECE_UNKNOWN)
            special[n++] =
                (sp_added_token){.text = piece->text, .n_bytes = piece->n_bytes, .id = (int32_t)id, .special = true};
    }
    sp_status status = sp_added_tokens_new(&m->special, special, n);
    free(special);
    return status;
}

/* The pieces' texts with zeros behind them, and behind those what an unknown piece decodes to. */
static sp_status list_tokens(sp_tokenizer *tokenizer, model *m) {
    const sp_sentencepiece_facts *facts = &m->facts;
    int64_t n_bytes = facts->n_unk_surface + 1;
    for (int64_t id = 0; id < facts->n_pieces; id++) n_bytes += facts->pieces[id].n_bytes + 1;
    m->texts = calloc((size_t)n_bytes, 1);
    tokenizer->tokens = calloc((size_t)facts->n_pieces, sizeof *tokenizer->tokens);
    SP_REQUIRE(m->texts && tokenizer->tokens, SP_OUT_OF_MEMORY, "%s: no memory for its pieces", tokenizer->path);
    char *at = m->texts;
    memcpy(at, facts->unk_surface, (size_t)facts->n_unk_surface);
    at += facts->n_unk_surface + 1;
    for (int64_t id = 0; id < facts->n_pieces; id++) {
        const sp_piece *piece = &facts->pieces[id];
        memcpy(at, piece->text, (size_t)piece->n_bytes);
        tokenizer->tokens[id] = (sp_token){.text = at,
                                           .n_bytes = piece->n_bytes,
                                           .surface = piece->type == SP_PIECE_UNKNOWN ? m->texts : NULL,
                                           .special = piece->type == SP_PIECE_CONTROL};
        at += piece->n_bytes + 1;
    }
    tokenizer->vocabulary = facts->n_pieces;
    return SP_OK;
}

static sp_status open_model(model *m, const sp_tokenizer *tokenizer, const char *bytes, int64_t n_bytes) {
    m->bytes = malloc((size_t)n_bytes);
    SP_REQUIRE(m->bytes, SP_OUT_OF_MEMORY, "%s: no memory to read it", tokenizer->path);
    memcpy(m->bytes, bytes, (size_t)n_bytes);
    SP_TRY(sp_sentencepiece_facts_read(&m->facts, m->bytes, n_bytes, tokenizer->path));
    SP_REQUIRE(m->facts.n_denormalizer == 0, SP_UNSUPPORTED,
               "%s: rewrites decoded text by rules, which is not supported", tokenizer->path);
    SP_TRY(sp_sentencepiece_open(&m->library, bytes, n_bytes, tokenizer->path));
    SP_REQUIRE(sp_sentencepiece_vocabulary(m->library) == m->facts.n_pieces, SP_BAD_FILE,
               "%s: not a sentencepiece model: its pieces are read in two ways", tokenizer->path);
    return SP_OK;
}

sp_status sp_tokenizer_load_sentencepiece(sp_tokenizer *tokenizer, const char *bytes, int64_t n_bytes) {
    model *m = calloc(1, sizeof *m);
    SP_REQUIRE(m, SP_OUT_OF_MEMORY, "%s: no memory to read it", tokenizer->path);
    tokenizer->kind = &kind;
    tokenizer->model = m;
    SP_TRY(open_model(m, tokenizer, bytes, n_bytes));
    SP_TRY(find_cuts(m));
    SP_TRY(find_special(m));
    SP_TRY(list_tokens(tokenizer, m));
    tokenizer->cuts = m->cuts;
    tokenizer->bos = sp_sentencepiece_bos(m->library);
    tokenizer->eos = sp_sentencepiece_eos(m->library);
    bool drops = m->facts.add_dummy_prefix || m->facts.remove_extra_whitespaces;
    tokenizer->decoding.steps[0] = (sp_decode_step){.kind = SP_DECODE_PIECES,
                                                    .mark = "\xe2\x96\x81",
                                                    .start = !drops                              ? 0
                                                             : m->facts.remove_extra_whitespaces ? 2
                                                                                                 : 1};
    tokenizer->decoding.n_steps = 1;
    return tokenizer->bos >= 0 ? sp_token_list_add(&tokenizer->before, &tokenizer->bos, 1) : SP_OK;
}

/* ---- as pieces ---- */

/* BPE on text that is taken as it is, spaces marked. */
static bool is_plain(const sp_sentencepiece_facts *facts) {
    return facts->algorithm == SP_SENTENCEPIECE_BPE && facts->n_charsmap == 0 && facts->escape_whitespaces;
}

void sp_tokenizer_sentencepieces(const sp_tokenizer *tokenizer, sp_pieces *pieces) {
    *pieces = (sp_pieces){0};
    const model *m = tokenizer->model;
    if (tokenizer->kind != &kind || !is_plain(&m->facts)) return;
    int64_t pad = m->facts.pad < m->facts.n_pieces ? m->facts.pad : -1;
    *pieces = (sp_pieces){.kind = SP_PIECES_SENTENCEPIECE,
                          .items = m->facts.pieces,
                          .n = m->facts.n_pieces,
                          .bos = tokenizer->bos,
                          .eos = tokenizer->eos,
                          .unk = -1,
                          .pad = (int32_t)(pad < 0 ? -1 : pad),
                          .add_bos = tokenizer->before.n > 0,
                          .add_eos = tokenizer->after.n > 0,
                          .add_space_prefix = m->facts.add_dummy_prefix,
                          .remove_extra_spaces = m->facts.remove_extra_whitespaces};
    for (int64_t id = 0; id < pieces->n; id++)
        if (pieces->items[id].type == SP_PIECE_UNKNOWN) pieces->unk = (int32_t)id;
}
