/* Encodes text word by word and remembers the words it has met.  For one thread at a time. */
#ifndef SP_TEXT_WORD_ENCODER_H
#define SP_TEXT_WORD_ENCODER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "text/sentencepiece_shim.h"
#include "text/token_list.h"

/* True when no piece reaches over the beginning of a word, so that words may be encoded apart.  A word begins at a
 * space behind something else and at a newline (over which no piece reaches either: see tokenizer.c). */
bool sp_words_stand_apart(const sp_sentencepiece *model);

typedef struct sp_word_encoder sp_word_encoder;

/* `dummy`: tokens of the dummy space that sentencepiece puts before a text; n_dummy is 0 if there is none.
 * Borrowed. */
SP_MUST_CHECK sp_status sp_word_encoder_new(sp_word_encoder **out, const sp_sentencepiece *model, const int32_t *dummy,
                                            int64_t n_dummy);
void sp_word_encoder_free(sp_word_encoder *encoder);

/* Adds what sp_sentencepiece_encode gives for the whole; without the dummy space if the text `continues` another one, and begins with
 * a newline therefore. */
SP_MUST_CHECK sp_status sp_word_encoder_encode(sp_word_encoder *encoder, const char *text, int64_t n_bytes,
                                               bool continues, sp_token_list *out);

#endif
