/* One task: its documents are asked about and judged.
 *
 * Documents go through the model in lots of a fixed number of bytes, so that results do not depend on time; after
 * each lot its answers are written down, for a run that is interrupted to go on from.  While a GPU works on a lot,
 * the next one is made into tokens. */
#define _GNU_SOURCE
#include "evaluate/task_run.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>

#include "base/file.h"
#include "base/sha256.h"
#include "evaluate/metric.h"
#include "evaluate/samples.h"
#include "evaluate/unfinished.h"

/* Text of one lot of documents, about four bytes a token: a few seconds on a CPU; many batches on a GPU, fewer in
 * the first lot, for which it waits. */
enum { LOT_BYTES_HOST = 1 << 16, LOT_BYTES_DEVICE = 1 << 22, FIRST_LOT_BYTES_DEVICE = 1 << 19 };

/* A task under way. */
typedef struct task_run {
    sp_evaluation *evaluation;
    const sp_task *task;
    const sp_task_data *data;
    sp_answer *answers;
    sp_metric_value *values;
    sp_unfinished unfinished;
} task_run;

static void close_run(task_run *run) {
    free(run->answers);
    free(run->values);
    sp_unfinished_close(&run->unfinished);
}

static sp_status open_run(task_run *run) {
    int64_t n_answers = 0;
    for (int64_t i = 0; i < run->data->n; i++) n_answers += run->data->documents.items[i].n_answers;
    run->answers = calloc((size_t)n_answers + 1, sizeof *run->answers);
    run->values = calloc((size_t)(run->data->n * sp_task_n_metrics(run->task)) + 1, sizeof *run->values);
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
    for (int64_t i = 0; i < run->data->n; i++) {
        const sp_document *document = &run->data->documents.items[i];
        if (run->data->examples) hash_text(&hash, run->data->examples[i]);
        for (int64_t j = 0; j < document->contexts.n; j++) hash_text(&hash, document->contexts.items[j]);
        for (int64_t j = 0; j < document->continuations.n; j++) hash_text(&hash, document->continuations.items[j]);
    }
    sp_sha256_finish(&hash, key);
}

static int64_t bytes_of(const task_run *run, int64_t i) {
    const sp_document *document = &run->data->documents.items[i];
    int64_t n = run->data->examples ? (int64_t)strlen(run->data->examples[i]) : 0;
    for (int64_t j = 0; j < document->contexts.n; j++) n += (int64_t)strlen(document->contexts.items[j]);
    for (int64_t j = 0; j < document->continuations.n; j++) n += (int64_t)strlen(document->continuations.items[j]);
    return n;
}

/* Documents from `first` on whose texts make a lot; at least one. */
static int64_t count_lot(const task_run *run, int64_t first) {
    bool on_device = sp_model_device(run->evaluation->model) != 0;
    int64_t most = !on_device ? LOT_BYTES_HOST : first == 0 ? FIRST_LOT_BYTES_DEVICE : LOT_BYTES_DEVICE;
    int64_t n = 0;
    for (int64_t bytes = 0; first + n < run->data->n && (n == 0 || bytes < most); n++)
        bytes += bytes_of(run, first + n);
    return n;
}

/* Documents [first, first + n), and what is asked of them.  Prepared by a thread of its own where a GPU is at work
 * meanwhile; a failure there leaves its status and sentence here. */
typedef struct document_lot {
    task_run *run;
    int64_t first, n, n_answers;
    sp_requests requests;
    sp_status status;
    char message[1024];
    thrd_t thread;
    bool has_thread;
} document_lot;

static int prepare(void *user) {
    document_lot *lot = user;
    const task_run *run = lot->run;
    lot->status = run->task->kind->ask(&lot->requests, run->evaluation, run->task, &run->data->documents, lot->first,
                                       lot->n, run->data->examples ? run->data->examples + lot->first : NULL);
    if (lot->status != SP_OK) snprintf(lot->message, sizeof lot->message, "%s", sp_last_message());
    return 0;
}

static void begin_lot(document_lot *lot, task_run *run, int64_t first) {
    *lot = (document_lot){.run = run, .first = first, .n = count_lot(run, first)};
    for (int64_t i = first; i < first + lot->n; i++) lot->n_answers += run->data->documents.items[i].n_answers;
    bool aside = first > 0 && sp_model_device(run->evaluation->model);
    lot->has_thread = lot->n > 0 && aside && thrd_create(&lot->thread, prepare, lot) == thrd_success;
}

/* Waits until the lot is prepared. */
static sp_status end_lot(document_lot *lot) {
    if (lot->has_thread)
        thrd_join(lot->thread, NULL);
    else
        prepare(lot);
    lot->has_thread = false;
    return lot->status == SP_OK ? SP_OK : sp_fail(lot->status, "%s", lot->message);
}

static void clear_lot(document_lot *lot) {
    if (lot->has_thread) thrd_join(lot->thread, NULL);
    sp_requests_clear(&lot->requests);
}

/* sp_score counts its items, the caller documents. */
static int report_progress(void *user, const char *what, int64_t done, int64_t total) {
    (void)what;
    const document_lot *lot = user;
    const sp_evaluate_options *options = lot->run->evaluation->options;
    if (!options->progress) return 0;
    int64_t share = total > 0 ? lot->n * done / total : 0;
    return options->progress(options->progress_user, lot->run->task->name, lot->first + share, lot->run->data->n);
}

static sp_status answer_lot(document_lot *lot, sp_answer *answers) {
    sp_evaluation *evaluation = lot->run->evaluation;
    sp_score_options options = sp_score_options_default();
    options.batch_tokens = evaluation->options->batch_tokens;
    options.counts = &evaluation->counts;
    options.progress = report_progress;
    options.progress_user = lot;
    const sp_requests *requests = &lot->requests;
    SP_REQUIRE(report_progress(lot, "", 0, 1) == 0, SP_CANCELLED, "the evaluation was cancelled");
    SP_TRY(sp_score(evaluation->model, requests->items, requests->n, &options));
    for (int64_t i = 0; i < lot->n_answers; i++) answers[i] = (sp_answer){0, true};
    for (int64_t i = 0; i < requests->n; i++) {
        sp_answer *answer = &answers[requests->answers[i]];
        answer->sum += requests->items[i].sum;
        answer->greedy = answer->greedy && requests->items[i].greedy;
    }
    return SP_OK;
}

static sp_status keep_lot(const document_lot *lot, const sp_answer *answers) {
    sp_unfinished *unfinished = &lot->run->unfinished;
    if (!unfinished->file) return SP_OK;
    for (int64_t i = lot->first; i < lot->first + lot->n; i++) {
        int64_t n = lot->run->data->documents.items[i].n_answers;
        SP_TRY(sp_unfinished_add(unfinished, i, n, answers));
        answers += n;
    }
    return sp_unfinished_flush(unfinished);
}

/* Documents from `first` on, whose answers begin at `answers`. */
static sp_status answer_from(task_run *run, int64_t first, sp_answer *answers) {
    document_lot lots[2] = {0};
    int current = 0;
    sp_status status = SP_OK;
    begin_lot(&lots[current], run, first);
    while (lots[current].n > 0) {
        document_lot *lot = &lots[current], *next = &lots[!current];
        SP_TRY_OR_DONE(end_lot(lot));
        begin_lot(next, run, lot->first + lot->n);
        SP_TRY_OR_DONE(answer_lot(lot, answers));
        SP_TRY_OR_DONE(keep_lot(lot, answers));
        answers += lot->n_answers;
        sp_requests_clear(&lot->requests);
        current = !current;
    }
done:
    clear_lot(&lots[0]);
    clear_lot(&lots[1]);
    return status;
}

static sp_status answer_all(task_run *run, const sp_result_place *place) {
    sp_answer *answers = run->answers;
    int64_t n_done = 0;
    if (*place->folder) {
        char key[65];
        make_key(key, run);
        SP_TRY(sp_unfinished_open(&run->unfinished, place->folder, run->task->name, key,
                                  run->evaluation->options->resume, &run->data->documents, run->data->n, answers,
                                  &n_done));
    }
    for (int64_t i = 0; i < n_done; i++) answers += run->data->documents.items[i].n_answers;
    return answer_from(run, n_done, answers);
}

/* ---- metrics ---- */

static sp_status add_metric(json_t *metrics, const task_run *run, int64_t m, int64_t stride) {
    const sp_metric *metric = sp_metric_find(run->task->metrics[m]);
    const sp_metric_value *values = run->values + m;
    double error;
    SP_TRY(sp_metric_error_of(&error, metric, values, run->data->n, stride,
                              run->evaluation->options->bootstrap_iterations));
    char key[64];
    snprintf(key, sizeof key, "%s,none", metric->name);
    json_object_set_new(metrics, key, sp_json_number(sp_metric_value_of(metric, values, run->data->n, stride)));
    snprintf(key, sizeof key, "%s_stderr,none", metric->name);
    json_t *shown = isfinite(error) ? json_real(error) : json_string("N/A");
    SP_REQUIRE(json_object_set_new(metrics, key, shown) == 0, SP_OUT_OF_MEMORY, "no memory for results");
    return SP_OK;
}

static sp_status judge_all(sp_task_outcome *outcome, task_run *run) {
    int64_t n_metrics = sp_task_n_metrics(run->task);
    const sp_answer *answers = run->answers;
    for (int64_t i = 0; i < run->data->n; i++) {
        const sp_document *document = &run->data->documents.items[i];
        run->task->kind->judge(run->values + i * n_metrics, run->task, document, answers);
        answers += document->n_answers;
    }
    *outcome =
        (sp_task_outcome){.metrics = json_object(), .n_original = run->data->documents.n, .n_effective = run->data->n};
    for (int64_t m = 0; m < n_metrics; m++) SP_TRY(add_metric(outcome->metrics, run, m, n_metrics));
    return SP_OK;
}

static sp_status write_samples(char hash[65], const task_run *run, const sp_result_place *place) {
    char name[256], path[4096];
    snprintf(name, sizeof name, "samples_%s_%s.jsonl", run->task->name, place->time_name);
    SP_TRY(sp_path_join(path, sizeof path, place->folder, name));
    const sp_task_data *data = run->data;
    sp_answered answered = {run->task, &data->documents, data->n, data->examples, run->answers, run->values};
    return sp_samples_write(hash, path, &answered);
}

sp_status sp_task_run(sp_task_outcome *outcome, sp_task_facts *facts, sp_evaluation *evaluation, const sp_task *task,
                      const sp_task_data *data, const sp_result_place *place) {
    task_run run = {.evaluation = evaluation, .task = task, .data = data};
    facts->n_fewshot = task->kind->takes_examples ? evaluation->options->n_fewshot : 0;
    facts->file = data->file;
    facts->examples = *data->example_file ? data->example_file : NULL;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(open_run(&run));
    SP_TRY_OR_DONE(answer_all(&run, place));
    SP_TRY_OR_DONE(judge_all(outcome, &run));
    if (*place->folder && evaluation->options->samples) status = write_samples(facts->hash, &run, place);
done:
    close_run(&run);
    return status;
}
