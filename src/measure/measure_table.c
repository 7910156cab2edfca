/* The table of measures: what each is called, what it means, and how it is taken from the sums of a run.
 * A new measure is a row here, and a sum in attention_sums.h, map_sums.h or hidden_sums.h if no present one gives it.
 * Sources: Gu et al. 2410.10781 (sink rate), Sun et al. 2402.17762 (massive activations), 2504.20966 and its code. */
#include "measure/measures.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"

typedef struct measure {
    const char *name, *unit;
    double threshold; /* NAN: none */
    unsigned needs;   /* sp_measure_needs */
    bool by_option;   /* not among the default ones */
    const char *definition;
    void (*finish)(const struct measure *row, const sp_measures *measures, json_t *out);
    double (*head)(const sp_head_sums *sums);        /* value of one head */
    double (*first)(const sp_sink_sums *sums);       /* measures of the first token: value of one head */
    double (*first_share)(const sp_sink_sums *sums); /* the same by the row's share */
    double (*map)(const sp_map_head *sums);          /* measures of whole rows: value of one head */
} measure;

/* ---- one head -------------------------------------------------------------------------------------------------- */

static double ratio(double a, int64_t b) { return b ? a / (double)b : NAN; }

static double sink_30(const sp_sink_sums *sums) { return ratio((double)sums->n_sinks[0], sums->n_sequences); }
static double sink_20(const sp_sink_sums *sums) { return ratio((double)sums->n_sinks[1], sums->n_sequences); }
static double sink_share_30(const sp_sink_sums *sums) {
    return ratio((double)sums->n_sinks_share[0], sums->n_sequences);
}
static double sink_share_20(const sp_sink_sums *sums) {
    return ratio((double)sums->n_sinks_share[1], sums->n_sequences);
}
static double first_mass(const sp_sink_sums *sums) { return ratio(sums->first_mass, sums->n_sequences); }
static double first_share(const sp_sink_sums *sums) { return ratio(sums->first_share, sums->n_sequences); }

static double row_mass(const sp_head_sums *sums) { return ratio(sums->mass, sums->n_queries); }
static double zero_weights(const sp_head_sums *sums) { return ratio((double)sums->n_zero, sums->n_pairs); }
static double small_weights(const sp_head_sums *sums) { return ratio((double)sums->n_small, sums->n_pairs); }
static double silent_queries(const sp_head_sums *sums) { return ratio((double)sums->n_silent, sums->n_queries); }
static double near_zero_outputs(const sp_head_sums *sums) {
    return ratio((double)sums->n_near_zero[0], sums->n_queries);
}
static double nearer_zero_outputs(const sp_head_sums *sums) {
    return ratio((double)sums->n_near_zero[1], sums->n_queries);
}

static double sinks_elsewhere(const sp_map_head *sums) { return ratio((double)sums->n_elsewhere, sums->n_sequences); }
static double entropy(const sp_map_head *sums) { return ratio(sums->entropy, sums->n_live); }
static double entropy_share(const sp_map_head *sums) { return ratio(sums->entropy_share, sums->n_wide); }
static double largest(const sp_map_head *sums) { return ratio(sums->largest, sums->n_queries); }
static double largest_live(const sp_map_head *sums) { return ratio(sums->largest, sums->n_live); }
static double largest_share(const sp_map_head *sums) { return ratio(sums->largest_share, sums->n_live); }
static double dead_blocks(const sp_map_head *sums) { return ratio((double)sums->n_dead[0], sums->n_blocks[0]); }

/* ---- all heads ------------------------------------------------------------------------------------------------- */

/* The value of head i of all layers. */
static double value_of_head(const measure *row, const sp_measures *measures, int64_t i) {
    if (row->map) return row->map(&measures->maps.heads[i]);
    return row->head ? row->head(&measures->heads[i]) : row->first(&measures->heads[i].sinks);
}

/* Silent heads have no entropy and no largest share: they are left out of what is NaN for them. */
static double mean_of_heads(const measure *row, const sp_measures *measures) {
    int64_t n = 0;
    double sum = 0;
    for (int64_t i = 0; i < measures->L * measures->H; i++) {
        double value = value_of_head(row, measures, i);
        if (isnan(value)) continue;
        sum += value;
        n++;
    }
    return ratio(sum, n);
}

static json_t *per_layer_head(const measure *row, const sp_measures *measures) {
    json_t *layers = json_array();
    for (int64_t l = 0; l < measures->L; l++) {
        json_t *layer = json_array();
        for (int64_t h = 0; h < measures->H; h++)
            json_array_append_new(layer, sp_json_number(value_of_head(row, measures, l * measures->H + h)));
        json_array_append_new(layers, layer);
    }
    return layers;
}

static void finish_mean(const measure *row, const sp_measures *measures, json_t *out) {
    json_object_set_new(out, "value", sp_json_number(mean_of_heads(row, measures)));
    json_object_set_new(out, "per_layer_head", per_layer_head(row, measures));
}

/* ---- the first token --------------------------------------------------------------------------------------------- */

static double mean_of_first(const sp_measures *measures, const sp_head_sums *heads,
                            double (*first)(const sp_sink_sums *)) {
    int64_t n = measures->L * measures->H;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += first(&heads[i].sinks);
    return sum / (double)n;
}

static double mean_of_length(const sp_measures *measures, int64_t length, double (*first)(const sp_sink_sums *)) {
    int64_t n = measures->L * measures->H;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += first(&measures->by_length[i * measures->n_lengths + length]);
    return sum / (double)n;
}

static json_t *by_length_json(const measure *row, const sp_measures *measures) {
    json_t *lengths = json_array(), *values = json_array(), *shares = json_array(), *counts = json_array();
    for (int64_t i = 0; i < measures->n_lengths; i++) {
        json_array_append_new(lengths, json_integer(measures->lengths[i]));
        json_array_append_new(values, sp_json_number(mean_of_length(measures, i, row->first)));
        json_array_append_new(shares, sp_json_number(mean_of_length(measures, i, row->first_share)));
        json_array_append_new(counts, json_integer(measures->by_length[i].n_sequences));
    }
    return json_pack("{s:o, s:o, s:o, s:o}", "length", lengths, "value", values, "row_normalised", shares,
                     "n_sequences", counts);
}

/* Measures of the first token depend on what stands there, on a row's mass and on the length: all three are told. */
static void finish_first_token(const measure *row, const sp_measures *measures, json_t *out) {
    finish_mean(row, measures, out);
    json_t *variants = json_object();
    json_object_set_new(variants, "row_normalised",
                        sp_json_number(mean_of_first(measures, measures->heads, row->first_share)));
    if (measures->variant)
        json_object_set_new(variants, measures->variant,
                            sp_json_number(mean_of_first(measures, measures->variant_heads, row->first)));
    json_object_set_new(out, "variants", variants);
    json_object_set_new(out, "by_length", by_length_json(row, measures));
}

/* Share of heads for which a share of tokens exceeds SP_SILENT_SHARE; per head: the share of tokens. */
static void finish_share_of_heads(const measure *row, const sp_measures *measures, json_t *out) {
    int64_t n = measures->L * measures->H, count = 0;
    for (int64_t i = 0; i < n; i++) count += row->head(&measures->heads[i]) > SP_SILENT_SHARE;
    json_object_set_new(out, "value", sp_json_number(ratio((double)count, n)));
    json_object_set_new(out, "per_layer_head", per_layer_head(row, measures));
    json_object_set_new(out, "per_layer_head_unit", json_string("share of tokens"));
}

/* ---- whole rows -------------------------------------------------------------------------------------------------- */

static void finish_sinks_elsewhere(const measure *row, const sp_measures *measures, json_t *out) {
    json_t *positions = json_array(), *weights = json_array(), *shares = json_array(), *sinks = json_array();
    for (int64_t i = 0; i < measures->maps.n_bins; i++) {
        const sp_map_bin_sums *bin = &measures->maps.bins[i];
        if (bin->n_keys == 0) continue;
        json_array_append_new(positions, json_integer(sp_map_bin_first(i)));
        json_array_append_new(weights, sp_json_number(ratio(bin->key_weight, bin->n_keys)));
        json_array_append_new(shares, sp_json_number(ratio(bin->key_share, bin->n_keys)));
        json_array_append_new(sinks, sp_json_number(ratio((double)bin->n_sinks, bin->n_keys)));
    }
    finish_mean(row, measures, out);
    json_object_set_new(out, "by_position",
                        json_pack("{s:o, s:o, s:o, s:o}", "position", positions, "weight", weights, "row_normalised",
                                  shares, "sinks", sinks));
}

/* `row` with another value of a head. */
static double variant_mean(const measure *row, const sp_measures *measures, double (*map)(const sp_map_head *)) {
    measure other = *row;
    other.map = map;
    return mean_of_heads(&other, measures);
}

static void finish_entropy(const measure *row, const sp_measures *measures, json_t *out) {
    double share = variant_mean(row, measures, entropy_share);
    finish_mean(row, measures, out);
    json_object_set_new(out, "variants", json_pack("{s:o}", "of_the_most", sp_json_number(share)));
}

static void finish_largest(const measure *row, const sp_measures *measures, json_t *out) {
    json_t *contexts = json_array(), *all = json_array(), *live = json_array(), *shares = json_array();
    for (int64_t i = 0; i < measures->maps.n_bins; i++) {
        const sp_map_bin_sums *bin = &measures->maps.bins[i];
        if (bin->n_queries == 0) continue;
        json_array_append_new(contexts, json_integer(sp_map_bin_first(i) + 1));
        json_array_append_new(all, sp_json_number(ratio(bin->largest, bin->n_queries)));
        json_array_append_new(live, sp_json_number(ratio(bin->largest, bin->n_live)));
        json_array_append_new(shares, sp_json_number(ratio(bin->largest_share, bin->n_live)));
    }
    finish_mean(row, measures, out);
    json_object_set_new(out, "variants",
                        json_pack("{s:o, s:o}", "live_rows", sp_json_number(variant_mean(row, measures, largest_live)),
                                  "row_normalised", sp_json_number(variant_mean(row, measures, largest_share))));
    json_object_set_new(out, "by_context",
                        json_pack("{s:o, s:o, s:o, s:o}", "keys", contexts, "weight", all, "live_rows", live,
                                  "row_normalised", shares));
}

static void finish_dead_blocks(const measure *row, const sp_measures *measures, json_t *out) {
    json_t *blocks = json_array();
    for (int i = 0; i < SP_BLOCK_SIZES; i++) {
        const sp_block_size *size = &sp_block_sizes[i];
        int64_t n = 0, n_dead = 0;
        for (int64_t h = 0; h < measures->L * measures->H; h++) {
            n += measures->maps.heads[h].n_blocks[i];
            n_dead += measures->maps.heads[h].n_dead[i];
        }
        json_array_append_new(blocks, json_pack("{s:s, s:I, s:I, s:I, s:o}", "name", size->name, "queries",
                                                (json_int_t)size->queries, "keys", (json_int_t)size->keys, "heads",
                                                (json_int_t)(size->group ? measures->maps.group : 1), "value",
                                                sp_json_number(ratio((double)n_dead, n))));
    }
    finish_mean(row, measures, out);
    json_object_set_new(out, "blocks", blocks);
}

/* ---- masking ----------------------------------------------------------------------------------------------------- */

static json_t *controls_json(const sp_masking_row *row) {
    json_t *losses = json_array();
    for (int64_t i = 0; i < row->n_controls; i++) json_array_append_new(losses, sp_json_number(row->controls[i]));
    return losses;
}

static void finish_masking(const measure *row, const sp_measures *measures, json_t *out) {
    (void)row;
    static const double thresholds[SP_NEAR_ZEROS] = {1e-6, 1e-2};
    const sp_masking *masking = &measures->masking;
    json_t *rows = json_array();
    for (int i = 0; i < SP_NEAR_ZEROS; i++) {
        const sp_masking_row *masked = &masking->rows[i];
        json_t *threshold = sp_json_number(thresholds[i]);
        json_array_append_new(rows, json_pack("{s:o, s:I, s:o, s:I, s:o}", "threshold", threshold, "n_masked",
                                              (json_int_t)masked->n_masked, "loss", sp_json_number(masked->loss),
                                              "n_control_heads", (json_int_t)masked->n_control_heads, "control_losses",
                                              controls_json(masked)));
    }
    json_object_set_new(out, "value", sp_json_number(masking->rows[0].loss - masking->loss));
    json_object_set_new(out, "loss", sp_json_number(masking->loss));
    json_object_set_new(out, "n_targets", json_integer(masking->n_targets));
    json_object_set_new(out, "n_heads", json_integer(measures->L * measures->H));
    json_object_set_new(out, "masked", rows);
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

enum { N_PEAKS = 3 };

/* Puts the peak among the N_PEAKS largest, largest first; of a channel that is there the larger one stays. */
static void rank_peak(const sp_peak *top[N_PEAKS], const sp_peak *peak) {
    if (peak->value == 0) return;
    int at = 0, last = 0;
    while (at < N_PEAKS && top[at] && fabsf(top[at]->value) >= fabsf(peak->value)) {
        if (top[at]->channel == peak->channel) return;
        at++;
    }
    if (at == N_PEAKS) return;
    for (last = at; last < N_PEAKS - 1 && top[last] && top[last]->channel != peak->channel;) last++;
    memmove(top + at + 1, top + at, (size_t)(last - at) * sizeof *top);
    top[at] = peak;
}

/* The channels with the largest peaks after blocks first .. first + n - 1, largest first. */
static json_t *largest_peaks(const sp_hidden_sums *hidden, int64_t first, int64_t n) {
    const sp_peak *top[N_PEAKS] = {0};
    for (int64_t i = 0; i < n * hidden->C; i++) rank_peak(top, &hidden->peaks[first * hidden->C + i]);
    json_t *peaks = json_array();
    for (int i = 0; i < N_PEAKS && top[i]; i++) json_array_append_new(peaks, peak_json(top[i]));
    return peaks;
}

static json_t *peaks_by_layer(const sp_hidden_sums *hidden) {
    json_t *layers = json_array();
    for (int64_t l = 0; l < hidden->n_layers; l++)
        json_array_append_new(layers, json_pack("{s:o, s:o}", "median",
                                                sp_json_number(ratio(hidden->medians[l + 1], hidden->n_medians[l + 1])),
                                                "top", largest_peaks(hidden, l, 1)));
    return layers;
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
    json_object_set_new(out, "top", largest_peaks(&measures->hidden, 0, measures->L));
    json_object_set_new(out, "by_layer", peaks_by_layer(&measures->hidden));
}

/* ---- the table ------------------------------------------------------------------------------------------------- */

enum { FIRST = SP_NEEDS_ROWS | SP_NEEDS_VARIANT };

static const measure measures_table[] = {
    {"sink_rate", "share", 0.3, FIRST, false,
     "share of (sample, layer, head) whose mean attention weight on the first token, over all queries, exceeds 0.3",
     .finish = finish_first_token, .first = sink_30, .first_share = sink_share_30},
    {"sink_rate_0.2", "share", 0.2, FIRST, false,
     "share of (sample, layer, head) whose mean attention weight on the first token, over all queries, exceeds 0.2",
     .finish = finish_first_token, .first = sink_20, .first_share = sink_share_20},
    {"first_token_mass", "1", NAN, FIRST, false,
     "attention weight on the first token, mean over queries, samples, layers and heads", .finish = finish_first_token,
     .first = first_mass, .first_share = first_share},
    {"sink_rate_elsewhere", "share", SP_KEY_SINK, SP_NEEDS_MAPS, true,
     "share of (sample, layer, head) in which some other key of the first half of the sequence has a mean attention "
     "weight above 0.3, over the queries that see it",
     .finish = finish_sinks_elsewhere, .map = sinks_elsewhere},
    {"row_mass", "1", NAN, SP_NEEDS_ROWS, false,
     "sum of a query's attention weights, mean over queries, layers and heads (1 in softmax)", .finish = finish_mean,
     .head = row_mass},
    {"sparsity", "share", NAN, SP_NEEDS_ROWS, false,
     "share of attention weights that are exactly 0 among the keys a query may see", .finish = finish_mean,
     .head = zero_weights},
    {"sparsity_threshold", "share", SP_SMALL_WEIGHT, SP_NEEDS_ROWS, false,
     "share of attention weights up to 1e-5 among the keys a query may see", .finish = finish_mean,
     .head = small_weights},
    {"dead_blocks", "share", NAN, SP_NEEDS_MAPS, true,
     "share of blocks of 16 queries x 16 keys whose attention weights are all exactly 0, among those in which a query "
     "sees a key",
     .finish = finish_dead_blocks, .map = dead_blocks},
    {"entropy", "nats", NAN, SP_NEEDS_MAPS, true,
     "entropy of a query's attention weights divided by their sum, mean over the queries with a weight above 0, over "
     "layers and heads",
     .finish = finish_entropy, .map = entropy},
    {"largest_weight", "1", NAN, SP_NEEDS_MAPS, true,
     "largest attention weight of a query, mean over queries, samples, layers and heads", .finish = finish_largest,
     .map = largest},
    {"silent_heads", "share", SP_SILENT_SHARE, SP_NEEDS_ROWS, false,
     "share of heads whose attention weights are all exactly 0 for more than 95% of tokens "
     "(per head: the share of such tokens)",
     .finish = finish_share_of_heads, .head = silent_queries},
    {"dead_heads", "share", 1e-6, SP_NEEDS_ROWS, false,
     "share of heads whose output is below 1e-6 in every channel for more than 95% of tokens: the paper's dead heads "
     "(per head: the share of such tokens)",
     .finish = finish_share_of_heads, .head = near_zero_outputs},
    {"dead_heads_0.01", "share", 1e-2, SP_NEEDS_ROWS, false,
     "share of heads whose output is below 0.01 in every channel for more than 95% of tokens "
     "(per head: the share of such tokens)",
     .finish = finish_share_of_heads, .head = nearer_zero_outputs},
    {"masking", "nats", 1e-6, SP_NEEDS_ROWS | SP_NEEDS_MASKING, true,
     "what the loss per token rises by when the outputs of the heads that dead_heads counts are set to 0",
     .finish = finish_masking},
    {"kurtosis", "1", NAN, SP_NEEDS_STREAM, false,
     "kurtosis (3 for a Gaussian) of all elements of the residual stream after every block, in one pool",
     .finish = finish_kurtosis},
    {"kurtosis_paper", "1", NAN, SP_NEEDS_STREAM, false,
     "the same over the paper's pool: the stream into every block, and after the final norm",
     .finish = finish_kurtosis_paper},
    {"activation_max", "1", NAN, SP_NEEDS_STREAM, false, "largest element of the residual stream after every block",
     .finish = finish_max},
    {"activation_min", "1", NAN, SP_NEEDS_STREAM, false, "smallest element of the residual stream after every block",
     .finish = finish_min},
    {"massive_activations", "count", SP_MASSIVE_VALUE, SP_NEEDS_STREAM, false,
     "elements of the residual stream larger than 100 and than 1000 times the median magnitude of their hidden state: "
     "number per sample",
     .finish = finish_massive},
};
enum { N_MEASURES = sizeof measures_table / sizeof *measures_table };

const char *sp_measure_name(int i) { return i >= 0 && i < N_MEASURES ? measures_table[i].name : NULL; }

const char *sp_measure_definition(int i) { return i >= 0 && i < N_MEASURES ? measures_table[i].definition : NULL; }

bool sp_measure_is_default(int i) { return i >= 0 && i < N_MEASURES && !measures_table[i].by_option; }

/* ---- choosing ---------------------------------------------------------------------------------------------------- */

static sp_status choose_one(const char *name, int n, uint64_t *chosen) {
    for (int i = 0; i < N_MEASURES; i++)
        if ((int)strlen(measures_table[i].name) == n && strncmp(measures_table[i].name, name, (size_t)n) == 0) {
            *chosen |= UINT64_C(1) << i;
            return SP_OK;
        }
    char known[1024];
    size_t used = 0;
    for (int i = 0; i < N_MEASURES && used < sizeof known; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", measures_table[i].name);
    return sp_fail(SP_BAD_ARGUMENT, "there is no measure \"%.*s\"; there are all, default, %s", n, name, known);
}

sp_status sp_measures_choose(const char *list, uint64_t *chosen) {
    if (list && strcmp(list, "default") == 0) list = NULL;
    bool all = list && strcmp(list, "all") == 0;
    *chosen = 0;
    for (int i = 0; i < N_MEASURES; i++)
        if (all || (!list && sp_measure_is_default(i))) *chosen |= UINT64_C(1) << i;
    while (list && !all) {
        int n = (int)strcspn(list, ",");
        SP_TRY(choose_one(list, n, chosen));
        list = list[n] ? list + n + 1 : NULL;
    }
    return SP_OK;
}

unsigned sp_measures_needs(uint64_t chosen) {
    unsigned needs = 0;
    for (int i = 0; i < N_MEASURES; i++)
        if (chosen >> i & 1) needs |= measures_table[i].needs;
    return needs;
}

sp_status sp_measures_finish(const sp_measures *measures, json_t **out) {
    *out = json_object();
    for (int i = 0; i < N_MEASURES; i++) {
        const measure *row = &measures_table[i];
        if (!(measures->chosen >> i & 1)) continue;
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
