/* The training loop: gradient of a step, update, then what is due after it.
 *
 * Invariants.
 *  1. Step s (0, 1, ...) reads the loader's batches s*A ... s*A + A-1 and uses the rate of step s: nothing but the
 *     model, the optimizer and sp_train_state carries over from step to step.
 *  2. The gradient is that of the mean loss over all targets of the step, however it is cut into A micro-batches.
 *  3. After a step whose loss or gradient is not finite, the model and the optimizer are as before it.
 *  4. Lines are logged before the checkpoint of their step is written (log.c).
 *
 * Not here: what a checkpoint holds (state.c), the update (update.c), the rates (schedule.c). */
#define _GNU_SOURCE
#include "softpick/train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/memory.h"
#include "softpick/checkpoint.h"
#include "train/events.h"
#include "train/update.h"
#include "train/options.h"
#include "train/state.h"
#include "train/validate.h"

enum {
    SKIPPED_MAX = 50,   /* steps in a row without a finite gradient: the run is lost */
    SAMPLE_TOKENS = 64, /* new tokens of a sample */
    RATE_STEPS = 10,    /* steps over which the shown tokens/s is taken */
};

typedef struct trainer {
    sp_train_parts parts;
    const char *run_folder;
    const sp_train_callbacks *callbacks;
    sp_shards *train, *validation;
    sp_loader *train_loader, *validation_loader;
    sp_train_log log;
    sp_train_state state;

    int64_t n_steps;         /* 0: open */
    int64_t tokens_per_step; /* B * T * n_accumulate */
    int64_t first_step;      /* where this process began */
    int64_t saved_step;      /* newest checkpoint, -1: none */
    double began;            /* clock, seconds */
    double step_seconds;     /* spent in steps alone */
    double last_seconds[RATE_STEPS];
    double validation_loss;
    int64_t validation_targets;
    bool interrupted, out_of_time; /* what ends a run before its last step */
} trainer;

static double clock_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- one step ---- */

static int64_t count_targets(const sp_batch *batch) {
    int64_t n = 0;
    for (int64_t i = 0; i < batch->B * batch->T; i++) n += batch->targets[i] >= 0;
    return n;
}

static sp_status read_batch(trainer *t, int64_t micro, sp_batch *batch) {
    return sp_loader_batch(t->train_loader, t->state.step * t->parts.options->n_accumulate + micro, batch);
}

/* Mean loss over the targets of the step, and its gradient in the model.  All targets are counted first, so that
 * each micro-batch can be weighted as in one large batch. */
static sp_status step_gradient(trainer *t, double *loss) {
    int64_t n_micro = t->parts.options->n_accumulate, n_targets = 0;
    sp_batch batch;
    for (int64_t i = 0; i < n_micro; i++) {
        SP_TRY(read_batch(t, i, &batch));
        n_targets += count_targets(&batch);
    }
    double sum = 0;
    SP_TRY(sp_model_zero_gradients(t->parts.model));
    for (int64_t i = 0; i < n_micro; i++) {
        if (n_micro > 1) SP_TRY(read_batch(t, i, &batch));
        double micro_sum = 0;
        int64_t n = 0;
        SP_TRY(sp_model_loss_gradient(t->parts.model, &batch, 1.0 / (double)n_targets, &micro_sum, &n));
        sum += micro_sum;
    }
    *loss = sum / (double)n_targets;
    return SP_OK;
}

static sp_status count_skip(sp_train_state *state, bool skipped) {
    state->n_skipped += skipped;
    state->n_skipped_in_a_row = skipped ? state->n_skipped_in_a_row + 1 : 0;
    SP_REQUIRE(state->n_skipped_in_a_row < SKIPPED_MAX, SP_UNSUPPORTED,
               "step %lld: the loss or the gradient was not finite in %d steps in a row: try a lower learning rate",
               (long long)state->step, SKIPPED_MAX);
    return SP_OK;
}

static sp_status train_step(trainer *t, sp_train_step *report) {
    double began = clock_seconds(), loss, norm = NAN;
    int64_t step = t->state.step;
    double rate = sp_train_learning_rate(t->parts.options, t->n_steps, step);
    SP_TRY(step_gradient(t, &loss));
    bool updated = false;
    if (isfinite(loss)) SP_TRY(sp_optimizer_step(t->parts.optimizer, rate, &norm, &updated));
    t->state.losses[step % SP_TRAIN_N_RECENT] = (float)loss;
    t->state.step = ++step;
    double seconds = clock_seconds() - began;
    t->last_seconds[step % RATE_STEPS] = seconds;
    t->step_seconds += seconds;
    *report = (sp_train_step){.step = step,
                              .n_steps = t->n_steps,
                              .n_tokens = step * t->tokens_per_step,
                              .loss = (float)loss, /* what the log's digits and the checkpoint hold exactly */
                              .validation_loss = NAN,
                              .gradient_norm = norm,
                              .learning_rate = rate,
                              .skipped = !updated};
    return count_skip(&t->state, !updated);
}

/* ---- what is due after a step ---- */

static sp_status validate(trainer *t) {
    return sp_train_validate(t->parts.model, t->validation_loader, t->parts.options->validation_tokens_max,
                             &t->validation_loss, &t->validation_targets);
}

static sp_status save_checkpoint(trainer *t) {
    int64_t step = t->state.step;
    char name[32], folder[4096];
    snprintf(name, sizeof name, "step-%08lld", (long long)step);
    SP_TRY(sp_path_join(folder, sizeof folder, t->run_folder, name));
    SP_TRY(sp_train_log_checkpoint(&t->log, step, name));
    SP_TRY(sp_train_log_sync(&t->log));
    SP_TRY(sp_train_state_save(folder, &t->state, &t->parts));
    t->saved_step = step;
    SP_TRY(sp_checkpoint_prune(t->run_folder, t->parts.options->keep));
    if (t->callbacks->checkpoint) t->callbacks->checkpoint(t->callbacks->user, step, folder);
    return SP_OK;
}

typedef struct sample {
    int32_t *tokens;
    int64_t n;
} sample;

static int add_token(void *user, int32_t token) {
    sample *s = user;
    s->tokens[s->n++] = token;
    return 0;
}

/* Tokens of the prompt (BOS alone if there is none) with room for SAMPLE_TOKENS more.  Caller frees. */
static sp_status begin_sample(sample *s, const trainer *t) {
    const char *prompt = t->parts.options->sample_prompt;
    int32_t bos = sp_tokenizer_bos(t->parts.tokenizer), *encoded = NULL;
    int64_t n_encoded = 0;
    if (prompt) SP_TRY(sp_tokenizer_encode(t->parts.tokenizer, prompt, (int64_t)strlen(prompt), &encoded, &n_encoded));
    int64_t n_bytes = (1 + n_encoded + SAMPLE_TOKENS) * (int64_t)sizeof(int32_t);
    sp_status status = sp_allocate((void **)&s->tokens, n_bytes, "a sample");
    s->n = 0;
    if (status == SP_OK && bos >= 0) s->tokens[s->n++] = bos;
    for (int64_t i = 0; status == SP_OK && i < n_encoded; i++) s->tokens[s->n++] = encoded[i];
    free(encoded);
    return status;
}

static sp_status write_sample(trainer *t) {
    sample s = {0};
    char *text = NULL;
    int64_t n_bytes;
    sp_sampling sampling = sp_sampling_default();
    sampling.seed = t->parts.options->seed;
    int64_t n_free, has_bos = sp_tokenizer_bos(t->parts.tokenizer) >= 0;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(begin_sample(&s, t));
    n_free = sp_model_config_of(t->parts.model)->max_positions - s.n;
    SP_REQUIRE_OR_DONE(n_free > 0, SP_BAD_ARGUMENT, "sample-prompt: its %lld tokens fill the model's positions",
                       (long long)s.n);
    SP_TRY_OR_DONE(sp_generate(t->parts.model, s.tokens, s.n, n_free < SAMPLE_TOKENS ? n_free : SAMPLE_TOKENS,
                               &sampling, add_token, &s));
    SP_TRY_OR_DONE(sp_tokenizer_decode(t->parts.tokenizer, s.tokens + has_bos, s.n - has_bos, &text, &n_bytes));
    SP_TRY_OR_DONE(sp_train_log_sample(&t->log, t->state.step, text));
    if (t->callbacks->sample) t->callbacks->sample(t->callbacks->user, t->state.step, text);
done:
    free(text);
    free(s.tokens);
    return status;
}

static bool is_finished(const trainer *t) { return t->n_steps > 0 && t->state.step >= t->n_steps; }

static bool is_due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

/* The whole run's mean pace, pauses included, foretells the rest better than the last steps do. */
static double seconds_left(const trainer *t, double seconds) {
    double left = NAN, minutes = t->parts.options->minutes;
    int64_t n_done = t->state.step - t->first_step;
    if (t->n_steps > 0) left = seconds / (double)n_done * (double)(t->n_steps - t->state.step);
    if (minutes > 0) left = fmin(left, fmax(0, 60 * minutes - seconds)); /* fmin passes a NaN over */
    return left;
}

static double tokens_per_second(const trainer *t) {
    int64_t n_done = t->state.step - t->first_step, n = n_done < RATE_STEPS ? n_done : RATE_STEPS;
    double seconds = 0;
    for (int i = 0; i < RATE_STEPS; i++) seconds += t->last_seconds[i];
    return (double)(n * t->tokens_per_step) / seconds;
}

static sp_status after_step(trainer *t, sp_train_step *report) {
    const sp_train_options *options = t->parts.options;
    const sp_train_callbacks *callbacks = t->callbacks;
    int64_t step = t->state.step;
    bool ended = is_finished(t) || t->out_of_time, last = ended || t->interrupted;
    bool validates = ended || is_due(step, options->validate_every);
    t->validation_loss = NAN;
    if (validates) {
        SP_TRY(validate(t));
        report->validation_loss = t->validation_loss;
    }
    report->seconds = clock_seconds() - t->began;
    report->tokens_per_second = tokens_per_second(t);
    report->seconds_left = seconds_left(t, report->seconds);
    if (last || report->skipped || is_due(step, options->log_every)) SP_TRY(sp_train_log_step(&t->log, report));
    if (validates) SP_TRY(sp_train_log_validation(&t->log, step, t->validation_loss, t->validation_targets));
    if (callbacks->step) callbacks->step(callbacks->user, report);
    if (t->parts.tokenizer && is_due(step, options->sample_every)) SP_TRY(write_sample(t));
    if (last || is_due(step, options->checkpoint_every)) SP_TRY(save_checkpoint(t));
    return SP_OK;
}

/* ---- the run ---- */

/* Who interrupts wants to leave soon: the checkpoint is written, but the loss is measured only where it is due. */
static sp_status train_steps(trainer *t) {
    double seconds_max = 60 * t->parts.options->minutes;
    if (!is_finished(t) && t->callbacks->begin) t->callbacks->begin(t->callbacks->user);
    while (!is_finished(t) && !t->interrupted && !t->out_of_time) {
        sp_train_step report;
        SP_TRY(train_step(t, &report));
        t->out_of_time = seconds_max > 0 && clock_seconds() - t->began >= seconds_max;
        t->interrupted = t->callbacks->stop && t->callbacks->stop(t->callbacks->user) != 0;
        SP_TRY(after_step(t, &report));
    }
    /* A finished run that is resumed only says how it ended. */
    return t->state.step == t->first_step ? validate(t) : SP_OK;
}

/* Goes back to the newest checkpoint, or to the beginning.  A run that is there needs `resume`. */
static sp_status begin_run(trainer *t) {
    char *newest = NULL;
    sp_status status = SP_OK;
    t->saved_step = -1;
    SP_TRY_OR_DONE(sp_checkpoint_newest(t->run_folder, &newest));
    SP_REQUIRE_OR_DONE(t->parts.options->resume || (!newest && ftell(t->log.file) == 0), SP_BAD_ARGUMENT,
                       "%s: holds a run already: resume it, or name another folder", t->run_folder);
    if (newest) {
        SP_TRY_OR_DONE(sp_train_state_load(&t->state, &t->parts, newest));
        SP_TRY_OR_DONE(sp_checkpoint_prune(t->run_folder, t->parts.options->keep));
        t->saved_step = t->state.step;
    }
    SP_TRY_OR_DONE(sp_train_log_truncate(&t->log, t->saved_step));
    t->first_step = t->state.step;
    if (!is_finished(t)) SP_TRY_OR_DONE(sp_train_log_run(&t->log, &t->parts, t->state.step));
done:
    free(newest);
    return status;
}

static double mean_of_last(const sp_train_state *state) {
    int64_t n = state->step < SP_TRAIN_N_RECENT ? state->step : SP_TRAIN_N_RECENT, n_finite = 0;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(state->losses[i])) continue;
        sum += state->losses[i];
        n_finite++;
    }
    return sum / (double)n_finite;
}

static void fill_result(sp_train_result *result, const trainer *t) {
    int64_t n_done = t->state.step - t->first_step;
    *result =
        (sp_train_result){.n_steps = t->state.step,
                          .n_tokens = t->state.step * t->tokens_per_step,
                          .n_skipped = t->state.n_skipped,
                          .final_loss = mean_of_last(&t->state),
                          .validation_loss = t->validation_loss,
                          .validation_targets = t->validation_targets,
                          .seconds = clock_seconds() - t->began,
                          .tokens_per_second = n_done ? (double)(n_done * t->tokens_per_step) / t->step_seconds : 0,
                          .stopped_early = !is_finished(t)};
}

/* Everything that can be wrong with text and model is found here, before the run folder is touched. */
static sp_status open_text(trainer *t, const char *shards_folder) {
    const sp_train_options *options = t->parts.options;
    SP_TRY(sp_shards_open(&t->train, shards_folder, "train"));
    SP_TRY(sp_shards_open(&t->validation, shards_folder, "validation"));
    SP_TRY(sp_train_loader_new(&t->train_loader, t->train, t->parts.model, options, false));
    SP_TRY(sp_train_loader_new(&t->validation_loader, t->validation, t->parts.model, options, true));
    t->parts.shards = t->train;
    return SP_OK;
}

sp_status sp_train(sp_model *model, const sp_tokenizer *tokenizer, const char *shards_folder, const char *run_folder,
                   const sp_train_options *options, const sp_train_callbacks *callbacks, sp_train_result *result) {
    static const sp_train_callbacks none;
    SP_TRY(sp_train_options_check(options));
    trainer t = {.parts = {.model = model, .tokenizer = tokenizer, .options = options},
                 .run_folder = run_folder,
                 .callbacks = callbacks ? callbacks : &none,
                 .n_steps = sp_train_n_steps(options),
                 .tokens_per_step = options->B * options->T * options->n_accumulate,
                 .began = clock_seconds()};
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(open_text(&t, shards_folder));
    SP_TRY_OR_DONE(sp_optimizer_new(&t.parts.optimizer, model, options));
    SP_TRY_OR_DONE(sp_folder_make(run_folder));
    SP_TRY_OR_DONE(sp_train_log_open(&t.log, run_folder));
    SP_TRY_OR_DONE(begin_run(&t));
    SP_TRY_OR_DONE(train_steps(&t));
    fill_result(result, &t);
done:
    sp_train_log_close(&t.log);
    sp_optimizer_free(t.parts.optimizer);
    sp_loader_free(t.validation_loader);
    sp_loader_free(t.train_loader);
    sp_shards_close(t.validation);
    sp_shards_close(t.train);
    return status;
}
