/* Shards for the time of a command. */
#define _GNU_SOURCE
#include "cli/text_shards.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/cli.h"
#include "cli/open_model.h"
#include "softpick/text.h"

sp_status cli_text_shards(char *folder, int64_t folder_bytes, const char *text, const char *opened) {
    const char *temporary = getenv("TMPDIR");
    sp_tokenizer *tokenizer = NULL;
    sp_shards_write_options options = sp_shards_write_options_default();
    options.validation_fraction = 0;
    options.progress = cli_progress;
    sp_status status = SP_OK;
    *folder = '\0';
    SP_TRY_OR_DONE(cli_open_tokenizer(&tokenizer, NULL, opened));
    SP_TRY_OR_DONE(
        sp_path_join(folder, folder_bytes, temporary && *temporary ? temporary : "/tmp", "softpick-text-XXXXXX"));
    if (!mkdtemp(folder)) {
        status = sp_fail(SP_IO, "%s: %s", folder, strerror(errno));
        *folder = '\0';
        goto done;
    }
    SP_TRY_OR_DONE(sp_shards_write(folder, tokenizer, &text, 1, &options));
done:
    sp_tokenizer_free(tokenizer);
    if (status == SP_OK || !*folder) return status;
    /* the message is that of the failure, not of the tidying up */
    sp_status removed = sp_folder_remove(folder);
    *folder = '\0';
    return removed == SP_OK ? status : removed;
}
