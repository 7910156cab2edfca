/* Training: options, schedules, the optimizer, the loop, exact resume (docs/training.md).  May change in any
 * release. */
#ifndef SOFTPICK_TRAIN_H
#define SOFTPICK_TRAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "softpick/model.h"
#include "softpick/status.h"
#include "softpick/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum sp_schedule {
    SP_SCHEDULE_COSINE = 0,
    SP_SCHEDULE_LINEAR = 1,
    SP_SCHEDULE_WSD = 2, /* warm-up, stable, then decay over the last decay_fraction of the steps (1 - sqrt) */
    SP_SCHEDULE_CONSTANT = 3,
} sp_schedule;
SP_API const char *sp_schedule_name(sp_schedule schedule);
SP_API SP_MUST_CHECK sp_status sp_schedule_find(sp_schedule *out, const char *name);

typedef struct sp_train_options {
    size_t struct_bytes;
    /* what is read: B sequences of T tokens per micro-batch, n_accumulate micro-batches per step */
    int64_t B, T, n_accumulate;
    sp_packing packing;
    uint64_t seed; /* of the order of the text and of samples */
    /* how long: the run stops at whichever comes first; 0 = no such limit.  Schedules that end need n_steps
     * or n_tokens.  `minutes` counts this process alone. */
    int64_t n_steps, n_tokens;
    double minutes;
    /* learning rate */
    double learning_rate;  /* peak; default 3e-4 */
    double rate_floor;     /* final rate as a share of the peak; default 0.1 */
    sp_schedule schedule;  /* default cosine */
    int64_t warmup_steps;  /* default -1: a tenth of the steps, at most 100 */
    double decay_fraction; /* wsd; default 0.2 */
    /* AdamW: the paper's code by default: betas .9/.95, decay .1 on all parameters, eps 1e-15, clip 1.0 */
    double beta1, beta2, weight_decay, adam_eps, clip_norm; /* clip_norm 0: none */
    /* now and then, in steps; 0: never (but validation runs, and a checkpoint is written, at the end) */
    int64_t validate_every, sample_every, checkpoint_every, log_every;
    int64_t validation_tokens_max; /* tokens of the held-out text used, 0: all; default 200,000 */
    int64_t keep;                  /* checkpoints kept; default 2 */
    const char *sample_prompt;     /* NULL: BOS alone.  Borrowed */
    bool resume;                   /* go on from the newest checkpoint of the run, if there is one */
} sp_train_options;

SP_API sp_train_options sp_train_options_default(void);
/* Names the first thing wrong with the values. */
SP_API SP_MUST_CHECK sp_status sp_train_options_check(const sp_train_options *options);

/* The options by name: one table (src/train/options.c) feeds the command line, its help, the log, the
 * checkpoints. */
typedef struct sp_train_option {
    const char *name;     /* "learning-rate" */
    const char *argument; /* "RATE"; NULL for a switch */
    const char *help;
    const char *group; /* title under which help shows it */
} sp_train_option;
/* The i-th option; NULL past the end. */
SP_API const sp_train_option *sp_train_option_at(int i);
/* Sets one from text (counts take k, M and G; a switch takes "yes" or "no").  Texts are borrowed. */
SP_API SP_MUST_CHECK sp_status sp_train_option_set(sp_train_options *options, const char *name, const char *text);
/* Text of its value into `out`, as sp_train_option_set reads it; "" for an unknown name. */
SP_API void sp_train_option_get(const sp_train_options *options, const char *name, char *out, int64_t out_bytes);

/* Steps of the whole run: n_steps, or as many as n_tokens asks for, whichever is less; 0: open. */
SP_API int64_t sp_train_n_steps(const sp_train_options *options);
/* The learning rate of step 0, 1, ... of n_steps (0: open, constant schedule alone): a pure function. */
SP_API double sp_train_learning_rate(const sp_train_options *options, int64_t n_steps, int64_t step);

/* ---- one update
 * ------------------------------------------------------------------------------------------------ */

/* AdamW over all parameters of a model, for a loop of one's own: sp_model_zero_gradients,
 * sp_model_loss_gradient, sp_optimizer_step. */
typedef struct sp_optimizer sp_optimizer;

/* `model` must be made for training and outlive the optimizer; of `options`, betas, eps, decay and clip are
 * used. */
SP_API SP_MUST_CHECK sp_status sp_optimizer_new(sp_optimizer **out, sp_model *model, const sp_train_options *options);
SP_API void sp_optimizer_free(sp_optimizer *optimizer);
/* Clips the gradients by their global norm, updates the values and refreshes the model.  A norm that is not
 * finite leaves values, moments and the count of updates as they were, and *updated is false.  `gradient_norm` is
 * before clipping. */
SP_API SP_MUST_CHECK sp_status sp_optimizer_step(sp_optimizer *optimizer, double learning_rate, double *gradient_norm,
                                                 bool *updated);

/* ---- the whole run
 * --------------------------------------------------------------------------------------------- */

/* One step, as it is reported and logged. */
typedef struct sp_train_step {
    int64_t step, n_steps;  /* step done (1-based), steps in all (0: open) */
    int64_t n_tokens;       /* seen so far, over all resumptions */
    double loss;            /* mean over the step's targets, nats */
    double validation_loss; /* NaN unless measured after this step */
    double gradient_norm;   /* before clipping */
    double learning_rate;
    double seconds;           /* since this process began training */
    double tokens_per_second; /* over the last steps */
    double seconds_left;      /* NaN: unknown */
    bool skipped;             /* a non-finite loss or gradient: the weights were left as they were */
} sp_train_step;

/* What the loop calls.  Any may be NULL. */
typedef struct sp_train_callbacks {
    void *user;
    /* Before the first step of this process, when all that can be checked has been; not if no step is left. */
    void (*begin)(void *user);
    void (*step)(void *user, const sp_train_step *step);
    void (*sample)(void *user, int64_t step, const char *text);
    void (*checkpoint)(void *user, int64_t step, const char *folder);
    /* Asked after every step: non-zero saves and stops (SP_OK is returned), without a last validation. */
    int (*stop)(void *user);
} sp_train_callbacks;

typedef struct sp_train_result {
    int64_t n_steps, n_tokens, n_skipped;
    double final_loss;      /* mean of the finite ones of the last 10 losses */
    double validation_loss; /* after the last step; NaN if `stop` ended the run and none was due */
    int64_t validation_targets;
    double seconds, tokens_per_second; /* of this process; the rate without validation, samples, checkpoints */
    bool stopped_early;                /* by `stop` or by minutes */
} sp_train_result;

/* Trains `model` (made with training = true) on `shards` folder's train split, validates on its validation
 * split, writes run_folder/log.jsonl and run_folder/step-XXXXXXXX.  train 20 steps == train 10, die, resume,
 * 10 more, bit for bit. */
SP_API SP_MUST_CHECK sp_status sp_train(sp_model *model, const sp_tokenizer *tokenizer, const char *shards_folder,
                                        const char *run_folder, const sp_train_options *options,
                                        const sp_train_callbacks *callbacks, sp_train_result *result);

/* Mean loss over the validation split, in order, up to n_tokens_max (0: all). */
SP_API SP_MUST_CHECK sp_status sp_validate(sp_model *model, const char *shards_folder, int64_t B, int64_t T,
                                           sp_packing packing, int64_t n_tokens_max, double *loss, int64_t *n_targets);

#ifdef __cplusplus
}
#endif
#endif
