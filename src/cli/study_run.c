/* The steps of a study: tokens, the number of steps, and for each attention function training, measures, samples. */
#include "cli/study.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/status.h"
#include "cli/cli.h"
#include "softpick/checkpoint.h"
#include "softpick/measure.h"

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

/* Puts it into the folder of tokens. */
static sp_status make_tokenizer(const study *s) {
    if (s->settings.tokenizer[0]) {
        sp_tokenizer *given;
        SP_TRY(sp_tokenizer_open(&given, s->settings.tokenizer));
        sp_status status = sp_tokenizer_keep(given, s->tokens);
        sp_tokenizer_free(given);
        return status;
    }
    char path[4096];
    SP_TRY(sp_path_join(path, sizeof path, s->tokens, "tokenizer.model"));
    sp_tokenizer_train_options options = sp_tokenizer_train_options_default();
    options.vocabulary = s->settings.vocabulary;
    options.progress = cli_progress;
    return sp_tokenizer_train(path, s->texts, s->n_texts, &options);
}

static sp_status count_tokens(study *s) {
    sp_shards *shards;
    SP_TRY(sp_shards_open(&shards, s->tokens, "train"));
    s->n_train = sp_shards_n_tokens(shards);
    s->n_documents = sp_shards_n_documents(shards);
    sp_shards_close(shards);
    SP_TRY(sp_shards_open(&shards, s->tokens, "validation"));
    s->n_validation = sp_shards_n_tokens(shards);
    s->n_documents += sp_shards_n_documents(shards);
    sp_shards_close(shards);
    return SP_OK;
}

sp_status study_prepare_tokens(study *s) {
    if (!s->goes_on) {
        SP_TRY(sp_folder_make(s->tokens));
        SP_TRY(make_tokenizer(s));
        sp_tokenizer *tokenizer;
        SP_TRY(sp_tokenizer_open(&tokenizer, s->tokens));
        sp_shards_write_options options = sp_shards_write_options_default();
        options.validation_fraction = s->settings.validation_fraction;
        options.progress = cli_progress;
        sp_status status = sp_shards_write(s->tokens, tokenizer, s->texts, s->n_texts, &options);
        sp_tokenizer_free(tokenizer);
        SP_TRY(status);
    }
    SP_TRY(sp_tokenizer_open(&s->tokenizer, s->tokens));
    s->vocabulary = sp_tokenizer_vocabulary(s->tokenizer);
    return count_tokens(s);
}

/* ---- training ---------------------------------------------------------------------------------------------------- */

sp_status study_model_config(sp_model_config *config, const study *s, sp_normalizer attention) {
    const study_settings *set = &s->settings;
    *config = sp_model_config_default();
    config->vocabulary = s->vocabulary;
    config->width = set->width;
    config->n_layers = set->layers;
    config->n_heads = set->heads;
    config->n_kv_heads = set->kv_heads ? set->kv_heads : set->heads;
    SP_REQUIRE(set->width % set->heads == 0, SP_BAD_ARGUMENT,
               "--width is %" PRId64 ": not a multiple of the %" PRId64 " heads", set->width, set->heads);
    config->head_width = set->width / set->heads;
    /* 8/3 of the width, so that gated and plain feed-forward layers cost the same; in whole vectors of 32. */
    config->ffn_width = set->ffn_width ? set->ffn_width : (set->width * 8 / 3 + 31) / 32 * 32;
    config->max_positions = 2 * set->T;
    config->initializer_range = set->initializer_range;
    config->bos = s->tokenizer ? sp_tokenizer_bos(s->tokenizer) : -1;
    config->eos = s->tokenizer ? sp_tokenizer_eos(s->tokenizer) : -1;
    config->attention_function = attention;
    return sp_model_config_check(config);
}

sp_status study_train_options(sp_train_options *options, const study *s) {
    const study_settings *set = &s->settings;
    *options = sp_train_options_default();
    options->B = set->B;
    options->T = set->T;
    options->n_accumulate = set->accumulate;
    options->seed = (uint64_t)set->seed;
    options->n_steps = set->steps;
    options->learning_rate = set->learning_rate;
    options->warmup_steps = set->warmup_steps;
    options->adam_eps = set->adam_eps;
    SP_TRY(sp_packing_find(&options->packing, set->packing));
    SP_TRY(sp_schedule_find(&options->schedule, set->schedule));
    if (set->steps > 0) {
        if (options->warmup_steps > set->steps / 4) options->warmup_steps = set->steps / 4;
        options->validate_every = set->steps >= 20 ? set->steps / 20 : 1;
        options->checkpoint_every = set->steps >= 10 ? set->steps / 10 : set->steps; /* each is measured */
        if (options->checkpoint_every > 1000) options->checkpoint_every = 1000;
    }
    options->keep = 1;
    options->sample_every = 0;
    return SP_OK;
}

sp_status study_check_measures(const study *s) {
    const char *prompt = s->settings.prompt;
    int32_t *tokens;
    int64_t n, T = s->settings.measure_length ? s->settings.measure_length : s->settings.T,
               positions = 2 * s->settings.T;
    SP_TRY(sp_tokenizer_encode(s->tokenizer, prompt, (int64_t)strlen(prompt), &tokens, &n));
    free(tokens);
    SP_REQUIRE(n >= 1, SP_BAD_ARGUMENT, "--prompt is empty: attention maps need a text");
    SP_REQUIRE(n + 1 <= positions, SP_BAD_ARGUMENT,
               "--prompt has %" PRId64 " tokens with BOS: the model has %" PRId64 " positions, twice the length", n + 1,
               positions);
    SP_REQUIRE(s->n_validation > T, SP_BAD_FILE,
               "the held-out text has %" PRId64 " tokens: too short for one sample of %" PRId64, s->n_validation, T);
    return SP_OK;
}

static sp_model_options model_options(const study *s) {
    sp_model_options options = sp_model_options_default();
    options.device = s->device;
    options.dtype = s->dtype;
    options.training = true;
    options.recompute = s->settings.recompute;
    options.seed = (uint64_t)s->settings.seed;
    return options;
}

/* Of the tokenizer that was given, or the most pieces that one will be trained to. */
static sp_status foresee_vocabulary(int64_t *vocabulary, const study_settings *set) {
    *vocabulary = set->vocabulary;
    if (!set->tokenizer[0]) return SP_OK;
    sp_tokenizer *tokenizer;
    SP_TRY(sp_tokenizer_open(&tokenizer, set->tokenizer));
    *vocabulary = sp_tokenizer_vocabulary(tokenizer);
    sp_tokenizer_free(tokenizer);
    return SP_OK;
}

sp_status study_check_memory(study *s) {
    const study_settings *set = &s->settings;
    sp_model_options options = model_options(s);
    SP_TRY(foresee_vocabulary(&s->vocabulary, set));
    for (int64_t i = 0; i < s->n_models; i++) {
        sp_model_config config;
        cli_memory_plan plan;
        SP_TRY(study_model_config(&config, s, s->attention[i]));
        cli_run_shape shape = {&config, &options, set->B, set->T, set->accumulate};
        SP_TRY(cli_plan_memory(&plan, &shape));
        if (i == 0) s->memory = plan;
    }
    return SP_OK;
}

static sp_status new_model(sp_model **model, const study *s, sp_normalizer attention) {
    *model = NULL;
    sp_model_config config;
    SP_TRY(study_model_config(&config, s, attention));
    sp_model_options options = model_options(s);
    return sp_model_new(model, &config, &options);
}

/* Seconds of a training step with this attention, by the real loop on a folder that is thrown away. */
static sp_status time_step(double *seconds, const study *s, sp_normalizer attention) {
    char folder[4096];
    SP_TRY(sp_path_join(folder, sizeof folder, s->out, ".timing"));
    SP_TRY(sp_folder_remove(folder));
    sp_model *model;
    SP_TRY(new_model(&model, s, attention));
    sp_train_options options;
    sp_train_result result;
    sp_status status = study_train_options(&options, s);
    options.n_steps = 1000000;
    options.minutes = 2.0 / 60;
    options.validate_every = options.checkpoint_every = 0;
    options.validation_tokens_max = s->settings.T * s->settings.B;
    if (status == SP_OK) status = sp_train(model, s->tokenizer, s->tokens, folder, &options, NULL, &result);
    if (status == SP_OK)
        *seconds = (double)(s->settings.T * s->settings.B * s->settings.accumulate) / result.tokens_per_second;
    sp_model_free(model);
    sp_status removed = sp_folder_remove(folder);
    return status != SP_OK ? status : removed;
}

/* Two leading digits: 1437 -> 1400. */
static int64_t rounded(double steps) {
    double unit = pow(10, floor(log10(steps)) - 1);
    return steps < 10 ? (int64_t)steps : (int64_t)(floor(steps / unit) * unit);
}

sp_status study_choose_steps(study *s) {
    if (s->settings.steps > 0) return SP_OK;
    double total = 0;
    for (int64_t i = 0; i < s->n_models; i++) {
        double seconds;
        cli_progress(NULL, "timing a few steps", i, s->n_models);
        SP_TRY(time_step(&seconds, s, s->attention[i]));
        total += seconds;
    }
    cli_progress(NULL, "timing a few steps", s->n_models, s->n_models);
    double steps = s->settings.minutes * 60 / total;
    s->settings.steps = rounded(steps < 1 ? 1 : steps);
    return SP_OK;
}

/* What is done beside a model's training. */
typedef struct training_watch {
    const study *s;
    sp_model *model;
    const char *name, *folder;
    int64_t n_steps, checkpoint_every;
    sp_status status; /* of the measures on the way */
} training_watch;

static void show_step(void *user, const sp_train_step *step) {
    const training_watch *watch = user;
    char what[128];
    snprintf(what, sizeof what, "%s: loss %.3f, %.0f tokens/s", watch->name, step->loss, step->tokens_per_second);
    cli_progress(NULL, what, step->step, step->n_steps);
}

/* Not at the checkpoint of a study that is stopped: a study that goes on has the same trace as one that was not. */
static void measure_step(void *user, int64_t step, const char *checkpoint) {
    training_watch *watch = user;
    bool due = step % watch->checkpoint_every == 0 || step == watch->n_steps;
    (void)checkpoint;
    if (watch->status == SP_OK && due) watch->status = study_trace_add(watch->s, watch->model, watch->folder, step);
}

static int stop_asked(void *user) {
    const training_watch *watch = user;
    return cli_interrupted() || watch->status != SP_OK;
}

/* Trains to the end, or goes on with what an earlier process has done. */
static sp_status train_model(training_watch *watch, sp_train_result *result) {
    const study *s = watch->s;
    sp_train_options options;
    sp_train_callbacks callbacks = {.user = watch, .step = show_step, .checkpoint = measure_step, .stop = stop_asked};
    char *newest;
    SP_TRY(study_train_options(&options, s));
    options.resume = true;
    watch->n_steps = options.n_steps;
    watch->checkpoint_every = options.checkpoint_every;
    SP_TRY(sp_checkpoint_newest(watch->folder, &newest));
    bool is_new = !newest;
    free(newest);
    if (is_new) SP_TRY(study_rehearse_tasks(s, watch->model));
    if (is_new) SP_TRY(study_trace_add(s, watch->model, watch->folder, 0));
    sp_status status = sp_train(watch->model, s->tokenizer, s->tokens, watch->folder, &options, &callbacks, result);
    SP_TRY(watch->status);
    return status;
}

/* ---- one model's results ----------------------------------------------------------------------------------------- */

typedef struct text_tokens {
    int32_t *tokens;
    int64_t count;
} text_tokens;

static int collect(void *user, int32_t token) {
    text_tokens *t = user;
    t->tokens[t->count++] = token;
    return 0;
}

enum { SAMPLE_TOKENS = 80 };

static sp_status add_sample(json_t *samples, const study *s, sp_model *model, const char *prompt) {
    int32_t *encoded = NULL, *start = NULL, drawn[SAMPLE_TOKENS];
    int64_t n, n_bytes;
    char *text = NULL;
    text_tokens out = {.tokens = drawn};
    sp_sampling sampling = sp_sampling_default();
    sampling.seed = (uint64_t)s->settings.seed;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_tokenizer_encode(s->tokenizer, prompt, (int64_t)strlen(prompt), &encoded, &n));
    start = malloc((size_t)(n + 1) * sizeof *start);
    SP_REQUIRE_OR_DONE(start, SP_OUT_OF_MEMORY, "no memory for a prompt");
    start[0] = sp_tokenizer_bos(s->tokenizer);
    memcpy(start + 1, encoded, (size_t)n * sizeof *start);
    SP_TRY_OR_DONE(sp_generate(model, start, n + 1, SAMPLE_TOKENS, &sampling, collect, &out));
    SP_TRY_OR_DONE(sp_tokenizer_decode(s->tokenizer, drawn, out.count, &text, &n_bytes));
    SP_REQUIRE_OR_DONE(json_array_append_new(samples, json_pack("{ss ss}", "prompt", prompt, "text", text)) == 0,
                       SP_INTERNAL, "a generated sample is not UTF-8");
done:
    free(encoded);
    free(start);
    free(text);
    return status;
}

static sp_status add_measures(json_t *model_json, const study *s, sp_model *model) {
    sp_measure_options options = sp_measure_options_default();
    options.T = s->settings.measure_length ? s->settings.measure_length : s->settings.T;
    options.n_samples = s->settings.samples;
    options.measures = s->settings.measures;
    options.progress = cli_progress;
    SP_TRY(sp_packing_find(&options.packing, s->settings.packing));
    char *text;
    json_t *measures, *value;
    SP_TRY(sp_measure(model, s->tokens, &options, &text));
    sp_status status = sp_json_parse(&measures, text, (int64_t)strlen(text), "measures");
    free(text);
    SP_TRY(status);
    const char *name;
    json_object_foreach(measures, name, value) json_object_set(model_json, name, json_object_get(value, "value"));
    json_object_set_new(model_json, "measures", measures);
    return SP_OK;
}

static sp_status add_maps(json_t *model_json, const study *s, sp_model *model) {
    enum { MAPS = 6 };
    char *text;
    json_t *maps;
    SP_TRY(sp_measure_maps(model, s->tokenizer, s->settings.prompt, MAPS, &text));
    sp_status status = sp_json_parse(&maps, text, (int64_t)strlen(text), "maps");
    free(text);
    if (status == SP_OK) json_object_set_new(model_json, "maps", maps);
    return status;
}

static sp_status describe(json_t *root, const study *s, sp_model *model, const char *folder,
                          const sp_train_result *trained) {
    enum { CURVE_POINTS = 500 };
    const sp_model_config *config = sp_model_config_of(model);
    json_object_set_new(root, "attention_function", json_string(sp_normalizer_name(config->attention_function)));
    json_object_set_new(root, "validation_loss", sp_json_number(trained->validation_loss));
    json_object_set_new(root, "validation_targets", json_integer(trained->validation_targets));
    json_object_set_new(root, "perplexity", sp_json_number(exp(trained->validation_loss)));
    json_object_set_new(root, "train_loss", sp_json_number(trained->final_loss));
    json_object_set_new(root, "steps", json_integer(trained->n_steps));
    json_object_set_new(root, "tokens", json_integer(trained->n_tokens));
    json_object_set_new(root, "skipped_steps", json_integer(trained->n_skipped));
    json_object_set_new(root, "seconds", sp_json_number(trained->seconds));
    json_object_set_new(root, "tokens_per_second", sp_json_number(trained->tokens_per_second));
    SP_TRY(add_measures(root, s, model));
    json_t *curve;
    SP_TRY(study_curve(&curve, folder, CURVE_POINTS));
    json_object_set_new(root, "curve", curve);
    json_t *trace;
    SP_TRY(study_trace_read(&trace, folder));
    if (trace) json_object_set_new(root, "checkpoints", trace);
    SP_TRY(add_maps(root, s, model));
    SP_TRY(study_add_evaluation(root, s, model, sp_normalizer_name(config->attention_function)));
    json_t *samples = json_array();
    json_object_set_new(root, "samples", samples);
    SP_TRY(add_sample(samples, s, model, ""));
    SP_TRY(add_sample(samples, s, model, s->settings.prompt));
    char *newest;
    SP_TRY(sp_checkpoint_newest(folder, &newest));
    if (newest) json_object_set_new(root, "checkpoint", json_string(newest + strlen(s->out) + 1));
    free(newest);
    return SP_OK;
}

sp_status study_run_model(study *s, sp_normalizer attention) {
    const char *name = sp_normalizer_name(attention);
    char folder[4096], path[4096];
    SP_TRY(sp_path_join(folder, sizeof folder, s->out, name));
    SP_TRY(sp_path_join(path, sizeof path, folder, "result.json"));
    json_t *root = NULL;
    if (sp_file_exists(path)) {
        SP_TRY(sp_json_read(&root, path));
        json_object_set_new(s->models, name, root);
        return SP_OK;
    }
    sp_model *model;
    SP_TRY(new_model(&model, s, attention));
    sp_train_result result;
    training_watch watch = {.s = s, .model = model, .name = name, .folder = folder};
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(train_model(&watch, &result));
    SP_REQUIRE_OR_DONE(!result.stopped_early, SP_CANCELLED,
                       "stopped at step %" PRId64 " of %s; the same command goes on from there", result.n_steps, name);
    root = json_object();
    SP_TRY_OR_DONE(describe(root, s, model, folder, &result));
    SP_TRY_OR_DONE(sp_json_write(path, root));
    json_object_set(s->models, name, root);
done:
    json_decref(root);
    sp_model_free(model);
    return status;
}
