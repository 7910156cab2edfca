/* How close is close: the error against a result in double may be at most twice that of a plain loop in the same
 * precision, plus a floor for results that the plain loop happens to hit: one unit in the last place of the largest
 * number.  Both for the worst element and as a norm over the array, where a fiftieth of the elements may be so off. */
#ifndef SP_TESTS_NEAR_H
#define SP_TESTS_NEAR_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct near_error {
    double norm;  /* sqrt(sum error^2) */
    double worst; /* largest |error|; NaN where one side is NaN or infinite and the other is not the same */
    int64_t at;   /* its index */
} near_error;

static inline near_error near_measure(const double *truth, const double *result, int64_t n) {
    near_error error = {0};
    for (int64_t i = 0; i < n; i++) {
        bool same = truth[i] == result[i] || (isnan(truth[i]) && isnan(result[i]));
        double e = same ? 0 : fabs(truth[i] - result[i]);
        error.norm += e * e;
        if (!(e <= error.worst)) {
            error.worst = e;
            error.at = i;
            if (isnan(e)) break;
        }
    }
    error.norm = sqrt(error.norm);
    return error;
}

static inline double near_largest(const double *truth, int64_t n) {
    double largest = 0;
    for (int64_t i = 0; i < n; i++)
        if (isfinite(truth[i])) largest = fmax(largest, fabs(truth[i]));
    return largest;
}

/* True if `result` is near.  `slack`: absolute, usually a unit in the last place of near_largest. */
static inline bool near_within(near_error ours, near_error theirs, int64_t n, double slack) {
    double norm_slack = slack * sqrt(1 + (double)n / 50);
    return ours.worst <= 2 * theirs.worst + slack && ours.norm <= 2 * theirs.norm + norm_slack;
}

/* Tells what is wrong. */
static inline void near_tell(const char *what, const double *truth, const double *result, near_error ours,
                             near_error theirs, double slack) {
    fprintf(stderr,
            "%s: worst error %.3g at %lld (%.9g, in double %.9g), norm %.3g; plain loop %.3g and %.3g, slack %.3g\n",
            what, ours.worst, (long long)ours.at, result[ours.at], truth[ours.at], ours.norm, theirs.worst, theirs.norm,
            slack);
}

/* Both, of arrays. */
static inline bool near_check(const char *what, const double *truth, const double *result, const double *plain,
                              int64_t n, double slack) {
    near_error ours = near_measure(truth, result, n), theirs = near_measure(truth, plain, n);
    bool near = near_within(ours, theirs, n, slack);
    if (!near) near_tell(what, truth, result, ours, theirs, slack);
    return near;
}

#endif
