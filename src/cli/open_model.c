/* Opening what a user names as a model. */
#define _GNU_SOURCE
#include "cli/open_model.h"

#include <stdio.h>
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

static bool is_gguf(const char *path) {
    sp_file_map map;
    if (sp_file_map_open(&map, path) != SP_OK) return false;
    bool same = map.n_bytes >= 4 && memcmp(map.data, "GGUF", 4) == 0;
    sp_file_map_close(&map);
    return same;
}

/* The first of the names that stands in the folder. */
static sp_status find_in_folder(char *out, int64_t out_bytes, const char *folder, const char *const *names, int n) {
    for (int i = 0; i < n; i++) {
        SP_TRY(sp_path_join(out, out_bytes, folder, names[i]));
        if (sp_file_exists(out)) return SP_OK;
    }
    *out = 0;
    return SP_OK;
}

sp_status cli_find_tokenizer(char *out, int64_t out_bytes, const char *opened) {
    static const char *const in_folder[] = {"tokenizer.json", "tokenizer.model", "tokenizer.bin"};
    if (sp_folder_exists(opened)) return find_in_folder(out, out_bytes, opened, in_folder, 3);
    if (is_gguf(opened)) {
        snprintf(out, (size_t)out_bytes, "%s", opened);
        return SP_OK;
    }
    char folder[4096], name[4096];
    const char *slash = strrchr(opened, '/'), *base = slash ? slash + 1 : opened;
    size_t length = strlen(base);
    if (length > 4 && strcmp(base + length - 4, ".bin") == 0) length -= 4;
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - opened) : 1, slash ? opened : ".");
    snprintf(name, sizeof name, "%.*s.tokenizer.bin", (int)length, base);
    return find_in_folder(out, out_bytes, folder, (const char *const[]){name, "tokenizer.bin"}, 2);
}

sp_status cli_open_tokenizer(sp_tokenizer **tokenizer, const char *given, const char *opened) {
    char found[4096];
    *tokenizer = NULL;
    if (given) return sp_tokenizer_open(tokenizer, given);
    SP_TRY(cli_find_tokenizer(found, sizeof found, opened));
    SP_REQUIRE(*found, SP_BAD_FILE, "%s: has no tokenizer (--tokenizer names one)", opened);
    return sp_tokenizer_open(tokenizer, found);
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
