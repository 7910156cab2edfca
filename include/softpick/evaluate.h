/* Evaluation: the tasks of EleutherAI's lm-eval on an open model, with its prompts, metrics and result files
 * (docs/evaluation.md).  May change in any release. */
#ifndef SOFTPICK_EVALUATE_H
#define SOFTPICK_EVALUATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "softpick/model.h"
#include "softpick/status.h"
#include "softpick/text.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Whose numbers are reproduced: they differ in whether texts begin with BOS. */
typedef enum sp_evaluate_compat {
    SP_EVALUATE_COMPAT_0_4_10 = 0, /* lm-eval 0.4.10 and later: what the tokenizer's own template adds */
    SP_EVALUATE_COMPAT_0_4_8 = 1,  /* lm-eval up to 0.4.9: no BOS but where a text has nothing before it */
} sp_evaluate_compat;
SP_API const char *sp_evaluate_compat_name(sp_evaluate_compat compat); /* "0.4.10", "0.4.8" */
SP_API SP_MUST_CHECK sp_status sp_evaluate_compat_find(sp_evaluate_compat *out, const char *name);

/* The grid of the task "passkey": a number hidden in filler, to be said back. */
typedef struct sp_passkey_options {
    const char
        *protocol; /* "paper" (default): the number's tokens must follow; "landmark": the first number in 10 tokens */
    const int64_t *lengths; /* (n_lengths) characters of filler */
    int64_t n_lengths;      /* 0, the default: the protocol's lengths, or parts of what the model sees */
    int64_t n_depths;       /* evenly from the start of the filler to its end; 0: at random, as published; default 5 */
    int64_t n_trials;       /* for each length and depth; default 10 */
} sp_passkey_options;

typedef struct sp_evaluate_options {
    size_t struct_bytes;
    const char *const *tasks; /* (n_tasks) names of the table of tasks */
    int64_t n_tasks;
    const char *const *task_files; /* (n_task_files) JSON descriptions of further tasks */
    int64_t n_task_files;
    const char *data;             /* the folder of the tasks' data files */
    int64_t limit;                /* documents per task, from the first on; 0, the default: all */
    int64_t n_fewshot;            /* solved examples in front of each question; default 0 */
    int64_t max_length;           /* tokens that the model sees at once; 0, the default: its positions */
    int64_t bootstrap_iterations; /* of standard errors that have no formula; default 100000, 0: none of these */
    sp_evaluate_compat compat;    /* default 0.4.10 */
    int64_t batch_tokens;         /* about so many pass through the model at once; 0, the default: chosen by device */
    const char *out;              /* folder for result files; NULL, the default: nothing is written */
    bool samples;                 /* with out: one JSON line per document and task too */
    bool resume;                  /* with out: go on where an interrupted run with the same choices stopped */
    const char *model_name;       /* stands in results; default "model" */
    const char *model_key;        /* tells this model from others when resuming; default: model_name */
    int64_t ppl_length; /* tokens of a block in the task "ppl"; 0, the default: 2048, or what the model sees */
    sp_passkey_options passkey;
    sp_progress_function progress; /* done and total count documents */
    void *progress_user;
} sp_evaluate_options;

SP_API sp_evaluate_options sp_evaluate_options_default(void);

/* Whether the options name tasks that exist, with their data: what can be known without a model. */
SP_API SP_MUST_CHECK sp_status sp_evaluate_check(const sp_evaluate_options *options);

/* Runs the tasks one after another.  *json: a document in the shape of lm-eval's result files, with a block
 * "softpick" of our own (docs/evaluation.md); caller frees.  Cancelled by the progress function: SP_CANCELLED, and
 * with `out` what is done is kept for `resume`. */
SP_API SP_MUST_CHECK sp_status sp_evaluate(sp_model *model, const sp_tokenizer *tokenizer,
                                           const sp_evaluate_options *options, char **json);

/* A row of the table of tasks, for people. */
typedef struct sp_evaluate_task {
    const char *name;
    const char *about;
    const char *source; /* where its data files come from */
    char files[512];    /* names that are looked for, ", " between them */
    char found[4096];   /* the one that is there; "" for none */
} sp_evaluate_task;
/* The i-th row; `data` (may be NULL) is where `found` is looked for.  False past the end. */
SP_API bool sp_evaluate_task_at(int64_t i, const char *data, sp_evaluate_task *out);

#ifdef __cplusplus
}
#endif
#endif
