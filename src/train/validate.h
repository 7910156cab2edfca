/* Loaders as training uses them, and the loss over the held-out text. */
#ifndef SP_TRAIN_VALIDATE_H
#define SP_TRAIN_VALIDATE_H

#include "softpick/train.h"

/* The facts of `options` that a loader needs, with the BOS of the model's configuration.  Fails when the tokens do
 * not fit the model. */
SP_MUST_CHECK sp_status sp_train_loader_new(sp_loader **out, const sp_shards *shards, const sp_model *model,
                                            const sp_train_options *options, bool in_order);

/* Mean loss over the batches of a loader that reads in order, up to n_tokens_max (0: all). */
SP_MUST_CHECK sp_status sp_train_validate(sp_model *model, sp_loader *loader, int64_t n_tokens_max, double *loss,
                                          int64_t *n_targets);

#endif
