/* The words of config.json.  A key that is in no row is an error: other loaders ignore unknown keys, which is how a
 * softpick model silently runs with softmax.  Sources: transformers 4.30 to 5.23 (LLaMA, Mistral, Qwen2, Qwen3 and what
 * every config has), flash-linear-attention and its softpick fork (TransformerConfig and its variants). */
#include "model/config_tables.h"

#include <string.h>

/* ---- model types ------------------------------------------------------------------------------------------------- */

/* What all types have in common. */
#define COMMON                                                                                                         \
    .struct_bytes = sizeof(sp_model_config), .norm_eps = 1e-6, .rope_theta = 10000, .rope_factor = 1, .pad = -1,       \
    .softpick_eps = 1e-6

#define LLAMA                                                                                                          \
    COMMON, .vocabulary = 32000, .width = 4096, .n_layers = 32, .n_heads = 32, .initializer_range = 0.02, .bos = 1,    \
            .eos = 2, .softpick_lambda = 1, .attention_function = SP_NORMALIZER_SOFTMAX

#define QWEN                                                                                                           \
    COMMON, .vocabulary = 151936, .width = 4096, .n_layers = 32, .n_heads = 32, .ffn_width = 22016,                    \
            .max_positions = 32768, .initializer_range = 0.02, .bos = -1, .eos = -1, .softpick_lambda = 1,             \
            .attention_function = SP_NORMALIZER_SOFTMAX

#define FLA(lambda)                                                                                                    \
    COMMON, .vocabulary = 32000, .width = 2048, .n_layers = 24, .n_heads = 32, .max_positions = 2048,                  \
            .initializer_range = 0.006, .bos = 1, .eos = 2, .qk_norm_eps = 1e-5, .softpick_lambda = (lambda)

#define SOFTPICK                                                                                                       \
    COMMON, .vocabulary = 32000, .width = 1024, .n_layers = 24, .n_heads = 16, .max_positions = 8192,                  \
            .initializer_range = 0.006, .bos = 1, .eos = 2, .softpick_lambda = 1,                                      \
            .attention_function = SP_NORMALIZER_SOFTPICK

static const sp_config_family families[] = {
    {"llama", "LlamaForCausalLM", NULL, false, {LLAMA, .ffn_width = 11008, .max_positions = 2048}},
    {"mistral",
     "MistralForCausalLM",
     NULL,
     false,
     {LLAMA, .ffn_width = 14336, .n_kv_heads = 8, .max_positions = 131072, .window = 4096}},
    {"qwen2", "Qwen2ForCausalLM", NULL, false, {QWEN, .qkv_bias = true}},
    {"qwen3", "Qwen3ForCausalLM", NULL, false, {QWEN, .head_width = 128, .qk_norm = true}},
    {"softpick_llama", "SoftpickLlamaForCausalLM", NULL, false, {SOFTPICK}},
    {"transformer", NULL, NULL, false, {FLA(1), .attention_function = SP_NORMALIZER_SOFTMAX}},
    {"gpt_oss_sink_transformer", NULL, NULL, true, {FLA(1), .attention_function = SP_NORMALIZER_SOFTMAX_SINK}},
    {"softmax_plus_one_transformer", NULL, NULL, true, {FLA(1), .attention_function = SP_NORMALIZER_SOFTMAX_PLUS_ONE}},
    {"relu_softpick_1_transformer", NULL, NULL, true, {FLA(0), .attention_function = SP_NORMALIZER_SOFTPICK}},
    {"relu_softpick_2_transformer", NULL, NULL, true, {FLA(1), .attention_function = SP_NORMALIZER_SOFTMAX}},
    {"abs_softmax_2_transformer", NULL, NULL, true, {FLA(1), .attention_function = SP_NORMALIZER_SOFTMAX}},
    {.model_type = "abs_softmax_1_transformer", .refused = "it gives weight to scores below 0"},
    {.model_type = "gated_attention_transformer", .refused = "it multiplies attention's output by a learned gate"},
    {.model_type = "stochastic_softpick_transformer", .refused = "it draws softpick or softmax anew in every pass"},
    {.model_type = "transformer_with_pruning", .refused = "heads are switched off by \"layer_head_pruned\""},
};

const sp_config_family *sp_config_family_find(const char *model_type) {
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (strcmp(families[i].model_type, model_type) == 0) return &families[i];
    return NULL;
}

/* ---- fla's attention --------------------------------------------------------------------------------------------- */

static const sp_config_attention attentions[] = {
    {"flash_attn", NULL, SP_NORMALIZER_SOFTMAX, 1, false},
    {"attn", NULL, SP_NORMALIZER_SOFTMAX, 1, false},
    {"softpick_attn", NULL, SP_NORMALIZER_SOFTPICK, 1, false},
    {"scaled_attn", NULL, SP_NORMALIZER_SOFTMAX, 1, true},
    {"scaled_softpick_attn", NULL, SP_NORMALIZER_SOFTPICK, 1, true},
    {"rectified_attn", NULL, SP_NORMALIZER_RECTIFIED, 1, false},
    {"relu_softpick_1_attn", NULL, SP_NORMALIZER_SOFTPICK, 0, false},
    {"relu_softpick_2_attn", NULL, SP_NORMALIZER_SOFTMAX, 1, false}, /* relu(e^x) is e^x */
    {"abs_softmax_2_attn", NULL, SP_NORMALIZER_SOFTMAX, 1, false},   /* and so is |e^x| */
    {"softmax_plus_one_attn", NULL, SP_NORMALIZER_SOFTMAX_PLUS_ONE, 1, false},
    {"gpt_oss_flex_attention_sink", NULL, SP_NORMALIZER_SOFTMAX_SINK, 1, false},
    {"gpt_oss_naive_sink", NULL, SP_NORMALIZER_SOFTMAX_SINK, 1, false},
    {.name = "abs_softmax_1_attn", .refused = "it gives weight to scores below 0"},
    {.name = "gated_attn", .refused = "it multiplies attention's output by a learned gate"},
};

const sp_config_attention *sp_config_attention_find(const char *attn_impl) {
    const char *name = attn_impl;
    if (strncmp(name, "parallel_", 9) == 0) name += 9;
    if (strncmp(name, "naive_", 6) == 0) name += 6;
    for (size_t i = 0; i < sizeof attentions / sizeof *attentions; i++)
        if (strcmp(attentions[i].name, name) == 0) return &attentions[i];
    return NULL;
}

const sp_config_attention *sp_config_attention_of(const sp_model_config *config) {
    bool softpick = config->attention_function == SP_NORMALIZER_SOFTPICK;
    for (size_t i = 0; i < sizeof attentions / sizeof *attentions; i++) {
        const sp_config_attention *row = &attentions[i];
        if (row->refused || row->normalizer != config->attention_function || row->row_factor != config->row_factor)
            continue;
        if (!softpick || (row->lambda >= config->softpick_lambda && row->lambda <= config->softpick_lambda)) return row;
    }
    return NULL;
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

#define FIELD(name) offsetof(sp_model_config, name)

static const sp_config_key keys[] = {
    /* LLaMA's, and of those who came after */
    {"vocab_size", SP_CONFIG_COUNT, FIELD(vocabulary), true, NULL},
    {"hidden_size", SP_CONFIG_COUNT, FIELD(width), true, NULL},
    {"num_hidden_layers", SP_CONFIG_COUNT, FIELD(n_layers), true, NULL},
    {"num_attention_heads", SP_CONFIG_COUNT, FIELD(n_heads), true, NULL},
    {"num_key_value_heads", SP_CONFIG_COUNT, FIELD(n_kv_heads), true, NULL},
    {"head_dim", SP_CONFIG_COUNT, FIELD(head_width), true, NULL},
    {"intermediate_size", SP_CONFIG_COUNT, FIELD(ffn_width), true, NULL},
    {"max_position_embeddings", SP_CONFIG_COUNT, FIELD(max_positions), true, NULL},
    {"rms_norm_eps", SP_CONFIG_NUMBER, FIELD(norm_eps), true, NULL},
    {"rope_theta", SP_CONFIG_NUMBER, FIELD(rope_theta), true, NULL},
    {"initializer_range", SP_CONFIG_NUMBER, FIELD(initializer_range), true, NULL},
    {"tie_word_embeddings", SP_CONFIG_FLAG, FIELD(tie_embeddings), true, NULL},
    {"bos_token_id", SP_CONFIG_TOKEN, FIELD(bos), true, NULL},
    {"pad_token_id", SP_CONFIG_TOKEN, FIELD(pad), true, NULL},
    {"mlp_bias", SP_CONFIG_FLAG, FIELD(ffn_bias), false, NULL},
    {"sliding_window", SP_CONFIG_COUNT, FIELD(window), false, NULL},
    {"eos_token_id", SP_CONFIG_SPECIAL, 0, false, NULL},
    {"model_type", SP_CONFIG_SPECIAL, 0, false, NULL},
    {"hidden_act", SP_CONFIG_SPECIAL, 0, false, NULL},
    {"rope_parameters", SP_CONFIG_SPECIAL, 0, false, NULL},
    {"rope_scaling", SP_CONFIG_SPECIAL, 0, false, NULL},
    {"attention_bias", SP_CONFIG_SPECIAL, 0, false, NULL},
    {"use_sliding_window", SP_CONFIG_SPECIAL, 0, false, NULL},
    {"max_window_layers", SP_CONFIG_SPECIAL, 0, false, NULL},
    {"layer_types", SP_CONFIG_SPECIAL, 0, false, NULL},
    {"rope_interleaved", SP_CONFIG_MUST_BE, 0, false, "false"},
    {"use_mrope", SP_CONFIG_MUST_BE, 0, false, "false"},
    {"partial_rotary_factor", SP_CONFIG_MUST_BE, 0, false, "1"},
    {"quantization_config", SP_CONFIG_MUST_BE, 0, false, "null"},
    {"is_encoder_decoder", SP_CONFIG_MUST_BE, 0, false, "false"},
    {"add_cross_attention", SP_CONFIG_MUST_BE, 0, false, "false"},
    {"pruned_heads", SP_CONFIG_MUST_BE, 0, false, "{}"},
    /* ours */
    {"attention_function", SP_CONFIG_SPECIAL, 0, false, NULL},
    {"softpick_eps", SP_CONFIG_NUMBER, FIELD(softpick_eps), false, NULL},
    {"softpick_lambda", SP_CONFIG_NUMBER, FIELD(softpick_lambda), false, NULL},
    {"attention_row_factor", SP_CONFIG_FLAG, FIELD(row_factor), false, NULL},
    {"qk_norm_eps", SP_CONFIG_NUMBER, FIELD(qk_norm_eps), false, NULL},
    /* fla's */
    {"num_heads", SP_CONFIG_COUNT, FIELD(n_heads), false, NULL},
    {"num_kv_heads", SP_CONFIG_COUNT, FIELD(n_kv_heads), false, NULL},
    {"norm_eps", SP_CONFIG_NUMBER, FIELD(norm_eps), false, NULL},
    {"window_size", SP_CONFIG_COUNT, FIELD(window), false, NULL},
    {"qkv_bias", SP_CONFIG_SPECIAL, 0, false, NULL},
    {"qk_norm", SP_CONFIG_FLAG, FIELD(qk_norm), false, NULL},
    {"attn_impl", SP_CONFIG_SPECIAL, 0, false, NULL},
    {"hidden_ratio", SP_CONFIG_SPECIAL, 0, false, NULL},
    {"elementwise_affine", SP_CONFIG_MUST_BE, 0, false, "true"},
    {"elementwise_gate", SP_CONFIG_MUST_BE, 0, false, "false"},
    {"attnres_block_size", SP_CONFIG_MUST_BE, 0, false, "null"},
    {"layer_head_pruned", SP_CONFIG_MUST_BE, 0, false, "null"},
};

static const sp_config_key ignored_key = {.kind = SP_CONFIG_IGNORED};

/* Without effect on what is computed here: where a file came from, how others run it, how texts are drawn. */
static const char *const ignored[] = {
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_flash_attn_2_enabled",
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "attn_implementation",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "fuse_cross_entropy",
    "fuse_linear_cross_entropy",
    "fuse_norm",
    "fuse_swiglu",
    "gpt_oss_sink",
    "gradient_checkpointing",
    "id2label",
    "is_decoder",
    "is_llama_config",
    "label2id",
    "length_penalty",
    "max_length",
    "max_sequence_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
    "use_flash_attn",
    "use_l2warp",
};

const sp_config_key *sp_config_key_at(int i) {
    return i >= 0 && (size_t)i < sizeof keys / sizeof *keys ? &keys[i] : NULL;
}

const sp_config_key *sp_config_key_find(const char *name) {
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(keys[i].name, name) == 0) return &keys[i];
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        if (strcmp(ignored[i], name) == 0) return &ignored_key;
    return NULL;
}
