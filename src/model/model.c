/* A model's life: making, initial weights, the flat arrays, freeing.  model_open.c opens checkpoints. */
#include "model/model_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"
#include "model/model_device.h"

sp_model_options sp_model_options_default(void) {
    return (sp_model_options){.struct_bytes = sizeof(sp_model_options), .dtype = SP_DTYPE_F32};
}

sp_dtype sp_model_fastest_dtype(int32_t device) {
    return device || sp_matmul_bf16_pays() ? SP_DTYPE_BF16 : SP_DTYPE_F32;
}

const char *sp_model_matmul_name(int32_t device, sp_dtype dtype) {
    if (device) return dtype == SP_DTYPE_BF16 ? "cublaslt" : NULL;
    return sp_matmul_variant(dtype);
}

void sp_model_free(sp_model *model) {
    if (!model) return;
    if (model->device) {
        sp_laps_clear(model);
        sp_buffers_clear(model);
        sp_device_release(model->device, model->values);
        sp_device_release(model->device, model->gradients);
        sp_device_release(model->device, model->halves);
        sp_device_release(model->device, model->rope);
        sp_device_close(model->device);
    }
    sp_tensor_table_clear(&model->table);
    free(model);
}

sp_status sp_model_options_check(const sp_model_options *options) {
    SP_REQUIRE(options->dtype == SP_DTYPE_F32 || options->dtype == SP_DTYPE_BF16, SP_BAD_ARGUMENT,
               "dtype is %s: a model computes in f32 or bf16", sp_dtype_name(options->dtype));
    SP_REQUIRE(!options->device || options->dtype == SP_DTYPE_BF16, SP_UNSUPPORTED,
               "dtype is %s: on a GPU a model computes in bf16", sp_dtype_name(options->dtype));
    SP_REQUIRE(sp_model_matmul_name(options->device, options->dtype), SP_UNSUPPORTED,
               "no matrix product in %s in this build", sp_dtype_name(options->dtype));
    return SP_OK;
}

static sp_status allocate_arrays(sp_model *model) {
    int64_t n = model->table.n_parameters;
    SP_TRY(sp_device_allocate(model->device, (void **)&model->values, n * 4, "weights"));
    if (model->options.training)
        SP_TRY(sp_device_allocate(model->device, (void **)&model->gradients, n * 4, "gradients"));
    if (model->options.dtype == SP_DTYPE_BF16)
        SP_TRY(sp_device_allocate(model->device, (void **)&model->halves, n * 2, "bf16 weights"));
    return SP_OK;
}

sp_status sp_model_make(sp_model **out, const sp_model_config *config, const sp_model_options *options) {
    *out = NULL;
    SP_TRY(sp_model_config_check(config));
    SP_TRY(sp_model_options_check(options));
    sp_model *model = calloc(1, sizeof *model);
    SP_REQUIRE(model, SP_OUT_OF_MEMORY, "no memory for a model");
    model->config = *config;
    model->options = *options;
    model->layers = sp_layers_on_id(options->device);
    model->watch.runs = options->device == 0;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_device_open(&model->device, options->device));
    SP_TRY_OR_DONE(sp_tensor_table_build(&model->table, config));
    SP_TRY_OR_DONE(allocate_arrays(model));
    *out = model;
    return SP_OK;
done:
    sp_model_free(model);
    return status;
}

sp_status sp_values_begin(float **host, sp_model *model) {
    *host = model->values;
    if (!model->options.device) return SP_OK;
    return sp_allocate((void **)host, model->table.n_parameters * (int64_t)sizeof **host, "weights");
}

sp_status sp_values_end(float *host, sp_model *model) {
    sp_status status = SP_OK;
    if (model->options.device) {
        int64_t bytes = model->table.n_parameters * (int64_t)sizeof *host;
        status = sp_device_upload(model->device, model->values, host, bytes);
        free(host);
    }
    return status == SP_OK ? sp_model_refresh(model) : status;
}

/* A function of seed and of the tensor's place in the table alone: twins that differ in attention begin
 * alike. */
static void initialize(float *values, const tensor_entry *entry, int64_t place, const sp_model *model) {
    double deviation = model->config.initializer_range;
    uint64_t seed = model->options.seed;
    switch (entry->role) {
    case ROLE_MATRIX:
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < entry->count; i++)
            values[i] = (float)(deviation * sp_random_normal(seed, (uint64_t)place, (uint64_t)i));
        return;
    case ROLE_NORM:
        for (int64_t i = 0; i < entry->count; i++) values[i] = 1;
        return;
    case ROLE_ROW_FACTOR: /* the published code's initial value */
        for (int64_t i = 0; i < entry->count; i++) values[i] = 0.3f;
        return;
    case ROLE_BIAS:
    case ROLE_SINK: return; /* zero */
    }
}

sp_status sp_model_new(sp_model **out, const sp_model_config *config, const sp_model_options *options) {
    sp_model *model;
    float *values;
    *out = NULL;
    SP_TRY(sp_model_make(&model, config, options));
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_values_begin(&values, model));
    for (int64_t i = 0; i < model->table.n_tensors; i++)
        initialize(values + model->table.entries[i].offset, &model->table.entries[i], i, model);
    SP_TRY_OR_DONE(sp_values_end(values, model));
    *out = model;
    model = NULL;
done:
    sp_model_free(model);
    return status;
}

const sp_model_config *sp_model_config_of(const sp_model *model) { return &model->config; }
sp_dtype sp_model_dtype(const sp_model *model) { return model->options.dtype; }
int32_t sp_model_device(const sp_model *model) { return model->options.device; }
sp_device *sp_model_device_of(sp_model *model) { return model->device; }
uint16_t *sp_model_halves(sp_model *model) { return model->halves; }
int64_t sp_model_n_parameters(const sp_model *model) { return model->table.n_parameters; }
float *sp_model_parameters(sp_model *model) { return model->values; }
float *sp_model_gradients(sp_model *model) { return model->gradients; }
int64_t sp_model_n_tensors(const sp_model *model) { return model->table.n_tensors; }

const char *sp_model_tensor_name(const sp_model *model, int64_t i) { return model->table.entries[i].name; }

sp_tensor sp_model_tensor(sp_model *model, int64_t i) {
    const tensor_entry *entry = &model->table.entries[i];
    sp_tensor view = sp_tensor_view(model->values + entry->offset, SP_DTYPE_F32, entry->n_dims, entry->shape);
    view.device = model->options.device;
    return view;
}

sp_status sp_model_refresh(sp_model *model) {
    if (!model->halves) return SP_OK;
    return SP_LAYER(model, convert, model->halves, SP_DTYPE_BF16, model->values, SP_DTYPE_F32,
                    model->table.n_parameters);
}

sp_status sp_model_zero_gradients(sp_model *model) {
    if (!model->gradients) return SP_OK;
    return sp_device_zero(model->device, model->gradients, model->table.n_parameters * (int64_t)sizeof(float));
}

sp_status sp_model_wait(sp_model *model) { return sp_device_wait(model->device); }

int64_t sp_model_memory_bytes(const sp_model *model) {
    int64_t per_parameter = 4 + (model->gradients ? 4 : 0) + (model->halves ? 2 : 0);
    int64_t rope = model->rope_positions * model->config.head_width * 4;
    return model->table.n_parameters * per_parameter + rope + model->buffers.block_bytes +
           model->buffers.attention_bytes + model->buffers.score_bytes + model->buffers.gathered.block_bytes;
}

int64_t sp_batch_n_targets(const sp_batch *batch) {
    int64_t n = 0;
    for (int64_t i = 0; i < batch->B * batch->T; i++) n += batch->targets[i] >= 0;
    return n;
}

int64_t sp_batch_longest(const sp_batch *batch) {
    int64_t longest = 0;
    if (!batch->cu) return batch->T;
    for (int64_t n = 0; n < batch->n_sequences; n++)
        if (sp_batch_length(batch, n) > longest) longest = sp_batch_length(batch, n);
    return longest;
}

/* A sequence goes on after tokens that an earlier one has. */
static sp_status check_continued(const sp_batch *batch, int64_t n) {
    const int64_t before = batch->continues[n];
    SP_REQUIRE(before >= -1 && before < n, SP_BAD_ARGUMENT,
               "packed sequence %" PRId64 " continues sequence %" PRId64 ", which is not before it", n, before);
    SP_REQUIRE(before < 0 || (batch->shared[n] >= 0 && batch->shared[n] <= sp_batch_length(batch, before)),
               SP_BAD_ARGUMENT, "packed sequence %" PRId64 " goes on after %" PRId64 " tokens of one that has %" PRId64,
               n, batch->shared[n], sp_batch_length(batch, before));
    return SP_OK;
}

/* Packed sequences lie one after another, each within one row of the batch. */
static sp_status check_packed(const sp_batch *batch) {
    SP_REQUIRE(batch->cu || !batch->continues, SP_BAD_ARGUMENT, "sequences that are not packed continue each other");
    if (!batch->cu) return SP_OK;
    const int64_t *cu = batch->cu, N = batch->B * batch->T;
    SP_REQUIRE(batch->n_sequences >= 1 && cu[0] == 0 && cu[batch->n_sequences] == N, SP_BAD_ARGUMENT,
               "the packed sequences do not cover the batch's %" PRId64 " tokens", N);
    for (int64_t n = 0; n < batch->n_sequences; n++) {
        SP_REQUIRE(cu[n + 1] >= cu[n], SP_BAD_ARGUMENT, "packed sequence %" PRId64 " has a negative length", n);
        SP_REQUIRE(cu[n + 1] == cu[n] || cu[n] / batch->T == (cu[n + 1] - 1) / batch->T, SP_BAD_ARGUMENT,
                   "packed sequence %" PRId64 " crosses from row to row of the batch", n);
        if (batch->continues) SP_TRY(check_continued(batch, n));
    }
    return SP_OK;
}

sp_status sp_batch_check(const sp_model *model, const sp_batch *batch, bool targets) {
    const sp_model_config *c = &model->config;
    SP_REQUIRE(batch->B >= 1 && batch->T >= 1, SP_BAD_ARGUMENT, "a batch of %" PRId64 " x %" PRId64 " tokens is empty",
               batch->B, batch->T);
    SP_TRY(check_packed(batch));
    SP_REQUIRE(sp_batch_longest(batch) <= c->max_positions, SP_BAD_ARGUMENT,
               "sequences of %" PRId64 " tokens: the model has %" PRId64 " positions", sp_batch_longest(batch),
               c->max_positions);
    for (int64_t i = 0; i < batch->B * batch->T; i++) {
        SP_REQUIRE(batch->tokens[i] >= 0 && batch->tokens[i] < c->vocabulary, SP_BAD_ARGUMENT,
                   "token %d is not in the vocabulary of %" PRId64, (int)batch->tokens[i], c->vocabulary);
        SP_REQUIRE(!targets || batch->targets[i] < c->vocabulary, SP_BAD_ARGUMENT,
                   "target %d is not in the vocabulary of %" PRId64, (int)batch->targets[i], c->vocabulary);
    }
    return SP_OK;
}
