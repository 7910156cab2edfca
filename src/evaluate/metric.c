/* The table of metrics, their values and standard errors, summed as lm-eval sums them. */
#include "evaluate/metric.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "evaluate/bootstrap.h"

static const sp_metric metrics[] = {
    {"acc", SP_AGGREGATE_MEAN, true},
    {"acc_norm", SP_AGGREGATE_MEAN, true},  /* the largest log p per character */
    {"acc_bytes", SP_AGGREGATE_MEAN, true}, /* the largest log p per byte */
    {"perplexity", SP_AGGREGATE_PERPLEXITY, false},
    {"word_perplexity", SP_AGGREGATE_WEIGHTED_PERPLEXITY, false},
    {"byte_perplexity", SP_AGGREGATE_WEIGHTED_PERPLEXITY, false},
    {"bits_per_byte", SP_AGGREGATE_BITS, false},
    {"ppl_gptq", SP_AGGREGATE_PERPLEXITY, false}, /* counted by its task */
};

const sp_metric *sp_metric_find(const char *name) {
    for (size_t i = 0; i < sizeof metrics / sizeof *metrics; i++)
        if (strcmp(metrics[i].name, name) == 0) return &metrics[i];
    return NULL;
}

int64_t sp_metric_best(const double *values, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 0; i < n; i++) {
        if (isnan(values[i])) return i;
        if (values[i] > values[best]) best = i;
    }
    return best;
}

static double mean_of(const sp_metric_value *values, int64_t n, int64_t stride) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += values[i * stride].value;
    return sum / (double)n;
}

/* sum of values / sum of weights */
static double weighted_mean_of(const sp_metric_value *values, int64_t n, int64_t stride) {
    double weights = 0;
    for (int64_t i = 0; i < n; i++) weights += values[i * stride].weight;
    return mean_of(values, n, stride) * (double)n / weights;
}

double sp_metric_value_of(const sp_metric *metric, const sp_metric_value *values, int64_t n, int64_t stride) {
    switch (metric->aggregate) {
    case SP_AGGREGATE_MEAN: return mean_of(values, n, stride);
    case SP_AGGREGATE_PERPLEXITY: return exp(-mean_of(values, n, stride));
    case SP_AGGREGATE_WEIGHTED_PERPLEXITY: return exp(-weighted_mean_of(values, n, stride));
    case SP_AGGREGATE_BITS: return -weighted_mean_of(values, n, stride) / log(2);
    }
    return NAN;
}

/* sample deviation / sqrt(n) */
static double error_of_mean(const sp_metric_value *values, int64_t n, int64_t stride) {
    double mean = mean_of(values, n, stride), squares = 0;
    for (int64_t i = 0; i < n; i++) {
        double difference = values[i * stride].value - mean;
        squares += difference * difference;
    }
    return sqrt(squares / (double)(n - 1)) / sqrt((double)n);
}

static sp_status bootstrap(double *error, const sp_metric_value *values, int64_t n, int64_t stride,
                           int64_t iterations) {
    double *sums = malloc((size_t)n * sizeof *sums);
    SP_REQUIRE(sums, SP_OUT_OF_MEMORY, "no memory for the scores of a task");
    for (int64_t i = 0; i < n; i++) sums[i] = values[i * stride].value;
    sp_status status = sp_bootstrap_perplexity(error, sums, n, iterations);
    free(sums);
    return status;
}

sp_status sp_metric_error_of(double *error, const sp_metric *metric, const sp_metric_value *values, int64_t n,
                             int64_t stride, int64_t bootstrap_iterations) {
    *error = NAN;
    if (n < 2 || bootstrap_iterations == 0) return SP_OK; /* lm-eval: without bootstrap no error at all */
    if (metric->aggregate == SP_AGGREGATE_MEAN) *error = error_of_mean(values, n, stride);
    if (metric->aggregate == SP_AGGREGATE_PERPLEXITY) return bootstrap(error, values, n, stride, bootstrap_iterations);
    return SP_OK;
}
