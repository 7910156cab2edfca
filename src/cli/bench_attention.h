/* The rows of `softpick bench attention`: what is timed, and what came of it. */
#ifndef SP_CLI_BENCH_ATTENTION_H
#define SP_CLI_BENCH_ATTENTION_H

#include "cli/bench_problem.h"
#include "cli/bench_scale.h"

/* One pass over one problem by one variant. */
typedef struct bench_row {
    bench_problem *problem; /* shared by the rows that differ in what follows alone */
    bench_options options;  /* liveness: whether the variant takes the words */
    sp_attention_pass pass;
    const char *wanted; /* variant asked for by name, or NULL: the chosen one */
    int n_threads;      /* of the host; on a GPU they do not count */

    const char *variant; /* that runs it; NULL: none */
    char refusal[200];   /* why not */
    bench_counts counts;
    bench_times times;
} bench_row;

enum { BENCH_SCALES = 32 };

typedef struct bench_run {
    sp_device *device;
    bench_turns turns; /* on a GPU */
    bench_shape shape; /* what all rows share; T, S, D, dtype and pattern are those of the first */
    int64_t page_size; /* of decode, 0: no pages */
    double fma_gflops;
    const char *matmul_name;
    bench_matmul matmuls[BENCH_SCALES];
    bench_read reads[BENCH_SCALES];
    bench_copy copy; /* on a GPU */
    int n_matmuls, n_reads;
    bench_problem **problems;
    bench_row *rows;
    int64_t n_problems, n_rows;
} bench_run;

void bench_attention_print(const bench_run *run);
SP_MUST_CHECK sp_status bench_attention_print_json(const bench_run *run);

#endif
