/* What a machine can do: the scale for the speed of attention. */
#ifndef SP_CLI_BENCH_SCALE_H
#define SP_CLI_BENCH_SCALE_H

#include "base/status.h"
#include "cli/bench.h"
#include "softpick/tensor.h"

/* Multiply-adds of one core from registers in f32, GFLOP/s; 0 on a CPU without vectors that this file knows. */
double bench_fma_gflops(void);

/* y (N,M) = x (N,K) w (M,K)^T by the library's own product. */
enum { BENCH_MATMUL_N = 4096, BENCH_MATMUL_K = 1024, BENCH_MATMUL_M = 1024 };
typedef struct bench_matmul {
    sp_dtype dtype;
    int n_threads;
    void *memory, *x, *w, *y;
    bench_times times;
} bench_matmul;

/* `name`: what runs it ("onednn", "plain"); NULL if nothing can, and then there is no more to do.  Checks a result
 * against sums in double. */
SP_MUST_CHECK sp_status bench_matmul_open(bench_matmul *out, sp_dtype dtype, int n_threads, const char **name);
/* Adds times for about so many seconds, one at least. */
SP_MUST_CHECK sp_status bench_matmul_time(bench_matmul *matmul, double seconds);
double bench_matmul_gflops(const bench_matmul *matmul);
void bench_matmul_close(bench_matmul *matmul);

/* Reading memory from end to end, more than the processor's own holds. */
enum { BENCH_READ_BYTES = 1 << 28 };
typedef struct bench_read {
    int n_threads;
    uint64_t *memory;
    bench_times times;
} bench_read;

SP_MUST_CHECK sp_status bench_read_open(bench_read *out, int n_threads);
SP_MUST_CHECK sp_status bench_read_time(bench_read *read, double seconds);
double bench_read_gb_per_s(const bench_read *read);
void bench_read_close(bench_read *read);

#endif
