/* A model's configuration: defaults, checks, and config.json in LLaMA's, our own and fla's words.
 *
 * Keys are rows of one table.  A key that is in no row is an error: other loaders ignore unknown keys, which
 * is how a softpick model silently runs with softmax.  Source of the foreign keys: transformers' LlamaConfig
 * and flash-linear-attention's TransformerConfig. */
#include "softpick/model.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/status.h"

sp_model_config sp_model_config_default(void) {
    return (sp_model_config){
        .struct_bytes = sizeof(sp_model_config),
        .vocabulary = 32000,
        .width = 1024,
        .n_layers = 24,
        .n_heads = 16,
        .n_kv_heads = 16,
        .head_width = 64,
        .ffn_width = 2816,
        .max_positions = 8192,
        .norm_eps = 1e-6,
        .rope_theta = 10000,
        .initializer_range = 0.006,
        .bos = 1,
        .eos = 2,
        .pad = -1,
        .attention_function = SP_NORMALIZER_SOFTPICK,
        .softpick_eps = 1e-6,
        .softpick_lambda = 1,
    };
}

sp_status sp_model_config_check(const sp_model_config *c) {
    const struct {
        const char *name;
        int64_t value, max;
    } sizes[] = {
        {"vocab_size", c->vocabulary, 1 << 24},          {"hidden_size", c->width, 1 << 20},
        {"num_hidden_layers", c->n_layers, 1 << 16},     {"num_attention_heads", c->n_heads, 1 << 16},
        {"num_key_value_heads", c->n_kv_heads, 1 << 16}, {"head_dim", c->head_width, 1 << 12},
        {"intermediate_size", c->ffn_width, 1 << 22},    {"max_position_embeddings", c->max_positions, 1 << 26},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        SP_REQUIRE(sizes[i].value >= 1 && sizes[i].value <= sizes[i].max, SP_BAD_ARGUMENT,
                   "%s is %" PRId64 ": not within 1 to %" PRId64, sizes[i].name, sizes[i].value, sizes[i].max);
    SP_REQUIRE(c->n_heads % c->n_kv_heads == 0, SP_BAD_ARGUMENT,
               "num_attention_heads is %" PRId64 ": not a multiple of num_key_value_heads, %" PRId64, c->n_heads,
               c->n_kv_heads);
    SP_REQUIRE(c->head_width % 2 == 0, SP_BAD_ARGUMENT, "head_dim is %" PRId64 ": rotary positions need it even",
               c->head_width);
    SP_REQUIRE(c->norm_eps >= 0 && c->norm_eps < 1, SP_BAD_ARGUMENT, "rms_norm_eps is %g: not within [0,1)",
               c->norm_eps);
    SP_REQUIRE(c->rope_theta >= 1 && isfinite(c->rope_theta), SP_BAD_ARGUMENT, "rope_theta is %g: not at least 1",
               c->rope_theta);
    SP_REQUIRE(c->initializer_range >= 0 && isfinite(c->initializer_range), SP_BAD_ARGUMENT,
               "initializer_range is %g: not a size", c->initializer_range);
    SP_REQUIRE(c->softpick_eps >= 0 && isfinite(c->softpick_eps), SP_BAD_ARGUMENT, "softpick_eps is %g: not at least 0",
               c->softpick_eps);
    SP_REQUIRE(c->softpick_lambda >= 0 && isfinite(c->softpick_lambda), SP_BAD_ARGUMENT,
               "softpick_lambda is %g: not at least 0", c->softpick_lambda);
    SP_REQUIRE(c->window >= 0, SP_BAD_ARGUMENT, "sliding_window is %" PRId64 ": negative", c->window);
    SP_REQUIRE((int)c->attention_function >= 0 && c->attention_function < SP_NORMALIZER_COUNT, SP_BAD_ARGUMENT,
               "attention_function has the value %d: not one of the normalizers", (int)c->attention_function);
    const int32_t ids[] = {c->bos, c->eos, c->pad};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        SP_REQUIRE(ids[i] < c->vocabulary, SP_BAD_ARGUMENT, "a special token has id %d: vocab_size is %" PRId64,
                   (int)ids[i], c->vocabulary);
    return SP_OK;
}

int64_t sp_model_config_n_parameters(const sp_model_config *c) {
    int64_t attention = c->width * c->head_width * (2 * c->n_heads + 2 * c->n_kv_heads);
    if (c->row_factor) attention += c->n_heads;
    if (c->attention_function == SP_NORMALIZER_SOFTMAX_SINK) attention += c->n_heads;
    int64_t layer = 2 * c->width + attention + 3 * c->width * c->ffn_width;
    int64_t embeddings = c->vocabulary * c->width * (c->tie_embeddings ? 1 : 2);
    return embeddings + c->n_layers * layer + c->width;
}

/* ---- config.json
 * ------------------------------------------------------------------------------------------------- */

typedef enum kind {
    KIND_COUNT,   /* int64_t */
    KIND_NUMBER,  /* double */
    KIND_FLAG,    /* bool */
    KIND_TOKEN,   /* int32_t; null is -1; of a list the first */
    KIND_IGNORED, /* does not change what is computed here */
    KIND_MUST_BE, /* only this JSON value (or null) is supported */
    KIND_SPECIAL, /* read by code below */
} kind;

typedef struct key {
    const char *name;
    kind kind;
    size_t field;
    const char *required; /* KIND_MUST_BE: the JSON text of the only supported value */
    bool written;         /* by sp_model_config_format, from the field */
} key;

#define FIELD(name) offsetof(sp_model_config, name)

static const key keys[] = {
    /* LLaMA's */
    {"vocab_size", KIND_COUNT, FIELD(vocabulary), NULL, true},
    {"hidden_size", KIND_COUNT, FIELD(width), NULL, true},
    {"num_hidden_layers", KIND_COUNT, FIELD(n_layers), NULL, true},
    {"num_attention_heads", KIND_COUNT, FIELD(n_heads), NULL, true},
    {"num_key_value_heads", KIND_COUNT, FIELD(n_kv_heads), NULL, true},
    {"head_dim", KIND_COUNT, FIELD(head_width), NULL, true},
    {"intermediate_size", KIND_COUNT, FIELD(ffn_width), NULL, true},
    {"max_position_embeddings", KIND_COUNT, FIELD(max_positions), NULL, true},
    {"rms_norm_eps", KIND_NUMBER, FIELD(norm_eps), NULL, true},
    {"rope_theta", KIND_NUMBER, FIELD(rope_theta), NULL, true},
    {"initializer_range", KIND_NUMBER, FIELD(initializer_range), NULL, true},
    {"tie_word_embeddings", KIND_FLAG, FIELD(tie_embeddings), NULL, true},
    {"bos_token_id", KIND_TOKEN, FIELD(bos), NULL, true},
    {"eos_token_id", KIND_TOKEN, FIELD(eos), NULL, true},
    {"pad_token_id", KIND_TOKEN, FIELD(pad), NULL, true},
    {"sliding_window", KIND_COUNT, FIELD(window), NULL, false},
    {"model_type", KIND_SPECIAL, 0, NULL, false},
    {"hidden_act", KIND_SPECIAL, 0, NULL, false},
    {"rope_parameters", KIND_SPECIAL, 0, NULL, false},
    {"rope_scaling", KIND_MUST_BE, 0, "null", false},
    {"attention_bias", KIND_MUST_BE, 0, "false", false},
    {"mlp_bias", KIND_MUST_BE, 0, "false", false},
    {"attention_dropout", KIND_IGNORED, 0, NULL, false},
    {"architectures", KIND_IGNORED, 0, NULL, false},
    {"auto_map", KIND_IGNORED, 0, NULL, false},
    {"pretraining_tp", KIND_IGNORED, 0, NULL, false},
    {"use_cache", KIND_IGNORED, 0, NULL, false},
    {"torch_dtype", KIND_IGNORED, 0, NULL, false},
    {"dtype", KIND_IGNORED, 0, NULL, false},
    {"transformers_version", KIND_IGNORED, 0, NULL, false},
    {"_name_or_path", KIND_IGNORED, 0, NULL, false},
    /* ours */
    {"attention_function", KIND_SPECIAL, 0, NULL, false},
    {"softpick_eps", KIND_NUMBER, FIELD(softpick_eps), NULL, false},
    {"softpick_lambda", KIND_NUMBER, FIELD(softpick_lambda), NULL, false},
    {"attention_row_factor", KIND_FLAG, FIELD(row_factor), NULL, false},
    /* fla's */
    {"num_heads", KIND_COUNT, FIELD(n_heads), NULL, false},
    {"num_kv_heads", KIND_COUNT, FIELD(n_kv_heads), NULL, false},
    {"norm_eps", KIND_NUMBER, FIELD(norm_eps), NULL, false},
    {"window_size", KIND_COUNT, FIELD(window), NULL, false},
    {"attn_impl", KIND_SPECIAL, 0, NULL, false},
    {"hidden_ratio", KIND_SPECIAL, 0, NULL, false},
    {"qkv_bias", KIND_MUST_BE, 0, "false", false},
    {"qk_norm", KIND_MUST_BE, 0, "false", false},
    {"elementwise_affine", KIND_MUST_BE, 0, "true", false},
    {"attnres_block_size", KIND_MUST_BE, 0, "null", false},
    {"fuse_norm", KIND_IGNORED, 0, NULL, false},
    {"fuse_swiglu", KIND_IGNORED, 0, NULL, false},
    {"fuse_cross_entropy", KIND_IGNORED, 0, NULL, false},
    {"fuse_linear_cross_entropy", KIND_IGNORED, 0, NULL, false},
    {"use_l2warp", KIND_IGNORED, 0, NULL, false},
};

enum { N_KEYS = sizeof keys / sizeof *keys };

/* fla's names of attention, less their prefix parallel_ or naive_. */
static const struct {
    const char *name;
    sp_normalizer normalizer;
    double lambda;
    bool row_factor;
} implementations[] = {
    {"flash_attn", SP_NORMALIZER_SOFTMAX, 1, false},
    {"attn", SP_NORMALIZER_SOFTMAX, 1, false},
    {"softpick_attn", SP_NORMALIZER_SOFTPICK, 1, false},
    {"scaled_attn", SP_NORMALIZER_SOFTMAX, 1, true},
    {"scaled_softpick_attn", SP_NORMALIZER_SOFTPICK, 1, true},
    {"rectified_attn", SP_NORMALIZER_RECTIFIED, 1, false},
    {"relu_softpick_1_attn", SP_NORMALIZER_SOFTPICK, 0, false},
    {"softmax_plus_one_attn", SP_NORMALIZER_SOFTMAX_PLUS_ONE, 1, false},
};

static bool text_is(const json_t *value, const char *text) {
    return json_is_string(value) && strcmp(json_string_value(value), text) == 0;
}

static sp_status read_token(int32_t *out, const char *name, const json_t *value, const char *source) {
    if (json_is_array(value) && json_array_size(value) > 0) value = json_array_get(value, 0);
    *out = -1;
    if (json_is_null(value)) return SP_OK;
    SP_REQUIRE(json_is_integer(value) && json_integer_value(value) >= -1 && json_integer_value(value) < INT32_MAX,
               SP_BAD_FILE, "%s: \"%s\" is not a token id", source, name);
    *out = (int32_t)json_integer_value(value);
    return SP_OK;
}

static sp_status read_key(sp_model_config *config, const key *row, json_t *value, const char *source) {
    void *field = (char *)config + row->field;
    if (json_is_null(value) && row->kind != KIND_TOKEN) return SP_OK;
    switch (row->kind) {
    case KIND_COUNT:
        SP_REQUIRE(json_is_integer(value), SP_BAD_FILE, "%s: \"%s\" is not a whole number", source, row->name);
        *(int64_t *)field = json_integer_value(value);
        return SP_OK;
    case KIND_NUMBER:
        SP_REQUIRE(json_is_number(value), SP_BAD_FILE, "%s: \"%s\" is not a number", source, row->name);
        *(double *)field = json_number_value(value);
        return SP_OK;
    case KIND_FLAG:
        SP_REQUIRE(json_is_boolean(value), SP_BAD_FILE, "%s: \"%s\" is not true or false", source, row->name);
        *(bool *)field = json_is_true(value);
        return SP_OK;
    case KIND_TOKEN: return read_token(field, row->name, value, source);
    case KIND_MUST_BE: {
        json_t *required = json_loads(row->required, JSON_DECODE_ANY, NULL);
        bool same = required && json_equal(required, value);
        json_decref(required);
        SP_REQUIRE(same, SP_UNSUPPORTED, "%s: \"%s\" must be %s: other values are not supported", source, row->name,
                   row->required);
        return SP_OK;
    }
    case KIND_IGNORED:
    case KIND_SPECIAL: return SP_OK;
    }
    return SP_OK;
}

static const key *find_key(const char *name) {
    for (int i = 0; i < N_KEYS; i++)
        if (strcmp(keys[i].name, name) == 0) return &keys[i];
    return NULL;
}

static sp_status read_keys(sp_model_config *config, json_t *root, const char *source) {
    const char *name;
    json_t *value;
    json_object_foreach(root, name, value) {
        const key *row = find_key(name);
        SP_REQUIRE(row, SP_BAD_FILE, "%s: unknown key \"%s\"", source, name);
        SP_TRY(read_key(config, row, value, source));
    }
    return SP_OK;
}

/* Two keys that fill the same field must say the same. */
static sp_status check_twins(const json_t *root, const char *source) {
    for (int i = 0; i < N_KEYS; i++) {
        const json_t *first = json_object_get(root, keys[i].name);
        for (int j = i + 1; first && keys[i].kind <= KIND_TOKEN && j < N_KEYS; j++) {
            if (keys[j].kind > KIND_TOKEN || keys[j].field != keys[i].field) continue;
            const json_t *second = json_object_get(root, keys[j].name);
            SP_REQUIRE(!second || json_equal(first, second), SP_BAD_FILE, "%s: \"%s\" and \"%s\" disagree", source,
                       keys[i].name, keys[j].name);
        }
    }
    return SP_OK;
}

/* model_type decides what is meant where nothing names the attention: LLaMA and fla mean softmax. */
static sp_status read_model_type(sp_model_config *config, const json_t *root, const char *source) {
    const json_t *type = json_object_get(root, "model_type");
    SP_REQUIRE(json_is_string(type), SP_BAD_FILE, "%s: \"model_type\" is missing", source);
    if (text_is(type, "llama") || text_is(type, "transformer")) {
        config->attention_function = SP_NORMALIZER_SOFTMAX;
        return SP_OK;
    }
    SP_REQUIRE(text_is(type, "softpick_llama"), SP_UNSUPPORTED,
               "%s: \"model_type\" is \"%s\": llama, transformer (fla) and softpick_llama are supported", source,
               json_string_value(type));
    SP_REQUIRE(json_object_get(root, "attention_function"), SP_BAD_FILE, "%s: \"attention_function\" is missing",
               source);
    return SP_OK;
}

static sp_status read_fla_attention(sp_model_config *config, const json_t *root, const char *source) {
    const json_t *fla = json_object_get(root, "attn_impl");
    if (!fla) return SP_OK;
    SP_REQUIRE(json_is_string(fla), SP_BAD_FILE, "%s: \"attn_impl\" is not a text", source);
    const char *full = json_string_value(fla), *name = full;
    if (strncmp(name, "parallel_", 9) == 0) name += 9;
    if (strncmp(name, "naive_", 6) == 0) name += 6;
    size_t i = 0, count = sizeof implementations / sizeof *implementations;
    while (i < count && strcmp(implementations[i].name, name) != 0) i++;
    SP_REQUIRE(i < count, SP_UNSUPPORTED, "%s: \"attn_impl\" is \"%s\": no such attention here", source, full);
    bool named = json_object_get(root, "attention_row_factor") != NULL;
    SP_REQUIRE(!named || config->row_factor == implementations[i].row_factor, SP_BAD_FILE,
               "%s: \"attn_impl\" is \"%s\" and \"attention_row_factor\" disagrees", source, full);
    config->attention_function = implementations[i].normalizer;
    config->row_factor = implementations[i].row_factor;
    if (!json_object_get(root, "softpick_lambda")) config->softpick_lambda = implementations[i].lambda;
    return SP_OK;
}

/* After fla's key: ours, which must not contradict it. */
static sp_status read_own_attention(sp_model_config *config, const json_t *root, const char *source) {
    const json_t *own = json_object_get(root, "attention_function"), *fla = json_object_get(root, "attn_impl");
    if (!own) return SP_OK;
    SP_REQUIRE(json_is_string(own), SP_BAD_FILE, "%s: \"attention_function\" is not a text", source);
    sp_normalizer normalizer;
    const char *name = json_string_value(own);
    if (sp_normalizer_find(&normalizer, name) != SP_OK)
        return sp_fail(SP_BAD_FILE, "%s: \"attention_function\" is \"%s\": no such normalizer", source, name);
    SP_REQUIRE(!fla || normalizer == config->attention_function, SP_BAD_FILE,
               "%s: \"attention_function\" is \"%s\" but \"attn_impl\" is \"%s\"", source, name,
               json_string_value(fla));
    config->attention_function = normalizer;
    return SP_OK;
}

static sp_status read_rope(sp_model_config *config, const json_t *root, const char *source) {
    const json_t *rope = json_object_get(root, "rope_parameters");
    if (!rope || json_is_null(rope)) return SP_OK;
    const json_t *type = json_object_get(rope, "rope_type"), *theta = json_object_get(rope, "rope_theta");
    SP_REQUIRE(!type || text_is(type, "default"), SP_UNSUPPORTED,
               "%s: \"rope_type\" must be \"default\": scaled positions are not supported", source);
    if (!theta) return SP_OK;
    SP_REQUIRE(json_is_number(theta), SP_BAD_FILE, "%s: \"rope_theta\" is not a number", source);
    const json_t *old = json_object_get(root, "rope_theta");
    double value = json_number_value(theta);
    SP_REQUIRE(!old || (json_number_value(old) >= value && json_number_value(old) <= value), SP_BAD_FILE,
               "%s: \"rope_theta\" and \"rope_parameters\" disagree", source);
    config->rope_theta = value;
    return SP_OK;
}

/* Sizes that follow from others where their key is absent. */
static sp_status fill_sizes(sp_model_config *config, const json_t *root, const char *source) {
    if (!json_is_integer(json_object_get(root, "num_key_value_heads")) &&
        !json_is_integer(json_object_get(root, "num_kv_heads")))
        config->n_kv_heads = config->n_heads;
    if (!json_is_integer(json_object_get(root, "head_dim"))) {
        SP_REQUIRE(config->n_heads > 0 && config->width % config->n_heads == 0, SP_BAD_FILE,
                   "%s: \"hidden_size\" %" PRId64 " is not a multiple of the %" PRId64 " heads", source, config->width,
                   config->n_heads);
        config->head_width = config->width / config->n_heads;
    }
    if (!json_is_integer(json_object_get(root, "intermediate_size"))) {
        const json_t *ratio = json_object_get(root, "hidden_ratio");
        double factor = json_is_number(ratio) ? json_number_value(ratio) : 4;
        SP_REQUIRE(factor > 0 && factor < 1024 && config->width > 0 && config->width < (1 << 20), SP_BAD_FILE,
                   "%s: \"hidden_ratio\" or \"hidden_size\" is out of range", source);
        int64_t width = (int64_t)((double)config->width * factor * 2 / 3);
        config->ffn_width = (width + 255) / 256 * 256;
    }
    const json_t *activation = json_object_get(root, "hidden_act");
    SP_REQUIRE(!activation || text_is(activation, "silu") || text_is(activation, "swish"), SP_UNSUPPORTED,
               "%s: \"hidden_act\" must be \"silu\"", source);
    return SP_OK;
}

sp_status sp_model_config_parse(sp_model_config *out, const char *json, const char *source) {
    sp_model_config config = sp_model_config_default();
    json_t *root;
    SP_TRY(sp_json_parse(&root, json, (int64_t)strlen(json), source));
    sp_status status = SP_OK;
    SP_REQUIRE_OR_DONE(json_is_object(root), SP_BAD_FILE, "%s: not a JSON object", source);
    SP_TRY_OR_DONE(read_model_type(&config, root, source));
    SP_TRY_OR_DONE(read_keys(&config, root, source));
    SP_TRY_OR_DONE(check_twins(root, source));
    SP_TRY_OR_DONE(read_rope(&config, root, source));
    SP_TRY_OR_DONE(read_fla_attention(&config, root, source));
    SP_TRY_OR_DONE(read_own_attention(&config, root, source));
    SP_TRY_OR_DONE(fill_sizes(&config, root, source));
    if (sp_model_config_check(&config) != SP_OK) status = sp_fail(SP_BAD_FILE, "%s: %s", source, sp_last_message());
    if (status == SP_OK) *out = config;
done:
    json_decref(root);
    return status;
}

static json_t *field_json(const sp_model_config *config, const key *row) {
    const void *field = (const char *)config + row->field;
    switch (row->kind) {
    case KIND_COUNT: return json_integer(*(const int64_t *)field);
    case KIND_NUMBER: return json_real(*(const double *)field);
    case KIND_FLAG: return json_boolean(*(const bool *)field);
    case KIND_TOKEN: return *(const int32_t *)field < 0 ? json_null() : json_integer(*(const int32_t *)field);
    case KIND_IGNORED:
    case KIND_MUST_BE:
    case KIND_SPECIAL: break;
    }
    return json_null();
}

sp_status sp_model_config_format(const sp_model_config *config, char **json) {
    bool plain = config->attention_function == SP_NORMALIZER_SOFTMAX && !config->row_factor;
    json_t *root = json_object();
    json_object_set_new(root, "architectures",
                        json_pack("[s]", plain ? "LlamaForCausalLM" : "SoftpickLlamaForCausalLM"));
    json_object_set_new(root, "model_type", json_string(plain ? "llama" : "softpick_llama"));
    json_object_set_new(root, "attention_function", json_string(sp_normalizer_name(config->attention_function)));
    if (config->row_factor) json_object_set_new(root, "attention_row_factor", json_true());
    if (config->attention_function == SP_NORMALIZER_SOFTPICK) {
        json_object_set_new(root, "softpick_eps", json_real(config->softpick_eps));
        json_object_set_new(root, "softpick_lambda", json_real(config->softpick_lambda));
    }
    json_object_set_new(root, "hidden_act", json_string("silu"));
    for (int i = 0; i < N_KEYS; i++)
        if (keys[i].written) json_object_set_new(root, keys[i].name, field_json(config, &keys[i]));
    if (config->window > 0) json_object_set_new(root, "sliding_window", json_integer(config->window));
    json_object_set_new(root, "attention_bias", json_false());
    json_object_set_new(root, "mlp_bias", json_false());
    json_object_set_new(root, "torch_dtype", json_string("float32"));
    sp_status status = sp_json_format(json, root, 0);
    json_decref(root);
    return status;
}
