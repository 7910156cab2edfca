/* What of a problem counts: the pairs that are seen, the zeros among the weights, the dead blocks. */
#include <stdint.h>
#include <stdlib.h>

#include "attention/problem.h"
#include "base/memory.h"
#include "cli/bench_problem.h"

static int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }

/* Pairs of the block that begins with query t and key j. */
static int64_t count_pairs(const sp_attention *problem, const sp_sequence *sequence, int64_t t, int64_t j) {
    int64_t pairs = 0;
    for (int64_t i = t; i < min_of(t + SP_LIVENESS_BLOCK, sequence->n_q); i++) {
        sp_key_range keys = sp_problem_visible(problem, sequence, i);
        pairs += max_of(0, min_of(keys.end, j + SP_LIVENESS_BLOCK) - max_of(keys.first, j));
    }
    return pairs;
}

/* How many heads of all sequences, which are alike, have this block dead. */
static int64_t count_dead(const sp_attention *problem, int64_t t, int64_t j) {
    sp_liveness_shape shape = sp_problem_liveness_shape(problem);
    int64_t n_dead = 0, H = problem->q.shape[2];
    int64_t bit = t % SP_LIVENESS_QUERIES / SP_LIVENESS_BLOCK * 8 + j % SP_LIVENESS_KEYS / SP_LIVENESS_BLOCK;
    for (int64_t i = 0; i < problem->q.shape[0] * H; i++) {
        const uint32_t *words = sp_problem_liveness(problem, shape, i / H, i % H, t / SP_LIVENESS_QUERIES);
        n_dead += !(words[j / SP_LIVENESS_KEYS] >> bit & 1);
    }
    return n_dead;
}

static void count_blocks(bench_counts *out, const sp_attention *problem) {
    sp_sequence sequence = sp_problem_sequence(problem, 0);
    int64_t heads = problem->q.shape[0] * problem->q.shape[2];
    for (int64_t t = 0; t < sequence.n_q; t += SP_LIVENESS_BLOCK)
        for (int64_t j = 0; j < sequence.n_k; j += SP_LIVENESS_BLOCK) {
            int64_t pairs = count_pairs(problem, &sequence, t, j), dead = pairs ? count_dead(problem, t, j) : 0;
            out->pairs += (double)(pairs * heads);
            out->dead_pairs += (double)(pairs * dead);
            out->blocks += pairs ? (double)heads : 0;
            out->dead_blocks += (double)dead;
        }
}

sp_status bench_count(bench_counts *out, const sp_attention *callers) {
    sp_status status = SP_OK;
    sp_attention problem = *callers;
    int64_t n_rows = problem.q.shape[0] * problem.q.shape[1] * problem.q.shape[2], n_words, n_bytes;
    void *zeros = NULL, *words = NULL, *workspace = NULL;
    *out = (bench_counts){0};
    SP_TRY_OR_DONE(sp_attention_liveness_words(&problem, &n_words));
    SP_TRY_OR_DONE(sp_allocate(&words, n_words * (int64_t)sizeof *problem.liveness, "liveness words"));
    SP_TRY_OR_DONE(sp_allocate(&zeros, n_rows * (int64_t)sizeof(int64_t), "counts of zeros"));
    problem.liveness = words;
    problem.statistics.zeros = zeros;
    SP_TRY_OR_DONE(sp_attention_workspace(&problem, SP_ATTENTION_FORWARD, 0, &n_bytes));
    SP_TRY_OR_DONE(sp_allocate(&workspace, n_bytes, "workspace"));
    SP_TRY_OR_DONE(sp_attention_forward(&problem, workspace, n_bytes, 0));
    count_blocks(out, &problem);
    for (int64_t i = 0; i < n_rows; i++) out->zero_pairs += (double)((const int64_t *)zeros)[i];
done:
    free(zeros);
    free(words);
    free(workspace);
    return status;
}
