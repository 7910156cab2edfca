/* What the readers of checkpoints share: the opened checkpoint, which each of them fills. */
#ifndef SP_CHECKPOINT_PRIVATE_H
#define SP_CHECKPOINT_PRIVATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/file.h"
#include "checkpoint/folder_swap.h"
#include "formats/blocks.h"
#include "formats/gguf.h"
#include "softpick/checkpoint.h"

typedef struct sp_checkpoint_entry {
    char *name; /* LLaMA's */
    sp_tensor tensor;
    void *owned; /* the numbers, where they are not seen in a mapped file */
} sp_checkpoint_entry;

typedef struct sp_checkpoint_shard {
    char *name;
    sp_safetensors *file;
} sp_checkpoint_shard;

struct sp_checkpoint {
    char folder[SP_PATH_BYTES]; /* or the one file */
    char source[SP_PATH_BYTES]; /* where the config stands, for messages */
    char *config;
    sp_checkpoint_shard *shards; /* of a folder */
    int64_t n_shards;
    sp_file_map map; /* of a llama2.c file */
    sp_gguf *gguf;
    sp_checkpoint_entry *entries;
    int64_t count, capacity;
    const sp_checkpoint_entry **by_name; /* the first n_sorted entries */
    int64_t n_sorted;
    bool fla; /* some tensor has fla's name */
};

/* Room for n tensors. */
SP_MUST_CHECK sp_status sp_checkpoint_reserve(sp_checkpoint *checkpoint, int64_t n);
/* Adds a tensor; fla's name becomes LLaMA's.  The checkpoint owns `owned` from here on, after a failure too. */
SP_MUST_CHECK sp_status sp_checkpoint_add(sp_checkpoint *checkpoint, const char *name, const sp_tensor *tensor,
                                          void *owned);

/* A matrix of `heads` groups of rows whose rotary pairs are neighbours (GGUF, llama2.c) or, heads = 0, any tensor:
 * rows of `format` at `data`.  Added as it is mapped where it can be, else copied: rows put in LLaMA's order, blocks
 * turned into f32. */
typedef struct sp_stored_rows {
    const char *name; /* LLaMA's */
    const sp_block_format *format;
    const uint8_t *data;
    int64_t n_dims, shape[SP_MAX_DIMS]; /* one or two */
    int64_t heads;
} sp_stored_rows;
SP_MUST_CHECK sp_status sp_checkpoint_add_rows(sp_checkpoint *checkpoint, const sp_stored_rows *rows);

/* Readers of one file: fill config, source and entries of a checkpoint whose `folder` is the file's path. */
SP_MUST_CHECK sp_status sp_checkpoint_read_gguf(sp_checkpoint *checkpoint);
/* The same of a file that stands open in checkpoint->gguf. */
SP_MUST_CHECK sp_status sp_checkpoint_fill_gguf(sp_checkpoint *checkpoint);
SP_MUST_CHECK sp_status sp_checkpoint_read_llama2c(sp_checkpoint *checkpoint);
/* The same of bytes that outlive the checkpoint. */
SP_MUST_CHECK sp_status sp_checkpoint_parse_llama2c(sp_checkpoint *checkpoint, const sp_file_map *bytes);

/* In LLaMA's order the rows of a head are two halves, and row i of the first pairs with row i of the second; GGUF and
 * llama2.c have pairs side by side.  The row of one order that stands at `row` of the other (D rows in a head). */
static inline int64_t sp_row_of_pairs(int64_t row, int64_t D) {
    int64_t in_head = row % D;
    return row - in_head + 2 * (in_head % (D / 2)) + in_head / (D / 2);
}

static inline int64_t sp_row_of_halves(int64_t row, int64_t D) {
    int64_t in_head = row % D;
    return row - in_head + in_head % 2 * (D / 2) + in_head / 2;
}

#endif
