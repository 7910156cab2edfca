/* GGUF files, version 2 and 3: keys with values, and tensors (docs/formats.md).  What the keys of a LLaMA mean is in
 * checkpoint/gguf_model.h, the vocabulary's with the tokenizers. */
#ifndef SP_FORMATS_GGUF_H
#define SP_FORMATS_GGUF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "formats/blocks.h"

enum { SP_GGUF_DIMS = 4 };

/* The format's own numbers. */
typedef enum sp_gguf_kind {
    SP_GGUF_U8 = 0,
    SP_GGUF_I8 = 1,
    SP_GGUF_U16 = 2,
    SP_GGUF_I16 = 3,
    SP_GGUF_U32 = 4,
    SP_GGUF_I32 = 5,
    SP_GGUF_F32 = 6,
    SP_GGUF_BOOL = 7,
    SP_GGUF_STRING = 8,
    SP_GGUF_ARRAY = 9,
    SP_GGUF_U64 = 10,
    SP_GGUF_I64 = 11,
    SP_GGUF_F64 = 12,
    SP_GGUF_KIND_COUNT
} sp_gguf_kind;

/* ---- reading --------------------------------------------------------------------------------------------------- */

typedef struct sp_gguf_value {
    const char *key;
    sp_gguf_kind kind; /* of an array: of its items */
    bool is_array;
    int64_t n;           /* items; 1 for what is not an array */
    const uint8_t *data; /* as they stand in the file, not aligned; each string behind its length */
    const char *text;    /* a single string with a 0 after it, NULL otherwise */
} sp_gguf_value;

typedef struct sp_gguf_tensor {
    const char *name;
    const sp_block_format *format;       /* one that is read here */
    int64_t n_dims, shape[SP_GGUF_DIMS]; /* the last dimension is contiguous: the file's order turned round */
    const uint8_t *data;
    int64_t n_bytes;
} sp_gguf_tensor;

typedef struct sp_gguf sp_gguf; /* a mapped, wholly checked file */

SP_MUST_CHECK sp_status sp_gguf_open(sp_gguf **out, const char *path);
/* The same on bytes in memory, which must outlive it; `source` stands in messages. */
SP_MUST_CHECK sp_status sp_gguf_parse(sp_gguf **out, const void *data, int64_t n_bytes, const char *source);
void sp_gguf_close(sp_gguf *file);
const char *sp_gguf_source(const sp_gguf *file);

int64_t sp_gguf_n_values(const sp_gguf *file);
const sp_gguf_value *sp_gguf_value_at(const sp_gguf *file, int64_t i);   /* in the order of the file */
const sp_gguf_value *sp_gguf_find(const sp_gguf *file, const char *key); /* NULL: there is none */
int64_t sp_gguf_n_tensors(const sp_gguf *file);
const sp_gguf_tensor *sp_gguf_tensor_at(const sp_gguf *file, int64_t i);
const sp_gguf_tensor *sp_gguf_find_tensor(const sp_gguf *file, const char *name);

/* Single values: *out stays as it is when there is no such key; a value of another kind, and a text of more than one
 * line, is SP_BAD_FILE. */
SP_MUST_CHECK sp_status sp_gguf_integer(const sp_gguf *file, const char *key, int64_t *out);
SP_MUST_CHECK sp_status sp_gguf_number(const sp_gguf *file, const char *key, double *out);
SP_MUST_CHECK sp_status sp_gguf_flag(const sp_gguf *file, const char *key, bool *out);
SP_MUST_CHECK sp_status sp_gguf_text(const sp_gguf *file, const char *key, const char **out);

/* Items of an array.  i-th integer or number of an array of such a kind (0 otherwise). */
int64_t sp_gguf_integer_at(const sp_gguf_value *value, int64_t i);
double sp_gguf_number_at(const sp_gguf_value *value, int64_t i);
/* Strings come one after another: set `at` to value->data for the first.  Bytes are borrowed, without a 0 after them. */
typedef struct sp_gguf_string {
    const char *bytes;
    int64_t n_bytes;
} sp_gguf_string;
sp_gguf_string sp_gguf_next_string(const uint8_t **at);

/* ---- writing --------------------------------------------------------------------------------------------------- */

typedef struct sp_gguf_writer sp_gguf_writer; /* gathers keys and descriptions of tensors, then streams the data */

SP_MUST_CHECK sp_status sp_gguf_writer_new(sp_gguf_writer **out, const char *path);
/* Removes what is not finished; NULL is fine. */
void sp_gguf_writer_free(sp_gguf_writer *writer);
SP_MUST_CHECK sp_status sp_gguf_add_u32(sp_gguf_writer *writer, const char *key, int64_t value);
SP_MUST_CHECK sp_status sp_gguf_add_f32(sp_gguf_writer *writer, const char *key, double value);
SP_MUST_CHECK sp_status sp_gguf_add_flag(sp_gguf_writer *writer, const char *key, bool value);
SP_MUST_CHECK sp_status sp_gguf_add_text(sp_gguf_writer *writer, const char *key, const char *text);
SP_MUST_CHECK sp_status sp_gguf_add_texts(sp_gguf_writer *writer, const char *key, const char *const *texts, int64_t n);
SP_MUST_CHECK sp_status sp_gguf_add_f32s(sp_gguf_writer *writer, const char *key, const float *values, int64_t n);
SP_MUST_CHECK sp_status sp_gguf_add_i32s(sp_gguf_writer *writer, const char *key, const int32_t *values, int64_t n);
/* Tensors are described in the order in which their data will come; the last dimension is contiguous. */
SP_MUST_CHECK sp_status sp_gguf_add_tensor(sp_gguf_writer *writer, const char *name, const sp_block_format *format,
                                           int64_t n_dims, const int64_t *shape);
/* After all keys and tensors: their data, rows of f32 (whole blocks each), in order. */
SP_MUST_CHECK sp_status sp_gguf_write_rows(sp_gguf_writer *writer, const float *rows, int64_t n);
/* Makes the file visible under its name. */
SP_MUST_CHECK sp_status sp_gguf_writer_finish(sp_gguf_writer *writer);

#endif
