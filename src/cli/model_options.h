/* The options that describe a new model, for the commands that make one: one table in model_options.c. */
#ifndef SP_CLI_MODEL_OPTIONS_H
#define SP_CLI_MODEL_OPTIONS_H

#include "softpick/model.h"

typedef struct cli_model_option {
    const char *name;     /* "layers" */
    const char *argument; /* "N"; NULL for a switch */
    const char *help;
} cli_model_option;
/* The i-th option; NULL past the end. */
const cli_model_option *cli_model_option_at(int i);

/* A small model; what is 0 here is derived by cli_model_config_finish. */
sp_model_config cli_model_config_default(void);
/* Sets the i-th option from text.  A new width or number of heads makes what follows from them derived again, so set
 * options in the table's order. */
SP_MUST_CHECK sp_status cli_model_option_set(sp_model_config *config, int i, const char *text);
/* Text of its value for help: "8", or "derived". */
void cli_model_option_get(const sp_model_config *config, int i, char *out, int64_t out_bytes);
/* Derives what is still 0 and checks the whole. */
SP_MUST_CHECK sp_status cli_model_config_finish(sp_model_config *config);

#endif
