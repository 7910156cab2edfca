/* What the files of this folder share: the tensor table, the buffers of a pass, the state of a model.
 *
 * Four blocks of memory.  Values, gradients and halves (bf16 copies of the values) have the layout of the
 * tensor table; q, k, v and gate, up of a layer lie one after another there, so that each group is one matrix
 * product. The fourth block holds the activations of the largest batch seen: one set of layer_buffers per
 * layer when the gradient is wanted, otherwise one set for all, and what the passes share. */
#ifndef SP_MODEL_MODEL_PRIVATE_H
#define SP_MODEL_MODEL_PRIVATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "layers/layers.h"
#include "softpick/model.h"

typedef enum tensor_role { /* decides the initial values */
                           ROLE_MATRIX,
                           ROLE_NORM,
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
    int64_t norm_in, qkv, out, norm_mid, gate_up, down, row_factor, sink;
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
    void *h_in;                /* (N,C) act, normed x_in */
    void *qkv;                 /* (N,(H+2Hkv)D) act, after the rotation */
    void *o;                   /* (N,HD) act */
    float *lse;                /* (B,H,T) */
    void *h_mid;               /* (N,C) act, normed x_mid */
    void *gu;                  /* (N,2F) act; backward overwrites it with its gradient */
} layer_buffers;

typedef struct pass_buffers {
    int64_t n_tokens_max; /* what the block holds */
    bool gradient;        /* has a set per layer and the gradients' buffers */
    void *block;
    int64_t block_bytes;
    layer_buffers *layers; /* (L), all alike when not gradient */
    float *x_out;          /* (N,C) after the last layer */
    float *rstd_out;       /* (N) */
    void *h_out;           /* (N,C) act */
    void *s;               /* (N,F) act: swiglu's output, or its gradient */
    void *logits;          /* (HEAD_ROWS,V) f32 or act */
    int32_t *positions;    /* (N) */
    float *dx;             /* (N,C) */
    void *dy;              /* (N,C) act */
    void *dh;              /* (N,C) act */
    void *dqkv;            /* (N,(H+2Hkv)D) act */
    void *d_o;             /* (N,HD) act */
    void *norm_workspace;
    void *attention_workspace;
    int64_t attention_bytes;
} pass_buffers;

struct sp_model {
    sp_model_config config;
    sp_model_options options;
    tensor_table table;
    float *values, *gradients; /* (n_parameters) */
    uint16_t *halves;          /* (n_parameters) bf16, NULL in f32 */
    float *rope;               /* (rope_positions,D) */
    int64_t rope_positions;
    pass_buffers buffers;
    sp_model_profile profile;
};

enum { HEAD_ROWS = 512 }; /* rows of logits held at a time: 16 MB at V = 8192 in f32 */

/* Weights of the products, in the model's dtype; norms and the embedding are read in f32. */
static inline const void *sp_model_weight(const sp_model *model, int64_t offset) {
    return model->halves ? (const void *)(model->halves + offset) : (const void *)(model->values + offset);
}

/* Makes buffers, positions and rotation table fit a batch, keeping them when they do. */
SP_MUST_CHECK sp_status sp_buffers_fit(sp_model *model, const sp_batch *batch, bool gradient);
void sp_buffers_clear(pass_buffers *p);
SP_MUST_CHECK sp_status sp_model_fit_rope(sp_model *model, int64_t n_positions);
SP_MUST_CHECK sp_status sp_model_fit_attention(sp_model *model, const sp_attention *problem, sp_attention_pass pass);
/* Checks tokens, targets and shape of a batch against the model. */
SP_MUST_CHECK sp_status sp_batch_check(const sp_model *model, const sp_batch *batch, bool targets);

/* The attention problem of a layer: function, factors and mask, with q, k, v and out as views into the
 * layer's buffers; with a cache, k and v are those of the cache. */
void sp_layer_attention(sp_attention *problem, const sp_model *model, int64_t layer, const sp_batch *batch,
                        const sp_cache *cache);
/* View of the n_heads heads that begin at head `first` in rows of `row` numbers: (B,T,n_heads,D). */
sp_tensor sp_heads_view(const sp_model *model, void *data, int64_t row, int64_t first, int64_t n_heads, int64_t B,
                        int64_t T);

/* Keys and values of one sequence, per layer (capacity,Hkv,D) in the model's dtype. */
struct sp_cache {
    int64_t length, capacity;
    int64_t row_bytes; /* of one token's keys in one layer */
    int64_t n_layers;
    char *k, *v; /* (L, capacity, row) */
};

/* From tokens to the final norm's output in buffers.h_out.  `cache` (B = 1; not grown here) and `observer`
 * may be NULL. */
SP_MUST_CHECK sp_status sp_model_trunk(sp_model *model, const sp_batch *batch, sp_cache *cache,
                                       const sp_observer *observer);
/* From d loss / d h_out, which lies in buffers.dh, to the gradients of everything below the head. */
SP_MUST_CHECK sp_status sp_model_trunk_backward(sp_model *model, const sp_batch *batch);

/* Adds the seconds since *mark to the bucket and moves the mark. */
double sp_clock(void);
static inline void sp_lap(double *bucket, double *mark) {
    double now = sp_clock();
    *bucket += now - *mark;
    *mark = now;
}

#endif
