/* Tasks that a user describes in a JSON file (docs/evaluation.md). */
#ifndef SP_EVALUATE_TASK_FILE_H
#define SP_EVALUATE_TASK_FILE_H

#include "evaluate/task.h"

typedef struct sp_task_file_task {
    sp_task task; /* borrows its texts from the two below */
    json_t *description;
    char folder[4096]; /* in which the file lies */
} sp_task_file_task;

/* Reads a description.  Release with sp_task_file_close. */
SP_MUST_CHECK sp_status sp_task_file_open(sp_task_file_task **out, const char *path);
void sp_task_file_close(sp_task_file_task *task);

#endif
