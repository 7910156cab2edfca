/* config.json: what is written is read again, LLaMA's and fla's words are understood, and what is wrong is named. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
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

static void fla_config_of_the_paper_is_its_340m_model(void **state) {
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
    assert_int_equal(sp_model_config_n_parameters(&c), 373867520); /* paper.md 5.2 */
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
        {"{\"model_type\":\"llama\",\"attention_bias\":true}", "attention_bias"},
        {"{\"model_type\":\"llama\",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}", "rope_scaling"},
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
        cmocka_unit_test(fla_config_of_the_paper_is_its_340m_model),
        cmocka_unit_test(what_is_wrong_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
