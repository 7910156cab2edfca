/* How a row of numbers is stored in model files: number by number, or in blocks that share a scale.  One table, in
 * GGUF's names and numbers. */
#ifndef SP_FORMATS_BLOCKS_H
#define SP_FORMATS_BLOCKS_H

#include <stdint.h>

#include "softpick/tensor.h"

typedef struct sp_block_format {
    const char *name;     /* GGUF's: "F32", "Q8_0", ... */
    uint32_t id;          /* GGUF's number of it */
    int32_t items, bytes; /* of a block; 1 item where numbers stand alone; 0 where nothing here reads the format */
    sp_dtype dtype;       /* of numbers that stand alone, else SP_DTYPE_COUNT */
    void (*read)(float *out, const uint8_t *blocks, int64_t n_blocks);
    void (*write)(uint8_t *blocks, const float *in, int64_t n_blocks); /* NULL: is not written */
} sp_block_format;

/* NULL: GGUF has none of that number or name.  Capital and small letters are the same. */
const sp_block_format *sp_block_format_by_id(uint32_t id);
const sp_block_format *sp_block_format_find(const char *name);
/* Row of numbers that stand alone, NULL for dtypes that GGUF's table does not read. */
const sp_block_format *sp_block_format_of(sp_dtype dtype);

/* Codes of `n` numbers, each the nearest to in / scale (halves away from 0); what is not finite becomes a bound. */
void sp_codes_write(int8_t *codes, const float *in, int64_t n, float inverse_scale);

#endif
