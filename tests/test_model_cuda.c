/* The model on a GPU: the same loss and gradient as on the CPU within bf16's rounding, for every normalizer and mask; the
 * same bits every time and with recomputation; decoding with a cache as without; the plan is what is taken. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/model_device.h"
#include "softpick/device.h"
#include "random_batch.h"
#include "softpick/train.h"

enum { B = 2, T = 96, V = 301, CPU = 0, GPU = 1 };

static int32_t tokens[B * T], targets[B * T];
static const int64_t documents[] = {0, 5, 96, 96, 130, 192};

#define assert_ok(call)                                                                                                \
    do {                                                                                                               \
        if ((call) != SP_OK) fail_msg("%s: %s", #call, sp_last_message());                                             \
    } while (0)

static sp_batch some_batch(bool packed) {
    return random_batch(tokens, targets, B, T, V, packed ? documents : NULL, packed ? 5 : 0);
}

static sp_model_config small_config(void) {
    sp_model_config c = sp_model_config_default();
    c.vocabulary = V;
    c.width = 128;
    c.n_layers = 3;
    c.n_heads = 4;
    c.n_kv_heads = 2;
    c.head_width = 32;
    c.ffn_width = 344;
    c.max_positions = 256;
    c.initializer_range = 0.08; /* scores far from 0 */
    return c;
}

static sp_model *make(const sp_model_config *config, int32_t device, sp_dtype dtype, bool recompute) {
    sp_model_options options = sp_model_options_default();
    options.dtype = dtype;
    options.device = device;
    options.training = true;
    options.recompute = recompute;
    options.seed = 5;
    sp_model *model;
    assert_ok(sp_model_new(&model, config, &options));
    return model;
}

/* Loss per target, and the gradient in host memory; the caller frees it. */
static float *gradient_of(sp_model *model, const sp_batch *batch, double *loss) {
    int64_t n = sp_model_n_parameters(model), n_targets;
    const void *read;
    double sum, alone;
    assert_ok(sp_model_loss(model, batch, &alone, &n_targets));
    assert_ok(sp_model_zero_gradients(model));
    assert_ok(sp_model_loss_gradient(model, batch, 1.0 / (double)n_targets, &sum, &n_targets));
    assert_true(fabs(sum - alone) <= 5e-3 * alone);
    *loss = sum / (double)n_targets;
    assert_ok(sp_device_read_begin(sp_model_device_of(model), &read, sp_model_gradients(model), n * 4));
    float *gradient = malloc((size_t)n * sizeof *gradient);
    memcpy(gradient, read, (size_t)n * sizeof *gradient);
    sp_device_read_end(sp_model_device_of(model), read);
    return gradient;
}

/* || gradient - truth || / || truth || over the n numbers of a tensor that begin at `first`. */
static double gradient_error(const float *gradient, const float *truth, int64_t first, int64_t n) {
    double error = 0, size = 0;
    for (int64_t j = first; j < first + n; j++) {
        error += ((double)gradient[j] - truth[j]) * ((double)gradient[j] - truth[j]);
        size += (double)truth[j] * truth[j];
    }
    return sqrt(error / size);
}

/* Numbers that begin at 0 or 1 would hide where they are used: a function of place alone is added to all. */
static void move_values(sp_model *model) {
    int64_t n = sp_model_n_parameters(model), bytes = n * 4;
    const void *read;
    float *moved = malloc((size_t)bytes);
    assert_ok(sp_device_read_begin(sp_model_device_of(model), &read, sp_model_parameters(model), bytes));
    memcpy(moved, read, (size_t)bytes);
    sp_device_read_end(sp_model_device_of(model), read);
    for (int64_t i = 0; i < n; i++) moved[i] += 0.03f * (float)sin((double)(i % 1009));
    assert_ok(sp_device_upload(sp_model_device_of(model), sp_model_parameters(model), moved, bytes));
    assert_ok(sp_model_refresh(model));
    free(moved);
}

/* The error against f32 is at most twice what bf16 costs on the CPU. */
static void check_against_cpu(const sp_model_config *config, bool packed) {
    static const struct {
        int32_t device;
        sp_dtype dtype;
    } kinds[3] = {{CPU, SP_DTYPE_F32}, {CPU, SP_DTYPE_BF16}, {GPU, SP_DTYPE_BF16}};
    sp_batch batch = some_batch(packed);
    sp_model *models[3];
    float *gradients[3];
    double loss[3];
    for (int i = 0; i < 3; i++) {
        models[i] = make(config, kinds[i].device, kinds[i].dtype, false);
        if (config->qkv_bias) move_values(models[i]);
        gradients[i] = gradient_of(models[i], &batch, &loss[i]);
    }
    if (fabs(loss[2] - loss[0]) > 4e-3 * loss[0]) fail_msg("loss %.6f, on the CPU in f32 %.6f", loss[2], loss[0]);
    for (int64_t i = 0; i < sp_model_n_tensors(models[0]); i++) {
        sp_tensor tensor = sp_model_tensor(models[0], i);
        int64_t first = (const float *)tensor.data - sp_model_parameters(models[0]), n = sp_tensor_count(&tensor);
        double bf16 = gradient_error(gradients[1], gradients[0], first, n);
        double gpu = gradient_error(gradients[2], gradients[0], first, n);
        if (!(gpu <= 2 * bf16 + 2e-3))
            fail_msg("%s: error %.3g of the gradient, on the CPU in bf16 %.3g", sp_model_tensor_name(models[0], i), gpu,
                     bf16);
    }
    for (int i = 0; i < 3; i++) {
        free(gradients[i]);
        sp_model_free(models[i]);
    }
}

static void every_normalizer_gives_the_cpus_gradient(void **state) {
    (void)state;
    if (sp_cuda_device_count() == 0) skip();
    for (int normalizer = 0; normalizer < SP_NORMALIZER_COUNT; normalizer++) {
        sp_model_config config = small_config();
        config.attention_function = (sp_normalizer)normalizer;
        check_against_cpu(&config, false);
    }
}

/* As in a new model: denominators are small, and what is rounded is divided by them. */
static void small_scores_give_the_cpus_gradient(void **state) {
    (void)state;
    if (sp_cuda_device_count() == 0) skip();
    sp_model_config config = small_config();
    config.initializer_range = 0.02;
    check_against_cpu(&config, false);
}

static void masks_factors_and_ties_give_the_cpus_gradient(void **state) {
    (void)state;
    if (sp_cuda_device_count() == 0) skip();
    for (int i = 0; i < 4; i++) {
        sp_model_config config = small_config();
        config.window = i == 1 ? 20 : 0;
        config.tie_embeddings = i == 2;
        config.row_factor = i == 3;
        check_against_cpu(&config, i == 0);
    }
}

/* What other makers' models have. */
static sp_model_config foreign_config(void) {
    sp_model_config config = small_config();
    config.qkv_bias = config.out_bias = config.ffn_bias = true;
    config.qk_norm = true;
    config.rope_scaling = SP_ROPE_SCALING_LLAMA3;
    config.rope_factor = 8;
    config.rope_low_factor = 1;
    config.rope_high_factor = 4;
    config.rope_original_positions = 64;
    return config;
}

static void biases_and_norms_of_heads_give_the_cpus_gradient(void **state) {
    (void)state;
    if (sp_cuda_device_count() == 0) skip();
    sp_model_config config = foreign_config();
    check_against_cpu(&config, true);
    config.attention_function = SP_NORMALIZER_SOFTMAX;
    check_against_cpu(&config, false);
}

static void the_same_bits_every_time_and_with_recomputation(void **state) {
    (void)state;
    if (sp_cuda_device_count() == 0) skip();
    sp_model_config config = foreign_config();
    sp_batch batch = some_batch(false);
    float *first = NULL;
    double first_loss = 0, loss;
    for (int run = 0; run < 4; run++) {
        sp_model *model = make(&config, GPU, SP_DTYPE_BF16, run >= 2);
        float *gradient = gradient_of(model, &batch, &loss);
        if (!first) first = gradient, first_loss = loss;
        assert_true(loss == first_loss);
        assert_memory_equal(gradient, first, (size_t)sp_model_n_parameters(model) * sizeof *first);
        if (gradient != first) free(gradient);
        sp_model_free(model);
    }
    free(first);
}

/* Largest relative difference of the losses of 20 steps on one batch. */
static double steps_apart(sp_normalizer normalizer) {
    enum { STEPS = 20 };
    sp_model_config config = small_config();
    config.initializer_range = 0.02;
    config.attention_function = normalizer;
    sp_batch batch = some_batch(false);
    sp_train_options options = sp_train_options_default();
    double losses[2][STEPS], norm, worst = 0;
    for (int32_t device = CPU; device <= GPU; device++) {
        sp_model *model = make(&config, device, device ? SP_DTYPE_BF16 : SP_DTYPE_F32, false);
        sp_optimizer *optimizer;
        assert_ok(sp_optimizer_new(&optimizer, model, &options));
        for (int step = 0; step < STEPS; step++) {
            int64_t n_targets = 0;
            bool updated;
            assert_ok(sp_model_zero_gradients(model));
            assert_ok(sp_model_loss_gradient(model, &batch, 1.0 / 165, &losses[device][step], &n_targets));
            assert_ok(sp_optimizer_step(optimizer, 1e-3, &norm, &updated));
            assert_true(updated);
        }
        sp_optimizer_free(optimizer);
        sp_model_free(model);
    }
    assert_true(losses[CPU][STEPS - 1] < 0.95 * losses[CPU][0]);
    for (int step = 0; step < STEPS; step++)
        worst = fmax(worst, fabs(losses[GPU][step] - losses[CPU][step]) / losses[CPU][step]);
    return worst;
}

/* Softpick's steps part sooner than softmax's, on one device as well: a score that crosses 0 moves much when few do. */
static void steps_stay_close_to_the_cpus(void **state) {
    (void)state;
    if (sp_cuda_device_count() == 0) skip();
    double softmax = steps_apart(SP_NORMALIZER_SOFTMAX), softpick = steps_apart(SP_NORMALIZER_SOFTPICK);
    print_message("20 steps apart from the CPU's in f32: softmax %.2g, softpick %.2g\n", softmax, softpick);
    assert_true(softmax < 5e-3 && softpick < 2e-2);
}

static void what_is_not_finite_changes_nothing(void **state) {
    (void)state;
    if (sp_cuda_device_count() == 0) skip();
    sp_model_config config = small_config();
    sp_train_options options = sp_train_options_default();
    sp_model *model = make(&config, GPU, SP_DTYPE_BF16, false);
    sp_device *device = sp_model_device_of(model);
    int64_t n = sp_model_n_parameters(model);
    sp_optimizer *optimizer;
    const void *before, *after;
    float nan = NAN;
    double norm;
    bool updated;
    assert_ok(sp_optimizer_new(&optimizer, model, &options));
    assert_ok(sp_device_read_begin(device, &before, sp_model_parameters(model), n * 4));
    assert_ok(sp_model_zero_gradients(model));
    assert_ok(sp_device_upload(device, sp_model_gradients(model) + n - 1, &nan, 4));
    assert_ok(sp_optimizer_step(optimizer, 1e-3, &norm, &updated));
    assert_true(isnan(norm) && !updated);
    assert_ok(sp_device_read_begin(device, &after, sp_model_parameters(model), n * 4));
    assert_memory_equal(after, before, (size_t)n * 4);
    sp_device_read_end(device, before), sp_device_read_end(device, after);
    sp_optimizer_free(optimizer);
    sp_model_free(model);
}

/* Logits after a prompt and some single tokens. */
static void decode_logits(const sp_model_config *config, int32_t device, sp_dtype dtype, float *logits) {
    sp_model *model = make(config, device, dtype, false);
    move_values(model);
    sp_cache *cache;
    some_batch(false);
    assert_ok(sp_cache_new(&cache, model, 128));
    assert_ok(sp_model_decode(model, cache, tokens, 70, logits));
    for (int i = 70; i < 75; i++) assert_ok(sp_model_decode(model, cache, tokens + i, 1, logits));
    assert_int_equal(sp_cache_length(cache), 75);
    sp_cache_free(cache);
    sp_model_free(model);
}

static void check_decoding(const sp_model_config *config) {
    float truth[V], logits[V];
    double error = 0, size = 0;
    decode_logits(config, CPU, SP_DTYPE_F32, truth);
    decode_logits(config, GPU, SP_DTYPE_BF16, logits);
    for (int i = 0; i < V; i++) {
        error += (double)(logits[i] - truth[i]) * (double)(logits[i] - truth[i]);
        size += (double)truth[i] * (double)truth[i];
    }
    if (!(sqrt(error / size) < 3e-2)) fail_msg("logits differ by %.3g", sqrt(error / size));
}

static void decoding_gives_the_cpus_logits(void **state) {
    (void)state;
    if (sp_cuda_device_count() == 0) skip();
    sp_model_config ours = small_config(), foreign = foreign_config();
    check_decoding(&ours);
    foreign.attention_function = SP_NORMALIZER_SOFTMAX;
    check_decoding(&foreign);
}

typedef struct seen {
    int64_t n_hidden, n_attention;
    double norms[16];
} seen;

static sp_status see_hidden(void *user, int64_t layer, const float *x, int64_t n_tokens, int64_t C) {
    seen *s = user;
    double sum = 0;
    for (int64_t i = 0; i < n_tokens * C; i++) sum += (double)x[i] * (double)x[i];
    s->norms[layer] = sqrt(sum);
    s->n_hidden++;
    return SP_OK;
}

static sp_status see_attention(void *user, int64_t layer, const sp_attention *problem) {
    seen *s = user;
    (void)layer;
    assert_true(problem->q.device == GPU || problem->q.device == CPU);
    s->n_attention++;
    return SP_OK;
}

static void observers_see_the_cpus_stream(void **state) {
    (void)state;
    if (sp_cuda_device_count() == 0) skip();
    sp_model_config config = small_config();
    sp_batch batch = some_batch(false);
    seen seen_on[2] = {{0}, {0}};
    for (int32_t device = CPU; device <= GPU; device++) {
        sp_model *model = make(&config, device, device ? SP_DTYPE_BF16 : SP_DTYPE_F32, false);
        sp_observer observer = {&seen_on[device], see_hidden, see_attention};
        assert_ok(sp_model_observe(model, &batch, &observer));
        sp_model_free(model);
    }
    assert_int_equal(seen_on[GPU].n_hidden, config.n_layers + 2);
    assert_int_equal(seen_on[GPU].n_attention, config.n_layers);
    for (int64_t l = 0; l < config.n_layers + 2; l++)
        assert_true(fabs(seen_on[GPU].norms[l] - seen_on[CPU].norms[l]) < 1e-2 * seen_on[CPU].norms[l]);
}

static void the_profile_claims_most_of_a_pass(void **state) {
    (void)state;
    if (sp_cuda_device_count() == 0) skip();
    sp_model_config config = small_config();
    sp_batch batch = some_batch(false);
    sp_model *model = make(&config, GPU, SP_DTYPE_BF16, false);
    double loss;
    free(gradient_of(model, &batch, &loss));
    sp_model_profile off = sp_model_profile_read(model, true);
    assert_true(off.matmul == 0);
    sp_model_profile_enable(model, true);
    free(gradient_of(model, &batch, &loss));
    sp_model_profile on = sp_model_profile_read(model, true);
    assert_true(on.matmul > 0 && on.attention > 0 && on.norm > 0 && on.loss > 0 && on.embedding > 0);
    sp_model_free(model);
}

static void the_plan_is_what_a_model_takes(void **state) {
    (void)state;
    for (int32_t device = CPU; device <= (sp_cuda_device_count() ? GPU : CPU); device++)
        for (int recompute = 0; recompute < 2; recompute++) {
            sp_model_config config = foreign_config();
            sp_model_options options = sp_model_options_default();
            options.training = true;
            options.dtype = device ? SP_DTYPE_BF16 : SP_DTYPE_F32;
            options.device = device;
            options.recompute = recompute;
            sp_model_memory plan;
            assert_ok(sp_model_plan_memory(&plan, &config, &options, B, T));
            sp_model *model = make(&config, device, options.dtype, recompute);
            sp_batch batch = some_batch(false);
            double sum;
            int64_t n_targets;
            assert_ok(sp_model_loss_gradient(model, &batch, 1, &sum, &n_targets));
            int64_t products = device ? plan.workspace : 0; /* cuBLASLt's is not counted in the model's */
            int64_t taken = sp_model_memory_bytes(model), planned = plan.total - plan.optimizer;
            assert_true(taken <= planned && taken >= planned - products);
            sp_model_free(model);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_normalizer_gives_the_cpus_gradient),
        cmocka_unit_test(small_scores_give_the_cpus_gradient),
        cmocka_unit_test(masks_factors_and_ties_give_the_cpus_gradient),
        cmocka_unit_test(biases_and_norms_of_heads_give_the_cpus_gradient),
        cmocka_unit_test(the_same_bits_every_time_and_with_recomputation),
        cmocka_unit_test(steps_stay_close_to_the_cpus),
        cmocka_unit_test(what_is_not_finite_changes_nothing),
        cmocka_unit_test(decoding_gives_the_cpus_logits),
        cmocka_unit_test(observers_see_the_cpus_stream),
        cmocka_unit_test(the_profile_claims_most_of_a_pass),
        cmocka_unit_test(the_plan_is_what_a_model_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
