/* What the files of this folder share: the tensor table, the buffers of a pass, the state of a model.
 *
 * Four blocks of the device's memory.  Values, gradients and halves (bf16 copies of the values) have the layout of the
 * tensor table; q, k, v and gate, up of a layer lie one after another there, so that each group is one matrix product.
 * The fourth block holds the activations of the largest batch seen (buffers.c). */
#ifndef SP_MODEL_MODEL_PRIVATE_H
#define SP_MODEL_MODEL_PRIVATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "device/device.h"
#include "layers/layers.h"
#include "softpick/model.h"

typedef enum tensor_role { /* decides the initial values */
                           ROLE_MATRIX,
                           ROLE_NORM,
                           ROLE_BIAS,
                           ROLE_ROW_FACTOR,
                           ROLE_SINK,
} tensor_role;

typedef struct tensor_entry {
    char name[96];
    tensor_role role;
    int64_t n_dims, shape[2];
    int64_t offset, count; /* in numbers from the start of the flat arrays */
} tensor_entry;

/* Where a layer's tensors begin in the flat arrays; -1: the model has none. */
typedef struct layer_offsets {
    int64_t norm_in, qkv, out, norm_mid, gate_up, down;
    int64_t qkv_bias, out_bias, gate_up_bias, down_bias, q_norm, k_norm, row_factor, sink;
} layer_offsets;

typedef struct tensor_table {
    int64_t n_tensors, n_parameters;
    tensor_entry *entries;
    layer_offsets *layers; /* (L) */
    int64_t embedding, norm, head;
} tensor_table;

SP_MUST_CHECK sp_status sp_tensor_table_build(tensor_table *table, const sp_model_config *config);
void sp_tensor_table_clear(tensor_table *table);

/* What a layer keeps of the forward pass for the backward one.  "act": the model's dtype. */
typedef struct layer_buffers {
    float *x_in, *x_mid;       /* (N,C) residual stream before attention, before the feed-forward */
    float *rstd_in, *rstd_mid; /* (N) */
    void *qkv;                 /* (N,(H+2Hkv)D) act, after the rotation */
    void *qk;                  /* (N,(H+Hkv)D) act, queries and keys before their norm, for a gradient; else NULL */
    void *o;                   /* (N,HD) act */
    float *lse;                /* (B,H,T) */
    void *gu;                  /* (N,2F) act; backward overwrites it with its gradient */
} layer_buffers;

/* Keys and values of a batch whose sequences continue each other, each sequence's in one piece (prefixes.c). */
typedef struct sp_gathered_keys {
    int64_t n_keys;
    int64_t *cu_k;                         /* (n_sequences + 1), host: where those of a sequence begin */
    int32_t *host_rows;                    /* (n_keys), host: the token of the batch that each is of */
    int64_t n_host_sequences, n_host_rows; /* what these two hold */
    int32_t *rows;                         /* (n_keys) */
    void *kv;                              /* (n_keys,2HkvD) act, of the layer that is being worked on */
    void *block;                           /* these two */
    int64_t block_bytes;
} sp_gathered_keys;

typedef struct pass_buffers {
    int64_t n_tokens_max; /* what the block holds */
    bool gradient;        /* has what the backward pass needs */
    void *block;
    int64_t block_bytes;
    layer_buffers *layers; /* (L), all alike when not gradient; all but x_in alike when recomputing */
    float *x_out;          /* (N,C) after the last layer */
    float *rstd_out;       /* (N) */
    void *h;               /* (N,C) act: the normed stream that a product reads; backward: its gradient */
    void *s;               /* (N,F) act: swiglu's output, or its gradient */
    void *logits;          /* of head_rows(..., act) rows */
    double *losses;        /* (N) */
    int32_t *tokens_block; /* (2N) tokens and targets of a batch; NULL on the host, which reads the caller's */
    int32_t *positions;    /* (N) */
    const int32_t *tokens, *targets; /* of the batch, in the device's memory */
    float *dx;                       /* (N,C) */
    void *dy;                        /* (N,C) act: dx for the products */
    void *dqkv;                      /* (N,(H+2Hkv)D) act */
    void *d_o;                       /* (N,HD) act */
    void *norm_workspace, *bias_workspace, *embedding_workspace;
    int32_t *host_positions; /* (N) */
    void *attention_workspace;
    int64_t attention_bytes;
    sp_gathered_keys gathered;
    void *score_block; /* of sp_model_score (scores.c) */
    int64_t score_bytes;
} pass_buffers;

/* Marks in the device's work, and which bucket of the profile the time since the one before belongs to. */
typedef struct stopwatch {
    bool runs;
    int64_t n, n_max;
    void **marks;
    double **buckets;
} stopwatch;

struct sp_model {
    sp_model_config config;
    sp_model_options options;
    sp_device *device;
    const sp_layers *layers; /* of the device */
    tensor_table table;
    float *values, *gradients; /* (n_parameters) */
    uint16_t *halves;          /* (n_parameters) bf16, NULL in f32 */
    float *rope;               /* (rope_positions,D) */
    int64_t rope_positions;
    pass_buffers buffers;
    sp_model_profile profile;
    stopwatch watch;
};

/* Calls a layer on the model's device: SP_TRY(SP_LAYER(model, convert, out, ...)). */
#define SP_LAYER(model, function, ...) ((model)->layers->function((model)->device, __VA_ARGS__))

/* Rows of logits in the model's dtype that are held at a time: enough for full speed of the products.  In f32 half as
 * many fit a bf16 model's buffer. */
static inline int64_t sp_model_head_rows(const sp_model_options *options) { return options->device ? 8192 : 512; }

/* Weights of the products, in the model's dtype; norms and the embedding are read in f32. */
static inline const void *sp_model_weight(const sp_model *model, int64_t offset) {
    return model->halves ? (const void *)(model->halves + offset) : (const void *)(model->values + offset);
}

/* Can a model compute in this dtype on this device? */
SP_MUST_CHECK sp_status sp_model_options_check(const sp_model_options *options);

/* Everything of a model but the values, which are zero. */
SP_MUST_CHECK sp_status sp_model_make(sp_model **out, const sp_model_config *config, const sp_model_options *options);
/* Host memory (n_parameters) in which values are made, the model's own on the host; and their way to the device. */
SP_MUST_CHECK sp_status sp_values_begin(float **host, sp_model *model);
SP_MUST_CHECK sp_status sp_values_end(float *host, sp_model *model);

/* Makes buffers, positions and rotation table fit a batch, keeping them when they do. */
SP_MUST_CHECK sp_status sp_buffers_fit(sp_model *model, const sp_batch *batch, bool gradient);
void sp_buffers_clear(sp_model *model);
SP_MUST_CHECK sp_status sp_model_fit_rope(sp_model *model, int64_t n_positions);
SP_MUST_CHECK sp_status sp_model_fit_attention(sp_model *model, const sp_attention *problem, sp_attention_pass pass);
/* Makes *block, which holds *held bytes of the device's memory and which nobody needs any more, hold `bytes`. */
SP_MUST_CHECK sp_status sp_model_fit_block(sp_model *model, void **block, int64_t *held, int64_t bytes,
                                           const char *what);
/* Plans the keys of a batch whose sequences continue each other; copies a layer's to their places. */
SP_MUST_CHECK sp_status sp_gathered_fit(sp_model *model, const sp_batch *batch);
SP_MUST_CHECK sp_status sp_gathered_copy(sp_model *model, int64_t layer);
void sp_gathered_clear(sp_model *model);
/* Checks tokens, targets and shape of a batch against the model. */
SP_MUST_CHECK sp_status sp_batch_check(const sp_model *model, const sp_batch *batch, bool targets);
int64_t sp_batch_n_targets(const sp_batch *batch);
/* Tokens of packed sequence n, with those of other sequences that it goes on after. */
static inline int64_t sp_batch_length(const sp_batch *batch, int64_t n) {
    const bool goes_on = batch->continues && batch->continues[n] >= 0;
    return batch->cu[n + 1] - batch->cu[n] + (goes_on ? batch->shared[n] : 0);
}
/* Tokens of its longest sequence. */
int64_t sp_batch_longest(const sp_batch *batch);

/* The attention problem of a layer: function, factors and mask, with q, k, v and out as views into the
 * layer's buffers; with a cache, k and v are those of the cache. */
void sp_layer_attention(sp_attention *problem, const sp_model *model, int64_t layer, const sp_batch *batch,
                        const sp_cache *cache);
/* View of the n_heads heads that begin at head `first` in rows of `row` numbers: (B,T,n_heads,D). */
sp_tensor sp_heads_view(const sp_model *model, void *data, int64_t row, int64_t first, int64_t n_heads, int64_t B,
                        int64_t T);

/* Keys and values of one sequence, per layer (capacity,Hkv,D) in the model's dtype. */
struct sp_cache {
    sp_device *device;
    int64_t length, capacity;
    int64_t row_bytes; /* of one token's keys in one layer */
    int64_t n_layers;
    char *k, *v; /* (L, capacity, row) */
};

/* From tokens to the final norm's output in buffers.h.  `cache` (B = 1; not grown here) and `observer`
 * may be NULL. */
SP_MUST_CHECK sp_status sp_model_trunk(sp_model *model, const sp_batch *batch, sp_cache *cache,
                                       const sp_observer *observer);
/* From the gradient of the final norm's output, which lies in buffers.h, to those of everything below the head. */
SP_MUST_CHECK sp_status sp_model_trunk_backward(sp_model *model, const sp_batch *batch);

/* A layer's forward pass from its x_in.  `x_out` NULL: without the last product, when a layer is recomputed. */
SP_MUST_CHECK sp_status sp_layer_forward(sp_model *model, int64_t layer, float *x_out, const sp_batch *batch,
                                         sp_cache *cache, const sp_observer *observer);

/* The time since the last lap goes to the bucket (NULL: to none).  On a CUDA device only after
 * sp_model_profile_enable, and known after sp_laps_end, which waits. */
void sp_lap(sp_model *model, double *bucket);
void sp_laps_end(sp_model *model);
void sp_laps_clear(sp_model *model);

#endif
