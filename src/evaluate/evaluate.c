/* An evaluation: tasks one after another, each document's questions scored, judged, counted.
 *
 * Documents of a task go through the model in lots of a fixed number of bytes, so that results do not depend on time; after
 * each lot its answers are written down, for a run that is interrupted to go on from. */
#define _GNU_SOURCE
#include "softpick/evaluate.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/sha256.h"
#include "evaluate/bootstrap.h"
#include "evaluate/document.h"
#include "evaluate/fewshot.h"
#include "evaluate/metric.h"
#include "evaluate/outcome.h"
#include "evaluate/samples.h"
#include "evaluate/task_file.h"
#include "evaluate/unfinished.h"

/* Text of one lot of documents, about four bytes a token: many batches on a GPU, a few seconds on a CPU. */
enum { LOT_BYTES_HOST = 1 << 16, LOT_BYTES_DEVICE = 1 << 22 };

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
                                 .model_name = "model"};
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
    int64_t n;
    sp_task_file_task **files;
    int64_t n_files;
} task_list;

static void close_tasks(task_list *list) {
    for (int64_t i = 0; i < list->n_files; i++) sp_task_file_close(list->files[i]);
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
    list->files = calloc((size_t)n, sizeof *list->files);
    sp_status status = SP_OK;
    SP_REQUIRE_OR_DONE(list->items && list->files, SP_OUT_OF_MEMORY, "no memory for %" PRId64 " tasks", n);
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

static const char *folder_of(const sp_task *task, const sp_evaluate_options *options) {
    return task->folder ? task->folder : options->data;
}

/* Whether the task's files are there. */
static sp_status check_files(const sp_task *task, const sp_evaluate_options *options) {
    char path[4096];
    const char *folder = folder_of(task, options);
    bool takes = options->n_fewshot > 0 && task->kind->takes_examples;
    if (task->files[0].path) SP_TRY(sp_task_file_find(path, NULL, task, task->files, folder));
    if (takes && task->example_files[0].path) SP_TRY(sp_task_file_find(path, NULL, task, task->example_files, folder));
    return SP_OK;
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

/* ---- one task ---- */

/* A task under way. */
typedef struct task_run {
    sp_evaluation *evaluation;
    const sp_task *task;
    const char *folder; /* of result files; NULL: none are written */
    char path[4096];    /* of the data file */
    sp_documents documents;
    int64_t n; /* documents asked */
    char **examples;
    sp_answer *answers;
    sp_metric_value *values;
    sp_unfinished unfinished;
    int64_t first, n_lot; /* documents that pass through the model */
} task_run;

static void close_run(task_run *run) {
    for (int64_t i = 0; run->examples && i < run->n; i++) free(run->examples[i]);
    free(run->examples);
    free(run->answers);
    free(run->values);
    sp_unfinished_close(&run->unfinished);
    sp_documents_clear(&run->documents);
}

static sp_status read_documents(sp_documents *documents, char path[4096], const task_run *run,
                                const sp_task_file *files) {
    const sp_task_file *file;
    const char *folder = folder_of(run->task, run->evaluation->options);
    SP_TRY(sp_task_file_find(path, &file, run->task, files, folder));
    return sp_documents_read(documents, run->task, file, path, folder);
}

static sp_status draw_examples(task_run *run) {
    const sp_evaluate_options *options = run->evaluation->options;
    if (options->n_fewshot == 0 || !run->task->kind->takes_examples) return SP_OK;
    sp_documents pool = {0};
    char path[4096];
    bool own = run->task->example_files[0].path != NULL;
    sp_status status = SP_OK;
    if (own) SP_TRY_OR_DONE(read_documents(&pool, path, run, run->task->example_files));
    run->examples = calloc((size_t)run->n, sizeof *run->examples);
    SP_REQUIRE_OR_DONE(run->examples, SP_OUT_OF_MEMORY, "no memory for few-shot examples");
    status = sp_fewshot_draw(run->examples, run->task, &run->documents, run->n, own ? &pool : &run->documents,
                             options->n_fewshot, options->compat);
done:
    sp_documents_clear(&pool);
    return status;
}

static sp_status open_run(task_run *run) {
    int64_t limit = run->evaluation->options->limit, n_answers = 0;
    SP_TRY(read_documents(&run->documents, run->path, run, run->task->files));
    run->n = limit > 0 && limit < run->documents.n ? limit : run->documents.n;
    for (int64_t i = 0; i < run->n; i++) n_answers += run->documents.items[i].n_answers;
    SP_TRY(draw_examples(run));
    run->answers = calloc((size_t)n_answers + 1, sizeof *run->answers);
    run->values = calloc((size_t)(run->n * sp_task_n_metrics(run->task)) + 1, sizeof *run->values);
    SP_REQUIRE(run->answers && run->values, SP_OUT_OF_MEMORY, "no memory for %" PRId64 " answers", n_answers);
    return SP_OK;
}

static void hash_text(sp_sha256 *hash, const char *text) { sp_sha256_add(hash, text, (int64_t)strlen(text) + 1); }

/* What answers depend on: the model, how it is asked, and every text. */
static void make_key(char key[65], const task_run *run) {
    const sp_evaluation *evaluation = run->evaluation;
    const sp_evaluate_options *options = evaluation->options;
    sp_sha256 hash;
    char settings[256];
    sp_sha256_begin(&hash);
    snprintf(settings, sizeof settings, "%s %s %s %" PRId64 " %" PRId32, sp_version(),
             sp_dtype_name(sp_model_dtype(evaluation->model)), sp_evaluate_compat_name(options->compat),
             evaluation->max_length, evaluation->prefix);
    hash_text(&hash, settings);
    hash_text(&hash, options->model_key ? options->model_key : options->model_name);
    hash_text(&hash, run->task->name);
    hash_text(&hash, run->task->delimiter ? run->task->delimiter : " ");
    for (int64_t i = 0; i < run->n; i++) {
        const sp_document *document = &run->documents.items[i];
        if (run->examples) hash_text(&hash, run->examples[i]);
        for (int64_t j = 0; j < document->contexts.n; j++) hash_text(&hash, document->contexts.items[j]);
        for (int64_t j = 0; j < document->continuations.n; j++) hash_text(&hash, document->continuations.items[j]);
    }
    sp_sha256_finish(&hash, key);
}

static int64_t bytes_of(const task_run *run, int64_t i) {
    const sp_document *document = &run->documents.items[i];
    int64_t n = run->examples ? (int64_t)strlen(run->examples[i]) : 0;
    for (int64_t j = 0; j < document->contexts.n; j++) n += (int64_t)strlen(document->contexts.items[j]);
    for (int64_t j = 0; j < document->continuations.n; j++) n += (int64_t)strlen(document->continuations.items[j]);
    return n;
}

/* Documents from `first` on whose texts make a lot; at least one. */
static int64_t count_lot(const task_run *run, int64_t first) {
    int64_t most = sp_model_device(run->evaluation->model) ? LOT_BYTES_DEVICE : LOT_BYTES_HOST;
    int64_t n = 0;
    for (int64_t bytes = 0; first + n < run->n && (n == 0 || bytes < most); n++) bytes += bytes_of(run, first + n);
    return n;
}

/* sp_score counts its items, the caller documents. */
static int report_progress(void *user, const char *what, int64_t done, int64_t total) {
    (void)what;
    const task_run *run = user;
    const sp_evaluate_options *options = run->evaluation->options;
    if (!options->progress) return 0;
    int64_t share = total > 0 ? run->n_lot * done / total : 0;
    return options->progress(options->progress_user, run->task->name, run->first + share, run->n);
}

/* Answers of documents [run->first, run->first + run->n_lot). */
static sp_status answer_lot(task_run *run, sp_answer *answers, int64_t n_answers) {
    sp_evaluation *evaluation = run->evaluation;
    sp_requests requests = {0};
    sp_score_options options = sp_score_options_default();
    options.batch_tokens = evaluation->options->batch_tokens;
    options.counts = &evaluation->counts;
    options.progress = report_progress;
    options.progress_user = run;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(run->task->kind->ask(&requests, evaluation, run->task, &run->documents, run->first, run->n_lot,
                                        run->examples ? run->examples + run->first : NULL));
    SP_TRY_OR_DONE(sp_score(evaluation->model, requests.items, requests.n, &options));
    for (int64_t i = 0; i < n_answers; i++) answers[i] = (sp_answer){0, true};
    for (int64_t i = 0; i < requests.n; i++) {
        sp_answer *answer = &answers[requests.answers[i]];
        answer->sum += requests.items[i].sum;
        answer->greedy = answer->greedy && requests.items[i].greedy;
    }
done:
    sp_requests_clear(&requests);
    return status;
}

static sp_status keep_lot(task_run *run, const sp_answer *answers) {
    if (!run->unfinished.file) return SP_OK;
    for (int64_t i = run->first; i < run->first + run->n_lot; i++) {
        int64_t n = run->documents.items[i].n_answers;
        SP_TRY(sp_unfinished_add(&run->unfinished, i, n, answers));
        answers += n;
    }
    return sp_unfinished_flush(&run->unfinished);
}

static sp_status answer_all(task_run *run) {
    sp_answer *answers = run->answers;
    int64_t n_done = 0;
    if (run->folder) {
        char key[65];
        make_key(key, run);
        SP_TRY(sp_unfinished_open(&run->unfinished, run->folder, run->task->name, key, run->evaluation->options->resume,
                                  &run->documents, run->n, answers, &n_done));
    }
    for (int64_t i = 0; i < n_done; i++) answers += run->documents.items[i].n_answers;
    for (run->first = n_done; run->first < run->n; run->first += run->n_lot) {
        int64_t n_answers = 0;
        run->n_lot = count_lot(run, run->first);
        for (int64_t i = 0; i < run->n_lot; i++) n_answers += run->documents.items[run->first + i].n_answers;
        SP_TRY(answer_lot(run, answers, n_answers));
        SP_TRY(keep_lot(run, answers));
        answers += n_answers;
    }
    return SP_OK;
}

/* ---- metrics ---- */

static sp_status add_metric(json_t *metrics, const task_run *run, int64_t m, int64_t stride) {
    const sp_metric *metric = sp_metric_find(run->task->metrics[m]);
    const sp_metric_value *values = run->values + m;
    double error;
    SP_TRY(sp_metric_error_of(&error, metric, values, run->n, stride, run->evaluation->options->bootstrap_iterations));
    char key[64];
    snprintf(key, sizeof key, "%s,none", metric->name);
    json_object_set_new(metrics, key, sp_json_number(sp_metric_value_of(metric, values, run->n, stride)));
    snprintf(key, sizeof key, "%s_stderr,none", metric->name);
    json_t *shown = isfinite(error) ? json_real(error) : json_string("N/A");
    SP_REQUIRE(json_object_set_new(metrics, key, shown) == 0, SP_OUT_OF_MEMORY, "no memory for results");
    return SP_OK;
}

static sp_status judge_all(sp_task_outcome *outcome, task_run *run) {
    int64_t n_metrics = sp_task_n_metrics(run->task);
    const sp_answer *answers = run->answers;
    for (int64_t i = 0; i < run->n; i++) {
        const sp_document *document = &run->documents.items[i];
        run->task->kind->judge(run->values + i * n_metrics, run->task, document, answers);
        answers += document->n_answers;
    }
    *outcome = (sp_task_outcome){.metrics = json_object(), .n_original = run->documents.n, .n_effective = run->n};
    for (int64_t m = 0; m < n_metrics; m++) SP_TRY(add_metric(outcome->metrics, run, m, n_metrics));
    return SP_OK;
}

static sp_status write_samples(char hash[65], const task_run *run, const char *time_name) {
    char name[256], path[4096];
    snprintf(name, sizeof name, "samples_%s_%s.jsonl", run->task->name, time_name);
    SP_TRY(sp_path_join(path, sizeof path, run->folder, name));
    sp_answered answered = {run->task, &run->documents, run->n, run->examples, run->answers, run->values};
    return sp_samples_write(hash, path, &answered);
}

/* ---- the run ---- */

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* A run's place for files: `folder` "" when none are written. */
typedef struct result_place {
    char folder[4096], time_name[64];
} result_place;

static sp_status open_output(result_place *out, const sp_evaluate_options *options) {
    *out = (result_place){0};
    if (!options->out) return SP_OK;
    SP_TRY(sp_outcomes_folder(out->folder, options->out, options->model_name));
    SP_TRY(sp_folder_make(out->folder));
    struct timespec now;
    struct tm local;
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &local);
    char seconds[32];
    strftime(seconds, sizeof seconds, "%Y-%m-%dT%H-%M-%S", &local);
    snprintf(out->time_name, sizeof out->time_name, "%s.%06ld", seconds, now.tv_nsec / 1000);
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

/* A task whose kind asks and judges document by document; *hash "" unless samples are written. */
static sp_status run_documents(sp_task_outcome *outcome, char path[4096], char hash[65], sp_evaluation *evaluation,
                               const sp_task *task, const result_place *out) {
    task_run run = {.evaluation = evaluation, .task = task, .folder = *out->folder ? out->folder : NULL};
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(open_run(&run));
    memcpy(path, run.path, sizeof run.path);
    SP_TRY_OR_DONE(answer_all(&run));
    SP_TRY_OR_DONE(judge_all(outcome, &run));
    if (run.folder && evaluation->options->samples) status = write_samples(hash, &run, out->time_name);
done:
    close_run(&run);
    return status;
}

static sp_status run_task(sp_outcomes *results, sp_evaluation *evaluation, const sp_task *task,
                          const result_place *out) {
    double began = seconds_now();
    sp_score_counts before = evaluation->counts;
    char path[4096] = "", hash[65] = "";
    sp_task_outcome outcome = {0};
    bool takes = task->kind->takes_examples;
    sp_status status = task->kind->run ? task->kind->run(&outcome, evaluation, task)
                                       : run_documents(&outcome, path, hash, evaluation, task, out);
    if (status == SP_OK) {
        sp_task_facts facts = {.file = *path ? path : NULL,
                               .n_fewshot = takes ? evaluation->options->n_fewshot : 0,
                               .hash = *hash ? hash : NULL,
                               .seconds = seconds_now() - began,
                               .counts = counts_since(evaluation->counts, before)};
        return sp_outcomes_add(results, task, &outcome, &facts);
    }
    json_decref(outcome.metrics);
    json_decref(outcome.extra);
    return status;
}

static sp_status open_evaluation(sp_evaluation *evaluation, sp_model *model, const sp_tokenizer *tokenizer,
                                 const sp_evaluate_options *options) {
    const sp_model_config *config = sp_model_config_of(model);
    int64_t V = sp_tokenizer_vocabulary(tokenizer), L = config->max_positions;
    SP_REQUIRE(V <= config->vocabulary, SP_BAD_FILE,
               "%s: its vocabulary of %" PRId64 " tokens is larger than the model's %" PRId64,
               sp_tokenizer_path(tokenizer), V, config->vocabulary);
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

static sp_status write_results(const result_place *out, const char *text, const task_list *list) {
    char name[256], path[4096];
    snprintf(name, sizeof name, "results_%s.json", out->time_name);
    SP_TRY(sp_path_join(path, sizeof path, out->folder, name));
    SP_TRY(sp_file_write(path, text, (int64_t)strlen(text)));
    for (int64_t i = 0; i < list->n; i++) sp_unfinished_remove(out->folder, list->items[i]->name);
    return SP_OK;
}

sp_status sp_evaluate(sp_model *model, const sp_tokenizer *tokenizer, const sp_evaluate_options *options, char **json) {
    *json = NULL;
    double began = seconds_now();
    task_list list;
    SP_TRY(open_checked_tasks(&list, options));
    sp_outcomes results = {0};
    sp_evaluation evaluation;
    result_place out;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(open_evaluation(&evaluation, model, tokenizer, options));
    SP_TRY_OR_DONE(open_output(&out, options));
    SP_TRY_OR_DONE(sp_outcomes_open(&results));
    for (int64_t i = 0; i < list.n; i++) SP_TRY_OR_DONE(run_task(&results, &evaluation, list.items[i], &out));
    SP_TRY_OR_DONE(sp_outcomes_finish(&results, &evaluation, seconds_now() - began));
    SP_TRY_OR_DONE(sp_outcomes_format(&results, json));
    if (*out.folder) status = write_results(&out, *json, &list);
done:
    if (status != SP_OK) {
        free(*json);
        *json = NULL;
    }
    sp_outcomes_close(&results);
    close_tasks(&list);
    return status;
}
