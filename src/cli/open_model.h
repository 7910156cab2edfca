/* A model and its tokenizer, from a path that a user gives. */
#ifndef SP_CLI_OPEN_MODEL_H
#define SP_CLI_OPEN_MODEL_H

#include <stdint.h>

#include "base/status.h"
#include "softpick/model.h"
#include "softpick/text.h"

/* `path`: a checkpoint folder, a model file (GGUF, llama2.c), or a run folder, of which the newest checkpoint is taken.
 * *folder (may be NULL): the folder, or file, that was opened; caller frees. */
SP_MUST_CHECK sp_status cli_open_model(sp_model **model, const char *path, int32_t device, sp_dtype dtype,
                                       char **folder);

/* The same with options: dtype, device, attention. */
SP_MUST_CHECK sp_status cli_open_model_with(sp_model **model, const char *path, const sp_model_options *options,
                                            char **folder);

/* The tokenizer of a model: the one that was `given` (NULL: none was), else the own one of the model at `opened`
 * (sp_checkpoint_find_tokenizer). */
SP_MUST_CHECK sp_status cli_open_tokenizer(sp_tokenizer **tokenizer, const char *given, const char *opened);

#define CLI_ATTENTION_HELP                                                                                             \
    "softmax, softpick ...: the model's attention where its config.json names none; one that names another is an "     \
    "error"

#endif
