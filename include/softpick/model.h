/* LLaMA-style models: configuration, weights, loss and gradient, decoding, observers.  May change in any release. */
#ifndef SOFTPICK_MODEL_H
#define SOFTPICK_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "softpick/attention.h"
#include "softpick/status.h"
#include "softpick/tensor.h"
#include "softpick/text.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How rotary positions reach beyond those of the first training. */
typedef enum sp_rope_scaling {
    SP_ROPE_SCALING_NONE = 0,
    SP_ROPE_SCALING_LINEAR = 1, /* positions are divided by rope_factor */
    SP_ROPE_SCALING_LLAMA3 = 2, /* slow angles are divided by rope_factor, fast ones kept (rope.c) */
    SP_ROPE_SCALING_COUNT
} sp_rope_scaling;

enum { SP_MODEL_MORE_EOS = 15 }; /* most ids that end a text, beside the first */

typedef struct sp_model_config {
    size_t struct_bytes;
    int64_t vocabulary; /* V */
    int64_t width;      /* C */
    int64_t n_layers;   /* L */
    int64_t n_heads;    /* H */
    int64_t n_kv_heads; /* Hkv */
    int64_t head_width; /* D, even */
    int64_t ffn_width;  /* F */
    int64_t max_positions;
    double norm_eps;
    double rope_theta;
    double initializer_range; /* standard deviation of initial weights */
    bool tie_embeddings;
    int32_t bos, eos, pad;               /* -1: none */
    int64_t n_more_eos;                  /* other tokens that end a text as eos does */
    int32_t more_eos[SP_MODEL_MORE_EOS]; /* (n_more_eos) */

    bool qkv_bias, out_bias, ffn_bias; /* out_bias with qkv_bias alone; ffn: gate, up and down */
    bool qk_norm;                      /* RMSNorm over each head's query and key, before the rotation */
    double qk_norm_eps;

    sp_rope_scaling rope_scaling;
    double rope_factor;                       /* >= 1; linear and llama3 */
    double rope_low_factor, rope_high_factor; /* llama3: between these numbers of turns it blends */
    int64_t rope_original_positions;          /* llama3: length of the first training */

    sp_normalizer attention_function;
    double softpick_eps, softpick_lambda; /* used by softpick alone */
    bool row_factor;                      /* learned s_h * log(position + 2), initially 0.3 */
    int64_t window;                       /* 0: none */
} sp_model_config;

/* The paper's 340M model, with softpick. */
SP_API sp_model_config sp_model_config_default(void);
/* Reads the text of a config.json (docs/config.md); `source` stands in messages.  Unknown keys of
 * ours, contradictions (attn_impl against attention_function, ...) and unsupported features are errors. */
SP_API SP_MUST_CHECK sp_status sp_model_config_parse(sp_model_config *out, const char *json, const char *source);
/* The same; `attention` names the normalizer of a config that names none.  One that names another is an error.  NULL:
 * as sp_model_config_parse. */
SP_API SP_MUST_CHECK sp_status sp_model_config_parse_as(sp_model_config *out, const char *json, const char *source,
                                                        const char *attention);
/* The text of a config.json with our key: LLaMA's where that says it all, else Mistral's, Qwen2's or Qwen3's; for
 * what is none of these, as all attention but plain softmax, model_type "softpick_llama", which other loaders refuse.
 * Caller frees. */
SP_API SP_MUST_CHECK sp_status sp_model_config_format(const sp_model_config *config, char **json);
/* The text of flash-linear-attention's config.json ("transformer").  Its attn_impl is understood by the softpick fork
 * alone: upstream runs any model with softmax.  SP_UNSUPPORTED for a model that the fork has no words for.  Caller
 * frees. */
SP_API SP_MUST_CHECK sp_status sp_model_config_format_fla(const sp_model_config *config, char **json);
/* Names the first thing wrong with the values. */
SP_API SP_MUST_CHECK sp_status sp_model_config_check(const sp_model_config *config);
SP_API int64_t sp_model_config_n_parameters(const sp_model_config *config);
/* Does this token end a text? */
SP_API bool sp_model_config_is_eos(const sp_model_config *config, int32_t token);

typedef struct sp_model_options {
    size_t struct_bytes;
    sp_dtype dtype; /* of activations and matrix products: f32 or bf16; f64 is refused */
    bool training;  /* hold gradients, and f32 master weights */
    uint64_t seed;  /* initial weights (sp_model_new alone) */
    int32_t device; /* as in sp_tensor: 0 the host, 1 + i CUDA device i (bf16 alone) */
    bool recompute; /* training: keep one residual stream per layer and compute the rest again in the backward pass */
    const char *attention; /* sp_model_open: name of the normalizer where the config names none; NULL: softmax */
} sp_model_options;

SP_API sp_model_options sp_model_options_default(void); /* f32, not training */

/* The dtype in which matrix products are fastest on a device: bf16 on a GPU and where the CPU multiplies it, else f32. */
SP_API sp_dtype sp_model_fastest_dtype(int32_t device);
/* Name of what runs the matrix products of this dtype there ("cublaslt", "onednn", "plain"); NULL if nothing can. */
SP_API const char *sp_model_matmul_name(int32_t device, sp_dtype dtype);

/* Bytes that a model takes for passes over B x T tokens. */
typedef struct sp_model_memory {
    int64_t parameters;  /* f32, and bf16 copies */
    int64_t gradients;   /* training */
    int64_t optimizer;   /* training: the two moments */
    int64_t activations; /* what passes keep */
    int64_t workspace;   /* of attention and products */
    int64_t total;
} sp_model_memory;
/* The plan of a model before it is made. */
SP_API SP_MUST_CHECK sp_status sp_model_plan_memory(sp_model_memory *out, const sp_model_config *config,
                                                    const sp_model_options *options, int64_t B, int64_t T);

typedef struct sp_model sp_model;

/* A model with initial weights: normal(0, initializer_range) for matrices, 1 for norms. */
SP_API SP_MUST_CHECK sp_status sp_model_new(sp_model **out, const sp_model_config *config,
                                            const sp_model_options *options);
/* A model from a checkpoint folder. */
SP_API SP_MUST_CHECK sp_status sp_model_open(sp_model **out, const char *folder, const sp_model_options *options);
SP_API void sp_model_free(sp_model *model);
SP_API const sp_model_config *sp_model_config_of(const sp_model *model);
SP_API sp_dtype sp_model_dtype(const sp_model *model);
SP_API int32_t sp_model_device(const sp_model *model);

/* The table of tensors.  Values and gradients are f32 and lie one after another in two flat arrays of the model's
 * device, in the order of the table, so that the optimizer and the norm walk n_parameters numbers. */
SP_API int64_t sp_model_n_parameters(const sp_model *model);
SP_API float *sp_model_parameters(sp_model *model); /* (n_parameters) */
SP_API float *sp_model_gradients(sp_model *model);  /* (n_parameters), NULL unless training */
SP_API int64_t sp_model_n_tensors(const sp_model *model);
SP_API const char *sp_model_tensor_name(const sp_model *model, int64_t i); /* LLaMA's name */
SP_API sp_tensor sp_model_tensor(sp_model *model, int64_t i);              /* f32 view of the values */
/* To be called after the values have changed: refreshes what is derived from them (bf16 copies). */
SP_API SP_MUST_CHECK sp_status sp_model_refresh(sp_model *model);

/* Sum of the losses -log p(target) in nats over the targets >= 0, and their number.
 * With `gradient`: gradients += gradient_scale * d(sum of losses)/d(values). */
SP_API SP_MUST_CHECK sp_status sp_model_loss(sp_model *model, const sp_batch *batch, double *loss_sum,
                                             int64_t *n_targets);
SP_API SP_MUST_CHECK sp_status sp_model_loss_gradient(sp_model *model, const sp_batch *batch, double gradient_scale,
                                                      double *loss_sum, int64_t *n_targets);
/* Scores n predictions of a pass over the batch, whose own targets are not used.  Prediction i is that targets[i] follows
 * the batch's token rows[i] (within 0 .. B*T-1; several may name one row).  Overwrites log_probabilities[i] with log
 * softmax(logits)[target] in nats, computed in f32, and greedy[i] with whether the target is the first of the largest
 * logits. */
SP_API SP_MUST_CHECK sp_status sp_model_score(sp_model *model, const sp_batch *batch, const int32_t *rows,
                                              const int32_t *targets, int64_t n, float *log_probabilities,
                                              bool *greedy);
SP_API SP_MUST_CHECK sp_status sp_model_zero_gradients(sp_model *model);
/* Waits until the model's device has done all that it was given. */
SP_API SP_MUST_CHECK sp_status sp_model_wait(sp_model *model);
/* Bytes held: weights, gradients, activations. */
SP_API int64_t sp_model_memory_bytes(const sp_model *model);

/* Where the time of passes went, in seconds since the last reset.  On by default on the host; on a GPU it costs a few
 * events and is off until enabled. */
typedef struct sp_model_profile {
    double matmul, attention, norm, rope, swiglu, embedding, loss, other;
} sp_model_profile;
SP_API void sp_model_profile_enable(sp_model *model, bool on);
SP_API sp_model_profile sp_model_profile_read(sp_model *model, bool reset);

/* ---- decoding -------------------------------------------------------------------------------------------------- */

typedef struct sp_cache sp_cache; /* keys and values of one sequence */
SP_API SP_MUST_CHECK sp_status sp_cache_new(sp_cache **out, const sp_model *model, int64_t capacity_tokens);
SP_API void sp_cache_free(sp_cache *cache);
SP_API int64_t sp_cache_length(const sp_cache *cache);
/* Forgets the tokens from `length` on. */
SP_API void sp_cache_truncate(sp_cache *cache, int64_t length);
/* Adds n tokens and overwrites `logits` (V) with those that follow the last one. */
SP_API SP_MUST_CHECK sp_status sp_model_decode(sp_model *model, sp_cache *cache, const int32_t *tokens, int64_t n,
                                               float *logits);

typedef struct sp_sampling {
    size_t struct_bytes;
    double temperature; /* 0: the most likely token; default 0.8 */
    int64_t top_k;      /* 0: all; default 0 */
    double top_p;       /* (0,1]; default 0.95 */
    uint64_t seed;
} sp_sampling;
SP_API sp_sampling sp_sampling_default(void);
/* Draws a token from logits (V): a pure function of (logits, options, index). */
SP_API SP_MUST_CHECK sp_status sp_sample(const float *logits, int64_t V, const sp_sampling *sampling, int64_t index,
                                         int32_t *token);

/* Called with each new token; non-zero stops. */
typedef int (*sp_token_function)(void *user, int32_t token);
/* Continues `prompt` by up to n_max tokens, or until one that ends a text. */
SP_API SP_MUST_CHECK sp_status sp_generate(sp_model *model, const int32_t *prompt, int64_t n_prompt, int64_t n_max,
                                           const sp_sampling *sampling, sp_token_function function, void *user);

/* ---- observers ------------------------------------------------------------------------------------------------- */

/* Hands out what passes through a forward pass.  Either function may be NULL; an error stops the pass. */
typedef struct sp_observer {
    void *user;
    /* Residual stream x (n_tokens, C): layer 0 is the embedding, l the stream after block l (1..L),
     * L + 1 the output of the final norm. */
    sp_status (*hidden)(void *user, int64_t layer, const float *x, int64_t n_tokens, int64_t C);
    /* The attention problem of layer 0..L-1 with q, k, v, out filled. */
    sp_status (*attention)(void *user, int64_t layer, const sp_attention *problem);
} sp_observer;

/* A forward pass over the batch for its observer; targets are not used.  No loss, no gradient. */
SP_API SP_MUST_CHECK sp_status sp_model_observe(sp_model *model, const sp_batch *batch, const sp_observer *observer);

#ifdef __cplusplus
}
#endif
#endif
