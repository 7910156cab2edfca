/* Loss over the held-out text: always the same sequences, in order, so that runs can be compared. */
#include "train/validate.h"

#include "base/status.h"

sp_status sp_train_loader_new(sp_loader **out, const sp_shards *shards, const sp_model *model,
                              const sp_train_options *options, bool in_order) {
    *out = NULL;
    const sp_model_config *config = sp_model_config_of(model);
    int64_t vocabulary = sp_shards_vocabulary(shards);
    SP_REQUIRE(vocabulary <= config->vocabulary, SP_BAD_ARGUMENT,
               "the text has a vocabulary of %lld, the model one of %lld", (long long)vocabulary,
               (long long)config->vocabulary);
    SP_REQUIRE(options->T <= config->max_positions, SP_BAD_ARGUMENT,
               "length: %lld tokens, the model has %lld positions", (long long)options->T,
               (long long)config->max_positions);
    SP_REQUIRE(options->packing != SP_PACKING_BOS || config->bos >= 0, SP_BAD_ARGUMENT,
               "packing: bos needs a model with a BOS token");
    sp_loader_options loader = sp_loader_options_default();
    loader.B = options->B;
    loader.T = options->T;
    loader.packing = options->packing;
    loader.bos = config->bos;
    loader.seed = options->seed;
    loader.in_order = in_order;
    return sp_loader_new(out, shards, &loader);
}

sp_status sp_train_validate(sp_model *model, sp_loader *loader, int64_t n_tokens_max, double *loss,
                            int64_t *n_targets) {
    double sum = 0;
    int64_t n = 0, n_tokens = 0;
    for (int64_t step = 0; n_tokens_max == 0 || n_tokens < n_tokens_max; step++) {
        sp_batch batch;
        SP_TRY(sp_loader_batch(loader, step, &batch));
        if (batch.B == 0) break;
        double batch_sum = 0;
        int64_t batch_targets = 0;
        SP_TRY(sp_model_loss(model, &batch, &batch_sum, &batch_targets));
        sum += batch_sum;
        n += batch_targets;
        n_tokens += batch.B * batch.T;
    }
    *loss = sum / (double)n;
    *n_targets = n;
    return SP_OK;
}

sp_status sp_validate(sp_model *model, const char *shards_folder, int64_t B, int64_t T, sp_packing packing,
                      int64_t n_tokens_max, double *loss, int64_t *n_targets) {
    sp_train_options options = sp_train_options_default();
    options.B = B;
    options.T = T;
    options.packing = packing;
    options.validation_tokens_max = n_tokens_max;
    SP_TRY(sp_train_options_check(&options));
    sp_shards *shards = NULL;
    sp_loader *loader = NULL;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_shards_open(&shards, shards_folder, "validation"));
    SP_TRY_OR_DONE(sp_train_loader_new(&loader, shards, model, &options, true));
    SP_TRY_OR_DONE(sp_train_validate(model, loader, n_tokens_max, loss, n_targets));
done:
    sp_loader_free(loader);
    sp_shards_close(shards);
    return status;
}
