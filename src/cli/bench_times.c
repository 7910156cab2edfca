/* Clocks, and the times of the same work: least and median. */
#define _GNU_SOURCE
#include "cli/bench.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static double read_clock(clockid_t id) {
    struct timespec now;
    clock_gettime(id, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double bench_wall_seconds(void) { return read_clock(CLOCK_MONOTONIC); }
double bench_thread_seconds(void) { return read_clock(CLOCK_THREAD_CPUTIME_ID); }
double bench_seconds(int n_threads) { return n_threads == 1 ? bench_thread_seconds() : bench_wall_seconds(); }

void bench_times_add(bench_times *times, double seconds) {
    if (times->n == 0 || seconds < times->least) times->least = seconds;
    times->seconds[times->n++ % BENCH_TIMES] = seconds;
    times->total += seconds;
}

static int compare(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

double bench_times_median(const bench_times *times) {
    double sorted[BENCH_TIMES];
    int64_t n = times->n < BENCH_TIMES ? times->n : BENCH_TIMES;
    if (n == 0) return 0;
    memcpy(sorted, times->seconds, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, compare);
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}
