/* Attention on the CPU, the part that is the same for every instruction set: items, workspace, threads.
 *
 *   workspace   | items | row items | cuts | dsink, drow_factor parts | shared queries and the chunks' dq |
 *               | scratch of thread 0 | scratch of thread 1 | ...
 *
 * each part at a multiple of SP_ALIGNMENT. */
#include "attention/cpu/attention_cpu.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"

/* ---- scratch ---------------------------------------------------------------------------------------------------- */

/* Takes `n` floats, rounded up to whole cache lines. */
static void take(float **member, float *base, int64_t *used, int64_t n) {
    *member = base ? base + *used : NULL;
    *used += sp_round_up(n, SP_CPU_LANES);
}

static int64_t wider(const sp_cpu_plan *plan) { return plan->D > plan->Dv ? plan->D : plan->Dv; }

int64_t sp_cpu_forward_carve(const sp_cpu_plan *plan, float *base, sp_cpu_forward_scratch *scratch) {
    int64_t used = 0;
    take(&scratch->q, base, &used, plan->n_queries * plan->D);
    take(&scratch->out, base, &used, plan->n_queries * plan->Dv);
    take(&scratch->shift, base, &used, plan->n_queries);
    take(&scratch->sum, base, &used, plan->n_queries * SP_CPU_LANES);
    take(&scratch->kt, base, &used, plan->D * SP_CPU_KEYS);
    take(&scratch->v, base, &used, plan->Dv * SP_CPU_KEYS);
    take(&scratch->score, base, &used, SP_CPU_ROWS * SP_CPU_KEYS);
    take(&scratch->row, base, &used, SP_CPU_LANES * wider(plan));
    take(&scratch->notes, base, &used, plan->statistics ? plan->n_queries * SP_CPU_NOTE_FLOATS : 0);
    return used;
}

int64_t sp_cpu_backward_carve(const sp_cpu_plan *plan, float *base, sp_cpu_backward_scratch *scratch) {
    int64_t used = 0, queries = plan->shares ? 0 : plan->max_q;
    take(&scratch->queries.q, base, &used, queries * plan->D);
    take(&scratch->queries.dout, base, &used, queries * plan->Dv);
    take(&scratch->queries.gradient, base, &used, queries * SP_CPU_GRADIENT_FLOATS);
    take(&scratch->queries.dq, base, &used, queries * plan->D);
    scratch->queries.dq_first = 0;
    int64_t part = plan->shares ? SP_CPU_QUERIES_PREPARED : plan->n_chunks > 1 ? sp_cpu_resident_queries(plan) : 0;
    take(&scratch->part, base, &used, part * plan->D);
    take(&scratch->row, base, &used, SP_CPU_LANES * wider(plan));
    take(&scratch->dk, base, &used, plan->chunk_keys * plan->D);
    take(&scratch->dv, base, &used, plan->chunk_keys * plan->Dv);
    take(&scratch->kt, base, &used, plan->D * SP_CPU_KEYS);
    take(&scratch->k, base, &used, plan->D * SP_CPU_KEYS);
    take(&scratch->vt, base, &used, plan->Dv * SP_CPU_KEYS);
    take(&scratch->score, base, &used, SP_CPU_QUERIES_BACKWARD * SP_CPU_KEYS);
    take(&scratch->value, base, &used, SP_CPU_QUERIES_BACKWARD * SP_CPU_KEYS);
    return used;
}

int64_t sp_cpu_rows_carve(const sp_cpu_plan *plan, float *base, sp_cpu_rows_scratch *scratch) {
    int64_t used = 0;
    take(&scratch->q, base, &used, SP_CPU_ROWS * plan->D);
    take(&scratch->kt, base, &used, plan->max_k * plan->D);
    take(&scratch->score, base, &used, SP_CPU_ROWS * plan->max_k);
    take(&scratch->weight, base, &used, plan->max_k);
    take(&scratch->row, base, &used, SP_CPU_LANES * plan->D);
    return used;
}

static int64_t scratch_floats(const sp_cpu_plan *plan, sp_attention_pass pass) {
    return pass == SP_ATTENTION_FORWARD ? sp_cpu_forward_carve(plan, NULL, &(sp_cpu_forward_scratch){0})
                                        : sp_cpu_backward_carve(plan, NULL, &(sp_cpu_backward_scratch){0});
}

/* ---- the plan --------------------------------------------------------------------------------------------------- */

/* What all passes have. */
static sp_cpu_plan plan_common(const sp_attention *problem, int n_threads) {
    sp_cpu_plan plan = {.problem = problem,
                        .D = sp_round_up(problem->q.shape[3], SP_CPU_LANES),
                        .Dv = sp_round_up(problem->v.shape[3], SP_CPU_LANES),
                        .n_chunks = 1,
                        .statistics = sp_problem_wants_statistics(problem),
                        .liveness = sp_problem_liveness_shape(problem),
                        .n_threads = n_threads > 0 ? n_threads : omp_get_max_threads()};
    for (int64_t i = 0; i < sp_problem_n_sequences(problem); i++) {
        sp_sequence sequence = sp_problem_sequence(problem, i);
        if (sequence.n_q > plan.max_q) plan.max_q = sequence.n_q;
        if (sequence.n_k_rows > plan.max_k) plan.max_k = sequence.n_k_rows;
    }
    plan.max_q = sp_round_up(plan.max_q, SP_CPU_ROWS);
    plan.max_k = sp_round_up(plan.max_k, SP_CPU_KEYS);
    return plan;
}

/* The first query whose range of keys ends (or begins, if `begins`) after `key`; n_q if none does. */
static int64_t first_query_after(const sp_attention *problem, const sp_sequence *sequence, int64_t key, bool begins) {
    int64_t low = 0, high = sequence->n_q;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        sp_key_range keys = sp_problem_visible(problem, sequence, middle);
        if ((begins ? keys.first : keys.end) > key)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

sp_cpu_range sp_cpu_queries_that_see(const sp_attention *problem, const sp_sequence *sequence, int64_t first,
                                     int64_t end) {
    if (first >= end) return (sp_cpu_range){0, 0};
    return (sp_cpu_range){first_query_after(problem, sequence, first, false),
                          first_query_after(problem, sequence, end - 1, true)};
}

/* Scores of the block of keys that begins at `key`, about. */
static int64_t block_scores(const sp_attention *problem, const sp_sequence *sequence, int64_t key) {
    sp_cpu_range queries = sp_cpu_queries_that_see(problem, sequence, key, key + SP_CPU_KEYS);
    return queries.end > queries.first ? (queries.end - queries.first) * SP_CPU_KEYS : 0;
}

static int64_t key_scores(const sp_attention *problem, const sp_sequence *sequence) {
    int64_t scores = 0;
    for (int64_t key = 0; key < sequence->n_k; key += SP_CPU_KEYS) scores += block_scores(problem, sequence, key);
    return scores;
}

/* Cuts the keys of a sequence where the scores so far pass the next share; chunks that are left over are empty. */
static void cut_keys(const sp_attention *problem, const sp_sequence *sequence, int64_t n_chunks, int64_t *cuts) {
    int64_t total = n_chunks > 1 ? key_scores(problem, sequence) : 0, n = total / SP_CPU_CHUNK_SCORES, scores = 0,
            cut = 0;
    n = n < 1 ? 1 : n > n_chunks ? n_chunks : n;
    cuts[cut++] = 0;
    for (int64_t key = 0; key < sequence->n_k && cut < n; key += SP_CPU_KEYS) {
        scores += block_scores(problem, sequence, key);
        int64_t next = key + SP_CPU_KEYS;
        if (scores >= total / n * cut && next < sequence->n_k) cuts[cut++] = next;
    }
    while (cut <= n_chunks) cuts[cut++] = sequence->n_k;
}

/* Into how many chunks the keys of a head are cut at most: by the shape alone. */
static int64_t choose_chunks(const sp_attention *problem) {
    int64_t n_sequences = sp_problem_n_sequences(problem), heads = n_sequences * problem->k.shape[2], longest = 1;
    if (heads == 0 || heads >= SP_CPU_CHUNK_ITEMS) return 1;
    for (int64_t i = 0; i < n_sequences; i++) {
        sp_sequence sequence = sp_problem_sequence(problem, i);
        int64_t n = key_scores(problem, &sequence) / SP_CPU_CHUNK_SCORES;
        if (n > longest) longest = n;
    }
    int64_t wanted = (SP_CPU_CHUNK_ITEMS + heads - 1) / heads;
    if (wanted > SP_CPU_CHUNKS) wanted = SP_CPU_CHUNKS;
    return longest < wanted ? longest : wanted;
}

static int64_t longest_chunk(const sp_attention *problem, int64_t n_chunks) {
    int64_t longest = 0;
    for (int64_t i = 0; i < sp_problem_n_sequences(problem); i++) {
        int64_t cuts[SP_CPU_CHUNKS + 1];
        sp_sequence sequence = sp_problem_sequence(problem, i);
        cut_keys(problem, &sequence, n_chunks, cuts);
        for (int64_t c = 0; c < n_chunks; c++)
            if (cuts[c + 1] - cuts[c] > longest) longest = cuts[c + 1] - cuts[c];
    }
    return sp_round_up(longest, SP_CPU_KEYS);
}

static void plan_backward(sp_cpu_plan *plan) {
    const sp_attention *problem = plan->problem;
    int64_t n_sequences = sp_problem_n_sequences(problem), heads = n_sequences * problem->k.shape[2];
    plan->n_chunks = choose_chunks(problem);
    plan->shares = plan->n_chunks > 1 && heads % plan->n_threads != 0 && heads < 2 * (int64_t)plan->n_threads;
    plan->n_items = heads * (plan->shares ? plan->n_chunks : 1);
    plan->n_sums = (plan->max_q + SP_CPU_QUERIES_PREPARED - 1) / SP_CPU_QUERIES_PREPARED;
    plan->chunk_keys = plan->shares ? longest_chunk(problem, plan->n_chunks) : plan->max_k;
    if (!plan->shares) return;
    plan->shared_rows = problem->q.shape[0] * problem->q.shape[1] + n_sequences * SP_CPU_ROWS; /* whole steps */
    plan->n_row_items = sp_items_count_queries(problem, SP_CPU_QUERIES_PREPARED);
}

static sp_cpu_plan plan_begin(const sp_attention *problem, sp_attention_pass pass, int n_threads) {
    sp_cpu_plan plan = plan_common(problem, n_threads);
    if (pass == SP_ATTENTION_FORWARD) {
        plan.n_queries = sp_items_choose_queries(problem, SP_CPU_QUERIES_FORWARD, 8 * SP_CPU_ROWS, plan.n_threads);
        plan.n_items = sp_items_count_queries(problem, plan.n_queries);
    } else {
        plan_backward(&plan);
    }
    if (plan.n_threads > plan.n_items) plan.n_threads = plan.n_items > 1 ? (int)plan.n_items : 1;
    return plan;
}

int64_t sp_cpu_resident_queries(const sp_cpu_plan *plan) {
    int64_t blocks = SP_CPU_RESIDENT_BYTES / 4 / (2 * plan->D + plan->Dv) / SP_CPU_QUERIES_BACKWARD;
    return (blocks > 1 ? blocks : 1) * SP_CPU_QUERIES_BACKWARD;
}

sp_cpu_queries sp_cpu_shared_queries(const sp_cpu_plan *plan, int64_t i, int64_t h, int64_t chunk) {
    const sp_attention *problem = plan->problem;
    sp_sequence sequence = sp_problem_sequence(problem, i);
    int64_t row = sequence.b * problem->q.shape[1] + sequence.q_first + i * SP_CPU_ROWS + h * plan->shared_rows;
    return (sp_cpu_queries){
        .q = plan->shared.q + row * plan->D,
        .dout = plan->shared.dout + row * plan->Dv,
        .gradient = plan->shared.gradient + row * SP_CPU_GRADIENT_FLOATS,
        .dq = plan->shared.dq + (chunk * problem->q.shape[2] * plan->shared_rows + row) * plan->D,
    };
}

/* ---- items ------------------------------------------------------------------------------------------------------ */

static void sort_items(sp_cpu_plan *plan) {
    qsort(plan->items, (size_t)plan->n_items, sizeof *plan->items, sp_items_compare);
}

/* Keys [first, end) of each key/value head of sequence i; returns how many items. */
static int64_t list_key_items(const sp_attention *problem, int64_t i, int64_t chunk, int64_t first, int64_t end,
                              sp_cpu_item *items) {
    sp_sequence sequence = sp_problem_sequence(problem, i);
    sp_cpu_range seen = sp_cpu_queries_that_see(problem, &sequence, first, end);
    int64_t n_heads = problem->k.shape[2], n = end - first;
    for (int64_t h = 0; h < n_heads; h++)
        items[h] = (sp_cpu_item){
            .sequence = i, .head = h, .first = first, .n = n, .chunk = chunk, .work = (seen.end - seen.first) * n};
    return n_heads;
}

/* Cuts the keys, and lists the key/value heads or their chunks: at least one of each head, even without keys, since its
 * dk and dv are to be cleared. */
static void list_backward_items(sp_cpu_plan *plan) {
    const sp_attention *problem = plan->problem;
    int64_t n = 0;
    for (int64_t i = 0; i < sp_problem_n_sequences(problem); i++) {
        sp_sequence sequence = sp_problem_sequence(problem, i);
        int64_t *cuts = plan->cuts + i * (plan->n_chunks + 1);
        cut_keys(problem, &sequence, plan->n_chunks, cuts);
        if (!plan->shares) {
            n += list_key_items(problem, i, 0, 0, sequence.n_k, plan->items + n);
            continue;
        }
        for (int64_t c = 0; c < plan->n_chunks; c++)
            if (c == 0 || cuts[c] < cuts[c + 1])
                n += list_key_items(problem, i, c, cuts[c], cuts[c + 1], plan->items + n);
    }
    plan->n_items = n;
}

/* ---- workspace -------------------------------------------------------------------------------------------------- */

/* Points the plan's lists into `base`; returns where the scratch of the first thread begins.  *fits: false if the bytes
 * are more than can be counted. */
static int64_t plan_place(sp_cpu_plan *plan, void *base) {
    const sp_attention *problem = plan->problem;
    int64_t n_sequences = sp_problem_n_sequences(problem), H = problem->q.shape[2];
    int64_t used = 0, rows = H * plan->shared_rows, n_sums = n_sequences * H * plan->n_sums;
    plan->items = sp_carve(base, &used, plan->n_items, sizeof *plan->items);
    plan->row_items = sp_carve(base, &used, plan->n_row_items, sizeof *plan->row_items);
    plan->cuts = sp_carve(base, &used, n_sequences * (plan->n_chunks + 1), sizeof *plan->cuts);
    plan->dsink = sp_carve(base, &used, n_sums, sizeof *plan->dsink);
    plan->drow_factor = sp_carve(base, &used, n_sums, sizeof *plan->drow_factor);
    plan->shared.q = sp_carve(base, &used, rows * plan->D, sizeof(float));
    plan->shared.dout = sp_carve(base, &used, rows * plan->Dv, sizeof(float));
    plan->shared.gradient = sp_carve(base, &used, rows * SP_CPU_GRADIENT_FLOATS, sizeof(float));
    plan->shared.dq = sp_carve(base, &used, rows * plan->D, (size_t)plan->n_chunks * sizeof(float));
    return used;
}

sp_status sp_cpu_workspace(const sp_attention *problem, sp_attention_pass pass, int n_threads, int64_t *n_bytes) {
    sp_cpu_plan plan = plan_begin(problem, pass, n_threads);
    int64_t scratch, shared = plan_place(&plan, NULL);
    bool fits = sp_multiply_sizes(scratch_floats(&plan, pass), (int64_t)sizeof(float), &scratch) &&
                sp_multiply_sizes(scratch, plan.n_threads, &scratch) && sp_add_sizes(scratch, shared, n_bytes);
    SP_REQUIRE(fits, SP_OUT_OF_MEMORY, "the workspace of this attention is too large to count");
    return SP_OK;
}

/* ---- running ---------------------------------------------------------------------------------------------------- */

/* Sequences shorter than the longest leave some of them as they are. */
static void clear_sums(const sp_cpu_plan *plan) {
    int64_t n = sp_problem_n_sequences(plan->problem) * plan->problem->q.shape[2] * plan->n_sums;
    memset(plan->dsink, 0, (size_t)n * sizeof *plan->dsink);
    memset(plan->drow_factor, 0, (size_t)n * sizeof *plan->drow_factor);
}

/* Sums what the items found of dsink and drow_factor, in a fixed order. */
static void add_sums(const sp_cpu_plan *plan) {
    const sp_attention *problem = plan->problem;
    int64_t H = problem->q.shape[2];
    for (int64_t h = 0; h < H; h++) {
        double dsink = 0, drow_factor = 0;
        for (int64_t i = 0; i < sp_problem_n_sequences(problem); i++)
            for (int64_t part = 0; part < plan->n_sums; part++) {
                int64_t at = (i * H + h) * plan->n_sums + part;
                dsink += plan->dsink[at];
                drow_factor += plan->drow_factor[at];
            }
        if (problem->dsink) problem->dsink[h] += (float)dsink;
        if (problem->drow_factor) problem->drow_factor[h] += (float)drow_factor;
    }
}

typedef void item_function(const sp_cpu_plan *plan, const sp_cpu_item *item, float *scratch);

static void run_items(const sp_cpu_plan *plan, item_function *run, const sp_cpu_item *items, int64_t n, float *scratch,
                      int64_t floats) {
    if (n == 0) return;
#pragma omp parallel for schedule(dynamic, 1) num_threads(plan->n_threads)
    for (int64_t i = 0; i < n; i++) run(plan, &items[i], scratch + omp_get_thread_num() * floats);
}

void sp_cpu_run(const sp_cpu_body *body, const sp_attention *problem, sp_attention_pass pass, int n_threads,
                void *workspace) {
    sp_cpu_plan plan = plan_begin(problem, pass, n_threads);
    int64_t floats = scratch_floats(&plan, pass), shared = plan_place(&plan, workspace);
    float *scratch = (float *)(void *)((char *)workspace + shared);
    if (pass == SP_ATTENTION_FORWARD) sp_items_clear_liveness(problem);
    if (plan.n_items == 0) return;
    if (pass == SP_ATTENTION_FORWARD) {
        sp_items_list_queries(problem, plan.n_queries, plan.items);
        sort_items(&plan);
        run_items(&plan, body->forward, plan.items, plan.n_items, scratch, floats);
        return;
    }
    list_backward_items(&plan);
    sort_items(&plan);
    clear_sums(&plan);
    if (plan.shares) sp_items_list_queries(problem, SP_CPU_QUERIES_PREPARED, plan.row_items);
    run_items(&plan, body->backward_before, plan.row_items, plan.n_row_items, scratch, floats);
    run_items(&plan, body->backward, plan.items, plan.n_items, scratch, floats);
    run_items(&plan, body->backward_after, plan.row_items, plan.n_row_items, scratch, floats);
    add_sums(&plan);
}

sp_status sp_cpu_rows(const sp_cpu_body *body, const sp_attention *problem, sp_attention_row_function function,
                      void *user) {
    sp_cpu_plan plan = plan_common(problem, 0);
    int64_t H = problem->q.shape[2], n = sp_problem_n_sequences(problem) * H, bytes;
    int64_t floats = sp_cpu_rows_carve(&plan, NULL, &(sp_cpu_rows_scratch){0});
    void *memory = NULL;
    if (plan.n_threads > n) plan.n_threads = n > 1 ? (int)n : 1;
    SP_REQUIRE(sp_multiply_sizes(floats * (int64_t)sizeof(float), plan.n_threads, &bytes), SP_OUT_OF_MEMORY,
               "the attention rows are too large to count");
    SP_TRY(sp_allocate(&memory, bytes, "attention rows"));
#pragma omp parallel for schedule(dynamic, 1) num_threads(plan.n_threads)
    for (int64_t i = 0; i < n; i++) {
        sp_cpu_item item = {.sequence = i / H, .head = i % H, .n = sp_problem_sequence(problem, i / H).n_q};
        body->rows(&plan, &item, (float *)memory + omp_get_thread_num() * floats, function, user);
    }
    free(memory);
    return SP_OK;
}
