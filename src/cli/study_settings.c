/* The table of a study's settings, and the presets. */
#include "cli/study.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/placement.h"

#define AT(field) (int64_t) offsetof(study_settings, field)

enum { GROUP_MODEL = 1, GROUP_TRAINING = 2, GROUP_MEASURES = 3, GROUP_TASKS = 4 };

const study_setting study_table[] = {
    {"attention", STUDY_WORD, AT(attention), 0, 0, "LIST",
     "attention functions to compare, the baseline first (softpick, softmax, softmax_plus_one, softmax_sink, "
     "rectified)",
     GROUP_MODEL},
    {"layers", STUDY_COUNT, AT(layers), 1, 1000, "N", "layers", GROUP_MODEL},
    {"heads", STUDY_COUNT, AT(heads), 1, 1000, "N", "query heads", GROUP_MODEL},
    {"kv-heads", STUDY_COUNT, AT(kv_heads), 0, 1000, "N", "key/value heads; 0: as many as heads", GROUP_MODEL},
    {"width", STUDY_COUNT, AT(width), 2, 1 << 20, "N", "channels of the model", GROUP_MODEL},
    {"ffn-width", STUDY_COUNT, AT(ffn_width), 0, 1 << 22, "N", "width of the feed-forward; 0: 8/3 of the width",
     GROUP_MODEL},
    {"vocabulary", STUDY_COUNT, AT(vocabulary), 0, 1 << 24, "N", "pieces of the tokenizer that is trained",
     GROUP_MODEL},
    {"tokenizer", STUDY_WORD, AT(tokenizer), 0, 0, "FILE",
     "tokenizer.json or sentencepiece model to use instead of training one", GROUP_MODEL},
    {"initializer-range", STUDY_NUMBER, AT(initializer_range), 0, 10, "X", "standard deviation of initial weights",
     GROUP_MODEL},
    {"length", STUDY_COUNT, AT(T), 2, 1 << 24, "N", "tokens of a sequence, T", GROUP_TRAINING},
    {"batch", STUDY_COUNT, AT(B), 1, 1 << 20, "N", "sequences of a micro-batch", GROUP_TRAINING},
    {"accumulate", STUDY_COUNT, AT(accumulate), 1, 1 << 20, "N", "micro-batches of a step", GROUP_TRAINING},
    {"minutes", STUDY_NUMBER, AT(minutes), 0, 1e9, "X",
     "training time of all models together: the steps are chosen by timing a few; 0: by --steps", GROUP_TRAINING},
    {"steps", STUDY_COUNT, AT(steps), 0, 1e12, "N", "steps of each model (overrides --minutes)", GROUP_TRAINING},
    {"learning-rate", STUDY_NUMBER, AT(learning_rate), 0, 10, "X", "peak learning rate", GROUP_TRAINING},
    {"warmup-steps", STUDY_COUNT, AT(warmup_steps), 0, 1e12, "N", "steps of linear warm-up", GROUP_TRAINING},
    {"schedule", STUDY_WORD, AT(schedule), 0, 0, "NAME", "cosine, linear, wsd or constant", GROUP_TRAINING},
    {"adam-eps", STUDY_NUMBER, AT(adam_eps), 0, 1, "X", "eps of AdamW", GROUP_TRAINING},
    {"packing", STUDY_WORD, AT(packing), 0, 0, "NAME",
     "bos (each sequence begins with BOS), concatenate (the paper's) or documents", GROUP_TRAINING},
    {"validation-fraction", STUDY_NUMBER, AT(validation_fraction), 0, 0.9, "X", "share of the text held out",
     GROUP_TRAINING},
    {"device", STUDY_WORD, AT(device), 0, 0, "NAME", CLI_DEVICE_HELP, GROUP_TRAINING},
    {"dtype", STUDY_WORD, AT(dtype), 0, 0, "NAME", "auto, f32 or bf16 (alone on a GPU)", GROUP_TRAINING},
    {"recompute", STUDY_SWITCH, AT(recompute), 0, 0, NULL,
     "keep less of the forward pass and compute it again: less memory, the same numbers, a forward pass more",
     GROUP_TRAINING},
    {"seed", STUDY_COUNT, AT(seed), 0, 1e15, "N", "of initial weights, order of the text and samples", GROUP_TRAINING},
    {"samples", STUDY_COUNT, AT(samples), 1, 1e6, "N", "held-out sequences that are measured", GROUP_MEASURES},
    {"measure-length", STUDY_COUNT, AT(measure_length), 0, 1 << 24, "N", "their tokens; 0: the training length",
     GROUP_MEASURES},
    {"measures", STUDY_WORD, AT(measures), 0, 0, "LIST",
     "what is measured: names of softpick measure, default (quick) or all", GROUP_MEASURES},
    {"prompt", STUDY_WORD, AT(prompt), 0, 0, "TEXT", "begins the generated samples and is drawn in attention maps",
     GROUP_MEASURES},
    {"tasks", STUDY_WORD, AT(tasks), 0, 0, "LIST", "tasks of softpick eval that each model does (default: none)",
     GROUP_TASKS},
    {"task-data", STUDY_WORD, AT(task_data), 0, 0, "DIR", "folder of their data files (default: this one)",
     GROUP_TASKS},
    {"task-limit", STUDY_COUNT, AT(task_limit), 0, 1e12, "N", "the first N documents of each; 0: all", GROUP_TASKS},
    {"num-fewshot", STUDY_COUNT, AT(shots), 0, 1000, "K", "solved examples in front of each question", GROUP_TASKS},
};
const int study_table_rows = sizeof study_table / sizeof *study_table;

/* demo: shape and rate by trials (docs/demo.md): many small steps on short sequences, BOS in front of each, show most.
 * paper-*: Table 6 of arXiv 2504.20966 and its training code. */
static const struct {
    const char *help;
    int64_t bench_B;
    study_settings settings;
} presets[] = {
    {"about two minutes of training in all on two cores",
     4,
     {.preset = "demo",
      .layers = 3,
      .heads = 3,
      .width = 96,
      .vocabulary = 2048,
      .T = 64,
      .B = 4,
      .minutes = 2,
      .warmup_steps = 50,
      .learning_rate = 1e-2,
      .initializer_range = 0.02,
      .prompt = "In the beginning God created the heaven and the earth."}},
    {"8 layers of width 512 (34M parameters): hours on a CPU",
     8,
     {.preset = "small",
      .layers = 8,
      .heads = 8,
      .width = 512,
      .ffn_width = 1376,
      .vocabulary = 8192,
      .T = 512,
      .B = 8,
      .accumulate = 4,
      .steps = 5000,
      .warmup_steps = 200,
      .learning_rate = 1e-3,
      .initializer_range = 0.02,
      .prompt = "The first thing to know about the sun is"}},
    {"the paper's 340M run: 52 billion tokens, for machines that can",
     8,
     {.preset = "paper-340m",
      .layers = 24,
      .heads = 16,
      .width = 1024,
      .ffn_width = 2816,
      .vocabulary = 32000,
      .T = 4096,
      .B = 16,
      .accumulate = 8,
      .steps = 100000,
      .warmup_steps = 1000,
      .learning_rate = 3e-4,
      .initializer_range = 0.006,
      .packing = "concatenate",
      .prompt = "The first thing to know about the sun is"}},
    {"the paper's 1.8B run: 104 billion tokens, for machines that can",
     4,
     {.preset = "paper-1.8b",
      .layers = 32,
      .heads = 32,
      .width = 2048,
      .ffn_width = 5632,
      .vocabulary = 32000,
      .T = 4096,
      .B = 8,
      .accumulate = 16,
      .steps = 200000,
      .warmup_steps = 2000,
      .learning_rate = 2e-4,
      .initializer_range = 0.006,
      .packing = "concatenate",
      .prompt = "The first thing to know about the sun is"}},
};
enum { N_PRESETS = sizeof presets / sizeof *presets };

/* What a preset leaves out. */
static study_settings completed(study_settings s) {
    s.attention = "softmax,softpick";
    s.tokenizer = "";
    s.schedule = "cosine";
    s.device = "cpu";
    s.dtype = "auto";
    s.measures = "all";
    s.tasks = "";
    s.task_data = ".";
    if (!s.packing) s.packing = "bos";
    if (!s.accumulate) s.accumulate = 1;
    if (s.validation_fraction <= 0) s.validation_fraction = 0.05;
    s.adam_eps = 1e-15;
    s.samples = 32;
    s.seed = 1;
    return s;
}

const study_settings *study_preset(const char *name) {
    static study_settings found;
    for (int i = 0; i < N_PRESETS; i++) {
        if (strcmp(presets[i].settings.preset, name) != 0) continue;
        found = completed(presets[i].settings);
        return &found;
    }
    return NULL;
}

int64_t study_preset_bench_batch(const char *name) {
    for (int i = 0; i < N_PRESETS; i++)
        if (strcmp(presets[i].settings.preset, name) == 0) return presets[i].bench_B;
    return 0;
}

bool study_preset_at(int i, const char **name, const char **help) {
    if (i < 0 || i >= N_PRESETS) return false;
    *name = presets[i].settings.preset;
    *help = presets[i].help;
    return true;
}

json_t *study_settings_json(const study_settings *settings) {
    json_t *root = json_object();
    json_object_set_new(root, "preset", json_string(settings->preset));
    for (int i = 0; i < study_table_rows; i++) {
        const void *field = (const char *)settings + study_table[i].offset;
        json_t *value = NULL;
        switch (study_table[i].kind) {
        case STUDY_COUNT: value = json_integer(*(const int64_t *)field); break;
        case STUDY_NUMBER: value = json_real(*(const double *)field); break;
        case STUDY_WORD: value = json_string(*(const char *const *)field); break;
        case STUDY_SWITCH: value = json_boolean(*(const bool *)field); break;
        }
        json_object_set_new(root, study_table[i].name, value);
    }
    return root;
}

bool study_settings_differ(char *out, int64_t out_bytes, const json_t *there, const json_t *here) {
    for (int i = 0; i < study_table_rows; i++) {
        const char *name = study_table[i].name;
        json_t *old = json_object_get(there, name), *new = json_object_get(here, name);
        if (study_table[i].kind == STUDY_SWITCH || json_equal(old, new)) continue;
        char *old_text = old ? json_dumps(old, JSON_ENCODE_ANY) : NULL;
        char *new_text = json_dumps(new, JSON_ENCODE_ANY);
        snprintf(out, (size_t)out_bytes, "%s is %s there and %s here", name, old_text ? old_text : "missing",
                 new_text ? new_text : "missing");
        free(old_text);
        free(new_text);
        return true;
    }
    return false;
}
