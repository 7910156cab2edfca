/* A whole model in double by plain loops, as a second opinion on src/model: it shares nothing with it but the
 * definition of attention.  loss(values) only; gradients come from central differences. */
#ifndef TESTS_MODEL_REFERENCE_H
#define TESTS_MODEL_REFERENCE_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "softpick/model.h"

static const double *reference_tensor(const double *values, const sp_model *model, const char *name) {
    int64_t offset = 0;
    for (int64_t i = 0; i < sp_model_n_tensors(model); i++) {
        if (strcmp(sp_model_tensor_name(model, i), name) == 0) return values + offset;
        sp_tensor tensor = sp_model_tensor((sp_model *)(uintptr_t)model, i);
        offset += sp_tensor_count(&tensor);
    }
    return NULL;
}

static const double *reference_layer(const double *values, const sp_model *model, int64_t l, const char *rest) {
    char name[160];
    snprintf(name, sizeof name, "model.layers.%d.%s", (int)l, rest);
    return reference_tensor(values, model, name);
}

static void reference_norm(double *y, const double *x, const double *w, int64_t N, int64_t C, double eps) {
    for (int64_t n = 0; n < N; n++) {
        double sum = 0;
        for (int64_t c = 0; c < C; c++) sum += x[n * C + c] * x[n * C + c];
        double r = 1 / sqrt(sum / (double)C + eps);
        for (int64_t c = 0; c < C; c++) y[n * C + c] = x[n * C + c] * r * w[c];
    }
}

static void reference_linear(double *y, const double *x, const double *w, int64_t N, int64_t K, int64_t M) {
    for (int64_t n = 0; n < N; n++)
        for (int64_t m = 0; m < M; m++) {
            double sum = 0;
            for (int64_t k = 0; k < K; k++) sum += x[n * K + k] * w[m * K + k];
            y[n * M + m] = sum;
        }
}

/* y += bias, where the model has it. */
static void reference_bias(double *y, const double *bias, int64_t N, int64_t M) {
    for (int64_t i = 0; bias && i < N * M; i++) y[i] += bias[i % M];
}

/* theta^(-2i/D), scaled as transformers' modeling_rope_utils says, there in terms of wave lengths. */
static double reference_angle(const sp_model_config *c, int64_t i) {
    double angle = pow(c->rope_theta, -2.0 * (double)i / (double)c->head_width);
    if (c->rope_scaling == SP_ROPE_SCALING_LINEAR) return angle / c->rope_factor;
    if (c->rope_scaling == SP_ROPE_SCALING_NONE) return angle;
    double wave = 2 * acos(-1) / angle, length = (double)c->rope_original_positions;
    if (wave < length / c->rope_high_factor) return angle;
    if (wave > length / c->rope_low_factor) return angle / c->rope_factor;
    double smooth = (length / wave - c->rope_low_factor) / (c->rope_high_factor - c->rope_low_factor);
    return (1 - smooth) * angle / c->rope_factor + smooth * angle;
}

static void reference_rope(double *x, const sp_batch *batch, int64_t H, const sp_model_config *c) {
    int64_t N = batch->B * batch->T, D = c->head_width, sequence = 0;
    for (int64_t n = 0; n < N; n++) {
        while (batch->cu && n >= batch->cu[sequence + 1]) sequence++;
        int64_t position = batch->cu ? n - batch->cu[sequence] : n % batch->T;
        for (int64_t h = 0; h < H; h++)
            for (int64_t i = 0; i < D / 2; i++) {
                double angle = (double)position * reference_angle(c, i);
                double *a = x + (n * H + h) * D + i, *b = a + D / 2, first = *a, second = *b;
                *a = first * cos(angle) - second * sin(angle);
                *b = second * cos(angle) + first * sin(angle);
            }
    }
}

/* Mean loss over targets >= 0 of the model whose f64 values are given. */
static double reference_loss(const sp_model *model, const double *values, const sp_batch *batch) {
    const sp_model_config *c = sp_model_config_of(model);
    int64_t N = batch->B * batch->T, C = c->width, F = c->ffn_width, V = c->vocabulary, D = c->head_width;
    int64_t HD = c->n_heads * D, KD = c->n_kv_heads * D;
    double *x = calloc((size_t)(N * C), 8), *h = calloc((size_t)(N * C), 8), *q = calloc((size_t)(N * HD), 8),
           *k = calloc((size_t)(N * KD), 8), *v = calloc((size_t)(N * KD), 8), *o = calloc((size_t)(N * HD), 8),
           *g = calloc((size_t)(N * F), 8), *u = calloc((size_t)(N * F), 8), *y = calloc((size_t)(N * C), 8),
           *logits = calloc((size_t)V, 8);
    float *sink = calloc((size_t)c->n_heads, 4), *factor = calloc((size_t)c->n_heads, 4);
    const double *table = reference_tensor(values, model, "model.embed_tokens.weight");
    for (int64_t n = 0; n < N; n++) memcpy(x + n * C, table + batch->tokens[n] * C, (size_t)C * 8);
    for (int64_t l = 0; l < c->n_layers; l++) {
        reference_norm(h, x, reference_layer(values, model, l, "input_layernorm.weight"), N, C, c->norm_eps);
        reference_linear(q, h, reference_layer(values, model, l, "self_attn.q_proj.weight"), N, C, HD);
        reference_bias(q, reference_layer(values, model, l, "self_attn.q_proj.bias"), N, HD);
        reference_linear(k, h, reference_layer(values, model, l, "self_attn.k_proj.weight"), N, C, KD);
        reference_bias(k, reference_layer(values, model, l, "self_attn.k_proj.bias"), N, KD);
        reference_linear(v, h, reference_layer(values, model, l, "self_attn.v_proj.weight"), N, C, KD);
        reference_bias(v, reference_layer(values, model, l, "self_attn.v_proj.bias"), N, KD);
        const double *q_norm = reference_layer(values, model, l, "self_attn.q_norm.weight");
        const double *k_norm = reference_layer(values, model, l, "self_attn.k_norm.weight");
        if (q_norm) reference_norm(q, q, q_norm, N * c->n_heads, D, c->qk_norm_eps);
        if (k_norm) reference_norm(k, k, k_norm, N * c->n_kv_heads, D, c->qk_norm_eps);
        reference_rope(q, batch, c->n_heads, c);
        reference_rope(k, batch, c->n_kv_heads, c);
        sp_attention a;
        sp_attention_init(&a);
        a.normalizer = c->attention_function;
        a.lambda = (float)c->softpick_lambda;
        a.eps = (float)c->softpick_eps;
        a.window = c->window;
        a.cu_q = batch->cu;
        a.n_sequences = batch->n_sequences;
        const double *s = reference_layer(values, model, l, "self_attn.sinks");
        const double *r = reference_layer(values, model, l, "self_attn.row_factor");
        for (int64_t i = 0; s && i < c->n_heads; i++) sink[i] = (float)s[i];
        for (int64_t i = 0; r && i < c->n_heads; i++) factor[i] = (float)r[i];
        a.sink = s ? sink : NULL;
        a.row_factor = r ? factor : NULL;
        int64_t B = batch->cu ? 1 : batch->B, T = N / B;
        a.q = sp_tensor_view(q, SP_DTYPE_F64, 4, (int64_t[]){B, T, c->n_heads, D});
        a.k = sp_tensor_view(k, SP_DTYPE_F64, 4, (int64_t[]){B, T, c->n_kv_heads, D});
        a.v = sp_tensor_view(v, SP_DTYPE_F64, 4, (int64_t[]){B, T, c->n_kv_heads, D});
        a.out = sp_tensor_view(o, SP_DTYPE_F64, 4, (int64_t[]){B, T, c->n_heads, D});
        if (sp_attention_define_forward(&a) != SP_OK) abort();
        reference_linear(y, o, reference_layer(values, model, l, "self_attn.o_proj.weight"), N, HD, C);
        reference_bias(y, reference_layer(values, model, l, "self_attn.o_proj.bias"), N, C);
        for (int64_t i = 0; i < N * C; i++) x[i] += y[i];
        reference_norm(h, x, reference_layer(values, model, l, "post_attention_layernorm.weight"), N, C, c->norm_eps);
        reference_linear(g, h, reference_layer(values, model, l, "mlp.gate_proj.weight"), N, C, F);
        reference_bias(g, reference_layer(values, model, l, "mlp.gate_proj.bias"), N, F);
        reference_linear(u, h, reference_layer(values, model, l, "mlp.up_proj.weight"), N, C, F);
        reference_bias(u, reference_layer(values, model, l, "mlp.up_proj.bias"), N, F);
        for (int64_t i = 0; i < N * F; i++) g[i] = g[i] / (1 + exp(-g[i])) * u[i];
        reference_linear(y, g, reference_layer(values, model, l, "mlp.down_proj.weight"), N, F, C);
        reference_bias(y, reference_layer(values, model, l, "mlp.down_proj.bias"), N, C);
        for (int64_t i = 0; i < N * C; i++) x[i] += y[i];
    }
    reference_norm(h, x, reference_tensor(values, model, "model.norm.weight"), N, C, c->norm_eps);
    const double *head =
        reference_tensor(values, model, c->tie_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
    double loss = 0;
    int64_t count = 0;
    for (int64_t n = 0; n < N; n++) {
        if (batch->targets[n] < 0) continue;
        reference_linear(logits, h + n * C, head, 1, C, V);
        double most = logits[0], sum = 0;
        for (int64_t i = 1; i < V; i++) most = logits[i] > most ? logits[i] : most;
        for (int64_t i = 0; i < V; i++) sum += exp(logits[i] - most);
        loss += most + log(sum) - logits[batch->targets[n]];
        count++;
    }
    double *owned[] = {x, h, q, k, v, o, g, u, y, logits};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    free(sink);
    free(factor);
    return loss / (double)count;
}

#endif
