/* softpick bench train: training steps of a new model on random tokens. */
#define _GNU_SOURCE
#include "cli/bench.h"

#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/status.h"
#include "cli/cli.h"
#include "cli/model_options.h"
#include "softpick/device.h"
#include "softpick/train.h"

typedef struct train_bench {
    /* given */
    sp_model_config config;
    int64_t B, T, n_threads;
    double seconds;
    const char *dtype_name;
    const char *model_texts[32];
    bool json;
    /* measured */
    sp_dtype dtype;
    int64_t n_steps, n_parameters, memory_bytes;
    double loss, step_seconds, best_seconds;    /* mean and least of a step */
    double cpu_seconds, best_cpu_seconds;       /* the same of all threads: tells a busy machine from slow code */
    double optimizer_seconds, clearing_seconds; /* of a step */
    sp_model_profile profile;                   /* of all steps */
} train_bench;

/* Processor time of all threads so far. */
static double cpu_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Most memory this process has had, from the system; 0 if it does not say. */
static int64_t peak_memory_bytes(void) {
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    long long kilobytes = 0;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %lld", &kilobytes) == 1) break;
    if (file) fclose(file);
    return kilobytes * 1024;
}

/* Tokens (B,T) and, one further on, targets: T + 1 random tokens per row. */
static void draw_tokens(int32_t *tokens, int32_t *targets, const train_bench *b, int64_t step) {
    for (int64_t i = 0; i < b->B; i++)
        for (int64_t t = 0; t <= b->T; t++) {
            uint64_t index = (uint64_t)(i * (b->T + 1) + t);
            int32_t token = (int32_t)sp_random_below(1, (uint64_t)step, index, (uint64_t)b->config.vocabulary);
            if (t < b->T) tokens[i * b->T + t] = token;
            if (t > 0) targets[i * b->T + t - 1] = token;
        }
}

/* One step on random tokens, as the training loop does it. */
static sp_status bench_step(train_bench *b, sp_model *model, sp_optimizer *optimizer, const sp_batch *batch) {
    double began = bench_wall_seconds(), cpu_began = cpu_seconds(), sum = 0, norm;
    int64_t n_targets;
    SP_TRY(sp_model_zero_gradients(model));
    double cleared = bench_wall_seconds();
    SP_TRY(sp_model_loss_gradient(model, batch, 1.0 / (double)(b->B * b->T), &sum, &n_targets));
    double differentiated = bench_wall_seconds();
    bool updated;
    SP_TRY(sp_optimizer_step(optimizer, 3e-4, &norm, &updated));
    double ended = bench_wall_seconds(), cpu_ended = cpu_seconds();
    b->loss = sum / (double)n_targets;
    SP_REQUIRE(updated && isfinite(b->loss), SP_INTERNAL, "step %lld: loss %g, gradient %g: not timed",
               (long long)b->n_steps, b->loss, norm);
    b->clearing_seconds += cleared - began;
    b->optimizer_seconds += ended - differentiated;
    b->step_seconds += ended - began;
    b->cpu_seconds += cpu_ended - cpu_began;
    b->best_cpu_seconds = fmin(b->best_cpu_seconds, cpu_ended - cpu_began);
    b->best_seconds = fmin(b->best_seconds, ended - began);
    b->n_steps++;
    return SP_OK;
}

static void forget_times(train_bench *b, sp_model *model) {
    sp_model_profile_read(model, true);
    b->n_steps = 0;
    b->clearing_seconds = b->optimizer_seconds = b->step_seconds = b->cpu_seconds = 0;
    b->best_seconds = b->best_cpu_seconds = INFINITY;
}

static sp_status time_steps(train_bench *b, sp_model *model, sp_optimizer *optimizer, int32_t *tokens,
                            int32_t *targets) {
    enum { WARMUP = 2 };
    sp_batch batch = {.B = b->B, .T = b->T, .tokens = tokens, .targets = targets};
    double began = bench_wall_seconds();
    for (int64_t step = 0; step <= WARMUP || bench_wall_seconds() - began < b->seconds; step++) {
        if (step == WARMUP) {
            forget_times(b, model);
            began = bench_wall_seconds();
        }
        draw_tokens(tokens, targets, b, step);
        SP_TRY(bench_step(b, model, optimizer, &batch));
        if (cli_interrupted()) return sp_fail(SP_CANCELLED, "interrupted");
    }
    b->profile = sp_model_profile_read(model, false);
    b->step_seconds /= (double)b->n_steps;
    b->cpu_seconds /= (double)b->n_steps;
    b->clearing_seconds /= (double)b->n_steps;
    b->optimizer_seconds /= (double)b->n_steps;
    return SP_OK;
}

static sp_status run_train_bench(train_bench *b) {
    sp_model *model = NULL;
    sp_optimizer *optimizer = NULL;
    int32_t *tokens = NULL;
    int64_t n = b->B * b->T;
    sp_train_options train = sp_train_options_default();
    sp_model_options options = sp_model_options_default();
    sp_status status = SP_OK;
    for (int i = 0; cli_model_option_at(i); i++)
        if (b->model_texts[i]) SP_TRY(cli_model_option_set(&b->config, i, b->model_texts[i]));
    SP_TRY(cli_model_config_finish(&b->config));
    SP_TRY(cli_dtype_find(&b->dtype, b->dtype_name));
    options.dtype = b->dtype;
    options.training = true;
    SP_TRY_OR_DONE(sp_model_new(&model, &b->config, &options));
    SP_TRY_OR_DONE(sp_optimizer_new(&optimizer, model, &train));
    SP_TRY_OR_DONE(sp_allocate((void **)&tokens, 2 * n * (int64_t)sizeof *tokens, "the batch"));
    SP_TRY_OR_DONE(time_steps(b, model, optimizer, tokens, tokens + n));
    b->n_parameters = sp_model_n_parameters(model);
    b->memory_bytes = peak_memory_bytes();
done:
    free(tokens);
    sp_optimizer_free(optimizer);
    sp_model_free(model);
    return status;
}

/* The profile's rows in seconds per step; `rest` is what no row claims. */
typedef struct share {
    const char *name;
    double seconds;
} share;
enum { N_SHARES = 11 };

static void list_shares(share shares[N_SHARES], const train_bench *b) {
    const sp_model_profile *p = &b->profile;
    double n = (double)b->n_steps, claimed = 0;
    const share list[N_SHARES] = {{"matmul", p->matmul / n},
                                  {"attention", p->attention / n},
                                  {"norm", p->norm / n},
                                  {"rope", p->rope / n},
                                  {"swiglu", p->swiglu / n},
                                  {"embedding", p->embedding / n},
                                  {"loss", p->loss / n},
                                  {"model_other", p->other / n},
                                  {"optimizer", b->optimizer_seconds},
                                  {"clearing", b->clearing_seconds}};
    memcpy(shares, list, sizeof list);
    for (int i = 0; i < N_SHARES - 1; i++) claimed += shares[i].seconds;
    shares[N_SHARES - 1] = (share){"rest", b->step_seconds - claimed};
}

static void print_train_bench(const train_bench *b) {
    double n_tokens = (double)(b->B * b->T);
    printf("model        %" PRId64 " layers, width %" PRId64 ", %" PRId64 " heads, ffn %" PRId64 ", vocabulary %" PRId64
           ", %.1fM parameters\n",
           b->config.n_layers, b->config.width, b->config.n_heads, b->config.ffn_width, b->config.vocabulary,
           1e-6 * (double)b->n_parameters);
    printf("attention    %s\n", sp_normalizer_name(b->config.attention_function));
    printf("dtype        %s, matrix products by %s\n", sp_dtype_name(b->dtype), sp_model_matmul_name(0, b->dtype));
    printf("threads      %d\n", omp_get_max_threads());
    printf("batch        %" PRId64 " x %" PRId64 " tokens, %" PRId64 " steps timed\n", b->B, b->T, b->n_steps);
    printf("tokens/s     %.0f (fastest step: %.0f)\n", n_tokens / b->step_seconds, n_tokens / b->best_seconds);
    printf("peak memory  %.0f MB\n", 1e-6 * (double)b->memory_bytes);
    printf("step         %.1f ms, %.1f ms of processor time (least: %.1f ms)\n", 1e3 * b->step_seconds,
           1e3 * b->cpu_seconds, 1e3 * b->best_cpu_seconds);
    share shares[N_SHARES];
    list_shares(shares, b);
    for (int i = 0; i < N_SHARES; i++)
        printf("  %-11s%8.1f ms %5.1f%%\n", shares[i].name, 1e3 * shares[i].seconds,
               100 * shares[i].seconds / b->step_seconds);
}

static sp_status print_train_bench_json(const train_bench *b) {
    share shares[N_SHARES];
    list_shares(shares, b);
    json_t *profile = json_object();
    for (int i = 0; i < N_SHARES; i++)
        json_object_set_new(profile, shares[i].name, sp_json_number(shares[i].seconds / b->step_seconds));
    double n_tokens = (double)(b->B * b->T);
    json_t *json =
        json_pack("{si ss ss ss si sI sI sI sI sI so so sI so so so so so}", "schema", 1, "attention",
                  sp_normalizer_name(b->config.attention_function), "dtype", sp_dtype_name(b->dtype), "cpu",
                  sp_cpu_model(), "threads", omp_get_max_threads(), "layers", (json_int_t)b->config.n_layers, "width",
                  (json_int_t)b->config.width, "parameters", (json_int_t)b->n_parameters, "batch", (json_int_t)b->B,
                  "length", (json_int_t)b->T, "tokens_per_second", sp_json_number(n_tokens / b->step_seconds),
                  "tokens_per_second_best", sp_json_number(n_tokens / b->best_seconds), "peak_memory_bytes",
                  (json_int_t)b->memory_bytes, "step_cpu_seconds", sp_json_number(b->cpu_seconds),
                  "step_cpu_seconds_best", sp_json_number(b->best_cpu_seconds), "step_seconds",
                  sp_json_number(b->step_seconds), "loss", sp_json_number(b->loss), "step_shares", profile);
    SP_REQUIRE(json, SP_OUT_OF_MEMORY, "no memory for the result");
    char *text;
    sp_status status = sp_json_format(&text, json, 0);
    if (status == SP_OK) printf("%s\n", text);
    json_decref(json);
    if (status == SP_OK) free(text);
    return status;
}

enum { KEY_BATCH = 1000, KEY_LENGTH, KEY_SECONDS, KEY_DTYPE, KEY_THREADS, KEY_JSON, KEY_MODEL = 3000 };

static error_t parse_train_option(int key, char *text, struct argp_state *state) {
    train_bench *b = state->input;
    if (key >= KEY_MODEL && key < KEY_MODEL + 32) {
        b->model_texts[key - KEY_MODEL] = text ? text : "yes";
        return 0;
    }
    switch (key) {
    case KEY_BATCH: b->B = cli_count(state, "--batch", text, 1, 1 << 16); break;
    case KEY_LENGTH: b->T = cli_count(state, "--length", text, 2, 1 << 20); break;
    case KEY_SECONDS: b->seconds = cli_number(state, "--seconds", text, 0, 1e5); break;
    case KEY_DTYPE: b->dtype_name = text; break;
    case KEY_THREADS: b->n_threads = cli_count(state, "--threads", text, 0, 4096); break;
    case KEY_JSON: b->json = true; break;
    case ARGP_KEY_ARG: argp_error(state, "\"%s\": no argument is expected", text); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

int bench_train(int argc, char **argv) {
    struct argp_option options[48] = {
        {NULL, 0, NULL, 0, "Run:", 1},
        {"batch", KEY_BATCH, "B", 0, "sequences per step (default 4)", 1},
        {"length", KEY_LENGTH, "T", 0, "tokens per sequence (default 512)", 1},
        {"seconds", KEY_SECONDS, "X", 0, "time to measure, after two steps of warm-up (default 10)", 1},
        {"dtype", KEY_DTYPE, "NAME", 0, "auto, f32 or bf16 (default auto)", 1},
        {"threads", KEY_THREADS, "N", 0, "0: as many as processors (default 0)", 1},
        {"json", KEY_JSON, NULL, 0, "print one JSON document", 1},
        {NULL, 0, NULL, 0, "Model (default: 8 layers, 8 heads, width 512, ffn 1376, vocabulary 8192):", 2},
    };
    for (int i = 0, n = 8; cli_model_option_at(i); i++, n++) {
        const cli_model_option *o = cli_model_option_at(i);
        options[n] = (struct argp_option){o->name, KEY_MODEL + i, o->argument, 0, o->help, 2};
    }
    const struct argp argp = {.options = options,
                              .parser = parse_train_option,
                              .doc = "Times training steps of a new model on random tokens: tokens per second, where "
                                     "the time goes, peak memory."};
    train_bench b = {.config = cli_model_config_default(), .B = 4, .T = 512, .seconds = 10, .dtype_name = "auto"};
    b.config.vocabulary = 8192;
    cli_parse(&argp, argc, argv, &b);
    cli_set_threads(b.n_threads);
    cli_catch_signals();
    sp_status status = run_train_bench(&b);
    if (status == SP_OK && b.json) status = print_train_bench_json(&b);
    if (status == SP_OK && !b.json) print_train_bench(&b);
    return status == SP_OK ? CLI_DONE : cli_fail(status);
}
