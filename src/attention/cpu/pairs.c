/* Attention over packed bf16, the part that is the same for AMX and AVX512_BF16: which problems, items, workspace,
 * threads.
 *
 *   workspace   | items | first blocks | wild | keys | values | scratch of thread 0 | scratch of thread 1 | ...
 *
 * each part at a multiple of SP_ALIGNMENT. */
#include "attention/cpu/pairs.h"

#include <omp.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/status.h"

bool sp_pairs_accept(const sp_attention *problem, sp_attention_pass pass, const char **why) {
    *why = NULL;
    if (problem->q.dtype != SP_DTYPE_BF16)
        *why = "it computes bf16 alone";
    else if (problem->q.shape[3] % 8 || problem->v.shape[3] % 8)
        *why = "the width of a head is not a multiple of 8";
    else if (problem->q.shape[3] > SP_PAIRS_WIDTH || problem->v.shape[3] > SP_PAIRS_WIDTH)
        *why = "a head is wider than 256";
    else if (pass == SP_ATTENTION_BACKWARD)
        return true;
    else if (sp_problem_wants_statistics(problem))
        *why = "it gives no statistics";
    return *why == NULL;
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

int64_t sp_pairs_forward_carve(const sp_pairs_plan *plan, void *base, sp_pairs_forward_scratch *scratch) {
    int64_t used = 0, rows = plan->n_queries;
    scratch->q = sp_carve(base, &used, rows * plan->D, sizeof *scratch->q);
    scratch->out = sp_carve(base, &used, rows * plan->Dv, sizeof *scratch->out);
    scratch->sum = sp_carve(base, &used, rows * 16, sizeof *scratch->sum);
    scratch->scale = sp_carve(base, &used, rows, sizeof *scratch->scale);
    scratch->minus_shift = sp_carve(base, &used, rows, sizeof *scratch->minus_shift);
    scratch->unit = sp_carve(base, &used, rows, sizeof *scratch->unit);
    for (int i = 0; i < 2; i++) {
        scratch->score[i] = sp_carve(base, &used, SP_PAIRS_STEP * SP_PAIRS_PART_KEYS, sizeof(float));
        scratch->weight[i] = sp_carve(base, &used, SP_PAIRS_STEP * SP_PAIRS_KEYS, sizeof(uint16_t));
    }
    return used;
}

/* Points the plan's shared members into `base`; returns the bytes they take. */
static int64_t carve_shared(sp_pairs_plan *plan, void *base) {
    int64_t used = 0;
    plan->items = sp_carve(base, &used, plan->n_items, sizeof *plan->items);
    plan->first_block = sp_carve(base, &used, sp_problem_n_sequences(plan->problem) + 1, sizeof *plan->first_block);
    plan->wild = sp_carve(base, &used, plan->n_blocks, 1);
    plan->keys = sp_carve(base, &used, plan->n_blocks * SP_PAIRS_KEYS * plan->D, sizeof *plan->keys);
    plan->values = sp_carve(base, &used, plan->n_blocks * SP_PAIRS_KEYS * plan->Dv, sizeof *plan->values);
    return used;
}

/* ---- the plan --------------------------------------------------------------------------------------------------- */

/* Blocks of one head of a sequence. */
static int64_t count_blocks(const sp_attention *problem, int64_t i) {
    return (sp_problem_sequence(problem, i).n_k + SP_PAIRS_KEYS - 1) / SP_PAIRS_KEYS;
}

static sp_pairs_plan plan_begin(const sp_attention *problem, int n_threads) {
    sp_pairs_plan plan = {.problem = problem,
                          .D = sp_round_up(problem->q.shape[3], 32),
                          .Dv = sp_round_up(problem->v.shape[3], 32),
                          .n_threads = n_threads > 0 ? n_threads : omp_get_max_threads()};
    plan.n_queries = sp_items_choose_queries(problem, SP_PAIRS_QUERIES, SP_LIVENESS_QUERIES, plan.n_threads);
    plan.n_items = sp_items_count_queries(problem, plan.n_queries);
    for (int64_t i = 0; i < sp_problem_n_sequences(problem); i++)
        plan.n_blocks += problem->k.shape[2] * count_blocks(problem, i);
    if (plan.n_threads > plan.n_items) plan.n_threads = plan.n_items > 1 ? (int)plan.n_items : 1;
    return plan;
}

static void list_items(const sp_pairs_plan *plan) {
    sp_items_list_queries(plan->problem, plan->n_queries, plan->items);
    qsort(plan->items, (size_t)plan->n_items, sizeof *plan->items, sp_items_compare);
}

static void list_blocks(const sp_pairs_plan *plan) {
    const sp_attention *problem = plan->problem;
    plan->first_block[0] = 0;
    for (int64_t i = 0; i < sp_problem_n_sequences(problem); i++)
        plan->first_block[i + 1] = plan->first_block[i] + problem->k.shape[2] * count_blocks(problem, i);
}

sp_status sp_pairs_forward_workspace(const sp_attention *problem, int n_threads, int64_t *n_bytes) {
    sp_pairs_plan plan = plan_begin(problem, n_threads);
    int64_t scratch = sp_pairs_forward_carve(&plan, NULL, &(sp_pairs_forward_scratch){0});
    bool fits = sp_multiply_sizes(scratch, plan.n_threads, &scratch) &&
                sp_add_sizes(scratch, carve_shared(&plan, NULL), n_bytes);
    SP_REQUIRE(fits, SP_OUT_OF_MEMORY, "the workspace of this attention is too large to count");
    return SP_OK;
}

/* ---- running ---------------------------------------------------------------------------------------------------- */

void sp_pairs_forward_run(const sp_pairs_body *body, const sp_attention *problem, int n_threads, void *workspace) {
    sp_pairs_plan plan = plan_begin(problem, n_threads);
    char *scratch = (char *)workspace + carve_shared(&plan, workspace);
    int64_t scratch_bytes = sp_pairs_forward_carve(&plan, NULL, &(sp_pairs_forward_scratch){0});
    sp_items_clear_liveness(problem);
    if (plan.n_items == 0) return;
    list_items(&plan);
    list_blocks(&plan);
#pragma omp parallel num_threads(plan.n_threads)
    {
        void *own = scratch + omp_get_thread_num() * scratch_bytes;
        body->open();
#pragma omp for schedule(static) /* ends with a barrier: items read what all have packed */
        for (int64_t i = 0; i < plan.n_blocks; i++) body->pack(&plan, i);
#pragma omp for schedule(dynamic, 1) nowait
        for (int64_t i = 0; i < plan.n_items; i++) body->forward(&plan, &plan.items[i], own);
        body->close();
    }
}
