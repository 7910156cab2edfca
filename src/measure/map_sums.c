/* Sums over whole rows of attention maps.  Each head has its own sums and working memory, and a sequence's rows come in
 * order, so that the result does not depend on the threads.
 *
 * Liveness: of SP_MAP_ROWS queries one bit is kept for each key and head, and the blocks of every size are counted from
 * these bits; a group of heads is live where any of its heads is. */
#include "measure/map_sums.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "attention/problem.h"
#include "base/memory.h"
#include "measure/host_problem.h"

const sp_block_size sp_block_sizes[SP_BLOCK_SIZES] = {
    {"16x16", 16, 16, false}, {"64x16", 64, 16, false},       {"64x128", 64, 128, false},
    {"key", 1, 1, false},     {"key of a group", 1, 1, true},
};

enum { WORD = 64, BINS_OF_A_DOUBLING = 16 };

/* ---- bins -------------------------------------------------------------------------------------------------------- */

/* Doublings beyond the numbers that have a bin each. */
static int doublings(int64_t i) {
    int n = 0;
    for (; i >= 2 * BINS_OF_A_DOUBLING; i /= 2) n++;
    return n;
}

int64_t sp_map_bin(int64_t i) {
    int n = doublings(i);
    return n * BINS_OF_A_DOUBLING + (i >> n);
}

int64_t sp_map_bin_first(int64_t bin) {
    int64_t n = bin < 2 * BINS_OF_A_DOUBLING ? 0 : bin / BINS_OF_A_DOUBLING - 1;
    return (bin - n * BINS_OF_A_DOUBLING) << n;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* What is kept while sequences of one length are walked: S of them at a time, each with sums of its own. */
typedef struct map_walk {
    int64_t S, H, T, n_words, n_bins;
    sp_map_head *heads;         /* (S,H) */
    sp_map_bin_sums *bins;      /* (S,H,n_bins) */
    double *weight, *share;     /* (S,H,T): sums over the queries so far, by key */
    int64_t *n_seen, *n_live;   /* (T), (S,H,T): queries that saw the key; those of them that are not silent */
    uint64_t *live, *seen_bits; /* (S,H,SP_MAP_ROWS,n_words), (SP_MAP_ROWS,n_words) */
    uint64_t *united;           /* (S,H,2,n_words): workspace */
    int64_t n_rows;             /* of SP_MAP_ROWS, that are walked */
    void *memory;
} map_walk;

static int64_t carve(map_walk *walk) {
    int64_t used = 0, n = walk->S * walk->H;
    walk->heads = sp_carve(walk->memory, &used, n, sizeof *walk->heads);
    walk->bins = sp_carve(walk->memory, &used, n * walk->n_bins, sizeof *walk->bins);
    walk->weight = sp_carve(walk->memory, &used, n * walk->T, sizeof *walk->weight);
    walk->share = sp_carve(walk->memory, &used, n * walk->T, sizeof *walk->share);
    walk->n_seen = sp_carve(walk->memory, &used, walk->T, sizeof *walk->n_seen);
    walk->n_live = sp_carve(walk->memory, &used, n * walk->T, sizeof *walk->n_live);
    walk->live = sp_carve(walk->memory, &used, n * SP_MAP_ROWS * walk->n_words, sizeof *walk->live);
    walk->seen_bits = sp_carve(walk->memory, &used, SP_MAP_ROWS * walk->n_words, sizeof *walk->seen_bits);
    walk->united = sp_carve(walk->memory, &used, n * 2 * walk->n_words, sizeof *walk->united);
    return used;
}

static sp_status walk_open(map_walk *walk, const sp_map_sums *sums, int64_t S) {
    *walk = (map_walk){.S = S, .H = sums->H, .T = sums->T, .n_bins = sums->n_bins};
    walk->n_words = sp_round_up((sums->T + WORD - 1) / WORD, 2); /* blocks of 128 keys reach past the last one */
    SP_TRY(sp_allocate(&walk->memory, carve(walk), "measures of whole rows"));
    carve(walk);
    return SP_OK;
}

sp_status sp_map_sums_open(sp_map_sums *sums, const sp_model_config *config, int64_t T) {
    int64_t n_heads = config->n_heads, n_heads_all = config->n_layers * n_heads;
    *sums = (sp_map_sums){.H = n_heads, .T = T, .n_bins = sp_map_bin(T - 1) + 1, .group = n_heads / config->n_kv_heads};
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_allocate((void **)&sums->heads, n_heads_all * (int64_t)sizeof *sums->heads, "measures"));
    SP_TRY_OR_DONE(sp_allocate((void **)&sums->bins, sums->n_bins * (int64_t)sizeof *sums->bins, "measures"));
done:
    if (status != SP_OK) sp_map_sums_close(sums);
    return status;
}

void sp_map_sums_close(sp_map_sums *sums) {
    free(sums->heads);
    free(sums->bins);
    *sums = (sp_map_sums){0};
}

static void merge_head(sp_map_head *sum, const sp_map_head *more) {
    for (int i = 0; i < SP_BLOCK_SIZES; i++) {
        sum->n_blocks[i] += more->n_blocks[i];
        sum->n_dead[i] += more->n_dead[i];
    }
    sum->n_queries += more->n_queries;
    sum->n_live += more->n_live;
    sum->largest += more->largest;
    sum->largest_share += more->largest_share;
    sum->n_wide += more->n_wide;
    sum->entropy += more->entropy;
    sum->entropy_share += more->entropy_share;
    sum->n_sequences += more->n_sequences;
    sum->n_elsewhere += more->n_elsewhere;
}

static void merge_bin(sp_map_bin_sums *sum, const sp_map_bin_sums *more) {
    sum->n_keys += more->n_keys;
    sum->n_sinks += more->n_sinks;
    sum->key_weight += more->key_weight;
    sum->key_share += more->key_share;
    sum->n_queries += more->n_queries;
    sum->n_live += more->n_live;
    sum->largest += more->largest;
    sum->largest_share += more->largest_share;
}

/* ---- one row ----------------------------------------------------------------------------------------------------- */

typedef struct row_sums {
    double mass, entropy; /* entropy in nats, of the weights divided by their sum */
    float largest;
} row_sums;

/* -sum p ln p = ln mass - (sum w ln w) / mass */
static row_sums sum_row(const float *weights, int64_t first, int64_t end) {
    row_sums row = {0};
    double logs = 0;
    for (int64_t j = first; j < end; j++) {
        float w = weights[j];
        if (!(w > 0)) continue;
        row.mass += (double)w;
        logs += (double)w * (double)logf(w);
        if (w > row.largest) row.largest = w;
    }
    if (row.mass > 0) row.entropy = fmax(0, log(row.mass) - logs / row.mass);
    return row;
}

static void set_bits(uint64_t *words, const float *weights, int64_t first, int64_t end) {
    for (int64_t j = first; j < end; j++) words[j / WORD] |= (uint64_t)(weights[j] > 0) << j % WORD;
}

/* at: s * H + h */
static void add_to_keys(const map_walk *walk, int64_t at, const float *weights, int64_t first, int64_t end,
                        double mass) {
    double *weight = walk->weight + at * walk->T, *share = walk->share + at * walk->T;
    int64_t *n_live = walk->n_live + at * walk->T;
    if (!(mass > 0)) return;
    for (int64_t j = first; j < end; j++) {
        weight[j] += (double)weights[j];
        share[j] += (double)weights[j] / mass;
        n_live[j]++;
    }
}

static void add_to_head(sp_map_head *head, const row_sums *row, int64_t n_keys) {
    head->n_queries++;
    head->largest += (double)row->largest;
    if (!(row->mass > 0)) return;
    head->n_live++;
    head->largest_share += (double)row->largest / row->mass;
    head->entropy += row->entropy;
    if (n_keys < 2) return;
    head->n_wide++;
    head->entropy_share += row->entropy / log((double)n_keys);
}

static void add_to_bin(sp_map_bin_sums *bin, const row_sums *row) {
    bin->n_queries++;
    bin->largest += (double)row->largest;
    if (!(row->mass > 0)) return;
    bin->n_live++;
    bin->largest_share += (double)row->largest / row->mass;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

static bool any_bit(const uint64_t *words, int64_t first, int64_t n) {
    if (n >= WORD) {
        for (int64_t i = 0; i < n / WORD; i++)
            if (words[first / WORD + i]) return true;
        return false;
    }
    return words[first / WORD] >> first % WORD & ((UINT64_C(1) << n) - 1);
}

/* Counts blocks of one row of blocks: those with a key that is seen, and those of them with no live one. */
static void count_row(const map_walk *walk, int64_t keys, const uint64_t *live, const uint64_t *seen, int64_t *n_blocks,
                      int64_t *n_dead) {
    for (int64_t w = 0; keys == 1 && w < walk->n_words; w++) {
        *n_blocks += __builtin_popcountll(seen[w]);
        *n_dead += __builtin_popcountll(seen[w] & ~live[w]);
    }
    for (int64_t j = 0; keys > 1 && j < walk->T; j += keys) {
        bool is_seen = any_bit(seen, j, keys);
        *n_blocks += is_seen;
        *n_dead += is_seen && !any_bit(live, j, keys);
    }
}

/* sum |= words of `n` rows */
static void unite(uint64_t *sum, const uint64_t *rows, int64_t n_rows, int64_t n_words) {
    for (int64_t t = 0; t < n_rows; t++)
        for (int64_t w = 0; w < n_words; w++) sum[w] |= rows[t * n_words + w];
}

/* Blocks of one size in the rows of head `at` and the n_heads - 1 after it. */
static void count_size(const map_walk *walk, int i, int64_t at, int64_t n_heads) {
    const sp_block_size *size = &sp_block_sizes[i];
    int64_t n_words = walk->n_words;
    uint64_t *live = walk->united + at * 2 * n_words, *seen = live + n_words;
    for (int64_t t = 0; t < walk->n_rows; t += size->queries) {
        int64_t n = walk->n_rows - t < size->queries ? walk->n_rows - t : size->queries;
        memset(live, 0, (size_t)(2 * n_words) * sizeof *live);
        for (int64_t g = 0; g < n_heads; g++)
            unite(live, walk->live + ((at + g) * SP_MAP_ROWS + t) * n_words, n, n_words);
        unite(seen, walk->seen_bits + t * n_words, n, n_words);
        count_row(walk, size->keys, live, seen, &walk->heads[at].n_blocks[i], &walk->heads[at].n_dead[i]);
    }
}

static void count_sizes(const map_walk *walk, bool group, int64_t at, int64_t n_heads) {
    for (int i = 0; i < SP_BLOCK_SIZES; i++)
        if (sp_block_sizes[i].group == group) count_size(walk, i, at, n_heads);
}

/* ---- the walk ---------------------------------------------------------------------------------------------------- */

/* t counts within the rows that are walked; the last one closes them. */
static void add_row(void *user, int64_t b, int64_t h, int64_t t, const float *weights, const float *scores,
                    int64_t first, int64_t end) {
    (void)scores;
    const map_walk *walk = user;
    int64_t at = b * walk->H + h;
    row_sums row = sum_row(weights, first, end);
    set_bits(walk->live + (at * SP_MAP_ROWS + t) * walk->n_words, weights, first, end);
    add_to_keys(walk, at, weights, first, end, row.mass);
    add_to_head(&walk->heads[at], &row, end - first);
    if (end > first) add_to_bin(&walk->bins[at * walk->n_bins + sp_map_bin(end - first - 1)], &row);
    if (t + 1 == walk->n_rows) count_sizes(walk, false, at, 1);
}

/* Queries [t, t + n) of `walk->S` sequences and the keys up to the last of them, as a problem of its own: the last query
 * sees the last key, and positions are what they were. */
static sp_attention part_of(const map_walk *walk, const sp_attention *problem, const sp_sequence *sequence, int64_t t) {
    sp_attention part = *problem;
    part.cu_q = part.cu_k = part.key_lengths = NULL;
    part.q.data = sp_problem_row(&problem->q, sequence->b, sequence->q_first + t, 0);
    part.k.data = sp_problem_row(&problem->k, sequence->b, sequence->k_first, 0);
    part.q.shape[0] = part.k.shape[0] = walk->S;
    part.q.shape[1] = walk->n_rows;
    part.k.shape[1] = t + walk->n_rows;
    return part;
}

static void mark_seen(const map_walk *walk, const sp_attention *problem, const sp_sequence *sequence, int64_t t) {
    memset(walk->seen_bits, 0, (size_t)(SP_MAP_ROWS * walk->n_words) * sizeof *walk->seen_bits);
    for (int64_t i = 0; i < walk->n_rows; i++) {
        sp_key_range keys = sp_problem_visible(problem, sequence, t + i);
        for (int64_t j = keys.first; j < keys.end; j++) {
            walk->seen_bits[i * walk->n_words + j / WORD] |= UINT64_C(1) << j % WORD;
            walk->n_seen[j]++;
        }
    }
}

/* What a sequence of n tokens says of its keys. */
static void close_keys(const map_walk *walk, int64_t at, int64_t n) {
    bool elsewhere = false;
    for (int64_t j = 0; j < n; j++) {
        int64_t key = at * walk->T + j, n_live = walk->n_live[key];
        if (walk->n_seen[j] == 0) continue;
        sp_map_bin_sums *bin = &walk->bins[at * walk->n_bins + sp_map_bin(j)];
        double weight = walk->weight[key] / (double)walk->n_seen[j];
        bool is_sink = weight > SP_KEY_SINK;
        bin->n_keys++;
        bin->n_sinks += is_sink;
        bin->key_weight += weight;
        if (n_live) bin->key_share += walk->share[key] / (double)n_live;
        elsewhere = elsewhere || (is_sink && j > 0 && 2 * j < n);
    }
    walk->heads[at].n_sequences++;
    walk->heads[at].n_elsewhere += elsewhere;
}

/* Walks sequences i .. i + S - 1, which are alike but for their numbers. */
static sp_status walk_sequences(map_walk *walk, const sp_host_problem *host, int64_t i, int64_t group,
                                int64_t length_min) {
    const sp_attention *problem = &host->problem;
    const sp_sequence sequence = sp_problem_sequence(problem, i);
    SP_REQUIRE(sequence.n_q == sequence.n_k && sequence.n_q <= walk->T, SP_INTERNAL,
               "a sequence of %" PRId64 " queries and %" PRId64 " keys does not fit samples of %" PRId64 " tokens",
               sequence.n_q, sequence.n_k, walk->T);
    int64_t n_heads = walk->S * walk->H;
    memset(walk->memory, 0, (size_t)carve(walk));
    for (int64_t t = 0; t < sequence.n_q; t += SP_MAP_ROWS) {
        walk->n_rows = sequence.n_q - t < SP_MAP_ROWS ? sequence.n_q - t : SP_MAP_ROWS;
        sp_attention part = part_of(walk, problem, &sequence, t);
        memset(walk->live, 0, (size_t)(n_heads * SP_MAP_ROWS * walk->n_words) * sizeof *walk->live);
        mark_seen(walk, problem, &sequence, t);
        SP_TRY(sp_host_problem_rows(host, &part, add_row, walk));
        for (int64_t at = 0; at < n_heads; at += group) count_sizes(walk, true, at, group);
    }
    if (sequence.n_q == 0 || sequence.n_q < length_min) return SP_OK;
    for (int64_t at = 0; at < n_heads; at++) close_keys(walk, at, sequence.n_q);
    return SP_OK;
}

static void merge_walk(sp_map_sums *sums, int64_t layer, const map_walk *walk) {
    for (int64_t at = 0; at < walk->S * walk->H; at++) {
        merge_head(&sums->heads[layer * walk->H + at % walk->H], &walk->heads[at]);
        for (int64_t i = 0; i < walk->n_bins; i++) merge_bin(&sums->bins[i], &walk->bins[at * walk->n_bins + i]);
    }
}

sp_status sp_map_sums_add(sp_map_sums *sums, int64_t layer, const sp_attention *problem, int64_t length_min) {
    sp_host_problem host;
    map_walk walk = {0};
    SP_TRY(sp_host_problem_begin(&host, problem));
    sp_status status = walk_open(&walk, sums, problem->cu_q ? 1 : problem->q.shape[0]);
    for (int64_t i = 0; status == SP_OK && i < sp_problem_n_sequences(problem); i += walk.S) {
        status = walk_sequences(&walk, &host, i, sums->group, length_min);
        if (status == SP_OK) merge_walk(sums, layer, &walk);
    }
    sp_host_problem_end(&host);
    free(walk.memory);
    return status;
}
