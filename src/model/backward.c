/* The backward pass: forward.c in reverse, line by line.
 *
 * dx (N,C) f32 is the gradient of the residual stream; each branch adds its share to it.  Products take
 * gradients in the model's dtype (dy is dx converted), weights' gradients accumulate in f32. */
#include "model/model_private.h"

#include <string.h>

/* Loss, and its gradient down to the final norm's output (dh), with that of the head's weights. */
static sp_status head_gradient(sp_model *model, const sp_batch *batch, double gradient_scale, double *loss_sum,
                               int64_t *n_targets) {
    const pass_buffers *p = &model->buffers;
    const int64_t C = model->config.width, V = model->config.vocabulary, N = batch->B * batch->T;
    const sp_dtype act = model->options.dtype;
    const void *weight = sp_model_weight(model, model->table.head);
    double mark = sp_clock();
    for (int64_t first = 0; first < N; first += HEAD_ROWS) {
        int64_t n = N - first < HEAD_ROWS ? N - first : HEAD_ROWS, at = first * C * sp_dtype_bytes(act);
        const char *h = (const char *)p->h_out + at;
        SP_TRY(sp_linear_forward(p->logits, act, V, h, C, weight, act, NULL, n, C, V));
        sp_lap(&model->profile.matmul, &mark);
        sp_cross_entropy(loss_sum, n_targets, p->logits, act, batch->targets + first, n, V, true,
                         (float)gradient_scale);
        sp_lap(&model->profile.loss, &mark);
        SP_TRY(sp_linear_backward_input((char *)p->dh + at, act, C, p->logits, V, weight, act, n, C, V));
        SP_TRY(sp_linear_backward_weight(model->gradients + model->table.head, p->logits, V, h, C, act, n, C, V));
        sp_lap(&model->profile.matmul, &mark);
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

static sp_status layer_backward(sp_model *model, int64_t l, const sp_batch *batch) {
    const sp_model_config *c = &model->config;
    const layer_offsets *at = &model->table.layers[l];
    const layer_buffers *b = &model->buffers.layers[l];
    const pass_buffers *p = &model->buffers;
    sp_model_profile *time = &model->profile;
    float *gradients = model->gradients;
    const sp_dtype act = model->options.dtype;
    const int64_t N = batch->B * batch->T, C = c->width, F = c->ffn_width;
    const int64_t HD = c->n_heads * c->head_width, Q = HD + 2 * c->n_kv_heads * c->head_width;
    double mark = sp_clock();

    sp_convert(p->dy, act, p->dx, SP_DTYPE_F32, N * C);
    sp_lap(&time->other, &mark);
    SP_TRY(sp_linear_backward_input(p->s, act, F, p->dy, C, sp_model_weight(model, at->down), act, N, F, C));
    sp_lap(&time->matmul, &mark);
    sp_swiglu_backward(b->gu, p->s, p->s, b->gu, act, N, F);
    sp_lap(&time->swiglu, &mark);
    SP_TRY(sp_linear_backward_weight(gradients + at->down, p->dy, C, p->s, F, act, N, F, C));
    SP_TRY(
        sp_linear_backward_input(p->dh, act, C, b->gu, 2 * F, sp_model_weight(model, at->gate_up), act, N, C, 2 * F));
    SP_TRY(sp_linear_backward_weight(gradients + at->gate_up, b->gu, 2 * F, b->h_mid, C, act, N, C, 2 * F));
    sp_lap(&time->matmul, &mark);
    sp_rmsnorm_backward(p->dx, gradients + at->norm_mid, p->dh, act, b->x_mid, model->values + at->norm_mid,
                        b->rstd_mid, N, C, p->norm_workspace);
    sp_lap(&time->norm, &mark);

    sp_convert(p->dy, act, p->dx, SP_DTYPE_F32, N * C);
    sp_lap(&time->other, &mark);
    SP_TRY(sp_linear_backward_input(p->d_o, act, HD, p->dy, C, sp_model_weight(model, at->out), act, N, HD, C));
    SP_TRY(sp_linear_backward_weight(gradients + at->out, p->dy, C, b->o, HD, act, N, HD, C));
    sp_lap(&time->matmul, &mark);
    SP_TRY(attention_backward(model, l, batch));
    sp_lap(&time->attention, &mark);
    sp_rope_apply(p->dqkv, act, Q, p->positions, model->rope, N, c->n_heads + c->n_kv_heads, c->head_width, true);
    sp_lap(&time->rope, &mark);
    SP_TRY(sp_linear_backward_input(p->dh, act, C, p->dqkv, Q, sp_model_weight(model, at->qkv), act, N, C, Q));
    SP_TRY(sp_linear_backward_weight(gradients + at->qkv, p->dqkv, Q, b->h_in, C, act, N, C, Q));
    sp_lap(&time->matmul, &mark);
    sp_rmsnorm_backward(p->dx, gradients + at->norm_in, p->dh, act, b->x_in, model->values + at->norm_in, b->rstd_in, N,
                        C, p->norm_workspace);
    sp_lap(&time->norm, &mark);
    return SP_OK;
}

sp_status sp_model_trunk_backward(sp_model *model, const sp_batch *batch) {
    const sp_model_config *c = &model->config;
    const pass_buffers *p = &model->buffers;
    const int64_t N = batch->B * batch->T;
    double mark = sp_clock();
    memset(p->dx, 0, (size_t)(N * c->width) * sizeof *p->dx);
    sp_rmsnorm_backward(p->dx, model->gradients + model->table.norm, p->dh, model->options.dtype, p->x_out,
                        model->values + model->table.norm, p->rstd_out, N, c->width, p->norm_workspace);
    sp_lap(&model->profile.norm, &mark);
    for (int64_t l = c->n_layers - 1; l >= 0; l--) SP_TRY(layer_backward(model, l, batch));
    mark = sp_clock();
    sp_embedding_backward(model->gradients + model->table.embedding, p->dx, batch->tokens, N, c->width);
    sp_lap(&model->profile.embedding, &mark);
    return SP_OK;
}

sp_status sp_model_loss_gradient(sp_model *model, const sp_batch *batch, double gradient_scale, double *loss_sum,
                                 int64_t *n_targets) {
    *loss_sum = 0;
    *n_targets = 0;
    SP_REQUIRE(model->gradients, SP_BAD_ARGUMENT, "the model was not made for training: it holds no gradients");
    SP_TRY(sp_batch_check(model, batch, true));
    SP_TRY(sp_buffers_fit(model, batch, true));
    SP_TRY(sp_model_trunk(model, batch, NULL, NULL));
    SP_TRY(head_gradient(model, batch, gradient_scale, loss_sum, n_targets));
    return sp_model_trunk_backward(model, batch);
}
