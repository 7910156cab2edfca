/* Backward over packed bf16 pairs, the part that is the same for every instruction set: chunks, workspace, threads.
 *
 *   workspace   | items | parts | dsink, drow_factor of each part | shared queries | shared parts of dq |
 *               | scratch of thread 0 | scratch of thread 1 | ...
 *
 * each at a multiple of SP_ALIGNMENT.  Shared queries and dq are there if some sequence has more than one chunk. */
#include "attention/cpu/pairs_backward.h"

#include <omp.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/status.h"

enum {
    SLAB_NUMBERS = 1 << 15, /* of k: a slab's operands and sums (about 14 bytes each) fill a part of a 2 MB cache */
    MOST_KEYS = 256,        /* of a slab */
    BLOCK_QUERIES = 256,
    MANY_ITEMS = 32, /* chunks are made until there are as many items */
};

/* ---- workspace -------------------------------------------------------------------------------------------------- */

int64_t sp_pairs_queries_carve(const sp_pairs_backward *plan, char *base, int64_t n_rows, sp_pairs_queries *queries) {
    int64_t used = 0;
    queries->q_columns = sp_carve(base, &used, n_rows * plan->D, sizeof(uint16_t));
    queries->dout_columns = sp_carve(base, &used, n_rows * plan->Dv, sizeof(uint16_t));
    queries->q_rows = sp_carve(base, &used, n_rows * plan->D, sizeof(uint16_t));
    queries->dout_rows = sp_carve(base, &used, n_rows * plan->Dv, sizeof(uint16_t));
    queries->constants = sp_carve(base, &used, n_rows * SP_PAIRS_ROW_CONSTANTS, sizeof(float));
    return used;
}

int64_t sp_pairs_backward_carve(const sp_pairs_backward *plan, char *base, sp_pairs_backward_scratch *scratch) {
    int64_t used = 0, pairs = plan->slab * plan->n_block, own_rows = plan->n_chunks > 1 ? 0 : plan->max_q;
    sp_pairs_keys *keys = &scratch->keys;
    scratch->weight = sp_carve(base, &used, pairs, sizeof(uint16_t));
    scratch->gradient = sp_carve(base, &used, pairs, sizeof(uint16_t));
    scratch->gradient_pairs = sp_carve(base, &used, pairs, sizeof(uint16_t));
    keys->k_rows = sp_carve(base, &used, plan->max_k * plan->D, sizeof(uint16_t));
    keys->v_rows = sp_carve(base, &used, plan->max_k * plan->Dv, sizeof(uint16_t));
    keys->k_columns = sp_carve(base, &used, plan->max_k * plan->D, sizeof(uint16_t));
    keys->dk = sp_carve(base, &used, plan->max_k * plan->D, sizeof(float));
    keys->dv = sp_carve(base, &used, plan->max_k * plan->Dv, sizeof(float));
    keys->wild = sp_carve(base, &used, plan->max_k / SP_PAIRS_UNIT, 1);
    scratch->dq = sp_carve(base, &used, own_rows * plan->D, sizeof(float));
    return used + sp_pairs_queries_carve(plan, base ? base + used : NULL, own_rows, &scratch->queries);
}

/* Points the plan into `base` and returns how many bytes it takes. */
static int64_t carve(sp_pairs_backward *plan, char *base) {
    int64_t used = 0, H = plan->problem->q.shape[2], shared = plan->n_chunks > 1 ? H * plan->n_rows : 0;
    int64_t n_sums = H * plan->n_parts;
    plan->items = sp_carve(base, &used, plan->n_items, sizeof *plan->items);
    plan->parts = sp_carve(base, &used, plan->n_parts, sizeof *plan->parts);
    plan->dsink = sp_carve(base, &used, n_sums, sizeof(double));
    plan->drow_factor = sp_carve(base, &used, n_sums, sizeof(double));
    plan->queries = sp_carve(base, &used, sp_pairs_queries_carve(plan, NULL, shared, &(sp_pairs_queries){0}), 1);
    plan->dq = sp_carve(base, &used, shared * plan->D, (size_t)plan->n_chunks * sizeof(float));
    plan->scratch_bytes = sp_pairs_backward_carve(plan, NULL, &(sp_pairs_backward_scratch){0});
    plan->scratch = base ? base + used : NULL;
    sp_carve(NULL, &used, plan->n_threads, (size_t)plan->scratch_bytes);
    return used;
}

/* ---- the plan --------------------------------------------------------------------------------------------------- */

static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Counts what the sequences hold; the longest first. */
static void plan_measure(sp_pairs_backward *plan) {
    for (int64_t i = 0; i < sp_problem_n_sequences(plan->problem); i++) {
        sp_sequence sequence = sp_problem_sequence(plan->problem, i);
        int64_t rows = sp_round_up(sequence.n_q, SP_PAIRS_UNIT);
        plan->max_q = most(plan->max_q, rows);
        plan->max_k = most(plan->max_k, sp_round_up(sequence.n_k, SP_PAIRS_UNIT));
        plan->n_rows += rows;
        plan->n_parts += (sequence.n_q + SP_PAIRS_PART - 1) / SP_PAIRS_PART;
    }
}

/* As few chunks of whole slabs as give many items. */
static void plan_chunks(sp_pairs_backward *plan) {
    int64_t n_heads = sp_problem_n_sequences(plan->problem) * plan->problem->k.shape[2];
    int64_t wanted = n_heads ? (MANY_ITEMS + n_heads - 1) / n_heads : 1;
    plan->chunk = most(sp_round_up((plan->max_k + wanted - 1) / wanted, plan->slab), plan->slab);
    plan->n_chunks = most((plan->max_k + plan->chunk - 1) / plan->chunk, 1);
    if (plan->max_k > plan->chunk) plan->max_k = plan->chunk;
    for (int64_t i = 0; i < sp_problem_n_sequences(plan->problem); i++) {
        sp_sequence sequence = sp_problem_sequence(plan->problem, i);
        plan->n_items += sp_pairs_n_chunks(plan, &sequence) * plan->problem->k.shape[2];
    }
}

static sp_pairs_backward plan_begin(const sp_attention *problem, int n_threads) {
    sp_pairs_backward plan = {.problem = problem,
                              .D = sp_round_up(problem->q.shape[3], SP_PAIRS_UNIT),
                              .Dv = sp_round_up(problem->v.shape[3], SP_PAIRS_UNIT),
                              .n_block = BLOCK_QUERIES,
                              .n_threads = n_threads > 0 ? n_threads : omp_get_max_threads()};
    int64_t slab = SLAB_NUMBERS / most(plan.D, plan.Dv) / SP_PAIRS_UNIT * SP_PAIRS_UNIT;
    plan.slab = slab < MOST_KEYS ? slab : MOST_KEYS;
    plan_measure(&plan);
    plan_chunks(&plan);
    if (plan.n_threads > plan.n_items) plan.n_threads = (int)most(plan.n_items, 1);
    return plan;
}

/* Scores of the chunk's keys. */
static int64_t count_scores(const sp_pairs_backward *plan, const sp_sequence *sequence, int64_t chunk) {
    int64_t first = chunk * plan->chunk, end = first + plan->chunk, count = 1;
    for (int64_t t = 0; t < sequence->n_q; t += SP_PAIRS_UNIT) {
        sp_key_range keys = sp_problem_visible(plan->problem, sequence, t);
        int64_t seen = (keys.end < end ? keys.end : end) - most(keys.first, first);
        count += most(seen, 0);
    }
    return count;
}

/* Longest first; the rest decides ties, so that the order is always the same. */
static int compare_items(const void *left, const void *right) {
    const sp_pairs_backward_item *a = left, *b = right;
    if (a->work != b->work) return a->work < b->work ? 1 : -1;
    if (a->sequence != b->sequence) return a->sequence < b->sequence ? -1 : 1;
    if (a->head != b->head) return a->head < b->head ? -1 : 1;
    return a->chunk < b->chunk ? -1 : a->chunk > b->chunk;
}

static void list_items(sp_pairs_backward *plan) {
    sp_pairs_backward_item *item = plan->items;
    int64_t part = 0, row = 0;
    for (int64_t i = 0; i < sp_problem_n_sequences(plan->problem); i++) {
        sp_sequence sequence = sp_problem_sequence(plan->problem, i);
        for (int64_t chunk = 0; chunk < sp_pairs_n_chunks(plan, &sequence); chunk++) {
            int64_t work = count_scores(plan, &sequence, chunk);
            for (int64_t h = 0; h < plan->problem->k.shape[2]; h++)
                *item++ = (sp_pairs_backward_item){
                    .sequence = i, .head = h, .chunk = chunk, .first_part = part, .row = row, .work = work};
        }
        for (int64_t first = 0; first < sequence.n_q; first += SP_PAIRS_PART)
            plan->parts[part++] = (sp_pairs_backward_part){.sequence = i, .first = first, .row = row};
        row += sp_round_up(sequence.n_q, SP_PAIRS_UNIT);
    }
    qsort(plan->items, (size_t)plan->n_items, sizeof *plan->items, compare_items);
}

sp_status sp_pairs_backward_workspace(const sp_attention *problem, int n_threads, int64_t *n_bytes) {
    sp_pairs_backward plan = plan_begin(problem, n_threads);
    *n_bytes = carve(&plan, NULL);
    SP_REQUIRE(*n_bytes < INT64_MAX, SP_OUT_OF_MEMORY, "the workspace of this attention is too large to count");
    return SP_OK;
}

/* ---- running ---------------------------------------------------------------------------------------------------- */

static void add_sums(const sp_pairs_backward *plan) {
    const sp_attention *problem = plan->problem;
    for (int64_t h = 0; h < problem->q.shape[2]; h++) {
        double dsink = 0, drow_factor = 0;
        for (int64_t part = h * plan->n_parts; part < (h + 1) * plan->n_parts; part++) {
            dsink += plan->dsink[part];
            drow_factor += plan->drow_factor[part];
        }
        if (problem->dsink) problem->dsink[h] += (float)dsink;
        if (problem->drow_factor) problem->drow_factor[h] += (float)drow_factor;
    }
}

/* The work of each thread: queries are packed before and dq is stored after the items where chunks share them. */
static void run_thread(const sp_pairs_backward_body *body, const sp_pairs_backward *plan) {
    int64_t n_shared = plan->n_chunks > 1 ? plan->n_parts * plan->problem->q.shape[2] : 0;
    char *scratch = plan->scratch + omp_get_thread_num() * plan->scratch_bytes;
    body->open();
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < n_shared; i++) body->pack(plan, i % plan->n_parts, i / plan->n_parts);
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < plan->n_items; i++) body->item(plan, &plan->items[i], scratch);
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < n_shared; i++) body->store(plan, i % plan->n_parts, i / plan->n_parts);
    body->close();
}

void sp_pairs_backward_run(const sp_pairs_backward_body *body, const sp_attention *problem, int n_threads,
                           void *workspace) {
    sp_pairs_backward plan = plan_begin(problem, n_threads);
    carve(&plan, workspace);
    if (plan.n_items == 0) return;
    list_items(&plan);
#pragma omp parallel num_threads(plan.n_threads)
    run_thread(body, &plan);
    add_sums(&plan);
}
