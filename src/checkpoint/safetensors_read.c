/* Reader of safetensors files (docs/formats.md): maps the file, checks all of it, answers by name.
 *
 * After sp_safetensors_parse has succeeded:
 *   1. every tensor lies within the data, and together they cover it without hole or overlap;
 *   2. product of shape and strides fits int64_t, also where a dimension is 0;
 *   3. a tensor's address is a multiple of its dtype's size (data that lies crooked in the file is copied
 * once).
 *
 * Writing is in safetensors_write.c. */
#include "softpick/checkpoint.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "checkpoint/safetensors_format.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format is little-endian and is mapped as it stands");

typedef struct entry {
    const char *name;   /* borrowed from the header */
    int64_t begin, end; /* within the data */
    sp_tensor tensor;
} entry;

struct sp_safetensors {
    sp_file_map map;       /* zero when the caller holds the bytes */
    json_t *header;        /* owns the names and the metadata */
    entry *entries;        /* in order of the data */
    const entry **by_name; /* the same, sorted */
    int64_t count;
    void *straightened; /* copies of tensors that are not aligned in the file */
};

/* ---- the header
 * ------------------------------------------------------------------------------------------------- */

static sp_status read_header(json_t **out, int64_t *data_start, const uint8_t *bytes, int64_t n_bytes,
                             const char *source) {
    SP_REQUIRE(n_bytes >= SP_SAFETENSORS_LENGTH_BYTES, SP_BAD_FILE,
               "%s: %" PRId64 " bytes: too short for a safetensors file", source, n_bytes);
    uint64_t length;
    memcpy(&length, bytes, sizeof length);
    SP_REQUIRE(length <= SP_SAFETENSORS_HEADER_MAX, SP_BAD_FILE,
               "%s: a header of %" PRIu64 " bytes (at most %d are allowed): not a safetensors file", source, length,
               SP_SAFETENSORS_HEADER_MAX);
    SP_REQUIRE((int64_t)length <= n_bytes - SP_SAFETENSORS_LENGTH_BYTES, SP_BAD_FILE,
               "%s: the header takes %" PRIu64 " bytes but only %" PRId64 " follow: the file is cut short", source,
               length, n_bytes - SP_SAFETENSORS_LENGTH_BYTES);
    const char *text = (const char *)bytes + SP_SAFETENSORS_LENGTH_BYTES;
    SP_REQUIRE(length > 0 && text[0] == '{', SP_BAD_FILE, "%s: the header does not begin with '{'", source);

    char where[1024];
    snprintf(where, sizeof where, "%.1000s: header", source);
    SP_TRY(sp_json_parse(out, text, (int64_t)length, where));
    *data_start = SP_SAFETENSORS_LENGTH_BYTES + (int64_t)length;
    return SP_OK;
}

static sp_status check_metadata(const json_t *header, const char *source) {
    json_t *metadata = json_object_get(header, SP_SAFETENSORS_METADATA);
    if (!metadata) return SP_OK;
    SP_REQUIRE(json_is_object(metadata), SP_BAD_FILE, "%s: %s is not an object", source, SP_SAFETENSORS_METADATA);
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value) {
        SP_REQUIRE(json_is_string(value), SP_BAD_FILE, "%s: %s: the value of '%.200s' is not a string", source,
                   SP_SAFETENSORS_METADATA, key);
    }
    return SP_OK;
}

static sp_status read_dtype(sp_dtype *dtype, const json_t *json, const char *name, const char *source) {
    const char *stored = json_string_value(json_object_get(json, "dtype"));
    SP_REQUIRE(stored, SP_BAD_FILE, "%s: tensor '%.200s' has no dtype", source, name);
    const sp_stored_dtype *row = sp_stored_dtype_find(stored);
    SP_REQUIRE(row, SP_BAD_FILE, "%s: tensor '%.200s': unknown dtype '%.40s'", source, name, stored);
    SP_REQUIRE(row->dtype != SP_DTYPE_COUNT, SP_UNSUPPORTED,
               "%s: tensor '%.200s': dtype %s (%d bits a number) is not supported", source, name, stored, row->bits);
    *dtype = row->dtype;
    return SP_OK;
}

/* Shape of the tensor and the bytes it takes.  The product counts a dimension of 0 as 1 for the check of its
 * range, so that no stride can overflow either. */
static sp_status read_shape(entry *to, int64_t *n_bytes, sp_dtype dtype, const json_t *json, const char *source) {
    const json_t *shape = json_object_get(json, "shape");
    SP_REQUIRE(json_is_array(shape), SP_BAD_FILE, "%s: tensor '%.200s' has no shape", source, to->name);
    int64_t n_dims = (int64_t)json_array_size(shape), dims[SP_MAX_DIMS], product = sp_dtype_bytes(dtype);
    SP_REQUIRE(n_dims <= SP_MAX_DIMS, SP_UNSUPPORTED,
               "%s: tensor '%.200s' has %" PRId64 " dimensions: at most %d are supported", source, to->name, n_dims,
               SP_MAX_DIMS);
    bool empty = false;
    for (int64_t i = 0; i < n_dims; i++) {
        const json_t *size = json_array_get(shape, (size_t)i);
        dims[i] = json_integer_value(size);
        SP_REQUIRE(json_is_integer(size) && dims[i] >= 0, SP_BAD_FILE,
                   "%s: tensor '%.200s': dimension %" PRId64 " of its shape is not a whole number >= 0", source,
                   to->name, i);
        SP_REQUIRE(sp_multiply_sizes(product, dims[i] ? dims[i] : 1, &product), SP_BAD_FILE,
                   "%s: tensor '%.200s': its shape is too large", source, to->name);
        empty = empty || dims[i] == 0;
    }
    to->tensor = sp_tensor_view(NULL, dtype, n_dims, dims);
    *n_bytes = empty ? 0 : product;
    return SP_OK;
}

static sp_status read_offsets(entry *to, const json_t *json, const char *source) {
    const json_t *offsets = json_object_get(json, "data_offsets");
    SP_REQUIRE(json_is_array(offsets) && json_array_size(offsets) == 2, SP_BAD_FILE,
               "%s: tensor '%.200s' has no pair of data_offsets", source, to->name);
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    SP_REQUIRE(json_is_integer(begin) && json_is_integer(end), SP_BAD_FILE,
               "%s: tensor '%.200s': its data_offsets are not whole numbers", source, to->name);
    to->begin = json_integer_value(begin);
    to->end = json_integer_value(end);
    SP_REQUIRE(0 <= to->begin && to->begin <= to->end, SP_BAD_FILE,
               "%s: tensor '%.200s': data_offsets [%" PRId64 ",%" PRId64 "] are not a range", source, to->name,
               to->begin, to->end);
    return SP_OK;
}

static sp_status read_entry(entry *to, const char *name, const json_t *json, const char *source) {
    to->name = name;
    SP_REQUIRE(json_is_object(json), SP_BAD_FILE, "%s: tensor '%.200s' is not described by an object", source, name);
    sp_dtype dtype = SP_DTYPE_COUNT;
    int64_t n_bytes = 0;
    SP_TRY(read_dtype(&dtype, json, name, source));
    SP_TRY(read_shape(to, &n_bytes, dtype, json, source));
    SP_TRY(read_offsets(to, json, source));
    SP_REQUIRE(to->end - to->begin == n_bytes, SP_BAD_FILE,
               "%s: tensor '%.200s': its shape takes %" PRId64 " bytes, its data_offsets %" PRId64, source, name,
               n_bytes, to->end - to->begin);
    return SP_OK;
}

static sp_status read_entries(sp_safetensors *file, const char *source) {
    int64_t capacity = (int64_t)json_object_size(file->header) + 1; /* never 0 */
    file->entries = calloc((size_t)capacity, sizeof *file->entries);
    file->by_name = calloc((size_t)capacity, sizeof *file->by_name);
    SP_REQUIRE(file->entries && file->by_name, SP_OUT_OF_MEMORY, "%s: no memory for its list of tensors", source);
    const char *name;
    json_t *json;
    json_object_foreach(file->header, name, json) {
        if (strcmp(name, SP_SAFETENSORS_METADATA) == 0) continue;
        SP_TRY(read_entry(&file->entries[file->count], name, json, source));
        file->count++;
    }
    return SP_OK;
}

/* ---- the data
 * --------------------------------------------------------------------------------------------------- */

/* By place; the name decides between empty tensors at one place. */
static int compare_places(const void *left, const void *right) {
    const entry *a = left, *b = right;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    if (a->end != b->end) return a->end < b->end ? -1 : 1;
    return strcmp(a->name, b->name);
}

static sp_status check_places(const sp_safetensors *file, int64_t n_data, const char *source) {
    int64_t covered = 0;
    for (int64_t i = 0; i < file->count; i++) {
        const entry *at = &file->entries[i];
        SP_REQUIRE(at->begin == covered, SP_BAD_FILE,
                   "%s: tensor '%.200s' begins at byte %" PRId64 " of the data, the one before it ends at %" PRId64
                   ": %s",
                   source, at->name, at->begin, covered, at->begin < covered ? "they overlap" : "a hole");
        SP_REQUIRE(at->end <= n_data, SP_BAD_FILE,
                   "%s: tensor '%.200s' ends at byte %" PRId64 " of the data, which has %" PRId64
                   ": the file is cut short",
                   source, at->name, at->end, n_data);
        covered = at->end;
    }
    SP_REQUIRE(covered == n_data, SP_BAD_FILE, "%s: %" PRId64 " bytes follow the last tensor", source,
               n_data - covered);
    return SP_OK;
}

static bool lies_straight(const entry *at, const uint8_t *data) {
    return (uintptr_t)(data + at->begin) % (uintptr_t)sp_dtype_bytes(at->tensor.dtype) == 0;
}

/* Points the tensors at their numbers: into the file, or into an aligned copy of those that lie crooked
 * there. */
static sp_status place_tensors(sp_safetensors *file, const uint8_t *data, const char *source) {
    int64_t n_copied = 0;
    for (int64_t i = 0; i < file->count; i++) {
        const entry *at = &file->entries[i];
        if (!lies_straight(at, data)) n_copied += sp_round_up(at->end - at->begin, SP_ALIGNMENT);
    }
    if (n_copied) SP_TRY(sp_allocate(&file->straightened, n_copied, source));
    uint8_t *copy = file->straightened;
    for (int64_t i = 0; i < file->count; i++) {
        entry *at = &file->entries[i];
        at->tensor.data = (void *)(uintptr_t)(data + at->begin);
        if (at->begin == at->end || lies_straight(at, data)) continue;
        at->tensor.data = memcpy(copy, data + at->begin, (size_t)(at->end - at->begin));
        copy += sp_round_up(at->end - at->begin, SP_ALIGNMENT);
    }
    return SP_OK;
}

static int compare_names(const void *left, const void *right) {
    const entry *const *a = left, *const *b = right;
    return strcmp((*a)->name, (*b)->name);
}

static void sort_by_name(sp_safetensors *file) {
    for (int64_t i = 0; i < file->count; i++) file->by_name[i] = &file->entries[i];
    qsort(file->by_name, (size_t)file->count, sizeof *file->by_name, compare_names);
}

/* ---- the calls
 * -------------------------------------------------------------------------------------------------- */

sp_status sp_safetensors_parse(sp_safetensors **out, const void *data, int64_t n_bytes, const char *name) {
    *out = NULL;
    SP_REQUIRE((data || n_bytes == 0) && n_bytes >= 0, SP_BAD_ARGUMENT, "%s: no bytes were handed over", name);
    sp_safetensors *file = calloc(1, sizeof *file);
    SP_REQUIRE(file, SP_OUT_OF_MEMORY, "%s: no memory", name);
    sp_status status = SP_OK;
    int64_t data_start = 0;
    SP_TRY_OR_DONE(read_header(&file->header, &data_start, data, n_bytes, name));
    SP_TRY_OR_DONE(check_metadata(file->header, name));
    SP_TRY_OR_DONE(read_entries(file, name));
    qsort(file->entries, (size_t)file->count, sizeof *file->entries, compare_places);
    SP_TRY_OR_DONE(check_places(file, n_bytes - data_start, name));
    SP_TRY_OR_DONE(place_tensors(file, (const uint8_t *)data + data_start, name));
    sort_by_name(file);
done:
    if (status == SP_OK)
        *out = file;
    else
        sp_safetensors_close(file);
    return status;
}

sp_status sp_safetensors_open(sp_safetensors **out, const char *path) {
    *out = NULL;
    sp_file_map map;
    SP_TRY(sp_file_map_open(&map, path));
    sp_status status = sp_safetensors_parse(out, map.data, map.n_bytes, path);
    if (*out)
        (*out)->map = map;
    else
        sp_file_map_close(&map);
    return status;
}

void sp_safetensors_close(sp_safetensors *file) {
    if (!file) return;
    free(file->straightened);
    free(file->by_name);
    free(file->entries);
    json_decref(file->header);
    sp_file_map_close(&file->map);
    free(file);
}

int64_t sp_safetensors_count(const sp_safetensors *file) { return file->count; }

const char *sp_safetensors_name(const sp_safetensors *file, int64_t i) { return file->entries[i].name; }

const sp_tensor *sp_safetensors_tensor(const sp_safetensors *file, int64_t i) { return &file->entries[i].tensor; }

const sp_tensor *sp_safetensors_find(const sp_safetensors *file, const char *name) {
    const entry key = {.name = name}, *wanted = &key;
    const entry *const *found =
        bsearch(&wanted, file->by_name, (size_t)file->count, sizeof *file->by_name, compare_names);
    return found ? &(*found)->tensor : NULL;
}

const char *sp_safetensors_metadata(const sp_safetensors *file, const char *key) {
    return json_string_value(json_object_get(json_object_get(file->header, SP_SAFETENSORS_METADATA), key));
}
