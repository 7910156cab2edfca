/* Metrics: a document's share, and what a task's documents add up to. */
#ifndef SP_EVALUATE_METRIC_H
#define SP_EVALUATE_METRIC_H

#include "evaluate/task.h"

/* The metric of n documents; values[i * stride] is document i's share. */
double sp_metric_value_of(const sp_metric *metric, const sp_metric_value *values, int64_t n, int64_t stride);
/* Its standard error; NAN where there is none (JSON: "N/A"): n < 2, or perplexities without bootstrap. */
SP_MUST_CHECK sp_status sp_metric_error_of(double *error, const sp_metric *metric, const sp_metric_value *values,
                                           int64_t n, int64_t stride, int64_t bootstrap_iterations);

/* The index of the largest of n numbers, the first of equals; the first NaN if there is one (as numpy's argmax). */
int64_t sp_metric_best(const double *values, int64_t n);

#endif
