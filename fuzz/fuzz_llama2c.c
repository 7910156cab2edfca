/* llama2.c's model files as checkpoints: the head's sizes against the file's length, every number of every tensor that is
 * accepted. */
#include "fuzzer.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/checkpoint_private.h"
#include "checkpoint/llama2c_model.h"

static void require(bool holds) {
    if (!holds) abort();
}

static volatile unsigned sink; /* keeps what is read from being left out */

static void walk(const sp_checkpoint *checkpoint) {
    for (int64_t i = 0; i < sp_checkpoint_count(checkpoint); i++) {
        const sp_tensor *tensor = sp_checkpoint_tensor(checkpoint, i);
        unsigned sum = 0;
        const unsigned char *bytes = tensor->data;
        for (int64_t k = 0; k < sp_tensor_count(tensor) * sp_dtype_bytes(tensor->dtype); k++) sum += bytes[k];
        sink = sum;
    }
    require(strncmp(sp_checkpoint_config(checkpoint), "{", 1) == 0);
}

static void open_file(const void *bytes, size_t n_bytes) {
    sp_checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
    require(checkpoint != NULL);
    snprintf(checkpoint->folder, sizeof checkpoint->folder, "input");
    sp_status status = sp_checkpoint_parse_llama2c(checkpoint, &(sp_file_map){bytes, (int64_t)n_bytes});
    if (status == SP_OK)
        walk(checkpoint);
    else
        require(status == SP_BAD_FILE || status == SP_VERSION);
    sp_checkpoint_close(checkpoint);
}

/* A head of small sizes and as many bytes as they ask for, so that the fuzzer gets behind the check of the length. */
static void open_whole(const uint8_t *data, size_t n_bytes) {
    static uint8_t file[1 << 13];
    if (n_bytes < 9) return;
    int version = data[0] % 3;
    int32_t sizes[SP_LLAMA2C_SIZES], head[2] = {SP_LLAMA2C_MAGIC, version};
    for (int i = 0; i < SP_LLAMA2C_SIZES; i++) sizes[i] = 1 + data[1 + i] % (i == 2 ? 2 : 4);
    sizes[0] *= 2;
    sp_llama2c_shape shape = {.width = sizes[0],
                              .ffn_width = sizes[1],
                              .n_layers = sizes[2],
                              .n_heads = sizes[3],
                              .n_kv_heads = sizes[4],
                              .vocabulary = sizes[5],
                              .max_positions = sizes[6],
                              .tied = data[8] & 1,
                              .version = version,
                              .group = 1 + data[8] % 4};
    sp_llama2c_part parts[SP_LLAMA2C_PARTS];
    int64_t total = version ? SP_LLAMA2C_HEAD_BYTES : SP_LLAMA2C_OLD_HEAD_BYTES;
    memset(file, 0, SP_LLAMA2C_HEAD_BYTES);
    if (version == 0 && !shape.tied) sizes[5] = -sizes[5];
    memcpy(file, head, sizeof head);
    memcpy(file + (version ? 8 : 0), sizes, sizeof sizes);
    if (version) file[36] = shape.tied;
    if (version) memcpy(file + 37, &(int32_t){(int32_t)shape.group}, 4);
    int n = sp_llama2c_list_parts(parts, &shape);
    for (int i = 0; i < n; i++) {
        int64_t bytes = 0;
        if (!sp_llama2c_part_bytes(&bytes, &parts[i], &shape)) return;
        total += bytes * (parts[i].in_layer ? shape.n_layers : 1);
    }
    if (total > (int64_t)sizeof file) return;
    int64_t begin = version ? SP_LLAMA2C_HEAD_BYTES : SP_LLAMA2C_OLD_HEAD_BYTES;
    for (int64_t i = begin; i < total; i++) file[i] = data[(size_t)i % n_bytes];
    uint8_t *exact = malloc((size_t)total); /* so that a byte too many is seen */
    require(exact != NULL);
    memcpy(exact, file, (size_t)total);
    open_file(exact, (size_t)total);
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    open_file(data, n_bytes);
    open_whole(data, n_bytes);
    return 0;
}
