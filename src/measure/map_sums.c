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

/* What is kept while a sequence is walked. */
typedef struct map_walk {
    int64_t T, n_words, H;
    sp_map_sums *sums;
    sp_map_head *heads;         /* (H) of the layer */
    double *weight, *share;     /* (H,T): sums over the queries so far, by key */
    int64_t *n_seen, *n_live;   /* (T), (H,T): queries that saw the key; those of them that are not silent */
    uint64_t *live, *seen_bits; /* (H,SP_MAP_ROWS,n_words), (SP_MAP_ROWS,n_words) */
} map_walk;

static map_walk walk_of(sp_map_sums *sums, void *memory, int64_t *used) {
    map_walk walk = {.T = sums->T, .H = sums->H, .n_words = (sums->T + WORD - 1) / WORD, .sums = sums};
    walk.n_words = sp_round_up(walk.n_words, 2); /* blocks of 128 keys reach past the last one */
    *used = 0;
    walk.weight = sp_carve(memory, used, walk.H * walk.T, sizeof *walk.weight);
    walk.share = sp_carve(memory, used, walk.H * walk.T, sizeof *walk.share);
    walk.n_seen = sp_carve(memory, used, walk.T, sizeof *walk.n_seen);
    walk.n_live = sp_carve(memory, used, walk.H * walk.T, sizeof *walk.n_live);
    walk.live = sp_carve(memory, used, walk.H * SP_MAP_ROWS * walk.n_words, sizeof *walk.live);
    walk.seen_bits = sp_carve(memory, used, SP_MAP_ROWS * walk.n_words, sizeof *walk.seen_bits);
    return walk;
}

sp_status sp_map_sums_open(sp_map_sums *sums, const sp_model_config *config, int64_t T) {
    int64_t n_layers = config->n_layers, n_heads = config->n_heads;
    *sums = (sp_map_sums){
        .L = n_layers, .H = n_heads, .T = T, .n_bins = sp_map_bin(T - 1) + 1, .group = n_heads / config->n_kv_heads};
    int64_t used, n_heads_all = n_layers * n_heads;
    sp_status status = SP_OK;
    walk_of(sums, NULL, &used);
    SP_TRY_OR_DONE(sp_allocate((void **)&sums->heads, n_heads_all * (int64_t)sizeof *sums->heads, "measures"));
    SP_TRY_OR_DONE(sp_allocate((void **)&sums->bins, n_heads * sums->n_bins * (int64_t)sizeof *sums->bins, "measures"));
    SP_TRY_OR_DONE(sp_allocate(&sums->memory, used, "measures of whole rows"));
done:
    if (status != SP_OK) sp_map_sums_close(sums);
    return status;
}

void sp_map_sums_close(sp_map_sums *sums) {
    free(sums->heads);
    free(sums->bins);
    free(sums->memory);
    *sums = (sp_map_sums){0};
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

static void add_to_keys(const map_walk *walk, int64_t h, const float *weights, int64_t first, int64_t end,
                        double mass) {
    double *weight = walk->weight + h * walk->T, *share = walk->share + h * walk->T;
    int64_t *n_live = walk->n_live + h * walk->T;
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

/* t counts within the SP_MAP_ROWS queries of the walk. */
static void add_row(void *user, int64_t b, int64_t h, int64_t t, const float *weights, const float *scores,
                    int64_t first, int64_t end) {
    (void)b, (void)scores;
    const map_walk *walk = user;
    row_sums row = sum_row(weights, first, end);
    set_bits(walk->live + (h * SP_MAP_ROWS + t) * walk->n_words, weights, first, end);
    add_to_keys(walk, h, weights, first, end, row.mass);
    add_to_head(&walk->heads[h], &row, end - first);
    if (end > first) add_to_bin(&walk->sums->bins[h * walk->sums->n_bins + sp_map_bin(end - first - 1)], &row);
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
static void count_blocks(const map_walk *walk, const sp_block_size *size, const uint64_t *live, const uint64_t *seen,
                         int64_t *n_blocks, int64_t *n_dead) {
    for (int64_t w = 0; size->keys == 1 && w < walk->n_words; w++) {
        *n_blocks += __builtin_popcountll(seen[w]);
        *n_dead += __builtin_popcountll(seen[w] & ~live[w]);
    }
    for (int64_t j = 0; size->keys > 1 && j < walk->T; j += size->keys) {
        bool is_seen = any_bit(seen, j, size->keys);
        *n_blocks += is_seen;
        *n_dead += is_seen && !any_bit(live, j, size->keys);
    }
}

/* sum |= words of `n` rows */
static void unite(uint64_t *sum, const uint64_t *rows, int64_t n_rows, int64_t n_words) {
    for (int64_t t = 0; t < n_rows; t++)
        for (int64_t w = 0; w < n_words; w++) sum[w] |= rows[t * n_words + w];
}

/* Blocks of one size in the walk's n rows, of head h and the heads after it that share its key; `united` (2,n_words). */
static void count_size(const map_walk *walk, int i, int64_t h, int64_t n_heads, int64_t n, uint64_t *united) {
    const sp_block_size *size = &sp_block_sizes[i];
    sp_map_head *head = &walk->heads[h];
    for (int64_t t = 0; t < n; t += size->queries) {
        int64_t n_rows = n - t < size->queries ? n - t : size->queries;
        memset(united, 0, (size_t)(2 * walk->n_words) * sizeof *united);
        for (int64_t g = 0; g < n_heads; g++)
            unite(united, walk->live + ((h + g) * SP_MAP_ROWS + t) * walk->n_words, n_rows, walk->n_words);
        unite(united + walk->n_words, walk->seen_bits + t * walk->n_words, n_rows, walk->n_words);
        count_blocks(walk, size, united, united + walk->n_words, &head->n_blocks[i], &head->n_dead[i]);
    }
}

static sp_status count_all_blocks(const map_walk *walk, int64_t n, int64_t group) {
    bool failed = false;
#pragma omp parallel reduction(|| : failed)
    {
        uint64_t *united = malloc((size_t)(2 * walk->n_words) * sizeof *united);
        failed = !united;
#pragma omp for schedule(static)
        for (int64_t h = 0; h < walk->H; h++)
            for (int i = 0; united && i < SP_BLOCK_SIZES; i++) {
                if (!sp_block_sizes[i].group)
                    count_size(walk, i, h, 1, n, united);
                else if (h % group == 0)
                    count_size(walk, i, h, group, n, united);
            }
        free(united);
    }
    SP_REQUIRE(!failed, SP_OUT_OF_MEMORY, "no memory to count blocks of attention weights");
    return SP_OK;
}

/* ---- one sequence ------------------------------------------------------------------------------------------------ */

/* Queries [t, t + n) of the sequence and the keys up to the last of them, as a problem of its own: the last query sees
 * the last key, and positions are what they were. */
static sp_attention part_of(const sp_attention *problem, const sp_sequence *sequence, int64_t t, int64_t n) {
    sp_attention part = *problem;
    part.cu_q = part.cu_k = part.key_lengths = NULL;
    part.q.data = sp_problem_row(&problem->q, sequence->b, sequence->q_first + t, 0);
    part.k.data = sp_problem_row(&problem->k, sequence->b, sequence->k_first, 0);
    part.q.shape[0] = part.k.shape[0] = 1;
    part.q.shape[1] = n;
    part.k.shape[1] = t + n;
    return part;
}

static void mark_seen(map_walk *walk, const sp_attention *problem, const sp_sequence *sequence, int64_t t, int64_t n) {
    memset(walk->seen_bits, 0, (size_t)(SP_MAP_ROWS * walk->n_words) * sizeof *walk->seen_bits);
    for (int64_t i = 0; i < n; i++) {
        sp_key_range keys = sp_problem_visible(problem, sequence, t + i);
        for (int64_t j = keys.first; j < keys.end; j++) {
            walk->seen_bits[i * walk->n_words + j / WORD] |= UINT64_C(1) << j % WORD;
            walk->n_seen[j]++;
        }
    }
}

/* What the sequence of n tokens says of its keys. */
static void close_head(const map_walk *walk, int64_t h, int64_t n) {
    bool elsewhere = false;
    for (int64_t j = 0; j < n; j++) {
        if (walk->n_seen[j] == 0) continue;
        sp_map_bin_sums *bin = &walk->sums->bins[h * walk->sums->n_bins + sp_map_bin(j)];
        int64_t at = h * walk->T + j, n_live = walk->n_live[at];
        double weight = walk->weight[at] / (double)walk->n_seen[j];
        bool is_sink = weight > SP_KEY_SINK;
        bin->n_keys++;
        bin->n_sinks += is_sink;
        bin->key_weight += weight;
        if (n_live) bin->key_share += walk->share[at] / (double)n_live;
        elsewhere = elsewhere || (is_sink && j > 0 && 2 * j < n);
    }
    walk->heads[h].n_sequences++;
    walk->heads[h].n_elsewhere += elsewhere;
}

static sp_status add_sequence(map_walk *walk, const sp_attention *problem, int64_t i, int64_t length_min) {
    const sp_sequence sequence = sp_problem_sequence(problem, i);
    SP_REQUIRE(sequence.n_q == sequence.n_k && sequence.n_q <= walk->T, SP_INTERNAL,
               "a sequence of %" PRId64 " queries and %" PRId64 " keys does not fit samples of %" PRId64 " tokens",
               sequence.n_q, sequence.n_k, walk->T);
    memset(walk->weight, 0, (size_t)(walk->H * walk->T) * sizeof *walk->weight);
    memset(walk->share, 0, (size_t)(walk->H * walk->T) * sizeof *walk->share);
    memset(walk->n_seen, 0, (size_t)walk->T * sizeof *walk->n_seen);
    memset(walk->n_live, 0, (size_t)(walk->H * walk->T) * sizeof *walk->n_live);
    for (int64_t t = 0; t < sequence.n_q; t += SP_MAP_ROWS) {
        int64_t n = sequence.n_q - t < SP_MAP_ROWS ? sequence.n_q - t : SP_MAP_ROWS;
        sp_attention part = part_of(problem, &sequence, t, n);
        memset(walk->live, 0, (size_t)(walk->H * SP_MAP_ROWS * walk->n_words) * sizeof *walk->live);
        mark_seen(walk, problem, &sequence, t, n);
        SP_TRY(sp_attention_rows(&part, add_row, walk));
        SP_TRY(count_all_blocks(walk, n, walk->sums->group));
    }
    if (sequence.n_q == 0 || sequence.n_q < length_min) return SP_OK;
#pragma omp parallel for schedule(static)
    for (int64_t h = 0; h < walk->H; h++) close_head(walk, h, sequence.n_q);
    return SP_OK;
}

sp_status sp_map_sums_add(sp_map_sums *sums, int64_t layer, const sp_attention *problem, int64_t length_min) {
    int64_t used;
    map_walk walk = walk_of(sums, sums->memory, &used);
    walk.heads = sums->heads + layer * sums->H;
    sp_host_problem host;
    SP_TRY(sp_host_problem_begin(&host, problem));
    sp_status status = SP_OK;
    for (int64_t i = 0; status == SP_OK && i < sp_problem_n_sequences(problem); i++)
        status = add_sequence(&walk, &host.problem, i, length_min);
    sp_host_problem_end(&host);
    return status;
}
