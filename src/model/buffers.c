/* The memory plan of a pass: what it keeps and where, in one block of the device's memory sized by the largest batch
 * seen.
 *
 *   not for a gradient   one layer's buffers for all layers, the stream updated in place
 *   for a gradient       a layer_buffers per layer, and the gradients' buffers
 *   recomputing          of a layer only x_in; one layer's buffers for all others
 */
#include "model/model_private.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/memory.h"

/* What decides the sizes. */
typedef struct pass_plan {
    const sp_model_config *config;
    const sp_model_options *options;
    int64_t N;
    bool gradient;
} pass_plan;

/* Walks the plan twice: first to count (base NULL), then to hand out addresses. */
typedef struct carver {
    char *base;
    int64_t used;
} carver;

static void *carve(carver *c, int64_t n, int64_t bytes) { return sp_carve(c->base, &c->used, n, (size_t)bytes); }

static layer_buffers carve_layer(carver *c, const pass_plan *plan, float *x_in) {
    const sp_model_config *m = plan->config;
    int64_t N = plan->N, act = sp_dtype_bytes(plan->options->dtype);
    layer_buffers b = {.x_in = x_in};
    b.x_mid = plan->gradient ? carve(c, N * m->width, 4) : x_in;
    b.rstd_in = carve(c, N, 4);
    b.rstd_mid = carve(c, N, 4);
    b.qkv = carve(c, N * (m->n_heads + 2 * m->n_kv_heads) * m->head_width, act);
    if (plan->gradient && m->qk_norm) b.qk = carve(c, N * (m->n_heads + m->n_kv_heads) * m->head_width, act);
    b.o = carve(c, N * m->n_heads * m->head_width, act);
    b.lse = carve(c, N * m->n_heads, 4);
    b.gu = carve(c, N * 2 * m->ffn_width, act);
    return b;
}

static void carve_layers(pass_buffers *p, carver *c, const pass_plan *plan) {
    int64_t N = plan->N, C = plan->config->width;
    float *x_in = carve(c, N * C, 4);
    layer_buffers b = carve_layer(c, plan, x_in);
    for (int64_t l = 0; l < plan->config->n_layers; l++) {
        if (l > 0 && plan->gradient) x_in = carve(c, N * C, 4);
        if (l > 0 && plan->gradient && !plan->options->recompute) b = carve_layer(c, plan, x_in);
        b.x_in = x_in;
        if (p->layers && c->base) p->layers[l] = b;
    }
    p->x_out = plan->gradient ? carve(c, N * C, 4) : x_in;
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* Numbers of the longest bias of a product; 0: there is none. */
static int64_t widest_bias(const sp_model_config *m) {
    int64_t qkv = m->qkv_bias ? (m->n_heads + 2 * m->n_kv_heads) * m->head_width : 0;
    int64_t out = m->out_bias ? m->width : 0;
    return larger(larger(qkv, out), m->ffn_bias ? larger(2 * m->ffn_width, m->width) : 0);
}

static void carve_all(pass_buffers *p, carver *c, const pass_plan *plan) {
    const sp_model_config *m = plan->config;
    int64_t act = sp_dtype_bytes(plan->options->dtype), N = plan->N, rows = sp_model_head_rows(plan->options);
    p->positions = carve(c, N, 4);
    if (plan->options->device) p->tokens_block = carve(c, 2 * N, 4);
    p->losses = carve(c, N, 8);
    p->s = carve(c, N * m->ffn_width, act);
    p->logits = carve(c, (N < rows ? N : rows) * m->vocabulary, N < rows ? 4 : act);
    p->h = carve(c, N * m->width, act);
    p->rstd_out = carve(c, N, 4);
    carve_layers(p, c, plan);
    if (!plan->gradient) return;
    const sp_layers *layers = sp_layers_on_id(plan->options->device);
    p->dx = carve(c, N * m->width, 4);
    p->dy = carve(c, N * m->width, act);
    p->dqkv = carve(c, N * (m->n_heads + 2 * m->n_kv_heads) * m->head_width, act);
    p->d_o = carve(c, N * m->n_heads * m->head_width, act);
    p->norm_workspace = carve(c, layers->rmsnorm_workspace(larger(m->width, m->head_width)), 1);
    p->bias_workspace = carve(c, layers->bias_workspace(widest_bias(m)), 1);
    p->embedding_workspace = carve(c, layers->embedding_workspace(N), 1);
}

void sp_buffers_clear(sp_model *model) {
    pass_buffers *p = &model->buffers;
    sp_device_release(model->device, p->block);
    sp_device_release(model->device, p->attention_workspace);
    sp_device_release(model->device, p->score_block);
    sp_gathered_clear(model);
    free(p->layers);
    free(p->host_positions);
    *p = (pass_buffers){0};
}

static sp_status grow(sp_model *model, int64_t N, bool gradient) {
    pass_buffers *p = &model->buffers;
    sp_buffers_clear(model);
    pass_plan plan = {&model->config, &model->options, N, gradient};
    carver count = {0};
    carve_all(p, &count, &plan);
    p->layers = calloc((size_t)model->config.n_layers, sizeof *p->layers);
    SP_REQUIRE(p->layers, SP_OUT_OF_MEMORY, "no memory for %" PRId64 " layers", model->config.n_layers);
    SP_TRY(sp_allocate((void **)&p->host_positions, N * (int64_t)sizeof *p->host_positions, "positions"));
    SP_TRY(sp_device_allocate(model->device, &p->block, count.used, "activations"));
    carver place = {.base = p->block};
    carve_all(p, &place, &plan);
    p->block_bytes = count.used;
    p->n_tokens_max = N;
    p->gradient = gradient;
    return SP_OK;
}

static sp_rope rope_of(const sp_model_config *c) {
    sp_rope rope = {.theta = c->rope_theta};
    if (c->rope_scaling != SP_ROPE_SCALING_NONE) rope.factor = c->rope_factor;
    if (c->rope_scaling != SP_ROPE_SCALING_LLAMA3) return rope;
    rope.original_positions = (double)c->rope_original_positions;
    rope.low_turns = c->rope_low_factor;
    rope.high_turns = c->rope_high_factor;
    return rope;
}

sp_status sp_model_fit_rope(sp_model *model, int64_t n_positions) {
    if (n_positions <= model->rope_positions) return SP_OK;
    int64_t rounded = sp_round_up(n_positions, 256), D = model->config.head_width, bytes = rounded * D * 4;
    void *host = NULL, *table = NULL;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_allocate(&host, bytes, "rotation table"));
    sp_rope rope = rope_of(&model->config);
    sp_rope_table(host, rounded, D, &rope);
    SP_TRY_OR_DONE(sp_device_allocate(model->device, &table, bytes, "rotation table"));
    SP_TRY_OR_DONE(sp_device_upload(model->device, table, host, bytes));
    sp_device_release(model->device, model->rope);
    model->rope = table;
    model->rope_positions = rounded;
    table = NULL;
done:
    if (table) sp_device_release(model->device, table);
    free(host);
    return status;
}

/* Positions count from 0 in every row, or in every sequence of a packed batch. */
static void fill_positions(int32_t *positions, const sp_batch *batch) {
    if (!batch->cu) {
        for (int64_t i = 0; i < batch->B * batch->T; i++) positions[i] = (int32_t)(i % batch->T);
        return;
    }
    for (int64_t n = 0; n < batch->n_sequences; n++) {
        int64_t end = batch->cu[n + 1], length = sp_batch_length(batch, n);
        for (int64_t i = batch->cu[n]; i < end; i++) positions[i] = (int32_t)(length - (end - i));
    }
}

/* Tokens and targets where the layers can read them. */
static sp_status place_tokens(sp_model *model, const sp_batch *batch) {
    pass_buffers *p = &model->buffers;
    int64_t N = batch->B * batch->T;
    p->tokens = batch->tokens;
    p->targets = batch->targets;
    if (!model->options.device) return SP_OK;
    p->tokens = p->tokens_block;
    p->targets = p->tokens_block + N;
    SP_TRY(sp_device_upload(model->device, p->tokens_block, batch->tokens, N * 4));
    return batch->targets ? sp_device_upload(model->device, p->tokens_block + N, batch->targets, N * 4) : SP_OK;
}

sp_status sp_buffers_fit(sp_model *model, const sp_batch *batch, bool gradient) {
    pass_buffers *p = &model->buffers;
    int64_t N = batch->B * batch->T;
    if (N > p->n_tokens_max || (gradient && !p->gradient)) {
        int64_t most = N > p->n_tokens_max ? N : p->n_tokens_max;
        SP_TRY(grow(model, most, gradient || p->gradient));
    }
    fill_positions(p->host_positions, batch);
    SP_TRY(sp_device_upload(model->device, p->positions, p->host_positions, N * 4));
    SP_TRY(place_tokens(model, batch));
    if (batch->continues) SP_TRY(sp_gathered_fit(model, batch));
    return sp_model_fit_rope(model, sp_batch_longest(batch));
}

sp_status sp_model_fit_block(sp_model *model, void **block, int64_t *held, int64_t bytes, const char *what) {
    if (bytes <= *held) return SP_OK;
    sp_device_release(model->device, *block);
    *block = NULL;
    *held = 0;
    SP_TRY(sp_device_allocate(model->device, block, bytes, what));
    *held = bytes;
    return SP_OK;
}

sp_status sp_model_fit_attention(sp_model *model, const sp_attention *problem, sp_attention_pass pass) {
    pass_buffers *p = &model->buffers;
    int64_t bytes;
    SP_TRY(sp_attention_workspace(problem, pass, 0, &bytes));
    return sp_model_fit_block(model, &p->attention_workspace, &p->attention_bytes, bytes, "attention workspace");
}

/* ---- the plan before the run ------------------------------------------------------------------------------------- */

/* A layer's attention on a batch of B x T: sizes and options as they will be, addresses that nobody follows. */
static sp_status attention_bytes(const sp_model_config *c, const sp_model_options *options, int64_t B, int64_t T,
                                 sp_attention_pass pass, int64_t *n_bytes) {
    static double somewhere[8] __attribute__((aligned(64)));
    int64_t D = c->head_width, row = (c->n_heads + 2 * c->n_kv_heads) * D;
    sp_tensor q = {.data = somewhere,
                   .dtype = options->dtype,
                   .device = options->device,
                   .n_dims = 4,
                   .shape = {B, T, c->n_heads, D},
                   .stride = {T * row, row, D, 1}};
    sp_tensor k = q;
    k.shape[2] = c->n_kv_heads;
    sp_attention problem;
    sp_attention_init(&problem);
    problem.normalizer = c->attention_function;
    problem.lambda = (float)c->softpick_lambda;
    problem.eps = (float)c->softpick_eps;
    problem.window = c->window;
    problem.sink = problem.lse = (float *)somewhere;
    problem.row_factor = c->row_factor ? (float *)somewhere : NULL;
    problem.q = problem.out = problem.dout = problem.dq = q;
    problem.k = problem.v = problem.dk = problem.dv = k;
    return sp_attention_workspace(&problem, pass, 0, n_bytes);
}

/* What no memory could hold stays at INT64_MAX. */
static int64_t sum_of(int64_t a, int64_t b) {
    int64_t sum;
    return sp_add_sizes(a, b, &sum) ? sum : INT64_MAX;
}

sp_status sp_model_plan_memory(sp_model_memory *out, const sp_model_config *config, const sp_model_options *options,
                               int64_t B, int64_t T) {
    *out = (sp_model_memory){0};
    SP_TRY(sp_model_config_check(config));
    SP_TRY(sp_model_options_check(options));
    int64_t n = sp_model_config_n_parameters(config), N, forward = 0, backward = 0;
    SP_REQUIRE(B >= 1 && T >= 1 && sp_multiply_sizes(B, T, &N) && N <= INT32_MAX, SP_BAD_ARGUMENT,
               "a batch of %" PRId64 " x %" PRId64 " tokens: not within 1 to %d tokens", B, T, INT32_MAX);
    pass_buffers buffers = {0};
    pass_plan plan = {config, options, N, options->training};
    carver count = {0};
    carve_all(&buffers, &count, &plan);
    SP_TRY(attention_bytes(config, options, B, T, SP_ATTENTION_FORWARD, &forward));
    if (options->training) SP_TRY(attention_bytes(config, options, B, T, SP_ATTENTION_BACKWARD, &backward));
    int64_t rope = sp_round_up(T, 256) * config->head_width * 4;
    out->parameters = n * (4 + (options->dtype == SP_DTYPE_BF16 ? 2 : 0));
    out->gradients = options->training ? n * 4 : 0;
    out->optimizer = options->training ? n * 8 : 0;
    out->activations = sum_of(count.used, rope);
    out->workspace = sum_of(forward > backward ? forward : backward, sp_layers_on_id(options->device)->matmul_bytes);
    out->total = sum_of(sum_of(out->parameters, out->gradients), sum_of(out->optimizer, out->activations));
    out->total = sum_of(out->total, out->workspace);
    return SP_OK;
}
