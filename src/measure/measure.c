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
    return (sp_measure_options){
        .struct_bytes = sizeof(sp_measure_options), .n_samples = DEFAULT_SAMPLES, .packing = SP_PACKING_BOS};
}

/* Fills in T, or names what is wrong. */
static sp_status check_options(sp_measure_options *options, const sp_model_config *config) {
    SP_REQUIRE(options->struct_bytes == sizeof *options, SP_BAD_ARGUMENT,
               "measure options of %zu bytes: begin with sp_measure_options_default()", options->struct_bytes);
    if (options->T == 0) options->T = config->max_positions < DEFAULT_T ? config->max_positions : DEFAULT_T;
    SP_REQUIRE(options->T >= 2 && options->T <= config->max_positions, SP_BAD_ARGUMENT,
               "T is %" PRId64 ": the model takes sequences of 2 to %" PRId64 " tokens", options->T,
               config->max_positions);
    SP_REQUIRE(options->n_samples >= 1, SP_BAD_ARGUMENT, "n_samples is %" PRId64 ": at least 1 is needed",
               options->n_samples);
    SP_REQUIRE(options->packing != SP_PACKING_BOS || config->bos >= 0, SP_BAD_ARGUMENT,
               "packing bos: the model's configuration names no BOS token");
    return SP_OK;
}

static sp_status open_validation(sp_shards **shards, const char *folder, const sp_model_config *config) {
    SP_TRY(sp_shards_open(shards, folder, "validation"));
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

/* One pass over up to options->n_samples samples; *n_done, 0 before: how many are done. */
static sp_status observe_samples(sp_model *model, const sp_shards *shards, const sp_measure_options *options,
                                 const sp_observer *observer, const char *what, int64_t *n_done) {
    sp_loader_options cut = sp_loader_options_default();
    int64_t B = BATCH_TOKENS / options->T;
    cut.B = B < 1 ? 1 : B < options->n_samples ? B : options->n_samples;
    cut.T = options->T;
    cut.packing = options->packing;
    cut.bos = sp_model_config_of(model)->bos;
    cut.in_order = true;
    sp_loader *loader;
    SP_TRY(sp_loader_new(&loader, shards, &cut));
    sp_status status = SP_OK;
    int64_t total = sp_loader_n_sequences(loader);
    if (total > options->n_samples) total = options->n_samples;
    for (int64_t step = 0; *n_done < total; step++) {
        sp_batch batch;
        SP_TRY_OR_DONE(sp_loader_batch(loader, step, &batch));
        if (batch.B == 0) break;
        batch = first_sequences(&batch, total - *n_done);
        SP_TRY_OR_DONE(sp_model_observe(model, &batch, observer));
        *n_done += batch.B;
        bool cancelled = options->progress && options->progress(options->progress_user, what, *n_done, total);
        SP_REQUIRE_OR_DONE(!cancelled, SP_CANCELLED, "measuring was cancelled");
    }
done:
    sp_loader_free(loader);
    return status;
}

/* The same samples with the other kind of first token; not for packed documents, which each begin with their own. */
static sp_status observe_variant(sp_model *model, const sp_shards *shards, const sp_measure_options *options,
                                 sp_measures *measures) {
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

sp_status sp_measure(sp_model *model, const char *shards_folder, const sp_measure_options *options, char **json) {
    *json = NULL;
    const sp_model_config *config = sp_model_config_of(model);
    sp_measure_options chosen = options ? *options : sp_measure_options_default();
    SP_TRY(check_options(&chosen, config));

    sp_shards *shards = NULL;
    sp_measures measures = {0};
    json_t *result = NULL;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(open_validation(&shards, shards_folder, config));
    SP_TRY_OR_DONE(sp_measures_open(&measures, config, chosen.T, sp_model_dtype(model)));
    sp_observer observer = sp_measures_observer(&measures);
    SP_TRY_OR_DONE(observe_samples(model, shards, &chosen, &observer, "measure", &measures.n_samples));
    SP_TRY_OR_DONE(observe_variant(model, shards, &chosen, &measures));
    SP_TRY_OR_DONE(sp_measures_finish(&measures, &result));
    status = sp_json_format(json, result, 0);
done:
    json_decref(result);
    sp_measures_close(&measures);
    sp_shards_close(shards);
    return status;
}
