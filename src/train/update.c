/* One update of a model: global-norm clipping and AdamW over the flat arrays of values and gradients. */
#include "train/update.h"

#include <math.h>
#include <stdlib.h>

#include "base/memory.h"
#include "model/model_device.h"

sp_status sp_optimizer_new(sp_optimizer **out, sp_model *model, const sp_train_options *options) {
    *out = NULL;
    SP_REQUIRE(sp_model_gradients(model), SP_BAD_ARGUMENT, "the model was not made for training");
    int64_t n_bytes = sp_model_n_parameters(model) * (int64_t)sizeof(float);
    sp_device *device = sp_model_device_of(model);
    sp_optimizer *optimizer = NULL;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_allocate((void **)&optimizer, sizeof *optimizer, "the optimizer"));
    optimizer->model = model;
    SP_TRY_OR_DONE(sp_device_allocate(device, (void **)&optimizer->m, n_bytes, "the optimizer's means"));
    SP_TRY_OR_DONE(sp_device_allocate(device, (void **)&optimizer->v, n_bytes, "the optimizer's squares"));
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
    sp_device *device = sp_model_device_of(optimizer->model);
    sp_device_release(device, optimizer->v);
    sp_device_release(device, optimizer->m);
    free(optimizer);
}

sp_status sp_optimizer_step(sp_optimizer *optimizer, double learning_rate, double *gradient_norm, bool *updated) {
    sp_model *model = optimizer->model;
    sp_device *device = sp_model_device_of(model);
    const sp_layers *layers = sp_layers_on_id(device->id);
    int64_t n = sp_model_n_parameters(model);
    const float *gradient = sp_model_gradients(model);
    double longest = optimizer->clip_norm;
    *updated = false;
    SP_TRY(layers->norm(device, gradient_norm, gradient, n));
    if (!isfinite(*gradient_norm)) return SP_OK;
    float scale = longest > 0 && *gradient_norm > longest ? (float)(longest / *gradient_norm) : 1;
    optimizer->adamw.learning_rate = learning_rate;
    optimizer->adamw.step++;
    SP_TRY(layers->adamw_step(device, sp_model_parameters(model), sp_model_halves(model), gradient, optimizer->m,
                              optimizer->v, n, scale, &optimizer->adamw));
    *updated = true;
    return SP_OK;
}
