/* lm-eval's sample files: what was asked and answered, one line per document. */
#ifndef SP_EVALUATE_SAMPLES_H
#define SP_EVALUATE_SAMPLES_H

#include "evaluate/task.h"

/* What is known of the documents of a task when all are answered. */
typedef struct sp_answered {
    const sp_task *task;
    const sp_documents *documents;
    int64_t n;                     /* the first n of them */
    char *const *examples;         /* (n), NULL: none */
    const sp_answer *answers;      /* one document after another */
    const sp_metric_value *values; /* (n, number of metrics) */
} sp_answered;

/* Writes the lines to `path`, atomically; `hash` is lm-eval's hash of the task: over what was asked in all
 * documents. */
SP_MUST_CHECK sp_status sp_samples_write(char hash[65], const char *path, const sp_answered *answered);

#endif
