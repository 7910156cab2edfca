/* Heads masked in a model: their outputs are gone, all else stays, and afterwards everything is as it was. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "measure/masking.h"

enum { L = 2, H = 4, D = 8, C = H * D, V = 50, B = 2, T = 24 };

static sp_model *new_model(sp_normalizer normalizer, sp_dtype dtype) {
    sp_model_config config = sp_model_config_default();
    config.vocabulary = V;
    config.width = C;
    config.n_layers = L;
    config.n_heads = config.n_kv_heads = H;
    config.head_width = D;
    config.ffn_width = 48;
    config.max_positions = T;
    config.initializer_range = 0.3;
    config.attention_function = normalizer;
    sp_model_options options = sp_model_options_default();
    options.dtype = dtype;
    options.seed = 5;
    sp_model *model;
    if (sp_model_new(&model, &config, &options) != SP_OK) fail_msg("%s", sp_last_message());
    return model;
}

static sp_status batch_loss(void *user, double *sum, int64_t *n_targets) {
    int32_t tokens[B * T], targets[B * T];
    for (int64_t i = 0; i < B * T; i++) {
        tokens[i] = (int32_t)sp_random_below(3, 1, (uint64_t)i, V);
        targets[i] = (int32_t)sp_random_below(3, 2, (uint64_t)i, V);
    }
    sp_batch batch = {.B = B, .T = T, .tokens = tokens, .targets = targets};
    return sp_model_loss(user, &batch, sum, n_targets);
}

static double loss_of(sp_model *model) {
    double sum;
    int64_t n;
    assert_int_equal(batch_loss(model, &sum, &n), SP_OK);
    return sum / (double)n;
}

/* Rows [first, first + n) of a layer's matrix become 0. */
static void clear_rows(sp_model *model, int64_t layer, const char *which, int64_t first, int64_t n) {
    char name[96];
    snprintf(name, sizeof name, "model.layers.%d.self_attn.%s.weight", (int)layer, which);
    for (int64_t i = 0; i < sp_model_n_tensors(model); i++)
        if (strcmp(sp_model_tensor_name(model, i), name) == 0) {
            sp_tensor tensor = sp_model_tensor(model, i);
            memset((float *)tensor.data + first * tensor.shape[1], 0, (size_t)(n * tensor.shape[1]) * sizeof(float));
        }
    assert_int_equal(sp_model_refresh(model), SP_OK);
}

/* Values of 0 give outputs of 0, by another way than the mask takes. */
static void masked_head_is_a_head_without_values(void **state) {
    (void)state;
    static const sp_dtype dtypes[] = {SP_DTYPE_F32, SP_DTYPE_BF16};
    for (int i = 0; i < 2; i++) {
        sp_model *masked = new_model(SP_NORMALIZER_SOFTMAX, dtypes[i]),
                 *without = new_model(SP_NORMALIZER_SOFTMAX, dtypes[i]);
        bool heads[L * H] = {[2] = true, [H + 0] = true, [H + 3] = true};
        for (int64_t h = 0; h < L * H; h++)
            if (heads[h]) clear_rows(without, h / H, "v_proj", h % H * D, D);
        sp_head_mask *mask;
        double whole = loss_of(masked);
        assert_int_equal(sp_head_mask_new(&mask, masked), SP_OK);
        assert_int_equal(sp_head_mask_set(mask, heads), SP_OK);
        double loss = loss_of(masked), expected = loss_of(without);
        assert_true(fabs(loss - expected) < 1e-5 && fabs(loss - whole) > 1e-3);
        assert_int_equal(sp_head_mask_set(mask, (const bool[L * H]){[1] = true}), SP_OK);
        assert_true(fabs(loss_of(masked) - loss) > 1e-4); /* another mask takes the place of the first */
        assert_int_equal(sp_head_mask_set(mask, NULL), SP_OK);
        assert_true(loss_of(masked) == whole);
        sp_head_mask_free(mask);
        sp_model_free(masked);
        sp_model_free(without);
    }
}

/* Of each head every token's output is near zero at thresholds from `far` on: 0 both, 1 the larger, 2 none. */
static void set_heads(sp_head_sums heads[L * H], const int far[L * H]) {
    memset(heads, 0, L * H * sizeof *heads);
    for (int64_t i = 0; i < L * H; i++) {
        heads[i].n_queries = 100;
        for (int k = far[i]; k < SP_NEAR_ZEROS; k++) heads[i].n_near_zero[k] = 96;
    }
}

static sp_masking run(sp_model *model, const int far[L * H]) {
    sp_head_sums heads[L * H];
    sp_masking masking;
    set_heads(heads, far);
    if (sp_masking_run(&masking, model, heads, batch_loss, model) != SP_OK) fail_msg("%s", sp_last_message());
    return masking;
}

static void dead_heads_and_as_many_others_are_masked(void **state) {
    (void)state;
    sp_model *model = new_model(SP_NORMALIZER_SOFTPICK, SP_DTYPE_F32);
    int64_t n_bytes = sp_model_n_parameters(model) * (int64_t)sizeof(float);
    float *before = malloc((size_t)n_bytes);
    clear_rows(model, 1, "q_proj", 2 * D, D); /* no score is positive: the head is silent */
    memcpy(before, sp_model_parameters(model), (size_t)n_bytes);
    static const int far[L * H] = {2, 2, 1, 2, 2, 2, 0, 2};
    sp_masking masking = run(model, far);
    assert_true(masking.n_targets == B * T && masking.loss == loss_of(model));

    const sp_masking_row *row = &masking.rows[0];
    assert_true(row->n_masked == 1 && row->n_control_heads == 1 && row->n_controls == SP_MASKING_CONTROLS);
    assert_true(fabs(row->loss - masking.loss) < 1e-6); /* it had nothing to say */
    for (int i = 0; i < SP_MASKING_CONTROLS; i++) assert_true(fabs(row->controls[i] - masking.loss) > 1e-5);
    row = &masking.rows[1];
    assert_true(row->n_masked == 2 && row->n_control_heads == 2);
    assert_true(fabs(row->loss - masking.loss) > 1e-5);
    assert_memory_equal(before, sp_model_parameters(model), (size_t)n_bytes);
    free(before);
    sp_model_free(model);
}

static void nothing_dead_and_everything_dead_have_no_controls(void **state) {
    (void)state;
    sp_model *model = new_model(SP_NORMALIZER_SOFTPICK, SP_DTYPE_F32);
    static const int alive[L * H] = {2, 2, 2, 2, 2, 2, 2, 2}, dead[L * H] = {0}, most[L * H] = {0, 0, 0, 0, 0, 2, 2, 0};
    sp_masking masking = run(model, alive);
    assert_true(masking.rows[0].n_masked == 0 && masking.rows[0].n_controls == 0);
    assert_true(masking.rows[0].loss == masking.loss);
    masking = run(model, dead);
    assert_true(masking.rows[0].n_masked == L * H && masking.rows[0].n_controls == 0);
    masking = run(model, most); /* fewer others than dead ones: one way to mask them */
    assert_true(masking.rows[0].n_control_heads == 2 && masking.rows[0].n_controls == 1);
    sp_model_free(model);
}

static sp_status failing_loss(void *user, double *sum, int64_t *n_targets) {
    static int n_calls;
    return ++n_calls == 2 ? SP_CANCELLED : batch_loss(user, sum, n_targets);
}

static void model_is_whole_again_after_a_failure(void **state) {
    (void)state;
    sp_model *model = new_model(SP_NORMALIZER_SOFTPICK, SP_DTYPE_F32);
    static const int far[L * H] = {0, 2, 2, 2, 2, 2, 2, 2};
    sp_head_sums heads[L * H];
    sp_masking masking;
    double whole = loss_of(model);
    set_heads(heads, far);
    assert_int_equal(sp_masking_run(&masking, model, heads, failing_loss, model), SP_CANCELLED);
    assert_true(loss_of(model) == whole);
    sp_model_free(model);
}

int main(void) {
    omp_set_num_threads(1); /* models so small that threads would wait longer than they compute */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masked_head_is_a_head_without_values),
        cmocka_unit_test(dead_heads_and_as_many_others_are_masked),
        cmocka_unit_test(nothing_dead_and_everything_dead_have_no_controls),
        cmocka_unit_test(model_is_whole_again_after_a_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
