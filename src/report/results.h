/* A results.json that has been read and checked (docs/results.md), and how the page looks things up in it. */
#ifndef SP_REPORT_RESULTS_H
#define SP_REPORT_RESULTS_H

#include "base/json.h"

/* One entry of "models".  Borrowed from the document. */
typedef struct sp_results_model {
    const char *name;
    const json_t *data;
    int hue; /* the model's colour everywhere in the page: class "hue0" to "hue5" */
} sp_results_model;

typedef struct sp_results {
    json_t *root;
    sp_results_model *models; /* in the file's order: the first is the baseline */
    int64_t n_models;         /* at least 1 */
} sp_results;

/* Every type and length is checked here, so that nothing after it can meet a wrong one. */
SP_MUST_CHECK sp_status sp_results_read(sp_results *results, const char *path);
void sp_results_close(sp_results *results); /* a zeroed one is fine */

/* Look-ups in an object.  What is absent or null is NULL or NaN. */
const json_t *sp_results_part(const json_t *object, const char *key);
const char *sp_results_string(const json_t *object, const char *key);
double sp_results_number(const json_t *object, const char *key);
/* An entry of a list of numbers; NaN when null. */
double sp_results_entry(const json_t *list, int64_t i);

/* The object of a measure of a model, NULL when it was not measured. */
const json_t *sp_results_measure(const sp_results_model *model, const char *name);

#endif
