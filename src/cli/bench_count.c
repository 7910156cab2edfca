/* What of a problem counts: the pairs that are seen, and the zeros among the weights, row by row. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "attention/problem.h"
#include "base/memory.h"
#include "cli/bench_problem.h"

typedef struct census {
    const sp_attention *problem;
    sp_sequence sequence; /* any: all are alike */
    int64_t n_blocks;     /* along the keys */
    bool *live;           /* (B,H,n_blocks): those of the 16 queries under way */
    bench_counts *counts; /* (B,H) */
} census;

static int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }

/* The band of 16 queries that ends with t is complete: counts its blocks, and clears them for the next one. */
static void close_band(const census *c, bool *live, bench_counts *counts, int64_t t) {
    for (int64_t block = 0; block < c->n_blocks; block++) {
        int64_t pairs = 0, first = block * SP_LIVENESS_BLOCK;
        for (int64_t i = t - t % SP_LIVENESS_BLOCK; i <= t; i++) {
            sp_key_range keys = sp_problem_visible(c->problem, &c->sequence, i);
            pairs += max_of(0, min_of(keys.end, first + SP_LIVENESS_BLOCK) - max_of(keys.first, first));
        }
        bool dead = pairs > 0 && !live[block];
        counts->blocks += pairs > 0;
        counts->dead_blocks += dead;
        counts->dead_pairs += dead ? (double)pairs : 0;
        live[block] = false;
    }
}

static void count_row(void *user, int64_t b, int64_t h, int64_t t, const float *weights, const float *scores,
                      int64_t first, int64_t end) {
    const census *c = user;
    (void)weights;
    int64_t head = b * c->problem->q.shape[2] + h, zeros = 0;
    bool *live = c->live + head * c->n_blocks;
    for (int64_t j = first; j < end; j++) {
        bool zero = scores[j] <= 0;
        zeros += zero;
        if (!zero) live[j / SP_LIVENESS_BLOCK] = true;
    }
    c->counts[head].pairs += (double)(end - first);
    c->counts[head].zero_pairs += (double)zeros;
    if (t % SP_LIVENESS_BLOCK == SP_LIVENESS_BLOCK - 1 || t == c->sequence.n_q - 1)
        close_band(c, live, &c->counts[head], t);
}

static void add(bench_counts *sum, const bench_counts *part) {
    sum->pairs += part->pairs;
    sum->zero_pairs += part->zero_pairs;
    sum->dead_pairs += part->dead_pairs;
    sum->blocks += part->blocks;
    sum->dead_blocks += part->dead_blocks;
}

/* The softmaxes: every weight counts. */
static void count_pairs(bench_counts *out, const sp_attention *problem) {
    sp_sequence sequence = sp_problem_sequence(problem, 0);
    for (int64_t t = 0; t < sequence.n_q; t++) {
        sp_key_range keys = sp_problem_visible(problem, &sequence, t);
        out->pairs += (double)((keys.end - keys.first) * problem->q.shape[0] * problem->q.shape[2]);
    }
}

sp_status bench_count(bench_counts *out, const sp_attention *problem) {
    sp_status status = SP_OK;
    int64_t heads = problem->q.shape[0] * problem->q.shape[2], S = problem->k.shape[1];
    census c = {.problem = problem, .n_blocks = (S + SP_LIVENESS_BLOCK - 1) / SP_LIVENESS_BLOCK};
    void *live = NULL, *counts = NULL;
    *out = (bench_counts){0};
    if (problem->normalizer != SP_NORMALIZER_SOFTPICK && problem->normalizer != SP_NORMALIZER_RECTIFIED) {
        count_pairs(out, problem);
        return SP_OK;
    }
    SP_TRY_OR_DONE(sp_allocate(&live, heads * c.n_blocks * (int64_t)sizeof(bool), "the count of zeros"));
    SP_TRY_OR_DONE(sp_allocate(&counts, heads * (int64_t)sizeof(bench_counts), "the count of zeros"));
    c.sequence = sp_problem_sequence(problem, 0);
    c.live = live;
    c.counts = counts;
    SP_TRY_OR_DONE(sp_attention_rows(problem, count_row, &c));
    for (int64_t i = 0; i < heads; i++) add(out, &c.counts[i]);
done:
    free(live);
    free(counts);
    return status;
}
