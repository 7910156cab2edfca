/* Documents out of data files.
 *
 * A line is an object; an official distribution may be one list of objects instead.  Labels may stand in a file of
 * their own, line by line.  A document is turned into a question by the first of the task's layouts that fits it. */
#define _GNU_SOURCE
#include "evaluate/document.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "evaluate/prompt.h"
#include "text/stream.h"
#include "text/utf8.h"

static const int64_t file_bytes_max = (int64_t)1 << 31; /* decompressed: more is no set of questions */

/* ---- lists ---- */

sp_status sp_strings_add(sp_strings *strings, const char *text, int64_t n_bytes) {
    char **items = realloc(strings->items, (size_t)(strings->n + 1) * sizeof *items);
    SP_REQUIRE(items, SP_OUT_OF_MEMORY, "no memory for texts");
    strings->items = items;
    items[strings->n] = strndup(text, (size_t)n_bytes);
    SP_REQUIRE(items[strings->n], SP_OUT_OF_MEMORY, "no memory for texts");
    strings->n++;
    return SP_OK;
}

static void clear_strings(sp_strings *strings) {
    for (int64_t i = 0; i < strings->n; i++) free(strings->items[i]);
    free(strings->items);
    *strings = (sp_strings){0};
}

sp_status sp_documents_add(sp_documents *documents, sp_document **added) {
    if (documents->n == documents->capacity) {
        int64_t capacity = documents->capacity ? 2 * documents->capacity : 64;
        sp_document *items = realloc(documents->items, (size_t)capacity * sizeof *items);
        SP_REQUIRE(items, SP_OUT_OF_MEMORY, "no memory for %" PRId64 " documents", capacity);
        documents->items = items;
        documents->capacity = capacity;
    }
    *added = &documents->items[documents->n++];
    **added = (sp_document){0};
    return SP_OK;
}

static void clear_question(sp_document *document) {
    clear_strings(&document->contexts);
    clear_strings(&document->continuations);
}

void sp_documents_clear(sp_documents *documents) {
    for (int64_t i = 0; i < documents->n; i++) {
        json_decref(documents->items[i].fields);
        clear_question(&documents->items[i]);
    }
    free(documents->items);
    *documents = (sp_documents){0};
}

/* ---- layouts ---- */

/* The place of the label, or the number that it is. */
static sp_status find_gold(int64_t *gold, const sp_task_layout *layout, const json_t *fields) {
    *gold = 0;
    if (!layout->gold) return SP_OK;
    char *label;
    SP_TRY(sp_prompt_render(&label, layout->gold, fields, NULL));
    sp_strings labels = {0};
    sp_status status = SP_OK;
    if (layout->labels[0]) {
        SP_TRY_OR_DONE(sp_prompt_expand(&labels, layout->labels, fields, NULL));
        while (*gold < labels.n && strcmp(labels.items[*gold], label) != 0) ++*gold;
        SP_REQUIRE_OR_DONE(*gold < labels.n, SP_BAD_FILE, "its answer \"%.40s\" is not among the labels", label);
    } else {
        char *end;
        errno = 0;
        *gold = strtoll(label, &end, 10);
        SP_REQUIRE_OR_DONE(end != label && !*end && errno == 0, SP_BAD_FILE, "its answer \"%.40s\" is not a number",
                           label);
    }
done:
    clear_strings(&labels);
    free(label);
    return status;
}

static sp_status apply_layout(sp_document *document, const sp_task_layout *layout) {
    const json_t *fields = document->fields;
    SP_TRY(sp_prompt_expand(&document->contexts, layout->contexts, fields, layout->filter));
    SP_TRY(sp_prompt_expand(&document->continuations, layout->continuations, fields, layout->filter));
    int64_t n = document->contexts.n, m = document->continuations.n;
    SP_REQUIRE(m > 0 && (n == 1 || m == 1), SP_BAD_FILE, "%" PRId64 " contexts with %" PRId64 " continuations", n, m);
    document->n_answers = n > m ? n : m;
    SP_TRY(find_gold(&document->gold, layout, fields));
    SP_REQUIRE(document->gold >= 0 && document->gold < document->n_answers, SP_BAD_FILE,
               "its answer is %" PRId64 ", of %" PRId64 " choices", document->gold, document->n_answers);
    return SP_OK;
}

/* Fills in the question.  When no layout fits, what the first one lacks is told. */
static sp_status make_question(sp_document *document, const sp_task *task, const char *path) {
    char problem[512] = "";
    for (int i = 0; i < SP_TASK_LAYOUTS && task->layouts[i].continuations[0]; i++) {
        sp_status status = apply_layout(document, &task->layouts[i]);
        if (status == SP_OK || status == SP_OUT_OF_MEMORY) return status;
        if (i == 0) snprintf(problem, sizeof problem, "%s", sp_last_message());
        clear_question(document);
    }
    return sp_fail(SP_BAD_FILE, "%s, line %" PRId64 ": not a document of %s: %s", path, document->line, task->name,
                   problem);
}

/* ---- files ---- */

sp_status sp_data_read(char **text, int64_t *n_bytes, const char *path) {
    *text = NULL;
    *n_bytes = 0;
    sp_stream *stream;
    SP_TRY(sp_stream_open(&stream, path));
    sp_status status = SP_OK;
    char *buffer = NULL;
    for (int64_t n = 0, capacity = 0;; *n_bytes += n) {
        if (*n_bytes + 1 >= capacity) {
            capacity = capacity ? 2 * capacity : 1 << 16;
            SP_REQUIRE_OR_DONE(capacity <= 2 * file_bytes_max, SP_BAD_FILE, "%s: more than %" PRId64 " bytes", path,
                               file_bytes_max);
            char *larger = realloc(buffer, (size_t)capacity);
            SP_REQUIRE_OR_DONE(larger, SP_OUT_OF_MEMORY, "%s: no memory to read it", path);
            buffer = larger;
        }
        SP_TRY_OR_DONE(sp_stream_read(stream, buffer + *n_bytes, capacity - 1 - *n_bytes, &n));
        if (n == 0) break;
    }
    buffer[*n_bytes] = 0;
    *text = buffer;
    buffer = NULL;
done:
    free(buffer);
    sp_stream_close(stream);
    return status;
}

sp_status sp_data_read_text(char **text, int64_t *n_bytes, const char *path) {
    SP_TRY(sp_data_read(text, n_bytes, path));
    int64_t valid = sp_utf8_prefix(*text, *n_bytes), line = 1;
    if (valid == *n_bytes) return SP_OK;
    for (int64_t i = 0; i < valid; i++) line += (*text)[i] == '\n';
    const char *what = (*text)[valid] ? "a byte that is not UTF-8" : "a zero byte";
    free(*text);
    *text = NULL;
    return sp_fail(SP_BAD_FILE, "%s, line %" PRId64 ": %s: this is not text", path, line, what);
}

/* Takes `fields` over. */
static sp_status add_document(sp_documents *documents, const char *path, int64_t line, json_t *fields) {
    sp_document *document = NULL;
    sp_status status = sp_documents_add(documents, &document);
    if (!document) {
        json_decref(fields);
        return status;
    }
    document->fields = fields;
    document->line = line;
    SP_REQUIRE(json_is_object(fields), SP_BAD_FILE, "%s, line %" PRId64 ": not a JSON object", path, line);
    return SP_OK;
}

static bool is_blank(const char *text, int64_t n_bytes) {
    int64_t at = 0;
    while (at < n_bytes && strchr(" \t\r", text[at]) && text[at]) at++;
    return at == n_bytes;
}

static sp_status read_lines(sp_documents *documents, const char *path, const char *text, int64_t n_bytes) {
    int64_t line = 0;
    for (int64_t at = 0, n; at < n_bytes; at += n + 1) {
        const char *end = memchr(text + at, '\n', (size_t)(n_bytes - at));
        n = end ? end - text - at : n_bytes - at;
        line++;
        if (is_blank(text + at, n)) continue;
        json_error_t error;
        json_t *fields = json_loadb(text + at, (size_t)n, JSON_REJECT_DUPLICATES, &error);
        SP_REQUIRE(fields, SP_BAD_FILE, "%s, line %" PRId64 ": not JSON: %s", path, line, error.text);
        SP_TRY(add_document(documents, path, line, fields));
    }
    return SP_OK;
}

/* A list: its elements count as lines. */
static sp_status read_list(sp_documents *documents, const char *path, const char *text, int64_t n_bytes) {
    json_t *list, *fields;
    SP_TRY(sp_json_parse(&list, text, n_bytes, path));
    sp_status status = SP_OK;
    size_t i;
    json_array_foreach(list, i, fields) {
        SP_TRY_OR_DONE(add_document(documents, path, (int64_t)i + 1, json_incref(fields)));
    }
done:
    json_decref(list);
    return status;
}

/* Lines of `text` as field "label" of the documents. */
static sp_status set_labels(sp_documents *documents, const char *path, char *text) {
    int64_t n = 0;
    char *rest = text;
    for (char *line = strsep(&rest, "\n"); line; line = strsep(&rest, "\n")) {
        line[strcspn(line, " \t\r")] = 0;
        if (!*line) continue;
        SP_REQUIRE(n < documents->n, SP_BAD_FILE, "%s: more labels than the %" PRId64 " documents", path, documents->n);
        json_t *label = json_string(line);
        SP_REQUIRE(label, SP_BAD_FILE, "%s, line %" PRId64 ": not text", path, n + 1);
        json_object_set_new(documents->items[n++].fields, "label", label);
    }
    SP_REQUIRE(n == documents->n, SP_BAD_FILE, "%s: %" PRId64 " labels for %" PRId64 " documents", path, n,
               documents->n);
    return SP_OK;
}

static sp_status read_labels(sp_documents *documents, const sp_task *task, const char *name, const char *data) {
    char path[4096];
    sp_task_file file[2] = {{name, NULL}};
    SP_TRY(sp_task_file_find(path, NULL, task, file, data));
    char *text;
    int64_t n_bytes;
    SP_TRY(sp_data_read(&text, &n_bytes, path));
    sp_status status = set_labels(documents, path, text);
    free(text);
    return status;
}

sp_status sp_documents_read(sp_documents *documents, const sp_task *task, const sp_task_file *file, const char *path,
                            const char *data) {
    if (task->kind->read) {
        SP_TRY(task->kind->read(documents, task, path));
        SP_REQUIRE(documents->n > 0, SP_BAD_FILE, "%s: no documents in it", path);
        return SP_OK;
    }
    char *text;
    int64_t n_bytes;
    SP_TRY(sp_data_read(&text, &n_bytes, path));
    sp_status status = SP_OK;
    bool is_list = text[strspn(text, " \t\r\n")] == '[';
    SP_TRY_OR_DONE((is_list ? read_list : read_lines)(documents, path, text, n_bytes));
    bool labelled = documents->n > 0 && json_object_get(documents->items[0].fields, "label");
    if (file->labels && !labelled) SP_TRY_OR_DONE(read_labels(documents, task, file->labels, data));
    for (int64_t i = 0; i < documents->n; i++) SP_TRY_OR_DONE(make_question(&documents->items[i], task, path));
    SP_REQUIRE_OR_DONE(documents->n > 0, SP_BAD_FILE, "%s: no documents in it", path);
done:
    free(text);
    return status;
}
