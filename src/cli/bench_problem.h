/* An attention problem with its memory, filled with random numbers by a pattern of zeros, and what of it counts. */
#ifndef SP_CLI_BENCH_PROBLEM_H
#define SP_CLI_BENCH_PROBLEM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "device/device.h"
#include "softpick/attention.h"

/* Where the scores that are not positive lie.  Beside what a pattern sets, scores are normal with deviation 1, so that
 * half of what is not said to be dead is positive. */
typedef enum bench_pattern_kind {
    BENCH_DENSE = 0,    /* no pattern */
    BENCH_SLABS = 1,    /* share of the slabs of 64 queries x 16 keys that are dead, drawn for each slab */
    BENCH_KEYS = 2,     /* share of the keys that live: for every query the same ones, scattered */
    BENCH_ZEROS = 3,    /* share of the scores that are not positive, scattered */
    BENCH_CAPTURED = 4, /* nothing is drawn but dout: q, k and v of a model, from a file (bench_captured.h) */
    BENCH_PATTERN_COUNT
} bench_pattern_kind;

typedef struct bench_pattern {
    bench_pattern_kind kind;
    double share;
    const char *file; /* of captured tensors; not owned */
} bench_pattern;

/* "dense", "slabs=F", "keys=F", "zeros=F", F in [0,1], "captured=FILE"; keeps a pointer into the text. */
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

/* What of a problem is not numbers; the members are those of sp_attention. */
typedef struct bench_options {
    sp_normalizer normalizer;
    float lambda;
    bool causal;
    int64_t window;
    bool compute_dead, any_order;
    bool liveness; /* forward writes the words, backward reads them */
} bench_options;

typedef struct bench_problem {
    bench_shape shape;
    sp_device *device;    /* on which everything but the lists of pages lies */
    sp_attention problem; /* contiguous tensors, lse and liveness words; no statistics */
    char *memory;
    float *sink;
    int64_t *page_table, *key_lengths; /* on the host; NULL without pages */
    char *outputs;                     /* everything that a pass writes lies together */
    int64_t output_bytes;
    int64_t cache;
} bench_problem;

/* Outputs are NaN; dsink, which is added to, is 0.  The same numbers on any device. */
SP_MUST_CHECK sp_status bench_problem_open(bench_problem *out, sp_device *device, const bench_shape *shape,
                                           uint64_t seed);
void bench_problem_close(bench_problem *problem);
/* What the library sees in this pass: what the pass or the normalizer does not take is left out; keys and values of decode
 * lie in pages if the shape says so. */
sp_attention bench_problem_of(const bench_problem *problem, const bench_options *options, sp_attention_pass pass);
/* Copies what a pass has written to a problem of the same shape on the host; waits. */
SP_MUST_CHECK sp_status bench_problem_fetch(bench_problem *host, const bench_problem *problem);
/* Goes on to the next k and v. */
void bench_problem_turn(bench_problem *problem);

/* Pairs of a query and a key that it sees, over all heads; how many have weight 0 by the formula; and of the blocks
 * of the liveness words that hold such pairs, how many are dead: NAN where no variant of the device tells. */
typedef struct bench_counts {
    double pairs, zero_pairs, dead_pairs; /* dead: in a dead block */
    double blocks, dead_blocks;
} bench_counts;

/* By forward passes that write statistics and liveness words, as any pass sees the problem. */
SP_MUST_CHECK sp_status bench_count(bench_counts *out, const bench_problem *problem, const bench_options *options);

#endif
