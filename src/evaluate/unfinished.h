/* Answers of a run that was interrupted, to go on with: FOLDER/unfinished_TASK.jsonl.
 *
 * The first line names what the answers hold for ("key"); a line {"doc_id", "answers": [[sum, greedy], ...]} follows
 * for each document, in their order.  A last line that was cut short is passed over. */
#ifndef SP_EVALUATE_UNFINISHED_H
#define SP_EVALUATE_UNFINISHED_H

#include <stdio.h>

#include "evaluate/task.h"

typedef struct sp_unfinished {
    FILE *file;
    char path[4096];
} sp_unfinished;

/* Opens the file to add to.  resume: reads what it holds for this key into `answers`, *n_done documents of n.
 * Otherwise, or when it holds another key, it begins anew. */
SP_MUST_CHECK sp_status sp_unfinished_open(sp_unfinished *unfinished, const char *folder, const char *task,
                                           const char *key, bool resume, const sp_documents *documents, int64_t n,
                                           sp_answer *answers, int64_t *n_done);
/* Adds document i's line. */
SP_MUST_CHECK sp_status sp_unfinished_add(sp_unfinished *unfinished, int64_t i, int64_t n_answers,
                                          const sp_answer *answers);
/* Hands the lines to the system, so that a process that is killed loses none. */
SP_MUST_CHECK sp_status sp_unfinished_flush(sp_unfinished *unfinished);
void sp_unfinished_close(sp_unfinished *unfinished); /* a zeroed one is fine */
/* Removes the file of a task that is finished; fine if there is none. */
void sp_unfinished_remove(const char *folder, const char *task);

#endif
