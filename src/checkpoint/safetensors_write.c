/* Writer of safetensors files (docs/formats.md): large dtypes first, then by name, so that all data lies aligned.
 * Tensors of f32 may be written as another dtype.  Reading is in safetensors_read.c. */
#include "softpick/checkpoint.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "checkpoint/safetensors_format.h"
#include "formats/blocks.h"

enum { DATA_ALIGNMENT = 8, CHUNK = 16384 };

/* A tensor, and the dtype that it has in the file. */
typedef struct planned {
    const char *name;
    const sp_tensor *tensor;
    sp_dtype dtype;
} planned;

/* Bytes of a tensor in the file, after a check that its numbers can be written as one run. */
static sp_status measure_tensor(int64_t *n_bytes, const planned *at, const char *path) {
    const sp_tensor *tensor = at->tensor;
    SP_REQUIRE(sp_stored_dtype_of(tensor->dtype), SP_BAD_ARGUMENT, "%s: tensor '%.200s' has no valid dtype", path,
               at->name);
    SP_REQUIRE(tensor->device == 0, SP_BAD_ARGUMENT, "%s: tensor '%.200s' is not in host memory", path, at->name);
    SP_REQUIRE(tensor->n_dims >= 0 && tensor->n_dims <= SP_MAX_DIMS, SP_BAD_ARGUMENT,
               "%s: tensor '%.200s' has %" PRId64 " dimensions", path, at->name, tensor->n_dims);
    int64_t stride = 1;
    for (int64_t i = tensor->n_dims - 1; i >= 0; i--) {
        SP_REQUIRE(tensor->shape[i] <= 1 || tensor->stride[i] == stride, SP_BAD_ARGUMENT,
                   "%s: tensor '%.200s' is not contiguous", path, at->name);
        SP_REQUIRE(tensor->shape[i] >= 0 && sp_multiply_sizes(stride, tensor->shape[i], &stride), SP_BAD_ARGUMENT,
                   "%s: tensor '%.200s': dimension %" PRId64 " is out of range", path, at->name, i);
    }
    SP_REQUIRE(sp_multiply_sizes(stride, sp_dtype_bytes(at->dtype), n_bytes), SP_BAD_ARGUMENT,
               "%s: tensor '%.200s' is too large", path, at->name);
    SP_REQUIRE(tensor->data || *n_bytes == 0, SP_BAD_ARGUMENT, "%s: tensor '%.200s' has no data", path, at->name);
    return SP_OK;
}

static int compare_for_file(const void *left, const void *right) {
    const planned *a = left, *b = right;
    int64_t bytes_a = sp_dtype_bytes(a->dtype), bytes_b = sp_dtype_bytes(b->dtype);
    if (bytes_a != bytes_b) return bytes_a > bytes_b ? -1 : 1;
    return strcmp(a->name, b->name);
}

/* The tensors in the order of the file; caller frees. */
static sp_status order_tensors(planned **out, const sp_named_tensor *tensors, int64_t n, sp_dtype dtype,
                               const char *path) {
    *out = malloc((size_t)(n + 1) * sizeof **out);
    SP_REQUIRE(*out, SP_OUT_OF_MEMORY, "%s: no memory for its list of tensors", path);
    for (int64_t i = 0; i < n; i++) {
        sp_dtype own = tensors[i].tensor.dtype;
        (*out)[i] = (planned){tensors[i].name, &tensors[i].tensor, own == SP_DTYPE_F32 ? dtype : own};
    }
    qsort(*out, (size_t)n, sizeof **out, compare_for_file);
    return SP_OK;
}

static sp_status describe_tensor(json_t *header, const planned *at, int64_t begin, int64_t end, const char *path) {
    SP_REQUIRE(strcmp(at->name, SP_SAFETENSORS_METADATA) != 0 && !json_object_get(header, at->name), SP_BAD_ARGUMENT,
               "%s: two tensors are named '%.200s', or the name is reserved", path, at->name);
    json_t *shape = json_array();
    for (int64_t i = 0; i < at->tensor->n_dims; i++) json_array_append_new(shape, json_integer(at->tensor->shape[i]));
    json_t *json = json_pack("{s:s, s:o, s:[I,I]}", "dtype", sp_stored_dtype_of(at->dtype)->name, "shape", shape,
                             "data_offsets", (json_int_t)begin, (json_int_t)end);
    SP_REQUIRE(json_object_set_new(header, at->name, json) == 0, SP_BAD_ARGUMENT,
               "%s: tensor '%.200s': its name is not UTF-8", path, at->name);
    return SP_OK;
}

/* The header's text, padded with spaces so that the data begins aligned; caller frees. */
static sp_status format_header(char **text, int64_t *n_text, const planned *order, int64_t n, const char *path) {
    json_t *header = json_pack("{s:{s:s}}", SP_SAFETENSORS_METADATA, "format", "pt");
    sp_status status = SP_OK;
    int64_t begin = 0, end = 0, n_bytes = 0;
    *text = NULL;
    for (int64_t i = 0; i < n; i++) {
        SP_TRY_OR_DONE(measure_tensor(&n_bytes, &order[i], path));
        SP_REQUIRE_OR_DONE(sp_add_sizes(begin, n_bytes, &end), SP_BAD_ARGUMENT, "%s: tensor '%.200s' is too large",
                           path, order[i].name);
        SP_TRY_OR_DONE(describe_tensor(header, &order[i], begin, end, path));
        begin = end;
    }
    SP_TRY_OR_DONE(sp_json_format(text, header, 1));
    int64_t length = (int64_t)strlen(*text);
    *n_text = sp_round_up(length, DATA_ALIGNMENT);
    SP_REQUIRE_OR_DONE(*n_text <= SP_SAFETENSORS_HEADER_MAX, SP_BAD_ARGUMENT,
                       "%s: a header of %" PRId64 " bytes (at most %d are allowed)", path, *n_text,
                       SP_SAFETENSORS_HEADER_MAX);
    char *padded = realloc(*text, (size_t)*n_text + 1);
    SP_REQUIRE_OR_DONE(padded, SP_OUT_OF_MEMORY, "%s: no memory for its header", path);
    memset(padded + length, ' ', (size_t)(*n_text - length));
    *text = padded;
done:
    json_decref(header);
    if (status != SP_OK) {
        free(*text);
        *text = NULL;
    }
    return status;
}

/* The numbers in the file's dtype. */
static sp_status write_numbers(sp_file_writer *writer, const planned *at) {
    int64_t n = sp_tensor_count(at->tensor), bytes = sp_dtype_bytes(at->dtype);
    if (n == 0) return SP_OK;
    if (at->dtype == at->tensor->dtype) return sp_file_writer_add(writer, at->tensor->data, n * bytes);
    uint8_t chunk[CHUNK * 2]; /* a half takes 2 bytes */
    for (int64_t i = 0; i < n; i += CHUNK) {
        int64_t some = n - i < CHUNK ? n - i : CHUNK;
        sp_block_format_of(at->dtype)->write(chunk, (const float *)at->tensor->data + i, some);
        SP_TRY(sp_file_writer_add(writer, chunk, some * bytes));
    }
    return SP_OK;
}

static sp_status write_file(const char *path, const char *header, int64_t n_header, const planned *order, int64_t n) {
    sp_file_writer writer;
    sp_status status = SP_OK;
    SP_TRY(sp_file_writer_open(&writer, path));
    uint64_t length = (uint64_t)n_header;
    SP_TRY_OR_DONE(sp_file_writer_add(&writer, &length, sizeof length));
    SP_TRY_OR_DONE(sp_file_writer_add(&writer, header, n_header));
    for (int64_t i = 0; i < n; i++) SP_TRY_OR_DONE(write_numbers(&writer, &order[i]));
    SP_TRY_OR_DONE(sp_file_writer_finish(&writer));
done:
    sp_file_writer_abandon(&writer);
    return status;
}

sp_status sp_safetensors_write_as(const char *path, const sp_named_tensor *tensors, int64_t n_tensors, sp_dtype dtype) {
    SP_REQUIRE(dtype == SP_DTYPE_F32 || dtype == SP_DTYPE_BF16 || dtype == SP_DTYPE_F16, SP_BAD_ARGUMENT,
               "%s: tensors are written as f32, bf16 or f16, not %s", path, sp_dtype_name(dtype));
    planned *order;
    char *header = NULL;
    int64_t n_header = 0;
    SP_TRY(order_tensors(&order, tensors, n_tensors, dtype, path));
    sp_status status = format_header(&header, &n_header, order, n_tensors, path);
    if (status == SP_OK) status = write_file(path, header, n_header, order, n_tensors);
    free(header);
    free(order);
    return status;
}

sp_status sp_safetensors_write(const char *path, const sp_named_tensor *tensors, int64_t n_tensors) {
    return sp_safetensors_write_as(path, tensors, n_tensors, SP_DTYPE_F32);
}
