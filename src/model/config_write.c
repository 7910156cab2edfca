/* A model's configuration as the text of config.json, for this library and, where the model is one they know, for
 * other programs: rotary positions stand there in transformers' words of before and after its version 5. */
#include <string.h>

#include "base/json.h"
#include "base/status.h"
#include "model/config_tables.h"

/* The type whose other readers compute what this model computes; softpick_llama, which only ours read, if none does. */
static const char *model_type(const sp_model_config *c) {
    bool softmax = c->attention_function == SP_NORMALIZER_SOFTMAX && !c->row_factor;
    bool eps_alike = c->qk_norm_eps >= c->norm_eps && c->qk_norm_eps <= c->norm_eps;
    if (softmax && c->qk_norm && eps_alike && c->qkv_bias == c->out_bias && !c->ffn_bias) return "qwen3";
    if (!softmax || c->qk_norm) return "softpick_llama";
    if (c->qkv_bias && !c->out_bias) return c->ffn_bias ? "softpick_llama" : "qwen2";
    if (c->window > 0) return c->qkv_bias || c->ffn_bias ? "softpick_llama" : "mistral";
    return "llama";
}

static void put(json_t *root, const char *name, json_t *value) { json_object_set_new(root, name, value); }

static json_t *token_json(int32_t token) { return token < 0 ? json_null() : json_integer(token); }

static json_t *field_json(const sp_model_config *config, const sp_config_key *key) {
    const void *field = (const char *)config + key->field;
    switch (key->kind) {
    case SP_CONFIG_COUNT: return json_integer(*(const int64_t *)field);
    case SP_CONFIG_NUMBER: return json_real(*(const double *)field);
    case SP_CONFIG_FLAG: return json_boolean(*(const bool *)field);
    case SP_CONFIG_TOKEN: return token_json(*(const int32_t *)field);
    case SP_CONFIG_MUST_BE:
    case SP_CONFIG_SPECIAL:
    case SP_CONFIG_IGNORED: break;
    }
    return json_null();
}

static json_t *eos_json(const sp_model_config *config) {
    if (config->n_more_eos == 0) return token_json(config->eos);
    json_t *list = json_array();
    json_array_append_new(list, token_json(config->eos));
    for (int64_t i = 0; i < config->n_more_eos; i++) json_array_append_new(list, json_integer(config->more_eos[i]));
    return list;
}

static json_t *rope_json(const sp_model_config *c) {
    static const char *const types[SP_ROPE_SCALING_COUNT] = {"default", "linear", "llama3"};
    json_t *rope = json_object();
    put(rope, "rope_type", json_string(types[c->rope_scaling]));
    if (c->rope_scaling == SP_ROPE_SCALING_NONE) return rope;
    put(rope, "factor", json_real(c->rope_factor));
    if (c->rope_scaling == SP_ROPE_SCALING_LINEAR) return rope;
    put(rope, "low_freq_factor", json_real(c->rope_low_factor));
    put(rope, "high_freq_factor", json_real(c->rope_high_factor));
    put(rope, "original_max_position_embeddings", json_integer(c->rope_original_positions));
    return rope;
}

static void put_rope(json_t *root, const sp_model_config *c) {
    put(root, "rope_scaling", c->rope_scaling == SP_ROPE_SCALING_NONE ? json_null() : rope_json(c));
    json_t *parameters = rope_json(c);
    put(parameters, "rope_theta", json_real(c->rope_theta));
    put(root, "rope_parameters", parameters);
}

static void put_attention(json_t *root, const sp_model_config *c) {
    put(root, "attention_function", json_string(sp_normalizer_name(c->attention_function)));
    if (c->row_factor) put(root, "attention_row_factor", json_true());
    if (c->attention_function != SP_NORMALIZER_SOFTPICK) return;
    put(root, "softpick_eps", json_real(c->softpick_eps));
    put(root, "softpick_lambda", json_real(c->softpick_lambda));
}

static void put_window(json_t *root, const sp_model_config *c, const char *type) {
    bool qwen = strncmp(type, "qwen", 4) == 0;
    if (c->window == 0 && !qwen) return;
    put(root, "sliding_window", c->window > 0 ? json_integer(c->window) : json_null());
    if (!qwen) return;
    put(root, "use_sliding_window", json_boolean(c->window > 0));
    put(root, "max_window_layers", json_integer(c->window > 0 ? 0 : c->n_layers));
}

/* Biases and norms that the type does not stand for by itself. */
static void put_extras(json_t *root, const sp_model_config *c, const char *type) {
    bool ours = strcmp(type, "softpick_llama") == 0;
    if (strcmp(type, "qwen2") != 0) put(root, "attention_bias", json_boolean(c->out_bias));
    if (ours && c->qkv_bias && !c->out_bias) put(root, "qkv_bias", json_true());
    put(root, "mlp_bias", json_boolean(c->ffn_bias));
    if (!ours || !c->qk_norm) return;
    put(root, "qk_norm", json_true());
    put(root, "qk_norm_eps", json_real(c->qk_norm_eps));
}

/* The Python files that stand beside the config (python/softpick_llama), by which transformers opens our type. */
static void put_auto_map(json_t *root) {
    static const char *const classes[][2] = {
        {"AutoConfig", "configuration_softpick_llama.SoftpickLlamaConfig"},
        {"AutoModel", "modeling_softpick_llama.SoftpickLlamaModel"},
        {"AutoModelForCausalLM", "modeling_softpick_llama.SoftpickLlamaForCausalLM"},
    };
    json_t *map = json_object();
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) put(map, classes[i][0], json_string(classes[i][1]));
    put(root, "auto_map", map);
}

sp_status sp_model_config_format(const sp_model_config *config, char **json) {
    const sp_config_family *family = sp_config_family_find(model_type(config));
    const sp_config_key *key;
    json_t *root = json_object();
    put(root, "architectures", json_pack("[s]", family->architecture));
    put(root, "model_type", json_string(family->model_type));
    if (strcmp(family->model_type, "softpick_llama") == 0) put_auto_map(root);
    put_attention(root, config);
    put(root, "hidden_act", json_string("silu"));
    for (int i = 0; (key = sp_config_key_at(i)); i++)
        if (key->written) put(root, key->name, field_json(config, key));
    put(root, "eos_token_id", eos_json(config));
    put_rope(root, config);
    put_window(root, config, family->model_type);
    put_extras(root, config, family->model_type);
    put(root, "torch_dtype", json_string("float32"));
    put(root, "dtype", json_string("float32"));
    sp_status status = sp_json_format(json, root, 0);
    json_decref(root);
    return status;
}
