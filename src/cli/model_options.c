/* The options that describe a new model. */
#include "cli/model_options.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

typedef enum model_option_kind {
    MODEL_OPTION_COUNT,
    MODEL_OPTION_NUMBER,
    MODEL_OPTION_NORMALIZER,
    MODEL_OPTION_SWITCH,
} model_option_kind;

typedef struct model_option {
    model_option_kind kind;
    size_t offset;
    double min, max;
    cli_model_option shown;
} model_option;

#define FIELD(name) offsetof(sp_model_config, name)

/* clang-format off: one option, two lines */
static const model_option table[] = {
    {MODEL_OPTION_NORMALIZER,
     FIELD(attention_function),
     0,
     0,
     {"attention", "NAME", "softpick, softmax, softmax_plus_one, softmax_sink or rectified"}},
    {MODEL_OPTION_COUNT, FIELD(n_layers), 1, 1024, {"layers", "L", "blocks of attention and feed-forward"}},
    {MODEL_OPTION_COUNT, FIELD(width), 2, 1 << 20, {"width", "C", "channels of the residual stream"}},
    {MODEL_OPTION_COUNT, FIELD(n_heads), 1, 1 << 14, {"heads", "H", "query heads"}},
    {MODEL_OPTION_COUNT,
     FIELD(n_kv_heads),
     1,
     1 << 14,
     {"kv-heads", "N", "key/value heads (derived: as many as query heads)"}},
    {MODEL_OPTION_COUNT, FIELD(head_width), 2, 1 << 14, {"head-width", "D", "channels of a head (derived: C / H)"}},
    {MODEL_OPTION_COUNT,
     FIELD(ffn_width),
     1,
     1 << 22,
     {"ffn", "F", "channels of the feed-forward (derived: 8/3 C, up to a multiple of 32)"}},
    {MODEL_OPTION_COUNT,
     FIELD(vocabulary),
     2,
     1 << 24,
     {"vocabulary", "V", "tokens the model knows (derived: those of the text)"}},
    {MODEL_OPTION_COUNT,
     FIELD(max_positions),
     2,
     1 << 24,
     {"positions", "N", "longest sequence the model will ever see"}},
    {MODEL_OPTION_COUNT, FIELD(window), 0, 1 << 24, {"window", "N", "keys that a query sees; 0: all before it"}},
    {MODEL_OPTION_NUMBER, FIELD(rope_theta), 1, 1e9, {"rope-theta", "X", "base of the rotary angles"}},
    {MODEL_OPTION_NUMBER, FIELD(norm_eps), 1e-12, 1, {"norm-eps", "X", "eps of RMSNorm"}},
    {MODEL_OPTION_NUMBER,
     FIELD(initializer_range),
     1e-9,
     10,
     {"initializer-range", "X", "standard deviation of the first weights"}},
    {MODEL_OPTION_NUMBER, FIELD(softpick_eps), 0, 1, {"softpick-eps", "X", "eps of the denominator"}},
    {MODEL_OPTION_NUMBER,
     FIELD(softpick_lambda),
     0,
     1e6,
     {"softpick-lambda", "X", "weight of negative scores in the denominator; 0: ReLU-softmax"}},
    {MODEL_OPTION_SWITCH, FIELD(row_factor), 0, 0, {"row-factor", NULL, "scale scores by a learned s * log(position)"}},
    {MODEL_OPTION_SWITCH,
     FIELD(qk_norm),
     0,
     0,
     {"qk-norm", NULL, "norm each head's query and key before the rotation"}},
    {MODEL_OPTION_SWITCH, FIELD(qkv_bias), 0, 0, {"qkv-bias", NULL, "biases of queries, keys and values"}},
    {MODEL_OPTION_SWITCH,
     FIELD(tie_embeddings),
     0,
     0,
     {"tie-embeddings", NULL, "one matrix for input and output tokens"}},
};
/* clang-format on */
enum { N_MODEL_OPTIONS = sizeof table / sizeof *table };

const cli_model_option *cli_model_option_at(int i) { return i >= 0 && i < N_MODEL_OPTIONS ? &table[i].shown : NULL; }

sp_model_config cli_model_config_default(void) {
    sp_model_config config = sp_model_config_default();
    config.vocabulary = 0;
    config.width = 512;
    config.n_layers = 8;
    config.n_heads = 8;
    config.n_kv_heads = config.head_width = config.ffn_width = 0;
    return config;
}

static void forget_derived(sp_model_config *config, size_t changed) {
    if (changed == FIELD(width)) config->ffn_width = 0;
    if (changed == FIELD(n_heads)) config->n_kv_heads = 0;
    if (changed == FIELD(width) || changed == FIELD(n_heads)) config->head_width = 0;
}

static sp_status set_number(double *out, const model_option *row, const char *text) {
    char *end;
    double value = strtod(text, &end);
    SP_REQUIRE(end != text && *end == 0, SP_BAD_ARGUMENT, "--%s: \"%s\" is not a number", row->shown.name, text);
    SP_REQUIRE(value >= row->min && value <= row->max, SP_BAD_ARGUMENT, "--%s: %s is not between %g and %.12g",
               row->shown.name, text, row->min, row->max);
    *out = value;
    return SP_OK;
}

static sp_status set_count(int64_t *out, const model_option *row, const char *text) {
    double value = 0;
    SP_TRY(set_number(&value, row, text));
    SP_REQUIRE(value == (double)(int64_t)value, SP_BAD_ARGUMENT, "--%s: %s is not a whole number", row->shown.name,
               text);
    *out = (int64_t)value;
    return SP_OK;
}

sp_status cli_model_option_set(sp_model_config *config, int i, const char *text) {
    const model_option *row = &table[i];
    void *field = (char *)config + row->offset;
    forget_derived(config, row->offset);
    switch (row->kind) {
    case MODEL_OPTION_COUNT: return set_count(field, row, text);
    case MODEL_OPTION_NUMBER: return set_number(field, row, text);
    case MODEL_OPTION_NORMALIZER: return sp_normalizer_find(field, text);
    case MODEL_OPTION_SWITCH: *(bool *)field = true; return SP_OK;
    }
    return sp_fail(SP_INTERNAL, "--%s: an option of no kind", row->shown.name);
}

void cli_model_option_get(const sp_model_config *config, int i, char *out, int64_t out_bytes) {
    const void *field = (const char *)config + table[i].offset;
    int64_t count = table[i].kind == MODEL_OPTION_COUNT ? *(const int64_t *)field : 0;
    if (table[i].kind == MODEL_OPTION_NORMALIZER)
        snprintf(out, (size_t)out_bytes, "%s", sp_normalizer_name(*(const sp_normalizer *)field));
    else if (table[i].kind == MODEL_OPTION_NUMBER)
        snprintf(out, (size_t)out_bytes, "%g", *(const double *)field);
    else if (table[i].kind == MODEL_OPTION_SWITCH)
        snprintf(out, (size_t)out_bytes, "%s", *(const bool *)field ? "yes" : "no");
    else if (count == 0 && table[i].min > 0)
        snprintf(out, (size_t)out_bytes, "derived");
    else
        snprintf(out, (size_t)out_bytes, "%lld", (long long)count);
}

sp_status cli_model_config_finish(sp_model_config *config) {
    if (config->n_kv_heads == 0) config->n_kv_heads = config->n_heads;
    if (config->head_width == 0) {
        SP_REQUIRE(config->width % config->n_heads == 0, SP_BAD_ARGUMENT,
                   "--heads: %lld heads do not divide width %lld", (long long)config->n_heads,
                   (long long)config->width);
        config->head_width = config->width / config->n_heads;
    }
    if (config->ffn_width == 0) config->ffn_width = (config->width * 8 / 3 + 31) / 32 * 32;
    config->qk_norm_eps = config->norm_eps;
    return sp_model_config_check(config);
}
