/* Opening a checkpoint: a folder, read here, or one file of another kind, which is told by its first bytes
 * (gguf_open.c, llama2c_open.c).
 *
 * A folder holds config.json and model.safetensors, or the shards that model.safetensors.index.json names.  The
 * tensors answer to LLaMA's names whoever wrote them (tensor_names.c), and fla's old fused gate_proj, gate above up,
 * is seen as the two matrices that it is.  Nothing of a folder is copied: all tensors are views into the mapped files.
 *
 * What the numbers mean is the model's matter; writing is in checkpoint_write.c. */
#define _POSIX_C_SOURCE 200809L
#include "softpick/checkpoint.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "checkpoint/checkpoint_private.h"
#include "checkpoint/tensor_names.h"

/* ---- files
 * ------------------------------------------------------------------------------------------------------ */

static sp_status read_config(sp_checkpoint *checkpoint) {
    const char *path = checkpoint->source;
    int64_t n_bytes;
    json_t *json;
    SP_TRY(sp_path_join(checkpoint->source, sizeof checkpoint->source, checkpoint->folder, "config.json"));
    SP_TRY(sp_file_read(path, &checkpoint->config, &n_bytes));
    SP_TRY(sp_json_parse(&json, checkpoint->config, n_bytes, path));
    bool is_object = json_is_object(json);
    json_decref(json);
    SP_REQUIRE(is_object, SP_BAD_FILE, "%s: not a JSON object", path);
    return SP_OK;
}

/* A name without folders, so that an index cannot reach out of its own folder. */
static bool is_plain_name(const char *name) {
    return *name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* The shard of that name, opened on its first use. */
static sp_status open_shard(sp_checkpoint *checkpoint, const char *name, sp_safetensors **file) {
    for (int64_t i = 0; i < checkpoint->n_shards; i++) {
        *file = checkpoint->shards[i].file;
        if (strcmp(checkpoint->shards[i].name, name) == 0) return SP_OK;
    }
    char path[SP_PATH_BYTES];
    SP_TRY(sp_path_join(path, sizeof path, checkpoint->folder, name));
    sp_checkpoint_shard *grown = realloc(checkpoint->shards, (size_t)(checkpoint->n_shards + 1) * sizeof *grown);
    SP_REQUIRE(grown, SP_OUT_OF_MEMORY, "%s: no memory for its list of files", path);
    checkpoint->shards = grown;
    sp_checkpoint_shard *added = &grown[checkpoint->n_shards];
    *added = (sp_checkpoint_shard){.name = strdup(name)};
    SP_REQUIRE(added->name, SP_OUT_OF_MEMORY, "%s: no memory for its name", path);
    checkpoint->n_shards++;
    SP_TRY(sp_safetensors_open(&added->file, path));
    *file = added->file;
    return SP_OK;
}

/* ---- tensors
 * ---------------------------------------------------------------------------------------------------- */

sp_status sp_checkpoint_reserve(sp_checkpoint *checkpoint, int64_t n) {
    checkpoint->capacity = n;
    checkpoint->entries = calloc((size_t)n + 1, sizeof *checkpoint->entries);
    checkpoint->by_name = calloc((size_t)n + 1, sizeof *checkpoint->by_name);
    SP_REQUIRE(checkpoint->entries && checkpoint->by_name, SP_OUT_OF_MEMORY, "%s: no memory for its list of tensors",
               checkpoint->folder);
    return SP_OK;
}

sp_status sp_checkpoint_add(sp_checkpoint *checkpoint, const char *name, const sp_tensor *tensor, void *owned) {
    char *llama;
    sp_status status = checkpoint->count < checkpoint->capacity
                           ? sp_tensor_name_to_llama(&llama, name)
                           : sp_fail(SP_INTERNAL, "%s: more tensors than were counted", checkpoint->folder);
    if (status != SP_OK) {
        free(owned);
        return status;
    }
    checkpoint->entries[checkpoint->count++] = (sp_checkpoint_entry){llama, *tensor, owned};
    checkpoint->fla = checkpoint->fla || sp_tensor_name_is_fla(name);
    return SP_OK;
}

static sp_status read_single(sp_checkpoint *checkpoint) {
    sp_safetensors *file;
    SP_TRY(open_shard(checkpoint, "model.safetensors", &file));
    SP_TRY(sp_checkpoint_reserve(checkpoint, 2 * sp_safetensors_count(file)));
    for (int64_t i = 0; i < sp_safetensors_count(file); i++)
        SP_TRY(sp_checkpoint_add(checkpoint, sp_safetensors_name(file, i), sp_safetensors_tensor(file, i), NULL));
    return SP_OK;
}

static sp_status read_mapped(sp_checkpoint *checkpoint, const json_t *index, const char *path) {
    json_t *map = json_object_get(index, "weight_map"), *value;
    SP_REQUIRE(json_is_object(map), SP_BAD_FILE, "%s: has no object weight_map", path);
    SP_TRY(sp_checkpoint_reserve(checkpoint, 2 * (int64_t)json_object_size(map)));
    const char *name;
    int64_t n_stored = 0;
    json_object_foreach(map, name, value) {
        const char *file_name = json_string_value(value);
        SP_REQUIRE(file_name && is_plain_name(file_name), SP_BAD_FILE,
                   "%s: tensor '%.200s' is not mapped to the plain name of a file", path, name);
        sp_safetensors *file;
        SP_TRY(open_shard(checkpoint, file_name, &file));
        const sp_tensor *tensor = sp_safetensors_find(file, name);
        SP_REQUIRE(tensor, SP_BAD_FILE, "%s: tensor '%.200s' is not in %.200s", path, name, file_name);
        SP_TRY(sp_checkpoint_add(checkpoint, name, tensor, NULL));
    }
    for (int64_t i = 0; i < checkpoint->n_shards; i++) n_stored += sp_safetensors_count(checkpoint->shards[i].file);
    if (n_stored != checkpoint->count)
        sp_log(SP_LOG_WARNING, "%s: the files hold %" PRId64 " tensors, the index names %" PRId64, path, n_stored,
               checkpoint->count);
    return SP_OK;
}

static sp_status read_tensors(sp_checkpoint *checkpoint) {
    char single[SP_PATH_BYTES], path[SP_PATH_BYTES];
    SP_TRY(sp_path_join(single, sizeof single, checkpoint->folder, "model.safetensors"));
    SP_TRY(sp_path_join(path, sizeof path, checkpoint->folder, "model.safetensors.index.json"));
    if (sp_file_exists(single)) return read_single(checkpoint);
    SP_REQUIRE(sp_file_exists(path), SP_BAD_FILE,
               "%s: holds neither model.safetensors nor model.safetensors.index.json (pickled weights are not read: "
               "save them as safetensors)",
               checkpoint->folder);
    json_t *index;
    SP_TRY(sp_json_read(&index, path));
    sp_status status = read_mapped(checkpoint, index, path);
    json_decref(index);
    return status;
}

/* ---- names
 * ------------------------------------------------------------------------------------------------------ */

static int compare_names(const void *left, const void *right) {
    const sp_checkpoint_entry *const *a = left, *const *b = right;
    return strcmp((*a)->name, (*b)->name);
}

static sp_status sort_by_name(sp_checkpoint *checkpoint) {
    for (int64_t i = 0; i < checkpoint->count; i++) checkpoint->by_name[i] = &checkpoint->entries[i];
    qsort(checkpoint->by_name, (size_t)checkpoint->count, sizeof *checkpoint->by_name, compare_names);
    for (int64_t i = 1; i < checkpoint->count; i++)
        SP_REQUIRE(compare_names(&checkpoint->by_name[i - 1], &checkpoint->by_name[i]) != 0, SP_BAD_FILE,
                   "%s: tensor '%.200s' stands there twice, under LLaMA's name and fla's", checkpoint->folder,
                   checkpoint->by_name[i]->name);
    checkpoint->n_sorted = checkpoint->count;
    return SP_OK;
}

/* "...mlp.up_proj.weight" for "...mlp.gate_proj.weight", which the caller frees; NULL for other names. */
static sp_status name_of_up(char **up, const char *gate) {
    static const char gate_tail[] = ".mlp.gate_proj.weight", up_tail[] = ".mlp.up_proj.weight";
    *up = NULL;
    size_t length = strlen(gate);
    if (length < sizeof gate_tail || strcmp(gate + length + 1 - sizeof gate_tail, gate_tail) != 0) return SP_OK;
    *up = strdup(gate);
    SP_REQUIRE(*up, SP_OUT_OF_MEMORY, "%s: no memory for its name", gate);
    memcpy(*up + length + 1 - sizeof gate_tail, up_tail, sizeof up_tail);
    return SP_OK;
}

/* fla's gate_proj (2F,C), gate above up: becomes gate_proj (F,C), and `up` the other half. */
static sp_status split_gate(const sp_checkpoint *checkpoint, sp_checkpoint_entry *gate, sp_checkpoint_entry *up) {
    sp_tensor *tensor = &gate->tensor;
    SP_REQUIRE(tensor->n_dims == 2 && tensor->shape[0] % 2 == 0, SP_BAD_FILE,
               "%s: tensor '%.200s': there is no up_proj, and its shape is not that of gate and up in one",
               checkpoint->folder, gate->name);
    tensor->shape[0] /= 2;
    up->tensor = *tensor;
    up->tensor.data = (char *)tensor->data + sp_tensor_count(tensor) * sp_dtype_bytes(tensor->dtype);
    return SP_OK;
}

static sp_status split_fused_gates(sp_checkpoint *checkpoint) {
    int64_t n = checkpoint->count;
    for (int64_t i = 0; i < n; i++) {
        sp_checkpoint_entry *gate = &checkpoint->entries[i], *up = &checkpoint->entries[checkpoint->count];
        SP_TRY(name_of_up(&up->name, gate->name));
        bool fused = up->name && !sp_checkpoint_find(checkpoint, up->name);
        if (fused) {
            checkpoint->count++;
            SP_TRY(split_gate(checkpoint, gate, up));
        } else {
            free(up->name);
            up->name = NULL;
        }
    }
    return SP_OK;
}

/* ---- the calls
 * -------------------------------------------------------------------------------------------------- */

static sp_status read_folder(sp_checkpoint *checkpoint) {
    SP_TRY(read_config(checkpoint));
    SP_TRY(read_tensors(checkpoint));
    SP_TRY(sort_by_name(checkpoint));
    if (!checkpoint->fla) return SP_OK;
    SP_TRY(split_fused_gates(checkpoint));
    return sort_by_name(checkpoint);
}

#define PICKLE                                                                                                         \
    "a pickle of PyTorch is never read: load it with torch.load(..., weights_only=True) and write it with "            \
    "safetensors.torch.save_file, or let transformers' save_pretrained do both"

/* Kinds of files by the bytes with which they begin; the last, llama2.c's, may begin with its sizes. */
static const struct file_kind {
    const char *bytes;
    int64_t n_bytes;
    sp_status (*read)(sp_checkpoint *checkpoint); /* NULL: refused, and why */
    const char *refusal;
} file_kinds[] = {
    {"GGUF", 4, sp_checkpoint_read_gguf, NULL},
    {"PK\3\4", 4, NULL, PICKLE},
    {"\x80\x02\x8a\x0a", 4, NULL, PICKLE}, /* before PyTorch 1.6 */
    {"", 0, sp_checkpoint_read_llama2c, NULL},
};

static sp_status read_file(sp_checkpoint *checkpoint) {
    static const char tail[] = ".safetensors";
    size_t length = strlen(checkpoint->folder), n_tail = sizeof tail - 1;
    SP_REQUIRE(length < n_tail || strcmp(checkpoint->folder + length - n_tail, tail) != 0, SP_UNSUPPORTED,
               "%s: tensors alone are no model: name the folder in which they stand with their config.json",
               checkpoint->folder);
    snprintf(checkpoint->source, sizeof checkpoint->source, "%s", checkpoint->folder);
    sp_file_map map;
    SP_TRY(sp_file_map_open(&map, checkpoint->folder));
    const struct file_kind *kind = file_kinds;
    while (map.n_bytes < kind->n_bytes || (kind->n_bytes && memcmp(map.data, kind->bytes, (size_t)kind->n_bytes) != 0))
        kind++;
    sp_file_map_close(&map);
    SP_REQUIRE(kind->read, SP_UNSUPPORTED, "%s: %s", checkpoint->folder, kind->refusal);
    SP_TRY(kind->read(checkpoint));
    return sort_by_name(checkpoint);
}

sp_status sp_checkpoint_open(sp_checkpoint **out, const char *path) {
    *out = NULL;
    sp_checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
    SP_REQUIRE(checkpoint, SP_OUT_OF_MEMORY, "%s: no memory", path);
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_swap_resolve(path, checkpoint->folder));
    bool is_file = sp_file_exists(checkpoint->folder);
    SP_REQUIRE_OR_DONE(is_file || sp_folder_exists(checkpoint->folder), SP_IO, "%s: no such folder or file", path);
    SP_TRY_OR_DONE(is_file ? read_file(checkpoint) : read_folder(checkpoint));
done:
    if (status == SP_OK)
        *out = checkpoint;
    else
        sp_checkpoint_close(checkpoint);
    return status;
}

void sp_checkpoint_close(sp_checkpoint *checkpoint) {
    if (!checkpoint) return;
    for (int64_t i = 0; i < checkpoint->count; i++) {
        free(checkpoint->entries[i].name);
        free(checkpoint->entries[i].owned);
    }
    for (int64_t i = 0; i < checkpoint->n_shards; i++) {
        sp_safetensors_close(checkpoint->shards[i].file);
        free(checkpoint->shards[i].name);
    }
    sp_gguf_close(checkpoint->gguf);
    sp_file_map_close(&checkpoint->map);
    free(checkpoint->by_name);
    free(checkpoint->entries);
    free(checkpoint->shards);
    free(checkpoint->config);
    free(checkpoint);
}

const char *sp_checkpoint_folder(const sp_checkpoint *checkpoint) { return checkpoint->folder; }

const char *sp_checkpoint_config(const sp_checkpoint *checkpoint) { return checkpoint->config; }

const char *sp_checkpoint_source(const sp_checkpoint *checkpoint) { return checkpoint->source; }

int64_t sp_checkpoint_count(const sp_checkpoint *checkpoint) { return checkpoint->count; }

const char *sp_checkpoint_name(const sp_checkpoint *checkpoint, int64_t i) { return checkpoint->entries[i].name; }

const sp_tensor *sp_checkpoint_tensor(const sp_checkpoint *checkpoint, int64_t i) {
    return &checkpoint->entries[i].tensor;
}

const sp_tensor *sp_checkpoint_find(const sp_checkpoint *checkpoint, const char *name) {
    const sp_checkpoint_entry key = {.name = (char *)(uintptr_t)name}, *wanted = &key;
    const sp_checkpoint_entry *const *found =
        bsearch(&wanted, checkpoint->by_name, (size_t)checkpoint->n_sorted, sizeof *checkpoint->by_name, compare_names);
    return found ? &(*found)->tensor : NULL;
}
