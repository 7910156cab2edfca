/* Whether a pass on a GPU and the definition agree on a case: within bounds for sums of random numbers, or within twice the
 * error of plain loops that round as the kernels do. */
#ifndef SP_TESTS_CUDA_AGREE_H
#define SP_TESTS_CUDA_AGREE_H

#include "attention_plain.h"
#include "cuda_support.h"

/* A case by the definition and by plain loops, forward and backward or decode. */
typedef struct cuda_truth {
    attention_case exact, plain;
    bool alike; /* scores of a row are, so that roundings of its weights do not cancel */
} cuda_truth;

/* Changes the inputs of a case. */
typedef void (*cuda_change)(attention_case *c, const void *user);

/* Threads may call this side by side.  With `forward_alone` nothing is known of gradients. */
static inline void cuda_truth_open(cuda_truth *truth, const attention_shape *shape, cuda_change change,
                                   const void *user, bool decode, bool forward_alone) {
    case_open(&truth->exact, shape), case_open(&truth->plain, shape);
    if (change) change(&truth->exact, user), change(&truth->plain, user);
    cuda_expect(decode ? sp_attention_define_decode(&truth->exact.problem)
                       : sp_attention_define_forward(&truth->exact.problem));
    plain_forward(&truth->plain.problem, true);
    if (decode || forward_alone) return;
    cuda_expect(sp_attention_define_backward(&truth->exact.problem));
    plain_backward(&truth->plain.problem, true);
}

static inline void cuda_truth_close(cuda_truth *truth) { case_close(&truth->exact), case_close(&truth->plain); }

typedef struct cuda_error {
    double norm, worst; /* of the differences; infinite where one is NaN and the other is not */
    double size, largest;
} cuda_error;

static inline cuda_error cuda_measure_numbers(const double *a, const double *b, int64_t n) {
    cuda_error error = {0};
    for (int64_t i = 0; i < n; i++) {
        bool same = a[i] == b[i] || (isnan(a[i]) && isnan(b[i]));
        double e = same ? 0 : fabs(a[i] - b[i]);
        if (isnan(e)) e = INFINITY;
        error.norm += e * e;
        error.worst = fmax(error.worst, e);
        if (isfinite(a[i])) error.size += a[i] * a[i], error.largest = fmax(error.largest, fabs(a[i]));
    }
    error.norm = sqrt(error.norm), error.size = sqrt(error.size);
    return error;
}

static inline cuda_error cuda_measure(const sp_tensor *truth, const sp_tensor *result) {
    double *a = case_numbers(truth), *b = case_numbers(result);
    cuda_error error = cuda_measure_numbers(a, b, sp_tensor_count(truth));
    free(a), free(b);
    return error;
}

/* Largest number of a tensor. */
static inline double cuda_largest(const sp_tensor *tensor) { return cuda_measure(tensor, tensor).largest; }

/* Typical size of a number of a tensor. */
static inline double cuda_typical(const sp_tensor *tensor) {
    double n = (double)sp_tensor_count(tensor);
    return n > 0 ? cuda_measure(tensor, tensor).size / sqrt(n) : 0;
}

/* The size of the terms that an element of gradient i is a sum of, and that may cancel: dP and delta, each a sum of Dv
 * products, by what multiplies their difference. */
static inline double cuda_terms(const sp_attention *problem, int i) {
    double dP = sqrt((double)problem->v.shape[3]) * cuda_typical(&problem->v) * cuda_typical(&problem->dout);
    double differences = fmax(1, dP / 2);
    const sp_tensor *q = &problem->q, *k = &problem->k;
    double group = (double)q->shape[2] / fmax(1, (double)k->shape[2]), queries = sqrt((double)q->shape[1] * group);
    double scale = fabs(sp_problem_scale(problem));
    switch (i) {
    case 5: return fmax(1, differences * scale * cuda_largest(k));
    case 6: return fmax(1, differences * scale * cuda_largest(q) * queries);
    case 7: return fmax(1, queries);
    default: return 1;
    }
}

/* Of a log denominator.  Its terms near 0 are differences of numbers near 1, each to within 2^-24: much beside a small
 * denominator. */
static inline double cuda_lse_bound(double lse) {
    return 1e-3 + 1e-6 * fabs(lse) + (lse < 0 ? 0x1p-22 * exp2(-lse) : 0);
}

/* Weights are quotients of such differences: outputs of rows with small denominators are compared here, each with what that
 * means for it, and count as equal from then on.  wanted, found: the numbers of out.  Rows without weight are not among them. */
static inline bool cuda_settle_small_rows(const char *what, const cuda_truth *truth, const double *wanted,
                                          double *found) {
    const int64_t *shape = truth->exact.problem.out.shape, T = shape[1], H = shape[2], D = shape[3];
    const double largest = cuda_largest(&truth->exact.problem.v);
    for (int64_t i = 0; i < shape[0] * T * H; i++) {
        const double lse = truth->exact.lse[(i / (T * H) * H + i % H) * T + i / H % T];
        const double slack = 0x1p-22 * exp2(-lse) * largest, *x = wanted + i * D;
        double *y = found + i * D;
        const cuda_error error = cuda_measure_numbers(x, y, D);
        if (error.largest == 0 || !(lse < -8)) continue;
        if (error.worst > slack + 1e-2 * error.largest + 1e-5) {
            print_message("%s: out of row %lld, whose denominator is 2^%g, is wrong by %g\n", what, (long long)i, lse,
                          error.worst);
            return false;
        }
        memcpy(y, x, (size_t)D * sizeof *y);
    }
    return true;
}

/* Tensor i of the case; what: told when it does not agree. */
static inline bool cuda_near(const char *what, const cuda_truth *truth, const attention_case *ours, int i) {
    static const char *const names[] = {"q", "k", "v", "out", "dout", "dq", "dk", "dv"};
    static const double bounds[] = {0, 0, 0, 4e-3, 0, 1e-2, 1e-2, 6e-3};
    double bound = bounds[i] / (ours->problem.q.dtype == SP_DTYPE_F16 ? 5 : 1) * (truth->alike ? 2 : 1);
    double *wanted = case_numbers(truth->exact.tensors[i]), *found = case_numbers(ours->tensors[i]);
    bool near = i != 3 || cuda_settle_small_rows(what, truth, wanted, found);
    cuda_error error = cuda_measure_numbers(wanted, found, sp_tensor_count(ours->tensors[i]));
    free(wanted), free(found);
    cuda_error plain = cuda_measure(truth->exact.tensors[i], truth->plain.tensors[i]);
    double least = 1e-5 * cuda_terms(&truth->exact.problem, i), n = (double)sp_tensor_count(ours->tensors[i]);
    double times = truth->alike ? 4 : 2; /* of the plain loops' error */
    double norm = fmax(bound * error.size, times * plain.norm) + fmax(least / 10 * sqrt(n), 1e-5);
    double worst = fmax(8 * bound * error.largest, times * plain.worst) + least;
    if (error.norm <= norm && error.worst <= worst) return near;
    print_message("%s: %s: error %.3g of %.3g (allowed %.3g), worst %.3g of %.3g (allowed %.3g)\n", what, names[i],
                  error.norm, error.size, norm, error.worst, error.largest, worst);
    return false;
}

static inline bool cuda_near_forward(const char *what, const cuda_truth *truth, const attention_case *ours) {
    bool near = cuda_near(what, truth, ours, 3);
    for (int64_t i = 0; i < ours->n_lse; i++) {
        float wanted = truth->exact.lse[i], found = ours->lse[i];
        if (wanted == found || (isnan(wanted) && isnan(found))) continue;
        if (fabs((double)wanted - (double)found) <= cuda_lse_bound((double)wanted)) continue;
        print_message("%s: lse[%lld] is %g, not %g\n", what, (long long)i, (double)found, (double)wanted);
        return false;
    }
    return near;
}

static inline bool cuda_near_backward(const char *what, const cuda_truth *truth, const attention_case *ours) {
    bool near = true;
    for (int i = 5; i < 8; i++) near = cuda_near(what, truth, ours, i) && near;
    return near;
}

/* What backward reads: outputs and log denominators of the definition. */
static inline void cuda_take_forward(attention_case *ours, const cuda_truth *truth) {
    memcpy(ours->blocks[3], truth->exact.blocks[3], (size_t)ours->block_bytes[3]);
    memcpy(ours->lse, truth->exact.lse, (size_t)ours->n_lse * sizeof *ours->lse);
}

#endif
