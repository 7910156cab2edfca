/* The memory plan of a model before it is made: it says what the model then holds, and refuses what makes no sense. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "softpick/model.h"
#include "softpick/train.h"

enum { B = 2, T = 75, V = 211 };

#define assert_ok(call)                                                                                                \
    do {                                                                                                               \
        if ((call) != SP_OK) fail_msg("%s: %s", #call, sp_last_message());                                             \
    } while (0)

static sp_model_config small_config(void) {
    sp_model_config c = sp_model_config_default();
    c.vocabulary = V;
    c.width = 48;
    c.n_layers = 3;
    c.n_heads = 4;
    c.n_kv_heads = 2;
    c.head_width = 12;
    c.ffn_width = 96;
    c.max_positions = 256;
    return c;
}

static sp_model_options training(sp_dtype dtype, bool recompute) {
    sp_model_options options = sp_model_options_default();
    options.dtype = dtype;
    options.training = true;
    options.recompute = recompute;
    return options;
}

static sp_model_memory plan_of(const sp_model_config *config, const sp_model_options *options, int64_t b, int64_t t) {
    sp_model_memory plan;
    assert_ok(sp_model_plan_memory(&plan, config, options, b, t));
    assert_int_equal(plan.total, plan.parameters + plan.gradients + plan.optimizer + plan.activations + plan.workspace);
    return plan;
}

/* One pass over a batch of B x T: for its gradient where the model has one. */
static void run_pass(sp_model *model) {
    static int32_t tokens[B * T];
    double sum;
    int64_t n;
    for (int i = 0; i < B * T; i++) tokens[i] = (int32_t)sp_random_below(1, 2, (uint64_t)i, V);
    sp_batch batch = {.B = B, .T = T, .tokens = tokens, .targets = tokens};
    if (sp_model_gradients(model))
        assert_ok(sp_model_loss_gradient(model, &batch, 1, &sum, &n));
    else
        assert_ok(sp_model_loss(model, &batch, &sum, &n));
}

static void plan_is_what_a_model_holds(void **state) {
    (void)state;
    for (int i = 0; i < 32; i++) {
        sp_model_config config = small_config();
        sp_model_options options = training(i & 1 ? SP_DTYPE_BF16 : SP_DTYPE_F32, i & 2);
        options.training = !(i & 4);
        if (i & 8) config.attention_function = SP_NORMALIZER_SOFTMAX_SINK;
        if (i & 16) config.row_factor = config.tie_embeddings = true;
        if (!sp_model_matmul_name(0, options.dtype)) continue;
        sp_model_memory plan = plan_of(&config, &options, B, T);
        sp_model *model;
        assert_ok(sp_model_new(&model, &config, &options));
        assert_int_equal(plan.parameters + plan.gradients,
                         sp_model_n_parameters(model) * (4 + 4 * options.training + 2 * (i & 1)));
        run_pass(model);
        assert_int_equal(sp_model_memory_bytes(model), plan.total - plan.optimizer);
        sp_model_free(model);
    }
}

static void optimizer_is_two_moments_of_training_alone(void **state) {
    (void)state;
    sp_model_config config = small_config();
    sp_model_options options = training(SP_DTYPE_F32, false);
    assert_int_equal(plan_of(&config, &options, B, T).optimizer, 8 * sp_model_config_n_parameters(&config));
    options.training = false;
    assert_int_equal(plan_of(&config, &options, B, T).optimizer, 0);
    assert_int_equal(plan_of(&config, &options, B, T).gradients, 0);
}

/* A search for the largest batch that fits may halve. */
static void more_sequences_need_more(void **state) {
    (void)state;
    sp_model_config config = small_config();
    for (int i = 0; i < 4; i++) {
        sp_model_options options = training(i & 1 ? SP_DTYPE_BF16 : SP_DTYPE_F32, i & 2);
        if (!sp_model_matmul_name(0, options.dtype)) continue;
        for (int64_t b = 1, before = 0; b < 300; b += 1 + b / 8) {
            int64_t total = plan_of(&config, &options, b, T).total;
            assert_true(total > before);
            before = total;
        }
    }
}

static void recomputing_keeps_one_stream_per_layer(void **state) {
    (void)state;
    sp_model_config config = small_config();
    sp_model_options all = training(SP_DTYPE_F32, false), few = training(SP_DTYPE_F32, true);
    int64_t before = plan_of(&config, &few, B, T).activations, more = plan_of(&config, &all, B, T).activations - before;
    assert_true(more > 0);
    config.n_layers *= 2;
    int64_t stream = (B * T * config.width * 4 + 63) / 64 * 64;
    assert_int_equal(plan_of(&config, &few, B, T).activations - before, 3 * stream);
    assert_int_equal(plan_of(&config, &all, B, T).activations - plan_of(&config, &few, B, T).activations, more * 5 / 2);
}

static void no_model_is_too_large_to_plan(void **state) {
    (void)state;
    sp_model_config config = small_config();
    config.n_layers = 1 << 16;
    config.width = 1 << 17; /* 2^54 parameters: about as many as a config may ask for */
    config.ffn_width = 1 << 19;
    sp_model_options options = training(SP_DTYPE_F32, false);
    sp_model_memory plan;
    assert_ok(sp_model_plan_memory(&plan, &config, &options, 1 << 11, 1 << 19));
    assert_true(plan.activations > (int64_t)1 << 60 && plan.total == INT64_MAX);
}

static void nonsense_is_refused(void **state) {
    (void)state;
    sp_model_config config = small_config();
    sp_model_options options = training(SP_DTYPE_F32, false);
    sp_model_memory plan;
    assert_int_equal(sp_model_plan_memory(&plan, &config, &options, 0, T), SP_BAD_ARGUMENT);
    assert_string_equal(sp_last_message(), "a batch of 0 x 75 tokens: not within 1 to 2147483647 tokens");
    assert_int_equal(sp_model_plan_memory(&plan, &config, &options, INT64_MAX, 3), SP_BAD_ARGUMENT);
    assert_int_equal(sp_model_plan_memory(&plan, &config, &options, 1 << 16, 1 << 16), SP_BAD_ARGUMENT);
    options.dtype = SP_DTYPE_F64;
    assert_int_equal(sp_model_plan_memory(&plan, &config, &options, B, T), SP_BAD_ARGUMENT);
    assert_non_null(strstr(sp_last_message(), "f64"));
    options.dtype = SP_DTYPE_F32;
    options.device = 1;
    assert_int_equal(sp_model_plan_memory(&plan, &config, &options, B, T), SP_UNSUPPORTED);
    assert_string_equal(sp_last_message(), "dtype is f32: on a GPU a model computes in bf16");
    options.device = 0;
    config.n_heads = 3;
    assert_int_equal(sp_model_plan_memory(&plan, &config, &options, B, T), SP_BAD_ARGUMENT);
    assert_int_equal(plan.total, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan_is_what_a_model_holds),    cmocka_unit_test(optimizer_is_two_moments_of_training_alone),
        cmocka_unit_test(more_sequences_need_more),      cmocka_unit_test(recomputing_keeps_one_stream_per_layer),
        cmocka_unit_test(no_model_is_too_large_to_plan), cmocka_unit_test(nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
