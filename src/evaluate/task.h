/* What a task is: where its documents lie, how they become questions, and how answers become metrics.
 *
 * The one table of tasks is in tasks_table.c, the kinds are in task_kinds.c, and a task file of the user (task_file.c)
 * gives rows of the same form.  A document goes this way:
 *
 *   data file -> sp_document (document.c, by a layout) -> token sequences (request.c) -> scores (score.c)
 *             -> one sp_answer per alternative -> values of the metrics (metric.c) -> results (outcome.c) */
#ifndef SP_EVALUATE_TASK_H
#define SP_EVALUATE_TASK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"
#include "evaluate/score.h"
#include "softpick/evaluate.h"

typedef struct sp_task sp_task;

/* ---- what a run knows ---- */

typedef struct sp_evaluation {
    sp_model *model;
    const sp_tokenizer *tokenizer;
    const sp_evaluate_options *options;
    int64_t max_length;     /* L: tokens that the model sees at once */
    int32_t prefix;         /* stands before a text that has nothing before it: BOS, else EOS */
    unsigned encode_flags;  /* of whole texts, by the version of lm-eval */
    sp_score_counts counts; /* added to: what was scored */
} sp_evaluation;

/* ---- documents ---- */

typedef struct sp_strings {
    char **items; /* each owned, UTF-8 */
    int64_t n;
} sp_strings;

/* One question.  Either one context with n continuations, or n contexts with one continuation. */
typedef struct sp_document {
    json_t *fields;           /* as it was read */
    int64_t line;             /* where it stands in its file */
    sp_strings contexts;      /* without examples in front; none in rolling tasks */
    sp_strings continuations; /* a choice without the delimiter; in cloze tasks with it */
    int64_t n_answers;
    int64_t gold;        /* the right answer; 0 where there is one answer alone */
    double words, bytes; /* of the text, in rolling tasks */
} sp_document;

typedef struct sp_documents {
    sp_document *items;
    int64_t n, capacity;
} sp_documents;

/* Adds an empty document, to be filled. */
SP_MUST_CHECK sp_status sp_documents_add(sp_documents *documents, sp_document **added);
void sp_documents_clear(sp_documents *documents);
/* Adds a copy of n_bytes of text. */
SP_MUST_CHECK sp_status sp_strings_add(sp_strings *strings, const char *text, int64_t n_bytes);

/* ---- questions and answers in tokens ---- */

/* What the model says of one alternative. */
typedef struct sp_answer {
    double sum;  /* log p of its tokens, in nats */
    bool greedy; /* each was the most likely one */
} sp_answer;

/* Token sequences to score, and to which answer each counts; an answer may have several. */
typedef struct sp_requests {
    sp_score_item *items; /* tokens owned */
    int64_t *answers;
    int64_t n, capacity;
} sp_requests;

/* Adds a sequence; takes `tokens` over, also on failure. */
SP_MUST_CHECK sp_status sp_requests_add(sp_requests *requests, int64_t answer, int32_t *tokens, int64_t n_tokens,
                                        int64_t n_scored);
void sp_requests_clear(sp_requests *requests);

/* ---- metrics ---- */

typedef enum sp_aggregate {
    SP_AGGREGATE_MEAN,                /* standard error: sample deviation / sqrt(n) */
    SP_AGGREGATE_PERPLEXITY,          /* exp(-mean); standard error by bootstrap */
    SP_AGGREGATE_WEIGHTED_PERPLEXITY, /* exp(-sum of values / sum of weights); no standard error */
    SP_AGGREGATE_BITS,                /* -sum of values / sum of weights / ln 2; no standard error */
} sp_aggregate;

typedef struct sp_metric {
    const char *name;
    sp_aggregate aggregate;
    bool higher_is_better;
} sp_metric;

/* A document's share of a metric. */
typedef struct sp_metric_value {
    double value, weight;
} sp_metric_value;

/* NULL: there is none of this name. */
const sp_metric *sp_metric_find(const char *name);

/* ---- kinds ---- */

enum { SP_TASK_FILES = 5, SP_TASK_LAYOUTS = 4, SP_TASK_TEMPLATES = 8, SP_TASK_METRICS = 4 };

/* What a kind returns that does everything by itself. */
typedef struct sp_task_outcome {
    json_t *metrics; /* {"name,none": value, "name_stderr,none": value or "N/A"}: joins results.TASK */
    json_t *extra;   /* joins softpick.tasks.TASK; may be NULL */
    int64_t n_original, n_effective;
} sp_task_outcome;

typedef struct sp_task_kind {
    const char *name;        /* in task files */
    const char *output_type; /* lm-eval's word for it */
    /* Reads the documents of an open data file; NULL: JSON lines, by the task's layouts. */
    sp_status (*read)(sp_documents *documents, const sp_task *task, const char *path);
    /* Token sequences of documents [first, first + n); answers are counted from 0, document by document.  `examples`:
     * texts that go in front of the context of each document of the range, NULL for none. */
    sp_status (*ask)(sp_requests *requests, const sp_evaluation *evaluation, const sp_task *task,
                     const sp_documents *documents, int64_t first, int64_t n, char *const *examples);
    /* Values of the task's metrics (task->metrics, in order) from the n_answers answers of a document. */
    void (*judge)(sp_metric_value *values, const sp_task *task, const sp_document *document, const sp_answer *answers);
    /* Set: the kind does all by itself, and the others are NULL. */
    sp_status (*run)(sp_task_outcome *outcome, sp_evaluation *evaluation, const sp_task *task);
    bool takes_examples;
    /* In a task file: keys of the templates (NULL: it has none), and the metrics, all of them if none are named. */
    const char *context_key, *continuation_key;
    const char *metrics[SP_TASK_METRICS + 1];
} sp_task_kind;

extern const sp_task_kind sp_task_kind_choice;   /* "multiple_choice": one context, several continuations */
extern const sp_task_kind sp_task_kind_partial;  /* "partial": several contexts, one continuation */
extern const sp_task_kind sp_task_kind_cloze;    /* "cloze": one continuation, right if each token is the likeliest */
extern const sp_task_kind sp_task_kind_rolling;  /* "rolling": whole texts, in windows (rolling.c) */
extern const sp_task_kind sp_task_kind_wikitext; /* the same for WikiText's file */
extern const sp_task_kind sp_task_kind_blocks;   /* the quantization papers' perplexity (perplexity_blocks.c) */
extern const sp_task_kind sp_task_kind_passkey;  /* retrieval of a hidden number (passkey_task.c) */

/* NULL: there is none of this name. */
const sp_task_kind *sp_task_kind_find(const char *name);

/* ---- tasks ---- */

/* A data file that may be there, below the data folder, plain or with .zst or .gz after its name. */
typedef struct sp_task_file {
    const char *path;
    const char *labels; /* lines that give field "label" of each document; NULL: it is in the document */
} sp_task_file;

/* How documents of one form become questions.  All are templates (prompt.h); a list of them ends with NULL, and one
 * that is a single field which holds a list stands for the whole list. */
typedef struct sp_task_layout {
    const char *contexts[SP_TASK_TEMPLATES];
    const char *continuations[SP_TASK_TEMPLATES];
    const char *gold;                      /* an index from 0, or a label; NULL: 0 */
    const char *labels[SP_TASK_TEMPLATES]; /* what gold may say instead of an index; none: gold is the index */
    const char *filter;                    /* of every context and continuation; NULL: none */
} sp_task_layout;

struct sp_task {
    const char *name;
    const char *version; /* as JSON */
    const char *about;
    const char *source; /* where the data files come from */
    const sp_task_kind *kind;
    sp_task_file files[SP_TASK_FILES];         /* the first that is there is read; ends with a NULL path */
    sp_task_file example_files[SP_TASK_FILES]; /* few-shot examples; none there: the documents themselves */
    sp_task_layout layouts[SP_TASK_LAYOUTS];   /* the first that fits a document; ends with no continuations */
    const char *metrics[SP_TASK_METRICS + 1];
    const char *delimiter; /* between context and choice; NULL: one space */
    const char *folder;    /* of the data files; NULL: the data folder of the options */
    bool has_test_split;   /* lm-eval names one for it, which decides how few-shot examples are drawn */
};

/* The i-th row of the table; NULL past the end. */
const sp_task *sp_task_at(int64_t i);
/* A row by name; fails and names the nearest otherwise. */
SP_MUST_CHECK sp_status sp_task_find(const sp_task **out, const char *name);
/* The path of the first of `files` that is in `folder`; fails and names those looked for otherwise.  *file (may be
 * NULL): which of them. */
SP_MUST_CHECK sp_status sp_task_file_find(char path[4096], const sp_task_file **file, const sp_task *task,
                                          const sp_task_file *files, const char *folder);
/* Values of a task's metrics are in this order; their number. */
int64_t sp_task_n_metrics(const sp_task *task);

#endif
