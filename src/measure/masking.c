/* Masking of heads by their columns of the output projections, and the losses that follow. */
#include "measure/masking.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"
#include "device/device.h"

/* ---- the mask ---------------------------------------------------------------------------------------------------- */

struct sp_head_mask {
    sp_model *model;
    sp_device *device;
    int64_t L, H, D, C;
    sp_tensor *weights; /* (L): output projections (C,H*D) in the model */
    float *whole;       /* (L,C,H*D): as they were */
    float *cut;         /* (C,H*D) */
    bool *is_cut;       /* (L): the model's is not as it was */
};

static sp_status find_weight(sp_tensor *out, sp_model *model, int64_t layer) {
    char name[96];
    snprintf(name, sizeof name, "model.layers.%" PRId64 ".self_attn.o_proj.weight", layer);
    for (int64_t i = 0; i < sp_model_n_tensors(model); i++)
        if (strcmp(sp_model_tensor_name(model, i), name) == 0) {
            *out = sp_model_tensor(model, i);
            return SP_OK;
        }
    return sp_fail(SP_INTERNAL, "the model has no tensor %s", name);
}

static int64_t layer_numbers(const sp_head_mask *mask) { return mask->C * mask->H * mask->D; }

static sp_status read_weights(sp_head_mask *mask) {
    int64_t n = layer_numbers(mask), bytes = n * (int64_t)sizeof(float);
    SP_TRY(sp_model_wait(mask->model));
    SP_TRY(sp_device_open(&mask->device, sp_model_device(mask->model)));
    SP_TRY(sp_allocate((void **)&mask->weights, mask->L * (int64_t)sizeof *mask->weights, "a mask of heads"));
    SP_TRY(sp_allocate((void **)&mask->whole, mask->L * bytes, "a mask of heads"));
    SP_TRY(sp_allocate((void **)&mask->cut, bytes, "a mask of heads"));
    SP_TRY(sp_allocate((void **)&mask->is_cut, mask->L * (int64_t)sizeof *mask->is_cut, "a mask of heads"));
    for (int64_t l = 0; l < mask->L; l++) {
        SP_TRY(find_weight(&mask->weights[l], mask->model, l));
        SP_TRY(sp_device_download(mask->device, mask->whole + l * n, mask->weights[l].data, bytes));
    }
    return SP_OK;
}

sp_status sp_head_mask_new(sp_head_mask **out, sp_model *model) {
    const sp_model_config *config = sp_model_config_of(model);
    *out = NULL;
    sp_head_mask *mask;
    SP_TRY(sp_allocate((void **)&mask, sizeof *mask, "a mask of heads"));
    *mask = (sp_head_mask){
        .model = model, .L = config->n_layers, .H = config->n_heads, .D = config->head_width, .C = config->width};
    sp_status status = read_weights(mask);
    if (status == SP_OK)
        *out = mask;
    else
        sp_head_mask_free(mask);
    return status;
}

void sp_head_mask_free(sp_head_mask *mask) {
    if (!mask) return;
    free(mask->weights);
    free(mask->whole);
    free(mask->cut);
    free(mask->is_cut);
    if (mask->device) sp_device_close(mask->device);
    free(mask);
}

/* masked (H) */
static void cut_columns(const sp_head_mask *mask, const bool *masked) {
    for (int64_t c = 0; c < mask->C; c++)
        for (int64_t h = 0; h < mask->H; h++)
            if (masked[h]) memset(mask->cut + (c * mask->H + h) * mask->D, 0, (size_t)mask->D * sizeof *mask->cut);
}

static bool any_head(const bool *masked, int64_t H) {
    for (int64_t h = 0; masked && h < H; h++)
        if (masked[h]) return true;
    return false;
}

static sp_status set_layer(sp_head_mask *mask, int64_t l, const bool *masked) {
    int64_t n = layer_numbers(mask), bytes = n * (int64_t)sizeof(float);
    bool cuts = any_head(masked, mask->H);
    if (!cuts && !mask->is_cut[l]) return SP_OK;
    memcpy(mask->cut, mask->whole + l * n, (size_t)bytes);
    if (cuts) cut_columns(mask, masked);
    mask->is_cut[l] = cuts;
    SP_TRY(sp_device_upload(mask->device, mask->weights[l].data, mask->cut, bytes));
    return sp_device_wait(mask->device);
}

sp_status sp_head_mask_set(sp_head_mask *mask, const bool *masked) {
    SP_TRY(sp_model_wait(mask->model));
    for (int64_t l = 0; l < mask->L; l++) SP_TRY(set_layer(mask, l, masked ? masked + l * mask->H : NULL));
    return sp_model_refresh(mask->model);
}

/* ---- losses ------------------------------------------------------------------------------------------------------ */

typedef struct masking_run {
    sp_head_mask *mask;
    int64_t n; /* L*H */
    bool *dead, *masked;
    int64_t *others; /* heads that are not dead */
    sp_masking_loss loss;
    void *user;
} masking_run;

static sp_status mean_loss(const masking_run *run, const bool *masked, double *mean, int64_t *n_targets) {
    double sum;
    SP_TRY(sp_head_mask_set(run->mask, masked));
    SP_TRY(run->loss(run->user, &sum, n_targets));
    *mean = *n_targets ? sum / (double)*n_targets : NAN;
    return SP_OK;
}

/* Masks n of the others, drawn without replacement: the draws are the same for every model of that many heads. */
static void draw_heads(const masking_run *run, int64_t n_others, int64_t n, int64_t draw) {
    memset(run->masked, 0, (size_t)run->n * sizeof *run->masked);
    for (int64_t i = 0; i < n; i++) {
        uint64_t at = sp_random_permuted(1, (uint64_t)draw, (uint64_t)i, (uint64_t)n_others);
        run->masked[run->others[at]] = true;
    }
}

static sp_status run_controls(const masking_run *run, sp_masking_row *row, int64_t n_others) {
    int64_t n_targets;
    if (row->n_masked == 0 || n_others == 0) return SP_OK;
    row->n_control_heads = row->n_masked < n_others ? row->n_masked : n_others;
    int64_t n_draws = n_others > row->n_control_heads ? SP_MASKING_CONTROLS : 1; /* all of them: one way to draw */
    for (int64_t i = 0; i < n_draws; i++) {
        draw_heads(run, n_others, row->n_control_heads, i);
        SP_TRY(mean_loss(run, run->masked, &row->controls[i], &n_targets));
        row->n_controls++;
    }
    return SP_OK;
}

static sp_status run_threshold(const masking_run *run, sp_masking *out, const sp_head_sums *heads, int i) {
    sp_masking_row *row = &out->rows[i];
    int64_t n_others = 0, n_targets;
    for (int64_t h = 0; h < run->n; h++) {
        run->dead[h] = (double)heads[h].n_near_zero[i] > SP_SILENT_SHARE * (double)heads[h].n_queries;
        row->n_masked += run->dead[h];
        if (!run->dead[h]) run->others[n_others++] = h;
    }
    row->loss = out->loss;
    if (row->n_masked == 0) return SP_OK;
    SP_TRY(mean_loss(run, run->dead, &row->loss, &n_targets));
    return run_controls(run, row, n_others);
}

sp_status sp_masking_run(sp_masking *out, sp_model *model, const sp_head_sums *heads, sp_masking_loss loss,
                         void *user) {
    const sp_model_config *config = sp_model_config_of(model);
    *out = (sp_masking){0};
    masking_run run = {.n = config->n_layers * config->n_heads, .loss = loss, .user = user};
    sp_status status = SP_OK, unmasked = SP_OK;
    SP_TRY_OR_DONE(sp_allocate((void **)&run.dead, run.n * (int64_t)sizeof *run.dead, "a mask of heads"));
    SP_TRY_OR_DONE(sp_allocate((void **)&run.masked, run.n * (int64_t)sizeof *run.masked, "a mask of heads"));
    SP_TRY_OR_DONE(sp_allocate((void **)&run.others, run.n * (int64_t)sizeof *run.others, "a mask of heads"));
    SP_TRY_OR_DONE(sp_head_mask_new(&run.mask, model));
    SP_TRY_OR_DONE(mean_loss(&run, NULL, &out->loss, &out->n_targets));
    for (int i = 0; i < SP_NEAR_ZEROS; i++) SP_TRY_OR_DONE(run_threshold(&run, out, heads, i));
done:
    if (run.mask) unmasked = sp_head_mask_set(run.mask, NULL);
    sp_head_mask_free(run.mask);
    free(run.dead);
    free(run.masked);
    free(run.others);
    return status != SP_OK ? status : unmasked;
}
