/* The Python files by which transformers opens a model of type softpick_llama. */
#ifndef SP_CHECKPOINT_PYTHON_FILES_H
#define SP_CHECKPOINT_PYTHON_FILES_H

#include "base/status.h"

/* Writes them into `folder` if the config (text of config.json) names them in its auto_map. */
SP_MUST_CHECK sp_status sp_python_files_write(const char *folder, const char *config);

#endif
