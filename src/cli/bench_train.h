/* What `softpick bench train` times, and how it is shown. */
#ifndef SP_CLI_BENCH_TRAIN_H
#define SP_CLI_BENCH_TRAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "cli/bench.h"
#include "softpick/model.h"

enum { BENCH_MODEL_OPTIONS = 32 };

typedef struct train_bench {
    /* given */
    const char *preset; /* NULL: none */
    int64_t B, T;       /* 0: the preset's */
    int64_t n_steps;    /* 0: by seconds */
    double seconds;
    int64_t n_threads;
    int32_t device;
    bool recompute, json;
    const char *dtype_name;
    const char *model_texts[BENCH_MODEL_OPTIONS]; /* by row of the table of model options; NULL: not given */
    /* measured */
    sp_model_config config;
    sp_dtype dtype;
    int64_t n_parameters, peak_bytes;
    double loss;
    bench_times wall; /* of steps without a profile */
    bench_times cpu;  /* the same of all threads: tells a busy machine from slow code */
    /* of profiled steps */
    int64_t n_profiled;
    double profiled_seconds, optimizer_seconds, clearing_seconds; /* of all of them */
    sp_model_profile profile;
    double queue_seconds; /* on a GPU, of a step with as many launches and next to no work; NAN on the host */
} train_bench;

/* Multiplications and additions that a step's mathematics need: recomputation does not count (docs/bench.md). */
double bench_train_flops(const train_bench *bench);
/* Peak of dense bf16 products by data sheet, FLOP/s; NAN where it is not known. */
double bench_train_peak_flops(const train_bench *bench);

void bench_train_print(const train_bench *bench);
SP_MUST_CHECK sp_status bench_train_print_json(const train_bench *bench);

#endif
