/* Decoding with a cache, and plain sampling. */
#include "model/model_private.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"

enum { PROMPT_TOKENS = 256 }; /* of a long prompt, at a time: bounds the activations */

sp_status sp_cache_new(sp_cache **out, const sp_model *model, int64_t capacity) {
    *out = NULL;
    const sp_model_config *c = &model->config;
    SP_REQUIRE(capacity >= 1, SP_BAD_ARGUMENT, "a cache for %" PRId64 " tokens", capacity);
    sp_cache *cache = calloc(1, sizeof *cache);
    SP_REQUIRE(cache, SP_OUT_OF_MEMORY, "no memory for a cache");
    cache->device = model->device;
    cache->capacity = capacity;
    cache->n_layers = c->n_layers;
    cache->row_bytes = c->n_kv_heads * c->head_width * sp_dtype_bytes(model->options.dtype);
    int64_t bytes;
    sp_status status = SP_OK;
    SP_REQUIRE_OR_DONE(sp_multiply_sizes(c->n_layers * cache->row_bytes, capacity, &bytes), SP_OUT_OF_MEMORY,
                       "a cache for %" PRId64 " tokens is too large", capacity);
    SP_TRY_OR_DONE(sp_device_allocate(cache->device, (void **)&cache->k, bytes, "cache of keys"));
    SP_TRY_OR_DONE(sp_device_allocate(cache->device, (void **)&cache->v, bytes, "cache of values"));
    *out = cache;
    return SP_OK;
done:
    sp_cache_free(cache);
    return status;
}

void sp_cache_free(sp_cache *cache) {
    if (!cache) return;
    sp_device_release(cache->device, cache->k);
    sp_device_release(cache->device, cache->v);
    free(cache);
}

int64_t sp_cache_length(const sp_cache *cache) { return cache->length; }

void sp_cache_truncate(sp_cache *cache, int64_t length) {
    if (length >= 0 && length < cache->length) cache->length = length;
}

/* One piece of the prompt, or the next token: the cache grows by n. */
static sp_status extend(sp_model *model, sp_cache *cache, const int32_t *tokens, int64_t n) {
    sp_batch batch = {.B = 1, .T = n, .tokens = tokens};
    SP_TRY(sp_batch_check(model, &batch, false));
    SP_TRY(sp_buffers_fit(model, &batch, false));
    SP_TRY(sp_model_fit_rope(model, cache->length + n));
    pass_buffers *p = &model->buffers;
    for (int64_t i = 0; i < n; i++) p->host_positions[i] = (int32_t)(cache->length + i);
    SP_TRY(sp_device_upload(model->device, p->positions, p->host_positions, n * (int64_t)sizeof(int32_t)));
    SP_TRY(sp_model_trunk(model, &batch, cache, NULL));
    cache->length += n;
    return SP_OK;
}

sp_status sp_model_decode(sp_model *model, sp_cache *cache, const int32_t *tokens, int64_t n, float *logits) {
    const sp_model_config *c = &model->config;
    SP_REQUIRE(n >= 1, SP_BAD_ARGUMENT, "%" PRId64 " tokens to decode: at least one is needed", n);
    SP_REQUIRE(cache->length + n <= cache->capacity, SP_BAD_ARGUMENT,
               "%" PRId64 " tokens after %" PRId64 ": the cache holds %" PRId64, n, cache->length, cache->capacity);
    int64_t last = 0;
    for (int64_t first = 0; first < n; first += PROMPT_TOKENS) {
        int64_t count = n - first < PROMPT_TOKENS ? n - first : PROMPT_TOKENS;
        SP_TRY(extend(model, cache, tokens + first, count));
        last = count - 1;
    }
    const pass_buffers *p = &model->buffers;
    int64_t C = c->width, V = c->vocabulary;
    sp_dtype act = model->options.dtype;
    const char *h = (const char *)p->h + last * C * sp_dtype_bytes(act);
    const void *weight = sp_model_weight(model, model->table.head);
    SP_TRY(SP_LAYER(model, linear_forward, p->logits, SP_DTYPE_F32, V, h, C, weight, act, NULL, 1, C, V));
    SP_TRY(sp_device_download(model->device, logits, p->logits, V * (int64_t)sizeof *logits));
    sp_laps_end(model);
    return SP_OK;
}

sp_sampling sp_sampling_default(void) {
    return (sp_sampling){.struct_bytes = sizeof(sp_sampling), .temperature = 0.8, .top_p = 0.95};
}

typedef struct candidate {
    float logit;
    int32_t token;
} candidate;

/* Highest logit first; equal ones by token, so that the order does not depend on qsort. */
static int by_logit(const void *left, const void *right) {
    const candidate *a = left, *b = right;
    if (a->logit > b->logit) return -1;
    if (a->logit < b->logit) return 1;
    return (a->token > b->token) - (a->token < b->token);
}

static sp_status check_sampling(const sp_sampling *s) {
    SP_REQUIRE(s->temperature >= 0 && isfinite(s->temperature), SP_BAD_ARGUMENT, "temperature is %g: not at least 0",
               s->temperature);
    SP_REQUIRE(s->top_k >= 0, SP_BAD_ARGUMENT, "top_k is %" PRId64 ": negative", s->top_k);
    SP_REQUIRE(s->top_p > 0 && s->top_p <= 1, SP_BAD_ARGUMENT, "top_p is %g: not within (0,1]", s->top_p);
    return SP_OK;
}

sp_status sp_sample(const float *logits, int64_t V, const sp_sampling *sampling, int64_t index, int32_t *token) {
    SP_TRY(check_sampling(sampling));
    candidate *candidates = malloc((size_t)V * sizeof *candidates);
    SP_REQUIRE(candidates, SP_OUT_OF_MEMORY, "no memory for %" PRId64 " candidates", V);
    for (int64_t i = 0; i < V; i++) candidates[i] = (candidate){isnan(logits[i]) ? -INFINITY : logits[i], (int32_t)i};
    qsort(candidates, (size_t)V, sizeof *candidates, by_logit);
    *token = candidates[0].token;
    if (sampling->temperature > 0) {
        int64_t n = sampling->top_k > 0 && sampling->top_k < V ? sampling->top_k : V;
        double sum = 0, kept = 0, best = candidates[0].logit;
        for (int64_t i = 0; i < n; i++) sum += exp((candidates[i].logit - best) / sampling->temperature);
        int64_t end = 0;
        while (end < n && kept < sampling->top_p * sum)
            kept += exp((candidates[end++].logit - best) / sampling->temperature);
        double at = sp_random_uniform(sampling->seed, 0, (uint64_t)index) * kept;
        for (int64_t i = 0; i < end && at >= 0; i++) {
            at -= exp((candidates[i].logit - best) / sampling->temperature);
            *token = candidates[i].token;
        }
    }
    free(candidates);
    return SP_OK;
}

sp_status sp_generate(sp_model *model, const int32_t *prompt, int64_t n_prompt, int64_t n_max,
                      const sp_sampling *sampling, sp_token_function function, void *user) {
    SP_TRY(check_sampling(sampling));
    const sp_model_config *c = &model->config;
    SP_REQUIRE(n_prompt >= 1 && n_max >= 0, SP_BAD_ARGUMENT, "a prompt of %" PRId64 " tokens", n_prompt);
    SP_REQUIRE(n_prompt <= c->max_positions, SP_BAD_ARGUMENT,
               "the prompt has %" PRId64 " tokens: the model has %" PRId64 " positions", n_prompt, c->max_positions);
    int64_t capacity = n_prompt + n_max < c->max_positions ? n_prompt + n_max : c->max_positions;
    sp_cache *cache = NULL;
    float *logits = NULL;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_cache_new(&cache, model, capacity));
    SP_TRY_OR_DONE(sp_allocate((void **)&logits, c->vocabulary * 4, "logits"));
    SP_TRY_OR_DONE(sp_model_decode(model, cache, prompt, n_prompt, logits));
    for (int64_t i = 0; i < n_max; i++) {
        int32_t token;
        SP_TRY_OR_DONE(sp_sample(logits, c->vocabulary, sampling, i, &token));
        if (sp_model_config_is_eos(c, token) || function(user, token) || cache->length >= capacity) break;
        if (i + 1 < n_max) SP_TRY_OR_DONE(sp_model_decode(model, cache, &token, 1, logits));
    }
done:
    sp_cache_free(cache);
    free(logits);
    return status;
}
