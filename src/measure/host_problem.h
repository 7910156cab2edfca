/* The queries and keys of an attention problem in host memory, wherever they lie. */
#ifndef SP_MEASURE_HOST_PROBLEM_H
#define SP_MEASURE_HOST_PROBLEM_H

#include "base/status.h"
#include "device/device.h"
#include "softpick/attention.h"

typedef struct sp_host_problem {
    sp_attention problem; /* q and k in host memory, and all else that weights depend on; no v, no out */
    sp_device *device;
    const void *read[4]; /* q, k, sink, row_factor */
} sp_host_problem;

/* Waits for what the problem's stream has been given. */
SP_MUST_CHECK sp_status sp_host_problem_begin(sp_host_problem *host, const sp_attention *problem);
void sp_host_problem_end(sp_host_problem *host); /* a zeroed one is fine */

/* As sp_attention_rows, of a part of the problem. */
SP_MUST_CHECK sp_status sp_host_problem_rows(const sp_host_problem *host, const sp_attention *part,
                                             sp_attention_row_function function, void *user);

#endif
