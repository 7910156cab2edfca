/* softpick eval: a model's results in the tasks of lm-eval, as a table or as its JSON. */
#define _GNU_SOURCE
#include "cli/cli.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/json.h"
#include "cli/open_model.h"
#include "cli/placement.h"
#include "softpick/checkpoint.h"
#include "softpick/evaluate.h"

enum { TASKS_MAX = 64, LENGTHS_MAX = 64 };

typedef struct eval_arguments {
    const char *model, *tokenizer;
    const char *tasks[TASKS_MAX], *task_files[TASKS_MAX];
    int32_t device;
    bool has_dtype, has_data;
    sp_dtype dtype;
    int64_t n_threads;
    bool json, list;
    int64_t passkey_lengths[LENGTHS_MAX];
    sp_evaluate_options options;
} eval_arguments;

enum {
    KEY_TASKS = 256,
    KEY_TASK_FILE,
    KEY_DATA,
    KEY_LIST,
    KEY_LIMIT,
    KEY_FEWSHOT,
    KEY_COMPAT,
    KEY_LENGTH,
    KEY_BOOTSTRAP,
    KEY_PPL_LENGTH,
    KEY_PASSKEY_PROTOCOL,
    KEY_PASSKEY_LENGTHS,
    KEY_PASSKEY_DEPTHS,
    KEY_PASSKEY_TRIALS,
    KEY_TOKENIZER,
    KEY_DEVICE,
    KEY_DTYPE,
    KEY_THREADS,
    KEY_BATCH,
    KEY_JSON,
    KEY_OUT,
    KEY_SAMPLES,
    KEY_RESUME
};

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "What is asked:", 1},
    {"tasks", KEY_TASKS, "NAMES", 0, "tasks, with commas between them; --list shows which there are", 0},
    {"task-file", KEY_TASK_FILE, "FILE", 0, "a task described in JSON (docs/evaluation.md); may be given often", 0},
    {"data", KEY_DATA, "DIR", 0, "folder of the tasks' data files (default: this one)", 0},
    {"list", KEY_LIST, NULL, 0, "list the tasks, their files and whether these are in --data", 0},
    {"limit", KEY_LIMIT, "N", 0, "the first N documents of each task (default: all)", 0},
    {"num-fewshot", KEY_FEWSHOT, "K", 0, "solved examples in front of each question (default 0)", 0},
    {"lm-eval-compat", KEY_COMPAT, "VERSION", 0,
     "0.4.10 (default): texts begin as the tokenizer's own rules say, with BOS as a rule; 0.4.8: without, as lm-eval "
     "did "
     "up to 0.4.9",
     0},
    {"max-length", KEY_LENGTH, "N", 0, "tokens that the model sees at once (default: its positions)", 0},
    {"bootstrap", KEY_BOOTSTRAP, "N", 0,
     "samples behind standard errors of perplexities (default 100000; 0: no standard errors)", 0},
    {"ppl-length", KEY_PPL_LENGTH, "N", 0, "ppl: tokens of a block (default: 2048, or as many as the model sees)", 0},
    {"passkey-protocol", KEY_PASSKEY_PROTOCOL, "NAME", 0,
     "passkey: paper (default; the key's tokens must follow) or landmark (the first number in 10 tokens)", 0},
    {"passkey-lengths", KEY_PASSKEY_LENGTHS, "N,N,...", 0,
     "passkey: characters of filler (default: the protocol's, or parts of what the model sees)", 0},
    {"passkey-depths", KEY_PASSKEY_DEPTHS, "N", 0,
     "passkey: places of the key, evenly from start to end; 0: at random, as published (default 5)", 0},
    {"passkey-trials", KEY_PASSKEY_TRIALS, "N", 0, "passkey: prompts for each length and depth (default 10)", 0},
    {NULL, 0, NULL, 0, "How:", 2},
    {"tokenizer", KEY_TOKENIZER, "PATH", 0, "tokenizer file or folder (default: the one beside the model)", 0},
    {"device", KEY_DEVICE, "NAME", 0, CLI_DEVICE_HELP " (default cpu)", 0},
    {"dtype", KEY_DTYPE, "TYPE", 0, "f32 (default on the CPU) or bf16 (alone on a GPU): numbers of the forward pass",
     0},
    {"batch-tokens", KEY_BATCH, "N", 0, "about so many tokens at once (default: chosen by the device)", 0},
    {"threads", KEY_THREADS, "N", 0, "threads (default: all processors)", 0},
    {NULL, 0, NULL, 0, "What comes out:", 3},
    {"json", KEY_JSON, NULL, 0, "print lm-eval's JSON document instead of the table", 0},
    {"out", KEY_OUT, "DIR", 0, "write result files below DIR, as lm-eval's --output_path does", 0},
    {"samples", KEY_SAMPLES, NULL, 0, "with --out: write each question and its answers too", 0},
    {"resume", KEY_RESUME, NULL, 0, "with --out: go on where the same command was interrupted", 0},
    {NULL, 0, NULL, 0, "Help:", -1},
    {0},
};

/* Adds the names of a list with commas; cuts the text up. */
static void add_tasks(eval_arguments *arguments, char *names, struct argp_state *state) {
    sp_evaluate_options *evaluate = &arguments->options;
    for (char *name = strsep(&names, ","); name; name = strsep(&names, ",")) {
        if (!*name) continue;
        if (evaluate->n_tasks == TASKS_MAX) argp_error(state, "--tasks: more than %d tasks", TASKS_MAX);
        arguments->tasks[evaluate->n_tasks++] = name;
    }
}

static void add_lengths(eval_arguments *arguments, char *numbers, struct argp_state *state) {
    sp_passkey_options *passkey = &arguments->options.passkey;
    for (char *number = strsep(&numbers, ","); number; number = strsep(&numbers, ",")) {
        if (passkey->n_lengths == LENGTHS_MAX) argp_error(state, "--passkey-lengths: more than %d", LENGTHS_MAX);
        arguments->passkey_lengths[passkey->n_lengths++] = cli_count(state, "--passkey-lengths", number, 0, 100000000);
    }
}

static void check_arguments(eval_arguments *arguments, struct argp_state *state) {
    sp_evaluate_options *evaluate = &arguments->options;
    if (!arguments->has_dtype) arguments->dtype = cli_dtype_default(arguments->device);
    if (arguments->list) return;
    if (!arguments->model) argp_error(state, "which model? give its folder");
    if (evaluate->n_tasks + evaluate->n_task_files == 0)
        argp_error(state,
                   "--tasks is missing: name some, as in --tasks arc_easy,piqa (softpick eval --list shows all)");
    if (evaluate->samples && !evaluate->out) argp_error(state, "--samples needs --out: the folder to write into");
    if (evaluate->resume && !evaluate->out)
        argp_error(state, "--resume needs --out: the folder of the interrupted run");
}

static error_t parse_option(int key, char *value, struct argp_state *state) {
    eval_arguments *arguments = state->input;
    sp_evaluate_options *evaluate = &arguments->options;
    switch (key) {
    case KEY_TASKS: add_tasks(arguments, value, state); break;
    case KEY_TASK_FILE:
        if (evaluate->n_task_files == TASKS_MAX) argp_error(state, "--task-file: more than %d files", TASKS_MAX);
        arguments->task_files[evaluate->n_task_files++] = value;
        break;
    case KEY_DATA: evaluate->data = value; break;
    case KEY_LIST: arguments->list = true; break;
    case KEY_LIMIT: evaluate->limit = cli_count(state, "--limit", value, 1, INT64_MAX); break;
    case KEY_FEWSHOT: evaluate->n_fewshot = cli_count(state, "--num-fewshot", value, 0, 1000); break;
    case KEY_COMPAT:
        if (sp_evaluate_compat_find(&evaluate->compat, value) != SP_OK)
            argp_error(state, "--lm-eval-compat: %s", sp_last_message());
        break;
    case KEY_LENGTH: evaluate->max_length = cli_count(state, "--max-length", value, 1, 1 << 24); break;
    case KEY_BOOTSTRAP: evaluate->bootstrap_iterations = cli_count(state, "--bootstrap", value, 0, 1000000000); break;
    case KEY_PPL_LENGTH: evaluate->ppl_length = cli_count(state, "--ppl-length", value, 2, 1 << 24); break;
    case KEY_PASSKEY_PROTOCOL: evaluate->passkey.protocol = value; break;
    case KEY_PASSKEY_LENGTHS: add_lengths(arguments, value, state); break;
    case KEY_PASSKEY_DEPTHS: evaluate->passkey.n_depths = cli_count(state, "--passkey-depths", value, 0, 1000); break;
    case KEY_PASSKEY_TRIALS: evaluate->passkey.n_trials = cli_count(state, "--passkey-trials", value, 1, 100000); break;
    case KEY_TOKENIZER: arguments->tokenizer = value; break;
    case KEY_DEVICE: arguments->device = cli_device(state, "--device", value); break;
    case KEY_DTYPE:
        arguments->dtype = cli_dtype(state, "--dtype", value);
        arguments->has_dtype = true;
        break;
    case KEY_BATCH: evaluate->batch_tokens = cli_count(state, "--batch-tokens", value, 1, 1 << 24); break;
    case KEY_THREADS: arguments->n_threads = cli_count(state, "--threads", value, 1, 1 << 16); break;
    case KEY_JSON: arguments->json = true; break;
    case KEY_OUT: evaluate->out = value; break;
    case KEY_SAMPLES: evaluate->samples = true; break;
    case KEY_RESUME: evaluate->resume = true; break;
    case ARGP_KEY_ARG:
        if (arguments->model) argp_error(state, "\"%s\": one model at a time", value);
        arguments->model = value;
        break;
    case ARGP_KEY_END: check_arguments(arguments, state); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp parser = {
    .options = options,
    .parser = parse_option,
    .args_doc = "MODEL",
    .doc =
        "Evaluates a model in tasks of EleutherAI's lm-eval, question by question as it does: the same prompts, "
        "tokens, "
        "metrics and standard errors.  MODEL is a checkpoint folder, or a run folder, of which the newest checkpoint "
        "is taken."
        "\vExamples:\n"
        "  softpick eval runs/softpick --tasks arc_easy,piqa --data eval\n"
        "  softpick eval llama --tasks hellaswag --num-fewshot 10 --data eval --device cuda --out results\n"
        "  softpick eval --list --data eval\n\n"
        "Ctrl-C keeps the answers so far in --out; the same command with --resume goes on from there.\n"
        "Exit status: 0 done, 1 failed, 2 wrong usage, 3 a file is missing, damaged or of the wrong kind.",
};

/* ---- tables ---------------------------------------------------------------------------------------------------- */

static void print_list(const char *data) {
    sp_evaluate_task task;
    for (int64_t i = 0; sp_evaluate_task_at(i, data, &task); i++) {
        printf("%-15s %s\n%-15s ", task.name, task.about, "");
        if (*task.found)
            printf("data: %s\n", task.found);
        else if (*task.files)
            printf("data: not in %s: %s (or .zst, .gz)\n%-15s from %s\n", data, task.files, "", task.source);
        else
            printf("data: none, %s\n", task.source);
    }
}

static void print_number(const char *name, const char *key, const json_t *row) {
    (void)name;
    const json_t *value = json_object_get(row, key);
    if (json_is_number(value))
        printf(" %10.4f", json_number_value(value));
    else
        printf(" %10s", json_is_string(value) ? json_string_value(value) : "");
}

/* The lines of one task: each "metric,filter" that is no standard error. */
static void print_task(const char *name, const json_t *row, const json_t *document) {
    const char *key;
    json_t *value;
    bool first = true;
    char version[32] = "";
    const json_t *number = json_object_get(json_object_get(document, "versions"), name);
    snprintf(version, sizeof version, "%g", json_number_value(number));
    json_object_foreach((json_t *)(uintptr_t)row, key, value) {
        const char *comma = strchr(key, ',');
        size_t n = comma ? (size_t)(comma - key) : 0;
        if (!comma || (n > 7 && strncmp(comma - 7, "_stderr", 7) == 0)) continue;
        char error[128];
        snprintf(error, sizeof error, "%.*s_stderr%s", (int)n, key, comma);
        printf("%-16s %7s %6lld  %-16.*s", first ? name : "", first ? version : "",
               (long long)json_integer_value(json_object_get(json_object_get(document, "n-shot"), name)), (int)n, key);
        print_number(name, key, row);
        print_number(name, error, row);
        putchar('\n');
        first = false;
    }
}

/* The grid of passkey retrieval: a line for each depth, a column for each length in tokens. */
static void print_passkey(const json_t *grid) {
    const json_t *lengths = json_object_get(grid, "lengths"), *depths = json_object_get(grid, "depths");
    printf("\npasskey, protocol %s: share found of %lld, by depth of the key and tokens of the prompt\n",
           json_string_value(json_object_get(grid, "protocol")),
           (long long)json_integer_value(json_object_get(grid, "n")));
    printf("%8s", "");
    for (size_t i = 0; i < json_array_size(lengths); i++)
        printf(" %7lld", (long long)json_integer_value(json_array_get(lengths, i)));
    putchar('\n');
    for (size_t d = 0; d < json_array_size(depths); d++) {
        const json_t *depth = json_array_get(depths, d), *row = json_array_get(json_object_get(grid, "accuracy"), d);
        if (json_is_string(depth))
            printf("%8s", json_string_value(depth));
        else
            printf("%6.0f %%", 100 * json_number_value(depth));
        for (size_t i = 0; i < json_array_size(row); i++) {
            const json_t *share = json_array_get(row, i);
            if (json_is_null(share))
                printf(" %7s", "-"); /* longer than the model sees */
            else
                printf(" %7.2f", json_number_value(share));
        }
        putchar('\n');
    }
}

static void print_table(json_t *document) {
    const json_t *own = json_object_get(document, "softpick");
    printf("model    %s (%s)\n", json_string_value(json_object_get(document, "model_name")),
           json_string_value(json_object_get(own, "attention_function")));
    printf("as       lm-eval %s; %s on %s\n\n", json_string_value(json_object_get(own, "lm_eval_compat")),
           json_string_value(json_object_get(own, "dtype")), json_string_value(json_object_get(own, "device")));
    printf("%-16s %7s %6s  %-16s %10s %10s\n", "task", "version", "n-shot", "metric", "value", "stderr");
    const char *name;
    json_t *row;
    json_object_foreach(json_object_get(document, "results"), name, row) print_task(name, row, document);
    const json_t *passkey = json_object_get(json_object_get(own, "tasks"), "passkey");
    if (passkey) print_passkey(passkey);
    printf("\n%.1f seconds, %.0f tokens per second\n", json_number_value(json_object_get(own, "seconds")),
           json_number_value(json_object_get(own, "tokens_per_second")));
}

/* ---- the command ----------------------------------------------------------------------------------------------- */

/* What tells the files of a folder from others: name, size and time of each that weights may be in. */
static sp_status make_model_key(char **key, const char *folder) {
    static const char *const names[] = {"config.json", "model.safetensors", "model.safetensors.index.json"};
    size_t n_bytes;
    FILE *stream = open_memstream(key, &n_bytes);
    SP_REQUIRE(stream, SP_OUT_OF_MEMORY, "no memory for a path");
    fputs(folder, stream);
    for (size_t i = 0; i <= sizeof names / sizeof *names; i++) {
        char path[4096];
        struct stat facts;
        bool last = i == sizeof names / sizeof *names; /* the model itself, if it is a file */
        if (last)
            snprintf(path, sizeof path, "%s", folder);
        else if (sp_path_join(path, sizeof path, folder, names[i]) != SP_OK)
            continue;
        if (stat(path, &facts) != 0) continue;
        fprintf(stream, " %s %lld %lld.%09ld", last ? "" : names[i], (long long)facts.st_size,
                (long long)facts.st_mtim.tv_sec, facts.st_mtim.tv_nsec);
    }
    SP_REQUIRE(fclose(stream) == 0, SP_OUT_OF_MEMORY, "no memory for a path");
    return SP_OK;
}

static sp_status evaluate_model(char **text, eval_arguments *arguments) {
    *text = NULL;
    sp_model *model = NULL;
    sp_tokenizer *tokenizer = NULL;
    char *folder = NULL, *key = NULL, *full = NULL;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_evaluate_check(&arguments->options));
    SP_TRY_OR_DONE(cli_open_model(&model, arguments->model, arguments->device, arguments->dtype, &folder));
    SP_TRY_OR_DONE(cli_open_tokenizer(&tokenizer, arguments->tokenizer, folder));
    SP_TRY_OR_DONE(make_model_key(&key, folder));
    if (*folder == '.') full = realpath(folder, NULL); /* "." and ".." name nothing, "./run" a hidden folder */
    arguments->options.model_name = full ? full : folder;
    arguments->options.model_key = key;
    status = sp_evaluate(model, tokenizer, &arguments->options, text);
done:
    free(key);
    free(full);
    free(folder);
    sp_tokenizer_free(tokenizer);
    sp_model_free(model);
    return status;
}

static int report(sp_status status, const eval_arguments *arguments) {
    if (status == SP_CANCELLED && arguments->options.out) {
        fprintf(stderr,
                "interrupted: the answers so far are in %s; the same command with --resume goes on from there\n",
                arguments->options.out);
        return CLI_FAILED;
    }
    return cli_fail(status);
}

int cmd_eval(int argc, char **argv) {
    eval_arguments arguments = {.options = sp_evaluate_options_default()};
    arguments.options.tasks = arguments.tasks;
    arguments.options.task_files = arguments.task_files;
    arguments.options.passkey.lengths = arguments.passkey_lengths;
    cli_parse(&parser, argc, argv, &arguments);
    if (arguments.list) {
        print_list(arguments.options.data);
        return CLI_DONE;
    }
    cli_set_threads(arguments.n_threads);
    cli_catch_signals();
    static char unit[] = "documents";
    arguments.options.progress = cli_progress;
    arguments.options.progress_user = unit;

    char *text;
    json_t *document = NULL;
    sp_status status = evaluate_model(&text, &arguments);
    if (status == SP_OK && arguments.json)
        puts(text);
    else if (status == SP_OK)
        status = sp_json_parse(&document, text, (int64_t)strlen(text), "results");
    if (document) print_table(document);
    json_decref(document);
    free(text);
    return status == SP_OK ? CLI_DONE : report(status, &arguments);
}
