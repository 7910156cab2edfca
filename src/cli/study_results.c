/* What a study found: loss curves, results.json (docs/results.md), the table on the terminal. */
#include "cli/study.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/json.h"
#include "base/status.h"
#include "cli/cli.h"
#include "cli/placement.h"
#include "softpick/device.h"

/* ---- curves ------------------------------------------------------------------------------------------------------ */

typedef struct curve {
    json_t *step, *loss, *validation_step, *validation_loss;
    int64_t stride; /* steps of one point: their mean is drawn */
    double sum;
    int64_t count;
} curve;

static void add_line(curve *c, const json_t *line) {
    const json_t *event = json_object_get(line, "event"), *loss = json_object_get(line, "loss");
    if (!json_is_string(event) || !json_is_number(loss)) return;
    json_t *step = json_object_get(line, "step");
    if (strcmp(json_string_value(event), "validation") == 0) {
        json_array_append(c->validation_step, step);
        json_array_append_new(c->validation_loss, sp_json_number(json_number_value(loss)));
    } else if (strcmp(json_string_value(event), "step") == 0) {
        c->sum += json_number_value(loss);
        if (++c->count < c->stride) return;
        json_array_append(c->step, step);
        json_array_append_new(c->loss, sp_json_number(c->sum / (double)c->count));
        c->sum = 0;
        c->count = 0;
    }
}

static int64_t count_lines(const char *text) {
    int64_t count = 0;
    for (; *text; text++) count += *text == '\n';
    return count;
}

sp_status study_curve(json_t **out, const char *run_folder, int64_t n_max) {
    *out = NULL;
    char path[4096], *text;
    SP_TRY(sp_path_join(path, sizeof path, run_folder, "log.jsonl"));
    SP_TRY(sp_file_read(path, &text, NULL));
    curve c = {json_array(), json_array(), json_array(), json_array(), count_lines(text) / n_max + 1, 0, 0};
    sp_status status = SP_OK;
    for (char *line = text, *end; status == SP_OK && (end = strchr(line, '\n')); line = end + 1) {
        json_t *json;
        status = sp_json_parse(&json, line, end - line, path);
        if (status == SP_OK) add_line(&c, json);
        if (status == SP_OK) json_decref(json);
    }
    free(text);
    *out = json_pack("{so so so so}", "step", c.step, "loss", c.loss, "validation_step", c.validation_step,
                     "validation_loss", c.validation_loss);
    return status;
}

/* ---- results.json ------------------------------------------------------------------------------------------------ */

static const char *attention_variant(const sp_model_config *config, const study *s) {
    static uint64_t nothing[8]; /* the choice looks at shapes and dtypes, never at the numbers */
    int64_t T = s->settings.T, D = config->head_width;
    sp_tensor q = sp_tensor_view(nothing, s->dtype, 4, (int64_t[]){s->settings.B, T, config->n_heads, D});
    sp_tensor k = sp_tensor_view(nothing, s->dtype, 4, (int64_t[]){s->settings.B, T, config->n_kv_heads, D});
    sp_attention problem;
    sp_attention_init(&problem);
    q.device = k.device = s->device;
    problem.normalizer = config->attention_function;
    problem.q = problem.out = q;
    problem.k = problem.v = k;
    const char *name;
    return sp_attention_choose(&problem, SP_ATTENTION_FORWARD, &name) == SP_OK ? name : "unknown";
}

static json_t *machine_json(const sp_model_config *config, const study *s) {
    char device[32], name[300];
    cli_device_format(device, sizeof device, s->device);
    cli_device_describe(name, sizeof name, s->device);
    return json_pack("{ss si si ss ss ss ss}", "cpu", sp_cpu_model(), "cores", sp_cpu_count(), "threads",
                     omp_get_max_threads(), "device", device, "device_name", name, "attention_variant",
                     attention_variant(config, s), "matmul_variant", sp_model_matmul_name(s->device, s->dtype));
}

/* "bpe" is one that the study trained; one that was given is called by its file. */
static const char *tokenizer_kind(const study *s) {
    if (!s->settings.tokenizer[0]) return "bpe";
    return strstr(sp_tokenizer_path(s->tokenizer), "tokenizer.json") ? "tokenizer.json" : "sentencepiece";
}

static json_t *settings_json(const study *s) {
    const study_settings *set = &s->settings;
    sp_train_options options;
    json_t *texts = json_array(), *minutes = s->timed ? json_real(set->minutes) : json_null();
    for (int64_t i = 0; i < s->n_texts; i++) json_array_append_new(texts, json_string(s->texts[i]));
    if (study_train_options(&options, s) != SP_OK) options = sp_train_options_default();
    json_t *root = json_object();
    json_object_set_new(root, "command", json_string(s->command));
    json_object_set_new(root, "preset", json_string(set->preset));
    json_object_set_new(root, "text", texts);
    json_object_set_new(root, "tokenizer",
                        json_pack("{ss sI}", "kind", tokenizer_kind(s), "vocabulary",
                                  (json_int_t)sp_tokenizer_vocabulary(s->tokenizer)));
    json_object_set_new(root, "tokens",
                        json_pack("{sI sI sI}", "train", (json_int_t)s->n_train, "validation",
                                  (json_int_t)s->n_validation, "documents", (json_int_t)s->n_documents));
    json_object_set_new(root, "T", json_integer(set->T));
    json_object_set_new(root, "B", json_integer(set->B));
    json_object_set_new(root, "accumulate", json_integer(set->accumulate));
    json_object_set_new(root, "steps", json_integer(set->steps));
    json_object_set_new(root, "packing", json_string(set->packing));
    json_object_set_new(root, "learning_rate", json_real(set->learning_rate));
    json_object_set_new(root, "schedule", json_string(set->schedule));
    json_object_set_new(root, "warmup_steps", json_integer(options.warmup_steps));
    json_object_set_new(root, "weight_decay", json_real(options.weight_decay));
    json_object_set_new(root, "seed", json_integer(set->seed));
    json_object_set_new(root, "dtype", json_string(sp_dtype_name(s->dtype)));
    json_object_set_new(root, "minutes", minutes);
    return root;
}

static json_t *model_json(const sp_model_config *c) {
    return json_pack("{sI sI sI sI sI sI sI sI}", "layers", (json_int_t)c->n_layers, "heads", (json_int_t)c->n_heads,
                     "kv_heads", (json_int_t)c->n_kv_heads, "width", (json_int_t)c->width, "head_width",
                     (json_int_t)c->head_width, "ffn_width", (json_int_t)c->ffn_width, "vocabulary",
                     (json_int_t)c->vocabulary, "parameters", (json_int_t)sp_model_config_n_parameters(c));
}

json_t *study_results(const study *s) {
    sp_model_config config;
    if (study_model_config(&config, s, s->attention[0]) != SP_OK) return NULL;
    char created[32];
    time_t now = time(NULL);
    strftime(created, sizeof created, "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
    return json_pack("{ss ss s{ss ss?} so so so sO}", "schema", "softpick-results/1", "created", created, "softpick",
                     "version", sp_version(), "commit", cli_build.commit[0] ? cli_build.commit : NULL, "machine",
                     machine_json(&config, s), "settings", settings_json(s), "model", model_json(&config), "models",
                     s->models);
}

/* ---- the terminal ------------------------------------------------------------------------------------------------ */

/* Rows of the table: key of a model's results, what it is called, digits after the point; percent: shares. */
static const struct {
    const char *key, *label;
    int digits;
    bool percent;
} rows[] = {
    {"validation_loss", "validation loss (nats per token)", 4, false},
    {"train_loss", "training loss, last steps", 4, false},
    {"sink_rate", "sink rate (first token above 0.3)", 1, true},
    {"first_token_mass", "attention on the first token", 1, true},
    {"row_mass", "attention in all (row mass)", 1, true},
    {"sparsity", "exact zeros in the attention map", 1, true},
    {"silent_heads", "silent heads", 1, true},
    {"kurtosis", "kurtosis of hidden states", 1, false},
    {"activation_max", "largest hidden state", 1, false},
    {"activation_min", "smallest hidden state", 1, false},
    {"tokens_per_second", "training speed (tokens/s)", 0, false},
};

/* What would overflow its column has an exponent. */
static void format_value(char *out, int64_t out_bytes, const json_t *value, int digits, bool percent, bool sign) {
    if (!json_is_number(value))
        snprintf(out, (size_t)out_bytes, "-");
    else if (fabs(json_number_value(value)) >= 1e7)
        snprintf(out, (size_t)out_bytes, sign ? "%+.3g" : "%.3g", json_number_value(value));
    else
        snprintf(out, (size_t)out_bytes, sign ? "%+.*f%s" : "%.*f%s", digits,
                 json_number_value(value) * (percent ? 100 : 1), percent ? "%" : "");
}

/* What a row shows of one model; NULL: nothing. */
typedef const json_t *(*row_value)(const json_t *model, const char *key);

static const json_t *result_of(const json_t *model, const char *key) { return json_object_get(model, key); }

static void print_row(const json_t *models, const char *label, const char *key, row_value value, int digits,
                      bool percent) {
    const char *name;
    json_t *model, *difference = NULL;
    const json_t *first = NULL, *last = NULL;
    char text[64];
    printf("  %-36s", label);
    json_object_foreach((json_t *)(uintptr_t)models, name, model) {
        last = value(model, key);
        if (!first) first = last;
        format_value(text, sizeof text, last, digits, percent, false);
        printf(" %16s", text);
    }
    if (json_object_size(models) == 2) {
        if (json_is_number(first) && json_is_number(last))
            difference = json_real(json_number_value(last) - json_number_value(first));
        format_value(text, sizeof text, difference, digits, percent, true);
        printf(" %16s", text);
        json_decref(difference);
    }
    printf("\n");
}

/* `key`: "arc_easy/acc,none". */
static const json_t *metric_of(const json_t *model, const char *key) {
    char task[256];
    const char *slash = strchr(key, '/');
    snprintf(task, sizeof task, "%.*s", (int)(slash - key), key);
    const json_t *results = json_object_get(json_object_get(model, "evaluation"), "results");
    return json_object_get(json_object_get(results, task), slash + 1);
}

/* Every metric of every task, without their standard errors, which the report has. */
static void print_tasks(const json_t *models) {
    const char *task, *metric;
    json_t *metrics, *value;
    json_t *first = json_object_iter_value(json_object_iter((json_t *)(uintptr_t)models));
    json_object_foreach(json_object_get(json_object_get(first, "evaluation"), "results"), task, metrics) {
        json_object_foreach(metrics, metric, value) {
            if (!json_is_number(value) || strstr(metric, "_stderr,") || !strchr(metric, ',')) continue;
            char label[300], key[300];
            snprintf(label, sizeof label, "%s %.*s", task, (int)strcspn(metric, ","), metric);
            snprintf(key, sizeof key, "%s/%s", task, metric);
            bool share = strncmp(metric, "acc", 3) == 0;
            print_row(models, label, key, metric_of, share ? 1 : 2, share);
        }
    }
}

/* The paper's effects need long training: what did not come is said. */
static void print_sinks(const json_t *models) {
    const char *name;
    json_t *model;
    printf("\n");
    json_object_foreach((json_t *)(uintptr_t)models, name, model) {
        const json_t *rate = json_object_get(model, "sink_rate"), *steps = json_object_get(model, "steps");
        if (json_is_number(rate) && json_number_value(rate) <= 0)
            printf("  No attention sink grew in the %s model in its %lld steps.\n", name,
                   (long long)json_integer_value(steps));
    }
}

void study_print(const json_t *results) {
    const json_t *models = json_object_get(results, "models");
    const char *name;
    json_t *model;
    printf("\n  %-36s", "");
    json_object_foreach((json_t *)(uintptr_t)models, name, model) printf(" %16s", name);
    printf(json_object_size(models) == 2 ? " %16s\n" : "\n", "difference");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        print_row(models, rows[i].label, rows[i].key, result_of, rows[i].digits, rows[i].percent);
    print_tasks(models);
    print_sinks(models);
}
