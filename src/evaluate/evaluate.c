/* An evaluation: what is asked for is checked, all data is read (task_data.c), so that a broken line is told before
 * hours of work; then tasks run one after another (task_run.c) and their results become one document (outcome.c). */
#define _GNU_SOURCE
#include "softpick/evaluate.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "evaluate/bootstrap.h"
#include "evaluate/outcome.h"
#include "evaluate/task_file.h"
#include "evaluate/task_run.h"
#include "evaluate/unfinished.h"

/* ---- options ---- */

static const char *const compat_names[] = {
    [SP_EVALUATE_COMPAT_0_4_10] = "0.4.10", [SP_EVALUATE_COMPAT_0_4_8] = "0.4.8"};
enum { N_COMPATS = sizeof compat_names / sizeof *compat_names };

const char *sp_evaluate_compat_name(sp_evaluate_compat compat) {
    return (int)compat >= 0 && (int)compat < N_COMPATS ? compat_names[compat] : "unknown";
}

sp_status sp_evaluate_compat_find(sp_evaluate_compat *out, const char *name) {
    for (int i = 0; i < N_COMPATS; i++)
        if (strcmp(compat_names[i], name) == 0) {
            *out = (sp_evaluate_compat)i;
            return SP_OK;
        }
    return sp_fail(SP_BAD_ARGUMENT, "\"%s\" is not 0.4.8 or 0.4.10", name);
}

sp_evaluate_options sp_evaluate_options_default(void) {
    return (sp_evaluate_options){.struct_bytes = sizeof(sp_evaluate_options),
                                 .data = ".",
                                 .bootstrap_iterations = SP_BOOTSTRAP_SAMPLES,
                                 .model_name = "model",
                                 .passkey = {.protocol = "paper", .n_depths = 5, .n_trials = 10}};
}

static sp_status check_options(const sp_evaluate_options *options) {
    SP_REQUIRE(options && options->struct_bytes == sizeof *options, SP_BAD_ARGUMENT,
               "evaluate options: begin with sp_evaluate_options_default()");
    SP_REQUIRE(options->n_tasks + options->n_task_files > 0, SP_BAD_ARGUMENT, "no task is named");
    SP_REQUIRE(options->limit >= 0, SP_BAD_ARGUMENT, "limit is %" PRId64 ": 0 (all documents) or more", options->limit);
    SP_REQUIRE(options->n_fewshot >= 0 && options->n_fewshot <= 1000, SP_BAD_ARGUMENT,
               "%" PRId64 " few-shot examples: not between 0 and 1000", options->n_fewshot);
    int64_t n = options->bootstrap_iterations;
    SP_REQUIRE(n >= 0 && (n < 1000 || n % 1000 == 0), SP_BAD_ARGUMENT,
               "%" PRId64 " bootstrap samples: not below 1000, nor a multiple of it", n);
    return SP_OK;
}

/* ---- the tasks of a run ---- */

typedef struct task_list {
    const sp_task **items;
    sp_task_data *data; /* of each, once it is read */
    int64_t n;
    sp_task_file_task **files;
    int64_t n_files;
} task_list;

static void close_tasks(task_list *list) {
    for (int64_t i = 0; list->data && i < list->n; i++) sp_task_data_clear(&list->data[i]);
    for (int64_t i = 0; i < list->n_files; i++) sp_task_file_close(list->files[i]);
    free(list->data);
    free(list->files);
    free(list->items);
    *list = (task_list){0};
}

static sp_status add_task(task_list *list, const sp_task *task) {
    for (int64_t i = 0; i < list->n; i++)
        SP_REQUIRE(strcmp(list->items[i]->name, task->name) != 0, SP_BAD_ARGUMENT, "two tasks are named %s",
                   task->name);
    list->items[list->n++] = task;
    return SP_OK;
}

static sp_status open_tasks(task_list *list, const sp_evaluate_options *options) {
    *list = (task_list){0};
    int64_t n = options->n_tasks + options->n_task_files;
    list->items = calloc((size_t)n, sizeof *list->items);
    list->data = calloc((size_t)n, sizeof *list->data);
    list->files = calloc((size_t)n, sizeof *list->files);
    sp_status status = SP_OK;
    SP_REQUIRE_OR_DONE(list->items && list->data && list->files, SP_OUT_OF_MEMORY, "no memory for %" PRId64 " tasks",
                       n);
    for (int64_t i = 0; i < options->n_tasks; i++) {
        const sp_task *task;
        SP_TRY_OR_DONE(sp_task_find(&task, options->tasks[i]));
        SP_TRY_OR_DONE(add_task(list, task));
    }
    for (int64_t i = 0; i < options->n_task_files; i++) {
        sp_task_file_task **file = &list->files[list->n_files];
        SP_TRY_OR_DONE(sp_task_file_open(file, options->task_files[i]));
        list->n_files++;
        SP_TRY_OR_DONE(add_task(list, &(*file)->task));
    }
done:
    if (status != SP_OK) close_tasks(list);
    return status;
}

/* Whether the task's data is there. */
static sp_status check_files(const sp_task *task, const sp_evaluate_options *options) {
    char path[4096];
    const char *folder = task->folder ? task->folder : options->data;
    return task->files[0].path ? sp_task_file_find(path, NULL, task, task->files, folder) : SP_OK;
}

static sp_status open_checked_tasks(task_list *list, const sp_evaluate_options *options) {
    SP_TRY(check_options(options));
    SP_TRY(open_tasks(list, options));
    sp_status status = SP_OK;
    for (int64_t i = 0; i < list->n && status == SP_OK; i++) status = check_files(list->items[i], options);
    if (status != SP_OK) close_tasks(list);
    return status;
}

sp_status sp_evaluate_check(const sp_evaluate_options *options) {
    task_list list;
    SP_TRY(open_checked_tasks(&list, options));
    close_tasks(&list);
    return SP_OK;
}

/* ---- the run ---- */

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static sp_status open_place(sp_result_place *place, const sp_evaluate_options *options) {
    *place = (sp_result_place){0};
    if (!options->out) return SP_OK;
    SP_TRY(sp_outcomes_folder(place->folder, options->out, options->model_name));
    SP_TRY(sp_folder_make(place->folder));
    struct timespec now;
    struct tm local;
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &local);
    char seconds[32];
    strftime(seconds, sizeof seconds, "%Y-%m-%dT%H-%M-%S", &local);
    snprintf(place->time_name, sizeof place->time_name, "%s.%06ld", seconds, now.tv_nsec / 1000);
    return SP_OK;
}

/* Counts of `now` that were not there `before`. */
static sp_score_counts counts_since(sp_score_counts now, sp_score_counts before) {
    now.n_batches -= before.n_batches;
    now.n_read -= before.n_read;
    now.n_computed -= before.n_computed;
    now.n_scored -= before.n_scored;
    return now;
}

static sp_status run_task(sp_outcomes *results, sp_evaluation *evaluation, const sp_task *task,
                          const sp_task_data *data, const sp_result_place *place) {
    double began = seconds_now();
    sp_score_counts before = evaluation->counts;
    sp_task_outcome outcome = {0};
    sp_task_facts facts = {0};
    sp_status status = task->kind->run ? task->kind->run(&outcome, evaluation, task)
                                       : sp_task_run(&outcome, &facts, evaluation, task, data, place);
    if (status == SP_OK) {
        facts.seconds = seconds_now() - began;
        facts.counts = counts_since(evaluation->counts, before);
        return sp_outcomes_add(results, task, &outcome, &facts);
    }
    json_decref(outcome.metrics);
    json_decref(outcome.extra);
    return status;
}

static sp_status open_evaluation(sp_evaluation *evaluation, sp_model *model, const sp_tokenizer *tokenizer,
                                 const sp_evaluate_options *options) {
    const sp_model_config *config = sp_model_config_of(model);
    int64_t L = config->max_positions;
    SP_REQUIRE(options->max_length >= 0 && options->max_length <= L, SP_BAD_ARGUMENT,
               "a length of %" PRId64 " tokens: the model has %" PRId64 " positions", options->max_length, L);
    int32_t bos = sp_tokenizer_bos(tokenizer), eos = sp_tokenizer_eos(tokenizer);
    unsigned added = options->compat == SP_EVALUATE_COMPAT_0_4_8 ? 0 : SP_ENCODE_TEMPLATE;
    *evaluation = (sp_evaluation){.model = model,
                                  .tokenizer = tokenizer,
                                  .options = options,
                                  .max_length = options->max_length ? options->max_length : L,
                                  .prefix = bos >= 0 ? bos : eos,
                                  .encode_flags = SP_ENCODE_SPECIAL | added};
    SP_REQUIRE(evaluation->prefix >= 0, SP_BAD_FILE, "%s: the tokenizer has neither BOS nor EOS",
               sp_tokenizer_path(tokenizer));
    return SP_OK;
}

static sp_status write_results(const sp_result_place *place, const char *text, const task_list *list) {
    char name[256], path[4096];
    snprintf(name, sizeof name, "results_%s.json", place->time_name);
    SP_TRY(sp_path_join(path, sizeof path, place->folder, name));
    SP_TRY(sp_file_write(path, text, (int64_t)strlen(text)));
    for (int64_t i = 0; i < list->n; i++) sp_unfinished_remove(place->folder, list->items[i]->name);
    return SP_OK;
}

sp_status sp_evaluate(sp_model *model, const sp_tokenizer *tokenizer, const sp_evaluate_options *options, char **json) {
    *json = NULL;
    double began = seconds_now();
    task_list list;
    SP_TRY(open_checked_tasks(&list, options));
    sp_outcomes results = {0};
    sp_evaluation evaluation;
    sp_result_place place;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(open_evaluation(&evaluation, model, tokenizer, options));
    SP_TRY_OR_DONE(sp_task_data_read(list.data, list.items, list.n, options));
    SP_TRY_OR_DONE(open_place(&place, options));
    SP_TRY_OR_DONE(sp_outcomes_open(&results));
    for (int64_t i = 0; i < list.n; i++)
        SP_TRY_OR_DONE(run_task(&results, &evaluation, list.items[i], &list.data[i], &place));
    SP_TRY_OR_DONE(sp_outcomes_finish(&results, &evaluation, seconds_now() - began));
    SP_TRY_OR_DONE(sp_outcomes_format(&results, json));
    if (*place.folder) status = write_results(&place, *json, &list);
done:
    if (status != SP_OK) {
        free(*json);
        *json = NULL;
    }
    sp_outcomes_close(&results);
    close_tasks(&list);
    return status;
}
