/* log.jsonl of a run: one JSON object per line (docs/training.md), whole lines only, in order of steps. */
#ifndef SP_TRAIN_LOG_H
#define SP_TRAIN_LOG_H

#include <stdio.h>

#include "base/json.h"

typedef struct sp_train_log {
    FILE *file;
    char path[4096];
} sp_train_log;

/* Opens run_folder/log.jsonl for appending, made if need be, and locks it: a second process that trains in
 * the same folder fails here.  Nothing is cut yet. */
SP_MUST_CHECK sp_status sp_train_log_open(sp_train_log *log, const char *run_folder);
/* Cuts what was logged after step `step`, and an incomplete last line; step < 0: everything. */
SP_MUST_CHECK sp_status sp_train_log_truncate(sp_train_log *log, int64_t step);
/* Adds `line` (a reference is taken over, also on failure) and hands it to the system, so that a killed
 * process loses none. */
SP_MUST_CHECK sp_status sp_train_log_add(sp_train_log *log, json_t *line);
/* Waits until the lines are on the disk. */
SP_MUST_CHECK sp_status sp_train_log_sync(sp_train_log *log);
void sp_train_log_close(sp_train_log *log); /* a zeroed log is fine */

#endif
