/* The forward pass: tokens -> embedding -> L x [norm, q k v, rotation, attention, out, norm, swiglu] -> norm -> logits
 * -> loss.  To be read from top to bottom; backward.c is its mirror.  It is the same on every device: layers and memory
 * are the device's, and what happens between two products is queued there, not waited for.
 *
 * The residual stream x is f32 throughout, and the products that end a branch add to it as they run.  N =
 * B*T. */
#include "model/model_private.h"

#include <stdlib.h>
#include <string.h>

sp_tensor sp_heads_view(const sp_model *model, void *data, int64_t row, int64_t first, int64_t n_heads, int64_t B,
                        int64_t T) {
    int64_t D = model->config.head_width;
    char *start = (char *)data + first * D * sp_dtype_bytes(model->options.dtype);
    return (sp_tensor){.data = start,
                       .dtype = model->options.dtype,
                       .device = model->device->id,
                       .n_dims = 4,
                       .shape = {B, T, n_heads, D},
                       .stride = {T * row, row, D, 1}};
}

void sp_layer_attention(sp_attention *problem, const sp_model *model, int64_t layer, const sp_batch *batch,
                        const sp_cache *cache) {
    const sp_model_config *c = &model->config;
    const layer_offsets *at = &model->table.layers[layer];
    const layer_buffers *b = &model->buffers.layers[layer];
    int64_t H = c->n_heads, Hkv = c->n_kv_heads, D = c->head_width, row = (H + 2 * Hkv) * D;
    int64_t B = batch->cu ? 1 : batch->B, T = batch->cu ? batch->B * batch->T : batch->T;
    sp_attention_init(problem);
    problem->stream = model->device->stream;
    problem->normalizer = c->attention_function;
    problem->lambda = (float)c->softpick_lambda;
    problem->eps = (float)c->softpick_eps;
    problem->window = c->window;
    problem->sink = at->sink >= 0 ? model->values + at->sink : NULL;
    problem->row_factor = at->row_factor >= 0 ? model->values + at->row_factor : NULL;
    problem->cu_q = batch->cu;
    problem->n_sequences = batch->n_sequences;
    problem->q = sp_heads_view(model, b->qkv, row, 0, H, B, T);
    problem->k = sp_heads_view(model, b->qkv, row, H, Hkv, B, T);
    problem->v = sp_heads_view(model, b->qkv, row, H + Hkv, Hkv, B, T);
    problem->out = sp_heads_view(model, b->o, H * D, 0, H, B, T);
    problem->lse = b->lse;
    if (batch->continues) {
        const sp_gathered_keys *keys = &model->buffers.gathered;
        problem->cu_k = keys->cu_k;
        problem->k = sp_heads_view(model, keys->kv, 2 * Hkv * D, 0, Hkv, 1, keys->n_keys);
        problem->v = sp_heads_view(model, keys->kv, 2 * Hkv * D, Hkv, Hkv, 1, keys->n_keys);
    }
    if (cache) {
        int64_t S = cache->length + T, offset = layer * cache->capacity * cache->row_bytes;
        problem->k = sp_heads_view(model, cache->k + offset, Hkv * D, 0, Hkv, 1, S);
        problem->v = sp_heads_view(model, cache->v + offset, Hkv * D, 0, Hkv, 1, S);
    }
}

/* Copies the new tokens' keys and values of a layer to the end of the cache. */
static sp_status append(sp_cache *cache, const sp_model *model, int64_t layer, int64_t n) {
    const sp_model_config *c = &model->config;
    int64_t act = sp_dtype_bytes(model->options.dtype), row = (c->n_heads + 2 * c->n_kv_heads) * c->head_width * act;
    const char *k = (const char *)model->buffers.layers[layer].qkv + c->n_heads * c->head_width * act;
    int64_t to = (layer * cache->capacity + cache->length) * cache->row_bytes, bytes = cache->row_bytes;
    SP_TRY(sp_device_copy_rows(cache->device, cache->k + to, bytes, k, row, bytes, n));
    return sp_device_copy_rows(cache->device, cache->v + to, bytes, k + bytes, row, bytes, n);
}

/* Observers read host memory. */
static sp_status observe(sp_model *model, const sp_observer *observer, int64_t layer, const float *x, int64_t N) {
    if (!observer || !observer->hidden) return SP_OK;
    const void *host;
    int64_t C = model->config.width;
    SP_TRY(sp_device_read_begin(model->device, &host, x, N * C * (int64_t)sizeof *x));
    sp_status status = observer->hidden(observer->user, layer, host, N, C);
    sp_device_read_end(model->device, host);
    return status;
}

/* At most so many new tokens after a cache count as few: then decode splits the work along the cache. */
enum { FEW_TOKENS = 16 };

/* o = attention(q, k, v) of a layer. */
static sp_status attend(sp_model *model, int64_t layer, const sp_batch *batch, sp_cache *cache,
                        const sp_observer *observer) {
    pass_buffers *p = &model->buffers;
    sp_attention problem;
    if (cache) SP_TRY(append(cache, model, layer, batch->T));
    if (batch->continues) SP_TRY(sp_gathered_copy(model, layer));
    sp_lap(model, &model->profile.other);
    sp_layer_attention(&problem, model, layer, batch, cache);
    bool few = cache && batch->T <= FEW_TOKENS;
    SP_TRY(sp_model_fit_attention(model, &problem, few ? SP_ATTENTION_DECODE : SP_ATTENTION_FORWARD));
    SP_TRY((few ? sp_attention_decode : sp_attention_forward)(&problem, p->attention_workspace, p->attention_bytes, 0));
    return observer && observer->attention ? observer->attention(observer->user, layer, &problem) : SP_OK;
}

/* y (N,M)@M += the bias that begins at `offset`, if the model has one. */
static sp_status add_bias(sp_model *model, void *y, sp_dtype dtype, int64_t offset, int64_t N, int64_t M) {
    if (offset < 0) return SP_OK;
    return SP_LAYER(model, bias_add, y, dtype, M, model->values + offset, N, M);
}

/* Norms of queries and keys, in models that have them. */
static sp_status norm_heads(sp_model *model, int64_t l, int64_t N) {
    const sp_model_config *c = &model->config;
    const layer_offsets *at = &model->table.layers[l];
    const layer_buffers *b = &model->buffers.layers[l];
    const sp_dtype act = model->options.dtype;
    const int64_t D = c->head_width, H = c->n_heads, Hkv = c->n_kv_heads, row = (H + 2 * Hkv) * D;
    const int64_t to_keys = H * D * sp_dtype_bytes(act);
    const float eps = (float)c->qk_norm_eps;
    char *q = b->qkv, *kept = b->qk;
    if (!c->qk_norm) return SP_OK;
    SP_TRY(
        SP_LAYER(model, head_norm_forward, q, act, row, kept, (H + Hkv) * D, model->values + at->q_norm, N, H, D, eps));
    return SP_LAYER(model, head_norm_forward, q + to_keys, act, row, kept ? kept + to_keys : NULL, (H + Hkv) * D,
                    model->values + at->k_norm, N, Hkv, D, eps);
}

sp_status sp_layer_forward(sp_model *model, int64_t l, float *x_out, const sp_batch *batch, sp_cache *cache,
                           const sp_observer *observer) {
    const sp_model_config *c = &model->config;
    const layer_offsets *at = &model->table.layers[l];
    const layer_buffers *b = &model->buffers.layers[l];
    const pass_buffers *p = &model->buffers;
    sp_model_profile *time = &model->profile;
    const sp_dtype act = model->options.dtype;
    const int64_t N = batch->B * batch->T, C = c->width, F = c->ffn_width;
    const int64_t HD = c->n_heads * c->head_width, Q = HD + 2 * c->n_kv_heads * c->head_width;
    const float eps = (float)c->norm_eps;
    const void *w_qkv = sp_model_weight(model, at->qkv), *w_out = sp_model_weight(model, at->out);
    const void *w_gate_up = sp_model_weight(model, at->gate_up), *w_down = sp_model_weight(model, at->down);

    SP_TRY(SP_LAYER(model, rmsnorm_forward, p->h, act, b->rstd_in, b->x_in, model->values + at->norm_in, N, C, eps));
    sp_lap(model, &time->norm);
    SP_TRY(SP_LAYER(model, linear_forward, b->qkv, act, Q, p->h, C, w_qkv, act, NULL, N, C, Q));
    SP_TRY(add_bias(model, b->qkv, act, at->qkv_bias, N, Q));
    sp_lap(model, &time->matmul);
    SP_TRY(norm_heads(model, l, N));
    sp_lap(model, &time->norm);
    SP_TRY(SP_LAYER(model, rope_apply, b->qkv, act, Q, p->positions, model->rope, N, c->n_heads + c->n_kv_heads,
                    c->head_width, false));
    sp_lap(model, &time->rope);
    SP_TRY(attend(model, l, batch, cache, observer));
    sp_lap(model, &time->attention);
    SP_TRY(SP_LAYER(model, linear_forward, b->x_mid, SP_DTYPE_F32, C, b->o, HD, w_out, act, b->x_in, N, HD, C));
    SP_TRY(add_bias(model, b->x_mid, SP_DTYPE_F32, at->out_bias, N, C));
    sp_lap(model, &time->matmul);

    SP_TRY(SP_LAYER(model, rmsnorm_forward, p->h, act, b->rstd_mid, b->x_mid, model->values + at->norm_mid, N, C, eps));
    sp_lap(model, &time->norm);
    SP_TRY(SP_LAYER(model, linear_forward, b->gu, act, 2 * F, p->h, C, w_gate_up, act, NULL, N, C, 2 * F));
    SP_TRY(add_bias(model, b->gu, act, at->gate_up_bias, N, 2 * F));
    sp_lap(model, &time->matmul);
    if (!x_out) return SP_OK;
    SP_TRY(SP_LAYER(model, swiglu_forward, p->s, b->gu, act, N, F));
    sp_lap(model, &time->swiglu);
    SP_TRY(SP_LAYER(model, linear_forward, x_out, SP_DTYPE_F32, C, p->s, F, w_down, act, b->x_mid, N, F, C));
    SP_TRY(add_bias(model, x_out, SP_DTYPE_F32, at->down_bias, N, C));
    sp_lap(model, &time->matmul);
    return SP_OK;
}

sp_status sp_model_trunk(sp_model *model, const sp_batch *batch, sp_cache *cache, const sp_observer *observer) {
    const sp_model_config *c = &model->config;
    pass_buffers *p = &model->buffers;
    const int64_t N = batch->B * batch->T, L = c->n_layers;
    sp_lap(model, NULL);
    SP_TRY(SP_LAYER(model, embedding_forward, p->layers[0].x_in, model->values + model->table.embedding, p->tokens, N,
                    c->width));
    sp_lap(model, &model->profile.embedding);
    SP_TRY(observe(model, observer, 0, p->layers[0].x_in, N));
    for (int64_t l = 0; l < L; l++) {
        float *x_out = l + 1 < L ? p->layers[l + 1].x_in : p->x_out;
        SP_TRY(sp_layer_forward(model, l, x_out, batch, cache, observer));
        SP_TRY(observe(model, observer, l + 1, x_out, N));
    }
    SP_TRY(SP_LAYER(model, rmsnorm_forward, p->h, model->options.dtype, p->rstd_out, p->x_out,
                    model->values + model->table.norm, N, c->width, (float)c->norm_eps));
    sp_lap(model, &model->profile.norm);
    return SP_OK;
}

sp_status sp_model_loss(sp_model *model, const sp_batch *batch, double *loss_sum, int64_t *n_targets) {
    *loss_sum = 0;
    *n_targets = 0;
    SP_TRY(sp_batch_check(model, batch, true));
    SP_TRY(sp_buffers_fit(model, batch, false));
    SP_TRY(sp_model_trunk(model, batch, NULL, NULL));
    const pass_buffers *p = &model->buffers;
    const int64_t C = model->config.width, V = model->config.vocabulary, N = batch->B * batch->T;
    const sp_dtype act = model->options.dtype;
    const void *weight = sp_model_weight(model, model->table.head);
    int64_t rows = sp_model_head_rows(&model->options) * sp_dtype_bytes(act) / 4;
    for (int64_t first = 0; first < N; first += rows) {
        int64_t n = N - first < rows ? N - first : rows;
        const char *h = (const char *)p->h + first * C * sp_dtype_bytes(act);
        SP_TRY(SP_LAYER(model, linear_forward, p->logits, SP_DTYPE_F32, V, h, C, weight, act, NULL, n, C, V));
        sp_lap(model, &model->profile.matmul);
        SP_TRY(SP_LAYER(model, cross_entropy, p->losses + first, p->logits, SP_DTYPE_F32, p->targets + first, n, V,
                        false, 1));
        sp_lap(model, &model->profile.loss);
    }
    SP_TRY(SP_LAYER(model, sum, loss_sum, p->losses, N));
    *n_targets = sp_batch_n_targets(batch);
    sp_laps_end(model);
    return SP_OK;
}

sp_status sp_model_observe(sp_model *model, const sp_batch *batch, const sp_observer *observer) {
    SP_TRY(sp_batch_check(model, batch, false));
    SP_TRY(sp_buffers_fit(model, batch, false));
    SP_TRY(sp_model_trunk(model, batch, NULL, observer));
    sp_laps_end(model);
    if (!observer->hidden) return SP_OK;
    /* The stream itself is not needed any more: the final norm's output takes its place, in f32. */
    const pass_buffers *p = &model->buffers;
    const int64_t N = batch->B * batch->T, C = model->config.width;
    SP_TRY(SP_LAYER(model, convert, p->x_out, SP_DTYPE_F32, p->h, model->options.dtype, N * C));
    return observe(model, observer, model->config.n_layers + 1, p->x_out, N);
}
