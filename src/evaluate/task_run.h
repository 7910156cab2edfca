/* Running one task that asks document by document. */
#ifndef SP_EVALUATE_TASK_RUN_H
#define SP_EVALUATE_TASK_RUN_H

#include "evaluate/outcome.h"
#include "evaluate/task.h"
#include "evaluate/task_data.h"

/* Where a run's files go. */
typedef struct sp_result_place {
    char folder[4096];  /* "": none are written */
    char time_name[64]; /* the time in their names */
} sp_result_place;

/* Fills in all of `facts` but seconds and counts; texts are borrowed from `data`.  With a place: answers are kept
 * there until the run is finished, and samples are written if the options say so. */
SP_MUST_CHECK sp_status sp_task_run(sp_task_outcome *outcome, sp_task_facts *facts, sp_evaluation *evaluation,
                                    const sp_task *task, const sp_task_data *data, const sp_result_place *place);

#endif
