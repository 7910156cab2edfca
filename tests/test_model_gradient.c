/* The whole model against plain loops in double: loss, and gradients by central differences, for every normalizer,
 * tied and untied, grouped heads, packed documents, window, row factor, biases, norms of heads, scaled positions; bf16
 * within its rounding. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/random.h"
#include "layers/layers.h"
#include "model_reference.h"
#include "random_batch.h"

enum { B = 2, T = 12, V = 37 };

static int32_t tokens[B * T], targets[B * T];
static const int64_t documents[] = {0, 5, 12, 12, 21, 24};

static sp_batch some_batch(bool packed) {
    return random_batch(tokens, targets, B, T, V, packed ? documents : NULL, packed ? 5 : 0);
}

static sp_model_config tiny_config(void) {
    sp_model_config c = sp_model_config_default();
    c.vocabulary = V;
    c.width = 24;
    c.n_layers = 2;
    c.n_heads = 4;
    c.n_kv_heads = 2;
    c.head_width = 8;
    c.ffn_width = 40;
    c.max_positions = 64;
    /* Large weights, so that scores are far from 0 and every term of the gradient counts. */
    c.initializer_range = 0.25;
    return c;
}

static sp_model *make(const sp_model_config *config, sp_dtype dtype) {
    sp_model_options options = sp_model_options_default();
    options.dtype = dtype;
    options.training = true;
    options.seed = 5;
    sp_model *model;
    if (sp_model_new(&model, config, &options) != SP_OK) fail_msg("%s", sp_last_message());
    return model;
}

/* Biases that begin at 0 and norms that begin at 1 would hide where they are used. */
static void move_off_their_first_values(sp_model *model) {
    for (int64_t i = 0; i < sp_model_n_tensors(model); i++) {
        sp_tensor tensor = sp_model_tensor(model, i);
        const char *name = sp_model_tensor_name(model, i);
        if (!strstr(name, ".bias") && !strstr(name, "_norm.")) continue;
        for (int64_t j = 0; j < tensor.shape[0]; j++)
            ((float *)tensor.data)[j] += (float)(0.3 * sp_random_normal(9, (uint64_t)i, (uint64_t)j));
    }
    assert_int_equal(sp_model_refresh(model), SP_OK);
}

static double *doubled(sp_model *model) {
    int64_t n = sp_model_n_parameters(model);
    double *values = malloc((size_t)n * sizeof *values);
    for (int64_t i = 0; i < n; i++) values[i] = sp_model_parameters(model)[i];
    return values;
}

/* Directional derivatives of the reference along each tensor's own gradient: every number of the gradient takes part,
 * and a wrong one shows. */
static void check_gradient(const sp_model_config *config, bool packed, sp_dtype dtype, double loss_bound,
                           double gradient_bound) {
    sp_model *model = make(config, dtype);
    sp_batch batch = some_batch(packed);
    move_off_their_first_values(model);
    double *values = doubled(model), loss_sum;
    int64_t n_targets;
    if (sp_model_loss(model, &batch, &loss_sum, &n_targets) != SP_OK) fail_msg("%s", sp_last_message());
    double expected = reference_loss(model, values, &batch), loss_alone = loss_sum;
    assert_true(fabs(loss_sum / (double)n_targets - expected) <= loss_bound * expected);
    assert_int_equal(sp_model_zero_gradients(model), SP_OK);
    double scale = 1 / (double)n_targets;
    if (sp_model_loss_gradient(model, &batch, scale, &loss_sum, &n_targets) != SP_OK) fail_msg("%s", sp_last_message());
    assert_true(fabs(loss_sum - loss_alone) <= loss_bound * loss_alone);
    const float *gradient = sp_model_gradients(model);
    int64_t offset = 0;
    for (int64_t i = 0; i < sp_model_n_tensors(model); i++) {
        sp_tensor tensor = sp_model_tensor(model, i);
        int64_t n = sp_tensor_count(&tensor);
        double squares = 0;
        for (int64_t j = 0; j < n; j++) squares += (double)gradient[offset + j] * gradient[offset + j];
        assert_true(squares > 0);
        double step = 1e-4 / sqrt(squares);
        double *moved = values + offset;
        for (int64_t j = 0; j < n; j++) moved[j] += step * gradient[offset + j];
        double above = reference_loss(model, values, &batch);
        for (int64_t j = 0; j < n; j++) moved[j] -= 2 * step * gradient[offset + j];
        double below = reference_loss(model, values, &batch);
        for (int64_t j = 0; j < n; j++) moved[j] += step * gradient[offset + j];
        double slope = (above - below) / (2 * step);
        if (!(fabs(slope - squares) <= gradient_bound * squares))
            fail_msg("%s: differences give %.9g, the gradient %.9g", sp_model_tensor_name(model, i), slope, squares);
        offset += n;
    }
    free(values);
    sp_model_free(model);
}

static void gradient_matches_differences_for_every_normalizer(void **state) {
    (void)state;
    for (int normalizer = 0; normalizer < SP_NORMALIZER_COUNT; normalizer++) {
        sp_model_config config = tiny_config();
        config.attention_function = (sp_normalizer)normalizer;
        check_gradient(&config, false, SP_DTYPE_F32, 2e-6, 2e-3);
    }
}

static void gradient_matches_with_tied_embeddings(void **state) {
    (void)state;
    sp_model_config config = tiny_config();
    config.tie_embeddings = true;
    check_gradient(&config, false, SP_DTYPE_F32, 2e-6, 2e-3);
}

static void gradient_matches_with_packed_documents(void **state) {
    (void)state;
    sp_model_config config = tiny_config();
    check_gradient(&config, true, SP_DTYPE_F32, 2e-6, 2e-3);
}

static void gradient_matches_with_window_and_relu_softmax(void **state) {
    (void)state;
    sp_model_config config = tiny_config();
    config.window = 4;
    config.softpick_lambda = 0;
    check_gradient(&config, false, SP_DTYPE_F32, 2e-6, 2e-3);
}

/* What other makers' models have. */
static sp_model_config foreign_config(void) {
    sp_model_config config = tiny_config();
    config.qkv_bias = config.out_bias = config.ffn_bias = true;
    config.qk_norm = true;
    config.qk_norm_eps = 1e-3;
    return config;
}

static void gradient_matches_with_biases_and_norms_of_heads(void **state) {
    (void)state;
    sp_model_config config = foreign_config();
    check_gradient(&config, false, SP_DTYPE_F32, 2e-6, 2e-3);
    config.attention_function = SP_NORMALIZER_SOFTMAX;
    config.out_bias = config.ffn_bias = false;
    check_gradient(&config, true, SP_DTYPE_F32, 2e-6, 2e-3);
}

static void gradient_matches_with_scaled_positions(void **state) {
    (void)state;
    sp_model_config config = tiny_config();
    config.attention_function = SP_NORMALIZER_SOFTMAX;
    config.rope_theta = 50;
    config.rope_scaling = SP_ROPE_SCALING_LINEAR;
    config.rope_factor = 3;
    check_gradient(&config, false, SP_DTYPE_F32, 2e-6, 2e-3);
    config.rope_scaling = SP_ROPE_SCALING_LLAMA3; /* turns of the four pairs: 3.2, 1.2, 0.45, 0.17 */
    config.rope_low_factor = 0.4;
    config.rope_high_factor = 2;
    config.rope_original_positions = 20;
    check_gradient(&config, false, SP_DTYPE_F32, 2e-6, 2e-3);
}

static void recomputing_gives_the_same_bits(void **state) {
    (void)state;
    sp_model_config config = foreign_config();
    sp_batch batch = some_batch(false);
    sp_model *models[2];
    double losses[2];
    int64_t n_targets;
    for (int i = 0; i < 2; i++) {
        sp_model_options options = sp_model_options_default();
        options.training = true;
        options.recompute = i == 1;
        if (sp_model_new(&models[i], &config, &options) != SP_OK) fail_msg("%s", sp_last_message());
        if (sp_model_loss_gradient(models[i], &batch, 1, &losses[i], &n_targets) != SP_OK)
            fail_msg("%s", sp_last_message());
    }
    assert_true(losses[0] == losses[1]);
    assert_memory_equal(sp_model_gradients(models[0]), sp_model_gradients(models[1]),
                        (size_t)sp_model_n_parameters(models[0]) * sizeof(float));
    assert_true(sp_model_memory_bytes(models[1]) < sp_model_memory_bytes(models[0]));
    sp_model_free(models[0]), sp_model_free(models[1]);
}

static void bf16_is_within_its_rounding(void **state) {
    (void)state;
    if (!sp_matmul_variant(SP_DTYPE_BF16)) skip();
    sp_model_config config = tiny_config();
    config.attention_function = SP_NORMALIZER_SOFTMAX;
    check_gradient(&config, false, SP_DTYPE_BF16, 2e-2, 5e-2);
    config = foreign_config();
    config.attention_function = SP_NORMALIZER_SOFTMAX;
    check_gradient(&config, false, SP_DTYPE_BF16, 2e-2, 5e-2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradient_matches_differences_for_every_normalizer),
        cmocka_unit_test(gradient_matches_with_tied_embeddings),
        cmocka_unit_test(gradient_matches_with_packed_documents),
        cmocka_unit_test(gradient_matches_with_window_and_relu_softmax),
        cmocka_unit_test(gradient_matches_with_biases_and_norms_of_heads),
        cmocka_unit_test(gradient_matches_with_scaled_positions),
        cmocka_unit_test(recomputing_gives_the_same_bits),
        cmocka_unit_test(bf16_is_within_its_rounding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
