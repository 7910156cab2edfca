/* The backward pass: forward.c in reverse, line by line.
 *
 * dx (N,C) f32 is the gradient of the residual stream; each branch adds its share to it.  Products take gradients in
 * the model's dtype (dy is dx converted, by the norm that changed it last), weights' gradients accumulate in f32.  The
 * normed stream h is not kept: the norm's backward pass gives it again, in the buffer that held its gradient. */
#include "model/model_private.h"

/* Losses, and their gradient down to the final norm's output (in h), with that of the head's weights. */
static sp_status head_gradient(sp_model *model, const sp_batch *batch, double gradient_scale) {
    const pass_buffers *p = &model->buffers;
    const int64_t C = model->config.width, V = model->config.vocabulary, N = batch->B * batch->T;
    const sp_dtype act = model->options.dtype;
    const void *weight = sp_model_weight(model, model->table.head);
    float *gradient = model->gradients + model->table.head;
    int64_t rows = sp_model_head_rows(&model->options);
    for (int64_t first = 0; first < N; first += rows) {
        int64_t n = N - first < rows ? N - first : rows;
        char *h = (char *)p->h + first * C * sp_dtype_bytes(act);
        SP_TRY(SP_LAYER(model, linear_forward, p->logits, act, V, h, C, weight, act, NULL, n, C, V));
        sp_lap(model, &model->profile.matmul);
        SP_TRY(SP_LAYER(model, cross_entropy, p->losses + first, p->logits, act, p->targets + first, n, V, true,
                        (float)gradient_scale));
        sp_lap(model, &model->profile.loss);
        SP_TRY(SP_LAYER(model, linear_backward_weight, gradient, p->logits, V, h, C, act, n, C, V));
        SP_TRY(SP_LAYER(model, linear_backward_input, h, act, C, p->logits, V, weight, act, n, C, V));
        sp_lap(model, &model->profile.matmul);
    }
    return SP_OK;
}

static sp_status attention_backward(sp_model *model, int64_t l, const sp_batch *batch) {
    const sp_model_config *c = &model->config;
    const layer_offsets *at = &model->table.layers[l];
    pass_buffers *p = &model->buffers;
    int64_t H = c->n_heads, Hkv = c->n_kv_heads, row = (H + 2 * Hkv) * c->head_width;
    sp_attention problem;
    sp_layer_attention(&problem, model, l, batch, NULL);
    int64_t B = problem.q.shape[0], T = problem.q.shape[1];
    problem.dout = sp_heads_view(model, p->d_o, H * c->head_width, 0, H, B, T);
    problem.dq = sp_heads_view(model, p->dqkv, row, 0, H, B, T);
    problem.dk = sp_heads_view(model, p->dqkv, row, H, Hkv, B, T);
    problem.dv = sp_heads_view(model, p->dqkv, row, H + Hkv, Hkv, B, T);
    problem.dsink = at->sink >= 0 ? model->gradients + at->sink : NULL;
    problem.drow_factor = at->row_factor >= 0 ? model->gradients + at->row_factor : NULL;
    SP_TRY(sp_model_fit_attention(model, &problem, SP_ATTENTION_BACKWARD));
    return sp_attention_backward(&problem, p->attention_workspace, p->attention_bytes, 0);
}

/* Adds to the gradient of the bias that begins at `offset`, if the model has one: dy (N,M)@M is that of its product. */
static sp_status bias_gradient(sp_model *model, const void *dy, int64_t offset, int64_t N, int64_t M) {
    if (offset < 0) return SP_OK;
    return SP_LAYER(model, bias_backward, model->gradients + offset, dy, M, model->options.dtype, N, M,
                    model->buffers.bias_workspace);
}

/* Through the norms of queries and keys, in models that have them. */
static sp_status head_norms_backward(sp_model *model, int64_t l, int64_t N) {
    const sp_model_config *c = &model->config;
    const layer_offsets *at = &model->table.layers[l];
    const pass_buffers *p = &model->buffers;
    const sp_dtype act = model->options.dtype;
    const int64_t D = c->head_width, H = c->n_heads, Hkv = c->n_kv_heads, row = (H + 2 * Hkv) * D;
    const int64_t to_keys = H * D * sp_dtype_bytes(act), kept_row = (H + Hkv) * D;
    const float eps = (float)c->qk_norm_eps;
    char *dq = p->dqkv;
    const char *q = p->layers[l].qk;
    if (!c->qk_norm) return SP_OK;
    SP_TRY(SP_LAYER(model, head_norm_backward, dq, act, row, model->gradients + at->q_norm, q, kept_row,
                    model->values + at->q_norm, N, H, D, eps, p->norm_workspace));
    return SP_LAYER(model, head_norm_backward, dq + to_keys, act, row, model->gradients + at->k_norm, q + to_keys,
                    kept_row, model->values + at->k_norm, N, Hkv, D, eps, p->norm_workspace);
}

static sp_status layer_backward(sp_model *model, int64_t l, const sp_batch *batch) {
    const sp_model_config *c = &model->config;
    const layer_offsets *at = &model->table.layers[l];
    const layer_buffers *b = &model->buffers.layers[l];
    const pass_buffers *p = &model->buffers;
    sp_model_profile *time = &model->profile;
    float *gradients = model->gradients;
    const float *values = model->values;
    const sp_dtype act = model->options.dtype;
    const int64_t N = batch->B * batch->T, C = c->width, F = c->ffn_width;
    const int64_t HD = c->n_heads * c->head_width, Q = HD + 2 * c->n_kv_heads * c->head_width;
    const void *w_qkv = sp_model_weight(model, at->qkv), *w_out = sp_model_weight(model, at->out);
    const void *w_gate_up = sp_model_weight(model, at->gate_up), *w_down = sp_model_weight(model, at->down);

    SP_TRY(SP_LAYER(model, linear_backward_input, p->s, act, F, p->dy, C, w_down, act, N, F, C));
    sp_lap(model, &time->matmul);
    SP_TRY(SP_LAYER(model, swiglu_backward, b->gu, p->s, p->s, b->gu, act, N, F));
    sp_lap(model, &time->swiglu);
    SP_TRY(SP_LAYER(model, linear_backward_weight, gradients + at->down, p->dy, C, p->s, F, act, N, F, C));
    SP_TRY(bias_gradient(model, p->dy, at->down_bias, N, C));
    SP_TRY(bias_gradient(model, b->gu, at->gate_up_bias, N, 2 * F));
    SP_TRY(SP_LAYER(model, linear_backward_input, p->h, act, C, b->gu, 2 * F, w_gate_up, act, N, C, 2 * F));
    sp_lap(model, &time->matmul);
    SP_TRY(SP_LAYER(model, rmsnorm_backward, p->dx, p->dy, p->h, gradients + at->norm_mid, p->h, act, b->x_mid,
                    values + at->norm_mid, b->rstd_mid, N, C, p->norm_workspace));
    sp_lap(model, &time->norm);
    SP_TRY(SP_LAYER(model, linear_backward_weight, gradients + at->gate_up, b->gu, 2 * F, p->h, C, act, N, C, 2 * F));

    SP_TRY(SP_LAYER(model, linear_backward_input, p->d_o, act, HD, p->dy, C, w_out, act, N, HD, C));
    SP_TRY(SP_LAYER(model, linear_backward_weight, gradients + at->out, p->dy, C, b->o, HD, act, N, HD, C));
    SP_TRY(bias_gradient(model, p->dy, at->out_bias, N, C));
    sp_lap(model, &time->matmul);
    SP_TRY(attention_backward(model, l, batch));
    sp_lap(model, &time->attention);
    SP_TRY(SP_LAYER(model, rope_apply, p->dqkv, act, Q, p->positions, model->rope, N, c->n_heads + c->n_kv_heads,
                    c->head_width, true));
    sp_lap(model, &time->rope);
    SP_TRY(head_norms_backward(model, l, N));
    sp_lap(model, &time->norm);
    SP_TRY(bias_gradient(model, p->dqkv, at->qkv_bias, N, Q));
    SP_TRY(SP_LAYER(model, linear_backward_input, p->h, act, C, p->dqkv, Q, w_qkv, act, N, C, Q));
    sp_lap(model, &time->matmul);
    SP_TRY(SP_LAYER(model, rmsnorm_backward, p->dx, l > 0 ? p->dy : NULL, p->h, gradients + at->norm_in, p->h, act,
                    b->x_in, values + at->norm_in, b->rstd_in, N, C, p->norm_workspace));
    sp_lap(model, &time->norm);
    SP_TRY(SP_LAYER(model, linear_backward_weight, gradients + at->qkv, p->dqkv, Q, p->h, C, act, N, C, Q));
    sp_lap(model, &time->matmul);
    return SP_OK;
}

sp_status sp_model_trunk_backward(sp_model *model, const sp_batch *batch) {
    const sp_model_config *c = &model->config;
    const pass_buffers *p = &model->buffers;
    const int64_t N = batch->B * batch->T;
    SP_TRY(sp_device_zero(model->device, p->dx, N * c->width * (int64_t)sizeof *p->dx));
    SP_TRY(SP_LAYER(model, rmsnorm_backward, p->dx, p->dy, NULL, model->gradients + model->table.norm, p->h,
                    model->options.dtype, p->x_out, model->values + model->table.norm, p->rstd_out, N, c->width,
                    p->norm_workspace));
    sp_lap(model, &model->profile.norm);
    for (int64_t l = c->n_layers - 1; l >= 0; l--) {
        /* the last layer's buffers still hold what it computed */
        if (model->options.recompute && l + 1 < c->n_layers)
            SP_TRY(sp_layer_forward(model, l, NULL, batch, NULL, NULL));
        SP_TRY(layer_backward(model, l, batch));
    }
    SP_TRY(SP_LAYER(model, embedding_backward, model->gradients + model->table.embedding, p->dx, batch->tokens, N,
                    c->width, p->embedding_workspace));
    sp_lap(model, &model->profile.embedding);
    return SP_OK;
}

sp_status sp_model_loss_gradient(sp_model *model, const sp_batch *batch, double gradient_scale, double *loss_sum,
                                 int64_t *n_targets) {
    *loss_sum = 0;
    *n_targets = 0;
    SP_REQUIRE(model->gradients, SP_BAD_ARGUMENT, "the model was not made for training: it holds no gradients");
    SP_REQUIRE(!batch->continues, SP_UNSUPPORTED, "no gradient of sequences that continue each other");
    SP_TRY(sp_batch_check(model, batch, true));
    SP_TRY(sp_buffers_fit(model, batch, true));
    SP_TRY(sp_model_trunk(model, batch, NULL, NULL));
    SP_TRY(head_gradient(model, batch, gradient_scale));
    SP_TRY(sp_model_trunk_backward(model, batch));
    SP_TRY(SP_LAYER(model, sum, loss_sum, model->buffers.losses, batch->B * batch->T));
    *n_targets = sp_batch_n_targets(batch);
    sp_laps_end(model);
    return SP_OK;
}
