/* The document of results, in the shape of lm-eval's result files. */
#ifndef SP_EVALUATE_OUTCOME_H
#define SP_EVALUATE_OUTCOME_H

#include "evaluate/task.h"

/* Numbers of one task beside its metrics. */
typedef struct sp_task_facts {
    const char *file;     /* that was read; NULL: several or none */
    const char *examples; /* the file of few-shot examples; NULL: there are none */
    char hash[65];        /* of the samples; "": these were not written */
    int64_t n_fewshot;
    double seconds;
    sp_score_counts counts;
} sp_task_facts;

typedef struct sp_outcomes {
    json_t *document;
} sp_outcomes;

SP_MUST_CHECK sp_status sp_outcomes_open(sp_outcomes *results);
/* Adds a task; takes the values of `outcome` over. */
SP_MUST_CHECK sp_status sp_outcomes_add(sp_outcomes *results, const sp_task *task, sp_task_outcome *outcome,
                                        const sp_task_facts *facts);
/* Adds all that does not belong to a single task. */
SP_MUST_CHECK sp_status sp_outcomes_finish(sp_outcomes *results, const sp_evaluation *evaluation, double seconds);
/* Text with all digits of the numbers, indented by two; caller frees. */
SP_MUST_CHECK sp_status sp_outcomes_format(const sp_outcomes *results, char **text);
void sp_outcomes_close(sp_outcomes *results);

/* Folder of a model's result files below `out`: its name without characters that file systems mind. */
SP_MUST_CHECK sp_status sp_outcomes_folder(char path[4096], const char *out, const char *model_name);

#endif
