/* Tensors of GGUF and llama2.c files as LLaMA's loaders know them: rows of rotary pairs put in order, blocks turned
 * into f32.  What needs neither, and lies aligned, is seen where it is mapped. */
#include "checkpoint/checkpoint_private.h"

#include <inttypes.h>
#include <string.h>

#include "base/memory.h"

static bool can_be_seen_in_place(const sp_stored_rows *rows) {
    return rows->heads == 0 && rows->format->dtype != SP_DTYPE_COUNT &&
           (uintptr_t)rows->data % (uintptr_t)rows->format->bytes == 0;
}

/* All rows in LLaMA's order, as f32 or, where each number stands alone, as they are. */
static void copy_rows(char *out, const sp_stored_rows *rows, int64_t n_rows, int64_t n_blocks, int64_t out_bytes) {
    const sp_block_format *format = rows->format;
    int64_t D = rows->heads ? n_rows / rows->heads : 0;
#pragma omp parallel for schedule(static) if (n_rows * n_blocks > 1 << 14)
    for (int64_t row = 0; row < n_rows; row++) {
        int64_t from = D ? sp_row_of_pairs(row, D) : row;
        const uint8_t *blocks = rows->data + from * n_blocks * format->bytes;
        char *to = out + row * out_bytes;
        if (format->dtype == SP_DTYPE_COUNT)
            format->read((float *)to, blocks, n_blocks);
        else
            memcpy(to, blocks, (size_t)out_bytes);
    }
}

sp_status sp_checkpoint_add_rows(sp_checkpoint *checkpoint, const sp_stored_rows *rows) {
    const sp_block_format *format = rows->format;
    bool in_blocks = format->dtype == SP_DTYPE_COUNT;
    sp_tensor tensor = sp_tensor_view((void *)(uintptr_t)rows->data, in_blocks ? SP_DTYPE_F32 : format->dtype,
                                      rows->n_dims, rows->shape);
    if (can_be_seen_in_place(rows)) return sp_checkpoint_add(checkpoint, rows->name, &tensor, NULL);
    /* A bias of q or k is a matrix of one column. */
    int64_t n_rows = rows->n_dims > 1 || rows->heads ? rows->shape[0] : 1;
    SP_REQUIRE(!rows->heads || (n_rows % rows->heads == 0 && n_rows / rows->heads % 2 == 0), SP_BAD_FILE,
               "%s: tensor %s: its %" PRId64 " rows are not those of %" PRId64 " heads", checkpoint->folder, rows->name,
               n_rows, rows->heads);
    int64_t n = sp_tensor_count(&tensor), columns = n / n_rows, n_bytes;
    SP_REQUIRE(columns % format->items == 0, SP_BAD_FILE, "%s: tensor %s: its rows are not whole blocks (%s)",
               checkpoint->folder, rows->name, format->name);
    SP_REQUIRE(sp_multiply_sizes(n, sp_dtype_bytes(tensor.dtype), &n_bytes), SP_BAD_FILE, "%s: tensor %s is too large",
               checkpoint->folder, rows->name);
    SP_TRY(sp_allocate(&tensor.data, n_bytes, rows->name));
    copy_rows(tensor.data, rows, n_rows, columns / format->items, n_bytes / n_rows);
    return sp_checkpoint_add(checkpoint, rows->name, &tensor, tensor.data);
}
