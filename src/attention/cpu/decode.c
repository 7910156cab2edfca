/* Decode on the CPU, the part that is the same for every instruction set: chunks, items, workspace, threads. */
#include "attention/cpu/decode.h"

#include <omp.h>

#include "base/memory.h"
#include "base/status.h"

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t parts(int64_t n, int64_t of) { return n > 0 ? (n + of - 1) / of : 0; }

/* ---- the plan --------------------------------------------------------------------------------------------------- */

static int64_t longest_keys(const sp_attention *problem) {
    int64_t longest = 0;
    for (int64_t b = 0; b < problem->q.shape[0]; b++) longest = most(longest, sp_problem_sequence(problem, b).n_k);
    return longest;
}

/* Long chunks spare beginnings, where nothing was asked for ahead, as long as there are some for every thread. */
static int64_t choose_chunk(const sp_attention *problem) {
    int64_t total = 0, chunk = SP_DECODE_CHUNK;
    for (int64_t b = 0; b < problem->q.shape[0]; b++) total += sp_problem_sequence(problem, b).n_k;
    while (chunk < SP_DECODE_LONGEST_CHUNK && total >= 64 * chunk) chunk *= 2;
    return chunk;
}

/* The heads of a key side by side are read together, as the memory likes it; heads that lie apart, one by one. */
static bool heads_adjoin(const sp_tensor *tensor) { return tensor->stride[2] <= tensor->stride[1]; }

/* Fewer heads to an item where there would be too few items to go round. */
static void deal_heads(sp_decode_plan *plan) {
    const sp_attention *problem = plan->problem;
    int64_t Hkv = problem->k.shape[2], others = problem->q.shape[0] * plan->n_chunks * plan->n_runs;
    plan->n_heads = heads_adjoin(&problem->k) && heads_adjoin(&problem->v) ? Hkv : 1;
    while (plan->n_heads > 1 && others * parts(Hkv, plan->n_heads) < 2 * (int64_t)plan->n_threads)
        plan->n_heads = (plan->n_heads + 1) / 2;
    plan->n_parts = parts(Hkv, plan->n_heads);
    plan->n_items = others * plan->n_parts;
}

static sp_decode_plan plan_begin(const sp_attention *problem, int n_threads) {
    const int64_t *q = problem->q.shape;
    sp_decode_plan plan = {.problem = problem,
                           .group = q[2] / problem->k.shape[2],
                           .D = sp_round_up(q[3], SP_DECODE_PAIR),
                           .Dv = sp_round_up(problem->v.shape[3], SP_DECODE_PAIR),
                           .block = SP_DECODE_KEYS,
                           .n_threads = n_threads > 0 ? n_threads : omp_get_max_threads()};
    plan.n_queries = most(1, least(q[1], SP_DECODE_ROWS / most(1, plan.group)));
    plan.n_runs = parts(q[1], plan.n_queries);
    plan.chunk = choose_chunk(problem) * most(1, plan.n_runs);
    plan.n_chunks = parts(longest_keys(problem), plan.chunk);
    deal_heads(&plan);
    plan.n_threads = (int)most(1, least(plan.n_threads, plan.n_items));
    return plan;
}

/* Item i; false if its queries see nothing of its chunk.  Items that follow each other share a thread's caches: the
 * runs of queries come first, then the chunks. */
static bool item_at(const sp_decode_plan *plan, int64_t i, sp_decode_item *item) {
    const sp_attention *problem = plan->problem;
    int64_t run = i % plan->n_runs, chunk = i / plan->n_runs % plan->n_chunks;
    int64_t part = i / plan->n_runs / plan->n_chunks;
    *item = (sp_decode_item){.b = part / plan->n_parts,
                             .chunk = chunk,
                             .head = part % plan->n_parts * plan->n_heads,
                             .query = run * plan->n_queries};
    item->n_heads = least(plan->n_heads, problem->k.shape[2] - item->head);
    item->n_queries = least(plan->n_queries, problem->q.shape[1] - item->query);
    sp_sequence sequence = sp_problem_sequence(problem, item->b);
    int64_t first = sp_problem_visible(problem, &sequence, item->query).first;
    int64_t end = sp_problem_visible(problem, &sequence, item->query + item->n_queries - 1).end;
    item->keys.first = most(first, chunk * plan->chunk);
    item->keys.end = least(end, (chunk + 1) * plan->chunk);
    return item->keys.first < item->keys.end;
}

/* ---- the workspace ---------------------------------------------------------------------------------------------- */

static void take(float **member, float *base, int64_t *used, int64_t n) {
    *member = base ? base + *used : NULL;
    *used += sp_round_up(n, SP_DECODE_TAIL);
}

int64_t sp_decode_carve(const sp_decode_plan *plan, float *base, sp_decode_scratch *scratch) {
    int64_t used = 0, rows = plan->group * plan->n_queries;
    take(&scratch->q, base, &used, plan->n_heads * rows * plan->D);
    take(&scratch->score[0], base, &used, rows * SP_DECODE_KEYS);
    take(&scratch->score[1], base, &used, rows * SP_DECODE_KEYS);
    take(&scratch->row, base, &used, 2 * plan->Dv);
    return used;
}

static int64_t partial_rows(const sp_decode_plan *plan) {
    const int64_t *q = plan->problem->q.shape;
    return q[0] * plan->n_chunks * q[2] * q[1];
}

sp_status sp_decode_workspace(const sp_attention *problem, int n_threads, int64_t *n_bytes) {
    sp_decode_plan plan = plan_begin(problem, n_threads);
    int64_t scratch = sp_decode_carve(&plan, NULL, &(sp_decode_scratch){0}), partial;
    bool fits = sp_multiply_sizes(partial_rows(&plan), (plan.Dv + SP_DECODE_TAIL) * (int64_t)sizeof(float), &partial) &&
                sp_multiply_sizes(scratch, plan.n_threads * (int64_t)sizeof(float), &scratch) &&
                sp_add_sizes(partial, scratch, n_bytes);
    SP_REQUIRE(fits, SP_OUT_OF_MEMORY, "the workspace of this attention is too large to count");
    return SP_OK;
}

/* ---- running ---------------------------------------------------------------------------------------------------- */

void sp_decode_run(const sp_decode_body *body, const sp_attention *problem, int n_threads, void *workspace) {
    sp_decode_plan plan = plan_begin(problem, n_threads);
    int64_t n_rows = problem->q.shape[0] * problem->q.shape[2];
    int64_t floats = sp_decode_carve(&plan, NULL, &(sp_decode_scratch){0});
    plan.partial = workspace;
    float *scratch = plan.partial + partial_rows(&plan) * (plan.Dv + SP_DECODE_TAIL);
#pragma omp parallel num_threads(plan.n_threads)
    {
        float *own = scratch + omp_get_thread_num() * floats;
        sp_decode_item item;
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < plan.n_items; i++)
            if (item_at(&plan, i, &item)) body->partial(&plan, &item, own);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < n_rows; i++) body->merge(&plan, i / problem->q.shape[2], i % problem->q.shape[2], own);
    }
}
