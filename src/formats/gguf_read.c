/* Reader of GGUF files (docs/formats.md): maps the file, checks all of it, answers by name.
 *
 * After sp_gguf_parse has succeeded:
 *   1. keys and tensors' names are unlike each other, in printable bytes; nothing is longer than LENGTH_MAX;
 *   2. every value and every tensor lies within the file; counts are multiplied without overflow;
 *   3. tensors follow each other, each at the next multiple of the alignment, in formats that are read here.
 *
 * Writing is in gguf_write.c. */
#define _POSIX_C_SOURCE 200809L
#include "formats/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format is little-endian and is mapped as it stands");

enum { LENGTH_MAX = 1 << 30, TENSOR_NAME_MAX = 63, ALIGNMENT = 32 };
/* The least that a key with its value and a tensor's description take. */
enum { VALUE_BYTES_MIN = 8 + 1 + 4 + 1, TENSOR_BYTES_MIN = 8 + 1 + 4 + 8 + 4 + 8 };

struct sp_gguf {
    sp_file_map map; /* zero when the caller holds the bytes */
    char *source;
    sp_gguf_value *values;
    const sp_gguf_value **by_key; /* the same, sorted */
    int64_t n_values;
    sp_gguf_tensor *tensors;
    const sp_gguf_tensor **by_name;
    int64_t n_tensors;
};

/* Where reading stands. */
typedef struct cursor {
    const uint8_t *data;
    int64_t at, n_bytes;
    const char *source;
} cursor;

static const struct {
    const char *name;
    int bytes; /* 0: no fixed size */
} kinds[SP_GGUF_KIND_COUNT] = {
    {"u8", 1},   {"i8", 1},     {"u16", 2},   {"i16", 2}, {"u32", 4}, {"i32", 4}, {"f32", 4},
    {"bool", 1}, {"string", 0}, {"array", 0}, {"u64", 8}, {"i64", 8}, {"f64", 8},
};

/* ---- pieces of the file ---------------------------------------------------------------------------------------- */

static sp_status take(cursor *from, const uint8_t **bytes, int64_t n, const char *what) {
    SP_REQUIRE(n <= from->n_bytes - from->at, SP_BAD_FILE,
               "%s: ends in the middle of %s (byte %" PRId64 " of %" PRId64 ")", from->source, what, from->at,
               from->n_bytes);
    *bytes = from->data + from->at;
    from->at += n;
    return SP_OK;
}

static sp_status take_number(cursor *from, void *out, int64_t n, const char *what) {
    const uint8_t *bytes = NULL;
    SP_TRY(take(from, &bytes, n, what));
    memcpy(out, bytes, (size_t)n);
    return SP_OK;
}

/* A length and as many bytes. */
static sp_status take_string(cursor *from, sp_gguf_string *out, const char *what) {
    uint64_t length = 0;
    SP_TRY(take_number(from, &length, sizeof length, what));
    SP_REQUIRE(length <= LENGTH_MAX, SP_BAD_FILE, "%s: %s has a string of %" PRIu64 " bytes: at most %d are allowed",
               from->source, what, length, LENGTH_MAX);
    out->n_bytes = (int64_t)length;
    return take(from, (const uint8_t **)&out->bytes, out->n_bytes, what);
}

/* A copy with a 0 after it, which sp_gguf_close frees. */
static sp_status keep(const char **out, const cursor *from, sp_gguf_string text) {
    *out = strndup(text.bytes, (size_t)text.n_bytes);
    SP_REQUIRE(*out, SP_OUT_OF_MEMORY, "%s: no memory for a name", from->source);
    return SP_OK;
}

/* A name that can stand in a message of one line. */
static sp_status take_name(cursor *from, const char **out, const char *what) {
    sp_gguf_string name;
    SP_TRY(take_string(from, &name, what));
    bool printable = name.n_bytes > 0;
    for (int64_t i = 0; printable && i < name.n_bytes; i++) printable = name.bytes[i] > ' ' && name.bytes[i] < 127;
    SP_REQUIRE(printable, SP_BAD_FILE, "%s: %s has a name that is empty or not of printable letters", from->source,
               what);
    return keep(out, from, name);
}

/* ---- keys and values ------------------------------------------------------------------------------------------- */

static sp_status take_kind(cursor *from, sp_gguf_kind *kind, const char *what) {
    uint32_t number = 0;
    SP_TRY(take_number(from, &number, sizeof number, what));
    SP_REQUIRE(number < SP_GGUF_KIND_COUNT, SP_BAD_FILE, "%s: %s has the unknown type %" PRIu32, from->source, what,
               number);
    *kind = (sp_gguf_kind)number;
    return SP_OK;
}

static sp_status take_items(cursor *from, const sp_gguf_value *value, const char *what) {
    const uint8_t *bytes = NULL;
    sp_gguf_string text;
    if (value->kind == SP_GGUF_STRING) {
        for (int64_t i = 0; i < value->n; i++) SP_TRY(take_string(from, &text, what));
        return SP_OK;
    }
    int64_t n_bytes;
    SP_REQUIRE(sp_multiply_sizes(value->n, kinds[value->kind].bytes, &n_bytes) && n_bytes <= LENGTH_MAX, SP_BAD_FILE,
               "%s: %s has %" PRId64 " items: too many", from->source, what, value->n);
    SP_TRY(take(from, &bytes, n_bytes, what));
    for (int64_t i = 0; value->kind == SP_GGUF_BOOL && i < n_bytes; i++)
        SP_REQUIRE(bytes[i] <= 1, SP_BAD_FILE, "%s: %s has a bool of value %d", from->source, what, bytes[i]);
    return SP_OK;
}

static sp_status take_array(cursor *from, sp_gguf_value *value, const char *what) {
    uint64_t n = 0;
    SP_TRY(take_kind(from, &value->kind, what));
    SP_REQUIRE(value->kind != SP_GGUF_ARRAY, SP_UNSUPPORTED, "%s: %s is an array of arrays", from->source, what);
    SP_TRY(take_number(from, &n, sizeof n, what));
    SP_REQUIRE(n <= LENGTH_MAX, SP_BAD_FILE, "%s: %s has %" PRIu64 " items: too many", from->source, what, n);
    value->is_array = true;
    value->n = (int64_t)n;
    return SP_OK;
}

static sp_status take_value(cursor *from, sp_gguf_value *value) {
    char what[256];
    SP_TRY(take_name(from, &value->key, "a key"));
    snprintf(what, sizeof what, "key %.200s", value->key);
    SP_TRY(take_kind(from, &value->kind, what));
    value->n = 1;
    if (value->kind == SP_GGUF_ARRAY) SP_TRY(take_array(from, value, what));
    value->data = from->data + from->at;
    SP_TRY(take_items(from, value, what));
    if (value->is_array || value->kind != SP_GGUF_STRING) return SP_OK;
    const uint8_t *at = value->data;
    sp_gguf_string text = sp_gguf_next_string(&at);
    SP_REQUIRE(!memchr(text.bytes, 0, (size_t)text.n_bytes), SP_BAD_FILE, "%s: %s has a string with a zero byte",
               from->source, what);
    return keep(&value->text, from, text);
}

static int compare_keys(const void *left, const void *right) {
    const sp_gguf_value *const *a = left, *const *b = right;
    return strcmp((*a)->key, (*b)->key);
}

static sp_status read_values(sp_gguf *file, cursor *from, int64_t n) {
    file->values = calloc((size_t)n + 1, sizeof *file->values);
    file->by_key = calloc((size_t)n + 1, sizeof *file->by_key);
    SP_REQUIRE(file->values && file->by_key, SP_OUT_OF_MEMORY, "%s: no memory for its keys", from->source);
    while (file->n_values < n) {
        sp_gguf_value *value = &file->values[file->n_values];
        file->by_key[file->n_values++] = value;
        SP_TRY(take_value(from, value));
    }
    qsort(file->by_key, (size_t)n, sizeof *file->by_key, compare_keys);
    for (int64_t i = 1; i < n; i++)
        SP_REQUIRE(compare_keys(&file->by_key[i - 1], &file->by_key[i]) != 0, SP_BAD_FILE,
                   "%s: key %.200s stands there twice", from->source, file->by_key[i]->key);
    return SP_OK;
}

/* ---- tensors --------------------------------------------------------------------------------------------------- */

static sp_status take_shape(cursor *from, sp_gguf_tensor *tensor) {
    uint32_t n_dims = 0;
    int64_t product = 1;
    SP_TRY(take_number(from, &n_dims, sizeof n_dims, tensor->name));
    SP_REQUIRE(n_dims >= 1 && n_dims <= SP_GGUF_DIMS, SP_BAD_FILE,
               "%s: tensor %s has %" PRIu32 " dimensions: 1 to %d are allowed", from->source, tensor->name, n_dims,
               SP_GGUF_DIMS);
    tensor->n_dims = n_dims;
    for (int64_t i = n_dims - 1; i >= 0; i--) {
        SP_TRY(take_number(from, &tensor->shape[i], sizeof *tensor->shape, tensor->name));
        SP_REQUIRE(tensor->shape[i] > 0 && sp_multiply_sizes(product, tensor->shape[i], &product), SP_BAD_FILE,
                   "%s: tensor %s: dimension %" PRId64 " is %" PRId64 ": out of range", from->source, tensor->name,
                   n_dims - 1 - i, tensor->shape[i]);
    }
    tensor->n_bytes = product; /* items so far */
    return SP_OK;
}

static sp_status take_format(cursor *from, sp_gguf_tensor *tensor) {
    uint32_t id = 0;
    SP_TRY(take_number(from, &id, sizeof id, tensor->name));
    tensor->format = sp_block_format_by_id(id);
    SP_REQUIRE(tensor->format, SP_BAD_FILE, "%s: tensor %s has the unknown type %" PRIu32, from->source, tensor->name,
               id);
    const sp_block_format *format = tensor->format;
    SP_REQUIRE(format->read, SP_UNSUPPORTED, "%s: tensor %s has type %s: F32, F16, BF16, Q8_0 and Q4_0 are supported",
               from->source, tensor->name, format->name);
    int64_t row = tensor->shape[tensor->n_dims - 1];
    SP_REQUIRE(row % format->items == 0, SP_BAD_FILE,
               "%s: tensor %s: its rows of %" PRId64 " numbers are not whole blocks of %d (%s)", from->source,
               tensor->name, row, format->items, format->name);
    SP_REQUIRE(sp_multiply_sizes(tensor->n_bytes / format->items, format->bytes, &tensor->n_bytes), SP_BAD_FILE,
               "%s: tensor %s is too large", from->source, tensor->name);
    return SP_OK;
}

/* `end`: where the data of the tensors before ends, from the beginning of the data. */
static sp_status take_tensor(cursor *from, sp_gguf_tensor *tensor, int64_t alignment, int64_t *end) {
    uint64_t offset = 0;
    SP_TRY(take_name(from, &tensor->name, "a tensor"));
    SP_REQUIRE(strlen(tensor->name) <= TENSOR_NAME_MAX, SP_BAD_FILE,
               "%s: tensor %.63s...: its name has more than %d letters", from->source, tensor->name, TENSOR_NAME_MAX);
    SP_TRY(take_shape(from, tensor));
    SP_TRY(take_format(from, tensor));
    SP_TRY(take_number(from, &offset, sizeof offset, tensor->name));
    SP_REQUIRE(offset == (uint64_t)*end, SP_BAD_FILE,
               "%s: tensor %s begins at byte %" PRIu64 " of the data: it should at %" PRId64, from->source,
               tensor->name, offset, *end);
    /* No sum overflows: what is beyond the end of the file is refused before it is rounded up. */
    SP_REQUIRE(tensor->n_bytes <= from->n_bytes - *end, SP_BAD_FILE,
               "%s: tensor %s takes %" PRId64 " bytes, more than the file has left: the file is cut short",
               from->source, tensor->name, tensor->n_bytes);
    tensor->data = (const uint8_t *)(uintptr_t)*end; /* until the data's place is known */
    *end = sp_round_up(*end + tensor->n_bytes, alignment);
    return SP_OK;
}

static int compare_names(const void *left, const void *right) {
    const sp_gguf_tensor *const *a = left, *const *b = right;
    return strcmp((*a)->name, (*b)->name);
}

static sp_status read_tensors(sp_gguf *file, cursor *from, int64_t n, int64_t alignment) {
    int64_t end = 0;
    file->tensors = calloc((size_t)n + 1, sizeof *file->tensors);
    file->by_name = calloc((size_t)n + 1, sizeof *file->by_name);
    SP_REQUIRE(file->tensors && file->by_name, SP_OUT_OF_MEMORY, "%s: no memory for its tensors", from->source);
    while (file->n_tensors < n) {
        sp_gguf_tensor *tensor = &file->tensors[file->n_tensors];
        file->by_name[file->n_tensors++] = tensor;
        SP_TRY(take_tensor(from, tensor, alignment, &end));
    }
    qsort(file->by_name, (size_t)n, sizeof *file->by_name, compare_names);
    for (int64_t i = 1; i < n; i++)
        SP_REQUIRE(compare_names(&file->by_name[i - 1], &file->by_name[i]) != 0, SP_BAD_FILE,
                   "%s: tensor %s stands there twice", from->source, file->by_name[i]->name);
    return SP_OK;
}

static sp_status place_tensors(sp_gguf *file, const cursor *from, int64_t alignment) {
    int64_t begin = sp_round_up(from->at, alignment);
    for (int64_t i = 0; i < file->n_tensors; i++) {
        sp_gguf_tensor *tensor = &file->tensors[i];
        int64_t at = begin + (int64_t)(uintptr_t)tensor->data;
        SP_REQUIRE(at <= from->n_bytes && tensor->n_bytes <= from->n_bytes - at, SP_BAD_FILE,
                   "%s: tensor %s ends at byte %" PRId64 ", the file at %" PRId64 ": it is cut short", from->source,
                   tensor->name, at + tensor->n_bytes, from->n_bytes);
        tensor->data = from->data + at;
    }
    return SP_OK;
}

/* ---- the whole file -------------------------------------------------------------------------------------------- */

static sp_status read_head(cursor *from, int64_t *n_tensors, int64_t *n_values) {
    char magic[4];
    uint32_t version = 0;
    uint64_t tensors = 0, values = 0;
    SP_REQUIRE(from->n_bytes >= (int64_t)sizeof magic && memcmp(from->data, "GGUF", sizeof magic) == 0, SP_BAD_FILE,
               "%s: does not begin with GGUF", from->source);
    from->at = sizeof magic;
    SP_TRY(take_number(from, &version, sizeof version, "its head"));
    SP_REQUIRE((version & 0xffffu) != 0, SP_UNSUPPORTED, "%s: a big-endian GGUF file", from->source);
    SP_REQUIRE(version >= 2, SP_UNSUPPORTED, "%s: GGUF version %" PRIu32 ": 2 and 3 are supported", from->source,
               version);
    SP_REQUIRE(version <= 3, SP_VERSION, "%s: GGUF version %" PRIu32 ": 2 and 3 are supported", from->source, version);
    SP_TRY(take_number(from, &tensors, sizeof tensors, "its head"));
    SP_TRY(take_number(from, &values, sizeof values, "its head"));
    uint64_t left = (uint64_t)(from->n_bytes - from->at);
    SP_REQUIRE(tensors <= left / TENSOR_BYTES_MIN && values <= left / VALUE_BYTES_MIN, SP_BAD_FILE,
               "%s: %" PRIu64 " tensors and %" PRIu64 " keys are more than the file has room for", from->source,
               tensors, values);
    *n_tensors = (int64_t)tensors;
    *n_values = (int64_t)values;
    return SP_OK;
}

static sp_status read_alignment(const sp_gguf *file, int64_t *alignment) {
    *alignment = ALIGNMENT;
    SP_TRY(sp_gguf_integer(file, "general.alignment", alignment));
    SP_REQUIRE(*alignment > 0 && *alignment <= LENGTH_MAX && (*alignment & (*alignment - 1)) == 0, SP_BAD_FILE,
               "%s: general.alignment is %" PRId64 ": not a power of two", file->source, *alignment);
    return SP_OK;
}

static sp_status read_all(sp_gguf *file, cursor *from) {
    int64_t n_tensors = 0, n_values = 0, alignment = 0;
    SP_TRY(read_head(from, &n_tensors, &n_values));
    SP_TRY(read_values(file, from, n_values));
    SP_TRY(read_alignment(file, &alignment));
    SP_TRY(read_tensors(file, from, n_tensors, alignment));
    return place_tensors(file, from, alignment);
}

sp_status sp_gguf_parse(sp_gguf **out, const void *data, int64_t n_bytes, const char *source) {
    *out = NULL;
    SP_REQUIRE((data || n_bytes == 0) && n_bytes >= 0, SP_BAD_ARGUMENT, "%s: no bytes were handed over", source);
    sp_gguf *file = calloc(1, sizeof *file);
    SP_REQUIRE(file, SP_OUT_OF_MEMORY, "%s: no memory", source);
    sp_status status = SP_OK;
    file->source = strdup(source);
    SP_REQUIRE_OR_DONE(file->source, SP_OUT_OF_MEMORY, "%s: no memory", source);
    SP_TRY_OR_DONE(read_all(file, &(cursor){.data = data, .n_bytes = n_bytes, .source = file->source}));
    *out = file;
    file = NULL;
done:
    sp_gguf_close(file);
    return status;
}

sp_status sp_gguf_open(sp_gguf **out, const char *path) {
    *out = NULL;
    sp_file_map map;
    SP_TRY(sp_file_map_open(&map, path));
    sp_status status = sp_gguf_parse(out, map.data, map.n_bytes, path);
    if (*out)
        (*out)->map = map;
    else
        sp_file_map_close(&map);
    return status;
}

static void free_text(const char *text) { free((void *)(uintptr_t)text); }

void sp_gguf_close(sp_gguf *file) {
    if (!file) return;
    for (int64_t i = 0; i < file->n_values; i++) {
        free_text(file->values[i].key);
        free_text(file->values[i].text);
    }
    for (int64_t i = 0; i < file->n_tensors; i++) free_text(file->tensors[i].name);
    free(file->by_key);
    free(file->by_name);
    free(file->values);
    free(file->tensors);
    free(file->source);
    sp_file_map_close(&file->map);
    free(file);
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

const char *sp_gguf_source(const sp_gguf *file) { return file->source; }

int64_t sp_gguf_n_values(const sp_gguf *file) { return file->n_values; }

const sp_gguf_value *sp_gguf_value_at(const sp_gguf *file, int64_t i) { return &file->values[i]; }

const sp_gguf_value *sp_gguf_find(const sp_gguf *file, const char *key) {
    const sp_gguf_value sought = {.key = key}, *wanted = &sought;
    const sp_gguf_value *const *found =
        file->n_values ? bsearch(&wanted, file->by_key, (size_t)file->n_values, sizeof *file->by_key, compare_keys)
                       : NULL;
    return found ? *found : NULL;
}

int64_t sp_gguf_n_tensors(const sp_gguf *file) { return file->n_tensors; }

const sp_gguf_tensor *sp_gguf_tensor_at(const sp_gguf *file, int64_t i) { return &file->tensors[i]; }

const sp_gguf_tensor *sp_gguf_find_tensor(const sp_gguf *file, const char *name) {
    const sp_gguf_tensor sought = {.name = name}, *wanted = &sought;
    const sp_gguf_tensor *const *found =
        file->n_tensors ? bsearch(&wanted, file->by_name, (size_t)file->n_tensors, sizeof *file->by_name, compare_names)
                        : NULL;
    return found ? *found : NULL;
}

#define ITEM(type)                                                                                                     \
    type item;                                                                                                         \
    memcpy(&item, value->data + i * (int64_t)sizeof item, sizeof item)

int64_t sp_gguf_integer_at(const sp_gguf_value *value, int64_t i) {
    switch (value->kind) {
    case SP_GGUF_U8:
    case SP_GGUF_BOOL: return value->data[i];
    case SP_GGUF_I8: return (int8_t)value->data[i];
    case SP_GGUF_U16: {
        ITEM(uint16_t);
        return item;
    }
    case SP_GGUF_I16: {
        ITEM(int16_t);
        return item;
    }
    case SP_GGUF_U32: {
        ITEM(uint32_t);
        return item;
    }
    case SP_GGUF_I32: {
        ITEM(int32_t);
        return item;
    }
    case SP_GGUF_U64: {
        ITEM(uint64_t);
        return item > INT64_MAX ? INT64_MAX : (int64_t)item;
    }
    case SP_GGUF_I64: {
        ITEM(int64_t);
        return item;
    }
    default: return 0;
    }
}

double sp_gguf_number_at(const sp_gguf_value *value, int64_t i) {
    if (value->kind == SP_GGUF_F32) {
        ITEM(float);
        return item;
    }
    if (value->kind == SP_GGUF_F64) {
        ITEM(double);
        return item;
    }
    return (double)sp_gguf_integer_at(value, i);
}

sp_gguf_string sp_gguf_next_string(const uint8_t **at) {
    uint64_t length = 0;
    memcpy(&length, *at, sizeof length);
    sp_gguf_string text = {(const char *)*at + sizeof length, (int64_t)length};
    *at += sizeof length + length;
    return text;
}

static bool is_integer(const sp_gguf_value *value) {
    return value->kind != SP_GGUF_F32 && value->kind != SP_GGUF_F64 && value->kind != SP_GGUF_BOOL &&
           value->kind != SP_GGUF_STRING;
}

/* The single value of a key; *out NULL when there is none. */
static sp_status find_single(const sp_gguf_value **out, const sp_gguf *file, const char *key, const char *wanted) {
    *out = sp_gguf_find(file, key);
    SP_REQUIRE(!*out || !(*out)->is_array, SP_BAD_FILE, "%s: key %s is an array, not %s", file->source, key, wanted);
    return SP_OK;
}

#define REQUIRE_KIND(condition, wanted)                                                                                \
    SP_REQUIRE(condition, SP_BAD_FILE, "%s: key %s is of type %s, not %s", file->source, key, kinds[value->kind].name, \
               wanted)

sp_status sp_gguf_integer(const sp_gguf *file, const char *key, int64_t *out) {
    const sp_gguf_value *value;
    SP_TRY(find_single(&value, file, key, "a whole number"));
    if (!value) return SP_OK;
    REQUIRE_KIND(is_integer(value), "a whole number");
    *out = sp_gguf_integer_at(value, 0);
    return SP_OK;
}

sp_status sp_gguf_number(const sp_gguf *file, const char *key, double *out) {
    const sp_gguf_value *value;
    SP_TRY(find_single(&value, file, key, "a number"));
    if (!value) return SP_OK;
    REQUIRE_KIND(value->kind != SP_GGUF_STRING && value->kind != SP_GGUF_BOOL, "a number");
    *out = sp_gguf_number_at(value, 0);
    return SP_OK;
}

sp_status sp_gguf_flag(const sp_gguf *file, const char *key, bool *out) {
    const sp_gguf_value *value;
    SP_TRY(find_single(&value, file, key, "a bool"));
    if (!value) return SP_OK;
    REQUIRE_KIND(value->kind == SP_GGUF_BOOL, "a bool");
    *out = value->data[0] != 0;
    return SP_OK;
}

sp_status sp_gguf_text(const sp_gguf *file, const char *key, const char **out) {
    const sp_gguf_value *value;
    SP_TRY(find_single(&value, file, key, "a string"));
    if (!value) return SP_OK;
    REQUIRE_KIND(value->kind == SP_GGUF_STRING, "a string");
    for (const char *at = value->text; *at; at++)
        SP_REQUIRE((unsigned char)*at >= ' ', SP_BAD_FILE, "%s: key %s has a string with control letters", file->source,
                   key);
    *out = value->text;
    return SP_OK;
}
