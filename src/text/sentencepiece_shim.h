/* The sentencepiece library in C: exceptions and its status objects end here.  Used by tokenizer*.c alone. */
#ifndef SP_TEXT_SENTENCEPIECE_SHIM_H
#define SP_TEXT_SENTENCEPIECE_SHIM_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "base/status.h"

typedef struct sp_sentencepiece sp_sentencepiece; /* constant after opening */

/* `source` names the model in messages. */
SP_MUST_CHECK sp_status sp_sentencepiece_open(sp_sentencepiece **out, const char *model, int64_t n_bytes,
                                              const char *source);
void sp_sentencepiece_free(sp_sentencepiece *model);

int64_t sp_sentencepiece_vocabulary(const sp_sentencepiece *model);
int32_t sp_sentencepiece_bos(const sp_sentencepiece *model);
int32_t sp_sentencepiece_eos(const sp_sentencepiece *model);
/* `id` in range.  Borrowed. */
const char *sp_sentencepiece_piece(const sp_sentencepiece *model, int32_t id);
bool sp_sentencepiece_is_byte(const sp_sentencepiece *model, int32_t id);

/* Caller frees *tokens and *text, which has a 0 after it. */
SP_MUST_CHECK sp_status sp_sentencepiece_encode(const sp_sentencepiece *model, const char *text, int64_t n_bytes,
                                                int32_t **tokens, int64_t *n_tokens);
SP_MUST_CHECK sp_status sp_sentencepiece_decode(const sp_sentencepiece *model, const int32_t *tokens, int64_t n_tokens,
                                                char **text, int64_t *n_bytes);

/* Gives the next sentence, valid until the next call; *text = NULL at the end. */
typedef sp_status (*sp_sentence_function)(void *user, const char **text, int64_t *n_bytes);

/* Trains on the sentences; caller frees the model's bytes. */
SP_MUST_CHECK sp_status sp_sentencepiece_train(char **model, int64_t *n_bytes, const char *kind, int64_t vocabulary,
                                               sp_sentence_function next, void *user);

#ifdef __cplusplus
}
#endif
#endif
