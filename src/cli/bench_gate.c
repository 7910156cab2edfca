/* A variant is timed only after its results agree with the definition. */
#include "cli/bench_gate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/problem.h"
#include "base/memory.h"
#include "cli/bench_number.h"

/* ---- comparing -------------------------------------------------------------------------------------------------- */

sp_status bench_compare(const char *what, const sp_tensor *truth, const sp_tensor *result, double bound) {
    double error = 0, size = 0, worst = 0, largest = 0;
    for (int64_t i = 0; i < sp_tensor_count(truth); i++) { /* contiguous */
        double t = (double)bench_load(truth->data, truth->dtype, i);
        double e = (double)bench_load(result->data, result->dtype, i) - t;
        error += e * e;
        size += t * t;
        worst = fabs(e) <= worst ? worst : fabs(e); /* NaN goes through */
        largest = fmax(largest, fabs(t));
    }
    error = sqrt(error), size = sqrt(size);
    SP_REQUIRE(error <= bound * size, SP_INTERNAL, "%s is off by %.2g, at most %.2g of the whole is allowed", what,
               error / size, bound);
    SP_REQUIRE(worst <= 8 * bound * largest, SP_INTERNAL,
               "%s has a number that is off by %.2g, at most %.2g is allowed", what, worst, 8 * bound * largest);
    return SP_OK;
}

sp_status bench_compare_rows(const char *what, const float *truth, const float *result, int64_t n, double bound) {
    for (int64_t i = 0; i < n; i++) {
        double error = fabs((double)result[i] - (double)truth[i]);
        bool same = result[i] == truth[i]; /* infinities among them */
        SP_REQUIRE(same || error <= bound, SP_INTERNAL, "%s of row %lld is %g, not %g", what, (long long)i,
                   (double)result[i], (double)truth[i]);
    }
    return SP_OK;
}

sp_status bench_compare_liveness(const uint32_t *truth, const uint32_t *result, int64_t n_words) {
    int64_t differ = 0;
    for (int64_t i = 0; i < n_words; i++) differ += __builtin_popcount(truth[i] ^ result[i]);
    SP_REQUIRE(differ <= 1 + 32 * n_words / 200, SP_INTERNAL, "liveness has %lld wrong bits in %lld words",
               (long long)differ, (long long)n_words);
    return SP_OK;
}

/* ---- one smaller problem ---------------------------------------------------------------------------------------- */

static int64_t at_most(int64_t value, int64_t limit) { return value < limit ? value : limit; }

/* More than two of the largest blocks that a variant works in; of decode, keys enough to be split. */
static bench_shape smaller(const bench_shape *shape, sp_attention_pass pass) {
    bench_shape small = *shape;
    int64_t group = shape->H / shape->Hkv;
    bool decode = pass == SP_ATTENTION_DECODE;
    small.B = at_most(shape->B, 2);
    small.Hkv = at_most(shape->Hkv, group > 1 ? 1 : 2);
    small.H = small.Hkv * group;
    small.T = at_most(shape->T, decode ? 8 : 300);
    small.S = shape->S == shape->T ? small.T : at_most(shape->S, decode ? 3000 : 500);
    small.gradients = pass == SP_ATTENTION_BACKWARD;
    small.n_caches = 1;
    return small;
}

sp_status bench_call(const sp_attention *problem, sp_attention_pass pass, void *workspace, int64_t n_bytes,
                     int n_threads) {
    switch (pass) {
    case SP_ATTENTION_FORWARD: return sp_attention_forward(problem, workspace, n_bytes, n_threads);
    case SP_ATTENTION_BACKWARD: return sp_attention_backward(problem, workspace, n_bytes, n_threads);
    default: return sp_attention_decode(problem, workspace, n_bytes, n_threads);
    }
}

static sp_status poison(sp_device *device, void *memory, int64_t n_bytes) {
    void *poison;
    SP_TRY(sp_allocate(&poison, n_bytes, "workspace"));
    memset(poison, 0xff, (size_t)n_bytes);
    sp_status status = sp_device_upload(device, memory, poison, n_bytes);
    if (status == SP_OK) status = sp_device_wait(device);
    free(poison);
    return status;
}

/* With a workspace full of NaN; waits. */
static sp_status call_poisoned(sp_device *device, const sp_attention *problem, sp_attention_pass pass, int n_threads) {
    int64_t n_bytes;
    void *workspace;
    SP_TRY(sp_attention_workspace(problem, pass, n_threads, &n_bytes));
    SP_TRY(sp_device_allocate(device, &workspace, n_bytes, "workspace"));
    sp_status status = poison(device, workspace, n_bytes);
    if (status == SP_OK) status = bench_call(problem, pass, workspace, n_bytes, n_threads);
    if (status == SP_OK) status = sp_device_wait(device);
    sp_device_release(device, workspace);
    return status;
}

static sp_status define(const sp_attention *problem, sp_attention_pass pass) {
    if (pass == SP_ATTENTION_DECODE) return sp_attention_define_decode(problem);
    SP_TRY(sp_attention_define_forward(problem));
    return pass == SP_ATTENTION_BACKWARD ? sp_attention_define_backward(problem) : SP_OK;
}

static sp_status compare_words(const sp_attention *truth, const sp_attention *ours) {
    int64_t n_words;
    if (!truth->liveness) return SP_OK;
    SP_TRY(sp_attention_liveness_words(truth, &n_words));
    return bench_compare_liveness(truth->liveness, ours->liveness, n_words);
}

/* A score's gradient is the value's gradient less delta, the product of dout and out.  Where a model's rows weigh a few keys
 * alone the two are nearly alike, and the rounding of out is what is left: docs/bench.md. */
bench_bounds bench_gate_bounds(const bench_shape *shape) {
    bool f32 = shape->dtype == SP_DTYPE_F32;
    double bound = f32 ? 1e-5 : shape->dtype == SP_DTYPE_F16 ? 2e-3 : 1e-2;
    return (bench_bounds){bound, shape->pattern.kind == BENCH_CAPTURED && !f32 ? 3 * bound : bound};
}

static sp_status compare_all(const sp_attention *truth, const sp_attention *ours, sp_attention_pass pass,
                             bench_bounds bounds) {
    bool f32 = truth->q.dtype == SP_DTYPE_F32;
    int64_t n_rows = truth->q.shape[0] * truth->q.shape[1] * truth->q.shape[2];
    SP_TRY(bench_compare("out", &truth->out, &ours->out, bounds.sums));
    SP_TRY(bench_compare_rows("lse", truth->lse, ours->lse, n_rows, f32 ? 1e-4 : 1e-2));
    SP_TRY(compare_words(truth, ours));
    if (pass != SP_ATTENTION_BACKWARD) return SP_OK;
    SP_TRY(bench_compare("dq", &truth->dq, &ours->dq, bounds.scores));
    SP_TRY(bench_compare("dk", &truth->dk, &ours->dk, bounds.scores));
    SP_TRY(bench_compare("dv", &truth->dv, &ours->dv, bounds.sums));
    const int64_t heads[] = {truth->q.shape[2]};
    sp_tensor a = sp_tensor_view(truth->dsink, SP_DTYPE_F32, 1, heads), b = a;
    b.data = ours->dsink;
    return truth->dsink ? bench_compare("dsink", &a, &b, bounds.sums) : SP_OK;
}

sp_status bench_gate(sp_device *device, const bench_shape *shape, const bench_options *options, sp_attention_pass pass,
                     int n_threads, uint64_t seed) {
    sp_status status = SP_OK;
    bench_shape small = smaller(shape, pass);
    bench_options small_options = *options;
    bench_problem truth = {0}, ours = {0}, found = {0};
    SP_TRY_OR_DONE(bench_problem_open(&truth, sp_device_host(), &small, seed));
    SP_TRY_OR_DONE(bench_problem_open(&found, sp_device_host(), &small, seed));
    SP_TRY_OR_DONE(bench_problem_open(&ours, device, &small, seed));
    small_options.window = at_most(options->window, 70); /* it is to cut the smaller problem too */
    sp_attention true_problem = bench_problem_of(&truth, &small_options, pass);
    sp_attention our_problem = bench_problem_of(&ours, &small_options, pass);
    sp_attention found_problem = bench_problem_of(&found, &small_options, pass);
    SP_TRY_OR_DONE(define(&true_problem, pass));
    if (pass == SP_ATTENTION_BACKWARD)
        SP_TRY_OR_DONE(call_poisoned(device, &our_problem, SP_ATTENTION_FORWARD, n_threads));
    SP_TRY_OR_DONE(call_poisoned(device, &our_problem, pass, n_threads));
    SP_TRY_OR_DONE(bench_problem_fetch(&found, &ours));
    SP_TRY_OR_DONE(compare_all(&true_problem, &found_problem, pass, bench_gate_bounds(&small)));
done:
    bench_problem_close(&truth);
    bench_problem_close(&ours);
    bench_problem_close(&found);
    return status;
}

sp_status bench_gate_large(const bench_problem *p, const bench_options *options, sp_attention_pass pass,
                           int n_threads) {
    sp_attention problem = bench_problem_of(p, options, pass);
    SP_TRY(sp_device_zero(p->device, p->outputs, p->output_bytes));
    if (pass == SP_ATTENTION_BACKWARD) SP_TRY(call_poisoned(p->device, &problem, SP_ATTENTION_FORWARD, n_threads));
    SP_TRY(call_poisoned(p->device, &problem, pass, n_threads));
    return bench_gate_rows(p, options, pass);
}
