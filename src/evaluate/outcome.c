/* The document of results.
 *
 * Keys, their order and their types are those of lm-eval, so that what reads its files reads these; what lm-eval has
 * and we have not is null.  What only we know stands under "softpick". */
#define _GNU_SOURCE
#include "evaluate/outcome.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "base/file.h"
#include "softpick/device.h"

enum { FEWSHOT_SEED = 1234 };

sp_status sp_outcomes_open(sp_outcomes *results) {
    results->document = json_object();
    static const char *const parts[] = {"results", "group_subtasks",   "configs",   "versions",
                                        "n-shot",  "higher_is_better", "n-samples", "task_hashes"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        json_object_set_new(results->document, parts[i], json_object());
    json_object_set_new(results->document, "softpick", json_pack("{s:{}}", "tasks"));
    SP_REQUIRE(json_object_get(results->document, "softpick"), SP_OUT_OF_MEMORY, "no memory for results");
    return SP_OK;
}

void sp_outcomes_close(sp_outcomes *results) {
    json_decref(results->document);
    results->document = NULL;
}

static void set_part(const sp_outcomes *results, const char *part, const sp_task *task, json_t *value) {
    json_object_set_new(json_object_get(results->document, part), task->name, value);
}

/* The first value of a list of templates, or all of them. */
static json_t *describe_templates(const char *const *templates) {
    if (!templates[0]) return json_null();
    if (!templates[1]) return json_string(templates[0]);
    json_t *list = json_array();
    for (; *templates; templates++) json_array_append_new(list, json_string(*templates));
    return list;
}

static json_t *describe_config(const sp_task *task, int64_t n_fewshot, json_t *version) {
    static const char *const aggregations[] = {"mean", "perplexity", "weighted_perplexity", "bits_per_byte"};
    json_t *metrics = json_array();
    for (int64_t m = 0; task->metrics[m]; m++) {
        const sp_metric *metric = sp_metric_find(task->metrics[m]);
        if (!metric) continue; /* of a kind that does all by itself */
        json_array_append_new(metrics,
                              json_pack("{s:s, s:s, s:b}", "metric", metric->name, "aggregation",
                                        aggregations[metric->aggregate], "higher_is_better", metric->higher_is_better));
    }
    const char *delimiter = task->delimiter ? task->delimiter : " ";
    return json_pack("{s:s, s:s, s:o, s:o, s:s, s:s, s:I, s:o, s:{s:O}}", "task", task->name, "output_type",
                     task->kind->output_type, "doc_to_text", describe_templates(task->layouts[0].contexts),
                     "doc_to_choice", describe_templates(task->layouts[0].continuations), "target_delimiter", delimiter,
                     "fewshot_delimiter", "\n\n", "num_fewshot", (json_int_t)n_fewshot, "metric_list", metrics,
                     "metadata", "version", version);
}

static json_t *describe_direction(const sp_task *task) {
    json_t *directions = json_object();
    for (int64_t m = 0; task->metrics[m]; m++) {
        const sp_metric *metric = sp_metric_find(task->metrics[m]);
        if (metric) json_object_set_new(directions, metric->name, json_boolean(metric->higher_is_better));
    }
    return directions;
}

static double rate(int64_t n, double seconds) { return seconds > 0 ? (double)n / seconds : 0; }

/* Our own facts of a task; takes `extra` over. */
static json_t *describe_facts(const sp_task_facts *facts, json_t *extra) {
    json_t *own = json_pack("{s:s?, s:s?, s:f, s:I, s:I, s:f}", "file", facts->file, "examples", facts->examples,
                            "seconds", facts->seconds, "tokens", (json_int_t)facts->counts.n_read, "tokens_computed",
                            (json_int_t)facts->counts.n_computed, "tokens_per_second",
                            rate(facts->counts.n_read, facts->seconds));
    if (extra) json_object_update(own, extra);
    json_decref(extra);
    return own;
}

sp_status sp_outcomes_add(sp_outcomes *results, const sp_task *task, sp_task_outcome *outcome,
                          const sp_task_facts *facts) {
    json_t *version = json_loads(task->version, JSON_DECODE_ANY, NULL);
    json_t *row = json_pack("{s:s, s:s, s:I}", "name", task->name, "alias", task->name, "sample_len",
                            (json_int_t)outcome->n_effective);
    json_object_update(row, outcome->metrics);
    json_decref(outcome->metrics);
    set_part(results, "results", task, row);
    set_part(results, "group_subtasks", task, json_array());
    set_part(results, "configs", task, describe_config(task, facts->n_fewshot, version));
    set_part(results, "versions", task, version);
    set_part(results, "n-shot", task, json_integer(facts->n_fewshot));
    set_part(results, "higher_is_better", task, describe_direction(task));
    set_part(results, "n-samples", task,
             json_pack("{s:I, s:I}", "original", (json_int_t)outcome->n_original, "effective",
                       (json_int_t)outcome->n_effective));
    if (*facts->hash) set_part(results, "task_hashes", task, json_string(facts->hash));
    json_t *tasks = json_object_get(json_object_get(results->document, "softpick"), "tasks");
    json_object_set_new(tasks, task->name, describe_facts(facts, outcome->extra));
    *outcome = (sp_task_outcome){0};
    bool complete = json_object_get(json_object_get(results->document, "configs"), task->name) &&
                    json_object_get(tasks, task->name);
    SP_REQUIRE(complete, SP_OUT_OF_MEMORY, "no memory for results");
    return SP_OK;
}

/* ---- the run ---- */

static void name_device(char out[32], int32_t device) {
    if (device)
        snprintf(out, 32, "cuda:%d", (int)device - 1);
    else
        snprintf(out, 32, "cpu");
}

static json_t *describe_run(const sp_evaluation *evaluation) {
    const sp_evaluate_options *options = evaluation->options;
    static const char *const dtypes[][2] = {
        {"f32", "torch.float32"}, {"bf16", "torch.bfloat16"}, {"f16", "torch.float16"}};
    const char *dtype = sp_dtype_name(sp_model_dtype(evaluation->model));
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (strcmp(dtypes[i][0], dtype) == 0) dtype = dtypes[i][1];
    char device[32], arguments[4200];
    name_device(device, sp_model_device(evaluation->model));
    snprintf(arguments, sizeof arguments, "pretrained=%s", options->model_name);
    json_t *run = json_pack("{s:s, s:s, s:I, s:s, s:s, s:s, s:s, s:[], s:s, s:n}", "model", "softpick", "model_args",
                            arguments, "model_num_parameters", (json_int_t)sp_model_n_parameters(evaluation->model),
                            "model_dtype", dtype, "model_revision", "main", "model_sha", "", "batch_size", "auto",
                            "batch_sizes", "device", device, "use_cache");
    json_object_set_new(run, "limit", options->limit ? json_integer(options->limit) : json_null());
    json_object_set_new(run, "bootstrap_iters", json_integer(options->bootstrap_iterations));
    json_t *seeds = json_pack("{s:n, s:i, s:i, s:i, s:i}", "gen_kwargs", "random_seed", 0, "numpy_seed", FEWSHOT_SEED,
                              "torch_seed", FEWSHOT_SEED, "fewshot_seed", FEWSHOT_SEED);
    json_object_update(run, seeds);
    json_decref(seeds);
    return run;
}

/* ["<s>", "1"] */
static json_t *describe_token(const sp_tokenizer *tokenizer, int32_t id) {
    if (id < 0) return json_pack("[n, s]", "None");
    char number[16];
    snprintf(number, sizeof number, "%d", (int)id);
    return json_pack("[s?, s]", sp_tokenizer_piece(tokenizer, id), number);
}

static json_t *describe_system(void) {
    struct utsname system = {0};
    uname(&system);
    char text[1024];
    snprintf(text, sizeof text, "softpick %s; %s %s %s; %s", sp_version(), system.sysname, system.release,
             system.machine, sp_cpu_model());
    return json_string(text);
}

/* What is not made of letters that every file system takes becomes "__". */
static void sanitize(char *out, size_t out_bytes, const char *name) {
    size_t used = 0;
    while (*name && used + 3 < out_bytes) {
        size_t n = strspn(name, "\"<>:/|\\?*[]");
        if (n > 0) used += (size_t)snprintf(out + used, out_bytes - used, "__");
        name += n;
        if (*name) out[used++] = *name++;
    }
    out[used] = 0;
}

sp_status sp_outcomes_folder(char path[4096], const char *out, const char *model_name) {
    char name[256];
    sanitize(name, sizeof name, model_name);
    SP_REQUIRE(*name && strcmp(name, ".") != 0 && strcmp(name, "..") != 0, SP_BAD_ARGUMENT,
               "\"%s\": not a name for a model's results", model_name);
    return sp_path_join(path, 4096, out, name);
}

/* Keys at the end, of the model and of lm-eval's own state. */
static void add_names(json_t *document, const sp_evaluation *evaluation, double seconds) {
    const sp_evaluate_options *options = evaluation->options;
    char name[256], duration[64];
    sanitize(name, sizeof name, options->model_name);
    snprintf(duration, sizeof duration, "%.17g", seconds);
    const sp_tokenizer *tokenizer = evaluation->tokenizer;
    int32_t pad = sp_model_config_of(evaluation->model)->pad, eos = sp_tokenizer_eos(tokenizer);
    json_t *names = json_pack(
        "{s:n, s:f, s:o, s:n, s:s, s:n, s:o, s:o, s:o, s:o, s:I, s:O, s:s, s:s, s:s, s:n, s:n, s:b, s:n, s:n, s:s}",
        "git_hash", "date", (double)time(NULL), "pretty_env_info", describe_system(), "transformers_version",
        "lm_eval_version", sp_evaluate_compat_name(options->compat), "upper_git_hash", "tokenizer_pad_token",
        describe_token(tokenizer, pad), "tokenizer_eos_token", describe_token(tokenizer, eos), "tokenizer_bos_token",
        describe_token(tokenizer, sp_tokenizer_bos(tokenizer)), "eot_token_id",
        eos >= 0 ? json_integer(eos) : json_null(), "max_length", (json_int_t)evaluation->max_length, "task_hashes",
        json_object_get(document, "task_hashes"), "model_source", "softpick", "model_name", options->model_name,
        "model_name_sanitized", name, "system_instruction", "system_instruction_sha", "fewshot_as_multiturn", 0,
        "chat_template", "chat_template_sha", "total_evaluation_time_seconds", duration);
    json_object_del(document, "task_hashes");
    json_object_update(document, names);
    json_decref(names);
}

sp_status sp_outcomes_finish(sp_outcomes *results, const sp_evaluation *evaluation, double seconds) {
    json_t *document = results->document, *own = json_object_get(document, "softpick");
    json_incref(own);
    json_object_del(document, "softpick");
    json_object_set_new(document, "config", describe_run(evaluation));
    add_names(document, evaluation, seconds);
    const sp_model_config *config = sp_model_config_of(evaluation->model);
    char device[32];
    name_device(device, sp_model_device(evaluation->model));
    const sp_score_counts *counts = &evaluation->counts;
    json_t *facts = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:s?, s:f, s:I, s:I, s:f}", "schema", "softpick-eval/1", "version",
        sp_version(), "attention_function", sp_normalizer_name(config->attention_function), "dtype",
        sp_dtype_name(sp_model_dtype(evaluation->model)), "device", device, "lm_eval_compat",
        sp_evaluate_compat_name(evaluation->options->compat), "prefix_token", (json_int_t)evaluation->prefix, "data",
        evaluation->options->data, "seconds", seconds, "tokens", (json_int_t)counts->n_read, "tokens_computed",
        (json_int_t)counts->n_computed, "tokens_per_second", rate(counts->n_read, seconds));
    json_object_update(facts, own);
    json_decref(own);
    json_object_set_new(document, "softpick", facts);
    bool complete = json_object_get(document, "config") && json_object_get(document, "max_length") &&
                    json_object_get(document, "softpick");
    SP_REQUIRE(complete, SP_BAD_ARGUMENT, "\"%s\": the name of the model or of the data folder is not UTF-8",
               evaluation->options->model_name);
    return SP_OK;
}

sp_status sp_outcomes_format(const sp_outcomes *results, char **text) {
    *text = json_dumps(results->document, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    SP_REQUIRE(*text, SP_OUT_OF_MEMORY, "no memory for results");
    return SP_OK;
}
