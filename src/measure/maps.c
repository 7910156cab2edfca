/* Attention maps for pictures: one short text, first all heads are summed up, then the maps of a few are kept. */
#include "softpick/measure.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/status.h"
#include "measure/rollout.h"

enum { TOKENS_MAX = 256 };

/* ---- all heads, summed up -------------------------------------------------------------------------------------- */

typedef struct head_summary {
    int64_t n_queries, n_live; /* queries; those with a weight above 0 */
    double first_mass;         /* sum over queries of the weight on the first token */
    double n_keys; /* sum over live queries of (sum w)^2 / sum w^2: the number of keys that share the weight */
} head_summary;

typedef struct summing {
    head_summary *heads; /* (L,H) */
    int64_t H, layer;
} summing;

static void sum_row(void *user, int64_t b, int64_t h, int64_t t, const float *weights, const float *scores,
                    int64_t first, int64_t end) {
    (void)b, (void)t, (void)scores;
    const summing *all = user;
    head_summary *head = &all->heads[all->layer * all->H + h];
    double mass = 0, squares = 0;
    for (int64_t j = first; j < end; j++) {
        mass += weights[j];
        squares += (double)weights[j] * weights[j];
    }
    head->n_queries++;
    head->first_mass += weights[0];
    if (squares > 0) {
        head->n_live++;
        head->n_keys += mass * mass / squares;
    }
}

static sp_status sum_layer(void *user, int64_t layer, const sp_attention *problem) {
    ((summing *)user)->layer = layer;
    return sp_attention_rows(problem, sum_row, user);
}

/* ---- which heads are shown ------------------------------------------------------------------------------------- */

static double first_mass(const head_summary *head) { return head->first_mass / (double)head->n_queries; }
static double n_keys(const head_summary *head) { return head->n_live ? head->n_keys / (double)head->n_live : NAN; }

/* Reasons to show a head, taken in turn. */
static const struct reason {
    const char *why; /* with the value */
    double (*value)(const head_summary *head);
    int sign; /* 1: the largest, -1: the smallest */
} reasons[] = {
    {"mass on the first token: %.2f", first_mass, 1},
    {"sparse: %.1f keys share a query's weight", n_keys, -1},
    {"dense: %.1f keys share a query's weight", n_keys, 1},
};
enum { N_REASONS = sizeof reasons / sizeof *reasons };

typedef struct shown_head {
    int64_t layer, head;
    char why[64];
    float *weights; /* (T,T) */
} shown_head;

/* Best head by the reason among those not taken, -1: none.  Silent heads come last. */
static int64_t best_head(const head_summary *heads, int64_t n, const bool *taken, const struct reason *reason) {
    int64_t best = -1;
    for (int64_t i = 0; i < n; i++) {
        if (taken[i]) continue;
        bool live = heads[i].n_live > 0, best_live = best >= 0 && heads[best].n_live > 0;
        if (best < 0 || (live && !best_live) ||
            (live && reason->sign * (reason->value(&heads[i]) - reason->value(&heads[best])) > 0))
            best = i;
    }
    return best;
}

static void choose_heads(shown_head *shown, int64_t n_shown, const head_summary *heads, int64_t n, int64_t H,
                         bool *taken) {
    for (int64_t i = 0; i < n_shown; i++) {
        const struct reason *reason = &reasons[i % N_REASONS];
        int64_t best = best_head(heads, n, taken, reason);
        taken[best] = true;
        shown[i].layer = best / H;
        shown[i].head = best % H;
        if (heads[best].n_live)
            snprintf(shown[i].why, sizeof shown[i].why, reason->why, reason->value(&heads[best]));
        else
            snprintf(shown[i].why, sizeof shown[i].why, "silent on this text");
    }
}

/* ---- their maps ------------------------------------------------------------------------------------------------ */

typedef struct drawing {
    shown_head *shown;
    int64_t n_shown, layer, T;
} drawing;

static void draw_row(void *user, int64_t b, int64_t h, int64_t t, const float *weights, const float *scores,
                     int64_t first, int64_t end) {
    (void)b, (void)scores, (void)first, (void)end;
    const drawing *maps = user;
    for (int64_t i = 0; i < maps->n_shown; i++) {
        const shown_head *shown = &maps->shown[i];
        if (shown->layer == maps->layer && shown->head == h)
            memcpy(shown->weights + t * maps->T, weights, (size_t)maps->T * sizeof *weights);
    }
}

static sp_status draw_layer(void *user, int64_t layer, const sp_attention *problem) {
    drawing *maps = user;
    maps->layer = layer;
    for (int64_t i = 0; i < maps->n_shown; i++)
        if (maps->shown[i].layer == layer) return sp_attention_rows(problem, draw_row, user);
    return SP_OK;
}

/* ---- JSON ------------------------------------------------------------------------------------------------------ */

/* Four digits are enough for a picture, and keep what is exactly 0 apart from what is small. */
static json_t *short_number(double value) {
    char digits[32];
    snprintf(digits, sizeof digits, "%.4g", value);
    return sp_json_number(strtod(digits, NULL));
}

static json_t *map_json(const shown_head *shown, int64_t T) {
    json_t *map = json_object(), *rows = json_array();
    for (int64_t t = 0; t < T; t++) {
        json_t *row = json_array();
        for (int64_t j = 0; j < T; j++) json_array_append_new(row, short_number((double)shown->weights[t * T + j]));
        json_array_append_new(rows, row);
    }
    json_object_set_new(map, "layer", json_integer(shown->layer));
    json_object_set_new(map, "head", json_integer(shown->head));
    json_object_set_new(map, "why", json_string(shown->why));
    json_object_set_new(map, "weights", rows);
    return map;
}

/* Rows end with their own token. */
static json_t *rollout_json(const sp_rollout *rollout) {
    json_t *rows = json_array();
    for (int64_t t = 0; t < rollout->T; t++) {
        json_t *row = json_array();
        for (int64_t j = 0; j <= t; j++) json_array_append_new(row, short_number(rollout->product[t * rollout->T + j]));
        json_array_append_new(rows, row);
    }
    return json_pack("{s:s, s:o}", "definition",
                     "attention rollout: the product over the layers of (mean over heads of the weights + 1), each row "
                     "divided by its sum",
                     "weights", rows);
}

static sp_status format_maps(char **json, const sp_tokenizer *tokenizer, const char *text, const int32_t *tokens,
                             const shown_head *shown, int64_t n_shown, const sp_rollout *rollout) {
    int64_t T = rollout->T;
    json_t *quoted = json_string(text); /* NULL: not UTF-8 */
    SP_REQUIRE(quoted, SP_BAD_ARGUMENT, "the text for attention maps is not UTF-8");
    json_t *root = json_object(), *pieces = json_array(), *maps = json_array();
    for (int64_t t = 0; t < T; t++) {
        const char *piece = sp_tokenizer_piece(tokenizer, tokens[t]);
        json_array_append_new(pieces, json_string(piece ? piece : "?"));
    }
    for (int64_t i = 0; i < n_shown; i++) json_array_append_new(maps, map_json(&shown[i], T));
    json_object_set_new(root, "text", quoted);
    json_object_set_new(root, "tokens", pieces);
    json_object_set_new(root, "maps", maps);
    json_object_set_new(root, "rollout", rollout_json(rollout));
    sp_status status = sp_json_format(json, root, 1);
    json_decref(root);
    return status;
}

/* ---- the call -------------------------------------------------------------------------------------------------- */

/* The text's tokens, after BOS where the model has one. */
static sp_status encode(int32_t **tokens, int64_t *T, const sp_model_config *config, const sp_tokenizer *tokenizer,
                        const char *text) {
    int32_t *encoded;
    int64_t n, n_bos = config->bos >= 0;
    SP_TRY(sp_tokenizer_encode(tokenizer, text, (int64_t)strlen(text), &encoded, &n));
    int64_t most = config->max_positions < TOKENS_MAX ? config->max_positions : TOKENS_MAX;
    sp_status status = SP_OK;
    SP_REQUIRE_OR_DONE(n > 0, SP_BAD_ARGUMENT, "the text for attention maps is empty");
    SP_REQUIRE_OR_DONE(n + n_bos <= most, SP_BAD_ARGUMENT,
                       "the text for attention maps has %" PRId64 " tokens: at most %" PRId64 " are drawn", n + n_bos,
                       most);
    SP_TRY_OR_DONE(sp_allocate((void **)tokens, (n + n_bos) * (int64_t)sizeof **tokens, "tokens"));
    if (n_bos) (*tokens)[0] = config->bos;
    memcpy(*tokens + n_bos, encoded, (size_t)n * sizeof *encoded);
    *T = n + n_bos;
    for (int64_t t = 0; t < *T; t++)
        SP_REQUIRE_OR_DONE((*tokens)[t] < config->vocabulary, SP_BAD_ARGUMENT,
                           "token %" PRId32 " of the tokenizer is outside the model's vocabulary of %" PRId64,
                           (*tokens)[t], config->vocabulary);
done:
    free(encoded);
    return status;
}

/* The n_shown heads most worth seeing, with room for their maps. */
static sp_status select_heads(shown_head *shown, int64_t n_shown, sp_model *model, const sp_batch *batch) {
    const sp_model_config *config = sp_model_config_of(model);
    int64_t n = config->n_layers * config->n_heads, T = batch->T;
    summing all = {.H = config->n_heads};
    bool *taken = NULL;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_allocate((void **)&all.heads, n * (int64_t)sizeof *all.heads, "head summaries"));
    SP_TRY_OR_DONE(sp_allocate((void **)&taken, n * (int64_t)sizeof *taken, "head summaries"));
    SP_TRY_OR_DONE(sp_model_observe(model, batch, &(sp_observer){.user = &all, .attention = sum_layer}));
    choose_heads(shown, n_shown, all.heads, n, config->n_heads, taken);
    for (int64_t i = 0; i < n_shown; i++)
        SP_TRY_OR_DONE(
            sp_allocate((void **)&shown[i].weights, T * T * (int64_t)sizeof *shown[i].weights, "attention map"));
done:
    free(all.heads);
    free(taken);
    return status;
}

sp_status sp_measure_maps(sp_model *model, const sp_tokenizer *tokenizer, const char *text, int64_t n_heads_max,
                          char **json) {
    *json = NULL;
    SP_REQUIRE(n_heads_max >= 1, SP_BAD_ARGUMENT, "n_heads_max is %" PRId64 ": at least 1 is needed", n_heads_max);
    const sp_model_config *config = sp_model_config_of(model);
    int64_t n = config->n_layers * config->n_heads, n_shown = n_heads_max < n ? n_heads_max : n;
    int32_t *tokens = NULL, *targets = NULL;
    shown_head *shown = NULL;
    sp_rollout rollout = {0};
    sp_observer rolling;
    sp_batch batch = {.B = 1};
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(encode(&tokens, &batch.T, config, tokenizer, text));
    SP_TRY_OR_DONE(sp_allocate((void **)&targets, batch.T * (int64_t)sizeof *targets, "tokens"));
    for (int64_t t = 0; t < batch.T; t++) targets[t] = -1;
    batch.tokens = tokens;
    batch.targets = targets;
    SP_TRY_OR_DONE(sp_allocate((void **)&shown, n_shown * (int64_t)sizeof *shown, "attention maps"));
    SP_TRY_OR_DONE(select_heads(shown, n_shown, model, &batch));
    drawing maps = {.shown = shown, .n_shown = n_shown, .T = batch.T};
    SP_TRY_OR_DONE(sp_model_observe(model, &batch, &(sp_observer){.user = &maps, .attention = draw_layer}));
    SP_TRY_OR_DONE(sp_rollout_open(&rollout, config->n_heads, batch.T));
    rolling = sp_rollout_observer(&rollout);
    SP_TRY_OR_DONE(sp_model_observe(model, &batch, &rolling));
    status = format_maps(json, tokenizer, text, tokens, shown, n_shown, &rollout);
done:
    for (int64_t i = 0; shown && i < n_shown; i++) free(shown[i].weights);
    sp_rollout_close(&rollout);
    free(shown);
    free(tokens);
    free(targets);
    return status;
}
