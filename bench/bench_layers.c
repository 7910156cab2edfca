/* Speed of the layers on this machine: products in GFLOP/s, every other layer as the memory traffic it cannot avoid per
 * second, beside a memcpy that moves as many bytes on as many threads, timed in turn with it.  "of copy" is the ratio of
 * the two: near 1 or above, the memory decides; below it, the arithmetic does.  Nothing is timed before its result is
 * checked against the formula in double, at places spread over the output.
 * Usage: bench_layers [ROUNDS [TOKENS]]      each number is the best of ROUNDS (20); tokens 2048 */
#define _POSIX_C_SOURCE 200809L

#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "base/random.h"
#include "layers/layers.h"
#include "layers/row_kernels.h"

enum { C = 512, F = 1376, V = 8192, D = 64, N_PARAMETERS = 1 << 23, MAX_ROUNDS = 1000 };

/* Buffers of each kind that the cases share; every case writes what it reads before it is timed. */
typedef struct bench {
    int64_t N;
    sp_dtype act;
    float *x, *dx, *weight, *dweight, *rstd, *table, *values, *gradient, *m, *v;
    void *y, *gu, *dgu, *s, *ds, *logits, *workspace;
    int32_t *tokens, *positions;
    char *copy_from, *copy_to;
} bench;

typedef struct bench_case {
    const char *name;
    int64_t f32_bytes, act_bytes; /* numbers of each kind moved per token (per parameter in the last three) */
    int64_t (*count)(const bench *b);
    void (*run)(bench *b);
    double (*error)(bench *b); /* largest error at the sampled places, relative to what rounding allows: <= 1 */
} bench_case;

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "bench_layers: %s\n", what);
    exit(1);
}

/* A function of the CPU's table. */
#define CPU(function, ...)                                                                                             \
    do {                                                                                                               \
        if (sp_layers_cpu.function(sp_device_host(), __VA_ARGS__) != SP_OK) die(sp_last_message());                    \
    } while (0)

static void *memory(int64_t bytes) {
    void *out;
    if (sp_allocate(&out, bytes, "benchmark") != SP_OK) die(sp_last_message());
    return out;
}

static double at(const void *data, sp_dtype dtype, int64_t i) {
    float value;
    sp_row_kernels_best()->convert(&value, SP_DTYPE_F32, (const char *)data + i * sp_dtype_bytes(dtype), dtype, 1);
    return value;
}

/* Uniform in [-2, 2). */
static void fill(void *data, sp_dtype dtype, int64_t n, uint64_t stream) {
    enum { RUN = 1024 };
#pragma omp parallel for
    for (int64_t i = 0; i < n; i += RUN) {
        float values[RUN];
        int64_t count = n - i < RUN ? n - i : RUN;
        for (int64_t j = 0; j < count; j++)
            values[j] = 4.0f * (float)sp_random_uniform(1, stream, (uint64_t)(i + j)) - 2.0f;
        sp_row_kernels_best()->convert((char *)data + i * sp_dtype_bytes(dtype), dtype, values, SP_DTYPE_F32, count);
    }
}

/* Error in units of what is allowed: 1/256 of the value for bf16 and 2e-6 for f32, or of `scale` where it is larger. */
static double error_of(double actual, double expected, double scale, sp_dtype dtype) {
    double allowed = (dtype == SP_DTYPE_BF16 ? 1.0 / 256 : 2e-6) * fmax(fabs(expected), scale);
    double error = fabs(actual - expected) / allowed;
    return isnan(error) ? INFINITY : error;
}

/* ---- the cases -------------------------------------------------------------------------------------------------- */

static int64_t per_token(const bench *b) { return b->N; }
static int64_t per_logit_row(const bench *b) { return b->N / 4; }
static int64_t per_parameter(const bench *b) { return b ? N_PARAMETERS : 0; }

static double row_rstd(const bench *b, int64_t n) {
    double sum = 0.0;
    for (int64_t i = 0; i < C; i++) sum += (double)b->x[n * C + i] * b->x[n * C + i];
    return 1.0 / sqrt(sum / C + 1e-6);
}

static void rmsnorm_forward(bench *b) { CPU(rmsnorm_forward, b->y, b->act, b->rstd, b->x, b->weight, b->N, C, 1e-6f); }

static double rmsnorm_forward_error(bench *b) {
    double worst = 0.0;
    for (int64_t n = 0; n < b->N; n += 97)
        worst = fmax(worst, error_of(at(b->y, b->act, n * C + n % C),
                                     b->x[n * C + n % C] * row_rstd(b, n) * b->weight[n % C], 1e-3, b->act));
    return worst;
}

static void rmsnorm_backward(bench *b) {
    CPU(rmsnorm_backward, b->dx, NULL, NULL, b->dweight, b->y, b->act, b->x, b->weight, b->rstd, b->N, C, b->workspace);
}

static double rmsnorm_backward_error(bench *b) {
    memset(b->dx, 0, (size_t)(b->N * C) * sizeof(float));
    rmsnorm_forward(b);
    rmsnorm_backward(b);
    double worst = 0.0;
    for (int64_t n = 0; n < b->N; n += 97) {
        double rstd = row_rstd(b, n), mean = 0.0;
        int64_t i = n % C;
        for (int64_t j = 0; j < C; j++) mean += at(b->y, b->act, n * C + j) * b->weight[j] * b->x[n * C + j] * rstd / C;
        double d = rstd * (at(b->y, b->act, n * C + i) * b->weight[i] - b->x[n * C + i] * rstd * mean);
        worst = fmax(worst, error_of(b->dx[n * C + i], d, 1.0, SP_DTYPE_F32));
    }
    return worst;
}

static void rope(bench *b) { CPU(rope_apply, b->y, b->act, C, b->positions, b->table, b->N, C / D, D, false); }

static double rope_error(bench *b) {
    double worst = 0.0;
    fill(b->y, b->act, b->N * C, 3);
    for (int64_t n = 0; n < b->N; n += 97) {
        double angle = b->positions[n] * pow(10000.0, -2.0 * (double)(n % (D / 2)) / D);
        int64_t i = n * C + n % (D / 2);
        double expected = at(b->y, b->act, i) * cos(angle) - at(b->y, b->act, i + D / 2) * sin(angle);
        CPU(rope_apply, (char *)b->y + n * C * sp_dtype_bytes(b->act), b->act, C, b->positions + n, b->table, 1, C / D,
            D, false);
        worst = fmax(worst, error_of(at(b->y, b->act, i), expected, 1.0, b->act));
    }
    return worst;
}

static void swiglu_forward(bench *b) { CPU(swiglu_forward, b->s, b->gu, b->act, b->N, F); }

static double swiglu_forward_error(bench *b) {
    double worst = 0.0;
    for (int64_t n = 0; n < b->N; n += 7) {
        double g = at(b->gu, b->act, n * 2 * F + n % F), u = at(b->gu, b->act, n * 2 * F + F + n % F);
        worst = fmax(worst, error_of(at(b->s, b->act, n * F + n % F), g * u / (1.0 + exp(-g)), 0.0, b->act));
    }
    return worst;
}

static void swiglu_backward(bench *b) { CPU(swiglu_backward, b->dgu, b->s, b->ds, b->gu, b->act, b->N, F); }

static double swiglu_backward_error(bench *b) {
    double worst = swiglu_forward_error(b);
    for (int64_t n = 0; n < b->N; n += 7) {
        double g = at(b->gu, b->act, n * 2 * F + n % F), u = at(b->gu, b->act, n * 2 * F + F + n % F);
        double d = at(b->ds, b->act, n * F + n % F), open = 1.0 / (1.0 + exp(-g));
        worst = fmax(worst, error_of(at(b->dgu, b->act, n * 2 * F + n % F), d * u * open * (1.0 + g * (1.0 - open)),
                                     fabs(d * u), b->act));
        worst = fmax(worst, error_of(at(b->dgu, b->act, n * 2 * F + F + n % F), d * g * open, 0.0, b->act));
    }
    return worst;
}

static void embedding_forward(bench *b) { CPU(embedding_forward, b->dx, b->values, b->tokens, b->N, C); }

static double embedding_forward_error(bench *b) {
    for (int64_t n = 0; n < b->N; n++)
        if (memcmp(b->dx + n * C, b->values + (int64_t)b->tokens[n] * C, C * sizeof(float)) != 0) return INFINITY;
    return 0.0;
}

static void embedding_backward(bench *b) { CPU(embedding_backward, b->values, b->dx, b->tokens, b->N, C, NULL); }

static double embedding_backward_error(bench *b) {
    memset(b->values, 0, (size_t)V * C * sizeof(float));
    embedding_backward(b);
    double sum = 0.0, expected = 0.0;
    for (int64_t n = 0; n < b->N; n++) expected += b->tokens[n] == b->tokens[0] ? b->dx[n * C + 1] : 0.0;
    sum = b->values[(int64_t)b->tokens[0] * C + 1];
    return error_of(sum, expected, 1.0, SP_DTYPE_F32);
}

static double loss_of(bench *b, bool gradient) {
    double loss, *losses = (double *)b->workspace;
    CPU(cross_entropy, losses, b->logits, b->act, b->tokens, b->N / 4, V, gradient, 1.0f);
    CPU(sum, &loss, losses, b->N / 4);
    return loss;
}

static void loss_forward(bench *b) { loss_of(b, false); }
static void loss_backward(bench *b) { loss_of(b, true); }

static double loss_forward_error(bench *b) {
    fill(b->logits, b->act, b->N / 4 * V, 7);
    double expected = 0.0;
    for (int64_t n = 0; n < b->N / 4; n++) {
        double sum = 0.0;
        for (int64_t i = 0; i < V; i++) sum += exp(at(b->logits, b->act, n * V + i));
        expected += log(sum) - at(b->logits, b->act, n * V + b->tokens[n]);
    }
    return error_of(loss_of(b, false), expected, 0.0, SP_DTYPE_F32);
}

static double loss_backward_error(bench *b) {
    fill(b->logits, b->act, V, 7);
    double sum = 0.0, before = at(b->logits, b->act, 5);
    for (int64_t i = 0; i < V; i++) sum += exp(at(b->logits, b->act, i));
    loss_of(b, true);
    return error_of(at(b->logits, b->act, 5), exp(before) / sum - (b->tokens[0] == 5), 0.0, b->act);
}

static void adamw(bench *b) {
    sp_adamw options = {1e-3, 0.9, 0.95, 1e-15, 0.1, 1};
    CPU(adamw_step, b->values, NULL, b->gradient, b->m, b->v, N_PARAMETERS, 0.5f, &options);
}

static double adamw_error(bench *b) {
    fill(b->values, SP_DTYPE_F32, N_PARAMETERS, 9);
    memset(b->m, 0, N_PARAMETERS * sizeof(float));
    memset(b->v, 0, N_PARAMETERS * sizeof(float));
    double value = b->values[N_PARAMETERS - 1], gradient = b->gradient[N_PARAMETERS - 1];
    adamw(b);
    return error_of(b->values[N_PARAMETERS - 1], value * (1.0 - 1e-4) - copysign(1e-3, gradient), 0.0, SP_DTYPE_F32);
}

static void norm(bench *b) {
    double norm;
    CPU(norm, &norm, b->gradient, N_PARAMETERS);
    b->rstd[0] = (float)norm;
}

static double norm_error(bench *b) {
    double sum = 0.0;
    for (int64_t i = 0; i < N_PARAMETERS; i++) sum += (double)b->gradient[i] * b->gradient[i];
    return error_of(b->rstd[0], sqrt(sum), 0.0, SP_DTYPE_F32);
}

static void convert(bench *b) { sp_convert(b->v, SP_DTYPE_BF16, b->gradient, SP_DTYPE_F32, N_PARAMETERS); }

static double convert_error(bench *b) {
    double worst = 0.0;
    for (int64_t i = 0; i < N_PARAMETERS; i += 1001)
        worst = fmax(worst, error_of(at(b->v, SP_DTYPE_BF16, i), b->gradient[i], 0.0, SP_DTYPE_BF16));
    return worst;
}

static const bench_case cases[] = {
    {"rmsnorm forward", C, C, per_token, rmsnorm_forward, rmsnorm_forward_error},
    {"rmsnorm backward", 3 * C, C, per_token, rmsnorm_backward, rmsnorm_backward_error},
    {"rope", 0, 2 * C, per_token, rope, rope_error},
    {"swiglu forward", 0, 3 * F, per_token, swiglu_forward, swiglu_forward_error},
    {"swiglu backward", 0, 6 * F, per_token, swiglu_backward, swiglu_backward_error},
    {"embedding forward", 2 * C, 0, per_token, embedding_forward, embedding_forward_error},
    {"embedding backward", 3 * C, 0, per_token, embedding_backward, embedding_backward_error},
    {"loss", 0, V, per_logit_row, loss_forward, loss_forward_error},
    {"loss and gradient", 0, 2 * V, per_logit_row, loss_backward, loss_backward_error},
    {"adamw", 7, 0, per_parameter, adamw, adamw_error},
    {"norm", 1, 0, per_parameter, norm, norm_error},
    {"convert f32 to bf16", 1, 0, per_parameter, convert, convert_error},
};

/* ---- timing ----------------------------------------------------------------------------------------------------- */

/* Moves as many bytes as the case: half of them read, half written. */
static void copy(bench *b, int64_t bytes) {
    enum { RUN = 1 << 16 };
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < bytes / 2; i += RUN)
        memcpy(b->copy_to + i, b->copy_from + i, (size_t)(bytes / 2 - i < RUN ? bytes / 2 - i : RUN));
}

static void time_case(const bench_case *c, bench *b, int rounds) {
    int64_t bytes = c->count(b) * (c->f32_bytes * 4 + c->act_bytes * sp_dtype_bytes(b->act));
    double best = INFINITY, best_copy = INFINITY;
    c->run(b);
    double error = c->error(b);
    if (!(error <= 1.0)) {
        printf("%-22s %-5s  WRONG: %.3g times the allowed error; not timed\n", c->name, sp_dtype_name(b->act), error);
        exit(1);
    }
    for (int i = 0; i < rounds; i++) {
        double t0 = seconds();
        c->run(b);
        double t1 = seconds();
        copy(b, bytes);
        double t2 = seconds();
        best = fmin(best, t1 - t0);
        best_copy = fmin(best_copy, t2 - t1);
    }
    printf("%-22s %-5s %9.3f %9.1f %9.2f\n", c->name, sp_dtype_name(b->act), best * 1e3, (double)bytes / best * 1e-9,
           best_copy / best);
}

/* ---- products --------------------------------------------------------------------------------------------------- */

typedef struct product_shape {
    const char *what;
    int64_t K, M;
} product_shape;

static const product_shape products[] = {
    {"qkv", 512, 1536}, {"out", 512, 512},       {"gate, up", 512, 2752}, {"down", 1376, 512},
    {"logits", 512, V}, {"width 128", 128, 128}, {"width 256", 256, 256}, {"width 256, gate, up", 256, 1376},
};

static sp_status forward(bench *b, const product_shape *p) {
    return sp_layers_cpu.linear_forward(sp_device_host(), b->gu, b->act, p->M, b->y, p->K, b->values, b->act, NULL,
                                        b->N, p->K, p->M);
}

static sp_status forward_residual(bench *b, const product_shape *p) {
    return sp_layers_cpu.linear_forward(sp_device_host(), b->dgu, SP_DTYPE_F32, p->M, b->y, p->K, b->values, b->act,
                                        b->m, b->N, p->K, p->M);
}

static sp_status backward_input(bench *b, const product_shape *p) {
    return sp_layers_cpu.linear_backward_input(sp_device_host(), b->dgu, b->act, p->K, b->gu, p->M, b->values, b->act,
                                               b->N, p->K, p->M);
}

static sp_status backward_weight(bench *b, const product_shape *p) {
    return sp_layers_cpu.linear_backward_weight(sp_device_host(), b->v, b->gu, p->M, b->y, p->K, b->act, b->N, p->K,
                                                p->M);
}

typedef sp_status (*product_function)(bench *b, const product_shape *p);
static const product_function functions[] = {forward, forward_residual, backward_input, backward_weight};
enum { N_FUNCTIONS = sizeof functions / sizeof *functions };

/* Row 0 of x w^T, some columns */
static void check_product(bench *b, const product_shape *p) {
    if (forward(b, p) != SP_OK) die(sp_last_message());
    for (int64_t m = 0; m < p->M; m += 37) {
        double sum = 0.0;
        for (int64_t k = 0; k < p->K; k++) sum += at(b->y, b->act, k) * at(b->values, b->act, m * p->K + k);
        if (error_of(at(b->gu, b->act, m), sum, sqrt((double)p->K), b->act) > 1.0) die("a wrong product: not timed");
    }
}

static void time_product(const product_shape *p, bench *b, int rounds) {
    double best[N_FUNCTIONS] = {INFINITY, INFINITY, INFINITY, INFINITY};
    fill(b->y, b->act, b->N * p->K, 10);
    fill(b->values, b->act, p->M * p->K, 11);
    check_product(b, p);
    for (int i = 0; i < rounds; i++)
        for (int f = 0; f < N_FUNCTIONS; f++) {
            double t = seconds();
            if (functions[f](b, p) != SP_OK) die(sp_last_message());
            best[f] = fmin(best[f], seconds() - t);
        }
    printf("%-22s %-5s", p->what, sp_dtype_name(b->act));
    for (int f = 0; f < N_FUNCTIONS; f++) printf(" %9.0f", 2e-9 * (double)(b->N * p->K * p->M) / best[f]);
    printf("\n");
}

static void setup(bench *b) {
    int64_t wide = b->N * (V > 2 * F ? V : 2 * F) * 4;
    b->x = memory(b->N * C * 4), b->dx = memory(b->N * C * 4), b->y = memory(b->N * F * 4);
    b->weight = memory(C * 4), b->dweight = memory(C * 4), b->rstd = memory(b->N * 4);
    b->table = memory(b->N * D * 4), b->workspace = memory(sp_layers_cpu.rmsnorm_workspace(C));
    b->values = memory(N_PARAMETERS * 4), b->gradient = memory(N_PARAMETERS * 4);
    b->m = memory(wide > N_PARAMETERS * 4 ? wide : N_PARAMETERS * 4), b->v = memory(N_PARAMETERS * 4);
    b->gu = memory(wide), b->dgu = memory(wide), b->s = memory(b->N * F * 4), b->ds = memory(b->N * F * 4);
    b->logits = memory(b->N / 4 * V * 4), b->copy_from = memory(wide * 4), b->copy_to = memory(wide * 4);
    b->tokens = memory(b->N * 4), b->positions = memory(b->N * 4);
    for (int64_t n = 0; n < b->N; n++) {
        b->tokens[n] = (int32_t)sp_random_below(1, 0, (uint64_t)n, V);
        b->positions[n] = (int32_t)n;
    }
    sp_rope_table(b->table, b->N, D, &(sp_rope){.theta = 10000.0});
}

static void fill_all(bench *b) {
    fill(b->x, SP_DTYPE_F32, b->N * C, 1);
    fill(b->weight, SP_DTYPE_F32, C, 2);
    fill(b->gu, b->act, b->N * 2 * F, 4);
    fill(b->ds, b->act, b->N * F, 5);
    fill(b->values, SP_DTYPE_F32, N_PARAMETERS, 6);
    fill(b->gradient, SP_DTYPE_F32, N_PARAMETERS, 8);
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 20;
    bench b = {.N = argc > 2 ? atoi(argv[2]) : 2048};
    if (rounds < 1 || rounds > MAX_ROUNDS || b.N < 4 || b.N > 1 << 20) die("usage: bench_layers [ROUNDS [TOKENS]]");
    setup(&b);
    printf("%d threads, rows %s, products %s, %" PRId64 " tokens\n", omp_get_max_threads(), sp_row_kernels_best()->name,
           sp_matmul_variant(SP_DTYPE_F32), b.N);
    printf("\n%-22s %-5s %9s %9s %9s\n", "layer", "act", "ms", "GB/s", "of copy");
    for (int d = 0; d < 2; d++) {
        b.act = d ? SP_DTYPE_BF16 : SP_DTYPE_F32;
        fill_all(&b);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            if (!d || cases[i].act_bytes) time_case(&cases[i], &b, rounds);
    }
    printf("\n%-22s %-5s %9s %9s %9s %9s   GFLOP/s\n", "product", "act", "forward", "+residual", "d input", "d weight");
    for (size_t i = 0; i < sizeof products / sizeof *products; i++)
        for (int d = 0; d < 2; d++) {
            b.act = d ? SP_DTYPE_BF16 : SP_DTYPE_F32;
            if (sp_matmul_variant(b.act)) time_product(&products[i], &b, rounds);
        }
    return 0;
}
