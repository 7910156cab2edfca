/* What stands in a sentencepiece model file, read without the library: pieces and how text is prepared. */
#ifndef SP_TEXT_SENTENCEPIECE_MODEL_H
#define SP_TEXT_SENTENCEPIECE_MODEL_H

#include "text/pieces.h"

typedef enum sp_sentencepiece_algorithm {
    SP_SENTENCEPIECE_UNIGRAM = 1,
    SP_SENTENCEPIECE_BPE = 2,
    SP_SENTENCEPIECE_WORD = 3,
    SP_SENTENCEPIECE_CHAR = 4,
} sp_sentencepiece_algorithm;

typedef struct sp_sentencepiece_facts {
    sp_piece *pieces; /* by id; their texts lie in the file's bytes, which must outlive this */
    int64_t n_pieces, capacity;
    int64_t algorithm; /* sp_sentencepiece_algorithm */
    bool byte_fallback;
    bool add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces;
    int64_t n_charsmap, n_denormalizer; /* bytes of the rules that rewrite text before encoding, after decoding */
    const char *unk_surface;            /* what an unknown piece decodes to; n_unk_surface bytes */
    int64_t n_unk_surface;
    int64_t unk, bos, eos, pad; /* ids; -1: none */
} sp_sentencepiece_facts;

/* Fails with SP_BAD_FILE on what is no model, and on what the library would follow out of its memory: it trusts scores
 * and the rules by which text is rewritten.  `source` names the model in messages. */
SP_MUST_CHECK sp_status sp_sentencepiece_facts_read(sp_sentencepiece_facts *facts, const void *bytes, int64_t n_bytes,
                                                    const char *source);
void sp_sentencepiece_facts_free(sp_sentencepiece_facts *facts);

#endif
