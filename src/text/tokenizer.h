/* What the writer of shards asks of a tokenizer beyond the public calls. */
#ifndef SP_TEXT_TOKENIZER_H
#define SP_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "softpick/text.h"

/* True when encoding may be cut before any newline, so that a document need not be held as a whole. */
bool sp_tokenizer_cuts_at_newlines(const sp_tokenizer *tokenizer);

/* Fingerprint of the model file. */
uint64_t sp_tokenizer_hash(const sp_tokenizer *tokenizer);

typedef struct sp_encoding {
    const char *text; /* in */
    int64_t n_bytes;  /* in */
    bool continues;   /* in: begins with the newline before which its document was cut */
    int32_t *tokens;  /* out: caller frees, after a failure too */
    int64_t n_tokens; /* out */
} sp_encoding;

/* Encodes all items, by several threads. */
SP_MUST_CHECK sp_status sp_tokenizer_encode_all(const sp_tokenizer *tokenizer, sp_encoding *items, int64_t n);

#endif
