/* The page's sections, and the pieces they share.  report.c holds the table of sections. */
#ifndef SP_REPORT_PAGE_H
#define SP_REPORT_PAGE_H

#include <stdbool.h>
#include <stdio.h>

#include "report/html.h"
#include "report/results.h"

typedef void sp_page_section(FILE *page, const sp_results *results);

sp_page_section sp_page_verdict;     /* page_verdict.c: the title, and one sentence made from the numbers */
sp_page_section sp_page_settings;    /* page_settings.c: what was run */
sp_page_section sp_page_comparison;  /* page_measures.c: all values, model beside model */
sp_page_section sp_page_evaluation;  /* page_evaluation.c: tasks, and the grid of passkeys */
sp_page_section sp_page_loss;        /* page_curves.c */
sp_page_section sp_page_activations; /* page_curves.c: by layer */
sp_page_section sp_page_sinks;       /* page_heads.c: by layer and head; page_rows.c: by length and key */
sp_page_section sp_page_mass;        /* page_heads.c; page_rows.c: blocks */
sp_page_section sp_page_spread;      /* page_rows.c: entropy, largest weights */
sp_page_section sp_page_silent;      /* page_heads.c; page_trace.c: over training; page_masking.c */
sp_page_section sp_page_maps;        /* page_maps.c: attention over one sentence */
sp_page_section sp_page_samples;     /* page_samples.c: generated text */
sp_page_section sp_page_definitions; /* page_measures.c */
sp_page_section sp_page_raw;         /* page_samples.c: the values as JSON */

/* Whether there is anything for a section that is left out otherwise. */
bool sp_page_has_evaluation(const sp_results *results);
bool sp_page_has_spread(const sp_results *results);

/* Parts of sections; each writes nothing where nothing was measured. */
sp_page_section sp_page_sinks_by_length; /* page_rows.c */
sp_page_section sp_page_sinks_by_key;    /* page_rows.c */
sp_page_section sp_page_dead_blocks;     /* page_rows.c */
sp_page_section sp_page_masking;         /* page_masking.c */
sp_page_section sp_page_sinks_over_training, sp_page_dead_over_training,
    sp_page_kurtosis_over_training; /* page_trace.c */
sp_page_section sp_page_peaks;      /* page_peaks.c: the largest activations of every layer */

/* A table by layer and head, or by depth and length, of one model. */
typedef struct sp_page_heat {
    const json_t *rows;
    double full;                            /* what has the whole colour */
    double factor;                          /* of the numbers in the cells */
    int decimals;                           /* of the numbers in the cells */
    sp_html_unit unit;                      /* of the numbers that show on hovering */
    const char *row, *column;               /* "layer", "head" */
    const json_t *row_names, *column_names; /* NULL: counted from 0 */
} sp_page_heat;
void sp_page_write_heat(FILE *page, const sp_results_model *model, const sp_page_heat *heat);
/* A figure with such a table of each model, from "per_layer_head" of the measure `name`; `style` without rows. */
void sp_page_write_heads(FILE *page, const sp_results *results, const char *name, const char *caption,
                         const sp_page_heat *style);

/* The first model's object of the measure; NULL when none has it. */
const json_t *sp_page_first_measure(const sp_results *results, const char *measure);
/* The model's name in its colour. */
void sp_page_model_name(FILE *page, const sp_results_model *model);
/* A line that says for which models `measure` is missing; nothing when no model lacks it. */
void sp_page_not_measured(FILE *page, const sp_results *results, const char *measure);
/* What the page calls a measure: "sink rate" for sink_rate; an unknown one keeps its name. */
const char *sp_page_measure_label(const char *measure);
/* "T 512 · 32 samples · bf16 · threshold 0.3", as far as known. */
void sp_page_conditions(FILE *page, const json_t *measure);

#endif
