/* The table of measures: what each is called, what it means, and how it is taken from the sums of a run.
 * A new measure is a row here, and a sum in attention_sums.h or hidden_sums.h if no present one gives it.
 * Sources: Gu et al. 2410.10781 (sink rate), Sun et al. 2402.17762 (massive activations), 2504.20966 and its code. */
#include "measure/measures.h"

#include <math.h>

#include "base/json.h"

typedef struct measure {
    const char *name, *unit;
    double threshold; /* NAN: none */
    const char *definition;
    void (*finish)(const struct measure *row, const sp_measures *measures, json_t *out);
    double (*head)(const sp_head_sums *sums);       /* value of one head */
    double (*head_share)(const sp_head_sums *sums); /* measures of the first token: the same by the row's share */
} measure;

/* ---- one head -------------------------------------------------------------------------------------------------- */

static double ratio(double a, int64_t b) { return b ? a / (double)b : NAN; }

static double sink_30(const sp_head_sums *sums) { return ratio((double)sums->n_sinks[0], sums->n_sequences); }
static double sink_20(const sp_head_sums *sums) { return ratio((double)sums->n_sinks[1], sums->n_sequences); }
static double sink_share_30(const sp_head_sums *sums) {
    return ratio((double)sums->n_sinks_share[0], sums->n_sequences);
}
static double sink_share_20(const sp_head_sums *sums) {
    return ratio((double)sums->n_sinks_share[1], sums->n_sequences);
}
static double first_mass(const sp_head_sums *sums) { return ratio(sums->first_mass, sums->n_sequences); }
static double first_share(const sp_head_sums *sums) { return ratio(sums->first_share, sums->n_sequences); }
static double row_mass(const sp_head_sums *sums) { return ratio(sums->mass, sums->n_queries); }
static double zero_weights(const sp_head_sums *sums) { return ratio((double)sums->n_zero, sums->n_pairs); }
static double small_weights(const sp_head_sums *sums) { return ratio((double)sums->n_small, sums->n_pairs); }
static double silent_queries(const sp_head_sums *sums) { return ratio((double)sums->n_silent, sums->n_queries); }
static double near_zero_outputs(const sp_head_sums *sums) { return ratio((double)sums->n_near_zero, sums->n_queries); }

/* ---- all heads ------------------------------------------------------------------------------------------------- */

static double mean_of_heads(const sp_measures *measures, const sp_head_sums *heads,
                            double (*head)(const sp_head_sums *)) {
    int64_t n = measures->L * measures->H;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += head(&heads[i]);
    return sum / (double)n;
}

static json_t *per_layer_head(const sp_measures *measures, double (*head)(const sp_head_sums *)) {
    json_t *layers = json_array();
    for (int64_t l = 0; l < measures->L; l++) {
        json_t *layer = json_array();
        for (int64_t h = 0; h < measures->H; h++)
            json_array_append_new(layer, sp_json_number(head(&measures->heads[l * measures->H + h])));
        json_array_append_new(layers, layer);
    }
    return layers;
}

static void finish_mean(const measure *row, const sp_measures *measures, json_t *out) {
    json_object_set_new(out, "value", sp_json_number(mean_of_heads(measures, measures->heads, row->head)));
    json_object_set_new(out, "per_layer_head", per_layer_head(measures, row->head));
}

/* Measures of the first token depend on what stands there, and on a row's mass: the variants tell how much. */
static void finish_first_token(const measure *row, const sp_measures *measures, json_t *out) {
    finish_mean(row, measures, out);
    json_t *variants = json_object();
    json_object_set_new(variants, "row_normalised",
                        sp_json_number(mean_of_heads(measures, measures->heads, row->head_share)));
    if (measures->variant)
        json_object_set_new(variants, measures->variant,
                            sp_json_number(mean_of_heads(measures, measures->variant_heads, row->head)));
    json_object_set_new(out, "variants", variants);
}

/* Share of heads for which a share of tokens exceeds SP_SILENT_SHARE; per head: the share of tokens. */
static void finish_share_of_heads(const measure *row, const sp_measures *measures, json_t *out) {
    int64_t n = measures->L * measures->H, count = 0;
    for (int64_t i = 0; i < n; i++) count += row->head(&measures->heads[i]) > SP_SILENT_SHARE;
    json_object_set_new(out, "value", sp_json_number(ratio((double)count, n)));
    json_object_set_new(out, "per_layer_head", per_layer_head(measures, row->head));
    json_object_set_new(out, "per_layer_head_unit", json_string("share of tokens"));
}

/* ---- the residual stream --------------------------------------------------------------------------------------- */

/* After every block. */
static sp_moments pool_of_blocks(const sp_measures *measures) {
    sp_moments pool = {0};
    for (int64_t l = 1; l <= measures->L; l++) sp_moments_merge(&pool, &measures->hidden.moments[l]);
    return pool;
}

/* The published code's hidden_states: the stream into every block, and after the final norm. */
static sp_moments pool_of_paper(const sp_measures *measures) {
    sp_moments pool = {0};
    for (int64_t l = 0; l < measures->L; l++) sp_moments_merge(&pool, &measures->hidden.moments[l]);
    sp_moments_merge(&pool, &measures->hidden.moments[measures->L + 1]);
    return pool;
}

/* A stream that held a NaN has no extremes. */
static double max_of(const sp_moments *moments) { return isnan(moments->mean) ? NAN : moments->max; }
static double min_of(const sp_moments *moments) { return isnan(moments->mean) ? NAN : moments->min; }

static void finish_blocks(const sp_measures *measures, json_t *out, double (*value)(const sp_moments *)) {
    sp_moments pool = pool_of_blocks(measures);
    json_t *layers = json_array();
    for (int64_t l = 1; l <= measures->L; l++)
        json_array_append_new(layers, sp_json_number(value(&measures->hidden.moments[l])));
    json_object_set_new(out, "value", sp_json_number(value(&pool)));
    json_object_set_new(out, "per_layer", layers);
}

static void finish_extreme(const sp_measures *measures, json_t *out, double (*value)(const sp_moments *)) {
    finish_blocks(measures, out, value);
    sp_moments paper = pool_of_paper(measures);
    json_t *variants = json_object();
    json_object_set_new(variants, "paper_pool", sp_json_number(value(&paper)));
    json_object_set_new(out, "variants", variants);
}

static void finish_max(const measure *row, const sp_measures *measures, json_t *out) {
    (void)row;
    finish_extreme(measures, out, max_of);
}

static void finish_min(const measure *row, const sp_measures *measures, json_t *out) {
    (void)row;
    finish_extreme(measures, out, min_of);
}

static void finish_kurtosis(const measure *row, const sp_measures *measures, json_t *out) {
    (void)row;
    finish_blocks(measures, out, sp_moments_kurtosis);
}

static void finish_kurtosis_paper(const measure *row, const sp_measures *measures, json_t *out) {
    (void)row;
    sp_moments pool = pool_of_paper(measures);
    json_t *states = json_array();
    for (int64_t i = 0; i <= measures->L; i++) {
        int64_t layer = i < measures->L ? i : measures->L + 1;
        json_array_append_new(states, sp_json_number(sp_moments_kurtosis(&measures->hidden.moments[layer])));
    }
    json_object_set_new(out, "value", sp_json_number(sp_moments_kurtosis(&pool)));
    json_object_set_new(out, "per_state", states);
}

static json_t *peak_json(const sp_peak *peak) {
    json_t *json = json_object();
    json_object_set_new(json, "value", sp_json_number(peak->value));
    json_object_set_new(json, "median", sp_json_number(peak->median));
    json_object_set_new(json, "layer", json_integer(peak->layer - 1));
    json_object_set_new(json, "channel", json_integer(peak->channel));
    json_object_set_new(json, "position", json_integer(peak->position));
    json_object_set_new(json, "sample", json_integer(peak->sample));
    return json;
}

/* The channels with the largest peaks, largest first. */
static json_t *largest_peaks(const sp_hidden_sums *hidden) {
    enum { N_PEAKS = 3 };
    const sp_peak *top[N_PEAKS] = {0};
    for (int64_t c = 0; c < hidden->C; c++) {
        const sp_peak *peak = &hidden->peaks[c];
        for (int i = 0; i < N_PEAKS && peak && peak->value != 0; i++)
            if (!top[i] || fabsf(peak->value) > fabsf(top[i]->value)) {
                const sp_peak *smaller = top[i];
                top[i] = peak;
                peak = smaller;
            }
    }
    json_t *peaks = json_array();
    for (int i = 0; i < N_PEAKS && top[i]; i++) json_array_append_new(peaks, peak_json(top[i]));
    return peaks;
}

static void finish_massive(const measure *row, const sp_measures *measures, json_t *out) {
    (void)row;
    int64_t count = 0;
    json_t *layers = json_array();
    for (int64_t l = 1; l <= measures->L; l++) {
        int64_t in_layer = measures->hidden.n_massive[l];
        count += in_layer;
        json_array_append_new(layers, sp_json_number(ratio((double)in_layer, measures->n_samples)));
    }
    json_object_set_new(out, "value", sp_json_number(ratio((double)count, measures->n_samples)));
    json_object_set_new(out, "per_layer", layers);
    json_object_set_new(out, "top", largest_peaks(&measures->hidden));
}

/* ---- the table ------------------------------------------------------------------------------------------------- */

static const measure measures_table[] = {
    {"sink_rate", "share", 0.3,
     "share of (sample, layer, head) whose mean attention weight on the first token, over all queries, exceeds 0.3",
     finish_first_token, sink_30, sink_share_30},
    {"sink_rate_0.2", "share", 0.2,
     "share of (sample, layer, head) whose mean attention weight on the first token, over all queries, exceeds 0.2",
     finish_first_token, sink_20, sink_share_20},
    {"first_token_mass", "1", NAN, "attention weight on the first token, mean over queries, samples, layers and heads",
     finish_first_token, first_mass, first_share},
    {"row_mass", "1", NAN, "sum of a query's attention weights, mean over queries, layers and heads (1 in softmax)",
     finish_mean, row_mass, NULL},
    {"sparsity", "share", NAN, "share of attention weights that are exactly 0 among the keys a query may see",
     finish_mean, zero_weights, NULL},
    {"sparsity_threshold", "share", SP_SMALL_WEIGHT,
     "share of attention weights up to 1e-5 among the keys a query may see", finish_mean, small_weights, NULL},
    {"silent_heads", "share", SP_SILENT_SHARE,
     "share of heads whose attention weights are all exactly 0 for more than 95% of tokens "
     "(per head: the share of such tokens)",
     finish_share_of_heads, silent_queries, NULL},
    {"dead_heads", "share", SP_NEAR_ZERO,
     "share of heads whose output is below 1e-6 in every channel for more than 95% of tokens: the paper's dead heads "
     "(per head: the share of such tokens)",
     finish_share_of_heads, near_zero_outputs, NULL},
    {"kurtosis", "1", NAN,
     "kurtosis (3 for a Gaussian) of all elements of the residual stream after every block, in one pool",
     finish_kurtosis, NULL, NULL},
    {"kurtosis_paper", "1", NAN,
     "the same over the paper's pool: the stream into every block, and after the final norm", finish_kurtosis_paper,
     NULL, NULL},
    {"activation_max", "1", NAN, "largest element of the residual stream after every block", finish_max, NULL, NULL},
    {"activation_min", "1", NAN, "smallest element of the residual stream after every block", finish_min, NULL, NULL},
    {"massive_activations", "count", SP_MASSIVE_VALUE,
     "elements of the residual stream larger than 100 and than 1000 times the median magnitude of their hidden state: "
     "number per sample",
     finish_massive, NULL, NULL},
};
enum { N_MEASURES = sizeof measures_table / sizeof *measures_table };

const char *sp_measure_name(int i) { return i >= 0 && i < N_MEASURES ? measures_table[i].name : NULL; }

const char *sp_measure_definition(int i) { return i >= 0 && i < N_MEASURES ? measures_table[i].definition : NULL; }

sp_status sp_measures_finish(const sp_measures *measures, json_t **out) {
    *out = json_object();
    for (int i = 0; i < N_MEASURES; i++) {
        const measure *row = &measures_table[i];
        json_t *json = json_object();
        row->finish(row, measures, json);
        json_object_set_new(json, "unit", json_string(row->unit));
        json_object_set_new(json, "definition", json_string(row->definition));
        json_object_set_new(json, "T", json_integer(measures->T));
        json_object_set_new(json, "n_samples", json_integer(measures->n_samples));
        json_object_set_new(json, "dtype", json_string(sp_dtype_name(measures->dtype)));
        json_object_set_new(json, "threshold", sp_json_number(row->threshold));
        SP_REQUIRE(json_object_set_new(*out, row->name, json) == 0, SP_OUT_OF_MEMORY, "no memory for the measures");
    }
    return SP_OK;
}
