/* The memory plan of a pass: what it keeps and where, in one block sized by the largest batch seen. */
#include "model/model_private.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/memory.h"

/* Walks the plan twice: first to count (base NULL), then to hand out addresses. */
typedef struct carver {
    char *base;
    int64_t used;
} carver;

static void *carve(carver *c, int64_t bytes) {
    void *at = c->base ? c->base + c->used : NULL;
    c->used += sp_round_up(bytes, SP_ALIGNMENT);
    return at;
}

static layer_buffers carve_layer(carver *c, const sp_model_config *m, int64_t N, int64_t act, float *x_in) {
    layer_buffers b = {.x_in = x_in};
    b.x_mid = carve(c, N * m->width * 4);
    b.rstd_in = carve(c, N * 4);
    b.rstd_mid = carve(c, N * 4);
    b.h_in = carve(c, N * m->width * act);
    b.qkv = carve(c, N * (m->n_heads + 2 * m->n_kv_heads) * m->head_width * act);
    b.o = carve(c, N * m->n_heads * m->head_width * act);
    b.lse = carve(c, N * m->n_heads * 4);
    b.h_mid = carve(c, N * m->width * act);
    b.gu = carve(c, N * 2 * m->ffn_width * act);
    return b;
}

static void carve_all(pass_buffers *p, carver *c, const sp_model *model, int64_t N, bool gradient) {
    const sp_model_config *m = &model->config;
    int64_t act = sp_dtype_bytes(model->options.dtype), x_bytes = N * m->width * 4;
    int64_t head_rows = N < HEAD_ROWS ? N : HEAD_ROWS;
    p->positions = carve(c, N * 4);
    p->s = carve(c, N * m->ffn_width * act);
    p->logits = carve(c, head_rows * m->vocabulary * 4);
    p->h_out = carve(c, N * m->width * act);
    p->rstd_out = carve(c, N * 4);
    float *x_first = carve(c, x_bytes);
    layer_buffers shared = {0};
    if (!gradient) {
        shared = carve_layer(c, m, N, act, x_first);
        shared.x_mid = x_first; /* the stream is updated in place */
    }
    for (int64_t l = 0; l < m->n_layers; l++) {
        float *x_in = l == 0 || !gradient ? x_first : carve(c, x_bytes);
        layer_buffers own = gradient ? carve_layer(c, m, N, act, x_in) : shared;
        if (p->layers && c->base) p->layers[l] = own;
    }
    p->x_out = gradient ? carve(c, x_bytes) : x_first;
    if (!gradient) return;
    p->dx = carve(c, x_bytes);
    p->dy = carve(c, N * m->width * act);
    p->dh = carve(c, N * m->width * act);
    p->dqkv = carve(c, N * (m->n_heads + 2 * m->n_kv_heads) * m->head_width * act);
    p->d_o = carve(c, N * m->n_heads * m->head_width * act);
    p->norm_workspace = carve(c, sp_rmsnorm_workspace(m->width));
}

void sp_buffers_clear(pass_buffers *p) {
    free(p->block);
    free(p->layers);
    free(p->attention_workspace);
    *p = (pass_buffers){0};
}

static sp_status grow(sp_model *model, int64_t N, bool gradient) {
    pass_buffers *p = &model->buffers;
    sp_buffers_clear(p);
    carver count = {0};
    carve_all(p, &count, model, N, gradient);
    p->layers = calloc((size_t)model->config.n_layers, sizeof *p->layers);
    SP_REQUIRE(p->layers, SP_OUT_OF_MEMORY, "no memory for %" PRId64 " layers", model->config.n_layers);
    SP_TRY(sp_allocate(&p->block, count.used, "activations"));
    carver place = {.base = p->block};
    carve_all(p, &place, model, N, gradient);
    p->block_bytes = count.used;
    p->n_tokens_max = N;
    p->gradient = gradient;
    return SP_OK;
}

sp_status sp_model_fit_rope(sp_model *model, int64_t n_positions) {
    if (n_positions <= model->rope_positions) return SP_OK;
    int64_t rounded = sp_round_up(n_positions, 256);
    void *table;
    SP_TRY(sp_allocate(&table, rounded * model->config.head_width * 4, "rotation table"));
    sp_rope_table(table, rounded, model->config.head_width, model->config.rope_theta);
    free(model->rope);
    model->rope = table;
    model->rope_positions = rounded;
    return SP_OK;
}

/* Positions count from 0 in every row, or in every document of a packed batch. */
static void fill_positions(int32_t *positions, const sp_batch *batch) {
    if (!batch->cu) {
        for (int64_t i = 0; i < batch->B * batch->T; i++) positions[i] = (int32_t)(i % batch->T);
        return;
    }
    for (int64_t n = 0; n < batch->n_sequences; n++)
        for (int64_t i = batch->cu[n]; i < batch->cu[n + 1]; i++) positions[i] = (int32_t)(i - batch->cu[n]);
}

sp_status sp_buffers_fit(sp_model *model, const sp_batch *batch, bool gradient) {
    pass_buffers *p = &model->buffers;
    int64_t N = batch->B * batch->T;
    if (N > p->n_tokens_max || (gradient && !p->gradient)) {
        int64_t most = N > p->n_tokens_max ? N : p->n_tokens_max;
        SP_TRY(grow(model, most, gradient || p->gradient));
    }
    fill_positions(p->positions, batch);
    return sp_model_fit_rope(model, batch->T);
}

sp_status sp_model_fit_attention(sp_model *model, const sp_attention *problem, sp_attention_pass pass) {
    pass_buffers *p = &model->buffers;
    int64_t bytes;
    SP_TRY(sp_attention_workspace(problem, pass, 0, &bytes));
    if (bytes <= p->attention_bytes) return SP_OK;
    free(p->attention_workspace);
    p->attention_workspace = NULL;
    p->attention_bytes = 0;
    SP_TRY(sp_allocate(&p->attention_workspace, bytes, "attention workspace"));
    p->attention_bytes = bytes;
    return SP_OK;
}
