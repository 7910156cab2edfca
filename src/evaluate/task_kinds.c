/* The kinds of tasks that score continuations of contexts, and how they judge. */
#include <string.h>

#include "evaluate/metric.h"
#include "evaluate/python_letters.h"
#include "evaluate/request.h"
#include "evaluate/task.h"

/* Whether the alternative with the largest log p per unit is the right one; `unit` NULL: log p itself. */
static bool is_right(const sp_document *document, const sp_answer *answers, double (*unit)(const char *choice)) {
    const sp_strings *choices = document->contexts.n > 1 ? &document->contexts : &document->continuations;
    int64_t best = 0;
    double largest = 0;
    for (int64_t i = 0; i < document->n_answers; i++) {
        double value = answers[i].sum / (unit ? unit(choices->items[i]) : 1);
        if (i > 0 && sp_metric_best((double[]){largest, value}, 2) == 0) continue;
        best = i;
        largest = value;
    }
    return best == document->gold;
}

static double n_characters(const char *choice) { return (double)sp_python_length(choice); }
static double n_bytes(const char *choice) { return (double)strlen(choice); }

static void judge_choice(sp_metric_value *values, const sp_task *task, const sp_document *document,
                         const sp_answer *answers) {
    for (int64_t m = 0; task->metrics[m]; m++) {
        bool per_character = strcmp(task->metrics[m], "acc_norm") == 0;
        bool per_byte = strcmp(task->metrics[m], "acc_bytes") == 0;
        bool right = is_right(document, answers, per_character ? n_characters : per_byte ? n_bytes : NULL);
        values[m] = (sp_metric_value){right, 1};
    }
}

static void judge_cloze(sp_metric_value *values, const sp_task *task, const sp_document *document,
                        const sp_answer *answers) {
    (void)document;
    for (int64_t m = 0; task->metrics[m]; m++) {
        bool accuracy = strcmp(task->metrics[m], "acc") == 0;
        values[m] = (sp_metric_value){accuracy ? answers->greedy : answers->sum, 1};
    }
}

const sp_task_kind sp_task_kind_choice = {
    .name = "multiple_choice",
    .output_type = "multiple_choice",
    .ask = sp_ask_pairs,
    .judge = judge_choice,
    .takes_examples = true,
    .context_key = "context",
    .continuation_key = "choices",
    .metrics = {"acc", "acc_norm", "acc_bytes"},
};
const sp_task_kind sp_task_kind_partial = {
    .name = "partial",
    .output_type = "multiple_choice",
    .ask = sp_ask_pairs,
    .judge = judge_choice,
    .takes_examples = true,
    .context_key = "contexts",
    .continuation_key = "continuation",
    .metrics = {"acc"},
};
const sp_task_kind sp_task_kind_cloze = {
    .name = "cloze",
    .output_type = "loglikelihood",
    .ask = sp_ask_pairs,
    .judge = judge_cloze,
    .takes_examples = true,
    .context_key = "context",
    .continuation_key = "target",
    .metrics = {"perplexity", "acc"},
};

static const sp_task_kind *const kinds[] = {&sp_task_kind_choice, &sp_task_kind_partial, &sp_task_kind_cloze,
                                            &sp_task_kind_rolling};

const sp_task_kind *sp_task_kind_find(const char *name) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i]->name, name) == 0) return kinds[i];
    return NULL;
}
