/* Text that a command reads without shards made before: shards of it for the time of the command. */
#ifndef SP_CLI_TEXT_SHARDS_H
#define SP_CLI_TEXT_SHARDS_H

#include <stdint.h>

#include "base/status.h"

/* Encodes all of the text, as softpick tokenize would, by the tokenizer of the model at `opened` into the split "train" of a new
 * folder in $TMPDIR (else /tmp), whose path goes to `folder`; the caller removes it (sp_folder_remove).  "" after a failure. */
SP_MUST_CHECK sp_status cli_text_shards(char *folder, int64_t folder_bytes, const char *text, const char *opened);

#endif
