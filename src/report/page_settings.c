/* What was run: one table of the settings shown, in groups. */
#include "report/page.h"

#include <math.h>
#include <string.h>

enum shape { TEXT, TEXTS, COUNT, PLAIN };

typedef struct setting {
    const char *label;  /* NULL: `object` is the heading of a new group */
    const char *object; /* where in the document, by a path with dots */
    const char *key;
    enum shape shape;
    const char *after; /* the unit */
} setting;

static const setting settings[] = {
    {.object = "Text"},
    {"text", "settings", "text", TEXTS, ""},
    {"tokenizer", "settings.tokenizer", "kind", TEXT, ""},
    {"vocabulary", "settings.tokenizer", "vocabulary", COUNT, ""},
    {"training", "settings.tokens", "train", COUNT, " tokens"},
    {"validation", "settings.tokens", "validation", COUNT, " tokens"},
    {"documents", "settings.tokens", "documents", COUNT, ""},
    {.object = "Model"},
    {"parameters", "model", "parameters", COUNT, ""},
    {"layers", "model", "layers", COUNT, ""},
    {"heads", "model", "heads", COUNT, ""},
    {"key/value heads", "model", "kv_heads", COUNT, ""},
    {"width", "model", "width", COUNT, ""},
    {"head width", "model", "head_width", COUNT, ""},
    {"feed-forward", "model", "ffn_width", COUNT, ""},
    {.object = "Training"},
    {"steps", "settings", "steps", COUNT, ""},
    {"sequence T", "settings", "T", COUNT, " tokens"},
    {"batch B", "settings", "B", COUNT, " sequences"},
    {"batches per step", "settings", "accumulate", COUNT, ""},
    {"packing", "settings", "packing", TEXT, ""},
    {"dtype", "settings", "dtype", TEXT, ""},
    {"learning rate", "settings", "learning_rate", PLAIN, ""},
    {"schedule", "settings", "schedule", TEXT, ""},
    {"warm-up", "settings", "warmup_steps", COUNT, " steps"},
    {"weight decay", "settings", "weight_decay", PLAIN, ""},
    {"time limit", "settings", "minutes", PLAIN, " min"},
    {"seed", "settings", "seed", PLAIN, ""},
    {.object = "Machine"},
    {"CPU", "machine", "cpu", TEXT, ""},
    {"cores", "machine", "cores", COUNT, ""},
    {"threads", "machine", "threads", COUNT, ""},
    {"computed by", "machine", "device_name", TEXT, ""},
    {"attention", "machine", "attention_variant", TEXT, ""},
    {"matrix products", "machine", "matmul_variant", TEXT, ""},
    {"softpick", "softpick", "version", TEXT, ""},
    {"commit", "softpick", "commit", TEXT, ""},
};
enum { N_SETTINGS = sizeof settings / sizeof *settings };

static const json_t *find_object(const json_t *root, const char *path) {
    char part[32];
    while (*path) {
        size_t n = strcspn(path, ".");
        snprintf(part, sizeof part, "%.*s", (int)n, path);
        root = sp_results_part(root, part);
        path += path[n] ? n + 1 : n;
    }
    return root;
}

static void write_texts(FILE *page, const json_t *list) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (i > 0) fputs(", ", page);
        sp_html_text(page, json_string_value(json_array_get(list, i)));
    }
}

/* Plain settings are given numbers (0.001, a seed): all their digits count. */
static void write_setting_value(FILE *page, const setting *row, const json_t *value) {
    switch (row->shape) {
    case TEXT: sp_html_text(page, json_string_value(value)); break;
    case TEXTS: write_texts(page, value); break;
    case COUNT: fputs(sp_html_number_of(json_number_value(value), SP_HTML_UNIT_COUNT).text, page); break;
    case PLAIN:
        if (json_is_integer(value))
            fprintf(page, "%lld", (long long)json_integer_value(value));
        else
            fprintf(page, "%.6g", json_real_value(value));
        break;
    }
    fputs(row->after, page);
}

static void write_setting(FILE *page, const json_t *root, const setting *row) {
    const json_t *value = sp_results_part(find_object(root, row->object), row->key);
    if (!value) return;
    fprintf(page, "<div><dt>%s</dt><dd>", row->label);
    write_setting_value(page, row, value);
    fputs("</dd></div>\n", page);
}

void sp_page_settings(FILE *page, const sp_results *results) {
    fputs("<div class=\"settings\">\n", page);
    for (int i = 0; i < N_SETTINGS; i++) {
        const setting *row = &settings[i];
        if (row->label) {
            write_setting(page, results->root, row);
            continue;
        }
        fprintf(page, "%s<div><h3>%s</h3><dl>\n", i > 0 ? "</dl></div>\n" : "", row->object);
    }
    fputs("</dl></div>\n</div>\n", page);
    const char *command = sp_results_string(json_object_get(results->root, "settings"), "command");
    if (!command) return;
    fputs("<pre class=\"command\"><code>", page);
    sp_html_text(page, command);
    fputs("</code></pre>\n", page);
}
