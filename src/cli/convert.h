/* What `softpick convert` writes: one row for each kind. */
#ifndef SP_CLI_CONVERT_H
#define SP_CLI_CONVERT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "softpick/model.h"
#include "softpick/text.h"

/* A model to be written. */
typedef struct cli_conversion {
    const char *out;    /* folder or file */
    const char *format; /* "f32", "bf16", "f16", "q8_0" */
    int64_t shard_bytes;
    bool replace;
    bool for_fork; /* fla's files of a model that its upstream would run with softmax */
    sp_model *model;
    sp_model_config config;        /* of what is written */
    const sp_tokenizer *tokenizer; /* NULL: none */
} cli_conversion;

typedef struct cli_conversion_kind {
    const char *name, *help;
    sp_status (*write)(const cli_conversion *conversion);
} cli_conversion_kind;

/* The i-th kind, NULL past the end; the first is the default. */
const cli_conversion_kind *cli_conversion_kind_at(int i);

#endif
