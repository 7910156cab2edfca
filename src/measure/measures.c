/* The sums of a run, and the observers that fill them. */
#include "measure/measures.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

enum { SHORTEST_LENGTH = 16 };

/* 16, 32, 64, ... below T, and T: a sink rate means little without its length. */
static void default_lengths(sp_measures *measures) {
    for (int64_t length = SHORTEST_LENGTH; length < measures->T; length *= 2)
        measures->lengths[measures->n_lengths++] = length;
    measures->lengths[measures->n_lengths++] = measures->T;
}

static sp_status open_attention(sp_measures *measures, const sp_model_config *config) {
    int64_t n = measures->L * measures->H, bytes = n * (int64_t)sizeof *measures->heads;
    SP_TRY(sp_allocate((void **)&measures->heads, bytes, "measures"));
    SP_TRY(sp_allocate((void **)&measures->by_length, n * measures->n_lengths * (int64_t)sizeof *measures->by_length,
                       "measures"));
    if (measures->needs & SP_NEEDS_VARIANT) SP_TRY(sp_allocate((void **)&measures->variant_heads, bytes, "measures"));
    if (measures->needs & SP_NEEDS_MAPS) SP_TRY(sp_map_sums_open(&measures->maps, config, measures->T));
    return SP_OK;
}

sp_status sp_measures_open(sp_measures *measures, const sp_model_config *config, sp_dtype dtype,
                           const sp_measure_options *options) {
    *measures = (sp_measures){.L = config->n_layers, .H = config->n_heads, .T = options->T, .dtype = dtype};
    SP_TRY(sp_measures_choose(options->measures, &measures->chosen));
    measures->needs = sp_measures_needs(measures->chosen);
    measures->n_lengths = options->n_lengths;
    for (int64_t i = 0; i < options->n_lengths; i++) measures->lengths[i] = options->lengths[i];
    if (measures->n_lengths == 0) default_lengths(measures);
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(open_attention(measures, config));
    if (measures->needs & SP_NEEDS_STREAM)
        SP_TRY_OR_DONE(sp_hidden_sums_open(&measures->hidden, measures->L, config->width));
done:
    if (status != SP_OK) sp_measures_close(measures);
    return status;
}

void sp_measures_close(sp_measures *measures) {
    free(measures->heads);
    free(measures->by_length);
    free(measures->variant_heads);
    sp_map_sums_close(&measures->maps);
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

/* Sequences shorter than this say nothing of single keys. */
static int64_t length_min(const sp_measures *measures) {
    return measures->T < SP_SINK_LENGTH_MIN ? measures->T : SP_SINK_LENGTH_MIN;
}

static sp_status check_attention(const sp_measures *measures, int64_t layer, const sp_attention *problem) {
    SP_REQUIRE(layer >= 0 && layer < measures->L && problem->q.shape[2] == measures->H, SP_INTERNAL,
               "an attention problem of layer %" PRId64 " with %" PRId64 " heads does not fit %" PRId64
               " layers of %" PRId64 " heads",
               layer, problem->q.shape[2], measures->L, measures->H);
    return SP_OK;
}

static sp_status on_attention(void *user, int64_t layer, const sp_attention *problem) {
    sp_measures *measures = user;
    SP_TRY(check_attention(measures, layer, problem));
    int64_t first = layer * measures->H, n = measures->n_lengths;
    sp_sink_lengths lengths = {n, measures->lengths, measures->by_length + first * n};
    if (measures->needs & SP_NEEDS_ROWS)
        SP_TRY(sp_head_sums_add(measures->heads + first, &lengths, problem, length_min(measures)));
    if (measures->needs & SP_NEEDS_MAPS) SP_TRY(sp_map_sums_add(&measures->maps, layer, problem, length_min(measures)));
    return SP_OK;
}

static sp_status on_variant_attention(void *user, int64_t layer, const sp_attention *problem) {
    const sp_measures *measures = user;
    SP_TRY(check_attention(measures, layer, problem));
    return sp_head_sums_add(measures->variant_heads + layer * measures->H, NULL, problem, length_min(measures));
}

sp_observer sp_measures_observer(sp_measures *measures) {
    bool rows = measures->needs & (SP_NEEDS_ROWS | SP_NEEDS_MAPS), stream = measures->needs & SP_NEEDS_STREAM;
    return (sp_observer){
        .user = measures, .hidden = stream ? on_hidden : NULL, .attention = rows ? on_attention : NULL};
}

sp_observer sp_measures_variant_observer(sp_measures *measures) {
    return (sp_observer){.user = measures, .attention = on_variant_attention};
}
