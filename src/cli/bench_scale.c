/* Multiply-adds from registers, a matrix product, a stream of reads, a copy. */
#include "cli/bench_scale.h"

#include <math.h>
#include <omp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"
#include "cli/bench_number.h"
#include "layers/layers.h"
#include "softpick/device.h"
#include "softpick/model.h"

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

/* Uniform in [-1,1). */
static void fill(void *data, sp_dtype dtype, int64_t n, uint64_t stream) {
#pragma omp parallel for
    for (int64_t i = 0; i < n; i++)
        bench_store(data, dtype, i, 2 * (float)sp_random_uniform(1, stream, (uint64_t)i) - 1);
}

static sp_status multiply(void *matmul) {
    const bench_matmul *m = matmul;
    if (!m->device->id) omp_set_num_threads(m->n_threads);
    return sp_layers_on_id(m->device->id)
        ->linear_forward(m->device, m->y, m->dtype, m->M, m->x, m->K, m->w, m->dtype, NULL, m->N, m->K, m->M);
}

/* Some numbers of one row of y, all on the host. */
static sp_status check_row(const bench_matmul *m, const void *x, const void *w, const void *y, int64_t row) {
    double bound = m->dtype == SP_DTYPE_BF16 ? 1e-2 : 1e-5, size = sqrt((double)m->K);
    for (int64_t column = 0; column < m->M; column += 37) {
        double sum = 0, found = (double)bench_load(y, m->dtype, column);
        for (int64_t k = 0; k < m->K; k++)
            sum += (double)bench_load(x, m->dtype, row * m->K + k) * (double)bench_load(w, m->dtype, column * m->K + k);
        SP_REQUIRE(fabs(found - sum) <= bound * size, SP_INTERNAL,
                   "matmul %s: number (%lld,%lld) is %g, not %g: nothing is timed", sp_dtype_name(m->dtype),
                   (long long)row, (long long)column, found, sum);
    }
    return SP_OK;
}

/* The first and the last row; y was NaN. */
static sp_status check_product(const bench_matmul *m, const void *x, const void *w) {
    const int64_t row_bytes = m->M * sp_dtype_bytes(m->dtype);
    for (int64_t row = 0; row < m->N; row += m->N - 1) {
        const void *y;
        SP_TRY(sp_device_read_begin(m->device, &y, (const char *)m->y + row * row_bytes, row_bytes));
        sp_status status = check_row(m, x, w, y, row);
        sp_device_read_end(m->device, y);
        SP_TRY(status);
    }
    return SP_OK;
}

/* Draws x and w in host memory, poisons y, multiplies and checks. */
static sp_status begin_product(bench_matmul *m, char *image, int64_t x_bytes, int64_t w_bytes, int64_t bytes) {
    fill(image, m->dtype, m->N * m->K, 1);
    fill(image + x_bytes, m->dtype, m->M * m->K, 2);
    memset(image + x_bytes + w_bytes, 0xff, (size_t)(bytes - x_bytes - w_bytes));
    SP_TRY(sp_device_upload(m->device, m->memory, image, bytes));
    SP_TRY(multiply(m));
    return check_product(m, image, image + x_bytes);
}

sp_status bench_matmul_open(bench_matmul *m, sp_device *device, sp_dtype dtype, int n_threads, const char **name) {
    int64_t one = sp_dtype_bytes(dtype);
    *m = (bench_matmul){.device = device, .dtype = dtype, .n_threads = n_threads, .N = 4096, .K = 1024, .M = 1024};
    if (device->id) m->N = m->K = m->M = 8192;
    int64_t x_bytes = m->N * m->K * one, w_bytes = m->M * m->K * one, bytes = x_bytes + w_bytes + m->N * m->M * one;
    *name = sp_model_matmul_name(device->id, dtype);
    if (!*name) return SP_OK;
    void *image;
    SP_TRY(sp_allocate(&image, bytes, "the matrices of a benchmark"));
    sp_status status = sp_device_allocate(device, &m->memory, bytes, "the matrices of a benchmark");
    m->x = m->memory;
    m->w = (char *)m->memory + x_bytes;
    m->y = (char *)m->w + w_bytes;
    if (status == SP_OK) status = begin_product(m, image, x_bytes, w_bytes, bytes);
    free(image);
    return status;
}

sp_status bench_matmul_time(bench_matmul *m, double seconds, bench_turns *turns) {
    if (m->device->id) return bench_turn(turns, &m->times, multiply, m);
    double end = bench_wall_seconds() + seconds;
    do {
        double start = bench_seconds(m->n_threads);
        SP_TRY(multiply(m));
        bench_times_add(&m->times, bench_seconds(m->n_threads) - start);
    } while (bench_wall_seconds() < end);
    return SP_OK;
}

double bench_matmul_gflops(const bench_matmul *m) {
    double seconds = m->device && m->device->id ? bench_times_median(&m->times) : m->times.least;
    return m->times.n ? 2e-9 * (double)m->N * (double)m->K * (double)m->M / seconds : 0;
}

void bench_matmul_close(bench_matmul *m) {
    if (m->memory) sp_device_release(m->device, m->memory);
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

/* ---- copying ---------------------------------------------------------------------------------------------------- */

sp_status bench_copy_open(bench_copy *c, sp_device *device) {
    void *memory;
    *c = (bench_copy){.device = device};
    SP_TRY(sp_device_allocate(device, &memory, (int64_t)2 * BENCH_COPY_BYTES, "memory to be copied"));
    c->memory = memory;
    return SP_OK;
}

static sp_status copy(void *user) {
    const bench_copy *c = user;
    return sp_device_copy_rows(c->device, c->memory + BENCH_COPY_BYTES, BENCH_COPY_BYTES, c->memory, BENCH_COPY_BYTES,
                               BENCH_COPY_BYTES, 1);
}

sp_status bench_copy_time(bench_copy *c, bench_turns *turns) { return bench_turn(turns, &c->times, copy, c); }

double bench_copy_gb_per_s(const bench_copy *c) {
    return c->times.n ? 2e-9 * BENCH_COPY_BYTES / bench_times_median(&c->times) : 0;
}

void bench_copy_close(bench_copy *c) {
    if (c->memory) sp_device_release(c->device, c->memory);
    *c = (bench_copy){0};
}
