/* The words of config.json: the kinds of models that are known, and the keys. */
#ifndef SP_MODEL_CONFIG_TABLES_H
#define SP_MODEL_CONFIG_TABLES_H

#include <stdbool.h>
#include <stddef.h>

#include "softpick/model.h"

/* A model_type. */
typedef struct sp_config_family {
    const char *model_type;
    const char *architecture; /* written; NULL: never written */
    const char *refused;      /* why models of this type are not supported; NULL: they are */
    bool names_attention;     /* what `defaults` says of attention is what the type is there for */
    sp_model_config defaults; /* where a key is absent; n_kv_heads, head_width, ffn_width 0: derived */
} sp_config_family;

/* NULL for a type that is in no row. */
const sp_config_family *sp_config_family_find(const char *model_type);

typedef enum sp_config_kind {
    SP_CONFIG_COUNT,   /* int64_t */
    SP_CONFIG_NUMBER,  /* double */
    SP_CONFIG_FLAG,    /* bool */
    SP_CONFIG_TOKEN,   /* int32_t; null is -1 */
    SP_CONFIG_MUST_BE, /* only this JSON value (or null) is supported */
    SP_CONFIG_SPECIAL, /* read by code */
    SP_CONFIG_IGNORED, /* does not change what is computed here */
} sp_config_kind;

typedef struct sp_config_key {
    const char *name;
    sp_config_kind kind;
    size_t field;         /* of sp_model_config; of the first four kinds */
    bool written;         /* from the field */
    const char *required; /* SP_CONFIG_MUST_BE: JSON text of the only supported value */
} sp_config_key;

/* The i-th key, NULL past the end; keys without effect are not among them. */
const sp_config_key *sp_config_key_at(int i);
/* NULL for a name that is in no row. */
const sp_config_key *sp_config_key_find(const char *name);

/* What fla calls a kind of attention, less the prefix parallel_ or naive_. */
typedef struct sp_config_attention {
    const char *name;
    const char *refused; /* why it is not supported; NULL: it is */
    sp_normalizer normalizer;
    double lambda;
    bool row_factor;
} sp_config_attention;

/* NULL for a name that is in no row. */
const sp_config_attention *sp_config_attention_find(const char *attn_impl);
/* The first row that is this model's attention; NULL: fla has no name for it. */
const sp_config_attention *sp_config_attention_of(const sp_model_config *config);

#endif
