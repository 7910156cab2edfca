/* What a model does inside: sinks, row mass, sparsity, silent heads, dead blocks, entropy, activation outliers.  May
 * change in any release.
 * Definitions: docs/measures.md. */
#ifndef SOFTPICK_MEASURE_H
#define SOFTPICK_MEASURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "softpick/model.h"
#include "softpick/status.h"
#include "softpick/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sp_measure_options {
    size_t struct_bytes;
    const char *measures; /* NULL or "default"; "all"; or names with commas between them.  Borrowed */
    int64_t
        T; /* tokens per sample; default: the largest of lengths, else the shorter of 512 and the model's positions */
    const int64_t *lengths; /* rising, at most T: lengths of which sinks are told; the same pass gives them all.
                               Borrowed */
    int64_t n_lengths;      /* at most 64; 0: 16, 32, 64, ... and T */
    int64_t n_samples;      /* default 32 */
    sp_packing packing;     /* default SP_PACKING_BOS */
    const char *split;      /* of the shards: default "validation".  Borrowed */
    sp_progress_function progress;
    void *progress_user;
} sp_measure_options;
SP_API sp_measure_options sp_measure_options_default(void);

/* Runs the chosen measures on samples of the split and writes one JSON object (docs/measures.md):
 * name -> {value, definition, T, n_samples, dtype, threshold, per_layer | per_layer_head, ...}.  Caller frees. */
SP_API SP_MUST_CHECK sp_status sp_measure(sp_model *model, const char *shards_folder, const sp_measure_options *options,
                                          char **json);

/* Names the first thing wrong with the list of measures. */
SP_API SP_MUST_CHECK sp_status sp_measure_check_list(const char *measures);
/* The i-th measure's name and its one-line definition; name NULL past the end. */
SP_API const char *sp_measure_name(int i);
SP_API const char *sp_measure_definition(int i);
/* Whether it is among the default ones: the others take much longer. */
SP_API bool sp_measure_is_default(int i);

/* Attention maps of one short text, for pictures: JSON {tokens: [...], maps: [{layer, head, weights: [[...]]}], rollout:
 * {weights: [[...]]}} with the heads that have the most mass on the first token, the sparsest, and the densest, and the
 * rollout through all layers.  Caller frees. */
SP_API SP_MUST_CHECK sp_status sp_measure_maps(sp_model *model, const sp_tokenizer *tokenizer, const char *text,
                                               int64_t n_heads_max, char **json);

#ifdef __cplusplus
}
#endif
#endif
