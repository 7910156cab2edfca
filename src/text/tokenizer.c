/* Tokenizers: sentencepiece models, opened and used.  Training: tokenizer_train.c.
 *
 * A long text is encoded in chunks that are cut before newlines, in parallel, and each chunk word by word:
 * sentencepiece's time per byte grows with the length of its input (1 MB/s for 4 MB at once, 4 MB/s line by line),
 * and most words were met before.  The result is that of the whole text when a newline is always a byte piece, as in
 * LLaMA's vocabulary: then no piece reaches over it.  A chunk that begins with a newline gets the dummy space that
 * belongs to the beginning of a text; its tokens, known from encoding a lone newline, are dropped.  Models of other
 * kinds (`cuts` is false) encode each text as a whole. */
#define _GNU_SOURCE
#include "text/tokenizer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "text/hash.h"
#include "text/sentencepiece_shim.h"
#include "text/word_encoder.h"

enum { CHUNK_BYTES = 4096 };

struct sp_tokenizer {
    sp_sentencepiece *model;
    char *path;
    int64_t vocabulary;
    uint64_t hash;
    bool cuts;      /* text may be cut before newlines */
    bool words;     /* words may be encoded apart as well */
    int32_t *dummy; /* n_dummy tokens of the dummy space before a newline that begins a text, and the newline */
    int64_t n_dummy;
};

/* ---- opening ---- */

static bool is_newline(const sp_tokenizer *tokenizer, int32_t id) {
    return sp_sentencepiece_is_byte(tokenizer->model, id) &&
           strcmp(sp_sentencepiece_piece(tokenizer->model, id), "<0x0A>") == 0;
}

static bool some_piece_holds_newline(const sp_tokenizer *tokenizer) {
    for (int64_t id = 0; id < tokenizer->vocabulary; id++)
        if (strchr(sp_sentencepiece_piece(tokenizer->model, (int32_t)id), '\n')) return true;
    return false;
}

/* Spaces around the newline must stay as they are: a normalizer that trims would trim at each cut. */
static sp_status find_cuts(sp_tokenizer *tokenizer) {
    static const char probe[] = "a  \n  \n b";
    enum { N_HEAD = 3 };
    int32_t *whole = NULL, *head = NULL, *tail = NULL;
    int64_t n_lone, n_whole, n_head, n_tail;
    sp_status status = SP_OK;
    const sp_sentencepiece *model = tokenizer->model;
    SP_TRY_OR_DONE(sp_sentencepiece_encode(model, "\n", 1, &tokenizer->dummy, &n_lone));
    if (n_lone == 0 || !is_newline(tokenizer, tokenizer->dummy[n_lone - 1]) || some_piece_holds_newline(tokenizer))
        goto done;
    tokenizer->n_dummy = n_lone - 1;
    SP_TRY_OR_DONE(sp_sentencepiece_encode(model, probe, sizeof probe - 1, &whole, &n_whole));
    SP_TRY_OR_DONE(sp_sentencepiece_encode(model, probe, N_HEAD, &head, &n_head));
    SP_TRY_OR_DONE(sp_sentencepiece_encode(model, probe + N_HEAD, sizeof probe - 1 - N_HEAD, &tail, &n_tail));
    int64_t n_rest = n_tail - tokenizer->n_dummy;
    tokenizer->cuts = n_head + n_rest == n_whole && memcmp(whole, head, (size_t)n_head * sizeof *whole) == 0 &&
                      memcmp(whole + n_head, tail + tokenizer->n_dummy, (size_t)n_rest * sizeof *whole) == 0;
    tokenizer->words = tokenizer->cuts && sp_words_stand_apart(model);
done:
    free(whole);
    free(head);
    free(tail);
    return status;
}

static sp_status load(sp_tokenizer *tokenizer) {
    char *bytes;
    int64_t n_bytes;
    SP_TRY(sp_file_read(tokenizer->path, &bytes, &n_bytes));
    tokenizer->hash = sp_hash_bytes(0, bytes, n_bytes);
    sp_status status = n_bytes == 0 ? sp_fail(SP_BAD_FILE, "%s: the file is empty", tokenizer->path)
                                    : sp_sentencepiece_open(&tokenizer->model, bytes, n_bytes, tokenizer->path);
    free(bytes);
    SP_TRY(status);
    tokenizer->vocabulary = sp_sentencepiece_vocabulary(tokenizer->model);
    return find_cuts(tokenizer);
}

sp_status sp_tokenizer_open(sp_tokenizer **out, const char *path) {
    *out = NULL;
    SP_REQUIRE(path, SP_BAD_ARGUMENT, "the path of the tokenizer is NULL");
    char inside[4096];
    if (sp_folder_exists(path)) {
        SP_TRY(sp_path_join(inside, sizeof inside, path, "tokenizer.model"));
        path = inside;
    }
    sp_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (tokenizer) tokenizer->path = strdup(path);
    sp_status status = SP_OK;
    SP_REQUIRE_OR_DONE(tokenizer && tokenizer->path, SP_OUT_OF_MEMORY, "%s: no memory to read it", path);
    SP_TRY_OR_DONE(load(tokenizer));
    *out = tokenizer;
    tokenizer = NULL;
done:
    sp_tokenizer_free(tokenizer);
    return status;
}

void sp_tokenizer_free(sp_tokenizer *tokenizer) {
    if (!tokenizer) return;
    sp_sentencepiece_free(tokenizer->model);
    free(tokenizer->path);
    free(tokenizer->dummy);
    free(tokenizer);
}

/* ---- facts ---- */

const char *sp_tokenizer_path(const sp_tokenizer *tokenizer) { return tokenizer->path; }

int64_t sp_tokenizer_vocabulary(const sp_tokenizer *tokenizer) { return tokenizer->vocabulary; }

int32_t sp_tokenizer_bos(const sp_tokenizer *tokenizer) { return sp_sentencepiece_bos(tokenizer->model); }

int32_t sp_tokenizer_eos(const sp_tokenizer *tokenizer) { return sp_sentencepiece_eos(tokenizer->model); }

const char *sp_tokenizer_piece(const sp_tokenizer *tokenizer, int32_t id) {
    return id >= 0 && id < tokenizer->vocabulary ? sp_sentencepiece_piece(tokenizer->model, id) : NULL;
}

bool sp_tokenizer_cuts_at_newlines(const sp_tokenizer *tokenizer) { return tokenizer->cuts; }

uint64_t sp_tokenizer_hash(const sp_tokenizer *tokenizer) { return tokenizer->hash; }

/* ---- encoding ---- */

/* A chunk is an encoding of its own; `owner` is the item it is part of. */
typedef struct chunks {
    sp_encoding *items;
    int64_t *owners;
    int64_t n, capacity;
} chunks;

static sp_status add_chunk(chunks *list, const sp_encoding *chunk, int64_t owner) {
    if (list->n == list->capacity) {
        int64_t capacity = list->capacity ? 2 * list->capacity : 64;
        sp_encoding *items = realloc(list->items, (size_t)capacity * sizeof *items);
        if (items) list->items = items;
        int64_t *owners = items ? realloc(list->owners, (size_t)capacity * sizeof *owners) : NULL;
        SP_REQUIRE(owners, SP_OUT_OF_MEMORY, "encoding: no memory for %" PRId64 " chunks", capacity);
        list->owners = owners;
        list->capacity = capacity;
    }
    list->items[list->n] = *chunk;
    list->owners[list->n++] = owner;
    return SP_OK;
}

/* Bytes of the first chunk of a text: up to the first newline from CHUNK_BYTES on. */
static int64_t first_chunk(const sp_tokenizer *tokenizer, const char *text, int64_t n_bytes) {
    if (!tokenizer->cuts || n_bytes <= CHUNK_BYTES) return n_bytes;
    const char *newline = memchr(text + CHUNK_BYTES, '\n', (size_t)(n_bytes - CHUNK_BYTES));
    return newline ? newline - text : n_bytes;
}

static sp_status cut_item(const sp_tokenizer *tokenizer, const sp_encoding *item, int64_t owner, chunks *list) {
    for (int64_t at = 0; at < item->n_bytes;) {
        int64_t n = first_chunk(tokenizer, item->text + at, item->n_bytes - at);
        sp_encoding chunk = {.text = item->text + at, .n_bytes = n, .continues = at > 0 || item->continues};
        SP_TRY(add_chunk(list, &chunk, owner));
        at += n;
    }
    return SP_OK;
}

/* Without the dummy space, if the chunk continues a text. */
static sp_status encode_chunk(const sp_tokenizer *tokenizer, sp_word_encoder *words, sp_encoding *chunk) {
    if (words)
        return sp_word_encoder_encode(words, chunk->text, chunk->n_bytes, chunk->continues, &chunk->tokens,
                                      &chunk->n_tokens);
    SP_TRY(sp_sentencepiece_encode(tokenizer->model, chunk->text, chunk->n_bytes, &chunk->tokens, &chunk->n_tokens));
    if (!chunk->continues) return SP_OK;
    chunk->n_tokens -= tokenizer->n_dummy;
    memmove(chunk->tokens, chunk->tokens + tokenizer->n_dummy, (size_t)chunk->n_tokens * sizeof *chunk->tokens);
    return SP_OK;
}

/* Messages belong to threads: `problem` carries the first thread's that fails to the caller's. */
static sp_status encode_chunks(const sp_tokenizer *tokenizer, chunks *list) {
    sp_status result = SP_OK;
    char problem[1024];
#pragma omp parallel if (list->n > 16)
    {
        sp_word_encoder *words = NULL;
        sp_status status = SP_OK;
        if (tokenizer->words)
            status = sp_word_encoder_new(&words, tokenizer->model, tokenizer->dummy, tokenizer->n_dummy);
#pragma omp for schedule(dynamic, 16)
        for (int64_t i = 0; i < list->n; i++)
            if (status == SP_OK) status = encode_chunk(tokenizer, words, &list->items[i]);
        sp_word_encoder_free(words);
#pragma omp critical
        if (status != SP_OK && result == SP_OK) {
            result = status;
            snprintf(problem, sizeof problem, "%s", sp_last_message());
        }
    }
    return result == SP_OK ? SP_OK : sp_fail(result, "%s", problem);
}

static sp_status join_chunks(const chunks *list, sp_encoding *items) {
    for (int64_t i = 0, next; i < list->n; i = next) {
        sp_encoding *item = &items[list->owners[i]];
        int64_t n = 0;
        for (next = i; next < list->n && list->owners[next] == list->owners[i]; next++) n += list->items[next].n_tokens;
        item->tokens = malloc((size_t)(n + 1) * sizeof *item->tokens);
        SP_REQUIRE(item->tokens, SP_OUT_OF_MEMORY, "encoding: no memory for %" PRId64 " tokens", n);
        for (int64_t k = i; k < next; k++) {
            const sp_encoding *chunk = &list->items[k];
            if (chunk->n_tokens > 0)
                memcpy(item->tokens + item->n_tokens, chunk->tokens, (size_t)chunk->n_tokens * sizeof *item->tokens);
            item->n_tokens += chunk->n_tokens;
        }
    }
    return SP_OK;
}

sp_status sp_tokenizer_encode_all(const sp_tokenizer *tokenizer, sp_encoding *items, int64_t n) {
    chunks list = {0};
    sp_status status = SP_OK;
    for (int64_t i = 0; i < n; i++) {
        items[i].tokens = NULL;
        items[i].n_tokens = 0;
    }
    for (int64_t i = 0; i < n; i++) SP_TRY_OR_DONE(cut_item(tokenizer, &items[i], i, &list));
    SP_TRY_OR_DONE(encode_chunks(tokenizer, &list));
    SP_TRY_OR_DONE(join_chunks(&list, items));
done:
    for (int64_t i = 0; i < list.n; i++) free(list.items[i].tokens);
    free(list.items);
    free(list.owners);
    return status;
}

sp_status sp_tokenizer_encode(const sp_tokenizer *tokenizer, const char *text, int64_t n_bytes, int32_t **tokens,
                              int64_t *n_tokens) {
    *tokens = NULL;
    *n_tokens = 0;
    SP_REQUIRE(tokenizer && n_bytes >= 0 && (text || n_bytes == 0), SP_BAD_ARGUMENT,
               "encoding: no tokenizer or no text");
    sp_encoding item = {.text = text, .n_bytes = n_bytes};
    sp_status status = sp_tokenizer_encode_all(tokenizer, &item, 1);
    if (status == SP_OK && !item.tokens) item.tokens = calloc(1, sizeof *item.tokens);
    if (status == SP_OK && !item.tokens) status = sp_fail(SP_OUT_OF_MEMORY, "encoding: no memory");
    if (status != SP_OK) {
        free(item.tokens);
        return status;
    }
    *tokens = item.tokens;
    *n_tokens = item.n_tokens;
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
    return sp_sentencepiece_decode(tokenizer->model, tokens, n_tokens, text, n_bytes);
}
