/* Opening what a user names as a model. */
#define _GNU_SOURCE
#include "cli/open_model.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "softpick/checkpoint.h"

static sp_status resolve_folder(char **folder, const char *path) {
    *folder = NULL;
    SP_REQUIRE(sp_folder_exists(path) || sp_file_exists(path), SP_IO, "%s: no such folder or file", path);
    char config[4096];
    SP_TRY(sp_path_join(config, sizeof config, path, "config.json"));
    if (!sp_file_exists(config) && !sp_file_exists(path)) {
        SP_TRY(sp_checkpoint_newest(path, folder));
        SP_REQUIRE(*folder, SP_BAD_FILE, "%s: neither a checkpoint (no config.json) nor a run with checkpoints", path);
        return SP_OK;
    }
    *folder = strdup(path);
    SP_REQUIRE(*folder, SP_OUT_OF_MEMORY, "no memory for a path");
    return SP_OK;
}

sp_status cli_open_tokenizer(sp_tokenizer **tokenizer, const char *given, const char *opened) {
    char *own;
    *tokenizer = NULL;
    if (given) return sp_tokenizer_open(tokenizer, given);
    SP_TRY(sp_checkpoint_find_tokenizer(&own, opened));
    SP_REQUIRE(own, SP_BAD_FILE, "%s: has no tokenizer (--tokenizer names one)", opened);
    sp_status status = sp_tokenizer_open(tokenizer, own);
    free(own);
    return status;
}

sp_status cli_open_model_with(sp_model **model, const char *path, const sp_model_options *options, char **folder) {
    *model = NULL;
    char *opened = NULL;
    if (folder) *folder = NULL;
    SP_TRY(resolve_folder(&opened, path));
    sp_status status = sp_model_open(model, opened, options);
    if (status == SP_OK && folder)
        *folder = opened;
    else
        free(opened);
    return status;
}

sp_status cli_open_model(sp_model **model, const char *path, int32_t device, sp_dtype dtype, char **folder) {
    sp_model_options options = sp_model_options_default();
    options.device = device;
    options.dtype = dtype;
    return cli_open_model_with(model, path, &options, folder);
}
