/* Few-shot examples, drawn and joined as lm-eval does. */
#ifndef SP_EVALUATE_FEWSHOT_H
#define SP_EVALUATE_FEWSHOT_H

#include "evaluate/task.h"

/* texts[i]: the examples in front of document i, for the first n documents; `pool`: where they are drawn from, NULL:
 * the documents themselves.  Caller frees each; all are NULL after a failure. */
SP_MUST_CHECK sp_status sp_fewshot_draw(char **texts, const sp_task *task, const sp_documents *documents, int64_t n,
                                        const sp_documents *pool, int64_t n_fewshot, sp_evaluate_compat compat);

#endif
