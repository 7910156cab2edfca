/* Multiply-adds from registers, a matrix product, a stream of reads. */
#include "cli/bench_scale.h"

#include <math.h>
#include <omp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"
#include "formats/halves.h"
#include "layers/layers.h"
#include "softpick/device.h"

/* ---- multiply-adds ---------------------------------------------------------------------------------------------- */

/* 12 independent chains: latency 4, two a cycle, and some to spare. */
#define FMA_LOOP(name, attribute, vector, set, fma, lanes)                                                             \
    attribute static double name(int64_t n, float *keep) {                                                             \
        vector sums[12], a = set(0.999f), b = set(1e-3f);                                                              \
        for (int i = 0; i < 12; i++) sums[i] = set((float)i);                                                          \
        double start = bench_thread_seconds();                                                                         \
        for (int64_t x = 0; x < n; x++)                                                                                \
            for (int i = 0; i < 12; i++) sums[i] = fma(a, sums[i], b);                                                 \
        double seconds = bench_thread_seconds() - start;                                                               \
        for (int i = 0; i < 12; i++) memcpy(keep + i * (lanes), &sums[i], sizeof sums[i]);                             \
        return 2.0 * 12 * (lanes) * (double)n / seconds * 1e-9;                                                        \
    }

#if defined(__x86_64__)
#include <immintrin.h>
FMA_LOOP(fma_avx512, __attribute__((target("avx512f"))), __m512, _mm512_set1_ps, _mm512_fmadd_ps, 16)
FMA_LOOP(fma_avx2, __attribute__((target("avx2,fma"))), __m256, _mm256_set1_ps, _mm256_fmadd_ps, 8)

static double fma_once(float *keep) {
    if (sp_cpu_features() & SP_CPU_AVX512) return fma_avx512(2000000, keep);
    return sp_cpu_features() & SP_CPU_AVX2 ? fma_avx2(2000000, keep) : 0;
}
#elif defined(__aarch64__)
#include <arm_neon.h>
static inline float32x4_t multiply_add(float32x4_t a, float32x4_t b, float32x4_t c) { return vfmaq_f32(c, a, b); }
FMA_LOOP(fma_neon, , float32x4_t, vdupq_n_f32, multiply_add, 4)

static double fma_once(float *keep) { return fma_neon(2000000, keep); }
#else
static double fma_once(float *keep) { return keep[0] = 0; }
#endif

double bench_fma_gflops(void) {
    float keep[12 * 16];
    double best = 0;
    for (int i = 0; i < 10; i++) best = fmax(best, fma_once(keep));
    return best;
}

/* ---- a matrix product ------------------------------------------------------------------------------------------- */

enum { N = BENCH_MATMUL_N, K = BENCH_MATMUL_K, M = BENCH_MATMUL_M };

static double element(const void *data, sp_dtype dtype, int64_t i) {
    return (double)(dtype == SP_DTYPE_BF16 ? sp_bf16_to_f32(((const uint16_t *)data)[i]) : ((const float *)data)[i]);
}

/* Uniform in [-1,1). */
static void fill(void *data, sp_dtype dtype, int64_t n, uint64_t stream) {
#pragma omp parallel for
    for (int64_t i = 0; i < n; i++) {
        float value = 2 * (float)sp_random_uniform(1, stream, (uint64_t)i) - 1;
        if (dtype == SP_DTYPE_BF16)
            ((uint16_t *)data)[i] = sp_bf16_from_f32(value);
        else
            ((float *)data)[i] = value;
    }
}

static sp_status multiply(const bench_matmul *m) {
    omp_set_num_threads(m->n_threads);
    return sp_layers_cpu.linear_forward(sp_device_host(), m->y, m->dtype, M, m->x, K, m->w, m->dtype, NULL, N, K, M);
}

/* Some numbers of the first and of the last row. */
static sp_status check_product(const bench_matmul *m) {
    double bound = m->dtype == SP_DTYPE_BF16 ? 1e-2 : 1e-5;
    for (int64_t row = 0; row < N; row += N - 1)
        for (int64_t column = 0; column < M; column += 37) {
            double sum = 0, size = sqrt((double)K), y = element(m->y, m->dtype, row * M + column);
            for (int64_t k = 0; k < K; k++)
                sum += element(m->x, m->dtype, row * K + k) * element(m->w, m->dtype, column * K + k);
            SP_REQUIRE(fabs(y - sum) <= bound * size, SP_INTERNAL,
                       "matmul %s: number (%lld,%lld) is %g, not %g: nothing is timed", sp_dtype_name(m->dtype),
                       (long long)row, (long long)column, y, sum);
        }
    return SP_OK;
}

sp_status bench_matmul_open(bench_matmul *m, sp_dtype dtype, int n_threads, const char **name) {
    int64_t bytes = sp_dtype_bytes(dtype), x_bytes = N * K * bytes, w_bytes = M * K * bytes;
    *m = (bench_matmul){.dtype = dtype, .n_threads = n_threads};
    *name = sp_matmul_variant(dtype);
    if (!*name) return SP_OK;
    SP_TRY(sp_allocate(&m->memory, x_bytes + w_bytes + N * M * bytes, "the matrices of a benchmark"));
    m->x = m->memory;
    m->w = (char *)m->memory + x_bytes;
    m->y = (char *)m->w + w_bytes;
    fill(m->x, dtype, N * K, 1);
    fill(m->w, dtype, M * K, 2);
    memset(m->y, 0xff, (size_t)(N * M * bytes));
    SP_TRY(multiply(m));
    return check_product(m);
}

sp_status bench_matmul_time(bench_matmul *m, double seconds) {
    double end = bench_wall_seconds() + seconds;
    do {
        double start = bench_seconds(m->n_threads);
        SP_TRY(multiply(m));
        bench_times_add(&m->times, bench_seconds(m->n_threads) - start);
    } while (bench_wall_seconds() < end);
    return SP_OK;
}

double bench_matmul_gflops(const bench_matmul *m) { return m->times.n ? 2e-9 * N * (double)K * M / m->times.least : 0; }

void bench_matmul_close(bench_matmul *m) {
    free(m->memory);
    *m = (bench_matmul){0};
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

enum { READ_WORDS = BENCH_READ_BYTES / 8 };

/* In four streams, a cache line of each in turn: faster than one (on one core 35 instead of 28 GB/s).  n: a multiple of 32. */
static uint64_t read_part(const uint64_t *words, int64_t n) {
    uint64_t sums[8] = {0}, sum = 0;
    for (int64_t i = 0; i < n / 4; i += 8)
        for (int64_t stream = 0; stream < 4; stream++)
            for (int64_t k = 0; k < 8; k++) sums[k] += words[stream * (n / 4) + i + k];
    for (int k = 0; k < 8; k++) sum += sums[k];
    return sum;
}

static uint64_t read_all(const bench_read *r) {
    const int64_t n_lines = READ_WORDS / 32, n = r->n_threads;
    uint64_t sum = 0;
#pragma omp parallel for reduction(+ : sum) num_threads(r->n_threads)
    for (int64_t i = 0; i < n; i++) {
        int64_t first = n_lines * i / n, end = n_lines * (i + 1) / n;
        sum += read_part(r->memory + 32 * first, 32 * (end - first));
    }
    return sum;
}

sp_status bench_read_open(bench_read *r, int n_threads) {
    void *memory;
    *r = (bench_read){.n_threads = n_threads};
    SP_TRY(sp_allocate(&memory, BENCH_READ_BYTES, "the memory to be read"));
    r->memory = memory;
#pragma omp parallel for num_threads(n_threads)
    for (int64_t i = 0; i < READ_WORDS; i++) r->memory[i] = (uint64_t)i;
    return SP_OK;
}

sp_status bench_read_time(bench_read *r, double seconds) {
    const uint64_t expected = (uint64_t)READ_WORDS * (READ_WORDS - 1) / 2;
    double end = bench_wall_seconds() + seconds;
    do {
        double start = bench_seconds(r->n_threads);
        SP_REQUIRE(read_all(r) == expected, SP_INTERNAL, "the memory read does not hold what was written");
        bench_times_add(&r->times, bench_seconds(r->n_threads) - start);
    } while (bench_wall_seconds() < end);
    return SP_OK;
}

double bench_read_gb_per_s(const bench_read *r) { return r->times.n ? 1e-9 * BENCH_READ_BYTES / r->times.least : 0; }

void bench_read_close(bench_read *r) {
    free(r->memory);
    *r = (bench_read){0};
}
