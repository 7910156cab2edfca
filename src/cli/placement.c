/* Where a model computes and in which numbers. */
#include "cli/placement.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "softpick/device.h"
#include "softpick/model.h"

/* The N of "cuda:N"; -1: there is none. */
static int32_t parse_index(const char *text) {
    enum { LONGEST = 4 }; /* digits */
    size_t n = strlen(text);
    if (n < 1 || n > LONGEST || strspn(text, "0123456789") != n) return -1;
    return (int32_t)strtol(text, NULL, 10);
}

sp_status cli_device_find(int32_t *device, const char *name) {
    static const char numbered[] = "cuda:";
    int32_t index = -1;
    *device = 0;
    if (strcmp(name, "cpu") == 0) return SP_OK;
    if (strcmp(name, "cuda") == 0) index = 0;
    if (strncmp(name, numbered, strlen(numbered)) == 0) index = parse_index(name + strlen(numbered));
    SP_REQUIRE(index >= 0, SP_BAD_ARGUMENT, "--device: \"%s\" is not " CLI_DEVICE_HELP, name);
    *device = 1 + index;
    return SP_OK;
}

int32_t cli_device(struct argp_state *state, const char *option, const char *text) {
    int32_t device;
    if (cli_device_find(&device, text) != SP_OK) argp_error(state, "%s: \"%s\" is not " CLI_DEVICE_HELP, option, text);
    return device;
}

void cli_device_format(char *out, int64_t out_bytes, int32_t device) {
    if (device)
        snprintf(out, (size_t)out_bytes, "cuda:%" PRId32, device - 1);
    else
        snprintf(out, (size_t)out_bytes, "cpu");
}

void cli_device_describe(char *out, int64_t out_bytes, int32_t device) {
    sp_cuda_device facts;
    const char *name = sp_cpu_model();
    if (device) name = sp_cuda_device_describe(device - 1, &facts) == SP_OK ? facts.name : "unknown GPU";
    snprintf(out, (size_t)out_bytes, "%s", name);
}

sp_status cli_dtype_find(sp_dtype *dtype, const char *name, int32_t device) {
    *dtype = SP_DTYPE_F32;
    if (strcmp(name, "auto") == 0)
        *dtype = sp_model_fastest_dtype(device);
    else if (strcmp(name, "bf16") == 0)
        *dtype = SP_DTYPE_BF16;
    else
        SP_REQUIRE(strcmp(name, "f32") == 0, SP_BAD_ARGUMENT, "--dtype: \"%s\" is not auto, f32 or bf16", name);
    return SP_OK;
}

sp_dtype cli_dtype(struct argp_state *state, const char *option, const char *text) {
    if (strcmp(text, "bf16") == 0) return SP_DTYPE_BF16;
    if (strcmp(text, "f32") != 0) argp_error(state, "%s: \"%s\" is not f32 or bf16", option, text);
    return SP_DTYPE_F32;
}

sp_dtype cli_dtype_default(int32_t device) { return device ? SP_DTYPE_BF16 : SP_DTYPE_F32; }
