/* Where the time of a pass goes.  Marks are set in the device's work and read when it is done, so that a GPU is not
 * made to wait in between. */
#include "model/model_private.h"

#include <stdlib.h>

enum { MARKS_MORE = 256 };

static bool make_room(sp_model *model) {
    stopwatch *watch = &model->watch;
    if (watch->n < watch->n_max) return true;
    int64_t n = watch->n_max + MARKS_MORE;
    void **marks = realloc(watch->marks, (size_t)n * sizeof *marks);
    if (marks) watch->marks = marks;
    double **buckets = realloc(watch->buckets, (size_t)n * sizeof *buckets);
    if (buckets) watch->buckets = buckets;
    if (!marks || !buckets) return false;
    while (watch->n_max < n) {
        if (sp_device_mark_new(model->device, &watch->marks[watch->n_max]) != SP_OK) return false;
        watch->n_max++;
    }
    return true;
}

/* A failure only ends the profile: whatever broke the device shows in the next call that waits. */
void sp_lap(sp_model *model, double *bucket) {
    stopwatch *watch = &model->watch;
    if (!watch->runs) return;
    watch->runs = make_room(model) && sp_device_mark(model->device, watch->marks[watch->n]) == SP_OK;
    if (watch->runs) watch->buckets[watch->n++] = bucket;
}

void sp_laps_end(sp_model *model) {
    stopwatch *watch = &model->watch;
    double seconds;
    if (watch->n > 0 && sp_device_wait(model->device) != SP_OK) watch->n = 0;
    for (int64_t i = 1; i < watch->n; i++)
        if (watch->buckets[i] &&
            sp_device_seconds_between(model->device, watch->marks[i - 1], watch->marks[i], &seconds) == SP_OK)
            *watch->buckets[i] += seconds;
    watch->n = 0;
}

void sp_laps_clear(sp_model *model) {
    for (int64_t i = 0; i < model->watch.n_max; i++) sp_device_mark_free(model->device, model->watch.marks[i]);
    free(model->watch.marks);
    free(model->watch.buckets);
    model->watch = (stopwatch){0};
}

void sp_model_profile_enable(sp_model *model, bool on) { model->watch.runs = on; }

sp_model_profile sp_model_profile_read(sp_model *model, bool reset) {
    sp_model_profile profile = model->profile;
    if (reset) model->profile = (sp_model_profile){0};
    return profile;
}
