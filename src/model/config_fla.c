/* A model's configuration in the words of flash-linear-attention and its softpick fork. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/status.h"
#include "model/config_tables.h"

static bool near(double a, double b) { return a >= b * (1 - 1e-9) && a <= b * (1 + 1e-9); }

static sp_status check(const sp_model_config *c, const sp_config_attention *attention) {
    SP_REQUIRE(attention && !c->row_factor && c->attention_function != SP_NORMALIZER_SOFTMAX_SINK, SP_UNSUPPORTED,
               "fla's files have no place for this model's attention (%s%s, softpick_lambda %g)",
               sp_normalizer_name(c->attention_function), c->row_factor ? ", with row factors" : "",
               c->softpick_lambda);
    SP_REQUIRE(c->attention_function != SP_NORMALIZER_SOFTPICK || near(c->softpick_eps, 1e-6), SP_UNSUPPORTED,
               "softpick_eps is %g: fla's kernel has 1e-6", c->softpick_eps);
    SP_REQUIRE(c->n_heads * c->head_width == c->width, SP_UNSUPPORTED,
               "head_dim is %" PRId64 ": in fla it is hidden_size / num_heads", c->head_width);
    SP_REQUIRE(!c->out_bias && !c->ffn_bias, SP_UNSUPPORTED, "fla's models have biases in q, k and v alone");
    SP_REQUIRE(!c->qk_norm || near(c->qk_norm_eps, 1e-5), SP_UNSUPPORTED,
               "the norms of q and k have eps %g: fla's have 1e-5", c->qk_norm_eps);
    SP_REQUIRE(c->rope_scaling == SP_ROPE_SCALING_NONE, SP_UNSUPPORTED, "fla's models have no scaled positions");
    SP_REQUIRE(c->window == 0 || strcmp(attention->name, "flash_attn") == 0, SP_UNSUPPORTED,
               "fla has a sliding window with flash_attn alone");
    return SP_OK;
}

static json_t *token(int32_t id) { return id < 0 ? json_null() : json_integer(id); }

sp_status sp_model_config_format_fla(const sp_model_config *c, char **json) {
    *json = NULL;
    const sp_config_attention *attention = sp_config_attention_of(c);
    SP_TRY(check(c, attention));
    bool flash = strcmp(attention->name, "flash_attn") == 0;
    char name[80];
    snprintf(name, sizeof name, "%s%s", flash ? "" : "parallel_", attention->name);
    json_t *window = c->window ? json_integer(c->window) : json_null();
    json_t *root = json_pack(
        "{s:[s], s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:b, s:b, s:f, s:f, s:f, s:s, s:b, s:b, s:o, "
        "s:o, s:o}",
        "architectures", "TransformerForCausalLM", "model_type", "transformer", "attn_impl", name, "attention_function",
        sp_normalizer_name(c->attention_function), "vocab_size", (json_int_t)c->vocabulary, "hidden_size",
        (json_int_t)c->width, "num_hidden_layers", (json_int_t)c->n_layers, "num_heads", (json_int_t)c->n_heads,
        "num_kv_heads", (json_int_t)c->n_kv_heads, "intermediate_size", (json_int_t)c->ffn_width,
        "max_position_embeddings", (json_int_t)c->max_positions, "window_size", window, "qkv_bias", (int)c->qkv_bias,
        "qk_norm", (int)c->qk_norm, "norm_eps", c->norm_eps, "rope_theta", c->rope_theta, "initializer_range",
        c->initializer_range, "hidden_act", "swish", "elementwise_affine", 1, "tie_word_embeddings",
        (int)c->tie_embeddings, "bos_token_id", token(c->bos), "eos_token_id", token(c->eos), "pad_token_id",
        token(c->pad));
    SP_REQUIRE(root, SP_OUT_OF_MEMORY, "no memory for a config");
    sp_status status = sp_json_format(json, root, 0);
    json_decref(root);
    return status;
}
