/* The state of a measuring run: sums that observers of a model fill, and the table of measures that reads them. */
#ifndef SP_MEASURE_MEASURES_H
#define SP_MEASURE_MEASURES_H

#include <jansson.h>
#include <stdint.h>

#include "base/status.h"
#include "measure/attention_sums.h"
#include "measure/hidden_sums.h"
#include "measure/map_sums.h"
#include "measure/masking.h"
#include "softpick/measure.h"
#include "softpick/model.h"

enum { SP_LENGTHS_MAX = 64 };

/* What a measure is taken from; only what a chosen one needs is computed. */
enum sp_measure_needs {
    SP_NEEDS_ROWS = 1,    /* sums of rows of attention */
    SP_NEEDS_VARIANT = 2, /* the same on the text cut the other way */
    SP_NEEDS_MAPS = 4,    /* whole rows */
    SP_NEEDS_STREAM = 8,  /* the residual stream */
    SP_NEEDS_MASKING = 16 /* losses with heads masked; with SP_NEEDS_ROWS, which says which heads */
};

typedef struct sp_measures {
    int64_t L, H, T;
    sp_dtype dtype;
    uint64_t chosen;     /* bit i: row i of the table */
    unsigned needs;      /* sp_measure_needs of the chosen */
    int64_t n_samples;   /* sequences of T tokens added so far; the caller counts */
    sp_head_sums *heads; /* (L,H) */
    sp_hidden_sums hidden;
    sp_map_sums maps;
    sp_masking masking;

    int64_t n_lengths, lengths[SP_LENGTHS_MAX]; /* rising, up to T */
    sp_sink_sums *by_length;                    /* (L,H,n_lengths) */

    /* The same text cut the other way (with or without BOS): attention alone. */
    const char *variant;         /* "without_bos", "with_bos"; NULL: there is none */
    sp_head_sums *variant_heads; /* (L,H) */
} sp_measures;

/* T, n_samples and lengths of the options hold, as sp_measure checks them. */
SP_MUST_CHECK sp_status sp_measures_open(sp_measures *measures, const sp_model_config *config, sp_dtype dtype,
                                         const sp_measure_options *options);
void sp_measures_close(sp_measures *measures); /* a zeroed struct is fine */

/* Rows of the table that a list names: NULL or "default", "all", or names with commas between them. */
SP_MUST_CHECK sp_status sp_measures_choose(const char *list, uint64_t *chosen);
unsigned sp_measures_needs(uint64_t chosen);

/* Observers that add one batch of samples of T tokens; the second adds to the variant. */
sp_observer sp_measures_observer(sp_measures *measures);
sp_observer sp_measures_variant_observer(sp_measures *measures);

/* name -> {value, unit, definition, T, n_samples, dtype, threshold, ...} for every chosen measure. */
SP_MUST_CHECK sp_status sp_measures_finish(const sp_measures *measures, json_t **out);

#endif
