/* Speed of attention, forward and backward.
 *
 *   bench_attention [B H T D [dtype [normalizer [threads]]]]        without arguments: a list of shapes
 *
 * A case is timed only after its results agree with the definition on a small problem of the same kind.  GFLOP/s count
 * the products alone over the scores that are seen: 2 of them forward, 5 backward, each 2 D per score.  The FMA peak of one
 * core, measured in the same run, gives the scale. */
#define _GNU_SOURCE /* clock_gettime */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "softpick/attention.h"
#include "softpick/device.h"

#include "../tests/attention_case.h"

static double clock_seconds(clockid_t clock_id) {
    struct timespec now;
    clock_gettime(clock_id, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void stop_on(sp_status status, const char *what) {
    if (status == SP_OK) return;
    fprintf(stderr, "%s: %s\n", what, sp_last_message());
    exit(1);
}

/* ---- the scale: multiply-adds of one core, from registers ------------------------------------------------------ */

#if defined(__x86_64__)
#include <immintrin.h>

/* 12 independent chains: latency 4, two a cycle, and some to spare. */
#define FMA_LOOP(name, isa, vector, set, fma, lanes)                                                                   \
    __attribute__((target(isa))) static double name(int64_t n, float *keep) {                                          \
        vector sums[12], a = set(0.999f), b = set(1e-3f);                                                              \
        for (int i = 0; i < 12; i++) sums[i] = set((float)i);                                                          \
        double start = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);                                                        \
        for (int64_t x = 0; x < n; x++)                                                                                \
            for (int i = 0; i < 12; i++) sums[i] = fma(sums[i], a, b);                                                 \
        double seconds = clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - start;                                              \
        for (int i = 0; i < 12; i++) memcpy(keep + i * lanes, &sums[i], sizeof sums[i]);                               \
        return 2.0 * 12 * lanes * (double)n / seconds * 1e-9;                                                          \
    }
FMA_LOOP(fma_avx512, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps, 16)
FMA_LOOP(fma_avx2, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps, 8)

static double measure_fma_peak(void) {
    float keep[12 * 16];
    double best = 0;
    if (!(sp_cpu_features() & SP_CPU_AVX2)) return 0;
    for (int i = 0; i < 10; i++)
        best = fmax(best, sp_cpu_features() & SP_CPU_AVX512 ? fma_avx512(2000000, keep) : fma_avx2(2000000, keep));
    return best;
}
#else
static double measure_fma_peak(void) { return 0; }
#endif

/* ---- one case --------------------------------------------------------------------------------------------------- */

static double relative_error(const sp_tensor *truth, const sp_tensor *result) {
    double *a = case_numbers(truth), *b = case_numbers(result), error = 0, size = 0;
    for (int64_t i = 0; i < sp_tensor_count(truth); i++) {
        error += (a[i] - b[i]) * (a[i] - b[i]);
        size += a[i] * a[i];
    }
    free(a), free(b);
    return sqrt(error / size);
}

/* Refuses a variant whose results are wrong. */
static void check_case(attention_shape shape) {
    attention_case truth, ours;
    shape.B = 1, shape.T = shape.S = shape.T < 130 ? shape.T : 130;
    shape.H = shape.Hkv = 1;
    case_open(&truth, &shape), case_open(&ours, &shape);
    stop_on(sp_attention_define_forward(&truth.problem), "definition");
    stop_on(sp_attention_define_backward(&truth.problem), "definition");
    stop_on(case_run(&ours, SP_ATTENTION_FORWARD, 1), "forward");
    stop_on(case_run(&ours, SP_ATTENTION_BACKWARD, 1), "backward");
    double bound = shape.dtype == SP_DTYPE_F32 ? 1e-5 : shape.dtype == SP_DTYPE_F16 ? 2e-3 : 1e-2;
    for (int i = 3; i < 8; i++) {
        if (i == 4) continue;
        double error = relative_error(truth.tensors[i], ours.tensors[i]);
        if (error <= bound) continue;
        fprintf(stderr, "not timed: result %d is off by %.3g, at most %.3g is allowed\n", i, error, bound);
        exit(1);
    }
    case_close(&truth), case_close(&ours);
}

/* Least seconds of a pass over about half a second: of one thread its own time, which other programs do not add to;
 * of more, time on the wall. */
static double time_pass(attention_case *c, sp_attention_pass pass, int n_threads) {
    int64_t bytes;
    void *workspace;
    clockid_t clock_id = n_threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;
    double best = INFINITY, end = clock_seconds(clock_id) + 0.5;
    stop_on(sp_attention_workspace(&c->problem, pass, n_threads, &bytes), "workspace");
    stop_on(sp_allocate(&workspace, bytes, "workspace"), "workspace");
    for (int i = 0; i < 3 || clock_seconds(clock_id) < end; i++) {
        double start = clock_seconds(clock_id);
        stop_on(pass == SP_ATTENTION_FORWARD ? sp_attention_forward(&c->problem, workspace, bytes, n_threads)
                                             : sp_attention_backward(&c->problem, workspace, bytes, n_threads),
                "pass");
        best = fmin(best, clock_seconds(clock_id) - start);
    }
    free(workspace);
    return best;
}

static void bench_case(const attention_shape *shape, int n_threads, double peak) {
    attention_case c;
    const char *name;
    check_case(*shape);
    case_open(&c, shape);
    stop_on(sp_attention_choose(&c.problem, SP_ATTENTION_FORWARD, &name), "choose");
    double seen = (double)shape->T * (double)(shape->T + 1) / 2, product = 2.0 * (double)shape->D * seen;
    product *= (double)(shape->B * shape->H) * 1e-9;
    double forward = time_pass(&c, SP_ATTENTION_FORWARD, n_threads);
    double backward = time_pass(&c, SP_ATTENTION_BACKWARD, n_threads);
    double cores = peak * n_threads;
    printf("%4" PRId64 " %3" PRId64 " %5" PRId64 " %4" PRId64 "  %-4s %-16s %-7s %2d  %8.3f %7.1f %4.0f%%  %8.3f %7.1f "
           "%4.0f%%\n",
           shape->B, shape->H, shape->T, shape->D, sp_dtype_name(shape->dtype), sp_normalizer_name(shape->normalizer),
           name, n_threads, forward * 1e3, 2 * product / forward, 200 * product / forward / cores, backward * 1e3,
           5 * product / backward, 500 * product / backward / cores);
    case_close(&c);
}

static attention_shape make_shape(int64_t B, int64_t H, int64_t T, int64_t D, sp_dtype dtype,
                                  sp_normalizer normalizer) {
    return (attention_shape){.B = B,
                             .T = T,
                             .S = T,
                             .H = H,
                             .Hkv = H,
                             .D = D,
                             .Dv = D,
                             .dtype = dtype,
                             .normalizer = normalizer,
                             .causal = true,
                             .interleaved = true,
                             .lambda = 1,
                             .eps = SP_EPS_DEFAULT,
                             .spread = 1,
                             .seed = 1};
}

static sp_dtype find_dtype(const char *name) {
    for (int i = 0; i < SP_DTYPE_COUNT; i++)
        if (strcmp(name, sp_dtype_name((sp_dtype)i)) == 0) return (sp_dtype)i;
    fprintf(stderr, "there is no dtype \"%s\"\n", name);
    exit(2);
}

int main(int n_arguments, char **arguments) {
    static const int64_t shapes[][4] = {{16, 8, 128, 32}, {8, 8, 256, 64},  {4, 8, 512, 64},
                                        {4, 8, 512, 128}, {1, 4, 2048, 64}, {1, 4, 2048, 128}};
    double peak = measure_fma_peak();
    printf("%s: %.1f GFLOP/s multiply-add of one core; causal, q k v interleaved\n", sp_cpu_model(), peak);
    printf("   B   H     T    D                                  forward ms GFLOP/s      backward ms GFLOP/s\n");
    if (n_arguments >= 5) {
        sp_normalizer normalizer = SP_NORMALIZER_SOFTPICK;
        if (n_arguments > 6) stop_on(sp_normalizer_find(&normalizer, arguments[6]), "normalizer");
        attention_shape shape =
            make_shape(atoll(arguments[1]), atoll(arguments[2]), atoll(arguments[3]), atoll(arguments[4]),
                       n_arguments > 5 ? find_dtype(arguments[5]) : SP_DTYPE_F32, normalizer);
        bench_case(&shape, n_arguments > 7 ? atoi(arguments[7]) : 1, peak);
        return 0;
    }
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int n_threads = 1; n_threads <= 2; n_threads++) {
            for (int dtype = 0; dtype < 2; dtype++) {
                attention_shape shape = make_shape(shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3],
                                                   (sp_dtype)dtype, SP_NORMALIZER_SOFTPICK);
                bench_case(&shape, n_threads, peak);
            }
            if (n_threads > 1) continue;
            attention_shape shape =
                make_shape(shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3], SP_DTYPE_F32, SP_NORMALIZER_SOFTMAX);
            bench_case(&shape, n_threads, peak);
        }
    return 0;
}
