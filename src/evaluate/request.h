/* Token sequences of questions: context and continuation as lm-eval's loglikelihood makes them. */
#ifndef SP_EVALUATE_REQUEST_H
#define SP_EVALUATE_REQUEST_H

#include "evaluate/task.h"

/* A question in text: what stands before, and what is scored; both owned. */
typedef struct sp_text_pair {
    char *context, *continuation;
} sp_text_pair;

/* Pair i of a document, as lm-eval hands it to the model: examples (NULL: none) and context; the continuation with the
 * delimiter before it. */
SP_MUST_CHECK sp_status sp_text_pair_make(sp_text_pair *pair, const sp_task *task, const sp_document *document,
                                          int64_t i, const char *examples);
void sp_text_pair_clear(sp_text_pair *pair);

/* The `ask` of tasks that score continuations of contexts. */
SP_MUST_CHECK sp_status sp_ask_pairs(sp_requests *requests, const sp_evaluation *evaluation, const sp_task *task,
                                     const sp_documents *documents, int64_t first, int64_t n, char *const *examples);

#endif
