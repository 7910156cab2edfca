/* What is measured while a model of a study trains: at every checkpoint a few samples, whose values stand in the run's
 * trace.json.  A run that goes on from a checkpoint goes on with its trace. */
#include "cli/measure_print.h"
#include "cli/study.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/status.h"
#include "softpick/measure.h"

enum { TRACE_SAMPLES = 8 };

static sp_status measure_now(json_t **measures, const study *s, sp_model *model) {
    sp_measure_options options = sp_measure_options_default();
    options.T = s->settings.measure_length ? s->settings.measure_length : s->settings.T;
    options.n_samples = s->settings.samples < TRACE_SAMPLES ? s->settings.samples : TRACE_SAMPLES;
    options.measures = CLI_RUN_MEASURES;
    SP_TRY(sp_packing_find(&options.packing, s->settings.packing));
    char *text;
    SP_TRY(sp_measure(model, s->tokens, &options, &text));
    sp_status status = sp_json_parse(measures, text, (int64_t)strlen(text), "measures");
    free(text);
    return status;
}

sp_status study_trace_read(json_t **out, const char *run_folder) {
    *out = NULL;
    char path[4096];
    SP_TRY(sp_path_join(path, sizeof path, run_folder, "trace.json"));
    return sp_file_exists(path) ? sp_json_read(out, path) : SP_OK;
}

/* Leaves the first n entries of every list. */
static void cut_lists(json_t *trace, size_t n) {
    const char *name;
    json_t *list, *measures = json_object_get(trace, "measures");
    while (json_array_size(json_object_get(trace, "step")) > n)
        json_array_remove(json_object_get(trace, "step"), json_array_size(json_object_get(trace, "step")) - 1);
    json_object_foreach(measures, name, list) while (json_array_size(list) > n)
        json_array_remove(list, json_array_size(list) - 1);
}

static size_t entries_before(const json_t *trace, int64_t step) {
    const json_t *steps = json_object_get(trace, "step");
    size_t n = 0;
    while (n < json_array_size(steps) && json_integer_value(json_array_get(steps, n)) < step) n++;
    return n;
}

static json_t *new_trace(const json_t *measures) {
    const char *name;
    json_t *measure, *lists = json_object(), *first = NULL;
    json_object_foreach((json_t *)(uintptr_t)measures, name, measure) {
        json_object_set_new(lists, name, json_array());
        if (!first) first = measure;
    }
    return json_pack("{s:O?, s:O?, s:O?, s:[], s:o}", "T", json_object_get(first, "T"), "n_samples",
                     json_object_get(first, "n_samples"), "dtype", json_object_get(first, "dtype"), "step", "measures",
                     lists);
}

static void add_entry(json_t *trace, json_t *measures, int64_t step) {
    const char *name;
    json_t *measure, *lists = json_object_get(trace, "measures");
    cut_lists(trace, entries_before(trace, step));
    json_array_append_new(json_object_get(trace, "step"), json_integer(step));
    json_object_foreach(measures, name, measure)
        json_array_append(json_object_get(lists, name), json_object_get(measure, "value"));
}

sp_status study_trace_add(const study *s, sp_model *model, const char *run_folder, int64_t step) {
    char path[4096];
    json_t *trace = NULL, *measures = NULL;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_path_join(path, sizeof path, run_folder, "trace.json"));
    SP_TRY_OR_DONE(sp_folder_make(run_folder));
    SP_TRY_OR_DONE(study_trace_read(&trace, run_folder));
    SP_TRY_OR_DONE(measure_now(&measures, s, model));
    if (!trace) trace = new_trace(measures);
    add_entry(trace, measures, step);
    status = sp_json_write(path, trace);
done:
    json_decref(trace);
    json_decref(measures);
    return status;
}
