/* All that is read of a task before the model is asked: its documents and the examples in front of them. */
#ifndef SP_EVALUATE_TASK_DATA_H
#define SP_EVALUATE_TASK_DATA_H

#include "evaluate/task.h"

typedef struct sp_task_data {
    sp_documents documents;
    int64_t n;               /* documents that are asked: the first n */
    char **examples;         /* (n), NULL: none */
    char file[4096];         /* that the documents are from */
    char example_file[4096]; /* that the examples are from; "": there are none */
} sp_task_data;

/* Reads the data of n tasks, several at a time; kinds that do all by themselves have none.  The first task that
 * fails is told.  Release each with sp_task_data_clear, also after a failure. */
SP_MUST_CHECK sp_status sp_task_data_read(sp_task_data *data, const sp_task *const *tasks, int64_t n,
                                          const sp_evaluate_options *options);
void sp_task_data_clear(sp_task_data *data);

#endif
