/* What keys and tensors of a GGUF file of LLaMA's kind are called in config.json and in LLaMA's files; one table of
 * each, for reading and for writing. */
#ifndef SP_CHECKPOINT_GGUF_MODEL_H
#define SP_CHECKPOINT_GGUF_MODEL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "formats/gguf.h"

enum { SP_TENSOR_NAME_BYTES = 128 };

typedef struct sp_gguf_architecture {
    const char *name;       /* general.architecture */
    const char *model_type; /* in config.json */
    bool pairs;             /* rotary pairs are neighbours, otherwise in halves as in LLaMA's files */
} sp_gguf_architecture;

/* The architecture of a file, or for a config.json: one of its own, which others refuse, for all that other programs
 * would run differently. */
SP_MUST_CHECK sp_status sp_gguf_architecture_of(const sp_gguf_architecture **out, const sp_gguf *file);
SP_MUST_CHECK sp_status sp_gguf_architecture_for(const sp_gguf_architecture **out, const json_t *config,
                                                 const char *source);

/* Special tokens.  eos_token_id may be a list: its places. */
enum { SP_GGUF_MARKS = 5 };
extern const struct sp_gguf_mark {
    const char *gguf, *config;
    int place;
} sp_gguf_marks[SP_GGUF_MARKS];

/* Whose rotary pairs the rows of a tensor are. */
typedef enum sp_rotary_rows { SP_ROWS_PLAIN, SP_ROWS_OF_HEADS, SP_ROWS_OF_KV_HEADS } sp_rotary_rows;

/* LLaMA's name for GGUF's and the reverse; an error that names `source` for tensors that the other has no name for. */
SP_MUST_CHECK sp_status sp_gguf_name_to_llama(char out[SP_TENSOR_NAME_BYTES], sp_rotary_rows *rows, const char *name,
                                              const char *source);
SP_MUST_CHECK sp_status sp_gguf_name_from_llama(char out[SP_TENSOR_NAME_BYTES], sp_rotary_rows *rows, const char *name,
                                                const char *source);

/* The config.json that says what the file says.  Caller releases. */
SP_MUST_CHECK sp_status sp_gguf_read_config(json_t **config, const sp_gguf *file,
                                            const sp_gguf_architecture *architecture);
/* Adds the keys that say what config.json says (all but LLaMA 3's scaling of positions, which is a tensor). */
SP_MUST_CHECK sp_status sp_gguf_write_config(sp_gguf_writer *writer, const json_t *config,
                                             const sp_gguf_architecture *architecture, const char *source);

/* rope_freqs.weight, the n = head_dim / 2 divisors of the rotary frequencies: LLaMA 3's scaling of positions as 
 * config.json's rope_scaling, and the reverse. */
SP_MUST_CHECK sp_status sp_rope_divisors_to_json(json_t **rope_scaling, const float *divisors, int64_t n, double theta,
                                                 const char *source);
void sp_rope_divisors(float *divisors, int64_t n, double theta, const json_t *rope_scaling);

#endif
