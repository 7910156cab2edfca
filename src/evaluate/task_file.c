/* Task files: one JSON object whose keys are the members of sp_task, read by the table below. */
#define _GNU_SOURCE
#include "evaluate/task_file.h"

#include <stdlib.h>
#include <string.h>

#include "evaluate/prompt.h"

/* ---- values ---- */

static sp_status read_text(const char **out, const json_t *value, const char *path, const char *key) {
    *out = json_string_value(value);
    SP_REQUIRE(*out, SP_BAD_FILE, "%s: \"%s\" is not a text", path, key);
    return SP_OK;
}

/* One text or a list of them. */
static sp_status read_texts(const char **out, int64_t n_max, const json_t *value, const char *path, const char *key) {
    if (json_is_string(value)) return read_text(out, value, path, key);
    SP_REQUIRE(json_is_array(value), SP_BAD_FILE, "%s: \"%s\" is neither a text nor a list of texts", path, key);
    size_t i;
    const json_t *element;
    SP_REQUIRE((int64_t)json_array_size(value) <= n_max, SP_BAD_FILE, "%s: \"%s\" holds more than %lld texts", path,
               key, (long long)n_max);
    json_array_foreach(value, i, element) SP_TRY(read_text(&out[i], element, path, key));
    return SP_OK;
}

/* Keys of every kind.  All are texts, or lists of at most n_max texts. */
static const struct {
    const char *key;
    size_t offset; /* in sp_task, of a const char * or an array of n_max + 1 of them */
    int64_t n_max;
    bool needed;
} keys[] = {
    {"name", offsetof(sp_task, name), 1, true},
    {"data", offsetof(sp_task, files[0].path), 1, true},
    {"data_labels", offsetof(sp_task, files[0].labels), 1, false},
    {"examples", offsetof(sp_task, example_files[0].path), 1, false},
    {"version", offsetof(sp_task, version), 1, false},
    {"about", offsetof(sp_task, about), 1, false},
    {"source", offsetof(sp_task, source), 1, false},
    {"gold", offsetof(sp_task, layouts[0].gold), 1, false},
    {"labels", offsetof(sp_task, layouts[0].labels), SP_TASK_TEMPLATES - 1, false},
    {"delimiter", offsetof(sp_task, delimiter), 1, false},
    {"filter", offsetof(sp_task, layouts[0].filter), 1, false},
    {"metrics", offsetof(sp_task, metrics), SP_TASK_METRICS, false},
};
enum { N_KEYS = sizeof keys / sizeof *keys };

/* ---- the whole ---- */

/* Keys that the kind names itself; true if `key` is one. */
static sp_status read_templates(bool *known, sp_task *task, const char *key, const json_t *value, const char *path) {
    const char *context = task->kind->context_key, *continuation = task->kind->continuation_key;
    sp_task_layout *layout = &task->layouts[0];
    *known = true;
    if (context && strcmp(key, context) == 0)
        return read_texts(layout->contexts, SP_TASK_TEMPLATES - 1, value, path, key);
    if (continuation && strcmp(key, continuation) == 0)
        return read_texts(layout->continuations, SP_TASK_TEMPLATES - 1, value, path, key);
    *known = false;
    return SP_OK;
}

static bool is_key(const char *key) {
    if (strcmp(key, "kind") == 0) return true;
    for (int i = 0; i < N_KEYS; i++)
        if (strcmp(keys[i].key, key) == 0) return true;
    return false;
}

static sp_status read_kind(sp_task *task, const json_t *object, const char *path) {
    const json_t *value = json_object_get(object, "kind");
    SP_REQUIRE(value, SP_BAD_FILE, "%s: \"kind\" is missing", path);
    const char *name;
    SP_TRY(read_text(&name, value, path, "kind"));
    task->kind = sp_task_kind_find(name);
    SP_REQUIRE(task->kind && !task->kind->run, SP_BAD_FILE, "%s: there is no kind \"%s\" of tasks in files", path,
               name);
    return SP_OK;
}

static sp_status read_keys(sp_task *task, json_t *object, const char *path) {
    SP_TRY(read_kind(task, object, path));
    for (int i = 0; i < N_KEYS; i++) {
        const json_t *value = json_object_get(object, keys[i].key);
        const char **texts = (const char **)((char *)task + keys[i].offset);
        SP_REQUIRE(value || !keys[i].needed, SP_BAD_FILE, "%s: \"%s\" is missing", path, keys[i].key);
        if (value && keys[i].n_max == 1) SP_TRY(read_text(texts, value, path, keys[i].key));
        if (value && keys[i].n_max > 1) SP_TRY(read_texts(texts, keys[i].n_max, value, path, keys[i].key));
    }
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) {
        bool known;
        SP_TRY(read_templates(&known, task, key, value, path));
        SP_REQUIRE(known || is_key(key), SP_BAD_FILE, "%s: \"%s\" is not a key of a task of kind %s", path, key,
                   task->kind->name);
    }
    return SP_OK;
}

static sp_status check_metrics(sp_task *task, const char *path) {
    const char *const *offered = task->kind->metrics;
    if (!task->metrics[0]) memcpy(task->metrics, offered, sizeof task->metrics);
    for (int m = 0; task->metrics[m]; m++) {
        int i = 0;
        while (offered[i] && strcmp(offered[i], task->metrics[m]) != 0) i++;
        SP_REQUIRE(offered[i], SP_BAD_FILE, "%s: a task of kind %s has no metric \"%s\"", path, task->kind->name,
                   task->metrics[m]);
    }
    return SP_OK;
}

/* It becomes a part of file names. */
static sp_status check_name(const char *name, const char *path) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    size_t n = strlen(name);
    SP_REQUIRE(n >= 1 && n <= 100 && strspn(name, allowed) == n, SP_BAD_FILE,
               "%s: the name \"%.100s\" is not made of 1 to 100 letters, digits, _ and -", path, name);
    return SP_OK;
}

static sp_status check_task(sp_task *task, const char *path) {
    const sp_task_kind *kind = task->kind;
    const sp_task_layout *layout = &task->layouts[0];
    SP_TRY(check_name(task->name, path));
    SP_REQUIRE(!layout->filter || sp_prompt_filter_exists(layout->filter), SP_BAD_FILE,
               "%s: there is no filter \"%s\" for whole texts", path, layout->filter);
    SP_REQUIRE(!kind->context_key || layout->contexts[0], SP_BAD_FILE, "%s: \"%s\" is missing", path,
               kind->context_key);
    SP_REQUIRE(!kind->continuation_key || layout->continuations[0], SP_BAD_FILE, "%s: \"%s\" is missing", path,
               kind->continuation_key);
    json_t *version = json_loads(task->version, JSON_DECODE_ANY, NULL);
    json_decref(version);
    SP_REQUIRE(version, SP_BAD_FILE, "%s: the version \"%s\" is not a number", path, task->version);
    return check_metrics(task, path);
}

sp_status sp_task_file_open(sp_task_file_task **out, const char *path) {
    *out = NULL;
    sp_task_file_task *file = calloc(1, sizeof *file);
    SP_REQUIRE(file, SP_OUT_OF_MEMORY, "%s: no memory for a task", path);
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_json_read(&file->description, path));
    SP_REQUIRE_OR_DONE(json_is_object(file->description), SP_BAD_FILE, "%s: not a JSON object", path);
    const char *slash = strrchr(path, '/');
    snprintf(file->folder, sizeof file->folder, "%.*s", slash ? (int)(slash + 1 - path) : 1, slash ? path : ".");
    file->task = (sp_task){.version = "1", .about = "", .folder = file->folder};
    SP_TRY_OR_DONE(read_keys(&file->task, file->description, path));
    SP_TRY_OR_DONE(check_task(&file->task, path));
    *out = file;
    file = NULL;
done:
    sp_task_file_close(file);
    return status;
}

void sp_task_file_close(sp_task_file_task *task) {
    if (!task) return;
    json_decref(task->description);
    free(task);
}
