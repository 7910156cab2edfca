/* config.json: what is written is read again, LLaMA's and fla's words are understood, and what is wrong is named. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "softpick/model.h"

static void written_config_is_read_again(void **state) {
    (void)state;
    for (int normalizer = 0; normalizer < SP_NORMALIZER_COUNT; normalizer++) {
        sp_model_config config = sp_model_config_default(), again;
        config.attention_function = (sp_normalizer)normalizer;
        config.n_kv_heads = 4;
        config.head_width = 32;
        config.ffn_width = 1000;
        config.window = 7;
        config.tie_embeddings = true;
        config.row_factor = normalizer % 2;
        config.eos = -1;
        char *json;
        assert_int_equal(sp_model_config_format(&config, &json), SP_OK);
        assert_int_equal(sp_model_config_parse(&again, json, "config.json"), SP_OK);
        if (normalizer != SP_NORMALIZER_SOFTPICK) assert_null(strstr(json, "softpick_eps"));
        char *json_again;
        assert_int_equal(sp_model_config_format(&again, &json_again), SP_OK);
        assert_string_equal(json, json_again);
        assert_int_equal(again.attention_function, config.attention_function);
        assert_int_equal(again.n_kv_heads, 4);
        assert_int_equal(again.head_width, 32);
        assert_int_equal(again.ffn_width, 1000);
        assert_int_equal(again.window, 7);
        assert_true(again.tie_embeddings);
        assert_int_equal(again.row_factor, config.row_factor);
        assert_int_equal(again.eos, -1);
        free(json_again);
        free(json);
    }
}

static void only_plain_softmax_calls_itself_llama(void **state) {
    (void)state;
    sp_model_config config = sp_model_config_default();
    char *json;
    assert_int_equal(sp_model_config_format(&config, &json), SP_OK);
    assert_non_null(strstr(json, "\"softpick_llama\""));
    assert_non_null(strstr(json, "\"SoftpickLlamaForCausalLM\""));
    free(json);
    config.attention_function = SP_NORMALIZER_SOFTMAX;
    assert_int_equal(sp_model_config_format(&config, &json), SP_OK);
    assert_non_null(strstr(json, "\"llama\""));
    free(json);
}

static void llama_config_means_softmax_and_fills_defaults(void **state) {
    (void)state;
    sp_model_config c;
    assert_int_equal(sp_model_config_parse(&c,
                                           "{\"model_type\":\"llama\",\"hidden_size\":512,\"num_attention_heads\":8,"
                                           "\"intermediate_size\":1376,\"eos_token_id\":[5,6],"
                                           "\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":5e5}}",
                                           "c"),
                     SP_OK);
    assert_int_equal(c.attention_function, SP_NORMALIZER_SOFTMAX);
    assert_int_equal(c.n_kv_heads, 8);
    assert_int_equal(c.head_width, 64);
    assert_int_equal(c.eos, 5);
    assert_true(c.rope_theta > 4.9e5);
}

static void fla_configs_of_the_paper_are_its_models(void **state) {
    (void)state;
    sp_model_config c;
    assert_int_equal(sp_model_config_parse(
                         &c,
                         "{\"model_type\":\"transformer\",\"attn_impl\":\"parallel_softpick_attn\",\"hidden_size\":"
                         "1024,\"num_hidden_layers\":24,\"num_heads\":16,\"vocab_size\":32000,\"norm_eps\":1e-6,"
                         "\"qk_norm\":false,\"window_size\":null,\"max_position_embeddings\":8192}",
                         "c"),
                     SP_OK);
    assert_int_equal(c.attention_function, SP_NORMALIZER_SOFTPICK);
    assert_int_equal(c.ffn_width, 2816);
    assert_int_equal(sp_model_config_n_parameters(&c), 373867520);
    assert_int_equal(
        sp_model_config_parse(
            &c,
            "{\"model_type\":\"transformer\",\"attn_impl\":\"parallel_softpick_attn\",\"attention_bias\":false,"
            "\"hidden_size\":2048,\"num_hidden_layers\":32,\"num_heads\":32,\"num_kv_heads\":null,"
            "\"intermediate_size\":null,\"pad_token_id\":2,\"elementwise_gate\":false}",
            "c"),
        SP_OK);
    assert_int_equal(sp_model_config_n_parameters(&c), 1775372288);
}

static sp_model_config read(const char *json) {
    sp_model_config c;
    if (sp_model_config_parse(&c, json, "c") != SP_OK) fail_msg("%s", sp_last_message());
    return c;
}

/* Written, read again, and written as before; the caller frees the text. */
static char *written(const sp_model_config *config) {
    char *json, *again;
    assert_int_equal(sp_model_config_format(config, &json), SP_OK);
    sp_model_config c = read(json);
    assert_int_equal(sp_model_config_format(&c, &again), SP_OK);
    assert_string_equal(json, again);
    free(again);
    return json;
}

static void assert_type(const sp_model_config *config, const char *type) {
    char *json = written(config), wanted[64];
    snprintf(wanted, sizeof wanted, "\"model_type\": \"%s\"", type);
    if (!strstr(json, wanted)) fail_msg("not %s: %s", type, json);
    free(json);
}

static void a_model_is_written_as_the_type_that_computes_it(void **state) {
    (void)state;
    sp_model_config plain = sp_model_config_default(), c;
    plain.attention_function = SP_NORMALIZER_SOFTMAX;
    assert_type((c = plain, &c), "llama");
    assert_type((c.qkv_bias = c.out_bias = c.ffn_bias = true, &c), "llama");
    assert_type((c.window = 9, &c), "softpick_llama");
    assert_type((c = plain, c.window = 9, &c), "mistral");
    assert_type((c = plain, c.qkv_bias = true, &c), "qwen2");
    assert_type((c.window = 9, &c), "qwen2");
    assert_type((c.ffn_bias = true, &c), "softpick_llama");
    assert_type((c = plain, c.qk_norm = true, &c), "qwen3");
    assert_type((c.qkv_bias = c.out_bias = true, &c), "qwen3");
    assert_type((c.qk_norm_eps = 1e-5, &c), "softpick_llama");
    assert_type((c.attention_function = SP_NORMALIZER_SOFTPICK, &c), "softpick_llama");
    assert_type((c = plain, c.row_factor = true, &c), "softpick_llama");
}

static void what_other_makers_have_is_kept(void **state) {
    (void)state;
    sp_model_config c = sp_model_config_default();
    c.qkv_bias = c.ffn_bias = c.qk_norm = true;
    c.qk_norm_eps = 1e-5;
    c.rope_scaling = SP_ROPE_SCALING_LLAMA3;
    c.rope_factor = 8, c.rope_low_factor = 1, c.rope_high_factor = 4, c.rope_original_positions = 512;
    c.n_more_eos = 2, c.more_eos[0] = 7, c.more_eos[1] = 9;
    char *json = written(&c);
    sp_model_config again = read(json);
    free(json);
    assert_true(again.qkv_bias && !again.out_bias && again.ffn_bias && again.qk_norm);
    assert_true(again.qk_norm_eps > 0.99e-5 && again.qk_norm_eps < 1.01e-5);
    assert_int_equal(again.rope_scaling, SP_ROPE_SCALING_LLAMA3);
    assert_true(again.rope_factor > 7.9 && again.rope_low_factor > 0.9 && again.rope_high_factor > 3.9);
    assert_int_equal(again.rope_original_positions, 512);
    assert_true(sp_model_config_is_eos(&again, 2) && sp_model_config_is_eos(&again, 7));
    assert_true(sp_model_config_is_eos(&again, 9) && !sp_model_config_is_eos(&again, 0));
}

static void positions_are_read_as_written_before_and_after_transformers_5(void **state) {
    (void)state;
    static const char *const linear[] = {
        "{\"model_type\":\"llama\",\"rope_theta\":5e5,\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5}}",
        "{\"model_type\":\"llama\",\"rope_theta\":5e5,\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2.5}}",
        "{\"model_type\":\"llama\",\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":2.5,\"rope_theta\":5e5}}",
        ("{\"model_type\":\"llama\",\"rope_theta\":5e5,\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5},"
         "\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":2.5,\"rope_theta\":500000}}"),
    };
    for (size_t i = 0; i < sizeof linear / sizeof *linear; i++) {
        sp_model_config c = read(linear[i]);
        assert_int_equal(c.rope_scaling, SP_ROPE_SCALING_LINEAR);
        assert_true(c.rope_factor > 2.49 && c.rope_factor < 2.51 && c.rope_theta > 4.99e5 && c.rope_theta < 5.01e5);
    }
    sp_model_config c = read("{\"model_type\":\"llama\",\"rope_scaling\":null,\"rope_theta\":7000}");
    assert_int_equal(c.rope_scaling, SP_ROPE_SCALING_NONE);
    assert_true(c.rope_theta > 6999 && c.rope_theta < 7001);
}

static void mistral_and_qwen_are_read(void **state) {
    (void)state;
    sp_model_config c = read("{\"model_type\":\"mistral\",\"num_key_value_heads\":8,\"head_dim\":null}");
    assert_true(c.window == 4096 && c.n_kv_heads == 8 && c.head_width == 128 && !c.qkv_bias);
    assert_int_equal(read("{\"model_type\":\"mistral\",\"sliding_window\":null}").window, 0);
    c = read(
        "{\"model_type\":\"qwen2\",\"use_sliding_window\":false,\"sliding_window\":32768,\"max_window_layers\":28}");
    assert_true(c.window == 0 && c.qkv_bias && !c.out_bias && !c.qk_norm && c.bos == -1);
    c = read("{\"model_type\":\"qwen2\",\"use_sliding_window\":true,\"sliding_window\":5,\"max_window_layers\":0}");
    assert_int_equal(c.window, 5);
    c = read("{\"model_type\":\"qwen2\",\"num_hidden_layers\":2,\"use_sliding_window\":true,\"sliding_window\":5,"
             "\"layer_types\":[\"sliding_attention\",\"sliding_attention\"]}");
    assert_int_equal(c.window, 5);
    c = read("{\"model_type\":\"qwen3\",\"rms_norm_eps\":1e-4,\"attention_bias\":true}");
    assert_true(c.qk_norm && c.qk_norm_eps > 0.9e-4 && c.head_width == 128 && c.qkv_bias && c.out_bias);
}

static void fla_words_for_attention_are_understood(void **state) {
    (void)state;
    static const struct {
        const char *json;
        sp_normalizer normalizer;
        double lambda;
        bool row_factor;
    } cases[] = {
        {"{\"model_type\":\"transformer\"}", SP_NORMALIZER_SOFTMAX, 1, false},
        {"{\"model_type\":\"transformer\",\"attn_impl\":\"naive_attn\"}", SP_NORMALIZER_SOFTMAX, 1, false},
        {"{\"model_type\":\"transformer\",\"attn_impl\":\"naive_softpick_attn\"}", SP_NORMALIZER_SOFTPICK, 1, false},
        {"{\"model_type\":\"transformer\",\"attn_impl\":\"parallel_scaled_softpick_attn\"}", SP_NORMALIZER_SOFTPICK, 1,
         true},
        {"{\"model_type\":\"transformer\",\"attn_impl\":\"parallel_rectified_attn\"}", SP_NORMALIZER_RECTIFIED, 1,
         false},
        {"{\"model_type\":\"relu_softpick_1_transformer\"}", SP_NORMALIZER_SOFTPICK, 0, false},
        {"{\"model_type\":\"transformer\",\"attn_impl\":\"naive_relu_softpick_1_attn\"}", SP_NORMALIZER_SOFTPICK, 0,
         false},
        {"{\"model_type\":\"softmax_plus_one_transformer\",\"attn_impl\":\"parallel_softmax_plus_one_attn\"}",
         SP_NORMALIZER_SOFTMAX_PLUS_ONE, 1, false},
        {"{\"model_type\":\"gpt_oss_sink_transformer\",\"attn_impl\":\"gpt_oss_flex_attention_sink\",\"gpt_oss_sink\":"
         "true}",
         SP_NORMALIZER_SOFTMAX_SINK, 1, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sp_model_config c = read(cases[i].json);
        assert_int_equal(c.attention_function, cases[i].normalizer);
        assert_true(c.row_factor == cases[i].row_factor);
        assert_true(c.softpick_lambda >= cases[i].lambda && c.softpick_lambda <= cases[i].lambda);
    }
    sp_model_config c = read("{\"model_type\":\"transformer\",\"qkv_bias\":true,\"qk_norm\":true,\"norm_eps\":1e-6}");
    assert_true(c.qkv_bias && !c.out_bias && c.qk_norm && c.qk_norm_eps > 0.99e-5); /* fla's own, not norm_eps */
}

static void attention_asked_for_decides_only_where_the_config_is_silent(void **state) {
    (void)state;
    sp_model_config c;
    static const char silent[] = "{\"model_type\":\"transformer\"}";
    assert_int_equal(sp_model_config_parse_as(&c, silent, "c", "softpick"), SP_OK);
    assert_int_equal(c.attention_function, SP_NORMALIZER_SOFTPICK);
    static const char names[] = "{\"model_type\":\"transformer\",\"attn_impl\":\"parallel_softpick_attn\"}";
    assert_int_equal(sp_model_config_parse_as(&c, names, "c", "softpick"), SP_OK);
    assert_int_equal(sp_model_config_parse_as(&c, names, "c", "softmax"), SP_BAD_FILE);
    assert_string_equal(sp_last_message(),
                        "c: the model's attention is softpick (\"attn_impl\"), not softmax as asked for");
    assert_int_equal(sp_model_config_parse_as(&c, silent, "c", "hardmax"), SP_BAD_ARGUMENT);
}

static void what_does_no_harm_is_passed_over(void **state) {
    (void)state;
    read(
        "{\"model_type\":\"llama\",\"_attn_implementation_autoset\":true,\"transformers.js_config\":{},"
        "\"is_llama_config\":true,\"rope_interleaved\":false,\"pretraining_tp\":2,\"dtype\":\"bfloat16\","
        "\"use_mrope\":false,\"quantization_config\":null,\"partial_rotary_factor\":1.0,\"unsloth_version\":\"2025\"}");
}

static void what_is_wrong_is_named(void **state) {
    (void)state;
    static const struct {
        const char *json, *names;
    } cases[] = {
        {"", "c: "},
        {"[]", "not a JSON object"},
        {"{\"model_type\":\"llama\",\"hiden_size\":5}", "hiden_size"},
        {"{\"hidden_size\":64}", "model_type"},
        {"{\"model_type\":\"gpt2\"}", "gpt2"},
        {"{\"model_type\":\"softpick_llama\"}", "attention_function"},
        {"{\"model_type\":\"llama\",\"attention_function\":\"hardmax\"}", "hardmax"},
        {"{\"model_type\":\"llama\",\"hidden_size\":\"64\"}", "hidden_size"},
        {"{\"model_type\":\"llama\",\"hidden_size\":100,\"num_attention_heads\":16}", "100"},
        {"{\"model_type\":\"llama\",\"num_attention_heads\":16,\"num_key_value_heads\":3}", "3"},
        {"{\"model_type\":\"llama\",\"hidden_act\":\"gelu\"}", "hidden_act"},
        {"{\"model_type\":\"llama\",\"vocab_size\":0}", "vocab_size"},
        {"{\"model_type\":\"llama\",\"vocab_size\":10,\"bos_token_id\":10}", "10"},
        {"{\"model_type\":\"llama\",\"num_attention_heads\":16,\"num_heads\":8}", "disagree"},
        {"{\"model_type\":\"transformer\",\"attn_impl\":\"parallel_softpick_attn\",\"attention_function\":\"softmax\"}",
         "attn_impl"},
        {"{\"model_type\":\"transformer\",\"attn_impl\":\"abs_softmax_1_attn\"}", "abs_softmax_1_attn"},
        {"{\"model_type\":\"llama\",\"hidden_size\":64,\"hidden_size\":64}", "duplicate"},
        {"{\"model_type\":\"llama\",\"head_dim\":7}", "head_dim"},
        {"{\"model_type\":\"llama\",\"rms_norm_eps\":-1}", "rms_norm_eps"},
        {"{\"model_type\":\"llama\",\"attention_bias\":1}", "attention_bias"},
        {"{\"model_type\":\"mistral\",\"attention_bias\":true}", "attention_bias"},
        {"{\"model_type\":\"qwen2\",\"mlp_bias\":true}", "mlp_bias"},
        {"{\"model_type\":\"llama\",\"qk_norm\":true}", "qk_norm"},
        {"{\"model_type\":\"llama\",\"sliding_window\":8}", "sliding_window"},
        {"{\"model_type\":\"llama\",\"rope_interleaved\":true}", "rope_interleaved"},
        {"{\"model_type\":\"llama\",\"quantization_config\":{\"bits\":4}}", "quantization_config"},
        {"{\"model_type\":\"llama\",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2}}", "yarn"},
        {"{\"model_type\":\"llama\",\"rope_parameters\":{\"rope_type\":\"dynamic\",\"factor\":2}}", "dynamic"},
        {"{\"model_type\":\"llama\",\"rope_scaling\":{\"type\":\"linear\"}}", "factor"},
        {"{\"model_type\":\"llama\",\"rope_scaling\":{\"type\":\"linear\",\"factor\":0.5}}", "factor"},
        {"{\"model_type\":\"llama\",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2,\"fector\":1}}", "fector"},
        {"{\"model_type\":\"llama\",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2},"
         "\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":3}}",
         "disagree"},
        {"{\"model_type\":\"llama\",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,"
         "\"high_freq_factor\":4}}",
         "original_max_position_embeddings"},
        {"{\"model_type\":\"llama\",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
         "\"high_freq_factor\":4,\"original_max_position_embeddings\":64}}",
         "low_freq_factor"},
        {"{\"model_type\":\"llama\",\"eos_token_id\":[]}", "eos_token_id"},
        {"{\"model_type\":\"llama\",\"eos_token_id\":[1,\"a\"]}", "eos_token_id"},
        {"{\"model_type\":\"llama\",\"eos_token_id\":[1,32000]}", "32000"},
        {"{\"model_type\":\"llama\",\"eos_token_id\":[-1,2]}", "below 0"},
        {"{\"model_type\":\"llama\",\"num_hidden_layers\":65536,\"hidden_size\":1048576,\"num_attention_heads\":65536,"
         "\"head_dim\":4096}",
         "larger than any memory"},
        {"{\"model_type\":\"qwen2\",\"use_sliding_window\":true,\"max_window_layers\":3}", "max_window_layers"},
        {"{\"model_type\":\"qwen2\",\"num_hidden_layers\":2,\"layer_types\":[\"full_attention\"]}", "layer_types"},
        {"{\"model_type\":\"qwen2\",\"num_hidden_layers\":2,\"layer_types\":[\"full_attention\",\"sliding_attention\"]"
         "}",
         "layer_types"},
        {"{\"model_type\":\"transformer\",\"attn_impl\":\"parallel_gated_attn\"}", "gate"},
        {"{\"model_type\":\"transformer\",\"attn_impl\":\"parallel_softpick_attn\",\"window_size\":64}", "window_size"},
        {"{\"model_type\":\"transformer\",\"layer_head_pruned\":[[1,2]]}", "layer_head_pruned"},
        {"{\"model_type\":\"transformer_with_pruning\",\"layer_head_pruned\":[[1,2]]}", "layer_head_pruned"},
        {"{\"model_type\":\"stochastic_softpick_transformer\"}", "draws"},
        {"{\"model_type\":\"relu_softpick_1_transformer\",\"attn_impl\":\"parallel_attn\"}", "parallel_attn"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sp_model_config c;
        sp_status status = sp_model_config_parse(&c, cases[i].json, "c");
        if (status != SP_BAD_FILE && status != SP_UNSUPPORTED) fail_msg("case %d was accepted", (int)i);
        if (!strstr(sp_last_message(), cases[i].names) || strncmp(sp_last_message(), "c: ", 3) != 0)
            fail_msg("case %d says: %s", (int)i, sp_last_message());
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_config_is_read_again),
        cmocka_unit_test(only_plain_softmax_calls_itself_llama),
        cmocka_unit_test(llama_config_means_softmax_and_fills_defaults),
        cmocka_unit_test(fla_configs_of_the_paper_are_its_models),
        cmocka_unit_test(a_model_is_written_as_the_type_that_computes_it),
        cmocka_unit_test(what_other_makers_have_is_kept),
        cmocka_unit_test(positions_are_read_as_written_before_and_after_transformers_5),
        cmocka_unit_test(mistral_and_qwen_are_read),
        cmocka_unit_test(fla_words_for_attention_are_understood),
        cmocka_unit_test(attention_asked_for_decides_only_where_the_config_is_silent),
        cmocka_unit_test(what_does_no_harm_is_passed_over),
        cmocka_unit_test(what_is_wrong_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
