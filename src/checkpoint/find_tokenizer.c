/* Where a checkpoint has its tokenizer: in its folder, in its GGUF file, or beside a model of llama2.c. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "checkpoint/checkpoint_private.h"
#include "formats/gguf.h"

static bool holds_any(const char *folder, const char *const *names, int n, char found[SP_PATH_BYTES]) {
    for (int i = 0; i < n; i++)
        if (sp_path_join(found, SP_PATH_BYTES, folder, names[i]) == SP_OK && sp_file_exists(found)) return true;
    return false;
}

static bool find_beside(const char *path, char found[SP_PATH_BYTES]) {
    char folder[SP_PATH_BYTES], name[SP_PATH_BYTES];
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    size_t length = strlen(base);
    if (length > 4 && strcmp(base + length - 4, ".bin") == 0) length -= 4;
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    snprintf(name, sizeof name, "%.*s.tokenizer.bin", (int)length, base);
    return holds_any(folder, (const char *const[]){name, "tokenizer.bin"}, 2, found);
}

static sp_status find_in_gguf(const char *path, char found[SP_PATH_BYTES]) {
    sp_gguf *file;
    SP_TRY(sp_gguf_open(&file, path));
    bool has = sp_gguf_find(file, "tokenizer.ggml.tokens") != NULL;
    sp_gguf_close(file);
    snprintf(found, SP_PATH_BYTES, "%s", has ? path : "");
    return SP_OK;
}

static sp_status is_gguf(bool *same, const char *path) {
    sp_file_map map;
    SP_TRY(sp_file_map_open(&map, path));
    *same = map.n_bytes >= 4 && memcmp(map.data, "GGUF", 4) == 0;
    sp_file_map_close(&map);
    return SP_OK;
}

sp_status sp_checkpoint_find_tokenizer(char **tokenizer, const char *path) {
    static const char *const in_folder[] = {"tokenizer.json", "tokenizer.model", "tokenizer.bin"};
    char found[SP_PATH_BYTES] = "";
    *tokenizer = NULL;
    if (sp_folder_exists(path)) {
        bool has = holds_any(path, in_folder, sizeof in_folder / sizeof *in_folder, found);
        snprintf(found, sizeof found, "%s", has ? path : "");
    } else {
        bool gguf = false;
        SP_TRY(is_gguf(&gguf, path));
        if (gguf)
            SP_TRY(find_in_gguf(path, found));
        else if (!find_beside(path, found))
            *found = 0;
    }
    if (!*found) return SP_OK;
    *tokenizer = strdup(found);
    SP_REQUIRE(*tokenizer, SP_OUT_OF_MEMORY, "%s: no memory for a path", path);
    return SP_OK;
}
