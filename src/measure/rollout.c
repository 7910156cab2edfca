/* The product of the layers' attention, layer by layer. */
#include "measure/rollout.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

sp_status sp_rollout_open(sp_rollout *rollout, int64_t n_heads, int64_t T) {
    *rollout = (sp_rollout){.H = n_heads, .T = T};
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_allocate((void **)&rollout->weights, n_heads * T * T * (int64_t)sizeof(float), "a rollout"));
    SP_TRY_OR_DONE(sp_allocate((void **)&rollout->product, T * T * (int64_t)sizeof(double), "a rollout"));
    SP_TRY_OR_DONE(sp_allocate((void **)&rollout->before, T * T * (int64_t)sizeof(double), "a rollout"));
    for (int64_t t = 0; t < T; t++) rollout->product[t * T + t] = 1;
done:
    if (status != SP_OK) sp_rollout_close(rollout);
    return status;
}

void sp_rollout_close(sp_rollout *rollout) {
    free(rollout->weights);
    free(rollout->product);
    free(rollout->before);
    *rollout = (sp_rollout){0};
}

static void keep_row(void *user, int64_t b, int64_t h, int64_t t, const float *weights, const float *scores,
                     int64_t first, int64_t end) {
    (void)b, (void)scores, (void)first, (void)end;
    const sp_rollout *rollout = user;
    memcpy(rollout->weights + (h * rollout->T + t) * rollout->T, weights, (size_t)rollout->T * sizeof *weights);
}

/* Row t of the product: the token's own row before, and those of the tokens it attends to. */
static void multiply_row(const sp_rollout *rollout, int64_t t) {
    int64_t T = rollout->T;
    double *row = rollout->product + t * T, sum = 1;
    memcpy(row, rollout->before + t * T, (size_t)T * sizeof *row);
    for (int64_t j = 0; j < T; j++) {
        double weight = 0;
        for (int64_t h = 0; h < rollout->H; h++) weight += (double)rollout->weights[(h * T + t) * T + j];
        weight /= (double)rollout->H;
        if (weight <= 0) continue;
        sum += weight;
        for (int64_t i = 0; i < T; i++) row[i] += weight * rollout->before[j * T + i];
    }
    for (int64_t i = 0; i < T; i++) row[i] /= sum;
}

static sp_status on_attention(void *user, int64_t layer, const sp_attention *problem) {
    sp_rollout *rollout = user;
    (void)layer;
    SP_REQUIRE(problem->q.shape[0] == 1 && problem->q.shape[1] == rollout->T && problem->q.shape[2] == rollout->H,
               SP_INTERNAL, "%" PRId64 " sequences of %" PRId64 " tokens do not fit a rollout over %" PRId64 " tokens",
               problem->q.shape[0], problem->q.shape[1], rollout->T);
    SP_TRY(sp_attention_rows(problem, keep_row, rollout));
    memcpy(rollout->before, rollout->product, (size_t)(rollout->T * rollout->T) * sizeof *rollout->before);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < rollout->T; t++) multiply_row(rollout, t);
    return SP_OK;
}

sp_observer sp_rollout_observer(sp_rollout *rollout) {
    return (sp_observer){.user = rollout, .attention = on_attention};
}
