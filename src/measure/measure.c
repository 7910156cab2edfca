/* A measuring run: samples of the validation split through the model's observers, in the order of the text.
 *
 * Samples are whole sequences of T tokens, so there is no padding anywhere.  Attention to the first token depends on
 * whether BOS stands there: a run on sequences that begin with BOS is followed by one on the plain text, and the other
 * way round. */
#include "measure/measures.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/json.h"
#include "softpick/text.h"

enum { DEFAULT_T = 512, DEFAULT_SAMPLES = 32, BATCH_TOKENS = 2048 };

sp_measure_options sp_measure_options_default(void) {
    return (sp_measure_options){.struct_bytes = sizeof(sp_measure_options),
                                .n_samples = DEFAULT_SAMPLES,
                                .packing = SP_PACKING_BOS,
                                .split = "validation"};
}

static sp_status check_lengths(const sp_measure_options *options) {
    SP_REQUIRE(options->n_lengths >= 0 && options->n_lengths <= SP_LENGTHS_MAX, SP_BAD_ARGUMENT,
               "%" PRId64 " lengths: at most %d are told apart", options->n_lengths, SP_LENGTHS_MAX);
    for (int64_t i = 0, before = 1; i < options->n_lengths; before = options->lengths[i++]) {
        SP_REQUIRE(options->lengths[i] > before, SP_BAD_ARGUMENT,
                   "length %" PRId64 " follows %" PRId64 ": lengths rise from at least 2", options->lengths[i], before);
        SP_REQUIRE(options->lengths[i] <= options->T, SP_BAD_ARGUMENT,
                   "length %" PRId64 " is more than the %" PRId64 " tokens of a sample", options->lengths[i],
                   options->T);
    }
    return SP_OK;
}

static int64_t default_T(const sp_measure_options *options, const sp_model_config *config) {
    if (options->n_lengths > 0) return options->lengths[options->n_lengths - 1];
    return config->max_positions < DEFAULT_T ? config->max_positions : DEFAULT_T;
}

/* Fills in T, or names what is wrong. */
static sp_status check_options(sp_measure_options *options, const sp_model_config *config) {
    SP_REQUIRE(options->struct_bytes == sizeof *options, SP_BAD_ARGUMENT,
               "measure options of %zu bytes: begin with sp_measure_options_default()", options->struct_bytes);
    if (options->T == 0) options->T = default_T(options, config);
    SP_REQUIRE(options->T >= 2 && options->T <= config->max_positions, SP_BAD_ARGUMENT,
               "T is %" PRId64 ": the model takes sequences of 2 to %" PRId64 " tokens", options->T,
               config->max_positions);
    SP_TRY(check_lengths(options));
    SP_REQUIRE(options->n_samples >= 1, SP_BAD_ARGUMENT, "n_samples is %" PRId64 ": at least 1 is needed",
               options->n_samples);
    SP_REQUIRE(options->packing != SP_PACKING_BOS || config->bos >= 0, SP_BAD_ARGUMENT,
               "packing bos: the model's configuration names no BOS token");
    return SP_OK;
}

static sp_status open_split(sp_shards **shards, const char *folder, const char *split, const sp_model_config *config) {
    SP_TRY(sp_shards_open(shards, folder, split));
    int64_t V = sp_shards_vocabulary(*shards);
    if (V <= config->vocabulary) return SP_OK;
    sp_shards_close(*shards);
    *shards = NULL;
    return sp_fail(SP_BAD_FILE, "%s: its vocabulary of %" PRId64 " tokens is larger than the model's %" PRId64, folder,
                   V, config->vocabulary);
}

/* The first n sequences of a batch. */
static sp_batch first_sequences(const sp_batch *batch, int64_t n) {
    sp_batch part = *batch;
    if (n >= batch->B) return part;
    part.B = n;
    while (part.cu && part.cu[part.n_sequences] > n * part.T) part.n_sequences--;
    return part;
}

/* One pass over samples: each batch goes to the function. */
typedef struct sample_pass {
    sp_model *model;
    const sp_shards *shards;
    const sp_measure_options *options;
    const char *what; /* in the progress */
    sp_status (*batch)(struct sample_pass *pass, const sp_batch *batch);
    void *user;
} sample_pass;

/* Up to options->n_samples samples; *n_done, 0 before: how many are done. */
static sp_status pass_samples(sample_pass *pass, int64_t *n_done) {
    const sp_measure_options *options = pass->options;
    sp_loader_options cut = sp_loader_options_default();
    int64_t B = BATCH_TOKENS / options->T;
    cut.B = B < 1 ? 1 : B < options->n_samples ? B : options->n_samples;
    cut.T = options->T;
    cut.packing = options->packing;
    cut.bos = sp_model_config_of(pass->model)->bos;
    cut.in_order = true;
    sp_loader *loader;
    SP_TRY(sp_loader_new(&loader, pass->shards, &cut));
    sp_status status = SP_OK;
    int64_t total = sp_loader_n_sequences(loader);
    if (total > options->n_samples) total = options->n_samples;
    for (int64_t step = 0; *n_done < total; step++) {
        sp_batch batch;
        SP_TRY_OR_DONE(sp_loader_batch(loader, step, &batch));
        if (batch.B == 0) break;
        batch = first_sequences(&batch, total - *n_done);
        SP_TRY_OR_DONE(pass->batch(pass, &batch));
        *n_done += batch.B;
        bool cancelled = options->progress && options->progress(options->progress_user, pass->what, *n_done, total);
        SP_REQUIRE_OR_DONE(!cancelled, SP_CANCELLED, "measuring was cancelled");
    }
done:
    sp_loader_free(loader);
    return status;
}

static sp_status observe_batch(sample_pass *pass, const sp_batch *batch) {
    return sp_model_observe(pass->model, batch, pass->user);
}

static sp_status observe_samples(sp_model *model, const sp_shards *shards, const sp_measure_options *options,
                                 sp_observer *observer, const char *what, int64_t *n_done) {
    sample_pass pass = {model, shards, options, what, observe_batch, observer};
    return pass_samples(&pass, n_done);
}

/* The same samples with the other kind of first token; not for packed documents, which each begin with their own. */
static sp_status observe_variant(sp_model *model, const sp_shards *shards, const sp_measure_options *options,
                                 sp_measures *measures) {
    if (!(measures->needs & SP_NEEDS_VARIANT)) return SP_OK;
    if (sp_shards_n_tokens(shards) <= options->T) return SP_OK; /* T tokens and one to follow: what both ways need */
    sp_measure_options other = *options;
    if (options->packing == SP_PACKING_BOS) {
        other.packing = SP_PACKING_CONCATENATE;
        measures->variant = "without_bos";
    } else if (options->packing == SP_PACKING_CONCATENATE && sp_model_config_of(model)->bos >= 0) {
        other.packing = SP_PACKING_BOS;
        measures->variant = "with_bos";
    } else {
        return SP_OK;
    }
    sp_observer observer = sp_measures_variant_observer(measures);
    int64_t n_done = 0;
    return observe_samples(model, shards, &other, &observer, "measure first tokens", &n_done);
}

/* ---- losses with heads masked ---- */

typedef struct loss_sum {
    double sum;
    int64_t n_targets;
} loss_sum;

static sp_status add_loss(sample_pass *pass, const sp_batch *batch) {
    loss_sum *all = pass->user;
    double sum;
    int64_t n_targets;
    SP_TRY(sp_model_loss(pass->model, batch, &sum, &n_targets));
    all->sum += sum;
    all->n_targets += n_targets;
    return SP_OK;
}

static sp_status loss_of_samples(void *user, double *sum, int64_t *n_targets) {
    sample_pass pass = *(const sample_pass *)user;
    loss_sum all = {0};
    int64_t n_done = 0;
    pass.user = &all;
    SP_TRY(pass_samples(&pass, &n_done));
    *sum = all.sum;
    *n_targets = all.n_targets;
    return SP_OK;
}

static sp_status measure_masking(sp_model *model, const sp_shards *shards, const sp_measure_options *options,
                                 sp_measures *measures) {
    if (!(measures->needs & SP_NEEDS_MASKING)) return SP_OK;
    sample_pass pass = {model, shards, options, "measure with heads masked", add_loss, NULL};
    return sp_masking_run(&measures->masking, model, measures->heads, loss_of_samples, &pass);
}

sp_status sp_measure_check_list(const char *measures) {
    uint64_t chosen;
    return sp_measures_choose(measures, &chosen);
}

sp_status sp_measure(sp_model *model, const char *shards_folder, const sp_measure_options *options, char **json) {
    *json = NULL;
    const sp_model_config *config = sp_model_config_of(model);
    sp_measure_options chosen = options ? *options : sp_measure_options_default();
    SP_TRY(check_options(&chosen, config));

    sp_shards *shards = NULL;
    sp_measures measures = {0};
    json_t *result = NULL;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_measures_open(&measures, config, sp_model_dtype(model), &chosen));
    SP_TRY_OR_DONE(open_split(&shards, shards_folder, chosen.split, config));
    sp_observer observer = sp_measures_observer(&measures);
    SP_TRY_OR_DONE(observe_samples(model, shards, &chosen, &observer, "measure", &measures.n_samples));
    SP_TRY_OR_DONE(observe_variant(model, shards, &chosen, &measures));
    SP_TRY_OR_DONE(measure_masking(model, shards, &chosen, &measures));
    SP_TRY_OR_DONE(sp_measures_finish(&measures, &result));
    status = sp_json_format(json, result, 0);
done:
    json_decref(result);
    sp_measures_close(&measures);
    sp_shards_close(shards);
    return status;
}
