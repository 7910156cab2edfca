/* An attention problem with its memory, filled with random numbers by a pattern of zeros, and what of it counts. */
#ifndef SP_CLI_BENCH_PROBLEM_H
#define SP_CLI_BENCH_PROBLEM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "softpick/attention.h"

/* Where the scores that are not positive lie.  Beside what a pattern sets, scores are normal with deviation 1, so that
 * half of what is not said to be dead is positive. */
typedef enum bench_pattern_kind {
    BENCH_DENSE = 0, /* no pattern */
    BENCH_SLABS = 1, /* share of the slabs of 64 queries x 16 keys that are dead, drawn for each slab */
    BENCH_KEYS = 2,  /* share of the keys that live: for every query the same ones, scattered */
    BENCH_ZEROS = 3, /* share of the scores that are not positive, scattered */
    BENCH_PATTERN_COUNT
} bench_pattern_kind;

typedef struct bench_pattern {
    bench_pattern_kind kind;
    double share;
} bench_pattern;

/* "dense", "slabs=F", "keys=F", "zeros=F", F in [0,1]. */
SP_MUST_CHECK sp_status bench_pattern_parse(bench_pattern *out, const char *text);
void bench_pattern_format(char *text, size_t n_bytes, bench_pattern pattern);

typedef struct bench_shape {
    int64_t B, T, S, H, Hkv, D, Dv;
    sp_dtype dtype;
    bench_pattern pattern;
    bool gradients;    /* with the tensors of backward */
    int64_t page_size; /* of decode: keys and values in pages of so many keys, in random order; 0: one after another */
    int64_t n_caches;  /* as many k and v, to be used in turn: together larger than the processor's own memory */
} bench_shape;

typedef struct bench_problem {
    bench_shape shape;
    sp_attention problem; /* contiguous tensors, lse and liveness words; no statistics */
    char *memory;
    float *sink;
    int64_t *page_table, *key_lengths; /* NULL without pages */
    char *outputs;                     /* everything that a pass writes lies together */
    int64_t output_bytes;
    int64_t cache;
} bench_problem;

SP_MUST_CHECK sp_status bench_problem_open(bench_problem *out, const bench_shape *shape, uint64_t seed);
void bench_problem_close(bench_problem *problem);
/* What the library sees in this pass: normalizer, lambda, mask and compute_dead are those of `options`; what the pass or
 * the normalizer does not take is left out; keys and values of decode lie in pages if the shape says so. */
sp_attention bench_problem_of(const bench_problem *problem, const sp_attention *options, sp_attention_pass pass);
/* Outputs become NaN; dsink, which is added to, 0. */
void bench_problem_poison(bench_problem *problem);
/* Goes on to the next k and v. */
void bench_problem_turn(bench_problem *problem);

/* Pairs of a query and a key that it sees, over all heads; how many have weight 0 by the formula; and of the blocks
 * of the liveness words that hold such pairs, how many are dead. */
typedef struct bench_counts {
    double pairs, zero_pairs, dead_pairs; /* dead: in a dead block */
    double blocks, dead_blocks;
} bench_counts;

/* By a forward pass that writes statistics and liveness words. */
SP_MUST_CHECK sp_status bench_count(bench_counts *out, const sp_attention *problem);

#endif
