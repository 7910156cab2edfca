/* Layout of llama2.c's model files, for reader and writer.
 *
 *   version 0   7 sizes of 4 bytes (the vocabulary's negative when the head is not the embedding), then f32 numbers
 *   version 1   "ak42" of a little-endian number, version, 7 sizes, a byte (1: the head is the embedding), zeros up to
 *               byte 256, f32 numbers
 *   version 2   as 1, with the numbers of a group in 4 bytes after that byte; norms are f32, each other tensor is its
 *               codes of one byte, then its scales, one f32 for each group: x = code * scale
 *
 * A part below is one tensor of the model, or the L tensors of all layers one after another.  Rotary pairs are
 * neighbours.  Not in the file, and the same in all models: norms' eps 1e-5, theta 10000, BOS 1, EOS 2; texts end at
 * either. */
#ifndef SP_CHECKPOINT_LLAMA2C_MODEL_H
#define SP_CHECKPOINT_LLAMA2C_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum {
    SP_LLAMA2C_MAGIC = 0x616b3432,
    SP_LLAMA2C_HEAD_BYTES = 256, /* of versions 1 and 2 */
    SP_LLAMA2C_OLD_HEAD_BYTES = 28,
    SP_LLAMA2C_SIZES = 7,
    SP_LLAMA2C_PARTS = 14,
};

typedef struct sp_llama2c_shape {
    int64_t width, ffn_width, n_layers, n_heads, n_kv_heads, vocabulary, max_positions; /* in the order of the file */
    bool tied;
    int version;
    int64_t group; /* version 2 */
} sp_llama2c_shape;

typedef struct sp_llama2c_part {
    const char *name; /* LLaMA's; in a layer what follows "model.layers.N."; NULL: a table that is not read */
    bool in_layer, is_norm;
    int64_t rows, columns; /* rows 0: a vector */
    int64_t heads;         /* whose rotary pairs the rows are; 0: none */
} sp_llama2c_part;

/* The parts in the order of the file, as many as there are; sizes are those of the shape. */
int sp_llama2c_list_parts(sp_llama2c_part parts[SP_LLAMA2C_PARTS], const sp_llama2c_shape *shape);
/* Bytes of one tensor of the part; false when they do not fit int64_t or are not whole groups. */
bool sp_llama2c_part_bytes(int64_t *n_bytes, const sp_llama2c_part *part, const sp_llama2c_shape *shape);
int64_t sp_llama2c_part_count(const sp_llama2c_part *part); /* numbers of one tensor */

#endif
