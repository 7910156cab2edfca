/* The table of measures: what stands in the JSON, from observations made by hand. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/random.h"
#include "measure/measures.h"

enum { L = 2, H = 3, T = 64, C = 6, B = 2, N_SAMPLES = 4 };

/* Attention of softpick with one channel: head h scores `score[h]` everywhere, so it is uniform or silent. */
static void observe_attention(const sp_observer *observer, int64_t layer, const float score[H]) {
    static float q[B * T * H], k[B * T * H], out[B * T * H];
    for (int64_t i = 0; i < B * T * H; i++) {
        q[i] = 1;
        k[i] = score[i % H];
        out[i] = score[i % H] > 0 ? 1 : 0;
    }
    sp_attention problem;
    sp_attention_init(&problem);
    problem.scale = 1;
    int64_t shape[] = {B, T, H, 1};
    problem.q = sp_tensor_view(q, SP_DTYPE_F32, 4, shape);
    problem.k = sp_tensor_view(k, SP_DTYPE_F32, 4, shape);
    problem.out = sp_tensor_view(out, SP_DTYPE_F32, 4, shape);
    assert_int_equal(observer->attention(observer->user, layer, &problem), SP_OK);
}

/* Layer l holds the numbers -(l+1) and l+1 in turn, so its kurtosis is 1, and one massive activation after block 2. */
static void observe_hidden(const sp_observer *observer, int64_t layer, bool massive) {
    static float x[B * T * C];
    for (int64_t i = 0; i < B * T * C; i++) x[i] = (float)(i % 2 ? layer + 1 : -(layer + 1));
    if (massive && layer == 2) x[T * C + 3 * C + 4] = -4000; /* second sample, position 3, channel 4 */
    assert_int_equal(observer->hidden(observer->user, layer, x, B * T, C), SP_OK);
}

static json_t *measured(bool massive, const char *variant) {
    static const float scores[L][H] = {{1, -1, -1}, {1, 1, -1}}, other[H] = {-1, -1, -1};
    sp_model_config config = {.n_layers = L, .n_heads = H, .n_kv_heads = H, .width = C};
    sp_measure_options options = {.T = T, .measures = "all"};
    sp_measures measures;
    assert_int_equal(sp_measures_open(&measures, &config, SP_DTYPE_BF16, &options), SP_OK);
    sp_observer observer = sp_measures_observer(&measures), second = sp_measures_variant_observer(&measures);
    for (; measures.n_samples < N_SAMPLES; measures.n_samples += B) {
        for (int64_t l = 0; l < L; l++) observe_attention(&observer, l, scores[l]);
        for (int64_t l = 0; l < L; l++) observe_attention(&second, l, other);
        for (int64_t l = 0; l < L + 2; l++) observe_hidden(&observer, l, massive);
    }
    measures.variant = variant;
    json_t *json;
    assert_int_equal(sp_measures_finish(&measures, &json), SP_OK);
    sp_measures_close(&measures);
    return json;
}

/* json[measure][key] */
static double number(const json_t *json, const char *measure, const char *key) {
    const json_t *value = json_object_get(json_object_get(json, measure), key);
    if (!json_is_number(value)) fail_msg("%s.%s is not a number", measure, key);
    return json_number_value(value);
}

static void assert_near(double value, double expected) {
    if (!(fabs(value - expected) <= 1e-5 * (1 + fabs(expected)))) fail_msg("%.17g is not %.17g", value, expected);
}

static void every_measure_stands_with_its_conditions(void **state) {
    (void)state;
    json_t *json = measured(true, NULL);
    int n = 0;
    for (; sp_measure_name(n); n++) {
        const json_t *entry = json_object_get(json, sp_measure_name(n));
        assert_true(json_is_object(entry));
        assert_true(json_is_number(json_object_get(entry, "value")));
        assert_true(json_is_string(json_object_get(entry, "unit")));
        assert_string_equal(json_string_value(json_object_get(entry, "definition")), sp_measure_definition(n));
        assert_int_equal(json_integer_value(json_object_get(entry, "T")), T);
        assert_int_equal(json_integer_value(json_object_get(entry, "n_samples")), N_SAMPLES);
        assert_string_equal(json_string_value(json_object_get(entry, "dtype")), "bf16");
        const json_t *threshold = json_object_get(entry, "threshold");
        assert_true(json_is_number(threshold) || json_is_null(threshold));
        const json_t *layers = json_object_get(entry, "per_layer"), *heads = json_object_get(entry, "per_layer_head");
        const json_t *states = json_object_get(entry, "per_state");
        bool is_masking = strcmp(sp_measure_name(n), "masking") == 0;
        assert_int_equal(!!layers + !!heads + !!states, is_masking ? 0 : 1);
        if (layers) assert_int_equal(json_array_size(layers), L);
        if (states) assert_int_equal(json_array_size(states), L + 1);
        if (heads) assert_int_equal(json_array_size(heads), L);
        if (heads) assert_int_equal(json_array_size(json_array_get(heads, 0)), H);
    }
    assert_int_equal(json_object_size(json), n);
    assert_null(sp_measure_definition(n));
    assert_null(sp_measure_name(-1));
    json_decref(json);
}

static void values_are_those_of_the_observations(void **state) {
    (void)state;
    json_t *json = measured(true, NULL);
    double uniform = 0; /* weight on the first token of a head whose scores are all equal: 1/(t+1) */
    for (int t = 0; t < T; t++) uniform += 1. / (t + 1) / T;
    assert_near(number(json, "silent_heads", "value"), 3. / 6);
    assert_near(number(json, "dead_heads", "value"), 3. / 6);
    assert_near(number(json, "sparsity", "value"), 3. / 6);
    assert_near(number(json, "sparsity_threshold", "value"), 3. / 6);
    assert_near(number(json, "row_mass", "value"), 3. / 6);
    assert_near(number(json, "sink_rate", "value"), 0);
    assert_near(number(json, "first_token_mass", "value"), uniform / 2);
    assert_near(number(json, "sink_rate", "threshold"), 0.3);
    assert_near(number(json, "sink_rate_0.2", "threshold"), 0.2);
    const json_t *silent = json_object_get(json_object_get(json, "silent_heads"), "per_layer_head");
    static const double expected[L][H] = {{0, 1, 1}, {0, 0, 1}};
    for (size_t l = 0; l < L; l++)
        for (size_t h = 0; h < H; h++)
            assert_near(json_number_value(json_array_get(json_array_get(silent, l), h)), expected[l][h]);
    json_decref(json);
}

static void residual_stream_is_pooled_as_named(void **state) {
    (void)state;
    json_t *json = measured(false, NULL);
    /* +-2 and +-3 in equal number: mean 0, m2 = (4+9)/2, m4 = (16+81)/2 */
    assert_near(number(json, "kurtosis", "value"), 48.5 / (6.5 * 6.5));
    /* embedding +-1, block 1 +-2, final norm +-4: not block 2 */
    assert_near(number(json, "kurtosis_paper", "value"), (1 + 16 + 256) / 3. / (21 / 3. * 21 / 3.));
    assert_near(number(json, "activation_max", "value"), 3);
    assert_near(number(json, "activation_min", "value"), -3);
    const json_t *layers = json_object_get(json_object_get(json, "activation_max"), "per_layer");
    assert_int_equal(json_array_size(layers), L);
    assert_near(json_number_value(json_array_get(layers, 0)), 2);
    const json_t *variants = json_object_get(json_object_get(json, "activation_max"), "variants");
    assert_near(json_number_value(json_object_get(variants, "paper_pool")), 4);
    assert_near(number(json, "massive_activations", "value"), 0);
    json_decref(json);
}

static void massive_activations_are_counted_per_sample_and_named(void **state) {
    (void)state;
    json_t *json = measured(true, NULL), *massive = json_object_get(json, "massive_activations");
    assert_near(number(json, "massive_activations", "value"), 0.5); /* one in each batch of two */
    const json_t *top = json_object_get(massive, "top"), *first = json_array_get(top, 0);
    assert_int_equal(json_array_size(top), 3);
    assert_near(json_number_value(json_object_get(first, "value")), -4000);
    assert_near(json_number_value(json_object_get(first, "median")), 3);
    assert_int_equal(json_integer_value(json_object_get(first, "layer")), 1);
    assert_int_equal(json_integer_value(json_object_get(first, "channel")), 4);
    assert_int_equal(json_integer_value(json_object_get(first, "position")), 3);
    assert_int_equal(json_integer_value(json_object_get(first, "sample")), 1);
    json_decref(json);
}

static double entry(const json_t *list, size_t i) { return json_number_value(json_array_get(list, i)); }

static void lengths_stand_beside_the_measures_of_the_first_token(void **state) {
    (void)state;
    json_t *json = measured(false, NULL);
    const json_t *by_length = json_object_get(json_object_get(json, "sink_rate"), "by_length");
    const json_t *lengths = json_object_get(by_length, "length"), *values = json_object_get(by_length, "value");
    assert_int_equal(json_array_size(lengths), 3);
    assert_near(entry(lengths, 0), 16);
    assert_near(entry(lengths, 2), T);
    assert_near(entry(values, 2), number(json, "sink_rate", "value"));
    by_length = json_object_get(json_object_get(json, "first_token_mass"), "by_length");
    double uniform = 0; /* three of six heads weigh all keys alike */
    for (int t = 0; t < 16; t++) uniform += 1. / (t + 1) / 16;
    assert_near(entry(json_object_get(by_length, "value"), 0), uniform / 2);
    assert_near(entry(json_object_get(by_length, "n_sequences"), 0), N_SAMPLES);
    json_decref(json);
}

static void whole_rows_are_told_by_block_key_and_context(void **state) {
    (void)state;
    json_t *json = measured(false, NULL), *block;
    const json_t *blocks = json_object_get(json_object_get(json, "dead_blocks"), "blocks");
    size_t i;
    assert_int_equal(json_array_size(blocks), SP_BLOCK_SIZES);
    json_array_foreach(blocks, i, block) {
        assert_string_equal(json_string_value(json_object_get(block, "name")), sp_block_sizes[i].name);
        assert_near(json_number_value(json_object_get(block, "value")), 0.5);
    }
    double entropy = 0, uniform = 0;
    for (int t = 0; t < T; t++) {
        entropy += log(t + 1) / T;
        uniform += 1. / (t + 1) / T;
    }
    assert_near(number(json, "entropy", "value"), entropy); /* of the heads that are not silent */
    assert_near(number(json_object_get(json, "entropy"), "variants", "of_the_most"), 1);
    assert_near(number(json, "largest_weight", "value"), uniform / 2);
    assert_near(number(json_object_get(json, "largest_weight"), "variants", "live_rows"), uniform);
    const json_t *context = json_object_get(json_object_get(json, "largest_weight"), "by_context");
    assert_near(entry(json_object_get(context, "keys"), 9), 10);
    assert_near(entry(json_object_get(context, "weight"), 9), 0.1 / 2);
    assert_near(entry(json_object_get(context, "live_rows"), 9), 0.1);
    const json_t *position = json_object_get(json_object_get(json, "sink_rate_elsewhere"), "by_position");
    assert_near(entry(json_object_get(position, "position"), 3), 3);
    assert_near(entry(json_object_get(position, "weight"), 0), uniform / 2);
    assert_near(entry(json_object_get(position, "sinks"), 0), 0);
    json_decref(json);
}

/* The channel of -4000 is the largest of its layer; the other layers have theirs. */
static void massive_activations_are_placed_in_every_layer(void **state) {
    (void)state;
    json_t *json = measured(true, NULL);
    const json_t *layers = json_object_get(json_object_get(json, "massive_activations"), "by_layer");
    assert_int_equal(json_array_size(layers), L);
    const json_t *first = json_array_get(layers, 0), *second = json_array_get(layers, 1);
    assert_near(json_number_value(json_object_get(first, "median")), 2);
    assert_near(json_number_value(json_object_get(second, "median")), 3);
    assert_near(json_number_value(json_object_get(json_array_get(json_object_get(first, "top"), 0), "value")), -2);
    const json_t *top = json_object_get(second, "top");
    assert_int_equal(json_array_size(top), 3);
    assert_near(json_number_value(json_object_get(json_array_get(top, 0), "value")), -4000);
    assert_near(fabs(json_number_value(json_object_get(json_array_get(top, 1), "value"))), 3);
    for (size_t i = 0; i < 3; i++) /* each another channel */
        for (size_t k = 0; k < i; k++)
            assert_false(json_equal(json_object_get(json_array_get(top, i), "channel"),
                                    json_object_get(json_array_get(top, k), "channel")));
    json_decref(json);
}

/* The larger of a channel's two peaks comes first, then last. */
static void channel_stands_once_among_the_largest(void **state) {
    (void)state;
    for (int64_t larger = 1; larger <= 2; larger++) {
        sp_model_config config = {.n_layers = L, .n_heads = H, .n_kv_heads = H, .width = C};
        sp_measure_options options = {.T = T, .measures = "massive_activations"};
        sp_measures measures;
        assert_int_equal(sp_measures_open(&measures, &config, SP_DTYPE_F32, &options), SP_OK);
        sp_observer observer = sp_measures_observer(&measures);
        assert_null(observer.attention);
        for (int64_t l = 0; l < L + 2; l++) {
            float x[T * C] = {0};
            x[4] = l == larger ? 50 : 40;
            x[C + 2] = 7;
            assert_int_equal(observer.hidden(observer.user, l, x, T, C), SP_OK);
        }
        json_t *json;
        assert_int_equal(sp_measures_finish(&measures, &json), SP_OK);
        const json_t *top = json_object_get(json_object_get(json, "massive_activations"), "top");
        assert_int_equal(json_array_size(top), 2);
        assert_near(json_number_value(json_object_get(json_array_get(top, 0), "value")), 50);
        assert_int_equal(json_integer_value(json_object_get(json_array_get(top, 0), "layer")), larger - 1);
        assert_near(json_number_value(json_object_get(json_array_get(top, 1), "value")), 7);
        json_decref(json);
        sp_measures_close(&measures);
    }
}

static void variant_stands_beside_the_measures_of_the_first_token_alone(void **state) {
    (void)state;
    json_t *json = measured(false, "without_bos");
    static const char *const first[] = {"sink_rate", "sink_rate_0.2", "first_token_mass"};
    for (size_t i = 0; i < 3; i++) {
        const json_t *variants = json_object_get(json_object_get(json, first[i]), "variants");
        assert_near(json_number_value(json_object_get(variants, "without_bos")), 0); /* all heads were silent there */
        assert_true(json_is_number(json_object_get(variants, "row_normalised")));
    }
    assert_null(json_object_get(json_object_get(json, "row_mass"), "variants"));
    json_decref(json);
    json = measured(false, NULL);
    assert_null(json_object_get(json_object_get(json_object_get(json, "sink_rate"), "variants"), "without_bos"));
    json_decref(json);
}

static void observation_of_another_shape_is_refused(void **state) {
    (void)state;
    sp_model_config config = {.n_layers = L, .n_heads = H, .n_kv_heads = H, .width = C};
    sp_measure_options options = {.T = T, .measures = "all"};
    sp_measures measures;
    assert_int_equal(sp_measures_open(&measures, &config, SP_DTYPE_F32, &options), SP_OK);
    sp_observer observer = sp_measures_observer(&measures);
    float x[T * C] = {0};
    assert_int_equal(observer.hidden(observer.user, 0, x, T - 1, C), SP_INTERNAL);
    assert_int_equal(observer.hidden(observer.user, 0, x, T, C - 1), SP_INTERNAL);
    assert_int_equal(observer.hidden(observer.user, L + 2, x, T, C), SP_INTERNAL);
    sp_measures_close(&measures);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_measure_stands_with_its_conditions),
        cmocka_unit_test(values_are_those_of_the_observations),
        cmocka_unit_test(residual_stream_is_pooled_as_named),
        cmocka_unit_test(massive_activations_are_counted_per_sample_and_named),
        cmocka_unit_test(lengths_stand_beside_the_measures_of_the_first_token),
        cmocka_unit_test(whole_rows_are_told_by_block_key_and_context),
        cmocka_unit_test(massive_activations_are_placed_in_every_layer),
        cmocka_unit_test(channel_stands_once_among_the_largest),
        cmocka_unit_test(variant_stands_beside_the_measures_of_the_first_token_alone),
        cmocka_unit_test(observation_of_another_shape_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
