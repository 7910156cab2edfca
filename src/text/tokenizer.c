/* Tokenizers of every kind: opening, facts, and encoding by several threads.
 *
 * A long text is encoded in chunks that are cut before newlines, where the kind allows that; chunks and texts are spread
 * over threads, each with a worker of its own.  Workers are kept for the next call, as they remember words. */
#define _GNU_SOURCE
#include "text/tokenizer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "text/hash.h"
#include "text/pieces.h"

enum { CHUNK_BYTES = 4096, THREADS_BYTES = 1 << 16 }; /* threads pay from so many bytes on */

/* ---- opening ---- */

/* Files that a folder is searched for, first found first. */
static const char *const names[] = {"tokenizer.json", "tokenizer.model", "tokenizer.bin"};
enum { N_NAMES = sizeof names / sizeof *names };

typedef struct file_bytes {
    const char *data;
    int64_t n;
} file_bytes;

static sp_status load_json(sp_tokenizer *tokenizer, file_bytes bytes) {
    json_t *json;
    tokenizer->hash = sp_hash_bytes(0, bytes.data, bytes.n);
    SP_TRY(sp_json_parse(&json, bytes.data, bytes.n, tokenizer->path));
    sp_status status = sp_tokenizer_load_json(tokenizer, json);
    json_decref(json);
    return status;
}

/* Keeps the trees: they are what is saved, and what the fingerprint is of. */
static sp_status load_pieces(sp_tokenizer *tokenizer, const sp_pieces *pieces) {
    char *text;
    SP_TRY(sp_pieces_to_json(&tokenizer->json, &tokenizer->config, pieces, tokenizer->path));
    SP_TRY(sp_tokenizer_load_json(tokenizer, tokenizer->json));
    SP_TRY(sp_json_format(&text, tokenizer->json, 0));
    tokenizer->hash = sp_hash_bytes(0, text, (int64_t)strlen(text));
    free(text);
    return SP_OK;
}

static sp_status load_bin(sp_tokenizer *tokenizer, file_bytes bytes) {
    sp_pieces_file file;
    SP_TRY(sp_pieces_read_bin(&file, bytes.data, bytes.n, tokenizer->path));
    sp_status status = load_pieces(tokenizer, &file.pieces);
    sp_pieces_file_free(&file);
    return status;
}

static sp_status load_gguf(sp_tokenizer *tokenizer, file_bytes bytes) {
    sp_pieces_file file;
    SP_TRY(sp_pieces_read_gguf(&file, bytes.data, bytes.n, tokenizer->path));
    sp_status status = load_pieces(tokenizer, &file.pieces);
    sp_pieces_file_free(&file);
    return status;
}

static sp_status load_sentencepiece(sp_tokenizer *tokenizer, file_bytes bytes) {
    tokenizer->hash = sp_hash_bytes(0, bytes.data, bytes.n);
    return sp_tokenizer_load_sentencepiece(tokenizer, bytes.data, bytes.n);
}

static bool is_gguf(file_bytes bytes) { return bytes.n >= 4 && memcmp(bytes.data, "GGUF", 4) == 0; }

static bool is_json(file_bytes bytes) {
    int64_t at = 0;
    while (at < bytes.n && strchr(" \t\r\n", bytes.data[at]) && bytes.data[at]) at++;
    return at < bytes.n && bytes.data[at] == '{';
}

/* It begins with the length of the longest piece in four bytes, sentencepiece's with a piece that is not empty. */
static bool is_bin(file_bytes bytes) {
    return bytes.n >= 4 && bytes.data[1] == 0 && bytes.data[2] == 0 && bytes.data[3] == 0;
}

static bool is_anything(file_bytes bytes) { return bytes.n > 0; }

/* What a file is, its first bytes tell. */
static const struct {
    bool (*is)(file_bytes bytes);
    sp_status (*load)(sp_tokenizer *tokenizer, file_bytes bytes);
} formats[] = {
    {is_gguf, load_gguf},
    {is_json, load_json},
    {is_bin, load_bin},
    {is_anything, load_sentencepiece},
};

/* The tokenizer_config.json beside the file; NULL when there is none.  Files of pieces tell themselves what it would. */
static sp_status read_config(json_t **config, const char *path) {
    static const char name[] = "tokenizer_config.json";
    *config = NULL;
    char beside[4096];
    const char *slash = strrchr(path, '/');
    int n_folder = slash ? (int)(slash - path) + 1 : 0;
    int n = snprintf(beside, sizeof beside, "%.*s%s", n_folder, path, name);
    if (n >= (int)sizeof beside || !sp_file_exists(beside)) return SP_OK;
    SP_TRY(sp_json_read(config, beside));
    if (json_is_object(*config)) return SP_OK;
    json_decref(*config);
    *config = NULL;
    return sp_fail(SP_BAD_FILE, "%s: it is no object", beside);
}

static sp_status load(sp_tokenizer *tokenizer) {
    sp_file_map map;
    SP_TRY(sp_file_map_open(&map, tokenizer->path));
    file_bytes bytes = {(const char *)map.data, map.n_bytes};
    sp_status status = SP_OK;
    SP_REQUIRE_OR_DONE(bytes.n > 0, SP_BAD_FILE, "%s: the file is empty", tokenizer->path);
    int kind = 0;
    while (!formats[kind].is(bytes)) kind++;
    SP_TRY_OR_DONE(formats[kind].load(tokenizer, bytes));
    if (!tokenizer->config) SP_TRY_OR_DONE(read_config(&tokenizer->config, tokenizer->path));
    status = sp_tokenizer_read_special(tokenizer, tokenizer->config);
done:
    sp_file_map_close(&map);
    return status;
}

static sp_status find_file(char *path, int64_t path_bytes, const char *folder) {
    for (int i = 0; i < N_NAMES; i++) {
        SP_TRY(sp_path_join(path, path_bytes, folder, names[i]));
        if (sp_file_exists(path)) return SP_OK;
    }
    return sp_fail(SP_IO, "%s: holds no tokenizer.json, tokenizer.model or tokenizer.bin", folder);
}

sp_status sp_tokenizer_open(sp_tokenizer **out, const char *path) {
    *out = NULL;
    SP_REQUIRE(path, SP_BAD_ARGUMENT, "the path of the tokenizer is NULL");
    char inside[4096];
    if (sp_folder_exists(path)) {
        SP_TRY(find_file(inside, sizeof inside, path));
        path = inside;
    }
    sp_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    SP_REQUIRE(tokenizer, SP_OUT_OF_MEMORY, "%s: no memory to read it", path);
    tokenizer->bos = tokenizer->eos = -1;
    tokenizer->path = strdup(path);
    tokenizer->pool = calloc(1, sizeof *tokenizer->pool);
    if (tokenizer->pool) pthread_mutex_init(&tokenizer->pool->lock, NULL);
    sp_status status = SP_OK;
    SP_REQUIRE_OR_DONE(tokenizer->path && tokenizer->pool, SP_OUT_OF_MEMORY, "%s: no memory to read it", path);
    SP_TRY_OR_DONE(load(tokenizer));
    *out = tokenizer;
    tokenizer = NULL;
done:
    sp_tokenizer_free(tokenizer);
    return status;
}

void sp_tokenizer_free(sp_tokenizer *tokenizer) {
    if (!tokenizer) return;
    sp_worker_pool *pool = tokenizer->pool;
    for (int i = 0; pool && i < pool->n; i++) tokenizer->kind->worker_free(pool->workers[i]);
    if (tokenizer->kind) tokenizer->kind->free(tokenizer->model);
    if (pool) pthread_mutex_destroy(&pool->lock);
    free(pool);
    sp_decoding_free(&tokenizer->decoding);
    json_decref(tokenizer->json);
    json_decref(tokenizer->config);
    free(tokenizer->before.items);
    free(tokenizer->after.items);
    free(tokenizer->tokens);
    free(tokenizer->path);
    free(tokenizer);
}

/* ---- facts ---- */

const char *sp_tokenizer_path(const sp_tokenizer *tokenizer) { return tokenizer->path; }

int64_t sp_tokenizer_vocabulary(const sp_tokenizer *tokenizer) { return tokenizer->vocabulary; }

int32_t sp_tokenizer_bos(const sp_tokenizer *tokenizer) { return tokenizer->bos; }

int32_t sp_tokenizer_eos(const sp_tokenizer *tokenizer) { return tokenizer->eos; }

const char *sp_tokenizer_piece(const sp_tokenizer *tokenizer, int32_t id) {
    return id >= 0 && id < tokenizer->vocabulary ? tokenizer->tokens[id].text : NULL;
}

bool sp_tokenizer_cuts_at_newlines(const sp_tokenizer *tokenizer) { return tokenizer->cuts; }

uint64_t sp_tokenizer_hash(const sp_tokenizer *tokenizer) { return tokenizer->hash; }

/* ---- workers ---- */

static sp_status take_worker(const sp_tokenizer *tokenizer, void **worker) {
    sp_worker_pool *pool = tokenizer->pool;
    *worker = NULL;
    pthread_mutex_lock(&pool->lock);
    if (pool->n > 0) *worker = pool->workers[--pool->n];
    pthread_mutex_unlock(&pool->lock);
    return *worker ? SP_OK : tokenizer->kind->worker_new(worker, tokenizer->model);
}

static void give_worker(const sp_tokenizer *tokenizer, void *worker) {
    sp_worker_pool *pool = tokenizer->pool;
    pthread_mutex_lock(&pool->lock);
    if (worker && pool->n < SP_WORKERS_MAX) {
        pool->workers[pool->n++] = worker;
        worker = NULL;
    }
    pthread_mutex_unlock(&pool->lock);
    if (worker) tokenizer->kind->worker_free(worker);
}

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

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* Bytes of the first chunk of a text: up to the first newline from CHUNK_BYTES on where it may be cut. */
static int64_t first_chunk(const sp_tokenizer *tokenizer, const sp_encoding *item, int64_t at) {
    int64_t n_bytes = item->n_bytes - at;
    const char *text = item->text + at, *end = text + n_bytes;
    if (!tokenizer->cuts && !tokenizer->cuts_after_letters) return n_bytes;
    for (const char *from = text + CHUNK_BYTES; from < end; from++) {
        from = memchr(from, '\n', (size_t)(end - from));
        if (!from) break;
        if (tokenizer->cuts || is_letter(from[-1])) return from - text;
    }
    return n_bytes;
}

static sp_status cut_item(const sp_tokenizer *tokenizer, const sp_encoding *item, int64_t owner, chunks *list) {
    for (int64_t at = 0; at < item->n_bytes;) {
        int64_t n = first_chunk(tokenizer, item, at);
        sp_encoding chunk = {
            .text = item->text + at, .n_bytes = n, .continues = at > 0 || item->continues, .flags = item->flags};
        SP_TRY(add_chunk(list, &chunk, owner));
        at += n;
    }
    return SP_OK;
}

static sp_status encode_chunk(const sp_tokenizer *tokenizer, void *worker, sp_encoding *chunk) {
    sp_token_list tokens = {0};
    sp_status status = tokenizer->kind->encode(worker, chunk, &tokens);
    chunk->tokens = tokens.items;
    chunk->n_tokens = tokens.n;
    return status;
}

/* Messages belong to threads: `problem` carries the first thread's that fails to the caller's. */
static sp_status encode_chunks(const sp_tokenizer *tokenizer, chunks *list) {
    sp_status result = SP_OK;
    char problem[1024];
    int64_t n_bytes = 0;
    for (int64_t i = 0; i < list->n; i++) n_bytes += list->items[i].n_bytes;
#pragma omp parallel if (list->n > 1 && n_bytes > THREADS_BYTES)
    {
        void *worker;
        sp_status status = take_worker(tokenizer, &worker);
#pragma omp for schedule(dynamic, 4)
        for (int64_t i = 0; i < list->n; i++)
            if (status == SP_OK) status = encode_chunk(tokenizer, worker, &list->items[i]);
        give_worker(tokenizer, worker);
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
                memcpy(item->tokens + item->n_tokens, chunk->tokens, (size_t)chunk->n_tokens * sizeof *chunk->tokens);
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

/* Puts the template around an item's tokens, where it is asked for, and hands them over. */
static sp_status finish_item(const sp_tokenizer *tokenizer, unsigned flags, sp_encoding *item, sp_tokens *out) {
    const sp_token_list none = {0};
    const sp_token_list *before = flags & SP_ENCODE_TEMPLATE ? &tokenizer->before : &none;
    const sp_token_list *after = flags & SP_ENCODE_TEMPLATE ? &tokenizer->after : &none;
    int64_t n = before->n + item->n_tokens + after->n;
    int32_t *tokens = realloc(item->tokens, (size_t)(n + 1) * sizeof *tokens);
    SP_REQUIRE(tokens, SP_OUT_OF_MEMORY, "encoding: no memory for %" PRId64 " tokens", n);
    item->tokens = NULL;
    memmove(tokens + before->n, tokens, (size_t)item->n_tokens * sizeof *tokens);
    if (before->n > 0) memcpy(tokens, before->items, (size_t)before->n * sizeof *tokens);
    if (after->n > 0) memcpy(tokens + n - after->n, after->items, (size_t)after->n * sizeof *tokens);
    *out = (sp_tokens){tokens, n};
    return SP_OK;
}

sp_status sp_tokenizer_encode_many(const sp_tokenizer *tokenizer, const char *const *texts, const int64_t *n_bytes,
                                   int64_t n, unsigned flags, sp_tokens *out) {
    for (int64_t i = 0; i < n; i++) out[i] = (sp_tokens){0};
    SP_REQUIRE(tokenizer && n >= 0 && (n == 0 || (texts && n_bytes)), SP_BAD_ARGUMENT,
               "encoding: no tokenizer or no text");
    for (int64_t i = 0; i < n; i++)
        SP_REQUIRE(n_bytes[i] >= 0 && (texts[i] || n_bytes[i] == 0), SP_BAD_ARGUMENT,
                   "encoding: text %" PRId64 " is NULL or of negative length", i);
    sp_encoding *items = calloc((size_t)n + 1, sizeof *items);
    SP_REQUIRE(items, SP_OUT_OF_MEMORY, "encoding: no memory for %" PRId64 " texts", n);
    sp_status status = SP_OK;
    for (int64_t i = 0; i < n; i++) items[i] = (sp_encoding){.text = texts[i], .n_bytes = n_bytes[i], .flags = flags};
    SP_TRY_OR_DONE(sp_tokenizer_encode_all(tokenizer, items, n));
    for (int64_t i = 0; i < n; i++) SP_TRY_OR_DONE(finish_item(tokenizer, flags, &items[i], &out[i]));
done:
    for (int64_t i = 0; i < n; i++) {
        free(items[i].tokens);
        if (status == SP_OK) continue;
        free(out[i].items);
        out[i] = (sp_tokens){0};
    }
    free(items);
    return status;
}

sp_status sp_tokenizer_encode_with(const sp_tokenizer *tokenizer, const char *text, int64_t n_bytes, unsigned flags,
                                   int32_t **tokens, int64_t *n_tokens) {
    sp_tokens encoded;
    sp_status status = sp_tokenizer_encode_many(tokenizer, &text, &n_bytes, 1, flags, &encoded);
    *tokens = encoded.items;
    *n_tokens = encoded.n;
    return status;
}

sp_status sp_tokenizer_encode(const sp_tokenizer *tokenizer, const char *text, int64_t n_bytes, int32_t **tokens,
                              int64_t *n_tokens) {
    return sp_tokenizer_encode_with(tokenizer, text, n_bytes, SP_ENCODE_PLAIN, tokens, n_tokens);
}
