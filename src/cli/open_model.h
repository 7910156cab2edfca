/* A model and its tokenizer, from a path that a user gives. */
#ifndef SP_CLI_OPEN_MODEL_H
#define SP_CLI_OPEN_MODEL_H

#include <argp.h>
#include <stdint.h>

#include "base/status.h"
#include "softpick/model.h"
#include "softpick/text.h"

/* `path`: a checkpoint folder, or a run folder, of which the newest checkpoint is taken.  *folder (may be NULL): the
 * folder that was opened; caller frees. */
SP_MUST_CHECK sp_status cli_open_model(sp_model **model, const char *path, sp_dtype dtype, char **folder);

/* Value of --dtype: f32 or bf16; argp_error otherwise. */
sp_dtype cli_dtype(struct argp_state *state, const char *option, const char *text);

#endif
