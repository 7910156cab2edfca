/* A tokenizer's files, written into another folder. */
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "text/hash.h"
#include "text/tokenizer.h"

enum { PATH_BYTES = 4096 };

static const char json_name[] = "tokenizer.json", model_name[] = "tokenizer.model",
                  config_name[] = "tokenizer_config.json";

static sp_status write_json(const char *folder, const char *name, const json_t *json) {
    char path[PATH_BYTES];
    SP_TRY(sp_path_join(path, sizeof path, folder, name));
    return sp_json_write(path, json);
}

static sp_status remove_file(const char *folder, const char *name) {
    char path[PATH_BYTES];
    SP_TRY(sp_path_join(path, sizeof path, folder, name));
    unlink(path);
    return SP_OK;
}

static bool is_sentencepiece(const sp_tokenizer *tokenizer) {
    return strcmp(tokenizer->kind->name, "sentencepiece") == 0;
}

/* The file that was read, which must be what it was then. */
static sp_status copy_own(const sp_tokenizer *tokenizer, const char *folder, const char *name) {
    char path[PATH_BYTES], *bytes;
    int64_t n_bytes;
    SP_TRY(sp_path_join(path, sizeof path, folder, name));
    SP_TRY(sp_file_read(tokenizer->path, &bytes, &n_bytes));
    sp_status status = sp_hash_bytes(0, bytes, n_bytes) == tokenizer->hash
                           ? sp_file_write(path, bytes, n_bytes)
                           : sp_fail(SP_BAD_FILE, "%s: it has changed since it was opened", tokenizer->path);
    free(bytes);
    return status;
}

static sp_status write_config(const sp_tokenizer *tokenizer, const char *folder) {
    return tokenizer->config ? write_json(folder, config_name, tokenizer->config) : remove_file(folder, config_name);
}

sp_status sp_tokenizer_keep(const sp_tokenizer *tokenizer, const char *folder) {
    bool model = is_sentencepiece(tokenizer);
    if (tokenizer->json)
        SP_TRY(write_json(folder, json_name, tokenizer->json));
    else
        SP_TRY(copy_own(tokenizer, folder, model ? model_name : json_name));
    SP_TRY(remove_file(folder, model ? json_name : model_name));
    return write_config(tokenizer, folder);
}

sp_status sp_tokenizer_save(const sp_tokenizer *tokenizer, const char *folder) {
    sp_pieces pieces;
    json_t *json, *config;
    SP_TRY(sp_tokenizer_keep(tokenizer, folder));
    sp_tokenizer_sentencepieces(tokenizer, &pieces);
    if (pieces.n == 0) return SP_OK;
    SP_TRY(sp_pieces_to_json(&json, &config, &pieces, tokenizer->path));
    sp_status status = write_json(folder, json_name, json);
    if (tokenizer->config) json_object_update(config, tokenizer->config);
    /* classes of their own, such as LlamaTokenizer, would not take the tokenizer.json as it is */
    json_object_set_new(config, "tokenizer_class", json_string("PreTrainedTokenizerFast"));
    if (status == SP_OK) status = write_json(folder, config_name, config);
    json_decref(json);
    json_decref(config);
    return status;
}
