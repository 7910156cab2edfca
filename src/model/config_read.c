/* config.json in LLaMA's, Mistral's, Qwen's, fla's and our own words (docs/config.md).  The words stand in
 * config_tables.c; here is what it takes to understand those that are more than a value. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/status.h"
#include "model/config_tables.h"

/* What is being read. */
typedef struct reading {
    const json_t *root;
    const char *source; /* stands in messages */
    const sp_config_family *family;
    sp_model_config config;
} reading;

/* The value of a key, NULL where it is absent or null. */
static const json_t *value_of(const reading *r, const char *name) {
    const json_t *value = json_object_get(r->root, name);
    return json_is_null(value) ? NULL : value;
}

static bool text_is(const json_t *value, const char *text) {
    return json_is_string(value) && strcmp(json_string_value(value), text) == 0;
}

/* ---- plain values ------------------------------------------------------------------------------------------------ */

static sp_status read_count(int64_t *out, const char *name, const json_t *value, const char *source) {
    SP_REQUIRE(json_is_integer(value), SP_BAD_FILE, "%s: \"%s\" is not a whole number", source, name);
    *out = json_integer_value(value);
    return SP_OK;
}

static sp_status read_number(double *out, const char *name, const json_t *value, const char *source) {
    SP_REQUIRE(json_is_number(value), SP_BAD_FILE, "%s: \"%s\" is not a number", source, name);
    *out = json_number_value(value);
    return SP_OK;
}

static sp_status read_flag(bool *out, const char *name, const json_t *value, const char *source) {
    SP_REQUIRE(json_is_boolean(value), SP_BAD_FILE, "%s: \"%s\" is not true or false", source, name);
    *out = json_is_true(value);
    return SP_OK;
}

static sp_status read_token(int32_t *out, const char *name, const json_t *value, const char *source) {
    SP_REQUIRE(json_is_integer(value) && json_integer_value(value) >= -1 && json_integer_value(value) < INT32_MAX,
               SP_BAD_FILE, "%s: \"%s\" is not a token id", source, name);
    *out = (int32_t)json_integer_value(value);
    return SP_OK;
}

/* Whole numbers are their like with a decimal point. */
static bool same_value(const json_t *a, const json_t *b) {
    if (json_is_number(a) && json_is_number(b)) {
        double x = json_number_value(a), y = json_number_value(b);
        return x >= y && x <= y;
    }
    return json_equal(a, b);
}

static sp_status require_value(const sp_config_key *key, const json_t *value, const char *source) {
    json_t *required = json_loads(key->required, JSON_DECODE_ANY, NULL);
    bool same = required && same_value(required, value);
    json_decref(required);
    SP_REQUIRE(same, SP_UNSUPPORTED, "%s: \"%s\" must be %s: other values are not supported", source, key->name,
               key->required);
    return SP_OK;
}

static sp_status read_key(reading *r, const sp_config_key *key, const json_t *value) {
    void *field = (char *)&r->config + key->field;
    if (json_is_null(value)) {
        if (key->kind == SP_CONFIG_TOKEN) *(int32_t *)field = -1;
        return SP_OK;
    }
    switch (key->kind) {
    case SP_CONFIG_COUNT: return read_count(field, key->name, value, r->source);
    case SP_CONFIG_NUMBER: return read_number(field, key->name, value, r->source);
    case SP_CONFIG_FLAG: return read_flag(field, key->name, value, r->source);
    case SP_CONFIG_TOKEN: return read_token(field, key->name, value, r->source);
    case SP_CONFIG_MUST_BE: return require_value(key, value, r->source);
    case SP_CONFIG_SPECIAL:
    case SP_CONFIG_IGNORED: return SP_OK;
    }
    return SP_OK;
}

static sp_status read_keys(reading *r) {
    const char *name;
    const json_t *value;
    json_object_foreach((json_t *)(uintptr_t)r->root, name, value) {
        const sp_config_key *key = sp_config_key_find(name);
        SP_REQUIRE(key, SP_BAD_FILE, "%s: unknown key \"%s\"", r->source, name);
        SP_TRY(read_key(r, key, value));
    }
    return SP_OK;
}

/* Two keys that fill the same field must say the same. */
static sp_status check_twins(const reading *r) {
    const sp_config_key *a, *b;
    for (int i = 0; (a = sp_config_key_at(i)); i++) {
        const json_t *first = json_object_get(r->root, a->name);
        if (!first || a->kind > SP_CONFIG_TOKEN) continue;
        for (int j = i + 1; (b = sp_config_key_at(j)); j++) {
            const json_t *second = json_object_get(r->root, b->name);
            if (!second || b->kind > SP_CONFIG_TOKEN || a->field != b->field) continue;
            SP_REQUIRE(same_value(first, second), SP_BAD_FILE, "%s: \"%s\" and \"%s\" disagree", r->source, a->name,
                       b->name);
        }
    }
    return SP_OK;
}

/* eos_token_id may be a list. */
static sp_status read_eos(reading *r) {
    static const char name[] = "eos_token_id";
    const json_t *value = json_object_get(r->root, name);
    if (!value) return SP_OK;
    r->config.eos = -1;
    if (json_is_null(value)) return SP_OK;
    if (!json_is_array(value)) return read_token(&r->config.eos, name, value, r->source);
    int64_t n = (int64_t)json_array_size(value);
    SP_REQUIRE(n >= 1 && n <= 1 + SP_MODEL_MORE_EOS, SP_UNSUPPORTED,
               "%s: \"%s\" has %" PRId64 " tokens: 1 to %d are supported", r->source, name, n, 1 + SP_MODEL_MORE_EOS);
    for (int64_t i = 0; i < n; i++) {
        int32_t *token = i == 0 ? &r->config.eos : &r->config.more_eos[i - 1];
        SP_TRY(read_token(token, name, json_array_get(value, (size_t)i), r->source));
        SP_REQUIRE(*token >= 0, SP_BAD_FILE, "%s: \"%s\" lists a token below 0", r->source, name);
    }
    r->config.n_more_eos = n - 1;
    return SP_OK;
}

/* ---- which attention --------------------------------------------------------------------------------------------- */

static sp_status read_family(reading *r) {
    const json_t *type = json_object_get(r->root, "model_type");
    SP_REQUIRE(json_is_string(type), SP_BAD_FILE, "%s: \"model_type\" is missing", r->source);
    const char *name = json_string_value(type);
    r->family = sp_config_family_find(name);
    SP_REQUIRE(r->family, SP_UNSUPPORTED,
               "%s: \"model_type\" is \"%s\": llama, mistral, qwen2, qwen3, transformer (fla) and softpick_llama are "
               "supported",
               r->source, name);
    SP_REQUIRE(!r->family->refused, SP_UNSUPPORTED, "%s: \"model_type\" is \"%s\", which is not supported: %s",
               r->source, name, r->family->refused);
    SP_REQUIRE(strcmp(name, "softpick_llama") != 0 || value_of(r, "attention_function"), SP_BAD_FILE,
               "%s: \"attention_function\" is missing", r->source);
    r->config = r->family->defaults;
    return SP_OK;
}

static sp_status read_fla_attention(reading *r) {
    const json_t *fla = value_of(r, "attn_impl");
    if (!fla) return SP_OK;
    SP_REQUIRE(json_is_string(fla), SP_BAD_FILE, "%s: \"attn_impl\" is not a text", r->source);
    const char *name = json_string_value(fla);
    const sp_config_attention *found = sp_config_attention_find(name);
    SP_REQUIRE(found, SP_UNSUPPORTED, "%s: \"attn_impl\" is \"%s\": no such attention here", r->source, name);
    SP_REQUIRE(!found->refused, SP_UNSUPPORTED, "%s: \"attn_impl\" is \"%s\", which is not supported: %s", r->source,
               name, found->refused);
    SP_REQUIRE(!value_of(r, "attention_row_factor") || r->config.row_factor == found->row_factor, SP_BAD_FILE,
               "%s: \"attn_impl\" is \"%s\" and \"attention_row_factor\" disagrees", r->source, name);
    SP_REQUIRE(!r->family->names_attention || found->normalizer == r->config.attention_function, SP_BAD_FILE,
               "%s: \"attn_impl\" is \"%s\" but \"model_type\" is \"%s\"", r->source, name, r->family->model_type);
    bool windowed = text_is(fla, "flash_attn") || found->normalizer == SP_NORMALIZER_SOFTMAX_SINK;
    SP_REQUIRE(!value_of(r, "window_size") || windowed, SP_UNSUPPORTED,
               "%s: \"window_size\" with \"attn_impl\" \"%s\", which runs without a window in fla", r->source, name);
    r->config.attention_function = found->normalizer;
    r->config.row_factor = found->row_factor;
    if (!value_of(r, "softpick_lambda")) r->config.softpick_lambda = found->lambda;
    return SP_OK;
}

/* After fla's key: ours, which must not contradict it. */
static sp_status read_own_attention(reading *r) {
    const json_t *own = value_of(r, "attention_function"), *fla = value_of(r, "attn_impl");
    if (!own) return SP_OK;
    SP_REQUIRE(json_is_string(own), SP_BAD_FILE, "%s: \"attention_function\" is not a text", r->source);
    sp_normalizer normalizer;
    const char *name = json_string_value(own);
    if (sp_normalizer_find(&normalizer, name) != SP_OK)
        return sp_fail(SP_BAD_FILE, "%s: \"attention_function\" is \"%s\": no such normalizer", r->source, name);
    bool same = normalizer == r->config.attention_function;
    SP_REQUIRE(!fla || same, SP_BAD_FILE, "%s: \"attention_function\" is \"%s\" but \"attn_impl\" is \"%s\"", r->source,
               name, json_string_value(fla));
    SP_REQUIRE(!r->family->names_attention || same, SP_BAD_FILE,
               "%s: \"attention_function\" is \"%s\" but \"model_type\" is \"%s\"", r->source, name,
               r->family->model_type);
    r->config.attention_function = normalizer;
    return SP_OK;
}

/* What the caller asked for decides where the config is silent, and must agree where it is not. */
static sp_status read_asked_attention(reading *r, const char *asked) {
    if (!asked) return SP_OK;
    sp_normalizer normalizer;
    SP_TRY(sp_normalizer_find(&normalizer, asked));
    const char *named = value_of(r, "attention_function") ? "attention_function"
                        : value_of(r, "attn_impl")        ? "attn_impl"
                        : r->family->names_attention      ? "model_type"
                                                          : NULL;
    SP_REQUIRE(!named || normalizer == r->config.attention_function, SP_BAD_FILE,
               "%s: the model's attention is %s (\"%s\"), not %s as asked for", r->source,
               sp_normalizer_name(r->config.attention_function), named, asked);
    r->config.attention_function = normalizer;
    return SP_OK;
}

/* ---- biases and norms -------------------------------------------------------------------------------------------- */

static bool family_is(const reading *r, const char *type) { return strcmp(r->family->model_type, type) == 0; }

/* attention_bias (LLaMA, Qwen3): of q, k, v and the output.  qkv_bias (fla): of q, k and v.  Qwen2 has those always. */
static sp_status read_biases(reading *r) {
    bool both = false, inputs = r->family->defaults.qkv_bias;
    const json_t *attention = value_of(r, "attention_bias"), *qkv = value_of(r, "qkv_bias");
    if (attention) SP_TRY(read_flag(&both, "attention_bias", attention, r->source));
    if (qkv) SP_TRY(read_flag(&inputs, "qkv_bias", qkv, r->source));
    bool known = family_is(r, "llama") || family_is(r, "qwen3") || family_is(r, "softpick_llama");
    SP_REQUIRE(!both || known, SP_UNSUPPORTED, "%s: \"attention_bias\" in a model of type %s, which has none",
               r->source, r->family->model_type);
    known = family_is(r, "llama") || family_is(r, "softpick_llama");
    SP_REQUIRE(!r->config.ffn_bias || known, SP_UNSUPPORTED, "%s: \"mlp_bias\" in a model of type %s, which has none",
               r->source, r->family->model_type);
    known = !r->family->architecture || family_is(r, "softpick_llama");
    SP_REQUIRE(r->config.qk_norm == r->family->defaults.qk_norm || known, SP_UNSUPPORTED,
               "%s: \"qk_norm\" in a model of type %s, which other programs run without it", r->source,
               r->family->model_type);
    r->config.qkv_bias = inputs || both;
    r->config.out_bias = both;
    if (r->config.qk_norm_eps <= 0 && !value_of(r, "qk_norm_eps")) r->config.qk_norm_eps = r->config.norm_eps;
    return SP_OK;
}

/* ---- sliding windows --------------------------------------------------------------------------------------------- */

/* Whether all layers of the list see a window alone. */
static sp_status read_layer_types(const reading *r, const json_t *types, bool *windowed) {
    size_t n = json_array_size(types), n_windowed = 0;
    SP_REQUIRE(json_is_array(types) && (int64_t)n == r->config.n_layers, SP_BAD_FILE,
               "%s: \"layer_types\" is not a list of the %" PRId64 " layers", r->source, r->config.n_layers);
    for (size_t i = 0; i < n; i++) {
        const json_t *type = json_array_get(types, i);
        bool window = text_is(type, "sliding_attention");
        SP_REQUIRE(window || text_is(type, "full_attention"), SP_UNSUPPORTED,
                   "%s: \"layer_types\" names something else than full_attention and sliding_attention", r->source);
        n_windowed += window;
    }
    SP_REQUIRE(n_windowed == 0 || n_windowed == n, SP_UNSUPPORTED,
               "%s: \"layer_types\" gives some layers a window and some none: not supported", r->source);
    *windowed = n_windowed > 0;
    return SP_OK;
}

/* Qwen's: the layers from max_window_layers on have a window, if use_sliding_window is on. */
static sp_status read_qwen_window(reading *r) {
    bool used = false;
    int64_t first = 28;
    const json_t *use = value_of(r, "use_sliding_window"), *layers = value_of(r, "max_window_layers");
    if (use) SP_TRY(read_flag(&used, "use_sliding_window", use, r->source));
    if (layers) SP_TRY(read_count(&first, "max_window_layers", layers, r->source));
    if (value_of(r, "layer_types")) return SP_OK; /* that list says it */
    if (!used || first >= r->config.n_layers) {
        r->config.window = 0;
        return SP_OK;
    }
    SP_REQUIRE(first <= 0, SP_UNSUPPORTED,
               "%s: \"max_window_layers\" gives some layers a window and some none: not supported", r->source);
    if (!value_of(r, "sliding_window") && !json_object_get(r->root, "sliding_window")) r->config.window = 4096;
    return SP_OK;
}

static sp_status read_window(reading *r) {
    const json_t *stated = json_object_get(r->root, "sliding_window"), *types = value_of(r, "layer_types");
    bool windowed = false;
    if (json_is_null(stated)) r->config.window = 0;
    SP_REQUIRE(!value_of(r, "sliding_window") || !family_is(r, "llama") || value_of(r, "attention_function"),
               SP_UNSUPPORTED, "%s: \"sliding_window\" in a model of type llama, which other programs run without",
               r->source);
    if (family_is(r, "qwen2") || family_is(r, "qwen3")) SP_TRY(read_qwen_window(r));
    if (!types) return SP_OK;
    SP_TRY(read_layer_types(r, types, &windowed));
    SP_REQUIRE(!windowed || r->config.window > 0, SP_BAD_FILE,
               "%s: \"layer_types\" asks for a window, \"sliding_window\" gives none", r->source);
    if (!windowed) r->config.window = 0;
    return SP_OK;
}

/* ---- rotary positions -------------------------------------------------------------------------------------------- */

/* What rope_parameters (transformers 5) or rope_scaling (before) says. */
typedef struct rope {
    sp_rope_scaling scaling;
    double factor, low, high, theta; /* theta 0: not said */
    int64_t original;
} rope;

static sp_status read_rope_type(rope *out, const reading *r, const char *name, const json_t *object) {
    const json_t *type = json_object_get(object, "rope_type");
    if (!type) type = json_object_get(object, "type");
    if (!type || text_is(type, "default")) return SP_OK;
    out->scaling = text_is(type, "linear") ? SP_ROPE_SCALING_LINEAR : SP_ROPE_SCALING_LLAMA3;
    SP_REQUIRE(json_is_string(type) && (text_is(type, "linear") || text_is(type, "llama3")), SP_UNSUPPORTED,
               "%s: \"%s\" has the type \"%s\": default, linear and llama3 are supported", r->source, name,
               json_is_string(type) ? json_string_value(type) : "?");
    return SP_OK;
}

static sp_status read_rope_key(rope *out, const reading *r, const char *name, const char *key, const json_t *value) {
    const struct {
        const char *name;
        double *number;
    } numbers[] = {
        {"rope_theta", &out->theta},
        {"factor", &out->factor},
        {"low_freq_factor", &out->low},
        {"high_freq_factor", &out->high},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (strcmp(key, numbers[i].name) == 0) return read_number(numbers[i].number, key, value, r->source);
    if (strcmp(key, "original_max_position_embeddings") == 0) return read_count(&out->original, key, value, r->source);
    if (strcmp(key, "partial_rotary_factor") == 0)
        return require_value(sp_config_key_find("partial_rotary_factor"), value, r->source);
    bool type = strcmp(key, "rope_type") == 0 || strcmp(key, "type") == 0;
    SP_REQUIRE(type, SP_BAD_FILE, "%s: unknown key \"%s\" in \"%s\"", r->source, key, name);
    return SP_OK;
}

static sp_status read_rope_object(rope *out, const reading *r, const char *name) {
    *out = (rope){.factor = 1};
    const json_t *object = value_of(r, name), *value;
    const char *key;
    if (!object) return SP_OK;
    SP_REQUIRE(json_is_object(object), SP_BAD_FILE, "%s: \"%s\" is not an object", r->source, name);
    SP_TRY(read_rope_type(out, r, name, object));
    json_object_foreach((json_t *)(uintptr_t)object, key, value) if (!json_is_null(value))
        SP_TRY(read_rope_key(out, r, name, key, value));
    SP_REQUIRE(out->scaling == SP_ROPE_SCALING_NONE || json_object_get(object, "factor"), SP_BAD_FILE,
               "%s: \"%s\" has no \"factor\"", r->source, name);
    return SP_OK;
}

static bool same_number(double a, double b) { return a >= b && a <= b; }

static bool same_rope(const rope *a, const rope *b) {
    return a->scaling == b->scaling && same_number(a->factor, b->factor) && same_number(a->low, b->low) &&
           same_number(a->high, b->high) && a->original == b->original;
}

static sp_status read_rope(reading *r) {
    rope now, before;
    SP_TRY(read_rope_object(&now, r, "rope_parameters"));
    SP_TRY(read_rope_object(&before, r, "rope_scaling"));
    bool has_now = value_of(r, "rope_parameters"), has_before = value_of(r, "rope_scaling");
    SP_REQUIRE(!has_now || !has_before || same_rope(&now, &before), SP_BAD_FILE,
               "%s: \"rope_scaling\" and \"rope_parameters\" disagree", r->source);
    const rope *said = has_now ? &now : &before;
    double theta = said->theta;
    SP_REQUIRE(theta <= 0 || !value_of(r, "rope_theta") || same_number(theta, r->config.rope_theta), SP_BAD_FILE,
               "%s: \"rope_theta\" and \"rope_parameters\" disagree", r->source);
    if (theta > 0) r->config.rope_theta = theta;
    r->config.rope_scaling = said->scaling;
    if (said->scaling == SP_ROPE_SCALING_NONE) return SP_OK;
    r->config.rope_factor = said->factor;
    if (said->scaling == SP_ROPE_SCALING_LINEAR) return SP_OK;
    r->config.rope_low_factor = said->low;
    r->config.rope_high_factor = said->high;
    r->config.rope_original_positions = said->original;
    return SP_OK;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

/* Sizes that follow from others where their key is absent. */
static sp_status fill_sizes(reading *r) {
    sp_model_config *c = &r->config;
    bool null_heads = json_is_null(json_object_get(r->root, "num_key_value_heads"));
    if (c->n_kv_heads == 0 || null_heads) c->n_kv_heads = c->n_heads;
    if (c->head_width == 0) {
        SP_REQUIRE(c->n_heads > 0 && c->width % c->n_heads == 0, SP_BAD_FILE,
                   "%s: \"hidden_size\" %" PRId64 " is not a multiple of the %" PRId64 " heads", r->source, c->width,
                   c->n_heads);
        c->head_width = c->width / c->n_heads;
    }
    if (c->ffn_width == 0) {
        const json_t *ratio = value_of(r, "hidden_ratio");
        double factor = json_is_number(ratio) ? json_number_value(ratio) : 4;
        SP_REQUIRE(factor > 0 && factor < 1024 && c->width > 0 && c->width < (1 << 20), SP_BAD_FILE,
                   "%s: \"hidden_ratio\" or \"hidden_size\" is out of range", r->source);
        int64_t width = (int64_t)((double)c->width * factor * 2 / 3);
        c->ffn_width = (width + 255) / 256 * 256;
    }
    const json_t *activation = value_of(r, "hidden_act");
    SP_REQUIRE(!activation || text_is(activation, "silu") || text_is(activation, "swish"), SP_UNSUPPORTED,
               "%s: \"hidden_act\" must be \"silu\"", r->source);
    return SP_OK;
}

static sp_status read_all(reading *r, const char *attention) {
    SP_REQUIRE(json_is_object(r->root), SP_BAD_FILE, "%s: not a JSON object", r->source);
    SP_TRY(read_family(r));
    SP_TRY(read_keys(r));
    SP_TRY(check_twins(r));
    SP_TRY(read_eos(r));
    SP_TRY(read_rope(r));
    SP_TRY(read_biases(r));
    SP_TRY(read_window(r));
    SP_TRY(read_fla_attention(r));
    SP_TRY(read_own_attention(r));
    SP_TRY(read_asked_attention(r, attention));
    SP_TRY(fill_sizes(r));
    if (sp_model_config_check(&r->config) != SP_OK) return sp_fail(SP_BAD_FILE, "%s: %s", r->source, sp_last_message());
    return SP_OK;
}

sp_status sp_model_config_parse_as(sp_model_config *out, const char *json, const char *source, const char *attention) {
    json_t *root;
    SP_TRY(sp_json_parse(&root, json, (int64_t)strlen(json), source));
    reading r = {.root = root, .source = source};
    sp_status status = read_all(&r, attention);
    if (status == SP_OK) *out = r.config;
    json_decref(root);
    return status;
}

sp_status sp_model_config_parse(sp_model_config *out, const char *json, const char *source) {
    return sp_model_config_parse_as(out, json, source, NULL);
}
