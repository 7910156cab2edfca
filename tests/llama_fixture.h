/* A small LLaMA as named tensors of f32, for tests of files. */
#ifndef LLAMA_FIXTURE_H
#define LLAMA_FIXTURE_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "softpick/checkpoint.h"

enum { FIX_V = 11, FIX_C = 64, FIX_F = 96, FIX_L = 2, FIX_H = 4, FIX_KV = 2, FIX_D = 16, FIX_T = 128 };

typedef struct llama_fixture {
    char config[4096];
    char names[64][80];
    sp_named_tensor tensors[64];
    int64_t n;
} llama_fixture;

static inline void fixture_add(llama_fixture *to, const char *name, int64_t rows, int64_t columns) {
    int64_t i = to->n++, n = (rows ? rows : 1) * columns;
    float *numbers = malloc((size_t)n * sizeof *numbers);
    if (!numbers) abort();
    for (int64_t k = 0; k < n; k++) numbers[k] = (float)sp_random_normal(1, (uint64_t)i, (uint64_t)k);
    snprintf(to->names[i], sizeof to->names[i], "%s", name);
    const int64_t shape[] = {rows ? rows : columns, columns};
    to->tensors[i] = (sp_named_tensor){to->names[i], sp_tensor_view(numbers, SP_DTYPE_F32, rows ? 2 : 1, shape)};
}

static inline void fixture_add_layer(llama_fixture *to, int layer) {
    static const struct {
        const char *name;
        int64_t rows, columns;
    } rows[] = {
        {"input_layernorm.weight", 0, FIX_C},
        {"self_attn.q_proj.weight", FIX_H * FIX_D, FIX_C},
        {"self_attn.k_proj.weight", FIX_KV * FIX_D, FIX_C},
        {"self_attn.v_proj.weight", FIX_KV * FIX_D, FIX_C},
        {"self_attn.o_proj.weight", FIX_C, FIX_H * FIX_D},
        {"post_attention_layernorm.weight", 0, FIX_C},
        {"mlp.gate_proj.weight", FIX_F, FIX_C},
        {"mlp.up_proj.weight", FIX_F, FIX_C},
        {"mlp.down_proj.weight", FIX_C, FIX_F},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char name[80];
        snprintf(name, sizeof name, "model.layers.%d.%s", layer, rows[i].name);
        fixture_add(to, name, rows[i].rows, rows[i].columns);
    }
}

/* `extra`: more keys of config.json, each with a comma in front; they may not be those below. */
static inline void make_fixture(llama_fixture *to, const char *model_type, bool tied, const char *extra) {
    *to = (llama_fixture){0};
    snprintf(to->config, sizeof to->config,
             "{\"model_type\":\"%s\",\"vocab_size\":%d,\"hidden_size\":%d,\"intermediate_size\":%d,"
             "\"num_hidden_layers\":%d,\"num_attention_heads\":%d,\"num_key_value_heads\":%d,\"head_dim\":%d,"
             "\"max_position_embeddings\":%d,\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,\"tie_word_embeddings\":%s,"
             "\"bos_token_id\":1,\"eos_token_id\":2%s}",
             model_type, FIX_V, FIX_C, FIX_F, FIX_L, FIX_H, FIX_KV, FIX_D, FIX_T, tied ? "true" : "false", extra);
    fixture_add(to, "model.embed_tokens.weight", FIX_V, FIX_C);
    for (int layer = 0; layer < FIX_L; layer++) fixture_add_layer(to, layer);
    fixture_add(to, "model.norm.weight", 0, FIX_C);
    if (!tied) fixture_add(to, "lm_head.weight", FIX_V, FIX_C);
}

static inline void free_fixture(llama_fixture *fixture) {
    for (int64_t i = 0; i < fixture->n; i++) free(fixture->tensors[i].tensor.data);
    fixture->n = 0;
}

static inline sp_checkpoint_content fixture_content(const llama_fixture *fixture) {
    return (sp_checkpoint_content){.config = fixture->config, .tensors = fixture->tensors, .n_tensors = fixture->n};
}

/* Largest difference of a tensor of f32 from the fixture's; infinite for another shape. */
static inline float fixture_difference(const llama_fixture *fixture, int64_t i, const sp_tensor *tensor) {
    const sp_tensor *own = &fixture->tensors[i].tensor;
    float worst = 0;
    if (!tensor || tensor->dtype != SP_DTYPE_F32 || tensor->n_dims != own->n_dims ||
        tensor->shape[0] != own->shape[0] || sp_tensor_count(tensor) != sp_tensor_count(own))
        return 1e30f;
    for (int64_t k = 0; k < sp_tensor_count(own); k++) {
        float difference = ((const float *)own->data)[k] - ((const float *)tensor->data)[k];
        if (difference < 0) difference = -difference;
        if (!(difference <= worst)) worst = difference;
    }
    return worst;
}

#endif
