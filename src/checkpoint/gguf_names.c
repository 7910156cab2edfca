/* Tensors of a GGUF file of LLaMA's kind: their names there and in LLaMA's files. */
#define _POSIX_C_SOURCE 200809L
#include "checkpoint/gguf_model.h"

#include <stdio.h>
#include <string.h>

/* "blk.N." + gguf + tail is "model.layers.N." + llama + tail; tails are .weight and, where there is one, .bias. */
static const struct tensor_row {
    bool in_layer;
    const char *gguf, *llama;
    sp_rotary_rows rows;
    const char *tail; /* NULL: .weight or .bias in both; otherwise what follows in GGUF, nothing in LLaMA's name */
} table[] = {
    {false, "token_embd", "model.embed_tokens", SP_ROWS_PLAIN, NULL},
    {false, "output_norm", "model.norm", SP_ROWS_PLAIN, NULL},
    {false, "output", "lm_head", SP_ROWS_PLAIN, NULL},
    {true, "attn_norm", "input_layernorm", SP_ROWS_PLAIN, NULL},
    {true, "attn_q", "self_attn.q_proj", SP_ROWS_OF_HEADS, NULL},
    {true, "attn_k", "self_attn.k_proj", SP_ROWS_OF_KV_HEADS, NULL},
    {true, "attn_v", "self_attn.v_proj", SP_ROWS_PLAIN, NULL},
    {true, "attn_output", "self_attn.o_proj", SP_ROWS_PLAIN, NULL},
    {true, "ffn_norm", "post_attention_layernorm", SP_ROWS_PLAIN, NULL},
    {true, "ffn_gate", "mlp.gate_proj", SP_ROWS_PLAIN, NULL},
    {true, "ffn_up", "mlp.up_proj", SP_ROWS_PLAIN, NULL},
    {true, "ffn_down", "mlp.down_proj", SP_ROWS_PLAIN, NULL},
    {true, "attn_q_norm", "self_attn.q_norm", SP_ROWS_PLAIN, NULL},
    {true, "attn_k_norm", "self_attn.k_norm", SP_ROWS_PLAIN, NULL},
    {true, "attn_row_factor", "self_attn.row_factor", SP_ROWS_PLAIN, ".weight"},
    {true, "attn_sinks", "self_attn.sinks", SP_ROWS_PLAIN, ".weight"},
};
enum { N_ROWS = sizeof table / sizeof *table };

/* A name as "PREFIX", digits, ".", rest; without the first three where it does not begin so. */
typedef struct split_name {
    bool in_layer;
    const char *number, *rest;
    int n_digits;
} split_name;

static split_name split(const char *name, const char *prefix) {
    size_t length = strlen(prefix);
    if (strncmp(name, prefix, length) == 0) {
        const char *number = name + length;
        size_t n = strspn(number, "0123456789");
        if (n > 0 && n < 10 && number[n] == '.') return (split_name){true, number, number + n + 1, (int)n};
    }
    return (split_name){false, "", name, 0};
}

static const char *skip(const char *text, const char *prefix) {
    size_t length = strlen(prefix);
    return strncmp(text, prefix, length) == 0 ? text + length : NULL;
}

static bool is_common_tail(const char *tail) { return strcmp(tail, ".weight") == 0 || strcmp(tail, ".bias") == 0; }

sp_status sp_gguf_name_to_llama(char out[SP_TENSOR_NAME_BYTES], sp_rotary_rows *rows, const char *name,
                                const char *source) {
    split_name at = split(name, "blk.");
    for (int i = 0; i < N_ROWS; i++) {
        const char *tail = table[i].in_layer == at.in_layer ? skip(at.rest, table[i].gguf) : NULL;
        if (!tail || (table[i].tail ? strcmp(tail, table[i].tail) != 0 : !is_common_tail(tail))) continue;
        snprintf(out, SP_TENSOR_NAME_BYTES, "%s%.*s%s%s%s", at.in_layer ? "model.layers." : "", at.n_digits, at.number,
                 at.in_layer ? "." : "", table[i].llama, table[i].tail ? "" : tail);
        *rows = table[i].rows;
        return SP_OK;
    }
    return sp_fail(SP_UNSUPPORTED, "%s: tensor %s: a LLaMA has none of that name", source, name);
}

sp_status sp_gguf_name_from_llama(char out[SP_TENSOR_NAME_BYTES], sp_rotary_rows *rows, const char *name,
                                  const char *source) {
    split_name at = split(name, "model.layers.");
    for (int i = 0; i < N_ROWS; i++) {
        const char *tail = table[i].in_layer == at.in_layer ? skip(at.rest, table[i].llama) : NULL;
        if (!tail || (table[i].tail ? *tail != 0 : !is_common_tail(tail))) continue;
        snprintf(out, SP_TENSOR_NAME_BYTES, "%s%.*s%s%s%s", at.in_layer ? "blk." : "", at.n_digits, at.number,
                 at.in_layer ? "." : "", table[i].gguf, table[i].tail ? table[i].tail : tail);
        *rows = table[i].rows;
        return SP_OK;
    }
    return sp_fail(SP_UNSUPPORTED, "%s: tensor %s has no place in a GGUF file", source, name);
}
