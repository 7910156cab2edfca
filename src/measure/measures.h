/* The state of a measuring run: sums that observers of a model fill, and the table of measures that reads them. */
#ifndef SP_MEASURE_MEASURES_H
#define SP_MEASURE_MEASURES_H

#include <jansson.h>
#include <stdint.h>

#include "base/status.h"
#include "measure/attention_sums.h"
#include "measure/hidden_sums.h"
#include "softpick/measure.h"
#include "softpick/model.h"

typedef struct sp_measures {
    int64_t L, H, T;
    sp_dtype dtype;
    int64_t n_samples;   /* sequences of T tokens added so far; the caller counts */
    sp_head_sums *heads; /* (L,H) */
    sp_hidden_sums hidden;

    /* The same text cut the other way (with or without BOS): attention alone. */
    const char *variant;         /* "without_bos", "with_bos"; NULL: there is none */
    sp_head_sums *variant_heads; /* (L,H) */
} sp_measures;

SP_MUST_CHECK sp_status sp_measures_open(sp_measures *measures, const sp_model_config *config, int64_t T,
                                         sp_dtype dtype);
void sp_measures_close(sp_measures *measures); /* a zeroed struct is fine */

/* Observers that add one batch of samples of T tokens; the second adds to the variant. */
sp_observer sp_measures_observer(sp_measures *measures);
sp_observer sp_measures_variant_observer(sp_measures *measures);

/* name -> {value, unit, definition, T, n_samples, dtype, threshold, ...} for every measure of the table. */
SP_MUST_CHECK sp_status sp_measures_finish(const sp_measures *measures, json_t **out);

#endif
