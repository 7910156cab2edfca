/* What a training run will hold in memory.  The plan is the library's (sp_model_plan_memory); here it is compared with
 * what is free, and the settings that would fit are searched. */
#include "cli/memory_plan.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>

#include "cli/placement.h"
#include "softpick/device.h"

static double gib(int64_t bytes) { return (double)bytes / 0x1p30; }

static sp_status needed(int64_t *bytes, const cli_run_shape *run, int64_t B, int64_t T, bool recompute) {
    sp_model_options options = *run->options;
    sp_model_memory needs;
    options.recompute = recompute;
    SP_TRY(sp_model_plan_memory(&needs, run->config, &options, B, T));
    *bytes = needs.total;
    return SP_OK;
}

/* The largest batch that fits, of at most the run's; 0: none.  With --accumulate, the largest that keeps the number of
 * sequences of a step. */
static sp_status largest_batch(int64_t *B, const cli_run_shape *run, bool recompute, int64_t free_bytes) {
    int64_t bytes, fits = 0, too_large = run->B + 1;
    *B = 0;
    while (too_large - fits > 1) {
        int64_t middle = fits + (too_large - fits) / 2;
        SP_TRY(needed(&bytes, run, middle, run->T, recompute));
        *(bytes <= free_bytes ? &fits : &too_large) = middle;
    }
    while (run->accumulate && fits > 1 && run->B * run->accumulate % fits != 0) fits--;
    *B = fits;
    return SP_OK;
}

/* The longest of T/2, T/4, ... of which one sequence fits, recomputing; 0: none. */
static sp_status longest_length(int64_t *T, const cli_run_shape *run, int64_t free_bytes) {
    int64_t bytes;
    for (*T = run->T / 2; *T >= 2; *T /= 2) {
        SP_TRY(needed(&bytes, run, 1, *T, true));
        if (bytes <= free_bytes) return SP_OK;
    }
    *T = 0;
    return SP_OK;
}

/* " --batch 4 --accumulate 8 --recompute": what differs from the run.  B 0: there is none. */
static void format_settings(char *out, int64_t out_bytes, const cli_run_shape *run, int64_t B, bool recompute) {
    char batch[64] = "", accumulate[64] = "";
    if (B > 0 && B < run->B) snprintf(batch, sizeof batch, " --batch %" PRId64, B);
    if (B > 0 && B < run->B && run->accumulate)
        snprintf(accumulate, sizeof accumulate, " --accumulate %" PRId64, run->B * run->accumulate / B);
    snprintf(out, (size_t)out_bytes, "%s%s%s", batch, accumulate, recompute ? " --recompute" : "");
}

/* The end of the sentence: which settings would fit. */
static sp_status advise(char *out, int64_t out_bytes, const cli_run_shape *run, const cli_memory_plan *plan) {
    const sp_model_memory *needs = &plan->needs;
    int64_t free_bytes = plan->free_bytes;
    char plain[160], recomputing[160];
    int64_t B = 0, B_recomputing, T;
    if (!run->options->recompute) SP_TRY(largest_batch(&B, run, false, free_bytes));
    SP_TRY(largest_batch(&B_recomputing, run, true, free_bytes));
    format_settings(plain, sizeof plain, run, B, false);
    format_settings(recomputing, sizeof recomputing, run, B_recomputing, !run->options->recompute);
    if (B > 0 && B_recomputing > B)
        snprintf(out, (size_t)out_bytes, "it would fit with%s, or with%s", plain, recomputing);
    else if (B > 0 || B_recomputing > 0)
        snprintf(out, (size_t)out_bytes, "it would fit with%s", B > 0 ? plain : recomputing);
    else {
        SP_TRY(longest_length(&T, run, free_bytes));
        if (T > 0)
            snprintf(out, (size_t)out_bytes, "it would fit with --batch 1 --recompute --length %" PRId64, T);
        else
            snprintf(out, (size_t)out_bytes,
                     "parameters, gradients and optimizer alone take %.2f GiB: no batch would fit",
                     gib(needs->parameters + needs->gradients + needs->optimizer));
    }
    return SP_OK;
}

sp_status cli_plan_memory(cli_memory_plan *out, const cli_run_shape *run) {
    int64_t total_bytes;
    char device[32], advice[400];
    *out = (cli_memory_plan){.device = run->options->device};
    SP_TRY(sp_device_free_bytes(out->device, &out->free_bytes, &total_bytes));
    SP_TRY(sp_model_plan_memory(&out->needs, run->config, run->options, run->B, run->T));
    if (out->needs.total <= out->free_bytes) return SP_OK;
    SP_TRY(advise(advice, sizeof advice, run, out));
    cli_device_format(device, sizeof device, out->device);
    return sp_fail(SP_OUT_OF_MEMORY,
                   "a batch of %" PRId64 " x %" PRId64 " tokens needs %.2f GiB of memory, %.2f GiB more than the %.2f "
                   "GiB that are free (%s): %s",
                   run->B, run->T, gib(out->needs.total), gib(out->needs.total - out->free_bytes), gib(out->free_bytes),
                   device, advice);
}

void cli_show_memory(const cli_memory_plan *plan) {
    const sp_model_memory *n = &plan->needs;
    char device[32], available[48] = "";
    cli_device_format(device, sizeof device, plan->device);
    if (plan->free_bytes < INT64_MAX) snprintf(available, sizeof available, ", %.2f are free", gib(plan->free_bytes));
    fprintf(stderr,
            "memory on %s, GiB: parameters %.2f, gradients %.2f, optimizer %.2f, activations %.2f, workspace %.2f, "
            "total %.2f%s\n",
            device, gib(n->parameters), gib(n->gradients), gib(n->optimizer), gib(n->activations), gib(n->workspace),
            gib(n->total), available);
}
