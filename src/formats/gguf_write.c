/* Writer of GGUF files, version 3: keys and descriptions of tensors are gathered in memory; then the data is streamed,
 * each tensor at a multiple of ALIGNMENT bytes, rows of f32 turned into the tensor's format on the way.
 *
 * Reading is in gguf_read.c. */
#define _POSIX_C_SOURCE 200809L
#include "formats/gguf.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"

enum { ALIGNMENT = 32, VERSION = 3, CHUNK_BLOCKS = 1024 };

/* Bytes that grow. */
typedef struct buffer {
    char *bytes;
    int64_t n, capacity;
} buffer;

typedef struct planned {
    const sp_block_format *format;
    int64_t n_blocks;
} planned;

struct sp_gguf_writer {
    sp_file_writer file;
    buffer values, tensors; /* as they will stand in the file */
    uint64_t n_values, n_tensors;
    planned *plan; /* of each tensor */
    int64_t data_bytes;
    bool streaming;         /* the head is written */
    uint64_t current;       /* tensor whose data comes next */
    int64_t current_blocks; /* of it, written so far */
    uint8_t *chunk;
};

static sp_status append(buffer *to, const void *bytes, int64_t n) {
    int64_t needed;
    SP_REQUIRE(sp_add_sizes(to->n, n, &needed), SP_OUT_OF_MEMORY, "no memory for the head of a file");
    if (needed > to->capacity) {
        int64_t capacity = needed + needed / 2 + 256;
        char *grown = realloc(to->bytes, (size_t)capacity);
        SP_REQUIRE(grown, SP_OUT_OF_MEMORY, "no memory for the head of a file");
        to->bytes = grown;
        to->capacity = capacity;
    }
    if (n) memcpy(to->bytes + to->n, bytes, (size_t)n);
    to->n = needed;
    return SP_OK;
}

static sp_status append_u32(buffer *to, uint32_t value) { return append(to, &value, sizeof value); }

static sp_status append_u64(buffer *to, uint64_t value) { return append(to, &value, sizeof value); }

static sp_status append_text(buffer *to, const char *text) {
    SP_TRY(append_u64(to, strlen(text)));
    return append(to, text, (int64_t)strlen(text));
}

/* ---- keys ------------------------------------------------------------------------------------------------------ */

static sp_status add_key(sp_gguf_writer *writer, const char *key, sp_gguf_kind kind) {
    SP_REQUIRE(!writer->streaming, SP_INTERNAL, "%s: key %s comes after data", writer->file.path, key);
    SP_TRY(append_text(&writer->values, key));
    SP_TRY(append_u32(&writer->values, kind));
    writer->n_values++;
    return SP_OK;
}

static sp_status add_array(sp_gguf_writer *writer, const char *key, sp_gguf_kind kind, int64_t n) {
    SP_TRY(add_key(writer, key, SP_GGUF_ARRAY));
    SP_TRY(append_u32(&writer->values, kind));
    return append_u64(&writer->values, (uint64_t)n);
}

sp_status sp_gguf_add_u32(sp_gguf_writer *writer, const char *key, int64_t value) {
    SP_REQUIRE(value >= 0 && value <= UINT32_MAX, SP_UNSUPPORTED,
               "%s: key %s: %" PRId64 " does not fit 32 bits without a sign", writer->file.path, key, value);
    SP_TRY(add_key(writer, key, SP_GGUF_U32));
    return append_u32(&writer->values, (uint32_t)value);
}

sp_status sp_gguf_add_f32(sp_gguf_writer *writer, const char *key, double value) {
    SP_TRY(add_key(writer, key, SP_GGUF_F32));
    return append(&writer->values, &(float){(float)value}, sizeof(float));
}

sp_status sp_gguf_add_flag(sp_gguf_writer *writer, const char *key, bool value) {
    SP_TRY(add_key(writer, key, SP_GGUF_BOOL));
    return append(&writer->values, &(uint8_t){value}, 1);
}

sp_status sp_gguf_add_text(sp_gguf_writer *writer, const char *key, const char *text) {
    SP_TRY(add_key(writer, key, SP_GGUF_STRING));
    return append_text(&writer->values, text);
}

sp_status sp_gguf_add_texts(sp_gguf_writer *writer, const char *key, const char *const *texts, int64_t n) {
    SP_TRY(add_array(writer, key, SP_GGUF_STRING, n));
    for (int64_t i = 0; i < n; i++) SP_TRY(append_text(&writer->values, texts[i]));
    return SP_OK;
}

sp_status sp_gguf_add_f32s(sp_gguf_writer *writer, const char *key, const float *values, int64_t n) {
    SP_TRY(add_array(writer, key, SP_GGUF_F32, n));
    return append(&writer->values, values, n * (int64_t)sizeof *values);
}

sp_status sp_gguf_add_i32s(sp_gguf_writer *writer, const char *key, const int32_t *values, int64_t n) {
    SP_TRY(add_array(writer, key, SP_GGUF_I32, n));
    return append(&writer->values, values, n * (int64_t)sizeof *values);
}

/* ---- tensors --------------------------------------------------------------------------------------------------- */

static sp_status plan_tensor(sp_gguf_writer *writer, const char *name, const sp_block_format *format, int64_t n_items) {
    planned *grown = realloc(writer->plan, (size_t)(writer->n_tensors + 1) * sizeof *grown);
    SP_REQUIRE(grown, SP_OUT_OF_MEMORY, "%s: no memory for its tensors", writer->file.path);
    writer->plan = grown;
    grown[writer->n_tensors++] = (planned){format, n_items / format->items};
    int64_t n_bytes;
    SP_REQUIRE(sp_multiply_sizes(n_items / format->items, format->bytes, &n_bytes) &&
                   sp_add_sizes(writer->data_bytes, n_bytes, &n_bytes) && n_bytes <= INT64_MAX - ALIGNMENT,
               SP_BAD_ARGUMENT, "%s: tensor %s is too large", writer->file.path, name);
    writer->data_bytes = sp_round_up(n_bytes, ALIGNMENT);
    return SP_OK;
}

sp_status sp_gguf_add_tensor(sp_gguf_writer *writer, const char *name, const sp_block_format *format, int64_t n_dims,
                             const int64_t *shape) {
    SP_REQUIRE(format->write && n_dims >= 1 && n_dims <= SP_GGUF_DIMS, SP_BAD_ARGUMENT,
               "%s: tensor %s cannot be written as %s of %" PRId64 " dimensions", writer->file.path, name, format->name,
               n_dims);
    SP_REQUIRE(shape[n_dims - 1] % format->items == 0, SP_BAD_ARGUMENT,
               "%s: tensor %s: its rows of %" PRId64 " numbers are not whole blocks of %d (%s)", writer->file.path,
               name, shape[n_dims - 1], format->items, format->name);
    buffer *to = &writer->tensors;
    int64_t n_items = 1;
    SP_TRY(append_text(to, name));
    SP_TRY(append_u32(to, (uint32_t)n_dims));
    for (int64_t i = n_dims - 1; i >= 0; i--) {
        SP_REQUIRE(shape[i] > 0 && sp_multiply_sizes(n_items, shape[i], &n_items), SP_BAD_ARGUMENT,
                   "%s: tensor %s has a dimension of %" PRId64, writer->file.path, name, shape[i]);
        SP_TRY(append_u64(to, (uint64_t)shape[i]));
    }
    SP_TRY(append_u32(to, format->id));
    SP_TRY(append_u64(to, (uint64_t)writer->data_bytes));
    return plan_tensor(writer, name, format, n_items);
}

/* ---- the data -------------------------------------------------------------------------------------------------- */

static sp_status pad(sp_gguf_writer *writer, int64_t n_bytes) {
    static const char zeros[ALIGNMENT];
    return sp_file_writer_add(&writer->file, zeros, sp_round_up(n_bytes, ALIGNMENT) - n_bytes);
}

static sp_status begin_data(sp_gguf_writer *writer) {
    if (writer->streaming) return SP_OK;
    writer->streaming = true;
    buffer head = {0};
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(append(&head, "GGUF", 4));
    SP_TRY_OR_DONE(append_u32(&head, VERSION));
    SP_TRY_OR_DONE(append_u64(&head, writer->n_tensors));
    SP_TRY_OR_DONE(append_u64(&head, writer->n_values));
    SP_TRY_OR_DONE(sp_file_writer_add(&writer->file, head.bytes, head.n));
    const buffer *parts[] = {&writer->values, &writer->tensors};
    for (int i = 0; i < 2; i++)
        if (parts[i]->n) SP_TRY_OR_DONE(sp_file_writer_add(&writer->file, parts[i]->bytes, parts[i]->n));
    SP_TRY_OR_DONE(pad(writer, head.n + writer->values.n + writer->tensors.n));
done:
    free(head.bytes);
    return status;
}

/* Rounds up the data of a tensor that is complete. */
static sp_status end_tensor(sp_gguf_writer *writer) {
    const planned *tensor = &writer->plan[writer->current];
    if (writer->current_blocks < tensor->n_blocks) return SP_OK;
    writer->current++;
    writer->current_blocks = 0;
    return pad(writer, tensor->n_blocks * tensor->format->bytes);
}

sp_status sp_gguf_write_rows(sp_gguf_writer *writer, const float *rows, int64_t n) {
    SP_TRY(begin_data(writer));
    SP_REQUIRE(writer->current < writer->n_tensors, SP_INTERNAL, "%s: more data than tensors", writer->file.path);
    const planned *tensor = &writer->plan[writer->current];
    const sp_block_format *format = tensor->format;
    int64_t n_blocks = n / format->items;
    SP_REQUIRE(n % format->items == 0 && n_blocks <= tensor->n_blocks - writer->current_blocks, SP_INTERNAL,
               "%s: rows that are not those of a tensor", writer->file.path);
    for (int64_t i = 0; i < n_blocks; i += CHUNK_BLOCKS) {
        int64_t some = n_blocks - i < CHUNK_BLOCKS ? n_blocks - i : CHUNK_BLOCKS;
        format->write(writer->chunk, rows + i * format->items, some);
        SP_TRY(sp_file_writer_add(&writer->file, writer->chunk, some * format->bytes));
    }
    writer->current_blocks += n_blocks;
    return end_tensor(writer);
}

/* ---- the file -------------------------------------------------------------------------------------------------- */

sp_status sp_gguf_writer_new(sp_gguf_writer **out, const char *path) {
    enum { LARGEST_BLOCK = 34 };
    *out = calloc(1, sizeof **out);
    SP_REQUIRE(*out, SP_OUT_OF_MEMORY, "%s: no memory", path);
    (*out)->chunk = malloc((size_t)CHUNK_BLOCKS * LARGEST_BLOCK);
    sp_status status =
        (*out)->chunk ? sp_file_writer_open(&(*out)->file, path) : sp_fail(SP_OUT_OF_MEMORY, "%s: no memory", path);
    if (status != SP_OK) {
        sp_gguf_writer_free(*out);
        *out = NULL;
    }
    return status;
}

void sp_gguf_writer_free(sp_gguf_writer *writer) {
    if (!writer) return;
    sp_file_writer_abandon(&writer->file);
    free(writer->values.bytes);
    free(writer->tensors.bytes);
    free(writer->plan);
    free(writer->chunk);
    free(writer);
}

sp_status sp_gguf_writer_finish(sp_gguf_writer *writer) {
    SP_TRY(begin_data(writer));
    SP_REQUIRE(writer->current == writer->n_tensors, SP_INTERNAL, "%s: a tensor without data", writer->file.path);
    return sp_file_writer_finish(&writer->file);
}
