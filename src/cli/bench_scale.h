/* What a machine can do: the scale for the speed of attention. */
#ifndef SP_CLI_BENCH_SCALE_H
#define SP_CLI_BENCH_SCALE_H

#include "base/status.h"
#include "cli/bench.h"
#include "cli/bench_turn.h"
#include "softpick/tensor.h"

/* Multiply-adds of one core from registers in f32, GFLOP/s; 0 on a CPU without vectors that this file knows. */
double bench_fma_gflops(void);

/* y (N,M) = x (N,K) w (M,K)^T by the library's own product: on the host 4096 x 1024 x 1024 (N x K x M), on a GPU 8192 of
 * each. */
typedef struct bench_matmul {
    sp_device *device;
    sp_dtype dtype;
    int n_threads;
    int64_t N, K, M;
    void *memory, *x, *w, *y; /* on the device */
    bench_times times;
} bench_matmul;

/* `name`: what runs it ("onednn", "plain", "cublaslt"); NULL if nothing can, and then there is no more to do.  Checks a
 * result against sums in double. */
SP_MUST_CHECK sp_status bench_matmul_open(bench_matmul *out, sp_device *device, sp_dtype dtype, int n_threads,
                                          const char **name);
/* Adds times for about so many seconds, one at least; on a GPU those of a turn. */
SP_MUST_CHECK sp_status bench_matmul_time(bench_matmul *matmul, double seconds, bench_turns *turns);
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

/* Copying within a GPU's memory: bytes read and bytes written count. */
enum { BENCH_COPY_BYTES = 1 << 29 };
typedef struct bench_copy {
    sp_device *device; /* NULL: nothing is copied */
    char *memory;
    bench_times times;
} bench_copy;

SP_MUST_CHECK sp_status bench_copy_open(bench_copy *out, sp_device *device);
SP_MUST_CHECK sp_status bench_copy_time(bench_copy *copy, bench_turns *turns);
double bench_copy_gb_per_s(const bench_copy *copy);
void bench_copy_close(bench_copy *copy);

#endif
