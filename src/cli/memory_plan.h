/* What a training run will hold in memory: shown before it begins, and refused when it cannot fit. */
#ifndef SP_CLI_MEMORY_PLAN_H
#define SP_CLI_MEMORY_PLAN_H

#include <stdint.h>

#include "base/status.h"
#include "softpick/model.h"

typedef struct cli_run_shape {
    const sp_model_config *config;
    const sp_model_options *options;
    int64_t B, T;
    int64_t accumulate; /* micro-batches of a step; 0: the command has no --accumulate */
} cli_run_shape;

typedef struct cli_memory_plan {
    sp_model_memory needs;
    int64_t free_bytes; /* INT64_MAX: the system does not say */
    int32_t device;
} cli_memory_plan;

/* Before any weights are made.  A run that cannot fit is SP_OUT_OF_MEMORY, and the message says by how much, and with
 * which batch, accumulation and recomputation it would. */
SP_MUST_CHECK sp_status cli_plan_memory(cli_memory_plan *out, const cli_run_shape *run);
/* One line on stderr. */
void cli_show_memory(const cli_memory_plan *plan);

#endif
