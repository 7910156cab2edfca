/* What the parts of `softpick bench` share.  The bench_* files time what is inside the library, and so may see it. */
#ifndef SP_CLI_BENCH_H
#define SP_CLI_BENCH_H

#include <stdint.h>

/* One benchmark each; argv[0] is "softpick bench NAME".  Returns the exit code. */
int bench_train(int argc, char **argv);
int bench_attention(int argc, char **argv);
int bench_capture(int argc, char **argv);

double bench_wall_seconds(void);
/* Processor time of the calling thread: what other programs do not add to. */
double bench_thread_seconds(void);
/* The clock for work of that many threads: of one its own time, of more the time on the wall. */
double bench_seconds(int n_threads);

/* Times of the same work.  Zero-fill. */
enum { BENCH_TIMES = 1024 };
typedef struct bench_times {
    double seconds[BENCH_TIMES]; /* the last ones */
    double least, total;
    int64_t n;
} bench_times;

void bench_times_add(bench_times *times, double seconds);
double bench_times_median(const bench_times *times);

#endif
