/* The table of row formats, and the formats that are read and written here (ggml's definitions):
 *
 *   Q8_0   32 numbers: f16 d, 32 signed bytes q;  x = q d, d = max|x| / 127, q = x/d rounded, halves away from 0
 *   Q4_0   32 numbers: f16 d, 16 bytes of two codes, the low halves numbers 0-15, the high ones 16-31;  x = (q - 8) d
 *
 * Numbers are little-endian and need not be aligned. */
#define _POSIX_C_SOURCE 200809L
#include "formats/blocks.h"

#include <math.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

#include "formats/halves.h"

enum { Q_ITEMS = 32, Q8_BYTES = 34, Q4_BYTES = 18 };

static uint16_t load_half(const uint8_t *from) {
    uint16_t half;
    memcpy(&half, from, sizeof half);
    return half;
}

static void read_f32(float *out, const uint8_t *blocks, int64_t n) { memcpy(out, blocks, (size_t)n * sizeof *out); }

static void write_f32(uint8_t *blocks, const float *in, int64_t n) { memcpy(blocks, in, (size_t)n * sizeof *in); }

static void read_f16(float *out, const uint8_t *blocks, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = sp_f16_to_f32(load_half(blocks + 2 * i));
}

static void write_f16(uint8_t *blocks, const float *in, int64_t n) {
    for (int64_t i = 0; i < n; i++) memcpy(blocks + 2 * i, &(uint16_t){sp_f16_from_f32(in[i])}, 2);
}

static void read_bf16(float *out, const uint8_t *blocks, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = sp_bf16_to_f32(load_half(blocks + 2 * i));
}

static void write_bf16(uint8_t *blocks, const float *in, int64_t n) {
    for (int64_t i = 0; i < n; i++) memcpy(blocks + 2 * i, &(uint16_t){sp_bf16_from_f32(in[i])}, 2);
}

static void read_q8_0(float *out, const uint8_t *blocks, int64_t n) {
    for (; n > 0; n--, blocks += Q8_BYTES, out += Q_ITEMS) {
        float d = sp_f16_to_f32(load_half(blocks));
        for (int i = 0; i < Q_ITEMS; i++) out[i] = (float)(int8_t)blocks[2 + i] * d;
    }
}

void sp_codes_write(int8_t *codes, const float *in, int64_t n, float inverse_scale) {
    for (int64_t i = 0; i < n; i++) codes[i] = (int8_t)fmaxf(-127, fminf(127, roundf(in[i] * inverse_scale)));
}

static void write_q8_0(uint8_t *blocks, const float *in, int64_t n) {
    for (; n > 0; n--, blocks += Q8_BYTES, in += Q_ITEMS) {
        float largest = 0;
        for (int i = 0; i < Q_ITEMS; i++) largest = fmaxf(largest, fabsf(in[i]));
        float d = largest / 127;
        uint16_t stored = sp_f16_from_f32(d);
        memcpy(blocks, &stored, sizeof stored);
        int8_t codes[Q_ITEMS];
        sp_codes_write(codes, in, Q_ITEMS, d > 0 ? 1 / d : 0);
        memcpy(blocks + 2, codes, sizeof codes);
    }
}

static void read_q4_0(float *out, const uint8_t *blocks, int64_t n) {
    for (; n > 0; n--, blocks += Q4_BYTES, out += Q_ITEMS) {
        float d = sp_f16_to_f32(load_half(blocks));
        for (int i = 0; i < Q_ITEMS / 2; i++) {
            out[i] = (float)((blocks[2 + i] & 15) - 8) * d;
            out[i + Q_ITEMS / 2] = (float)((blocks[2 + i] >> 4) - 8) * d;
        }
    }
}

#define NOT_READ 0, 0, SP_DTYPE_COUNT, NULL, NULL

static const sp_block_format table[] = {
    {"F32", 0, 1, 4, SP_DTYPE_F32, read_f32, write_f32},
    {"F16", 1, 1, 2, SP_DTYPE_F16, read_f16, write_f16},
    {"BF16", 30, 1, 2, SP_DTYPE_BF16, read_bf16, write_bf16},
    {"Q8_0", 8, Q_ITEMS, Q8_BYTES, SP_DTYPE_COUNT, read_q8_0, write_q8_0},
    {"Q4_0", 2, Q_ITEMS, Q4_BYTES, SP_DTYPE_COUNT, read_q4_0, NULL},
    {"Q4_1", 3, NOT_READ},
    {"Q5_0", 6, NOT_READ},
    {"Q5_1", 7, NOT_READ},
    {"Q8_1", 9, NOT_READ},
    {"Q2_K", 10, NOT_READ},
    {"Q3_K", 11, NOT_READ},
    {"Q4_K", 12, NOT_READ},
    {"Q5_K", 13, NOT_READ},
    {"Q6_K", 14, NOT_READ},
    {"Q8_K", 15, NOT_READ},
    {"IQ2_XXS", 16, NOT_READ},
    {"IQ2_XS", 17, NOT_READ},
    {"IQ3_XXS", 18, NOT_READ},
    {"IQ1_S", 19, NOT_READ},
    {"IQ4_NL", 20, NOT_READ},
    {"IQ3_S", 21, NOT_READ},
    {"IQ2_S", 22, NOT_READ},
    {"IQ4_XS", 23, NOT_READ},
    {"I8", 24, NOT_READ},
    {"I16", 25, NOT_READ},
    {"I32", 26, NOT_READ},
    {"I64", 27, NOT_READ},
    {"F64", 28, NOT_READ},
    {"IQ1_M", 29, NOT_READ},
    {"TQ1_0", 34, NOT_READ},
    {"TQ2_0", 35, NOT_READ},
    {"MXFP4", 39, NOT_READ},
    {"NVFP4", 40, NOT_READ},
};
enum { N_ROWS = sizeof table / sizeof *table };

const sp_block_format *sp_block_format_by_id(uint32_t id) {
    for (int i = 0; i < N_ROWS; i++)
        if (table[i].id == id) return &table[i];
    return NULL;
}

const sp_block_format *sp_block_format_find(const char *name) {
    for (int i = 0; i < N_ROWS; i++)
        if (strcasecmp(table[i].name, name) == 0) return &table[i];
    return NULL;
}

const sp_block_format *sp_block_format_of(sp_dtype dtype) {
    for (int i = 0; i < N_ROWS; i++)
        if (table[i].dtype == dtype && dtype != SP_DTYPE_COUNT) return &table[i];
    return NULL;
}
