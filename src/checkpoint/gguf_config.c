/* Keys of a GGUF file of LLaMA's kind and the keys of config.json: one table, read both ways.  As in config.json a key
 * of the architecture that is in no row is an error, since what is ignored may change what the model computes. */
#define _POSIX_C_SOURCE 200809L
#include "checkpoint/gguf_model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

enum { KEY_BYTES = 128 };

/* ---- architectures --------------------------------------------------------------------------------------------- */

static const sp_gguf_architecture architectures[] = {
    {"llama", "llama", true},
    {"qwen2", "qwen2", false},
    {"qwen3", "qwen3", false},
    {"softpick-llama", "softpick_llama", false},
};
enum { N_ARCHITECTURES = sizeof architectures / sizeof *architectures };

sp_status sp_gguf_architecture_of(const sp_gguf_architecture **out, const sp_gguf *file) {
    const char *name = NULL;
    SP_TRY(sp_gguf_text(file, "general.architecture", &name));
    SP_REQUIRE(name, SP_BAD_FILE, "%s: key general.architecture is missing", sp_gguf_source(file));
    for (int i = 0; i < N_ARCHITECTURES; i++) {
        *out = &architectures[i];
        if (strcmp(name, architectures[i].name) == 0) return SP_OK;
    }
    return sp_fail(SP_UNSUPPORTED,
                   "%s: general.architecture is %.60s: llama, qwen2, qwen3 and softpick-llama are supported",
                   sp_gguf_source(file), name);
}

sp_status sp_gguf_architecture_for(const sp_gguf_architecture **out, const json_t *config, const char *source) {
    const char *type = json_string_value(json_object_get(config, "model_type"));
    SP_REQUIRE(type, SP_BAD_ARGUMENT, "%s: its config has no model_type", source);
    *out = &architectures[N_ARCHITECTURES - 1]; /* Mistral's window, too: llama's other readers leave it out */
    for (int i = 0; i < N_ARCHITECTURES; i++)
        if (strcmp(type, architectures[i].model_type) == 0) *out = &architectures[i];
    return SP_OK;
}

/* ---- keys ------------------------------------------------------------------------------------------------------ */

typedef enum value_kind {
    VALUE_COUNT,
    VALUE_NUMBER,
    VALUE_FLAG,
    VALUE_TEXT,
    VALUE_HEAD_WIDTH,
    VALUE_HARMLESS
} value_kind;

/* Keys that follow "ARCHITECTURE.". */
static const struct key_row {
    const char *gguf, *config;
    value_kind kind;
    bool required, own; /* own: in files of our architecture alone */
} keys[] = {
    {"context_length", "max_position_embeddings", VALUE_COUNT, true, false},
    {"embedding_length", "hidden_size", VALUE_COUNT, true, false},
    {"block_count", "num_hidden_layers", VALUE_COUNT, true, false},
    {"feed_forward_length", "intermediate_size", VALUE_COUNT, true, false},
    {"attention.head_count", "num_attention_heads", VALUE_COUNT, true, false},
    {"attention.head_count_kv", "num_key_value_heads", VALUE_COUNT, false, false},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", VALUE_NUMBER, true, false},
    {"rope.freq_base", "rope_theta", VALUE_NUMBER, false, false},
    {"vocab_size", "vocab_size", VALUE_COUNT, false, false},
    {"attention.key_length", "head_dim", VALUE_HEAD_WIDTH, false, false},
    {"attention.value_length", "head_dim", VALUE_HEAD_WIDTH, false, false},
    {"rope.dimension_count", "head_dim", VALUE_HEAD_WIDTH, false, false},
    {"attention.function", "attention_function", VALUE_TEXT, true, true},
    {"attention.softpick_eps", "softpick_eps", VALUE_NUMBER, false, true},
    {"attention.softpick_lambda", "softpick_lambda", VALUE_NUMBER, false, true},
    {"attention.row_factor", "attention_row_factor", VALUE_FLAG, false, true},
    {"attention.qk_norm_eps", "qk_norm_eps", VALUE_NUMBER, false, true},
    {"attention.sliding_window", "sliding_window", VALUE_COUNT, false, true},
    /* read by code below, or of no effect on what is computed */
    {"rope.scaling.type", NULL, VALUE_HARMLESS, false, false},
    {"rope.scaling.factor", NULL, VALUE_HARMLESS, false, false},
    {"rope.scale_linear", NULL, VALUE_HARMLESS, false, false},
    {"rope.scaling.original_context_length", NULL, VALUE_HARMLESS, false, false},
    {"rope.scaling.finetuned", NULL, VALUE_HARMLESS, false, false},
    {"expert_count", NULL, VALUE_HARMLESS, false, false},
    {"expert_used_count", NULL, VALUE_HARMLESS, false, false},
    {"tensor_data_layout", NULL, VALUE_HARMLESS, false, false},
};
enum { N_KEYS = sizeof keys / sizeof *keys };

static const char *full_key(char out[KEY_BYTES], const sp_gguf_architecture *architecture, const char *key) {
    snprintf(out, KEY_BYTES, "%s.%s", architecture->name, key);
    return out;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

typedef struct reading {
    const sp_gguf *file;
    const sp_gguf_architecture *architecture;
    json_t *config;
} reading;

/* A float as a person wrote it: 1e-05, not 9.99999974738e-06. */
static double shortest(double value) {
    char text[32];
    if ((double)(float)value < value || (double)(float)value > value) return value;
    for (int digits = 6; digits < 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        float back = strtof(text, NULL);
        if (back >= (float)value && back <= (float)value) break;
    }
    return strtod(text, NULL);
}

static bool is_own(const sp_gguf_architecture *architecture) {
    return strcmp(architecture->model_type, "softpick_llama") == 0;
}

static sp_status check_known(const reading *r) {
    size_t length = strlen(r->architecture->name);
    for (int64_t i = 0; i < sp_gguf_n_values(r->file); i++) {
        const char *key = sp_gguf_value_at(r->file, i)->key;
        if (strncmp(key, r->architecture->name, length) != 0 || key[length] != '.') continue;
        int row = 0;
        while (row < N_KEYS &&
               (strcmp(keys[row].gguf, key + length + 1) != 0 || (keys[row].own && !is_own(r->architecture))))
            row++;
        SP_REQUIRE(row < N_KEYS, SP_UNSUPPORTED, "%s: unknown key %.200s", sp_gguf_source(r->file), key);
    }
    return SP_OK;
}

static void put(const reading *r, const char *key, json_t *value) { json_object_set_new(r->config, key, value); }

/* The three widths of a head must be one. */
static sp_status read_head_width(const reading *r, const char *key, const char *name) {
    int64_t width = 0;
    SP_TRY(sp_gguf_integer(r->file, key, &width));
    const json_t *other = json_object_get(r->config, name);
    SP_REQUIRE(!other || json_integer_value(other) == width, SP_UNSUPPORTED,
               "%s: key %s is %" PRId64 ": heads whose keys, values and rotations differ in width are not supported",
               sp_gguf_source(r->file), key, width);
    put(r, name, json_integer(width));
    return SP_OK;
}

static sp_status read_row(const reading *r, const struct key_row *row) {
    char key[KEY_BYTES];
    if (row->kind == VALUE_HARMLESS || (row->own && !is_own(r->architecture))) return SP_OK;
    full_key(key, r->architecture, row->gguf);
    SP_REQUIRE(!row->required || sp_gguf_find(r->file, key), SP_BAD_FILE, "%s: key %s is missing",
               sp_gguf_source(r->file), key);
    if (!sp_gguf_find(r->file, key)) return SP_OK;
    int64_t count = 0;
    double number = 0;
    bool flag = false;
    const char *text = "";
    switch (row->kind) {
    case VALUE_COUNT:
        SP_TRY(sp_gguf_integer(r->file, key, &count));
        put(r, row->config, json_integer(count));
        return SP_OK;
    case VALUE_NUMBER:
        SP_TRY(sp_gguf_number(r->file, key, &number));
        put(r, row->config, sp_json_number(shortest(number)));
        return SP_OK;
    case VALUE_FLAG:
        SP_TRY(sp_gguf_flag(r->file, key, &flag));
        put(r, row->config, json_boolean(flag));
        return SP_OK;
    case VALUE_TEXT:
        SP_TRY(sp_gguf_text(r->file, key, &text));
        put(r, row->config, json_string(text));
        return SP_OK;
    case VALUE_HEAD_WIDTH: return read_head_width(r, key, row->config);
    case VALUE_HARMLESS: return SP_OK;
    }
    return SP_OK;
}

static sp_status read_linear_scaling(const reading *r) {
    char key[KEY_BYTES];
    double factor = 1;
    const char *type = NULL;
    SP_TRY(sp_gguf_number(r->file, full_key(key, r->architecture, "rope.scale_linear"), &factor));
    SP_TRY(sp_gguf_text(r->file, full_key(key, r->architecture, "rope.scaling.type"), &type));
    SP_REQUIRE(!type || strcmp(type, "none") == 0 || strcmp(type, "linear") == 0, SP_UNSUPPORTED,
               "%s: key %s is %.60s: none and linear are supported", sp_gguf_source(r->file), key, type);
    if (type && strcmp(type, "linear") == 0)
        SP_TRY(sp_gguf_number(r->file, full_key(key, r->architecture, "rope.scaling.factor"), &factor));
    if (type && strcmp(type, "none") == 0) factor = 1;
    SP_REQUIRE(factor > 0 && factor < 1e9, SP_BAD_FILE, "%s: its rope scaling has the factor %g",
               sp_gguf_source(r->file), factor);
    if (factor < 1 || factor > 1)
        put(r, "rope_scaling", json_pack("{s:s, s:f}", "rope_type", "linear", "factor", shortest(factor)));
    return SP_OK;
}

static sp_status read_divisors(const reading *r) {
    const char *source = sp_gguf_source(r->file);
    const sp_gguf_tensor *tensor = sp_gguf_find_tensor(r->file, "rope_freqs.weight");
    if (!tensor) return SP_OK;
    int64_t D = json_integer_value(json_object_get(r->config, "head_dim"));
    SP_REQUIRE(tensor->n_dims == 1 && tensor->shape[0] == D / 2 && tensor->format->dtype == SP_DTYPE_F32, SP_BAD_FILE,
               "%s: tensor rope_freqs.weight is not %" PRId64 " numbers of type F32", source, D / 2);
    SP_REQUIRE(!json_object_get(r->config, "rope_scaling"), SP_UNSUPPORTED,
               "%s: positions are scaled twice, by keys and by tensor rope_freqs.weight", source);
    const json_t *theta = json_object_get(r->config, "rope_theta");
    float *divisors = malloc((size_t)tensor->n_bytes);
    SP_REQUIRE(divisors, SP_OUT_OF_MEMORY, "%s: no memory", source);
    memcpy(divisors, tensor->data, (size_t)tensor->n_bytes);
    json_t *scaling;
    sp_status status =
        sp_rope_divisors_to_json(&scaling, divisors, D / 2, theta ? json_number_value(theta) : 10000, source);
    free(divisors);
    if (status == SP_OK) put(r, "rope_scaling", scaling);
    return status;
}

/* What the tensors say: sizes, ties, biases, norms. */
static sp_status read_from_tensors(const reading *r) {
    const char *source = sp_gguf_source(r->file);
    const sp_gguf_tensor *embedding = sp_gguf_find_tensor(r->file, "token_embd.weight");
    SP_REQUIRE(embedding && embedding->n_dims == 2, SP_BAD_FILE, "%s: tensor token_embd.weight is missing", source);
    const json_t *stated = json_object_get(r->config, "vocab_size");
    SP_REQUIRE(!stated || json_integer_value(stated) == embedding->shape[0], SP_BAD_FILE,
               "%s: tensor token_embd.weight has %" PRId64 " rows, the key vocab_size says %" PRId64, source,
               embedding->shape[0], (int64_t)json_integer_value(stated));
    put(r, "vocab_size", json_integer(embedding->shape[0]));
    put(r, "tie_word_embeddings", json_boolean(!sp_gguf_find_tensor(r->file, "output.weight")));
    if (sp_gguf_find_tensor(r->file, "blk.0.attn_output.bias"))
        put(r, "attention_bias", json_true());
    else if (sp_gguf_find_tensor(r->file, "blk.0.attn_q.bias") && strcmp(r->architecture->name, "qwen2") != 0)
        put(r, "qkv_bias", json_true());
    if (sp_gguf_find_tensor(r->file, "blk.0.ffn_gate.bias")) put(r, "mlp_bias", json_true());
    if (is_own(r->architecture) && sp_gguf_find_tensor(r->file, "blk.0.attn_q_norm.weight"))
        put(r, "qk_norm", json_true());
    return SP_OK;
}

const struct sp_gguf_mark sp_gguf_marks[SP_GGUF_MARKS] = {
    {"tokenizer.ggml.bos_token_id", "bos_token_id", 0},     {"tokenizer.ggml.eos_token_id", "eos_token_id", 0},
    {"tokenizer.ggml.eot_token_id", "eos_token_id", 1},     {"tokenizer.ggml.eom_token_id", "eos_token_id", 2},
    {"tokenizer.ggml.padding_token_id", "pad_token_id", 0},
};

static bool holds(const json_t *list, int64_t id) {
    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_integer_value(json_array_get(list, i)) == id) return true;
    return false;
}

/* Texts end at any of three tokens: a list, if they are more than one. */
static sp_status read_tokens(const reading *r) {
    json_t *ends = json_array();
    sp_status status = SP_OK;
    for (int i = 0; i < SP_GGUF_MARKS; i++) {
        int64_t id = -1;
        SP_TRY_OR_DONE(sp_gguf_integer(r->file, sp_gguf_marks[i].gguf, &id));
        bool is_token = id >= 0 && id < INT32_MAX, is_end = strcmp(sp_gguf_marks[i].config, "eos_token_id") == 0;
        if (!is_end) put(r, sp_gguf_marks[i].config, is_token ? json_integer(id) : json_null());
        if (is_end && is_token && !holds(ends, id)) json_array_append_new(ends, json_integer(id));
    }
    size_t n = json_array_size(ends);
    put(r, "eos_token_id", n == 0 ? json_null() : json_incref(n == 1 ? json_array_get(ends, 0) : ends));
done:
    json_decref(ends);
    return status;
}

static sp_status read_all(const reading *r) {
    char key[KEY_BYTES];
    int64_t n_experts = 0, n_parts = 1;
    const char *source = sp_gguf_source(r->file);
    SP_TRY(sp_gguf_integer(r->file, "split.count", &n_parts));
    SP_REQUIRE(n_parts <= 1, SP_UNSUPPORTED,
               "%s: one of %" PRId64 " parts of a model: llama.cpp's llama-gguf-split --merge makes them one", source,
               n_parts);
    SP_TRY(sp_gguf_integer(r->file, full_key(key, r->architecture, "expert_count"), &n_experts));
    SP_REQUIRE(n_experts == 0, SP_UNSUPPORTED, "%s: %s is %" PRId64 ": mixtures of experts are not supported", source,
               key, n_experts);
    SP_TRY(check_known(r));
    put(r, "model_type", json_string(r->architecture->model_type));
    for (int i = 0; i < N_KEYS; i++) SP_TRY(read_row(r, &keys[i]));
    int64_t width = json_integer_value(json_object_get(r->config, "hidden_size"));
    int64_t n_heads = json_integer_value(json_object_get(r->config, "num_attention_heads"));
    SP_REQUIRE(n_heads > 0, SP_BAD_FILE, "%s: key %s is %" PRId64, source,
               full_key(key, r->architecture, "attention.head_count"), n_heads);
    if (!json_object_get(r->config, "head_dim")) put(r, "head_dim", json_integer(width / n_heads));
    if (!json_object_get(r->config, "num_key_value_heads")) put(r, "num_key_value_heads", json_integer(n_heads));
    int64_t n_kv_heads = json_integer_value(json_object_get(r->config, "num_key_value_heads"));
    SP_REQUIRE(n_kv_heads > 0, SP_BAD_FILE, "%s: key %s is %" PRId64, source,
               full_key(key, r->architecture, "attention.head_count_kv"), n_kv_heads);
    put(r, "hidden_act", json_string("silu"));
    SP_TRY(read_from_tensors(r));
    SP_TRY(read_linear_scaling(r));
    SP_TRY(read_divisors(r));
    return read_tokens(r);
}

sp_status sp_gguf_read_config(json_t **config, const sp_gguf *file, const sp_gguf_architecture *architecture) {
    *config = json_object();
    SP_REQUIRE(*config, SP_OUT_OF_MEMORY, "%s: no memory for its config", sp_gguf_source(file));
    sp_status status = read_all(&(reading){file, architecture, *config});
    if (status == SP_OK) return SP_OK;
    json_decref(*config);
    *config = NULL;
    return status;
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

static sp_status write_row(sp_gguf_writer *writer, const struct key_row *row, const json_t *value, const char *key) {
    switch (row->kind) {
    case VALUE_COUNT:
    case VALUE_HEAD_WIDTH: return sp_gguf_add_u32(writer, key, json_integer_value(value));
    case VALUE_NUMBER: return sp_gguf_add_f32(writer, key, json_number_value(value));
    case VALUE_FLAG: return sp_gguf_add_flag(writer, key, json_is_true(value));
    case VALUE_TEXT: return sp_gguf_add_text(writer, key, json_string_value(value));
    case VALUE_HARMLESS: return SP_OK;
    }
    return SP_OK;
}

/* What the row takes from config.json; NULL where there is nothing to say. */
static const json_t *value_for(const struct key_row *row, const json_t *config,
                               const sp_gguf_architecture *architecture) {
    if (!row->config || (row->own && !is_own(architecture))) return NULL;
    const json_t *value = json_object_get(config, row->config);
    return json_is_null(value) ? NULL : value;
}

static sp_status write_scaling(sp_gguf_writer *writer, const json_t *config, const sp_gguf_architecture *architecture,
                               const char *source) {
    char key[KEY_BYTES];
    const json_t *scaling = json_object_get(config, "rope_scaling");
    const char *type = json_string_value(json_object_get(scaling, "rope_type"));
    if (!type || strcmp(type, "llama3") == 0) return SP_OK;
    SP_REQUIRE(strcmp(type, "linear") == 0, SP_UNSUPPORTED, "%s: rope_scaling %.60s has no place in a GGUF file",
               source, type);
    SP_TRY(sp_gguf_add_text(writer, full_key(key, architecture, "rope.scaling.type"), type));
    double factor = json_number_value(json_object_get(scaling, "factor"));
    return sp_gguf_add_f32(writer, full_key(key, architecture, "rope.scaling.factor"), factor);
}

sp_status sp_gguf_write_config(sp_gguf_writer *writer, const json_t *config, const sp_gguf_architecture *architecture,
                               const char *source) {
    char key[KEY_BYTES];
    for (int i = 0; i < N_KEYS; i++) {
        const json_t *value = value_for(&keys[i], config, architecture);
        SP_REQUIRE(value || !keys[i].required || (keys[i].own && !is_own(architecture)), SP_BAD_ARGUMENT,
                   "%s: its config has no %s", source, keys[i].config);
        if (value) SP_TRY(write_row(writer, &keys[i], value, full_key(key, architecture, keys[i].gguf)));
    }
    return write_scaling(writer, config, architecture, source);
}
