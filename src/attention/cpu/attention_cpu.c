/* Attention on the CPU, the part that is the same for every instruction set: items, workspace, threads.
 *
 *   workspace   | items | dsink, drow_factor partial sums | scratch of thread 0 | scratch of thread 1 | ...
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
    int64_t used = 0;
    take(&scratch->q, base, &used, plan->max_q * plan->D);
    take(&scratch->dq, base, &used, plan->max_q * plan->D);
    take(&scratch->dout, base, &used, plan->max_q * plan->Dv);
    take(&scratch->row, base, &used, SP_CPU_LANES * wider(plan));
    take(&scratch->gradient, base, &used, plan->max_q * SP_CPU_GRADIENT_FLOATS);
    take(&scratch->dk, base, &used, plan->max_k * plan->D);
    take(&scratch->dv, base, &used, plan->max_k * plan->Dv);
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

static int64_t count_items(const sp_attention *problem, int64_t n_heads, int64_t n_queries) {
    int64_t n = 0;
    for (int64_t i = 0; i < sp_problem_n_sequences(problem); i++) {
        sp_sequence sequence = sp_problem_sequence(problem, i);
        n += n_heads * (n_queries ? (sequence.n_q + n_queries - 1) / n_queries : 1);
    }
    return n;
}

static int64_t item_heads(const sp_attention *problem, sp_attention_pass pass) {
    return pass == SP_ATTENTION_FORWARD ? problem->q.shape[2] : problem->k.shape[2];
}

/* Fewer queries to an item where there would be too few items to go round. */
static int64_t choose_queries(const sp_attention *problem, int n_threads) {
    int64_t n = SP_CPU_QUERIES_FORWARD;
    while (n > 8 * SP_CPU_ROWS && count_items(problem, problem->q.shape[2], n) < 4 * (int64_t)n_threads) n /= 2;
    return n;
}

static bool wants_statistics(const sp_attention_statistics *statistics) {
    return statistics->mass || statistics->first_mass || statistics->entropy || statistics->highest ||
           statistics->zeros;
}

static sp_cpu_plan plan_begin(const sp_attention *problem, sp_attention_pass pass, int n_threads) {
    sp_cpu_plan plan = {.problem = problem,
                        .D = sp_round_up(problem->q.shape[3], SP_CPU_LANES),
                        .Dv = sp_round_up(problem->v.shape[3], SP_CPU_LANES),
                        .statistics = wants_statistics(&problem->statistics),
                        .liveness = sp_problem_liveness_shape(problem),
                        .n_threads = n_threads > 0 ? n_threads : omp_get_max_threads()};
    for (int64_t i = 0; i < sp_problem_n_sequences(problem); i++) {
        sp_sequence sequence = sp_problem_sequence(problem, i);
        if (sequence.n_q > plan.max_q) plan.max_q = sequence.n_q;
        if (sequence.n_k_rows > plan.max_k) plan.max_k = sequence.n_k_rows;
    }
    plan.max_q = sp_round_up(plan.max_q, SP_CPU_ROWS);
    plan.max_k = sp_round_up(plan.max_k, SP_CPU_KEYS);
    if (pass == SP_ATTENTION_FORWARD) plan.n_queries = choose_queries(problem, plan.n_threads);
    plan.n_items = count_items(problem, item_heads(problem, pass), plan.n_queries);
    if (plan.n_threads > plan.n_items) plan.n_threads = plan.n_items > 1 ? (int)plan.n_items : 1;
    return plan;
}

/* Scores that queries [first, first + n) see. */
static int64_t count_scores(const sp_attention *problem, const sp_sequence *sequence, int64_t first, int64_t n) {
    int64_t count = 0;
    for (int64_t t = first; t < first + n; t += SP_CPU_ROWS) {
        sp_key_range keys = sp_problem_visible(problem, sequence, t);
        count += keys.end - keys.first + 1;
    }
    return count;
}

/* Longest first; the rest decides ties, so that the order is always the same. */
static int compare_items(const void *left, const void *right) {
    const sp_cpu_item *a = left, *b = right;
    if (a->work != b->work) return a->work < b->work ? 1 : -1;
    if (a->sequence != b->sequence) return a->sequence < b->sequence ? -1 : 1;
    if (a->head != b->head) return a->head < b->head ? -1 : 1;
    return a->first < b->first ? -1 : a->first > b->first;
}

static void list_items(sp_cpu_plan *plan, sp_attention_pass pass) {
    sp_cpu_item *item = plan->items;
    for (int64_t i = 0; i < sp_problem_n_sequences(plan->problem); i++) {
        sp_sequence sequence = sp_problem_sequence(plan->problem, i);
        int64_t step = plan->n_queries ? plan->n_queries : sequence.n_q;
        int64_t first = 0;
        do { /* once for an empty sequence in backward: its dk and dv are to be cleared */
            int64_t n = sequence.n_q - first < step ? sequence.n_q - first : step;
            if (n == 0 && plan->n_queries) break;
            int64_t work = count_scores(plan->problem, &sequence, first, n);
            for (int64_t h = 0; h < item_heads(plan->problem, pass); h++)
                *item++ = (sp_cpu_item){.sequence = i, .head = h, .first = first, .n = n, .work = work};
            first += n;
        } while (first < sequence.n_q);
    }
    qsort(plan->items, (size_t)plan->n_items, sizeof *plan->items, compare_items);
}

/* Bytes before the scratch of the first thread. */
static int64_t shared_bytes(const sp_cpu_plan *plan, int64_t *sums_at) {
    int64_t n_sums = 2 * sp_problem_n_sequences(plan->problem) * plan->problem->q.shape[2];
    *sums_at = sp_round_up(plan->n_items * (int64_t)sizeof *plan->items, SP_ALIGNMENT);
    return *sums_at + sp_round_up(n_sums * (int64_t)sizeof(double), SP_ALIGNMENT);
}

sp_status sp_cpu_workspace(const sp_attention *problem, sp_attention_pass pass, int n_threads, int64_t *n_bytes) {
    sp_cpu_plan plan = plan_begin(problem, pass, n_threads);
    int64_t sums_at, scratch, shared = shared_bytes(&plan, &sums_at);
    bool fits = sp_multiply_sizes(scratch_floats(&plan, pass), (int64_t)sizeof(float), &scratch) &&
                sp_multiply_sizes(scratch, plan.n_threads, &scratch) && sp_add_sizes(scratch, shared, n_bytes);
    SP_REQUIRE(fits, SP_OUT_OF_MEMORY, "the workspace of this attention is too large to count");
    return SP_OK;
}

/* ---- running ---------------------------------------------------------------------------------------------------- */

static void add_sums(const sp_cpu_plan *plan) {
    const sp_attention *problem = plan->problem;
    int64_t H = problem->q.shape[2], n = sp_problem_n_sequences(problem) * H;
    for (int64_t i = 0; i < n; i++) {
        if (problem->dsink) problem->dsink[i % H] += (float)plan->dsink[i];
        if (problem->drow_factor) problem->drow_factor[i % H] += (float)plan->drow_factor[i];
    }
}

/* Blocks that no query sees are not come by. */
static void clear_liveness(const sp_cpu_plan *plan) {
    const sp_attention *problem = plan->problem;
    int64_t words = plan->liveness.n_query_tiles * plan->liveness.n_key_tiles;
    words *= sp_problem_n_sequences(problem) * problem->q.shape[2];
    memset(problem->liveness, 0, (size_t)words * sizeof *problem->liveness);
}

void sp_cpu_run(const sp_cpu_body *body, const sp_attention *problem, sp_attention_pass pass, int n_threads,
                void *workspace) {
    sp_cpu_plan plan = plan_begin(problem, pass, n_threads);
    int64_t sums_at, floats = scratch_floats(&plan, pass), shared = shared_bytes(&plan, &sums_at);
    plan.items = workspace;
    plan.dsink = (double *)(void *)((char *)workspace + sums_at);
    plan.drow_factor = plan.dsink + sp_problem_n_sequences(problem) * problem->q.shape[2];
    float *scratch = (float *)(void *)((char *)workspace + shared);
    if (pass == SP_ATTENTION_FORWARD && problem->liveness) clear_liveness(&plan);
    if (plan.n_items == 0) return;
    list_items(&plan, pass);
    void (*run)(const sp_cpu_plan *, const sp_cpu_item *, float *) =
        pass == SP_ATTENTION_FORWARD ? body->forward : body->backward;
#pragma omp parallel for schedule(dynamic, 1) num_threads(plan.n_threads)
    for (int64_t i = 0; i < plan.n_items; i++) run(&plan, &plan.items[i], scratch + omp_get_thread_num() * floats);
    if (pass == SP_ATTENTION_BACKWARD) add_sums(&plan);
}

sp_status sp_cpu_rows(const sp_cpu_body *body, const sp_attention *problem, sp_attention_row_function function,
                      void *user) {
    sp_cpu_plan plan = plan_begin(problem, SP_ATTENTION_BACKWARD, 0);
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
