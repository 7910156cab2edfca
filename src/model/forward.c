/* The forward pass: tokens -> embedding -> L x [norm, q k v, rotation, attention, out, norm, swiglu] -> norm
 * -> logits
 * -> loss.  To be read from top to bottom; backward.c is its mirror.
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
    if (cache) {
        int64_t S = cache->length + T, offset = layer * cache->capacity * cache->row_bytes;
        problem->k = sp_heads_view(model, cache->k + offset, Hkv * D, 0, Hkv, 1, S);
        problem->v = sp_heads_view(model, cache->v + offset, Hkv * D, 0, Hkv, 1, S);
    }
}

/* Copies the new tokens' keys and values of a layer to the end of the cache. */
static void append(sp_cache *cache, const sp_model *model, int64_t layer, int64_t n) {
    const sp_model_config *c = &model->config;
    int64_t act = sp_dtype_bytes(model->options.dtype);
    int64_t row = (c->n_heads + 2 * c->n_kv_heads) * c->head_width * act;
    const char *k = (const char *)model->buffers.layers[layer].qkv + c->n_heads * c->head_width * act;
    int64_t to = (layer * cache->capacity + cache->length) * cache->row_bytes;
    for (int64_t i = 0; i < n; i++, to += cache->row_bytes) {
        memcpy(cache->k + to, k + i * row, (size_t)cache->row_bytes);
        memcpy(cache->v + to, k + i * row + cache->row_bytes, (size_t)cache->row_bytes);
    }
}

static sp_status observe(const sp_observer *observer, int64_t layer, const float *x, int64_t N, int64_t C) {
    return observer && observer->hidden ? observer->hidden(observer->user, layer, x, N, C) : SP_OK;
}

/* At most so many new tokens after a cache count as few: then decode splits the work along the cache. */
enum { FEW_TOKENS = 16 };

/* o = attention(q, k, v) of a layer. */
static sp_status attend(sp_model *model, int64_t layer, const sp_batch *batch, sp_cache *cache,
                        const sp_observer *observer) {
    pass_buffers *p = &model->buffers;
    sp_attention problem;
    if (cache) append(cache, model, layer, batch->T);
    sp_layer_attention(&problem, model, layer, batch, cache);
    bool few = cache && batch->T <= FEW_TOKENS;
    SP_TRY(sp_model_fit_attention(model, &problem, few ? SP_ATTENTION_DECODE : SP_ATTENTION_FORWARD));
    SP_TRY((few ? sp_attention_decode : sp_attention_forward)(&problem, p->attention_workspace, p->attention_bytes, 0));
    return observer && observer->attention ? observer->attention(observer->user, layer, &problem) : SP_OK;
}

static sp_status layer_forward(sp_model *model, int64_t l, float *x_out, const sp_batch *batch, sp_cache *cache,
                               const sp_observer *observer) {
    const sp_model_config *c = &model->config;
    const layer_offsets *at = &model->table.layers[l];
    const layer_buffers *b = &model->buffers.layers[l];
    sp_model_profile *time = &model->profile;
    const sp_dtype act = model->options.dtype;
    const int64_t N = batch->B * batch->T, C = c->width, F = c->ffn_width;
    const int64_t HD = c->n_heads * c->head_width, Q = HD + 2 * c->n_kv_heads * c->head_width;
    double mark = sp_clock();

    sp_rmsnorm_forward(b->h_in, act, b->rstd_in, b->x_in, model->values + at->norm_in, N, C, (float)c->norm_eps);
    sp_lap(&time->norm, &mark);
    SP_TRY(sp_linear_forward(b->qkv, act, Q, b->h_in, C, sp_model_weight(model, at->qkv), act, NULL, N, C, Q));
    sp_lap(&time->matmul, &mark);
    sp_rope_apply(b->qkv, act, Q, model->buffers.positions, model->rope, N, c->n_heads + c->n_kv_heads, c->head_width,
                  false);
    sp_lap(&time->rope, &mark);
    SP_TRY(attend(model, l, batch, cache, observer));
    sp_lap(&time->attention, &mark);
    SP_TRY(sp_linear_forward(b->x_mid, SP_DTYPE_F32, C, b->o, HD, sp_model_weight(model, at->out), act, b->x_in, N, HD,
                             C));
    sp_lap(&time->matmul, &mark);

    sp_rmsnorm_forward(b->h_mid, act, b->rstd_mid, b->x_mid, model->values + at->norm_mid, N, C, (float)c->norm_eps);
    sp_lap(&time->norm, &mark);
    SP_TRY(
        sp_linear_forward(b->gu, act, 2 * F, b->h_mid, C, sp_model_weight(model, at->gate_up), act, NULL, N, C, 2 * F));
    sp_lap(&time->matmul, &mark);
    sp_swiglu_forward(model->buffers.s, b->gu, act, N, F);
    sp_lap(&time->swiglu, &mark);
    SP_TRY(sp_linear_forward(x_out, SP_DTYPE_F32, C, model->buffers.s, F, sp_model_weight(model, at->down), act,
                             b->x_mid, N, F, C));
    sp_lap(&time->matmul, &mark);
    return SP_OK;
}

sp_status sp_model_trunk(sp_model *model, const sp_batch *batch, sp_cache *cache, const sp_observer *observer) {
    const sp_model_config *c = &model->config;
    pass_buffers *p = &model->buffers;
    const int64_t N = batch->B * batch->T, L = c->n_layers;
    double mark = sp_clock();
    sp_embedding_forward(p->layers[0].x_in, model->values + model->table.embedding, batch->tokens, N, c->width);
    sp_lap(&model->profile.embedding, &mark);
    SP_TRY(observe(observer, 0, p->layers[0].x_in, N, c->width));
    for (int64_t l = 0; l < L; l++) {
        float *x_out = l + 1 < L ? p->layers[l + 1].x_in : p->x_out;
        SP_TRY(layer_forward(model, l, x_out, batch, cache, observer));
        SP_TRY(observe(observer, l + 1, x_out, N, c->width));
    }
    mark = sp_clock();
    sp_rmsnorm_forward(p->h_out, model->options.dtype, p->rstd_out, p->x_out, model->values + model->table.norm, N,
                       c->width, (float)c->norm_eps);
    sp_lap(&model->profile.norm, &mark);
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
    double mark = sp_clock();
    for (int64_t first = 0; first < N; first += HEAD_ROWS) {
        int64_t n = N - first < HEAD_ROWS ? N - first : HEAD_ROWS;
        const char *h = (const char *)p->h_out + first * C * sp_dtype_bytes(act);
        SP_TRY(sp_linear_forward(p->logits, SP_DTYPE_F32, V, h, C, sp_model_weight(model, model->table.head), act, NULL,
                                 n, C, V));
        sp_lap(&model->profile.matmul, &mark);
        sp_cross_entropy(loss_sum, n_targets, p->logits, SP_DTYPE_F32, batch->targets + first, n, V, false, 1);
        sp_lap(&model->profile.loss, &mark);
    }
    return SP_OK;
}

sp_status sp_model_observe(sp_model *model, const sp_batch *batch, const sp_observer *observer) {
    SP_TRY(sp_batch_check(model, batch, false));
    SP_TRY(sp_buffers_fit(model, batch, false));
    SP_TRY(sp_model_trunk(model, batch, NULL, observer));
    if (!observer->hidden) return SP_OK;
    /* The stream itself is not needed any more: the final norm's output takes its place, in f32. */
    const pass_buffers *p = &model->buffers;
    const int64_t N = batch->B * batch->T, C = model->config.width;
    sp_convert(p->x_out, SP_DTYPE_F32, p->h_out, model->options.dtype, N * C);
    return observe(observer, model->config.n_layers + 1, p->x_out, N, C);
}
