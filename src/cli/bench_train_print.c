/* The results of `softpick bench train`, as text and as JSON. */
#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cli/bench_train.h"
#include "cli/placement.h"
#include "softpick/device.h"

/* ---- what follows from the times ---- */

double bench_train_flops(const train_bench *b) {
    const sp_model_config *c = &b->config;
    int64_t window = c->window > 0 && c->window < b->T ? c->window : b->T;
    double n_tokens = (double)(b->B * b->T);
    double pairs = 0.5 * (double)window * (double)(window + 1) + (double)(b->T - window) * (double)window;
    double weights = (double)(b->n_parameters - (c->tie_embeddings ? 0 : c->vocabulary * c->width));
    double attention = 12 * (double)(c->n_layers * c->n_heads * c->head_width) * pairs;
    return 6 * weights * n_tokens + attention * (double)b->B;
}

/* By NVIDIA's data sheets; others may be added when they have been seen. */
double bench_train_peak_flops(const train_bench *b) {
    static const struct {
        int major, minor, n_multiprocessors;
        double flops;
    } known[] = {{9, 0, 132, 989.5e12}}; /* H100 SXM, H200 */
    sp_cuda_device gpu;
    if (b->device && sp_cuda_device_describe(b->device - 1, &gpu) == SP_OK)
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            if (gpu.compute_major == known[i].major && gpu.compute_minor == known[i].minor &&
                gpu.n_multiprocessors == known[i].n_multiprocessors)
                return known[i].flops;
    return NAN;
}

/* The profile's rows as shares of the profiled steps; `rest` is what no row claims. */
typedef struct share {
    const char *name;
    double of_step;
} share;
enum { N_SHARES = 11 };

static void list_shares(share shares[N_SHARES], const train_bench *b) {
    const sp_model_profile *p = &b->profile;
    const share seconds[N_SHARES] = {{"matmul", p->matmul},
                                     {"attention", p->attention},
                                     {"norm", p->norm},
                                     {"rope", p->rope},
                                     {"swiglu", p->swiglu},
                                     {"embedding", p->embedding},
                                     {"loss", p->loss},
                                     {"model_other", p->other},
                                     {"optimizer", b->optimizer_seconds},
                                     {"clearing", b->clearing_seconds},
                                     {"rest", 0}};
    double rest = 1;
    for (int i = 0; i < N_SHARES; i++) {
        shares[i] = (share){seconds[i].name, seconds[i].of_step / b->profiled_seconds};
        rest -= shares[i].of_step;
    }
    shares[N_SHARES - 1].of_step = rest;
}

typedef struct rates {
    double tokens_per_second, tokens_per_second_best, step_seconds, flops, utilisation;
} rates;

static rates rates_of(const train_bench *b) {
    double n_tokens = (double)(b->B * b->T), seconds = b->wall.total / (double)b->wall.n;
    double flops = bench_train_flops(b) / seconds;
    return (rates){.tokens_per_second = n_tokens / seconds,
                   .tokens_per_second_best = n_tokens / b->wall.least,
                   .step_seconds = bench_times_median(&b->wall),
                   .flops = flops,
                   .utilisation = flops / bench_train_peak_flops(b)};
}

/* ---- text ---- */

static void print_model(const train_bench *b) {
    const sp_model_config *c = &b->config;
    char device[32], name[300];
    cli_device_format(device, sizeof device, b->device);
    cli_device_describe(name, sizeof name, b->device);
    printf("model        %" PRId64 " layers, width %" PRId64 ", %" PRId64 " heads, ffn %" PRId64 ", vocabulary %" PRId64
           ", %.1fM parameters\n",
           c->n_layers, c->width, c->n_heads, c->ffn_width, c->vocabulary, 1e-6 * (double)b->n_parameters);
    printf("attention    %s%s\n", sp_normalizer_name(c->attention_function),
           b->recompute ? ", the forward pass computed again" : "");
    printf("device       %s, %s\n", device, name);
    printf("dtype        %s, matrix products by %s\n", sp_dtype_name(b->dtype),
           sp_model_matmul_name(b->device, b->dtype));
    if (!b->device) printf("threads      %d\n", omp_get_max_threads());
    printf("batch        %" PRId64 " x %" PRId64 " tokens, %" PRId64 " steps timed, %" PRId64 " profiled\n", b->B, b->T,
           b->wall.n, b->n_profiled);
}

static void print_shares(const train_bench *b) {
    share shares[N_SHARES];
    double milliseconds = 1e3 * b->profiled_seconds / (double)b->n_profiled;
    list_shares(shares, b);
    printf("profiled     %.1f ms a step\n", milliseconds);
    for (int i = 0; i < N_SHARES; i++)
        printf("  %-11s%8.1f ms %5.1f%%\n", shares[i].name, shares[i].of_step * milliseconds, 100 * shares[i].of_step);
}

void bench_train_print(const train_bench *b) {
    rates r = rates_of(b);
    double peak = bench_train_peak_flops(b);
    print_model(b);
    printf("tokens/s     %.0f (fastest step: %.0f)\n", r.tokens_per_second, r.tokens_per_second_best);
    if (isnan(peak))
        printf("TFLOP/s      %.3g\n", 1e-12 * r.flops);
    else
        printf("TFLOP/s      %.1f: %.1f%% of %.1f (dense bf16)\n", 1e-12 * r.flops, 100 * r.utilisation, 1e-12 * peak);
    printf("peak memory  %.2f GiB\n", (double)b->peak_bytes / 0x1p30);
    printf("step         %.1f ms (median; least %.1f ms)", 1e3 * r.step_seconds, 1e3 * b->wall.least);
    if (b->device)
        printf(", its calls and launches alone %.1f ms\n", 1e3 * b->queue_seconds);
    else
        printf(", %.1f ms of processor time (least %.1f ms)\n", 1e3 * b->cpu.total / (double)b->cpu.n,
               1e3 * b->cpu.least);
    print_shares(b);
}

/* ---- JSON ---- */

static json_t *describe(const train_bench *b) {
    const sp_model_config *c = &b->config;
    char device[32], name[300];
    cli_device_format(device, sizeof device, b->device);
    cli_device_describe(name, sizeof name, b->device);
    return json_pack("{si ss? ss ss ss ss ss ss si sb sI sI sI sI sI}", "schema", 1, "preset", b->preset, "attention",
                     sp_normalizer_name(c->attention_function), "dtype", sp_dtype_name(b->dtype), "device", device,
                     "device_name", name, "matmul", sp_model_matmul_name(b->device, b->dtype), "cpu", sp_cpu_model(),
                     "threads", omp_get_max_threads(), "recompute", b->recompute, "layers", (json_int_t)c->n_layers,
                     "width", (json_int_t)c->width, "parameters", (json_int_t)b->n_parameters, "batch",
                     (json_int_t)b->B, "length", (json_int_t)b->T);
}

/* Not finite: null. */
static void add_number(json_t *json, const char *name, double value) {
    json_object_set_new(json, name, sp_json_number(value));
}

static void add_results(json_t *json, const train_bench *b) {
    rates r = rates_of(b);
    share shares[N_SHARES];
    json_t *profile = json_object();
    list_shares(shares, b);
    for (int i = 0; i < N_SHARES; i++) add_number(profile, shares[i].name, shares[i].of_step);
    json_object_set_new(json, "steps", json_integer(b->wall.n));
    json_object_set_new(json, "peak_memory_bytes", json_integer(b->peak_bytes));
    add_number(json, "tokens_per_second", r.tokens_per_second);
    add_number(json, "tokens_per_second_best", r.tokens_per_second_best);
    add_number(json, "step_seconds", r.step_seconds);
    add_number(json, "step_cpu_seconds", b->cpu.total / (double)b->cpu.n);
    add_number(json, "step_cpu_seconds_best", b->cpu.least);
    add_number(json, "queue_seconds", b->queue_seconds);
    add_number(json, "tflops", 1e-12 * r.flops);
    add_number(json, "peak_tflops", 1e-12 * bench_train_peak_flops(b));
    add_number(json, "model_flop_utilisation", r.utilisation);
    add_number(json, "loss", b->loss);
    add_number(json, "profiled_step_seconds", b->profiled_seconds / (double)b->n_profiled);
    json_object_set_new(json, "step_shares", profile);
}

sp_status bench_train_print_json(const train_bench *b) {
    char *text;
    json_t *json = describe(b);
    SP_REQUIRE(json, SP_OUT_OF_MEMORY, "no memory for the result");
    add_results(json, b);
    sp_status status = sp_json_format(&text, json, 0);
    json_decref(json);
    SP_TRY(status);
    puts(text);
    free(text);
    return SP_OK;
}
