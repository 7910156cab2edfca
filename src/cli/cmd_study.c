/* `softpick study`: the main job.  Text in; tokenizer, twins, measures, one results.json and one report.html out. */
#define _GNU_SOURCE
#include "cli/study.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/status.h"
#include "cli/cli.h"
#include "cli/placement.h"
#include "softpick/measure.h"
#include "softpick/report.h"

enum { KEY_TEXT = 't', KEY_OUT = 'o', KEY_PRESET = 'p', KEY_FORCE = 'f', KEY_THREADS = 'j', KEY_JSON = 1000 };
enum { FIRST_SETTING = 2000, SETTINGS_MAX = 64, TEXTS_MAX = 1024 };

typedef struct arguments {
    const char *texts[TEXTS_MAX];
    int64_t n_texts;
    const char *out, *preset;
    const char *given[SETTINGS_MAX]; /* by row of study_table, NULL: the preset's */
    bool force, json;
    int64_t n_threads;
} arguments;

/* ---- options ----------------------------------------------------------------------------------------------------- */

static const struct argp_option general_options[] = {
    {"text", KEY_TEXT, "PATH", 0,
     "text to learn from: .txt, .jsonl, each also .gz or .zst, a folder of these, or - "
     "(standard input); may be given again",
     0},
    {"out", KEY_OUT, "DIR", 0, "folder for tokens, checkpoints, results.json and report.html", 0},
    {"preset", KEY_PRESET, "NAME", 0, "where all other settings come from (default: demo)", 0},
    {"force", KEY_FORCE, 0, 0, "begin anew in a folder that holds another study, or a finished one", 0},
    {"threads", KEY_THREADS, "N", 0, "threads (default: all processors)", 0},
    {"json", KEY_JSON, 0, 0, "print results.json instead of the table", 0},
};
enum { N_GENERAL = sizeof general_options / sizeof *general_options };

static const char *const headings[] = {"", "Model:", "Training:", "Measures:", "Evaluation:"};

/* The rows of study_table as argp's options, behind the general ones, with a heading before each group. */
static struct argp_option *all_options(void) {
    static struct argp_option options[N_GENERAL + SETTINGS_MAX + 8];
    int n = 0, group = 0;
    for (int i = 0; i < N_GENERAL; i++) options[n++] = general_options[i];
    for (int i = 0; i < study_table_rows; i++) {
        const study_setting *row = &study_table[i];
        if (row->group != group) options[n++] = (struct argp_option){.doc = headings[row->group], .group = row->group};
        group = row->group;
        options[n++] = (struct argp_option){
            .name = row->name, .key = FIRST_SETTING + i, .arg = row->argument, .doc = row->help, .group = row->group};
    }
    return options;
}

static error_t parse(int key, char *text, struct argp_state *state) {
    arguments *a = state->input;
    switch (key) {
    case KEY_TEXT:
        if (a->n_texts == TEXTS_MAX) argp_error(state, "--text: more than %d paths", TEXTS_MAX);
        a->texts[a->n_texts++] = text;
        return 0;
    case KEY_OUT: a->out = text; return 0;
    case KEY_PRESET:
        a->preset = text;
        if (!study_preset(text)) argp_error(state, "--preset: there is no \"%s\"; see --help", text);
        return 0;
    case KEY_FORCE: a->force = true; return 0;
    case KEY_THREADS: a->n_threads = cli_count(state, "threads", text, 1, 4096); return 0;
    case KEY_JSON: a->json = true; return 0;
    case ARGP_KEY_ARG: argp_error(state, "\"%s\": paths of text go behind --text", text); return 0;
    case ARGP_KEY_END:
        if (!a->n_texts) argp_error(state, "--text is missing");
        if (!a->out) argp_error(state, "--out is missing");
        return 0;
    default: break;
    }
    int row = key - FIRST_SETTING;
    if (row < 0 || row >= study_table_rows) return ARGP_ERR_UNKNOWN;
    const study_setting *setting = &study_table[row];
    if (setting->kind == STUDY_COUNT)
        cli_count(state, setting->name, text, (int64_t)setting->min, (int64_t)setting->max);
    if (setting->kind == STUDY_NUMBER) cli_number(state, setting->name, text, setting->min, setting->max);
    a->given[row] = text ? text : "yes";
    return 0;
}

static void apply(study_settings *settings, const arguments *a) {
    for (int i = 0; i < study_table_rows; i++) {
        if (!a->given[i]) continue;
        void *field = (char *)settings + study_table[i].offset;
        switch (study_table[i].kind) {
        case STUDY_COUNT: *(int64_t *)field = cli_count(NULL, study_table[i].name, a->given[i], 0, INT64_MAX); break;
        case STUDY_NUMBER: *(double *)field = cli_number(NULL, study_table[i].name, a->given[i], 0, 1e18); break;
        case STUDY_WORD: *(const char **)field = a->given[i]; break;
        case STUDY_SWITCH: *(bool *)field = true; break;
        }
    }
}

/* "softmax,softpick" */
static sp_status read_attention(study *s) {
    char list[256];
    snprintf(list, sizeof list, "%s", s->settings.attention);
    char *rest = list;
    for (char *name; (name = strsep(&rest, ","));) {
        SP_REQUIRE(s->n_models < STUDY_MODELS_MAX, SP_BAD_ARGUMENT, "--attention: more than %d functions",
                   STUDY_MODELS_MAX);
        SP_TRY(sp_normalizer_find(&s->attention[s->n_models], name));
        for (int64_t i = 0; i < s->n_models; i++)
            SP_REQUIRE(s->attention[i] != s->attention[s->n_models], SP_BAD_ARGUMENT, "--attention: %s stands twice",
                       name);
        s->n_models++;
    }
    return SP_OK;
}

/* Everything that can be wrong with the settings is said before anything is written. */
static sp_status check_settings(study *s) {
    json_t *command = s->command ? json_string(s->command) : NULL; /* as results.json will hold it */
    bool is_utf8 = command != NULL;
    json_decref(command);
    SP_REQUIRE(is_utf8, SP_BAD_ARGUMENT, "an option is not UTF-8: results.json could not hold it");
    SP_TRY(read_attention(s));
    SP_TRY(cli_device_find(&s->device, s->settings.device));
    SP_TRY(cli_dtype_find(&s->dtype, s->settings.dtype, s->device));
    SP_TRY(sp_measure_check_list(s->settings.measures));
    sp_train_options options;
    SP_TRY(study_train_options(&options, s));
    SP_REQUIRE(s->settings.steps > 0 || s->settings.minutes > 0, SP_BAD_ARGUMENT,
               "--steps and --minutes are both 0: one of them says how long to train");
    SP_REQUIRE(s->settings.width % s->settings.heads == 0 && s->settings.width / s->settings.heads % 2 == 0,
               SP_BAD_ARGUMENT, "--width is %" PRId64 ": not an even multiple of the %" PRId64 " heads",
               s->settings.width, s->settings.heads);
    int64_t kv = s->settings.kv_heads ? s->settings.kv_heads : s->settings.heads;
    SP_REQUIRE(s->settings.heads % kv == 0, SP_BAD_ARGUMENT,
               "--heads is %" PRId64 ": not a multiple of the %" PRId64 " key/value heads", s->settings.heads, kv);
    if (s->settings.measure_length > 2 * s->settings.T)
        return sp_fail(SP_BAD_ARGUMENT, "--measure-length is %" PRId64 ": the model has %" PRId64 " positions",
                       s->settings.measure_length, 2 * s->settings.T);
    return SP_OK;
}

/* ---- the folder -------------------------------------------------------------------------------------------------- */

static const char *const products[] = {"results.json", "report.html", "study.json", "tokens", "stdin.txt", ".timing"};

static sp_status clear_folder(const study *s) {
    char path[4096];
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        SP_TRY(sp_path_join(path, sizeof path, s->out, products[i]));
        SP_TRY(sp_folder_remove(path));
    }
    for (int i = 0; i < SP_NORMALIZER_COUNT; i++) {
        SP_TRY(sp_path_join(path, sizeof path, s->out, sp_normalizer_name((sp_normalizer)i)));
        SP_TRY(sp_folder_remove(path));
    }
    return SP_OK;
}

/* study.json: the settings asked for, the texts, whether their tokens are ready, and the steps chosen, so that a study
 * stopped half-way goes on as the same study.  Before the tokens are ready nothing is worth keeping, and any study may
 * take the folder over. */
static json_t *study_json(const study *s, json_t *texts) {
    json_t *root = study_settings_json(&s->settings);
    json_object_set(root, "text", texts);
    return root;
}

static sp_status remember(const study *s, const study_settings *asked, json_t *texts, bool ready) {
    char path[4096];
    SP_TRY(sp_path_join(path, sizeof path, s->out, "study.json"));
    study as_asked = *s;
    as_asked.settings = *asked;
    json_t *root = study_json(&as_asked, texts);
    json_object_set_new(root, "ready", json_boolean(ready));
    json_object_set_new(root, "steps_chosen", json_integer(s->settings.steps));
    sp_status status = sp_json_write(path, root);
    json_decref(root);
    return status;
}

/* Takes up the study that study.json tells of, if it is this one. */
static sp_status go_on(study *s, json_t *texts, const char *path) {
    json_t *there, *asked = study_json(s, texts);
    sp_status status = sp_json_read(&there, path);
    if (status == SP_OK && json_is_true(json_object_get(there, "ready"))) {
        char difference[512];
        bool differ = study_settings_differ(difference, sizeof difference, there, asked);
        if (!differ && !json_equal(json_object_get(there, "text"), texts))
            differ = snprintf(difference, sizeof difference, "the text is another one") > 0;
        if (differ)
            status =
                sp_fail(SP_BAD_ARGUMENT, "%s: another study is there: %s; --force begins anew", s->out, difference);
        int64_t chosen = json_integer_value(json_object_get(there, "steps_chosen"));
        if (chosen > 0) s->settings.steps = chosen;
        s->goes_on = true;
    }
    json_decref(there);
    json_decref(asked);
    return status;
}

static sp_status claim_folder(study *s, json_t *texts, bool force) {
    char path[4096];
    if (force) SP_TRY(clear_folder(s));
    SP_TRY(sp_folder_make(s->out));
    SP_TRY(sp_path_join(path, sizeof path, s->out, "results.json"));
    SP_REQUIRE(!sp_file_exists(path), SP_BAD_ARGUMENT, "%s: a finished study is there; --force begins anew", s->out);
    SP_TRY(sp_path_join(path, sizeof path, s->out, "study.json"));
    if (sp_file_exists(path))
        SP_TRY(go_on(s, texts, path));
    else
        SP_REQUIRE(!sp_folder_exists(s->tokens), SP_BAD_ARGUMENT,
                   "%s: is there, and no study.json says whose it is; name another folder, or begin anew by --force",
                   s->tokens);
    if (s->goes_on) fprintf(stderr, "softpick: going on with the study in %s\n", s->out);
    return s->goes_on ? SP_OK : remember(s, &s->settings, texts, false);
}

/* Standard input is read twice (tokenizer, tokens): it becomes a file first. */
static sp_status keep_stdin(study *s, char *path, int64_t path_bytes) {
    for (int64_t i = 0; i < s->n_texts; i++) {
        if (strcmp(s->texts[i], "-") != 0) continue;
        SP_TRY(sp_path_join(path, path_bytes, s->out, "stdin.txt"));
        if (!s->goes_on) {
            sp_file_writer writer;
            char buffer[1 << 16];
            sp_status status = sp_file_writer_open(&writer, path);
            for (size_t n; status == SP_OK && (n = fread(buffer, 1, sizeof buffer, stdin)) > 0;)
                status = sp_file_writer_add(&writer, buffer, (int64_t)n);
            if (status == SP_OK) status = sp_file_writer_finish(&writer);
            sp_file_writer_abandon(&writer);
            SP_TRY(status);
        }
        s->texts[i] = path;
    }
    return SP_OK;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static sp_status finish(const study *s, bool json) {
    char results_path[4096], report_path[4096];
    SP_TRY(sp_path_join(results_path, sizeof results_path, s->out, "results.json"));
    SP_TRY(sp_path_join(report_path, sizeof report_path, s->out, "report.html"));
    json_t *results = study_results(s);
    SP_REQUIRE(results, SP_INTERNAL, "the results could not be put together");
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_json_write(results_path, results));
    SP_TRY_OR_DONE(sp_report_write(report_path, results_path));
    if (json) {
        char *text;
        SP_TRY_OR_DONE(sp_json_format(&text, results, 0));
        puts(text);
        free(text);
    } else {
        study_print(results);
        printf("\n  %s\n  %s\n", report_path, results_path);
    }
done:
    json_decref(results);
    return status;
}

static sp_status run(study *s, json_t *texts, const arguments *a) {
    char spooled[4096];
    const study_settings asked = s->settings;
    SP_TRY(check_settings(s));
    SP_TRY(study_check_tasks(s));
    SP_TRY(study_check_memory(s));
    SP_TRY(sp_path_join(s->tokens, sizeof s->tokens, s->out, "tokens"));
    SP_TRY(claim_folder(s, texts, a->force));
    SP_TRY(keep_stdin(s, spooled, sizeof spooled));
    SP_TRY(study_prepare_tokens(s));
    SP_TRY(study_check_measures(s));
    SP_TRY(remember(s, &asked, texts, true));
    s->timed = asked.steps == 0;
    SP_TRY(study_choose_steps(s));
    SP_TRY(remember(s, &asked, texts, true));
    sp_model_config config;
    SP_TRY(study_model_config(&config, s, s->attention[0]));
    fprintf(stderr,
            "softpick: %" PRId64 " tokens of text; %" PRId64 " parameters; %" PRId64 " steps of %" PRId64
            " tokens for each model, in %s\n",
            s->n_train, sp_model_config_n_parameters(&config), s->settings.steps,
            s->settings.T * s->settings.B * s->settings.accumulate, sp_dtype_name(s->dtype));
    cli_show_memory(&s->memory);
    for (int64_t i = 0; i < s->n_models; i++) SP_TRY(study_run_model(s, s->attention[i]));
    return finish(s, a->json);
}

/* What a preset sets, below its name. */
static void print_preset(FILE *stream, const study_settings *s) {
    fprintf(stream, "%15slayers %" PRId64 ", heads %" PRId64 ", width %" PRId64 ", vocabulary %" PRId64 ",\n", "",
            s->layers, s->heads, s->width, s->vocabulary);
    fprintf(stream, "%15slength %" PRId64 ", batch %" PRId64 ", accumulate %" PRId64 ", packing %s,\n", "", s->T, s->B,
            s->accumulate, s->packing);
    fprintf(stream, "%15slearning-rate %g, warmup-steps %" PRId64 ",\n", "", s->learning_rate, s->warmup_steps);
    fprintf(stream, "%15sinitializer-range %g, ", "", s->initializer_range);
    if (s->steps > 0)
        fprintf(stream, "steps %" PRId64 "\n", s->steps);
    else
        fprintf(stream, "minutes %g\n", s->minutes);
}

static char *help_text(int key, const char *text, void *input) {
    (void)input;
    if (key != ARGP_KEY_HELP_POST_DOC) return (char *)(uintptr_t)text;
    char *out = NULL;
    size_t bytes;
    FILE *stream = open_memstream(&out, &bytes);
    if (!stream) return NULL;
    fputs("Presets:\n", stream);
    const char *name, *help;
    for (int i = 0; study_preset_at(i, &name, &help); i++) {
        fprintf(stream, "  %-12s %s\n", name, help);
        print_preset(stream, study_preset(name));
    }
    fputs("All others: attention softmax,softpick, schedule cosine, device cpu, dtype auto, adam-eps 1e-15, "
          "validation-fraction "
          "0.05, "
          "samples 32, measures all, no tasks, seed 1.\n",
          stream);
    fputs("\nExamples:\n"
          "  softpick study --text book.txt --out study\n"
          "  softpick study --text corpus.jsonl.zst --preset small --device cuda --out small\n"
          "  zcat *.gz | softpick study --text - --minutes 10 --out longer\n"
          "  softpick study --text book.txt --tasks arc_easy,passkey --task-data eval --out study\n\n"
          "A study that was stopped goes on when the same command is given again.\n"
          "Exit status: 0 done, 1 failed or stopped, 2 wrong usage, 3 a file is missing, damaged or of the wrong kind.",
          stream);
    fclose(stream);
    return out;
}

/* The command line in one text; NULL without memory. */
static char *typed(int argc, char **argv) {
    char *out = NULL;
    size_t bytes;
    FILE *stream = open_memstream(&out, &bytes);
    if (!stream) return NULL;
    for (int i = 0; i < argc; i++) fprintf(stream, i ? " %s" : "%s", argv[i]); /* argv[0] is "softpick study" */
    fclose(stream);
    return out;
}

int cmd_study(int argc, char **argv) {
    static const char doc[] = "Trains one model with each attention function on the same text in the same order, "
                              "measures them, and writes results.json and report.html.";
    const struct argp argp = {all_options(), parse, "--text PATH --out DIR", doc, NULL, help_text, NULL};
    static arguments a;
    a = (arguments){.preset = "demo"};
    char *command = typed(argc, argv);
    cli_parse(&argp, argc, argv, &a);
    cli_set_threads(a.n_threads);
    cli_catch_signals();
    study s = {.settings = *study_preset(a.preset), .out = a.out, .texts = a.texts, .n_texts = a.n_texts};
    apply(&s.settings, &a);
    s.command = command;
    s.models = json_object();
    json_t *texts = json_array();
    for (int64_t i = 0; i < a.n_texts; i++) json_array_append_new(texts, json_string(a.texts[i]));
    sp_status status = run(&s, texts, &a);
    sp_tokenizer_free(s.tokenizer);
    json_decref(texts);
    json_decref(s.models);
    free(command);
    return status == SP_OK ? CLI_DONE : cli_fail(status);
}
