/* softpick bench train: training steps of a new model on random tokens. */
#define _GNU_SOURCE
#include "cli/bench_train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "base/random.h"
#include "cli/cli.h"
#include "cli/memory_plan.h"
#include "cli/model_options.h"
#include "cli/placement.h"
#include "cli/study.h"
#include "softpick/device.h"
#include "softpick/train.h"

/* Processor time of all threads so far. */
static double cpu_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- steps ---- */

typedef struct bench_run {
    train_bench *bench;
    int64_t vocabulary;
    sp_model *model;
    sp_optimizer *optimizer;
    int32_t *tokens; /* (B,T) twice: tokens and targets */
    int64_t n_drawn;
    double loss; /* of the last step */
} bench_run;

/* Tokens (B,T) and, one further on, targets: T + 1 random tokens per row. */
static sp_batch draw_batch(bench_run *run, int64_t B, int64_t T) {
    int32_t *tokens = run->tokens, *targets = tokens + B * T;
    uint64_t vocabulary = (uint64_t)run->vocabulary, draw = (uint64_t)run->n_drawn++;
    for (int64_t i = 0; i < B; i++)
        for (int64_t t = 0; t <= T; t++) {
            int32_t token = (int32_t)sp_random_below(1, draw, (uint64_t)(i * (T + 1) + t), vocabulary);
            if (t < T) tokens[i * T + t] = token;
            if (t > 0) targets[i * T + t - 1] = token;
        }
    return (sp_batch){.B = B, .T = T, .tokens = tokens, .targets = targets};
}

/* When each part of a step had been done. */
typedef struct step_times {
    double began, cleared, differentiated, ended;
} step_times;

/* One step, as the training loop does it.  `waits`: also after each part, so that the times tell them apart. */
static sp_status take_step(step_times *times, bench_run *run, const sp_batch *batch, bool waits) {
    double sum = 0, norm;
    int64_t n_targets;
    bool updated;
    times->began = bench_wall_seconds();
    SP_TRY(sp_model_zero_gradients(run->model));
    if (waits) SP_TRY(sp_model_wait(run->model));
    times->cleared = bench_wall_seconds();
    SP_TRY(sp_model_loss_gradient(run->model, batch, 1.0 / (double)(batch->B * batch->T), &sum, &n_targets));
    if (waits) SP_TRY(sp_model_wait(run->model));
    times->differentiated = bench_wall_seconds();
    SP_TRY(sp_optimizer_step(run->optimizer, 3e-4, &norm, &updated));
    SP_TRY(sp_model_wait(run->model));
    times->ended = bench_wall_seconds();
    run->loss = sum / (double)n_targets;
    SP_REQUIRE(updated && isfinite(run->loss), SP_INTERNAL, "step %lld: loss %g, gradient %g: not timed",
               (long long)run->n_drawn, run->loss, norm);
    SP_REQUIRE(!cli_interrupted(), SP_CANCELLED, "interrupted");
    return SP_OK;
}

static bool is_timed(const train_bench *b, double began) {
    if (b->n_steps > 0) return b->wall.n >= b->n_steps;
    return b->wall.n > 0 && bench_wall_seconds() - began >= b->seconds;
}

static sp_status time_steps(bench_run *run) {
    enum { WARMUP = 2 };
    train_bench *b = run->bench;
    step_times times;
    for (int i = 0; i < WARMUP; i++) {
        sp_batch batch = draw_batch(run, b->B, b->T);
        SP_TRY(take_step(&times, run, &batch, false));
    }
    for (double began = bench_wall_seconds(); !is_timed(b, began);) {
        sp_batch batch = draw_batch(run, b->B, b->T);
        double cpu_began = cpu_seconds();
        SP_TRY(take_step(&times, run, &batch, false));
        bench_times_add(&b->cpu, cpu_seconds() - cpu_began);
        bench_times_add(&b->wall, times.ended - times.began);
    }
    return SP_OK;
}

static sp_status profile_steps(bench_run *run) {
    enum { PROFILED_MAX = 5 };
    train_bench *b = run->bench;
    step_times times;
    b->n_profiled = b->wall.n < PROFILED_MAX ? b->wall.n : PROFILED_MAX;
    sp_model_profile_enable(run->model, true);
    sp_model_profile_read(run->model, true);
    for (int64_t i = 0; i < b->n_profiled; i++) {
        sp_batch batch = draw_batch(run, b->B, b->T);
        SP_TRY(take_step(&times, run, &batch, true));
        b->clearing_seconds += times.cleared - times.began;
        b->optimizer_seconds += times.ended - times.differentiated;
        b->profiled_seconds += times.ended - times.began;
    }
    b->profile = sp_model_profile_read(run->model, true);
    sp_model_profile_enable(run->model, false);
    return SP_OK;
}

/* ---- memory ---- */

/* Most memory this process has had, from the system; 0 if it does not say. */
static int64_t peak_host_bytes(void) {
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    long long kilobytes = 0;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %lld", &kilobytes) == 1) break;
    if (file) fclose(file);
    return kilobytes * 1024;
}

/* Of a GPU: what is gone of what was free before.  Models give nothing back before their end, so that the last state is
 * the largest. */
static sp_status measure_peak(train_bench *b, int64_t free_before) {
    int64_t free_now, total;
    SP_TRY(sp_device_free_bytes(b->device, &free_now, &total));
    b->peak_bytes = b->device ? free_before - free_now : peak_host_bytes();
    return SP_OK;
}

/* ---- the run ---- */

/* The preset's shape, and what was given over it. */
static sp_status choose_shape(train_bench *b) {
    b->config = cli_model_config_default();
    b->config.vocabulary = 8192;
    const study_settings *preset = b->preset ? study_preset(b->preset) : NULL;
    if (preset) {
        b->config.n_layers = preset->layers;
        b->config.width = preset->width;
        b->config.n_heads = preset->heads;
        b->config.n_kv_heads = preset->kv_heads;
        b->config.ffn_width = preset->ffn_width;
        b->config.vocabulary = preset->vocabulary;
        b->config.initializer_range = preset->initializer_range;
    }
    if (b->B == 0) b->B = preset ? study_preset_bench_batch(b->preset) : 4;
    if (b->T == 0) b->T = preset ? preset->T : 512;
    for (int i = 0; cli_model_option_at(i); i++)
        if (b->model_texts[i]) SP_TRY(cli_model_option_set(&b->config, i, b->model_texts[i]));
    SP_TRY(cli_model_config_finish(&b->config));
    SP_REQUIRE(b->T <= b->config.max_positions, SP_BAD_ARGUMENT, "--length: %lld tokens, the model has %lld positions",
               (long long)b->T, (long long)b->config.max_positions);
    return cli_dtype_find(&b->dtype, b->dtype_name, b->device);
}

/* The model and its optimizer, and room for the tokens of a step. */
static sp_status open_run(bench_run *run, train_bench *b, const sp_model_config *config,
                          const sp_model_options *options) {
    sp_train_options train = sp_train_options_default();
    *run = (bench_run){.bench = b, .vocabulary = config->vocabulary};
    SP_TRY(sp_model_new(&run->model, config, options));
    SP_TRY(sp_optimizer_new(&run->optimizer, run->model, &train));
    SP_TRY(sp_allocate((void **)&run->tokens, 2 * b->B * b->T * (int64_t)sizeof *run->tokens, "the batch"));
    sp_model_profile_enable(run->model, false);
    return SP_OK;
}

static void close_run(bench_run *run) {
    free(run->tokens);
    sp_optimizer_free(run->optimizer);
    sp_model_free(run->model);
}

/* A model of as many layers, as small as can be, takes as many calls and launches, and next to no work: its step is what
 * the GPU would wait for if the work of each launch were any shorter. */
static sp_status time_queue(train_bench *b, const sp_model_options *options) {
    enum { TRIES = 5, TOKENS = 16 };
    sp_model_config config = b->config;
    config.width = config.head_width = config.ffn_width = config.vocabulary = 64;
    config.n_heads = config.n_kv_heads = 1;
    bench_run run;
    step_times times;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(open_run(&run, b, &config, options));
    b->queue_seconds = INFINITY;
    for (int i = 0; i < TRIES; i++) {
        sp_batch batch = draw_batch(&run, 1, b->T < TOKENS ? b->T : TOKENS);
        SP_TRY_OR_DONE(take_step(&times, &run, &batch, false));
        b->queue_seconds = fmin(b->queue_seconds, times.ended - times.began);
    }
done:
    close_run(&run);
    return status;
}

static sp_status measure(train_bench *b, const sp_model_options *options, int64_t free_before) {
    bench_run run;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(open_run(&run, b, &b->config, options));
    b->n_parameters = sp_model_n_parameters(run.model);
    SP_TRY_OR_DONE(time_steps(&run));
    b->loss = run.loss;
    SP_TRY_OR_DONE(profile_steps(&run));
    SP_TRY_OR_DONE(measure_peak(b, free_before));
done:
    close_run(&run);
    return status;
}

static sp_status run_train_bench(train_bench *b) {
    SP_TRY(choose_shape(b));
    sp_model_options options = sp_model_options_default();
    options.device = b->device;
    options.dtype = b->dtype;
    options.training = true;
    options.recompute = b->recompute;
    cli_run_shape shape = {&b->config, &options, b->B, b->T, 0};
    cli_memory_plan plan;
    SP_TRY(cli_plan_memory(&plan, &shape));
    cli_show_memory(&plan);
    SP_TRY(measure(b, &options, plan.free_bytes));
    return b->device ? time_queue(b, &options) : SP_OK;
}

/* ---- the command line ---- */

enum {
    KEY_PRESET = 1000,
    KEY_BATCH,
    KEY_LENGTH,
    KEY_SECONDS,
    KEY_STEPS,
    KEY_DEVICE,
    KEY_DTYPE,
    KEY_RECOMPUTE,
    KEY_THREADS,
    KEY_JSON,
    KEY_MODEL = 3000
};

static error_t parse_train_option(int key, char *text, struct argp_state *state) {
    train_bench *b = state->input;
    if (key >= KEY_MODEL && key < KEY_MODEL + BENCH_MODEL_OPTIONS) {
        b->model_texts[key - KEY_MODEL] = text ? text : "yes";
        return 0;
    }
    switch (key) {
    case KEY_PRESET:
        b->preset = text;
        if (!study_preset(text)) argp_error(state, "--preset: there is no \"%s\"; see softpick study --help", text);
        break;
    case KEY_BATCH: b->B = cli_count(state, "--batch", text, 1, 1 << 16); break;
    case KEY_LENGTH: b->T = cli_count(state, "--length", text, 2, 1 << 20); break;
    case KEY_SECONDS: b->seconds = cli_number(state, "--seconds", text, 0, 1e5); break;
    case KEY_STEPS: b->n_steps = cli_count(state, "--steps", text, 1, 1 << 20); break;
    case KEY_DEVICE: b->device = cli_device(state, "--device", text); break;
    case KEY_DTYPE: b->dtype_name = text; break;
    case KEY_RECOMPUTE: b->recompute = true; break;
    case KEY_THREADS: b->n_threads = cli_count(state, "--threads", text, 0, 4096); break;
    case KEY_JSON: b->json = true; break;
    case ARGP_KEY_ARG: argp_error(state, "\"%s\": no argument is expected", text); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

int bench_train(int argc, char **argv) {
    enum { N_OWN = 12 };
    struct argp_option options[N_OWN + BENCH_MODEL_OPTIONS + 1] = {
        {NULL, 0, NULL, 0, "Run:", 1},
        {"preset", KEY_PRESET, "NAME", 0, "a preset of softpick study: its model, length and a batch for one GPU", 1},
        {"batch", KEY_BATCH, "B", 0, "sequences per step (default 4, or the preset's)", 1},
        {"length", KEY_LENGTH, "T", 0, "tokens per sequence (default 512, or the preset's)", 1},
        {"seconds", KEY_SECONDS, "X", 0, "time to measure, after two steps of warm-up (default 10)", 1},
        {"steps", KEY_STEPS, "N", 0, "steps to measure, instead of --seconds", 1},
        {"device", KEY_DEVICE, "NAME", 0, CLI_DEVICE_HELP " (default cpu)", 1},
        {"dtype", KEY_DTYPE, "NAME", 0, "auto, f32 or bf16 (default auto; a GPU has bf16 alone)", 1},
        {"recompute", KEY_RECOMPUTE, NULL, 0, "keep less of the forward pass and compute it again", 1},
        {"threads", KEY_THREADS, "N", 0, "0: as many as processors (default 0)", 1},
        {"json", KEY_JSON, NULL, 0, "print one JSON document", 1},
        {NULL, 0, NULL, 0, "Model (default: 8 layers, 8 heads, width 512, ffn 1376, vocabulary 8192):", 2},
    };
    for (int i = 0, n = N_OWN; cli_model_option_at(i); i++, n++) {
        const cli_model_option *o = cli_model_option_at(i);
        options[n] = (struct argp_option){o->name, KEY_MODEL + i, o->argument, 0, o->help, 2};
    }
    const struct argp argp = {.options = options,
                              .parser = parse_train_option,
                              .doc = "Times training steps of a new model on random tokens: tokens per second, peak "
                                     "memory, and, in further steps, where the time goes (docs/bench.md)."};
    static train_bench b; /* large: it holds times */
    b = (train_bench){.seconds = 10, .dtype_name = "auto", .queue_seconds = NAN};
    cli_parse(&argp, argc, argv, &b);
    cli_set_threads(b.n_threads);
    cli_catch_signals();
    sp_status status = run_train_bench(&b);
    if (status == SP_OK && b.json) status = bench_train_print_json(&b);
    if (status == SP_OK && !b.json) bench_train_print(&b);
    return status == SP_OK ? CLI_DONE : cli_fail(status);
}
