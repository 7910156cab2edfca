/* What a tokenizer is inside: a kind (how text becomes tokens), a table of what each token is, and what stands around a
 * text.  Also what the writer of shards asks beyond the public calls. */
#ifndef SP_TEXT_TOKENIZER_H
#define SP_TEXT_TOKENIZER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "softpick/text.h"
#include "text/decoder.h"
#include "text/pieces.h"
#include "text/token_list.h"

typedef struct sp_token {
    const char *text; /* n_bytes with a 0 behind them; NULL: no token has this id */
    int64_t n_bytes;
    const char *surface; /* what is decoded in place of the text; NULL: the text.  With a 0 behind it */
    bool special;        /* stands for no text */
} sp_token;

/* A text, or a part of one. */
typedef struct sp_encoding {
    const char *text; /* in */
    int64_t n_bytes;  /* in */
    bool continues;   /* in: begins with the newline before which its document was cut */
    unsigned flags;   /* in: of sp_encode_flags; SP_ENCODE_TEMPLATE is not looked at */
    int32_t *tokens;  /* out: caller frees, after a failure too */
    int64_t n_tokens; /* out */
} sp_encoding;

/* How the text of one kind of file becomes tokens. */
typedef struct sp_tokenizer_kind {
    const char *name;
    void (*free)(void *model);
    /* A worker is what one thread needs to encode: its buffers, and words that it met. */
    sp_status (*worker_new)(void **worker, const void *model);
    void (*worker_free)(void *worker);
    sp_status (*encode)(void *worker, const sp_encoding *item, sp_token_list *out);
} sp_tokenizer_kind;

enum { SP_WORKERS_MAX = 64 };

/* Workers that nobody uses now, under `lock`. */
typedef struct sp_worker_pool {
    pthread_mutex_t lock;
    void *workers[SP_WORKERS_MAX];
    int n;
} sp_worker_pool;

struct sp_tokenizer {
    const sp_tokenizer_kind *kind;
    void *model;
    char *path;
    uint64_t hash;    /* of the file that sp_tokenizer_keep writes */
    sp_token *tokens; /* by id */
    int64_t vocabulary;
    int32_t bos, eos;
    sp_token_list before, after; /* SP_ENCODE_TEMPLATE */
    bool cuts;                   /* a text may be cut before any newline */
    bool cuts_after_letters;     /* it may be cut before a newline that follows an ASCII letter */
    sp_decoding decoding;
    json_t *json;   /* the tokenizer.json that was made of a file that holds pieces; NULL: none was */
    json_t *config; /* of tokenizer_config.json, or made like json; NULL: there is none */
    sp_worker_pool *pool;
};

/* Fill in the tokenizer from the file's bytes, of which they keep what they need. */
SP_MUST_CHECK sp_status sp_tokenizer_load_sentencepiece(sp_tokenizer *tokenizer, const char *bytes, int64_t n_bytes);
SP_MUST_CHECK sp_status sp_tokenizer_load_json(sp_tokenizer *tokenizer, const json_t *json);
/* What tokenizer_config.json says of special tokens, or what their names say where there is no such file. */
SP_MUST_CHECK sp_status sp_tokenizer_read_special(sp_tokenizer *tokenizer, const json_t *config);

/* The pieces of a model that a tokenizer.json can stand for; *pieces is zeroed for others.  They live as long as it. */
void sp_tokenizer_sentencepieces(const sp_tokenizer *tokenizer, sp_pieces *pieces);

/* True when encoding may be cut before any newline, so that a document need not be held as a whole. */
bool sp_tokenizer_cuts_at_newlines(const sp_tokenizer *tokenizer);

/* Fingerprint of the file that sp_tokenizer_keep writes. */
uint64_t sp_tokenizer_hash(const sp_tokenizer *tokenizer);

/* Encodes all items, by several threads. */
SP_MUST_CHECK sp_status sp_tokenizer_encode_all(const sp_tokenizer *tokenizer, sp_encoding *items, int64_t n);

#endif
