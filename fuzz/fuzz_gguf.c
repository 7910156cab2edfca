/* GGUF files: the reader, and what a model of LLaMA's kind is made of them.  Each input is read as it is, and once more
 * behind a valid head, so that the fuzzer need not guess the magic and the counts. */
#include "fuzzer.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/checkpoint_private.h"
#include "checkpoint/gguf_model.h"
#include "formats/gguf.h"

static void require(bool holds) {
    if (!holds) abort();
}

static volatile double sink; /* keeps what is read from being left out */

static void walk_values(const sp_gguf *file) {
    for (int64_t i = 0; i < sp_gguf_n_values(file); i++) {
        const sp_gguf_value *value = sp_gguf_value_at(file, i);
        require(sp_gguf_find(file, value->key) == value);
        const uint8_t *at = value->data;
        double sum = 0;
        for (int64_t j = 0; j < value->n; j++) {
            if (value->kind == SP_GGUF_STRING) {
                sp_gguf_string text = sp_gguf_next_string(&at);
                if (text.n_bytes > 0) sum += text.bytes[text.n_bytes - 1];
            } else {
                sum += sp_gguf_number_at(value, j) + (double)sp_gguf_integer_at(value, j);
            }
        }
        sink = sum;
    }
}

/* Every block of every tensor, a row at a time. */
static void walk_tensors(const sp_gguf *file) {
    for (int64_t i = 0; i < sp_gguf_n_tensors(file); i++) {
        const sp_gguf_tensor *tensor = sp_gguf_tensor_at(file, i);
        require(sp_gguf_find_tensor(file, tensor->name) == tensor);
        const sp_block_format *format = tensor->format;
        float numbers[32];
        for (int64_t at = 0; at < tensor->n_bytes; at += format->bytes) format->read(numbers, tensor->data + at, 1);
        char name[SP_TENSOR_NAME_BYTES], back[SP_TENSOR_NAME_BYTES];
        sp_rotary_rows rows;
        if (sp_gguf_name_to_llama(name, &rows, tensor->name, "input") != SP_OK) continue;
        require(sp_gguf_name_from_llama(back, &rows, name, "input") == SP_OK && strcmp(back, tensor->name) == 0);
    }
}

/* The file as a checkpoint, which closes it. */
static void open_checkpoint(sp_gguf *file) {
    sp_checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
    require(checkpoint != NULL);
    checkpoint->gguf = file;
    strcpy(checkpoint->folder, "input");
    sp_status status = sp_checkpoint_fill_gguf(checkpoint);
    require(status == SP_OK || status == SP_BAD_FILE || status == SP_UNSUPPORTED);
    for (int64_t i = 0; i < sp_checkpoint_count(checkpoint); i++) {
        const sp_tensor *tensor = sp_checkpoint_tensor(checkpoint, i);
        const uint8_t *bytes = tensor->data;
        double sum = 0;
        for (int64_t k = 0; k < sp_tensor_count(tensor) * sp_dtype_bytes(tensor->dtype); k++) sum += bytes[k];
        sink = sum;
    }
    if (status != SP_OK) require(strncmp(sp_last_message(), "input: ", 7) == 0 && !strchr(sp_last_message(), '\n'));
    sp_checkpoint_close(checkpoint);
}

static void parse(const uint8_t *bytes, int64_t n_bytes) {
    sp_gguf *file;
    sp_status status = sp_gguf_parse(&file, bytes, n_bytes, "input");
    require((status == SP_OK) == (file != NULL));
    if (!file) {
        require(status == SP_BAD_FILE || status == SP_UNSUPPORTED || status == SP_VERSION);
        require(strncmp(sp_last_message(), "input: ", 7) == 0 && !strchr(sp_last_message(), '\n'));
        return;
    }
    walk_values(file);
    walk_tensors(file);
    open_checkpoint(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    enum { HEAD = 24 };
    parse(data, (int64_t)n_bytes);
    if (n_bytes < 2 || memcmp(data, "GG", 2) == 0) return 0;
    uint8_t *framed = calloc(1, n_bytes - 2 + HEAD);
    require(framed != NULL);
    memcpy(framed, "GGUF\3", 5);
    framed[8] = data[0] & 15;  /* tensors */
    framed[16] = data[1] & 31; /* keys */
    memcpy(framed + HEAD, data + 2, n_bytes - 2);
    parse(framed, (int64_t)(n_bytes - 2 + HEAD));
    free(framed);
    return 0;
}
