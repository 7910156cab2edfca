/* The one table of a model's tensors: names (LLaMA's), shapes and places in the flat arrays.  Everything that
 * sizes, initializes, saves, loads or counts parameters reads it.
 *
 * Per layer the order is such that [q k v] and [gate up] are each one matrix, and their biases each one vector.  What
 * not every model has stands at the end: matrices keep their alignment, and their first values do not depend on it. */
#include "model/model_private.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Appends an entry and returns its offset; columns = 0 makes a vector. */
__attribute__((format(printf, 5, 6))) static int64_t add(tensor_table *table, tensor_role role, int64_t rows,
                                                         int64_t columns, const char *format, ...) {
    tensor_entry *entry = &table->entries[table->n_tensors++];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(entry->name, sizeof entry->name, format, arguments);
    va_end(arguments);
    entry->role = role;
    entry->n_dims = columns ? 2 : 1;
    entry->shape[0] = rows;
    entry->shape[1] = columns;
    entry->offset = table->n_parameters;
    entry->count = rows * (columns ? columns : 1);
    table->n_parameters += entry->count;
    return entry->offset;
}

#define LAYER "model.layers.%" PRId64

static layer_offsets add_layer(tensor_table *table, const sp_model_config *c, int64_t l) {
    int64_t q = c->n_heads * c->head_width, kv = c->n_kv_heads * c->head_width;
    layer_offsets at = {.qkv_bias = -1,
                        .out_bias = -1,
                        .gate_up_bias = -1,
                        .down_bias = -1,
                        .q_norm = -1,
                        .k_norm = -1,
                        .row_factor = -1,
                        .sink = -1};
    at.norm_in = add(table, ROLE_NORM, c->width, 0, LAYER ".input_layernorm.weight", l);
    at.qkv = add(table, ROLE_MATRIX, q, c->width, LAYER ".self_attn.q_proj.weight", l);
    add(table, ROLE_MATRIX, kv, c->width, LAYER ".self_attn.k_proj.weight", l);
    add(table, ROLE_MATRIX, kv, c->width, LAYER ".self_attn.v_proj.weight", l);
    at.out = add(table, ROLE_MATRIX, c->width, q, LAYER ".self_attn.o_proj.weight", l);
    at.norm_mid = add(table, ROLE_NORM, c->width, 0, LAYER ".post_attention_layernorm.weight", l);
    at.gate_up = add(table, ROLE_MATRIX, c->ffn_width, c->width, LAYER ".mlp.gate_proj.weight", l);
    add(table, ROLE_MATRIX, c->ffn_width, c->width, LAYER ".mlp.up_proj.weight", l);
    at.down = add(table, ROLE_MATRIX, c->width, c->ffn_width, LAYER ".mlp.down_proj.weight", l);
    return at;
}

static void add_biases(tensor_table *table, const sp_model_config *c, int64_t l) {
    layer_offsets *at = &table->layers[l];
    int64_t kv = c->n_kv_heads * c->head_width;
    if (c->qkv_bias) {
        at->qkv_bias = add(table, ROLE_BIAS, c->n_heads * c->head_width, 0, LAYER ".self_attn.q_proj.bias", l);
        add(table, ROLE_BIAS, kv, 0, LAYER ".self_attn.k_proj.bias", l);
        add(table, ROLE_BIAS, kv, 0, LAYER ".self_attn.v_proj.bias", l);
    }
    if (c->out_bias) at->out_bias = add(table, ROLE_BIAS, c->width, 0, LAYER ".self_attn.o_proj.bias", l);
    if (!c->ffn_bias) return;
    at->gate_up_bias = add(table, ROLE_BIAS, c->ffn_width, 0, LAYER ".mlp.gate_proj.bias", l);
    add(table, ROLE_BIAS, c->ffn_width, 0, LAYER ".mlp.up_proj.bias", l);
    at->down_bias = add(table, ROLE_BIAS, c->width, 0, LAYER ".mlp.down_proj.bias", l);
}

/* Norms of heads, and numbers of heads. */
static void add_heads(tensor_table *table, const sp_model_config *c, int64_t l) {
    layer_offsets *at = &table->layers[l];
    if (c->qk_norm) {
        at->q_norm = add(table, ROLE_NORM, c->head_width, 0, LAYER ".self_attn.q_norm.weight", l);
        at->k_norm = add(table, ROLE_NORM, c->head_width, 0, LAYER ".self_attn.k_norm.weight", l);
    }
    if (c->row_factor) at->row_factor = add(table, ROLE_ROW_FACTOR, c->n_heads, 0, LAYER ".self_attn.row_factor", l);
    if (c->attention_function == SP_NORMALIZER_SOFTMAX_SINK)
        at->sink = add(table, ROLE_SINK, c->n_heads, 0, LAYER ".self_attn.sinks", l);
}

/* Most tensors of a layer: 9 that every model has, 7 biases, 2 norms, factors and sinks. */
enum { MOST_TENSORS = 20 };

sp_status sp_tensor_table_build(tensor_table *table, const sp_model_config *c) {
    *table = (tensor_table){0};
    table->entries = calloc((size_t)(MOST_TENSORS * c->n_layers + 3), sizeof *table->entries);
    table->layers = calloc((size_t)c->n_layers, sizeof *table->layers);
    if (!table->entries || !table->layers) {
        sp_tensor_table_clear(table);
        return sp_fail(SP_OUT_OF_MEMORY, "no memory for the table of %" PRId64 " layers", c->n_layers);
    }
    table->embedding = add(table, ROLE_MATRIX, c->vocabulary, c->width, "model.embed_tokens.weight");
    for (int64_t l = 0; l < c->n_layers; l++) table->layers[l] = add_layer(table, c, l);
    table->norm = add(table, ROLE_NORM, c->width, 0, "model.norm.weight");
    table->head = table->embedding;
    if (!c->tie_embeddings) table->head = add(table, ROLE_MATRIX, c->vocabulary, c->width, "lm_head.weight");
    for (int64_t l = 0; l < c->n_layers; l++) add_biases(table, c, l);
    for (int64_t l = 0; l < c->n_layers; l++) add_heads(table, c, l);
    return SP_OK;
}

void sp_tensor_table_clear(tensor_table *table) {
    free(table->entries);
    free(table->layers);
    *table = (tensor_table){0};
}
