/* One update of a model: global-norm clipping and AdamW over the flat arrays of values and gradients. */
#include "train/update.h"

#include <math.h>
#include <stdlib.h>

#include "base/memory.h"

sp_status sp_optimizer_new(sp_optimizer **out, sp_model *model, const sp_train_options *options) {
    *out = NULL;
    SP_REQUIRE(sp_model_gradients(model), SP_BAD_ARGUMENT, "the model was not made for training");
    int64_t n_bytes = sp_model_n_parameters(model) * (int64_t)sizeof(float);
    sp_optimizer *optimizer = NULL;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_allocate((void **)&optimizer, sizeof *optimizer, "the optimizer"));
    SP_TRY_OR_DONE(sp_allocate((void **)&optimizer->m, n_bytes, "the optimizer's means"));
    SP_TRY_OR_DONE(sp_allocate((void **)&optimizer->v, n_bytes, "the optimizer's squares"));
    optimizer->model = model;
    optimizer->clip_norm = options->clip_norm;
    optimizer->adamw = (sp_adamw){.beta1 = options->beta1,
                                  .beta2 = options->beta2,
                                  .eps = options->adam_eps,
                                  .weight_decay = options->weight_decay};
    *out = optimizer;
    optimizer = NULL;
done:
    sp_optimizer_free(optimizer);
    return status;
}

void sp_optimizer_free(sp_optimizer *optimizer) {
    if (!optimizer) return;
    free(optimizer->v);
    free(optimizer->m);
    free(optimizer);
}

bool sp_optimizer_step(sp_optimizer *optimizer, double learning_rate, double *gradient_norm) {
    sp_model *model = optimizer->model;
    int64_t n = sp_model_n_parameters(model);
    const float *gradient = sp_model_gradients(model);
    double norm = sp_norm(gradient, n), longest = optimizer->clip_norm;
    *gradient_norm = norm;
    if (!isfinite(norm)) return false;
    float scale = longest > 0 && norm > longest ? (float)(longest / norm) : 1;
    optimizer->adamw.learning_rate = learning_rate;
    optimizer->adamw.step++;
    sp_adamw_step(sp_model_parameters(model), gradient, optimizer->m, optimizer->v, n, scale, &optimizer->adamw);
    sp_model_refresh(model);
    return true;
}
