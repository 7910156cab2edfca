/* Speed of the layers on a CUDA device, at the shapes of a 340M model (N 32768, C 1024, F 2816, V 32000, 16 heads of
 * 64).  Beside each time stands the memory traffic or the arithmetic that it cannot avoid per second, and its share of
 * what a copy of 1 GiB, or a product of 8192 x 8192 x 8192, reaches in the same run.  Nothing is timed before its result
 * is checked against the formula in double, at places spread over the output.
 * Usage: bench_layers_cuda [ROUNDS]      each time is the median of ROUNDS (30) */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/random.h"
#include "device/device.h"
#include "formats/halves.h"
#include "layers/layers.h"
#include "softpick/device.h"

enum { N = 32768, C = 1024, F = 2816, V = 32000, H = 16, D = 64, LOGIT_ROWS = 8192, WARM_UP = 3, MAX_ROUNDS = 1000 };

static const int64_t N_PARAMETERS = 373900000;
static const sp_dtype BF16 = SP_DTYPE_BF16, F32 = SP_DTYPE_F32;

static sp_device *gpu;
static const sp_layers *layers;
static int rounds = 30;

static void must(sp_status status) {
    if (status == SP_OK) return;
    fprintf(stderr, "bench_layers_cuda: %s\n", sp_last_message());
    exit(1);
}

/* ---- numbers on the device -------------------------------------------------------------------------------------- */

static void *memory(int64_t bytes) {
    void *out;
    must(sp_device_allocate(gpu, &out, bytes, "benchmark"));
    return out;
}

static void *host_memory(int64_t bytes) {
    void *out;
    must(sp_allocate(&out, bytes, "benchmark"));
    return out;
}

/* n normal numbers; a run of a million, an odd number, is repeated. */
static void *random_memory(sp_dtype dtype, int64_t n, double scale) {
    enum { RUN = 1000003 };
    static uint64_t stream;
    int64_t size = sp_dtype_bytes(dtype);
    float *values = host_memory(RUN * (int64_t)sizeof *values);
    uint16_t *halves = (uint16_t *)values;
    for (int64_t i = 0; i < RUN; i++) {
        float value = (float)(scale * sp_random_normal(1, stream, (uint64_t)i));
        if (dtype == F32)
            values[i] = value;
        else
            halves[i] = sp_bf16_from_f32(value);
    }
    stream++;
    char *out = memory(n * size);
    for (int64_t i = 0; i < n; i += RUN)
        must(sp_device_upload(gpu, out + i * size, values, size * (n - i < RUN ? n - i : RUN)));
    free(values);
    return out;
}

/* n numbers from `first` on, in double, in memory of the caller's to free. */
static double *numbers_at(const void *data, sp_dtype dtype, int64_t first, int64_t n) {
    int64_t size = sp_dtype_bytes(dtype);
    double *out = host_memory(n * (int64_t)sizeof *out);
    void *raw = host_memory(n * size);
    must(sp_device_download(gpu, raw, (const char *)data + first * size, n * size));
    for (int64_t i = 0; i < n; i++)
        out[i] = dtype == BF16           ? (double)sp_bf16_to_f32(((const uint16_t *)raw)[i])
                 : dtype == SP_DTYPE_F64 ? ((const double *)raw)[i]
                                         : (double)((const float *)raw)[i];
    free(raw);
    return out;
}

static double number_at(const void *data, sp_dtype dtype, int64_t i) {
    double *numbers = numbers_at(data, dtype, i, 1), out = *numbers;
    free(numbers);
    return out;
}

/* Error in units of what is allowed: 1/256 of the value for bf16 and 1e-5 for f32, or of `scale` where it is larger. */
static double error_of(double actual, double expected, double scale, sp_dtype dtype) {
    double allowed = (dtype == BF16 ? 1.0 / 256 : 1e-5) * fmax(fabs(expected), scale);
    double error = fabs(actual - expected) / allowed;
    return isnan(error) ? INFINITY : error;
}

/* ---- the cases -------------------------------------------------------------------------------------------------- */

/* What the layers work on; each case leaves its inputs as the next needs them. */
static float *x, *dx, *weight, *dweight, *rstd, *angles, *table, *values, *gradient, *m, *v;
static void *wide, *wide2, *narrow, *narrow2, *halves, *logits, *workspace;
static int32_t *positions, *tokens, *host_tokens;
static double *losses;

typedef struct bench_case {
    const char *name;
    double bytes;
    void (*run)(void);
    double (*error)(void); /* runs it once; the largest error in units of what is allowed */
} bench_case;

static void rmsnorm_forward(void) { must(layers->rmsnorm_forward(gpu, narrow, BF16, rstd, x, weight, N, C, 1e-5f)); }

static double rmsnorm_forward_error(void) {
    double worst = 0.0, *w = numbers_at(weight, F32, 0, C);
    rmsnorm_forward();
    for (int64_t n = 0; n < N; n += N / 3) {
        double squares = 0.0, *row = numbers_at(x, F32, n * C, C), *y = numbers_at(narrow, BF16, n * C, C);
        for (int64_t i = 0; i < C; i++) squares += row[i] * row[i];
        for (int64_t i = 0; i < C; i++)
            worst = fmax(worst, error_of(y[i], row[i] / sqrt(squares / C + 1e-5) * w[i], 0.0, BF16));
        free(row), free(y);
    }
    free(w);
    return worst;
}

/* As in the model: dx also in bf16, and y again in place of dy. */
static void rmsnorm_backward(void) {
    must(layers->rmsnorm_backward(gpu, dx, narrow2, narrow, dweight, narrow, BF16, x, weight, rstd, N, C, workspace));
}

static double rmsnorm_backward_error(void) {
    int64_t at = (int64_t)(N - 1) * C;
    rmsnorm_forward();
    double worst = 0.0, *w = numbers_at(weight, F32, 0, C), *row = numbers_at(x, F32, at, C),
           *dy = numbers_at(narrow, BF16, at, C), *old = numbers_at(dx, F32, at, C), mean = 0.0;
    double r = number_at(rstd, F32, N - 1);
    rmsnorm_backward();
    double *now = numbers_at(dx, F32, at, C);
    for (int64_t i = 0; i < C; i++) mean += dy[i] * w[i] * row[i] * r / C;
    for (int64_t i = 0; i < C; i++)
        worst = fmax(worst, error_of(now[i], old[i] + r * (dy[i] * w[i] - row[i] * r * mean), 1.0, F32));
    free(w), free(row), free(dy), free(old), free(now);
    return worst;
}

static void rope(void) { must(layers->rope_apply(gpu, wide, BF16, 3 * H * D, positions, angles, N, 2 * H, D, false)); }

static double rope_error(void) {
    int64_t n = 4095, first = n * 3 * H * D + 5 * D + 3;
    double a = number_at(wide, BF16, first), b = number_at(wide, BF16, first + D / 2);
    double angle = (double)n * pow(10000.0, -2.0 * 3 / D);
    rope();
    return error_of(number_at(wide, BF16, first), a * cos(angle) - b * sin(angle), 0.01, BF16);
}

static void swiglu_forward(void) { must(layers->swiglu_forward(gpu, narrow, wide, BF16, N, F)); }

static double swiglu_forward_error(void) {
    int64_t n = N - 1, i = F - 1;
    swiglu_forward();
    double g = number_at(wide, BF16, n * 2 * F + i), u = number_at(wide, BF16, n * 2 * F + F + i);
    return error_of(number_at(narrow, BF16, n * F + i), g / (1.0 + exp(-g)) * u, 0.0, BF16);
}

static void swiglu_backward(void) { must(layers->swiglu_backward(gpu, wide2, narrow, narrow2, wide, BF16, N, F)); }

static double swiglu_backward_error(void) {
    int64_t at = (int64_t)(N - 1) * 2 * F + F - 1;
    swiglu_backward();
    double g = number_at(wide, BF16, at), u = number_at(wide, BF16, at + F), part = 1.0 / (1.0 + exp(-g));
    double ds = number_at(narrow2, BF16, (int64_t)N * F - 1);
    return fmax(error_of(number_at(wide2, BF16, at), ds * u * part * (1.0 + g * (1.0 - part)), 0.01, BF16),
                error_of(number_at(wide2, BF16, at + F), ds * g * part, 0.0, BF16));
}

static void embedding_forward(void) { must(layers->embedding_forward(gpu, x, table, tokens, N, C)); }

static double embedding_forward_error(void) {
    embedding_forward();
    int64_t row = host_tokens[N - 1];
    return error_of(number_at(x, F32, (int64_t)N * C - 1), number_at(table, F32, row * C + C - 1), 0.0, F32);
}

static void embedding_backward(void) { must(layers->embedding_backward(gpu, table, dx, host_tokens, N, C, workspace)); }

/* Of the most frequent token. */
static double embedding_backward_error(void) {
    double *gradients = numbers_at(dx, F32, 0, (int64_t)N * C), sum = number_at(table, F32, C - 1);
    for (int64_t n = 0; n < N; n++) sum += host_tokens[n] == 0 ? gradients[n * C + C - 1] : 0.0;
    embedding_backward();
    free(gradients);
    return error_of(number_at(table, F32, C - 1), sum, 10.0, F32);
}

static void loss(void) { must(layers->cross_entropy(gpu, losses, logits, BF16, tokens, LOGIT_ROWS, V, false, 1.0f)); }

static double loss_error(void) {
    double sum = 0.0, *row = numbers_at(logits, BF16, (int64_t)(LOGIT_ROWS - 1) * V, V);
    for (int64_t i = 0; i < V; i++) sum += exp(row[i]);
    double expected = log(sum) - row[host_tokens[LOGIT_ROWS - 1]];
    loss();
    free(row);
    return error_of(number_at(losses, SP_DTYPE_F64, LOGIT_ROWS - 1), expected, 0.0, F32);
}

static void loss_and_gradient(void) {
    must(layers->cross_entropy(gpu, losses, logits, BF16, tokens, LOGIT_ROWS, V, true, 1.0f));
}

static double loss_and_gradient_error(void) {
    double worst = 0.0, sum = 0.0, *row = numbers_at(logits, BF16, 0, V);
    for (int64_t i = 0; i < V; i++) sum += exp(row[i]);
    loss_and_gradient();
    double *now = numbers_at(logits, BF16, 0, V);
    for (int64_t i = 0; i < V; i++)
        worst = fmax(worst, error_of(now[i], exp(row[i]) / sum - (i == host_tokens[0]), 1e-6, BF16));
    free(row), free(now);
    return worst;
}

static void adamw(void) {
    sp_adamw options = {1e-3, 0.9, 0.95, 1e-15, 0.1, 1};
    must(layers->adamw_step(gpu, values, halves, gradient, m, v, N_PARAMETERS, 0.5f, &options));
}

static double adamw_error(void) {
    must(sp_device_zero(gpu, m, N_PARAMETERS * 4));
    must(sp_device_zero(gpu, v, N_PARAMETERS * 4));
    double value = number_at(values, F32, N_PARAMETERS - 1), g = number_at(gradient, F32, N_PARAMETERS - 1);
    adamw();
    return error_of(number_at(values, F32, N_PARAMETERS - 1), value * (1.0 - 1e-4) - copysign(1e-3, g), 0.0, F32);
}

static double norm_result;
static void norm(void) { must(layers->norm(gpu, &norm_result, gradient, N_PARAMETERS)); }

static double norm_error(void) {
    double squares = 0.0, *all = numbers_at(gradient, F32, 0, N_PARAMETERS);
    for (int64_t i = 0; i < N_PARAMETERS; i++) squares += all[i] * all[i];
    norm();
    free(all);
    return error_of(norm_result, sqrt(squares), 0.0, F32);
}

static void convert(void) { must(layers->convert(gpu, halves, BF16, values, F32, N_PARAMETERS)); }

static double convert_error(void) {
    convert();
    return error_of(number_at(halves, BF16, N_PARAMETERS - 1), number_at(values, F32, N_PARAMETERS - 1), 0.0, BF16);
}

/* Bytes: each number read once and written once; of embedding backward the gradients alone, without the rows of the
 * table, and rows of tokens that come often are found in the cache. */
static const bench_case cases[] = {
    {"rmsnorm forward", 6.0 * N *C, rmsnorm_forward, rmsnorm_forward_error},
    {"rmsnorm backward", 18.0 * N *C, rmsnorm_backward, rmsnorm_backward_error},
    {"rope of q and k", 4.0 * N * 2 * H *D, rope, rope_error},
    {"swiglu forward", 6.0 * N *F, swiglu_forward, swiglu_forward_error},
    {"swiglu backward", 12.0 * N *F, swiglu_backward, swiglu_backward_error},
    {"embedding forward", 8.0 * N *C, embedding_forward, embedding_forward_error},
    {"embedding backward", 4.0 * N *C, embedding_backward, embedding_backward_error},
    {"loss", 2.0 * LOGIT_ROWS *V, loss, loss_error},
    {"loss and gradient", 4.0 * LOGIT_ROWS *V, loss_and_gradient, loss_and_gradient_error},
    {"adamw, 373.9M", 30.0 * 373.9e6, adamw, adamw_error},
    {"norm, 373.9M", 4.0 * 373.9e6, norm, norm_error},
    {"convert, 373.9M", 6.0 * 373.9e6, convert, convert_error},
};

/* Tokens as text has them: every twentieth is token 0, the others follow Zipf's law. */
static void draw_tokens(void) {
    host_tokens = host_memory(N * (int64_t)sizeof *host_tokens);
    int32_t *places = host_memory(N * (int64_t)sizeof *places);
    for (int64_t n = 0; n < N; n++) {
        host_tokens[n] = n % 20 ? (int32_t)(pow((double)V, sp_random_uniform(3, 0, (uint64_t)n)) - 1.0) : 0;
        places[n] = (int32_t)(n % 4096);
    }
    tokens = memory(N * 4), positions = memory(N * 4);
    must(sp_device_upload(gpu, tokens, host_tokens, N * 4));
    must(sp_device_upload(gpu, positions, places, N * 4));
    free(places);
}

static void make_inputs(void) {
    int64_t embedding_bytes = layers->embedding_workspace(N), norm_bytes = layers->rmsnorm_workspace(C);
    draw_tokens();
    x = random_memory(F32, (int64_t)N * C, 1.0), dx = random_memory(F32, (int64_t)N * C, 1.0);
    weight = random_memory(F32, C, 1.0), dweight = random_memory(F32, C, 1.0), rstd = memory(N * 4);
    wide = random_memory(BF16, (int64_t)N * 2 * F, 1.0), wide2 = memory((int64_t)N * 2 * F * 2);
    narrow = random_memory(BF16, (int64_t)N * F, 1.0), narrow2 = random_memory(BF16, (int64_t)N * F, 1.0);
    table = random_memory(F32, (int64_t)V * C, 1.0), logits = random_memory(BF16, (int64_t)LOGIT_ROWS * V, 2.0);
    losses = memory(LOGIT_ROWS * 8), workspace = memory(embedding_bytes > norm_bytes ? embedding_bytes : norm_bytes);
    values = random_memory(F32, N_PARAMETERS, 1.0), gradient = random_memory(F32, N_PARAMETERS, 1.0);
    m = memory(N_PARAMETERS * 4), v = memory(N_PARAMETERS * 4), halves = memory(N_PARAMETERS * 2);
    float *host_angles = host_memory(4096 * D * (int64_t)sizeof *host_angles);
    sp_rope_table(host_angles, 4096, D, &(sp_rope){.theta = 10000.0});
    angles = memory(4096 * D * 4);
    must(sp_device_upload(gpu, angles, host_angles, 4096 * D * 4));
    free(host_angles);
}

/* ---- time ------------------------------------------------------------------------------------------------------- */

static void *marks[2 * MAX_ROUNDS];

static int by_size(const void *a, const void *b) {
    double difference = *(const double *)a - *(const double *)b;
    return (difference > 0) - (difference < 0);
}

/* Median seconds of what `run` queues; round is the number of the call. */
static double time_of(void (*run)(const void *what, int round), const void *what) {
    static double seconds[MAX_ROUNDS];
    for (int i = 0; i < WARM_UP; i++) run(what, i);
    for (int i = 0; i < rounds; i++) {
        must(sp_device_mark(gpu, marks[2 * i]));
        run(what, i);
        must(sp_device_mark(gpu, marks[2 * i + 1]));
    }
    must(sp_device_wait(gpu));
    for (int i = 0; i < rounds; i++) must(sp_device_seconds_between(gpu, marks[2 * i], marks[2 * i + 1], &seconds[i]));
    qsort(seconds, (size_t)rounds, sizeof *seconds, by_size);
    return seconds[rounds / 2];
}

static void copy(const void *what, int round) {
    (void)what, (void)round;
    must(sp_device_copy_rows(gpu, m, 1 << 20, values, 1 << 20, 1 << 20, 1024));
}

static void run_case(const void *what, int round) {
    (void)round;
    ((const bench_case *)what)->run();
}

static void check_case(const char *name, double error) {
    if (error <= 1.0) return;
    printf("%-36s WRONG: %.3g times the allowed error; not timed\n", name, error);
    exit(1);
}

static void time_cases(void) {
    double copied = 2.0 * 0x1p30 / time_of(copy, NULL);
    printf("copy of 1 GiB: %.0f GB/s read and written\n\n", copied * 1e-9);
    printf("%-24s %9s %9s %9s %9s\n", "layer", "us", "floor us", "GB/s", "of copy");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const bench_case *c = &cases[i];
        check_case(c->name, c->error());
        double seconds = time_of(run_case, c);
        printf("%-24s %9.1f %9.1f %9.0f %9.2f\n", c->name, seconds * 1e6, c->bytes / copied * 1e6,
               c->bytes / seconds * 1e-9, c->bytes / seconds / copied);
    }
}

/* ---- products --------------------------------------------------------------------------------------------------- */

typedef struct product {
    const char *what;
    int64_t N, K, M;
} product;

static const product products[] = {
    {"340M q k v", N, 1024, 3072},       {"340M out", N, 1024, 1024},          {"340M gate up", N, 1024, 5632},
    {"340M down", N, 2816, 1024},        {"340M logits", 8192, 1024, V},       {"1.8B q k v", 16384, 2048, 6144},
    {"1.8B out", 16384, 2048, 2048},     {"1.8B gate up", 16384, 2048, 11264}, {"1.8B down", 16384, 5632, 2048},
    {"1.8B logits", 8192, 2048, V},      {"120M q k v", 16384, 768, 2304},     {"120M out", 16384, 768, 768},
    {"120M gate up", 16384, 768, 4096},  {"120M down", 16384, 2048, 768},      {"120M logits", 16384, 768, 16384},
    {"one token, q k v", 1, 1024, 3072}, {"one token, down", 1, 2816, 1024},   {"one token, logits", 1, 1024, V},
};

/* What products read and write; two of halves, two of floats. */
static uint16_t *left, *right;
static float *sums, *out;
enum { LARGEST = 1 << 29 }; /* numbers in each */

/* Weights of few tokens come from another place each round, or they would lie in the cache. */
static const uint16_t *weights(const product *p, int round) {
    return p->N > 1 ? right : right + round % (LARGEST / (p->M * p->K)) * (p->M * p->K);
}

static void forward(const void *what, int round) {
    const product *p = what;
    must(layers->linear_forward(gpu, out, BF16, p->M, left, p->K, weights(p, round), BF16, NULL, p->N, p->K, p->M));
}

static void forward_f32(const void *what, int round) {
    const product *p = what;
    must(layers->linear_forward(gpu, out, F32, p->M, left, p->K, weights(p, round), BF16, sums, p->N, p->K, p->M));
}

static void backward_input(const void *what, int round) {
    const product *p = what;
    must(layers->linear_backward_input(gpu, out, BF16, p->K, left, p->M, weights(p, round), BF16, p->N, p->K, p->M));
}

static void backward_weight(const void *what, int round) {
    const product *p = what;
    (void)round;
    must(layers->linear_backward_weight(gpu, out, left, p->M, right, p->K, BF16, p->N, p->K, p->M));
}

static void (*const directions[])(const void *what, int round) = {forward, forward_f32, backward_input,
                                                                  backward_weight};

/* Last row of x w^T and its first 100 columns. */
static double product_error(const product *p) {
    double worst = 0.0, *row = numbers_at(left, BF16, (p->N - 1) * p->K, p->K);
    forward(p, 0);
    for (int64_t column = 0; column < p->M && column < 100; column++) {
        double sum = 0.0, *w = numbers_at(right, BF16, column * p->K, p->K);
        for (int64_t k = 0; k < p->K; k++) sum += row[k] * w[k];
        free(w);
        worst = fmax(worst, error_of(number_at(out, BF16, (p->N - 1) * p->M + column), sum, sqrt((double)p->K), BF16));
    }
    free(row);
    return worst;
}

static void time_products(void) {
    const product largest = {"8192 x 8192 x 8192", 8192, 8192, 8192};
    check_case(largest.what, product_error(&largest));
    double ceiling = 2.0 * 8192 * 8192 * 8192 / time_of(forward, &largest);
    printf("\n%s: %.0f TFLOP/s\n\n%-18s %6s %6s %6s %11s %11s %11s %11s  TFLOP/s and share of that\n", largest.what,
           ceiling * 1e-12, "product", "N", "K", "M", "forward", "+residual", "d input", "d weight");
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        const product *p = &products[i];
        double operations = 2.0 * (double)p->N * (double)p->K * (double)p->M;
        check_case(p->what, product_error(p));
        printf("%-18s %6" PRId64 " %6" PRId64 " %6" PRId64, p->what, p->N, p->K, p->M);
        for (size_t d = 0; d < sizeof directions / sizeof *directions; d++) {
            double speed = operations / time_of(directions[d], p);
            printf("  %5.*f %4.2f", p->N > 1 ? 0 : 2, speed * 1e-12, speed / ceiling);
        }
        printf("\n");
    }
}

static void release(void *data[], int n) {
    for (int i = 0; i < n; i++) sp_device_release(gpu, data[i]);
}

int main(int argc, char **argv) {
    if (argc > 1) rounds = atoi(argv[1]);
    if (argc > 2 || rounds < 1 || rounds > MAX_ROUNDS) {
        fprintf(stderr, "usage: bench_layers_cuda [ROUNDS]\n");
        return 2;
    }
    must(sp_device_open(&gpu, 1));
    layers = sp_layers_on_id(1);
    sp_cuda_device facts;
    must(sp_cuda_device_describe(0, &facts));
    printf("%s\n", facts.name);
    for (int i = 0; i < 2 * rounds; i++) must(sp_device_mark_new(gpu, &marks[i]));
    make_inputs();
    time_cases();
    release((void *[]){x, dx, wide, wide2, narrow, narrow2, table, logits, values, gradient, m, v, halves}, 13);
    left = random_memory(BF16, LARGEST, 1.0), right = random_memory(BF16, LARGEST, 1.0);
    sums = random_memory(F32, LARGEST, 1.0), out = memory((int64_t)LARGEST * 4);
    time_products();
    for (int i = 0; i < 2 * rounds; i++) sp_device_mark_free(gpu, marks[i]);
    sp_device_close(gpu);
    return 0;
}
