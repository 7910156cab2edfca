/* The parts of a learning-rate schedule that the check of options needs. */
#ifndef SP_TRAIN_SCHEDULE_H
#define SP_TRAIN_SCHEDULE_H

#include "softpick/train.h"

/* True if the schedule needs to know the number of steps. */
bool sp_schedule_ends(sp_schedule schedule);
/* Steps of warm-up and of decay in a run of n_steps (0: open). */
int64_t sp_train_warmup_steps(const sp_train_options *options, int64_t n_steps);
int64_t sp_train_decay_steps(const sp_train_options *options, int64_t n_steps);

#endif
