/* What a model does inside: sinks, row mass, sparsity, silent heads, activation outliers.  May change in any release.
 * Definitions: docs/measures.md. */
#ifndef SOFTPICK_MEASURE_H
#define SOFTPICK_MEASURE_H

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
    int64_t T;          /* tokens per sample; default: the shorter of 512 and the model's positions */
    int64_t n_samples;  /* default 32 */
    sp_packing packing; /* default SP_PACKING_BOS */
    sp_progress_function progress;
    void *progress_user;
} sp_measure_options;
SP_API sp_measure_options sp_measure_options_default(void);

/* Runs all measures of the table on samples of the validation split and writes one JSON object (docs/measures.md):
 * name -> {value, definition, T, n_samples, dtype, threshold, per_layer | per_layer_head, ...}.  Caller frees. */
SP_API SP_MUST_CHECK sp_status sp_measure(sp_model *model, const char *shards_folder, const sp_measure_options *options,
                                          char **json);

/* The i-th measure's name and its one-line definition; name NULL past the end. */
SP_API const char *sp_measure_name(int i);
SP_API const char *sp_measure_definition(int i);

/* Attention maps of one short text, for pictures: JSON {tokens: [...], maps: [{layer, head, weights: [[...]]}]} with
 * the heads that have the most mass on the first token, the sparsest, and the densest.  Caller frees. */
SP_API SP_MUST_CHECK sp_status sp_measure_maps(sp_model *model, const sp_tokenizer *tokenizer, const char *text,
                                               int64_t n_heads_max, char **json);

#ifdef __cplusplus
}
#endif
#endif
