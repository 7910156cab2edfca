/* The sums of a run, and the observers that fill them. */
#include "measure/measures.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/memory.h"

sp_status sp_measures_open(sp_measures *measures, const sp_model_config *config, int64_t T, sp_dtype dtype) {
    int64_t L = config->n_layers, H = config->n_heads;
    *measures = (sp_measures){.L = L, .H = H, .T = T, .dtype = dtype};
    int64_t bytes = L * H * (int64_t)sizeof *measures->heads;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_allocate((void **)&measures->heads, bytes, "measures"));
    SP_TRY_OR_DONE(sp_allocate((void **)&measures->variant_heads, bytes, "measures"));
    SP_TRY_OR_DONE(sp_hidden_sums_open(&measures->hidden, L, config->width));
done:
    if (status != SP_OK) sp_measures_close(measures);
    return status;
}

void sp_measures_close(sp_measures *measures) {
    free(measures->heads);
    free(measures->variant_heads);
    sp_hidden_sums_close(&measures->hidden);
    *measures = (sp_measures){0};
}

/* x (n_tokens,C): one sample of T tokens after another. */
static sp_status on_hidden(void *user, int64_t layer, const float *x, int64_t n_tokens, int64_t C) {
    sp_measures *measures = user;
    SP_REQUIRE(n_tokens % measures->T == 0 && C == measures->hidden.C && layer >= 0 && layer <= measures->L + 1,
               SP_INTERNAL,
               "a hidden state of layer %" PRId64 " with %" PRId64 " tokens, %" PRId64
               " channels does not fit samples of %" PRId64 " tokens, %" PRId64 " channels",
               layer, n_tokens, C, measures->T, measures->hidden.C);
    for (int64_t i = 0; i < n_tokens / measures->T; i++)
        sp_hidden_sums_add(&measures->hidden, layer, measures->n_samples + i, x + i * measures->T * C, measures->T);
    return SP_OK;
}

static sp_status add_attention(const sp_measures *measures, sp_head_sums *heads, int64_t layer,
                               const sp_attention *problem) {
    SP_REQUIRE(layer >= 0 && layer < measures->L && problem->q.shape[2] == measures->H, SP_INTERNAL,
               "an attention problem of layer %" PRId64 " with %" PRId64 " heads does not fit %" PRId64
               " layers of %" PRId64 " heads",
               layer, problem->q.shape[2], measures->L, measures->H);
    int64_t length_min = measures->T < SP_SINK_LENGTH_MIN ? measures->T : SP_SINK_LENGTH_MIN;
    return sp_head_sums_add(heads + layer * measures->H, problem, length_min);
}

static sp_status on_attention(void *user, int64_t layer, const sp_attention *problem) {
    const sp_measures *measures = user;
    return add_attention(measures, measures->heads, layer, problem);
}

static sp_status on_variant_attention(void *user, int64_t layer, const sp_attention *problem) {
    const sp_measures *measures = user;
    return add_attention(measures, measures->variant_heads, layer, problem);
}

sp_observer sp_measures_observer(sp_measures *measures) {
    return (sp_observer){.user = measures, .hidden = on_hidden, .attention = on_attention};
}

sp_observer sp_measures_variant_observer(sp_measures *measures) {
    return (sp_observer){.user = measures, .attention = on_variant_attention};
}
