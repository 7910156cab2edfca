/* The lines of log.jsonl, one function for each kind (docs/training.md). */
#ifndef SP_TRAIN_EVENTS_H
#define SP_TRAIN_EVENTS_H

#include "train/log.h"
#include "train/state.h"

/* The first line of every process that works on the run: machine, configuration, options, text. */
SP_MUST_CHECK sp_status sp_train_log_run(sp_train_log *log, const sp_train_parts *parts, int64_t step);
SP_MUST_CHECK sp_status sp_train_log_step(sp_train_log *log, const sp_train_step *step);
SP_MUST_CHECK sp_status sp_train_log_validation(sp_train_log *log, int64_t step, double loss, int64_t n_targets);
SP_MUST_CHECK sp_status sp_train_log_sample(sp_train_log *log, int64_t step, const char *text);
SP_MUST_CHECK sp_status sp_train_log_checkpoint(sp_train_log *log, int64_t step, const char *name);

#endif
