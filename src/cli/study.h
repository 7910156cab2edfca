/* A study: one text, one model shape, several attention functions, trained alike, measured alike, compared.
 * Settings are rows of one table (study_settings.c), which makes the options, the help, study.json and the check that a
 * continued study is the same study. */
#ifndef SP_CLI_STUDY_H
#define SP_CLI_STUDY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "cli/memory_plan.h"
#include "softpick/model.h"
#include "softpick/text.h"
#include "softpick/train.h"

typedef struct study_settings {
    const char *preset, *attention, *schedule, *packing, *device, *dtype, *prompt, *tokenizer, *measures, *tasks,
        *task_data;
    int64_t layers, heads, kv_heads, width, ffn_width, vocabulary;
    int64_t T, B, accumulate, steps, warmup_steps, samples, measure_length, seed, task_limit, shots;
    double minutes, learning_rate, initializer_range, adam_eps, validation_fraction;
    bool recompute;
} study_settings;

typedef enum study_kind {
    STUDY_COUNT,
    STUDY_NUMBER,
    STUDY_WORD,
    STUDY_SWITCH, /* changes no number: a study may go on with another value */
} study_kind;

typedef struct study_setting {
    const char *name; /* of the option and in study.json */
    study_kind kind;
    int64_t offset;
    double min, max; /* of a count or number */
    const char *argument, *help;
    int group;
} study_setting;

extern const study_setting study_table[];
extern const int study_table_rows;

/* The preset's settings; NULL when there is none of that name. */
const study_settings *study_preset(const char *name);
/* The i-th preset's name and one-line description; false past the end. */
bool study_preset_at(int i, const char **name, const char **help);

/* Sequences of this preset's length that one large GPU trains on at a time: what `softpick bench train` takes. */
int64_t study_preset_bench_batch(const char *name);

json_t *study_settings_json(const study_settings *settings);
/* What differs first between two studies, as "T is 128 there and 256 here"; false if nothing does. */
bool study_settings_differ(char *out, int64_t out_bytes, const json_t *there, const json_t *here);

enum { STUDY_MODELS_MAX = 8 };

typedef struct study {
    study_settings settings;
    const char *out;
    const char **texts;
    int64_t n_texts;
    const char *command; /* as typed */
    bool timed;          /* the steps follow from --minutes */
    bool goes_on;        /* study.json says that the tokens in the folder are this study's */
    sp_normalizer attention[STUDY_MODELS_MAX];
    int64_t n_models;
    char tokens[4096];       /* folder of shards and tokenizer */
    sp_tokenizer *tokenizer; /* NULL until the tokens are ready */
    int64_t vocabulary;      /* of the models; until then the most that it can be */
    int64_t n_train, n_validation, n_documents;
    int32_t device;
    sp_dtype dtype;
    cli_memory_plan memory; /* of the first model */
    json_t *models;         /* name -> results of one model */
} study;

/* Steps of a study, in order; each skips what an earlier process has finished. */
sp_status study_prepare_tokens(study *s);
/* Refuses, before anything is written, models that this device's memory cannot hold. */
sp_status study_check_memory(study *s);
/* Refuses, before any training, what would fail after it: a prompt or samples that do not fit model and text. */
sp_status study_check_measures(const study *s);
/* Before anything is written: whether --tasks names tasks that exist, with their data. */
sp_status study_check_tasks(const study *s);
/* Before any training: one document of each task on an untrained model, so that none fails after it. */
sp_status study_rehearse_tasks(const study *s, sp_model *model);
sp_status study_choose_steps(study *s);
sp_status study_run_model(study *s, sp_normalizer attention);

/* Measures the model as it is after `step` steps (0: before the first) and adds them to the run folder's trace.json, in
 * place of what stood there for this step and later ones. */
sp_status study_trace_add(const study *s, sp_model *model, const char *run_folder, int64_t step);
/* {T, n_samples, dtype, step: [...], measures: {name: [...], ...}}; NULL if nothing was traced. */
sp_status study_trace_read(json_t **out, const char *run_folder);

/* The configuration of the model with this attention, and the options of its training. */
sp_status study_model_config(sp_model_config *config, const study *s, sp_normalizer attention);
sp_status study_train_options(sp_train_options *options, const study *s);

/* root.evaluation: what `softpick eval` finds, and the passkey grid; nothing without --tasks. */
sp_status study_add_evaluation(json_t *root, const study *s, sp_model *model, const char *name);

/* results.json of a finished study. */
json_t *study_results(const study *s);
/* Loss curves {step, loss, validation_step, validation_loss} from a run's log.jsonl, at most n_max points. */
sp_status study_curve(json_t **out, const char *run_folder, int64_t n_max);
/* The table softmax | softpick | difference on stdout. */
void study_print(const json_t *results);

#endif
