/* What other writers call the tensors of a LLaMA-style model. */
#ifndef SP_CHECKPOINT_TENSOR_NAMES_H
#define SP_CHECKPOINT_TENSOR_NAMES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

/* Whether a tensor of that name is found only in fla's files. */
bool sp_tensor_name_is_fla(const char *name);
/* LLaMA's name for a name of fla's, or the name itself where they agree.  Caller frees. */
SP_MUST_CHECK sp_status sp_tensor_name_to_llama(char **out, const char *name);
/* The reverse. */
SP_MUST_CHECK sp_status sp_tensor_name_to_fla(char **out, const char *name);

#endif
