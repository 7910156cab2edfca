/* A model's configuration: defaults, checks, counts.  config_read.c and config_write.c have its text, config.json. */
#include "softpick/model.h"

#include <inttypes.h>
#include <math.h>

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
        .qk_norm_eps = 1e-6,
        .rope_factor = 1,
        .attention_function = SP_NORMALIZER_SOFTPICK,
        .softpick_eps = 1e-6,
        .softpick_lambda = 1,
    };
}

static sp_status check_sizes(const sp_model_config *c) {
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
    /* Each size may be large, not all together: numbers and bytes are counted in 63 bits. */
    double per_layer =
        (double)c->width * (4.0 * (double)c->n_heads * (double)c->head_width + 4.0 * (double)c->ffn_width);
    double numbers = (double)c->n_layers * per_layer + 2.0 * (double)c->vocabulary * (double)c->width;
    SP_REQUIRE(numbers < 0x1p56, SP_BAD_ARGUMENT, "a model of %.3g numbers is larger than any memory", numbers);
    return SP_OK;
}

static sp_status check_rope(const sp_model_config *c) {
    SP_REQUIRE(c->rope_theta >= 1 && isfinite(c->rope_theta), SP_BAD_ARGUMENT, "rope_theta is %g: not at least 1",
               c->rope_theta);
    SP_REQUIRE((int)c->rope_scaling >= 0 && c->rope_scaling < SP_ROPE_SCALING_COUNT, SP_BAD_ARGUMENT,
               "rope_scaling has the value %d: not one of its kinds", (int)c->rope_scaling);
    if (c->rope_scaling == SP_ROPE_SCALING_NONE) return SP_OK;
    SP_REQUIRE(c->rope_factor >= 1 && isfinite(c->rope_factor), SP_BAD_ARGUMENT,
               "rope_scaling's factor is %g: not at least 1", c->rope_factor);
    if (c->rope_scaling == SP_ROPE_SCALING_LINEAR) return SP_OK;
    SP_REQUIRE(c->rope_low_factor > 0 && c->rope_high_factor > c->rope_low_factor && isfinite(c->rope_high_factor),
               SP_BAD_ARGUMENT, "rope_scaling's low_freq_factor %g and high_freq_factor %g do not rise above 0",
               c->rope_low_factor, c->rope_high_factor);
    SP_REQUIRE(c->rope_original_positions >= 1, SP_BAD_ARGUMENT,
               "rope_scaling's original_max_position_embeddings is %" PRId64 ": not at least 1",
               c->rope_original_positions);
    return SP_OK;
}

static sp_status check_attention(const sp_model_config *c) {
    SP_REQUIRE(c->softpick_eps >= 0 && isfinite(c->softpick_eps), SP_BAD_ARGUMENT, "softpick_eps is %g: not at least 0",
               c->softpick_eps);
    SP_REQUIRE(c->softpick_lambda >= 0 && isfinite(c->softpick_lambda), SP_BAD_ARGUMENT,
               "softpick_lambda is %g: not at least 0", c->softpick_lambda);
    SP_REQUIRE(c->window >= 0, SP_BAD_ARGUMENT, "sliding_window is %" PRId64 ": negative", c->window);
    SP_REQUIRE((int)c->attention_function >= 0 && c->attention_function < SP_NORMALIZER_COUNT, SP_BAD_ARGUMENT,
               "attention_function has the value %d: not one of the normalizers", (int)c->attention_function);
    SP_REQUIRE(c->qkv_bias || !c->out_bias, SP_BAD_ARGUMENT,
               "the attention's output has a bias, its inputs have none: no such model is known");
    SP_REQUIRE(!c->qk_norm || (c->qk_norm_eps >= 0 && c->qk_norm_eps < 1), SP_BAD_ARGUMENT,
               "qk_norm_eps is %g: not within [0,1)", c->qk_norm_eps);
    return SP_OK;
}

static sp_status check_tokens(const sp_model_config *c) {
    SP_REQUIRE(c->n_more_eos >= 0 && c->n_more_eos <= SP_MODEL_MORE_EOS, SP_BAD_ARGUMENT,
               "eos_token_id names %" PRId64 " tokens: at most %d", c->n_more_eos + 1, SP_MODEL_MORE_EOS + 1);
    int32_t ids[3 + SP_MODEL_MORE_EOS] = {c->bos, c->eos, c->pad};
    for (int64_t i = 0; i < c->n_more_eos; i++) ids[3 + i] = c->more_eos[i];
    for (int64_t i = 0; i < 3 + c->n_more_eos; i++)
        SP_REQUIRE(ids[i] < c->vocabulary, SP_BAD_ARGUMENT, "a special token has id %d: vocab_size is %" PRId64,
                   (int)ids[i], c->vocabulary);
    return SP_OK;
}

sp_status sp_model_config_check(const sp_model_config *c) {
    SP_TRY(check_sizes(c));
    SP_REQUIRE(c->norm_eps >= 0 && c->norm_eps < 1, SP_BAD_ARGUMENT, "rms_norm_eps is %g: not within [0,1)",
               c->norm_eps);
    SP_REQUIRE(c->initializer_range >= 0 && isfinite(c->initializer_range), SP_BAD_ARGUMENT,
               "initializer_range is %g: not a size", c->initializer_range);
    SP_TRY(check_rope(c));
    SP_TRY(check_attention(c));
    return check_tokens(c);
}

int64_t sp_model_config_n_parameters(const sp_model_config *c) {
    int64_t D = c->head_width, qkv = (c->n_heads + 2 * c->n_kv_heads) * D;
    int64_t attention = c->width * (qkv + c->n_heads * D);
    if (c->qkv_bias) attention += qkv;
    if (c->out_bias) attention += c->width;
    if (c->qk_norm) attention += 2 * D;
    if (c->row_factor) attention += c->n_heads;
    if (c->attention_function == SP_NORMALIZER_SOFTMAX_SINK) attention += c->n_heads;
    int64_t ffn = 3 * c->width * c->ffn_width + (c->ffn_bias ? 2 * c->ffn_width + c->width : 0);
    int64_t embeddings = c->vocabulary * c->width * (c->tie_embeddings ? 1 : 2);
    return embeddings + c->n_layers * (2 * c->width + attention + ffn) + c->width;
}

bool sp_model_config_is_eos(const sp_model_config *config, int32_t token) {
    if (token == config->eos) return true;
    for (int64_t i = 0; i < config->n_more_eos; i++)
        if (token == config->more_eos[i]) return true;
    return false;
}
