/* Batches whose sequences continue each other: tokens that several begin with pass through the model once.
 *
 * Rows of the batch are the tokens that are new.  Attention wants the keys of a sequence in one piece, so that after the
 * rotation keys and values are gathered, layer by layer: for each sequence those of the tokens that it goes on after, then
 * its own.  Queries stand at the end of their sequence, where attention puts them when there are more keys. */
#include "model/model_private.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

void sp_gathered_clear(sp_model *model) {
    sp_gathered_keys *g = &model->buffers.gathered;
    sp_device_release(model->device, g->block);
    free(g->cu_k);
    free(g->host_rows);
    *g = (sp_gathered_keys){0};
}

/* Makes *array, which holds *held numbers, hold n; what was in it is lost. */
static sp_status fit_host(void **array, int64_t *held, int64_t n, int64_t bytes) {
    if (n <= *held) return SP_OK;
    free(*array);
    *array = NULL;
    *held = 0;
    SP_TRY(sp_allocate(array, n * bytes, "keys of sequences that continue each other"));
    *held = n;
    return SP_OK;
}

/* What a sequence goes on after has its rows already, since it comes before it. */
static void fill_rows(sp_gathered_keys *g, const sp_batch *batch) {
    for (int64_t n = 0; n < batch->n_sequences; n++) {
        int64_t own = batch->cu[n + 1] - batch->cu[n], shared = sp_batch_length(batch, n) - own;
        int32_t *rows = g->host_rows + g->cu_k[n];
        if (shared > 0) memcpy(rows, g->host_rows + g->cu_k[batch->continues[n]], (size_t)shared * sizeof *rows);
        for (int64_t i = 0; i < own; i++) rows[shared + i] = (int32_t)(batch->cu[n] + i);
    }
}

static void carve_gathered(sp_gathered_keys *g, void *base, int64_t *used, const sp_model *model) {
    const sp_model_config *c = &model->config;
    g->rows = sp_carve(base, used, g->n_keys, sizeof *g->rows);
    g->kv = sp_carve(base, used, g->n_keys * 2 * c->n_kv_heads * c->head_width,
                     (size_t)sp_dtype_bytes(model->options.dtype));
}

sp_status sp_gathered_fit(sp_model *model, const sp_batch *batch) {
    sp_gathered_keys *g = &model->buffers.gathered;
    int64_t bytes = 0, used = 0;
    SP_TRY(fit_host((void **)&g->cu_k, &g->n_host_sequences, batch->n_sequences + 1, sizeof *g->cu_k));
    g->cu_k[0] = 0;
    for (int64_t n = 0; n < batch->n_sequences; n++) g->cu_k[n + 1] = g->cu_k[n] + sp_batch_length(batch, n);
    g->n_keys = g->cu_k[batch->n_sequences];
    SP_REQUIRE(g->n_keys <= INT32_MAX, SP_BAD_ARGUMENT, "the sequences of one batch have more than %d keys", INT32_MAX);
    SP_TRY(fit_host((void **)&g->host_rows, &g->n_host_rows, g->n_keys, sizeof *g->host_rows));
    fill_rows(g, batch);
    carve_gathered(g, NULL, &bytes, model);
    SP_TRY(sp_model_fit_block(model, &g->block, &g->block_bytes, bytes, "keys of sequences that continue each other"));
    carve_gathered(g, g->block, &used, model);
    return sp_device_upload(model->device, g->rows, g->host_rows, g->n_keys * (int64_t)sizeof *g->rows);
}

sp_status sp_gathered_copy(sp_model *model, int64_t layer) {
    const sp_model_config *c = &model->config;
    const sp_gathered_keys *g = &model->buffers.gathered;
    const int64_t head = c->head_width * sp_dtype_bytes(model->options.dtype), kv = 2 * c->n_kv_heads * head;
    const char *k = (const char *)model->buffers.layers[layer].qkv + c->n_heads * head;
    return SP_LAYER(model, gather_rows, g->kv, k, c->n_heads * head + kv, g->rows, kv, g->n_keys);
}
