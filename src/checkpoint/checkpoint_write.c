/* Writer of a checkpoint folder: everything into a temporary folder, each file synced, then swapped in
 * (folder_swap.c).  Reading is in checkpoint_open.c; the folders of a run are in checkpoint_run.c. */
#include "softpick/checkpoint.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/folder_swap.h"
#include "checkpoint/python_files.h"
#include "checkpoint/safetensors_format.h"
#include "checkpoint/tensor_names.h"

static sp_status write_text(const char *folder, const char *name, const char *text) {
    char path[SP_PATH_BYTES];
    SP_TRY(sp_path_join(path, sizeof path, folder, name));
    return sp_file_write(path, text, (int64_t)strlen(text));
}

static sp_status write_tensors(const char *folder, const char *name, const sp_named_tensor *tensors, int64_t n,
                               sp_dtype dtype) {
    char path[SP_PATH_BYTES];
    SP_TRY(sp_path_join(path, sizeof path, folder, name));
    return sp_safetensors_write_as(path, tensors, n, dtype);
}

/* ---- shards
 * ----------------------------------------------------------------------------------------------------- */

/* In the file. */
static int64_t bytes_of(const sp_checkpoint_content *content, int64_t i) {
    const sp_tensor *tensor = &content->tensors[i].tensor;
    return sp_tensor_count(tensor) * sp_dtype_bytes(tensor->dtype == SP_DTYPE_F32 ? content->dtype : tensor->dtype);
}

/* How many of the tensors from `first` on go into one shard: at least one, then as many as fit. */
static int64_t fill_shard(const sp_checkpoint_content *content, int64_t first) {
    int64_t n = 1, n_bytes = bytes_of(content, first);
    for (; first + n < content->n_tensors; n++) {
        int64_t next = bytes_of(content, first + n);
        if (next > content->shard_bytes_max - n_bytes) break;
        n_bytes += next;
    }
    return n;
}

static int64_t count_shards(const sp_checkpoint_content *content) {
    int64_t n_shards = 0;
    for (int64_t first = 0; first < content->n_tensors; first += fill_shard(content, first)) n_shards++;
    return n_shards;
}

static sp_status write_index(const char *folder, json_t *map, int64_t n_bytes) {
    char path[SP_PATH_BYTES];
    SP_TRY(sp_path_join(path, sizeof path, folder, "model.safetensors.index.json"));
    json_t *index = json_pack("{s:{s:I}, s:O}", "metadata", "total_size", (json_int_t)n_bytes, "weight_map", map);
    sp_status status = sp_json_write(path, index);
    json_decref(index);
    return status;
}

static sp_status write_shards(const char *folder, const sp_checkpoint_content *content, int64_t n_shards) {
    json_t *map = json_object();
    sp_status status = SP_OK;
    int64_t first = 0, n_bytes = 0;
    for (int64_t shard = 1; shard <= n_shards; shard++) {
        char name[80];
        snprintf(name, sizeof name, "model-%05" PRId64 "-of-%05" PRId64 ".safetensors", shard, n_shards);
        int64_t n = fill_shard(content, first);
        SP_TRY_OR_DONE(write_tensors(folder, name, content->tensors + first, n, content->dtype));
        for (int64_t i = first; i < first + n; i++) {
            const char *tensor = content->tensors[i].name;
            SP_REQUIRE_OR_DONE(!json_object_get(map, tensor), SP_BAD_ARGUMENT, "%s: two tensors are named '%.200s'",
                               folder, tensor);
            json_object_set_new(map, tensor, json_string(name));
            n_bytes += bytes_of(content, i);
        }
        first += n;
    }
    SP_TRY_OR_DONE(write_index(folder, map, n_bytes));
done:
    json_decref(map);
    return status;
}

/* ---- the call
 * --------------------------------------------------------------------------------------------------- */

static sp_status write_content(const char *folder, const sp_checkpoint_content *content) {
    int64_t n_shards = content->shard_bytes_max ? count_shards(content) : 1;
    SP_TRY(write_text(folder, "config.json", content->config));
    if (n_shards > 1)
        SP_TRY(write_shards(folder, content, n_shards));
    else
        SP_TRY(write_tensors(folder, "model.safetensors", content->tensors, content->n_tensors, content->dtype));
    SP_TRY(sp_python_files_write(folder, content->config));
    if (content->add_files) SP_TRY(content->add_files(content->user, folder));
    if (!content->state) return SP_OK;
    SP_TRY(write_tensors(folder, "training.safetensors", content->moments, content->n_moments, SP_DTYPE_F32));
    return write_text(folder, "training.json", content->state);
}

/* The tensors under fla's names; caller frees with free_names. */
static sp_status rename_for_fla(sp_named_tensor **out, const sp_checkpoint_content *content) {
    int64_t n = content->n_tensors;
    *out = calloc((size_t)n + 1, sizeof **out);
    SP_REQUIRE(*out, SP_OUT_OF_MEMORY, "no memory for a list of tensors");
    for (int64_t i = 0; i < n; i++) {
        char *name;
        SP_TRY(sp_tensor_name_to_fla(&name, content->tensors[i].name));
        (*out)[i] = (sp_named_tensor){name, content->tensors[i].tensor};
    }
    return SP_OK;
}

static void free_names(sp_named_tensor *tensors) {
    for (int64_t i = 0; tensors && tensors[i].name; i++) free((char *)(uintptr_t)tensors[i].name);
    free(tensors);
}

static sp_status write_fla_content(const char *folder, const sp_checkpoint_content *content) {
    sp_named_tensor *renamed;
    sp_checkpoint_content with_names = *content;
    sp_status status = rename_for_fla(&renamed, content);
    with_names.tensors = renamed;
    if (status == SP_OK) status = write_content(folder, &with_names);
    free_names(renamed);
    return status;
}

sp_status sp_checkpoint_write(const char *folder, const sp_checkpoint_content *content) {
    SP_REQUIRE(content->config, SP_BAD_ARGUMENT, "%s: a checkpoint needs a config", folder);
    SP_REQUIRE(content->n_tensors >= 0 && content->n_moments >= 0 && content->shard_bytes_max >= 0, SP_BAD_ARGUMENT,
               "%s: a negative size", folder);
    SP_REQUIRE(content->state || content->n_moments == 0, SP_BAD_ARGUMENT, "%s: moments without a training state",
               folder);
    char temporary[SP_PATH_BYTES];
    SP_TRY(sp_swap_begin(folder, content->replace, temporary));
    sp_status status = content->fla_names ? write_fla_content(temporary, content) : write_content(temporary, content);
    if (status == SP_OK) status = sp_swap_commit(folder);
    if (status != SP_OK) sp_swap_abandon(folder);
    return status;
}
