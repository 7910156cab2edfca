/* The model "BPE" of a tokenizer.json: a word becomes its characters (or bytes), and neighbours merge, best pair first. */
#ifndef SP_TEXT_BPE_H
#define SP_TEXT_BPE_H

#include <jansson.h>
#include <stdbool.h>

#include "text/token_list.h"

typedef struct sp_bpe sp_bpe; /* constant after making */

/* `json`: the component; `byte_level`: its vocabulary is written in GPT-2's characters for bytes, and words are bytes. */
SP_MUST_CHECK sp_status sp_bpe_new(sp_bpe **out, const json_t *json, bool byte_level, const char *source);
void sp_bpe_free(sp_bpe *bpe);
/* True when no token reaches over a newline, whatever stands around it. */
bool sp_bpe_newlines_stand_apart(const sp_bpe *bpe);

typedef struct sp_bpe_worker sp_bpe_worker; /* one thread's memory */

SP_MUST_CHECK sp_status sp_bpe_worker_new(sp_bpe_worker **out, const sp_bpe *bpe);
void sp_bpe_worker_free(sp_bpe_worker *worker);
/* Adds the tokens of one word (UTF-8 unless byte_level). */
SP_MUST_CHECK sp_status sp_bpe_encode(sp_bpe_worker *worker, const char *text, int64_t n_bytes, sp_token_list *out);

#endif
