/* Where a model computes and in which numbers: the values of --device and --dtype. */
#ifndef SP_CLI_PLACEMENT_H
#define SP_CLI_PLACEMENT_H

#include <argp.h>
#include <stdint.h>

#include "base/status.h"
#include "softpick/tensor.h"

/* What every command says of --device. */
#define CLI_DEVICE_HELP "cpu, cuda (the first GPU) or cuda:N"

/* "cpu", "cuda", "cuda:N" to a device as in sp_tensor.  Whether this machine has it is not asked. */
SP_MUST_CHECK sp_status cli_device_find(int32_t *device, const char *name);
/* The same for argp: argp_error when the text is none. */
int32_t cli_device(struct argp_state *state, const char *option, const char *text);
/* "cpu", "cuda:N" */
void cli_device_format(char *out, int64_t out_bytes, int32_t device);
/* The processor's name, or the GPU's. */
void cli_device_describe(char *out, int64_t out_bytes, int32_t device);

/* "auto" (what is fastest there), "f32" or "bf16". */
SP_MUST_CHECK sp_status cli_dtype_find(sp_dtype *dtype, const char *name, int32_t device);

/* --dtype of commands that open a model: f32 or bf16, argp_error otherwise. */
sp_dtype cli_dtype(struct argp_state *state, const char *option, const char *text);
/* What these compute in when nothing was said: f32 on the host; a GPU has bf16 alone. */
sp_dtype cli_dtype_default(int32_t device);

#endif
