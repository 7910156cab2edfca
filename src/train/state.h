/* A run's state in a checkpoint: what must be written down so that the rest of the run is the same, bit for bit. */
#ifndef SP_TRAIN_STATE_H
#define SP_TRAIN_STATE_H

#include "base/json.h"
#include "softpick/train.h"

enum { SP_TRAIN_N_RECENT = 10 };

typedef struct sp_train_state {
    int64_t step; /* steps done; the order of the text and the learning rate follow from it */
    int64_t n_skipped, n_skipped_in_a_row;
    float losses[SP_TRAIN_N_RECENT]; /* of the last steps, that of step s at s % SP_TRAIN_N_RECENT */
} sp_train_state;

/* What belongs together in a run; all borrowed. */
typedef struct sp_train_parts {
    sp_model *model;
    const sp_tokenizer *tokenizer; /* NULL: none */
    const sp_train_options *options;
    const sp_shards *shards; /* the train split */
    sp_optimizer *optimizer;
} sp_train_parts;

/* Writes a checkpoint folder: the model, training.json, training.safetensors. */
SP_MUST_CHECK sp_status sp_train_state_save(const char *folder, const sp_train_state *state,
                                            const sp_train_parts *parts);
/* Reads one back into model, optimizer and state.  Fails before it changes any of them when the run is another one;
 * after a damaged file their content is unspecified. */
SP_MUST_CHECK sp_status sp_train_state_load(sp_train_state *state, const sp_train_parts *parts, const char *folder);

/* What is said of a text: {tokens, documents, vocabulary}.  NULL without memory. */
json_t *sp_train_data_format(const sp_shards *shards);

#endif
