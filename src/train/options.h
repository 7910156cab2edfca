/* Options of training as JSON: what the log's first line shows, and what a checkpoint keeps for the
 * resumption. */
#ifndef SP_TRAIN_OPTIONS_H
#define SP_TRAIN_OPTIONS_H

#include "base/json.h"
#include "softpick/train.h"

/* An object name -> value of all options but `resume`.  Release with json_decref. */
SP_MUST_CHECK sp_status sp_train_options_format(json_t **out, const sp_train_options *options);

/* Fails, naming the option and both values, unless a run of these options would have done the first
 * `n_steps_done` steps exactly as the run that saved `saved` did.  What only says how long to train, or when
 * to look, may differ. `source` stands in messages. */
SP_MUST_CHECK sp_status sp_train_options_agree(const sp_train_options *options, const json_t *saved,
                                               int64_t n_steps_done, const char *source);

/* Fails, naming both values, unless a value of this run is the one that was saved (NULL: none was).  Real numbers
 * are compared to the 12 digits that files have. */
SP_MUST_CHECK sp_status sp_train_require_same(const json_t *now, const json_t *saved, const char *name,
                                              const char *source);

#endif
