/* softpick train: a model from token shards.  Options of training and of the model come from their tables
 * (sp_train_option_at, cli_model_option_at); here are only the files, the machine, and what is shown on the way. */
#define _GNU_SOURCE
#include "cli/cli.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/status.h"
#include "cli/memory_plan.h"
#include "cli/model_options.h"
#include "cli/placement.h"
#include "softpick/checkpoint.h"
#include "softpick/train.h"

enum {
    N_TEXTS_MAX = 64,      /* options of one table */
    HELP_BYTES = 160,      /* of one option, its default included */
    PLAIN_LINE_SECONDS = 5 /* between progress lines when there is no terminal */
};

/* Keys of options without a letter. */
enum {
    KEY_DATA = 1000,
    KEY_OUT,
    KEY_TOKENIZER,
    KEY_CONFIG,
    KEY_DEVICE,
    KEY_DTYPE,
    KEY_RECOMPUTE,
    KEY_THREADS,
    KEY_JSON,
    KEY_TRAIN = 2000,
    KEY_MODEL = 3000
};

/* The command line as given; NULL: not given. */
typedef struct arguments {
    const char *data, *out, *tokenizer, *config, *dtype;
    int32_t device;
    int64_t n_threads;
    bool recompute, json;
    const char *train[N_TEXTS_MAX], *model[N_TEXTS_MAX];
} arguments;

/* ---- the command line ---- */

static const struct argp_option file_options[] = {
    {NULL, 0, NULL, 0, "Files and machine:", 1},
    {"data", KEY_DATA, "DIR", 0, "token shards, as softpick tokenize writes them", 1},
    {"out", KEY_OUT, "DIR", 0, "the run: log.jsonl and checkpoints step-XXXXXXXX", 1},
    {"tokenizer", KEY_TOKENIZER, "PATH", 0,
     "tokenizer.json, tokenizer.model, tokenizer.bin or a folder (default: what lies beside the shards)", 1},
    {"config", KEY_CONFIG, "FILE", 0, "a config.json that describes the model; options below change it", 1},
    {"device", KEY_DEVICE, "NAME", 0, CLI_DEVICE_HELP " (default cpu); not saved: --resume needs it again", 1},
    {"dtype", KEY_DTYPE, "NAME", 0,
     "auto, f32 or bf16: of activations and matrix products (default auto; a GPU has bf16 alone)", 1},
    {"recompute", KEY_RECOMPUTE, NULL, 0,
     "keep less of the forward pass and compute it again: less memory, the same numbers, a forward pass more", 1},
    {"threads", KEY_THREADS, "N", 0, "0: as many as processors (default 0)", 1},
    {"json", KEY_JSON, NULL, 0, "print the result as one JSON document", 1},
};
enum { N_FILE_OPTIONS = sizeof file_options / sizeof *file_options, N_ARGP_MAX = N_FILE_OPTIONS + 2 * N_TEXTS_MAX };

typedef struct option_list {
    struct argp_option options[N_ARGP_MAX];
    char help[N_ARGP_MAX][HELP_BYTES];
    int n;
} option_list;

static void add_option(option_list *list, const char *name, int key, const char *argument, const char *help,
                       const char *value, int group) {
    char *text = list->help[list->n];
    if (argument && *value)
        snprintf(text, HELP_BYTES, "%s (default %s)", help, value);
    else
        snprintf(text, HELP_BYTES, "%s", help);
    list->options[list->n++] = (struct argp_option){name, key, argument, 0, text, group};
}

static void add_title(option_list *list, const char *title, int group) {
    list->options[list->n++] = (struct argp_option){.doc = title, .group = group};
}

static void list_options(option_list *list) {
    char value[64];
    memcpy(list->options, file_options, sizeof file_options);
    list->n = N_FILE_OPTIONS;
    sp_model_config config = cli_model_config_default();
    add_title(list, "Model:", 2);
    for (int i = 0; cli_model_option_at(i); i++) {
        const cli_model_option *option = cli_model_option_at(i);
        cli_model_option_get(&config, i, value, sizeof value);
        if (strcmp(value, "derived") == 0) *value = 0;
        add_option(list, option->name, KEY_MODEL + i, option->argument, option->help, value, 2);
    }
    sp_train_options defaults = sp_train_options_default();
    const char *title = "";
    for (int i = 0, group = 2; sp_train_option_at(i); i++) {
        const sp_train_option *option = sp_train_option_at(i);
        if (strcmp(title, option->group) != 0) add_title(list, title = option->group, ++group);
        sp_train_option_get(&defaults, option->name, value, sizeof value);
        add_option(list, option->name, KEY_TRAIN + i, option->argument, option->help, value, group);
    }
    list->options[list->n] = (struct argp_option){0};
}

static error_t parse_option(int key, char *text, struct argp_state *state) {
    arguments *given = state->input;
    if (key >= KEY_MODEL && key < KEY_MODEL + N_TEXTS_MAX) {
        given->model[key - KEY_MODEL] = text ? text : "yes";
        return 0;
    }
    if (key >= KEY_TRAIN && key < KEY_TRAIN + N_TEXTS_MAX) {
        given->train[key - KEY_TRAIN] = text ? text : "yes";
        return 0;
    }
    switch (key) {
    case KEY_DATA: given->data = text; break;
    case KEY_OUT: given->out = text; break;
    case KEY_TOKENIZER: given->tokenizer = text; break;
    case KEY_CONFIG: given->config = text; break;
    case KEY_DEVICE: given->device = cli_device(state, "--device", text); break;
    case KEY_DTYPE: given->dtype = text; break;
    case KEY_RECOMPUTE: given->recompute = true; break;
    case KEY_THREADS: given->n_threads = cli_count(state, "--threads", text, 0, 4096); break;
    case KEY_JSON: given->json = true; break;
    case ARGP_KEY_ARG: argp_error(state, "\"%s\": no argument is expected", text); break;
    case ARGP_KEY_END:
        if (!given->data) argp_error(state, "--data is missing: the folder that softpick tokenize wrote");
        if (!given->out) argp_error(state, "--out is missing: the folder to train in");
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const char documentation[] =
    "Trains a model on token shards; stops by steps, tokens or minutes."
    "\vWith --resume, options that are not given are those of the run, but for --device and --recompute.  First "
    "Ctrl-C: finishes the step, saves and "
    "leaves; second: leaves at once.\n\n"
    "Examples:\n"
    "  softpick tokenize --text book.txt --out shards\n"
    "  softpick train --data shards --out run --steps 2000\n"
    "  softpick train --data shards --out twin --steps 2000 --attention softmax\n"
    "  softpick train --data shards --out run --resume\n"
    "  softpick train --data shards --out run --device cuda --steps 2000\n"
    "  softpick train --data shards --out big --config config.json --tokens 100M --accumulate 8\n\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage, 3 a file is missing, damaged or of the wrong kind.";

/* ---- from texts to settings ---- */

typedef struct settings {
    sp_train_options train;
    sp_model_config model;
    int32_t device;
    sp_dtype dtype;
    sp_tokenizer *tokenizer;
    char *prompt; /* of a resumed run */
} settings;

static sp_status read_config(sp_model_config *config, const char *path) {
    char *text;
    SP_TRY(sp_file_read(path, &text, NULL));
    sp_status status = sp_model_config_parse(config, text, path);
    free(text);
    return status;
}

/* The options that a checkpoint's training.json holds, as if they had been given. */
static sp_status read_saved_options(settings *s, const char *checkpoint) {
    char path[4096], value[64];
    SP_TRY(sp_path_join(path, sizeof path, checkpoint, "training.json"));
    json_t *json = NULL;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_json_read(&json, path));
    const char *name, *dtype = json_string_value(json_object_get(json, "dtype"));
    json_t *option;
    SP_TRY_OR_DONE(cli_dtype_find(&s->dtype, dtype ? dtype : "", s->device));
    json_object_foreach(json_object_get(json, "options"), name, option) {
        if (json_is_null(option)) continue;
        const char *text = json_string_value(option);
        if (json_is_integer(option)) snprintf(value, sizeof value, "%" JSON_INTEGER_FORMAT, json_integer_value(option));
        if (json_is_real(option)) snprintf(value, sizeof value, "%.17g", json_real_value(option));
        if (strcmp(name, "sample-prompt") == 0) text = s->prompt = strdup(text ? text : "");
        SP_TRY_OR_DONE(sp_train_option_set(&s->train, name, text ? text : value));
    }
done:
    json_decref(json);
    return status;
}

/* Settings of the run in `folder`, if it has a checkpoint. */
static sp_status read_saved_run(settings *s, const char *folder, bool *found) {
    char *newest = NULL, path[4096];
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_checkpoint_newest(folder, &newest));
    *found = newest;
    if (!newest) goto done;
    SP_TRY_OR_DONE(sp_path_join(path, sizeof path, newest, "config.json"));
    SP_TRY_OR_DONE(read_config(&s->model, path));
    SP_TRY_OR_DONE(read_saved_options(s, newest));
done:
    free(newest);
    return status;
}

/* Vocabulary and special tokens of a new model are those of the text. */
static sp_status adopt_text(settings *s, const arguments *given) {
    sp_shards *shards;
    SP_TRY(sp_shards_open(&shards, given->data, "train"));
    if (s->model.vocabulary == 0) s->model.vocabulary = sp_shards_vocabulary(shards);
    sp_shards_close(shards);
    s->model.bos = sp_tokenizer_bos(s->tokenizer);
    s->model.eos = sp_tokenizer_eos(s->tokenizer);
    return SP_OK;
}

static sp_status resolve(settings *s, const arguments *given) {
    bool resumed = false, wants_resume = false;
    s->train = sp_train_options_default();
    s->model = cli_model_config_default();
    s->device = given->device;
    SP_TRY(cli_dtype_find(&s->dtype, "auto", s->device));
    for (int i = 0; sp_train_option_at(i); i++)
        wants_resume |= given->train[i] && strcmp(sp_train_option_at(i)->name, "resume") == 0;
    if (wants_resume) SP_TRY(read_saved_run(s, given->out, &resumed));
    if (given->config) SP_TRY(read_config(&s->model, given->config));
    for (int i = 0; cli_model_option_at(i); i++)
        if (given->model[i]) SP_TRY(cli_model_option_set(&s->model, i, given->model[i]));
    for (int i = 0; sp_train_option_at(i); i++)
        if (given->train[i]) SP_TRY(sp_train_option_set(&s->train, sp_train_option_at(i)->name, given->train[i]));
    if (given->dtype) SP_TRY(cli_dtype_find(&s->dtype, given->dtype, s->device));
    SP_TRY(sp_tokenizer_open(&s->tokenizer, given->tokenizer ? given->tokenizer : given->data));
    if (!resumed) SP_TRY(adopt_text(s, given));
    SP_TRY(cli_model_config_finish(&s->model));
    return sp_train_options_check(&s->train);
}

/* ---- what is shown ---- */

typedef struct display {
    const settings *settings;
    const char *out;
    cli_memory_plan memory;
    bool draws; /* one line, drawn over and over; otherwise a line now and then */
    bool is_drawn;
    double shown; /* seconds of training when the last plain line was printed */
    double validation_loss;
} display;

static void end_drawn_line(display *d) {
    if (d->is_drawn) fputc('\n', stderr);
    d->is_drawn = false;
}

static void format_step(char *out, int64_t out_bytes, const sp_train_step *step, double validation_loss) {
    char total[32] = "", validation[32] = "", left[64] = "", time_left[32];
    if (step->n_steps > 0) snprintf(total, sizeof total, "/%" PRId64, step->n_steps);
    if (!isnan(validation_loss)) snprintf(validation, sizeof validation, "  validation %.4f", validation_loss);
    if (!isnan(step->seconds_left)) {
        cli_format_seconds(time_left, sizeof time_left, step->seconds_left);
        snprintf(left, sizeof left, "  %s left", time_left);
    }
    snprintf(out, (size_t)out_bytes, "step %" PRId64 "%s  loss %.4f%s  rate %.2e  gradient %.3f  %.0f tokens/s%s%s",
             step->step, total, step->loss, validation, step->learning_rate, step->gradient_norm,
             step->tokens_per_second, left, step->skipped ? "  SKIPPED: not finite" : "");
}

/* Letters that fit into a line of the terminal: a longer one could not be drawn over. */
static int line_width(void) {
    struct winsize size;
    bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
    return known ? size.ws_col - 1 : 79;
}

/* Not before the first step: what is wrong with the run is then known, and stands alone. */
static void show_begin(void *user) {
    const display *d = user;
    const settings *s = d->settings;
    char device[300];
    cli_device_describe(device, sizeof device, s->device);
    fprintf(
        stderr, "training %s, %s, %.1fM parameters, %s, batch %" PRId64 " x %" PRId64 " x %" PRId64 " tokens, on %s\n",
        d->out, sp_normalizer_name(s->model.attention_function), 1e-6 * (double)sp_model_config_n_parameters(&s->model),
        sp_dtype_name(s->dtype), s->train.n_accumulate, s->train.B, s->train.T, device);
    cli_show_memory(&d->memory);
}

static void show_step(void *user, const sp_train_step *step) {
    display *d = user;
    char line[320];
    bool measured = !isnan(step->validation_loss);
    if (measured) d->validation_loss = step->validation_loss;
    bool last = step->n_steps > 0 && step->step == step->n_steps;
    if (d->draws) {
        format_step(line, sizeof line, step, d->validation_loss);
        fprintf(stderr, "\r\033[K%.*s", line_width(), line);
        d->is_drawn = true;
        if (measured || step->skipped) end_drawn_line(d);
    } else if (measured || step->skipped || last || step->seconds - d->shown >= PLAIN_LINE_SECONDS) {
        format_step(line, sizeof line, step, step->validation_loss);
        fprintf(stderr, "%s\n", line);
        d->shown = step->seconds;
    }
    fflush(stderr);
}

static void show_sample(void *user, int64_t step, const char *text) {
    end_drawn_line(user);
    fprintf(stderr, "sample after step %" PRId64 ": %s\n", step, text);
}

static void show_checkpoint(void *user, int64_t step, const char *folder) {
    (void)step;
    end_drawn_line(user);
    fprintf(stderr, "saved %s\n", folder);
}

static int ask_stop(void *user) {
    (void)user;
    return cli_interrupted();
}

static bool stderr_draws(void) {
    const char *terminal = getenv("TERM");
    return isatty(STDERR_FILENO) && terminal && strcmp(terminal, "dumb") != 0;
}

/* ---- the result ---- */

static sp_status print_json(const sp_train_result *result, const settings *s, const char *out) {
    char *text = NULL, device[32];
    cli_device_format(device, sizeof device, s->device);
    json_t *json = json_pack(
        "{si ss ss ss ss sI sI sI so so sI so so sb}", "schema", 1, "run", out, "attention",
        sp_normalizer_name(s->model.attention_function), "device", device, "dtype", sp_dtype_name(s->dtype), "steps",
        (json_int_t)result->n_steps, "tokens", (json_int_t)result->n_tokens, "skipped", (json_int_t)result->n_skipped,
        "final_loss", sp_json_number(result->final_loss), "validation_loss", sp_json_number(result->validation_loss),
        "validation_targets", (json_int_t)result->validation_targets, "seconds", sp_json_number(result->seconds),
        "tokens_per_second", sp_json_number(result->tokens_per_second), "stopped_early", result->stopped_early);
    SP_REQUIRE(json, SP_OUT_OF_MEMORY, "no memory for the result, or %s is not UTF-8", out);
    sp_status status = sp_json_format(&text, json, 0);
    if (status == SP_OK) printf("%s\n", text);
    free(text);
    json_decref(json);
    return status;
}

static void print_text(const sp_train_result *result, const char *out) {
    char seconds[32];
    cli_format_seconds(seconds, sizeof seconds, result->seconds);
    printf("run              %s\n", out);
    printf("steps            %" PRId64 "%s\n", result->n_steps, result->stopped_early ? " (stopped early)" : "");
    printf("tokens           %" PRId64 "\n", result->n_tokens);
    if (result->n_skipped) printf("skipped steps    %" PRId64 "\n", result->n_skipped);
    printf("training loss    %.4f\n", result->final_loss);
    if (isnan(result->validation_loss))
        printf("validation loss  not measured\n");
    else
        printf("validation loss  %.4f over %" PRId64 " targets\n", result->validation_loss, result->validation_targets);
    printf("time             %s, %.0f tokens/s\n", seconds, result->tokens_per_second);
}

static sp_status train(sp_train_result *result, settings *s, const arguments *given) {
    SP_TRY(resolve(s, given));
    display d = {.settings = s, .out = given->out, .draws = stderr_draws(), .validation_loss = NAN};
    sp_model_options options = sp_model_options_default();
    options.device = s->device;
    options.dtype = s->dtype;
    options.training = true;
    options.recompute = given->recompute;
    options.seed = s->train.seed;
    cli_run_shape shape = {&s->model, &options, s->train.B, s->train.T, s->train.n_accumulate};
    SP_TRY(cli_plan_memory(&d.memory, &shape));
    sp_model *model;
    SP_TRY(sp_model_new(&model, &s->model, &options));
    sp_train_callbacks callbacks = {&d, show_begin, show_step, show_sample, show_checkpoint, ask_stop};
    sp_status status = sp_train(model, s->tokenizer, given->data, given->out, &s->train, &callbacks, result);
    end_drawn_line(&d);
    sp_model_free(model);
    return status;
}

int cmd_train(int argc, char **argv) {
    static option_list list;
    list_options(&list);
    struct argp argp = {.options = list.options, .parser = parse_option, .doc = documentation};
    arguments given = {0};
    cli_parse(&argp, argc, argv, &given);
    cli_set_threads(given.n_threads);
    cli_catch_signals();
    settings s = {0};
    sp_train_result result;
    sp_status status = train(&result, &s, &given);
    if (status == SP_OK && given.json) status = print_json(&result, &s, given.out);
    if (status == SP_OK && !given.json) print_text(&result, given.out);
    sp_tokenizer_free(s.tokenizer);
    free(s.prompt);
    return status == SP_OK ? CLI_DONE : cli_fail(status);
}
