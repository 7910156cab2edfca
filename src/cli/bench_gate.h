/* What a pass must show before it is timed. */
#ifndef SP_CLI_BENCH_GATE_H
#define SP_CLI_BENCH_GATE_H

#include "cli/bench_problem.h"

/* Compares with the truth; a failure is SP_INTERNAL and the sentence "`what` is off by ...".  Of a tensor the
 * Euclidean norm of the error may be `bound` of that of the truth, and the largest error 8 `bound` of the largest
 * number.  Of row numbers the absolute error may be `bound`.  NaN in a result is wrong, and so is infinity where the
 * truth has none. */
SP_MUST_CHECK sp_status bench_compare(const char *what, const sp_tensor *truth, const sp_tensor *result, double bound);
SP_MUST_CHECK sp_status bench_compare_rows(const char *what, const float *truth, const float *result, int64_t n,
                                           double bound);
/* Of liveness words one bit may differ, and one in 200: a score within rounding of 0 falls on either side. */
SP_MUST_CHECK sp_status bench_compare_liveness(const uint32_t *truth, const uint32_t *result, int64_t n_words);

/* Runs the pass (backward: after forward) by the variant that SP_ATTENTION names, on a smaller problem of the same
 * kind with numbers of its own and everything that is written full of NaN, and compares each result with the
 * definition. */
SP_MUST_CHECK sp_status bench_gate(sp_device *device, const bench_shape *shape, const bench_options *options,
                                   sp_attention_pass pass, int n_threads, uint64_t seed);

/* Bounds for the tensors of a problem. */
typedef struct bench_bounds {
    double sums;   /* of out, dv, dsink */
    double scores; /* of dq, dk */
} bench_bounds;
bench_bounds bench_gate_bounds(const bench_shape *shape);

/* The same of a problem at its full size, which is not in pages, after the pass has run: what the last queries of one head (of all
 * that share keys) got, and what the keys at their positions got from them if the problem is causal. */
SP_MUST_CHECK sp_status bench_gate_rows(const bench_problem *problem, const bench_options *options,
                                        sp_attention_pass pass);
/* Clears the outputs and runs the pass, backward after forward, with a workspace full of NaN, then does this. */
SP_MUST_CHECK sp_status bench_gate_large(const bench_problem *problem, const bench_options *options,
                                         sp_attention_pass pass, int n_threads);

/* One call; `workspace` of n_bytes on the tensors' device. */
SP_MUST_CHECK sp_status bench_call(const sp_attention *problem, sp_attention_pass pass, void *workspace,
                                   int64_t n_bytes, int n_threads);

#endif
