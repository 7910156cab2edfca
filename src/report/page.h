/* The page's sections, and the pieces they share.  report.c holds the table of sections. */
#ifndef SP_REPORT_PAGE_H
#define SP_REPORT_PAGE_H

#include <stdio.h>

#include "report/html.h"
#include "report/results.h"

typedef void sp_page_section(FILE *page, const sp_results *results);

sp_page_section sp_page_verdict;     /* page_verdict.c: the title, and one sentence made from the numbers */
sp_page_section sp_page_settings;    /* page_settings.c: what was run */
sp_page_section sp_page_comparison;  /* page_measures.c: all values, model beside model */
sp_page_section sp_page_loss;        /* page_curves.c */
sp_page_section sp_page_activations; /* page_curves.c: by layer */
sp_page_section sp_page_sinks;       /* page_heads.c: by layer and head */
sp_page_section sp_page_mass;        /* page_heads.c */
sp_page_section sp_page_silent;      /* page_heads.c */
sp_page_section sp_page_maps;        /* page_maps.c: attention over one sentence */
sp_page_section sp_page_samples;     /* page_samples.c: generated text */
sp_page_section sp_page_definitions; /* page_measures.c */
sp_page_section sp_page_raw;         /* page_samples.c: the values as JSON */

/* The model's name in its colour. */
void sp_page_model_name(FILE *page, const sp_results_model *model);
/* A line that says for which models `measure` is missing; nothing when no model lacks it. */
void sp_page_not_measured(FILE *page, const sp_results *results, const char *measure);
/* What the page calls a measure: "sink rate" for sink_rate; an unknown one keeps its name. */
const char *sp_page_measure_label(const char *measure);
/* "T 512 · 32 samples · bf16 · threshold 0.3", as far as known. */
void sp_page_conditions(FILE *page, const json_t *measure);

#endif
