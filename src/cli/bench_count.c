/* What of a problem counts: the pairs that are seen, the zeros among the weights, the dead blocks. */
#include <math.h>
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

/* Without words only the pairs and blocks that there are. */
static void count_blocks(bench_counts *out, const sp_attention *problem) {
    sp_sequence sequence = sp_problem_sequence(problem, 0);
    int64_t heads = problem->q.shape[0] * problem->q.shape[2];
    for (int64_t t = 0; t < sequence.n_q; t += SP_LIVENESS_BLOCK)
        for (int64_t j = 0; j < sequence.n_k; j += SP_LIVENESS_BLOCK) {
            int64_t pairs = count_pairs(problem, &sequence, t, j);
            int64_t dead = pairs && problem->liveness ? count_dead(problem, t, j) : 0;
            out->pairs += (double)(pairs * heads);
            out->dead_pairs += (double)(pairs * dead);
            out->blocks += pairs ? (double)heads : 0;
            out->dead_blocks += (double)dead;
        }
}

static sp_status run_forward(sp_device *device, const sp_attention *problem) {
    int64_t n_bytes;
    void *workspace;
    SP_TRY(sp_attention_workspace(problem, SP_ATTENTION_FORWARD, 0, &n_bytes));
    SP_TRY(sp_device_allocate(device, &workspace, n_bytes, "workspace"));
    sp_status status = sp_attention_forward(problem, workspace, n_bytes, 0);
    if (status == SP_OK) status = sp_device_wait(device);
    sp_device_release(device, workspace);
    return status;
}

/* By the statistics of every row. */
static sp_status count_zeros(bench_counts *out, sp_device *device, const sp_attention *callers) {
    sp_status status = SP_OK;
    sp_attention problem = *callers;
    const int64_t n = problem.q.shape[0] * problem.q.shape[1] * problem.q.shape[2],
                  bytes = n * (int64_t)sizeof(int64_t);
    void *zeros = NULL;
    const void *host = NULL;
    problem.liveness = NULL;
    SP_TRY_OR_DONE(sp_device_allocate(device, &zeros, bytes, "counts of zeros"));
    problem.statistics.zeros = zeros;
    SP_TRY_OR_DONE(run_forward(device, &problem));
    SP_TRY_OR_DONE(sp_device_read_begin(device, &host, zeros, bytes));
    for (int64_t i = 0; i < n; i++) out->zero_pairs += (double)((const int64_t *)host)[i];
done:
    sp_device_read_end(device, host);
    if (zeros) sp_device_release(device, zeros);
    return status;
}

/* By the liveness words. */
static sp_status count_dead_blocks(bench_counts *out, sp_device *device, const sp_attention *callers) {
    sp_status status = SP_OK;
    sp_attention problem = *callers;
    const char *name;
    const void *host = NULL;
    int64_t n_words;
    if (sp_attention_choose(&problem, SP_ATTENTION_FORWARD, &name) != SP_OK) problem.liveness = NULL;
    if (problem.liveness) {
        SP_TRY_OR_DONE(run_forward(device, &problem));
        SP_TRY_OR_DONE(sp_attention_liveness_words(&problem, &n_words));
        SP_TRY_OR_DONE(
            sp_device_read_begin(device, &host, problem.liveness, n_words * (int64_t)sizeof *problem.liveness));
        problem.liveness = (uint32_t *)(uintptr_t)host;
    }
    count_blocks(out, &problem);
    if (!problem.liveness && out->zero_pairs > 0) out->dead_blocks = out->dead_pairs = NAN;
done:
    sp_device_read_end(device, host);
    return status;
}

sp_status bench_count(bench_counts *out, const bench_problem *p, const bench_options *callers) {
    bench_options options = *callers;
    options.liveness = true;
    sp_attention problem = bench_problem_of(p, &options, SP_ATTENTION_FORWARD);
    *out = (bench_counts){0};
    SP_TRY(count_zeros(out, p->device, &problem));
    return count_dead_blocks(out, p->device, &problem);
}
