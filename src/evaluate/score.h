/* Log-probabilities of many token sequences: what multiple choice, perplexity and retrieval are made of. */
#ifndef SP_EVALUATE_SCORE_H
#define SP_EVALUATE_SCORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "softpick/model.h"
#include "softpick/status.h"
#include "softpick/text.h"

/* A sequence of tokens; the last n_scored of them are predicted, each from all before it. */
typedef struct sp_score_item {
    const int32_t *tokens; /* (n_tokens), read */
    int64_t n_tokens;      /* n_scored <= n_tokens - 1 <= the model's positions */
    int64_t n_scored;
    float *log_probabilities; /* (n_scored), overwritten with log p of each in nats; NULL when not wanted */
    double sum;               /* overwritten with their sum */
    bool greedy;              /* overwritten: each was the first of the most likely tokens; true if none is scored */
} sp_score_item;

/* What was done. */
typedef struct sp_score_counts {
    int64_t n_batches;
    int64_t n_read;     /* tokens that are read to score the items: all but the last of each */
    int64_t n_computed; /* of them those that passed through the model: the others were there already */
    int64_t n_scored;
} sp_score_counts;

typedef struct sp_score_options {
    size_t struct_bytes;
    int64_t batch_tokens; /* about so many tokens pass through the model at once; 0: chosen by its device; default 0 */
    bool share_prefixes;  /* what items begin with alike is computed once; default true */
    sp_score_counts *counts;       /* added to; NULL when not wanted */
    sp_progress_function progress; /* called with the number of items done; may be NULL */
    void *progress_user;
} sp_score_options;

sp_score_options sp_score_options_default(void);

/* Scores all items; `options` NULL: the defaults.  An item's result does not depend on its company but for rounding.  After
 * a failure the outputs of some items may have been written. */
SP_MUST_CHECK sp_status sp_score(sp_model *model, sp_score_item *items, int64_t n_items,
                                 const sp_score_options *options);

#endif
