/* The gate at full size: the last rows of a problem against the definition. */
#include <stdlib.h>

#include "attention/problem.h"
#include "base/memory.h"
#include "cli/bench_gate.h"

enum { LAST_ROWS = 16, Q = 0, K, V, DOUT, OUT, DQ, DK, DV, N_TENSORS };

/* What the last queries of the heads that share the last key head of the last sequence see, on the host: one sequence, one
 * key head.  Causal queries are the only ones that see the keys at their own positions. */
typedef struct last_rows {
    sp_attention truth;         /* by the definition; dk and dv for all keys */
    sp_tensor found[N_TENSORS]; /* of the device: of dq, dk, dv and out the last rows alone */
    float *true_lse, *found_lse, *sink;
} last_rows;

static bool of_keys(int i) { return i == K || i == V || i == DK || i == DV; }

static void tensors_of(sp_attention *problem, sp_tensor *out[N_TENSORS]) {
    sp_tensor *const all[N_TENSORS] = {&problem->q,   &problem->k,  &problem->v,  &problem->dout,
                                       &problem->out, &problem->dq, &problem->dk, &problem->dv};
    for (int i = 0; i < N_TENSORS; i++) out[i] = all[i];
}

static sp_status new_tensor(sp_tensor *out, sp_dtype dtype, int64_t T, int64_t H, int64_t D) {
    const int64_t shape[] = {1, T, H, D};
    *out = sp_tensor_view(NULL, dtype, 4, shape);
    return sp_allocate(&out->data, sp_tensor_count(out) * sp_dtype_bytes(dtype), "the last rows of a problem");
}

/* The last T rows of the last H heads of the last sequence. */
static sp_status read_rows(sp_tensor *out, sp_device *device, const sp_tensor *from, int64_t T, int64_t H) {
    const int64_t one = sp_dtype_bytes(from->dtype), row_bytes = H * from->shape[3] * one;
    const char *first = sp_problem_row(from, from->shape[0] - 1, from->shape[1] - T, from->shape[2] - H);
    void *gathered;
    SP_TRY(new_tensor(out, from->dtype, T, H, from->shape[3]));
    SP_TRY(sp_device_scratch(device, &gathered, T * row_bytes));
    SP_TRY(sp_device_copy_rows(device, gathered, row_bytes, first, from->stride[1] * one, row_bytes, T));
    return sp_device_download(device, out->data, gathered, T * row_bytes);
}

static sp_status read_tensors(last_rows *l, sp_device *device, const sp_attention *problem, bool backward) {
    const int64_t S = problem->k.shape[1], group = problem->q.shape[2] / problem->k.shape[2];
    sp_attention copy = *problem;
    sp_tensor *all[N_TENSORS], *truth[N_TENSORS];
    tensors_of(&copy, all);
    tensors_of(&l->truth, truth);
    for (int i = 0; i < N_TENSORS; i++) {
        const int64_t T = all[i]->shape[1], heads = of_keys(i) ? 1 : group;
        if (!backward && (i == DOUT || i > OUT)) continue;
        SP_TRY(read_rows(&l->found[i], device, all[i], i == K || i == V || T < LAST_ROWS ? T : LAST_ROWS, heads));
        if (i < OUT)
            *truth[i] = l->found[i];
        else
            SP_TRY(new_tensor(truth[i], all[i]->dtype, of_keys(i) ? S : l->found[i].shape[1], heads, all[i]->shape[3]));
    }
    return SP_OK;
}

/* lse of the rows, and the sinks of their heads. */
static sp_status read_row_numbers(last_rows *l, sp_device *device, const sp_attention *problem) {
    const int64_t T = problem->q.shape[1], H = l->found[Q].shape[2], n = l->found[Q].shape[1];
    const int64_t four = (int64_t)sizeof(float), heads = problem->q.shape[0] * problem->q.shape[2];
    void *memory;
    SP_TRY(sp_allocate(&memory, (2 * n + 1) * H * four, "the last rows of a problem"));
    l->found_lse = memory;
    l->true_lse = l->found_lse + n * H;
    l->sink = l->true_lse + n * H;
    for (int64_t h = 0; h < H; h++)
        SP_TRY(sp_device_download(device, l->found_lse + h * n, problem->lse + (heads - H + h + 1) * T - n, n * four));
    return sp_device_download(device, l->sink, problem->sink + problem->q.shape[2] - H, H * four);
}

/* Of keys the rows at the positions of the queries. */
static sp_status compare_tensor(const last_rows *l, int i, const sp_tensor *truth, double bound) {
    static const char *const names[N_TENSORS] = {"q", "k", "v", "dout", "out", "dq", "dk", "dv"};
    sp_tensor last = l->found[i];
    int64_t skipped = sp_tensor_count(truth) - sp_tensor_count(&last);
    last.data = (char *)truth->data + skipped * sp_dtype_bytes(truth->dtype);
    return bench_compare(names[i], &last, &l->found[i], bound);
}

static sp_status compare_rows(last_rows *l, bool backward, bench_bounds bounds) {
    sp_tensor *truth[N_TENSORS];
    tensors_of(&l->truth, truth);
    SP_TRY(
        bench_compare_rows("lse", l->true_lse, l->found_lse, l->found[Q].shape[1] * l->found[Q].shape[2], bounds.sums));
    for (int i = OUT; i <= (backward ? DV : OUT); i++)
        if (!of_keys(i) || l->truth.causal)
            SP_TRY(compare_tensor(l, i, truth[i], i == DQ || i == DK ? bounds.scores : bounds.sums));
    return SP_OK;
}

static void close_rows(last_rows *l) {
    sp_tensor *truth[N_TENSORS];
    tensors_of(&l->truth, truth);
    for (int i = 0; i < N_TENSORS; i++) {
        free(l->found[i].data);
        if (i >= OUT) free(truth[i]->data);
    }
    free(l->found_lse);
}

sp_status bench_gate_rows(const bench_problem *p, const bench_options *options, sp_attention_pass pass) {
    const bool backward = pass == SP_ATTENTION_BACKWARD;
    sp_attention problem = bench_problem_of(p, options, pass);
    sp_status status = SP_OK;
    last_rows l = {.truth = problem};
    sp_tensor *truth[N_TENSORS];
    tensors_of(&l.truth, truth);
    for (int i = OUT; i < N_TENSORS; i++) truth[i]->data = NULL;
    l.truth.liveness = NULL, l.truth.dsink = NULL, l.truth.stream = NULL;
    SP_TRY_OR_DONE(read_tensors(&l, p->device, &problem, backward));
    SP_TRY_OR_DONE(read_row_numbers(&l, p->device, &problem));
    l.truth.lse = l.true_lse;
    l.truth.sink = l.sink;
    SP_TRY_OR_DONE(sp_attention_define_forward(&l.truth));
    if (backward) SP_TRY_OR_DONE(sp_attention_define_backward(&l.truth));
    SP_TRY_OR_DONE(compare_rows(&l, backward, bench_gate_bounds(&p->shape)));
done:
    close_rows(&l);
    return status;
}
