/* Answers of a run that was interrupted. */
#define _GNU_SOURCE
#include "evaluate/unfinished.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/file.h"

static sp_status path_of(char path[4096], const char *folder, const char *task) {
    char name[512];
    snprintf(name, sizeof name, "unfinished_%s.jsonl", task);
    return sp_path_join(path, 4096, folder, name);
}

/* The answers of document i, if the line holds them. */
static bool parse_answers(const char *line, int64_t n_bytes, int64_t i, int64_t n_answers, sp_answer *answers) {
    json_t *object = json_loadb(line, (size_t)n_bytes, 0, NULL), *list = NULL;
    json_int_t id = -1;
    bool fits = object && json_unpack(object, "{s:I, s:o}", "doc_id", &id, "answers", &list) == 0 && id == i &&
                (int64_t)json_array_size(list) == n_answers;
    for (int64_t a = 0; fits && a < n_answers; a++) {
        int greedy;
        fits = json_unpack(json_array_get(list, (size_t)a), "[F, b]", &answers[a].sum, &greedy) == 0;
        answers[a].greedy = greedy;
    }
    json_decref(object);
    return fits;
}

static bool has_key(const char *line, int64_t n_bytes, const char *key) {
    json_t *object = json_loadb(line, (size_t)n_bytes, 0, NULL);
    const char *found = json_string_value(json_object_get(object, "key"));
    bool same = found && strcmp(found, key) == 0;
    json_decref(object);
    return same;
}

/* Reads the whole lines that are of use; returns their bytes. */
static int64_t read_answers(const char *text, int64_t n_bytes, const char *key, const sp_documents *documents,
                            int64_t n, sp_answer *answers, int64_t *n_done) {
    int64_t kept = 0;
    for (int64_t line = 0;; line++) {
        const char *end = kept < n_bytes ? memchr(text + kept, '\n', (size_t)(n_bytes - kept)) : NULL;
        if (!end) return kept;
        int64_t length = end - text - kept;
        if (line == 0 && !has_key(text, length, key)) return 0;
        if (line > 0) {
            if (*n_done == n) return kept;
            int64_t n_answers = documents->items[*n_done].n_answers;
            if (!parse_answers(text + kept, length, *n_done, n_answers, answers)) return kept;
            answers += n_answers;
            ++*n_done;
        }
        kept += length + 1;
    }
}

sp_status sp_unfinished_open(sp_unfinished *unfinished, const char *folder, const char *task, const char *key,
                             bool resume, const sp_documents *documents, int64_t n, sp_answer *answers,
                             int64_t *n_done) {
    *unfinished = (sp_unfinished){0};
    *n_done = 0;
    SP_TRY(path_of(unfinished->path, folder, task));
    const char *path = unfinished->path;
    sp_status status = SP_OK;
    char *text = NULL;
    int64_t n_bytes = 0, kept = 0;
    unfinished->file = fopen(path, "abe");
    SP_REQUIRE_OR_DONE(unfinished->file, SP_IO, "%s: %s", path, strerror(errno));
    SP_REQUIRE_OR_DONE(flock(fileno(unfinished->file), LOCK_EX | LOCK_NB) == 0, SP_IO,
                       "%s: another process is evaluating into this folder", path);
    if (resume) {
        SP_TRY_OR_DONE(sp_file_read(path, &text, &n_bytes));
        kept = read_answers(text, n_bytes, key, documents, n, answers, n_done);
    }
    SP_REQUIRE_OR_DONE(ftruncate(fileno(unfinished->file), kept) == 0, SP_IO, "%s: %s", path, strerror(errno));
    if (kept == 0) {
        bool written = fprintf(unfinished->file, "{\"key\":\"%s\"}\n", key) > 0;
        SP_REQUIRE_OR_DONE(written, SP_IO, "%s: %s", path, strerror(errno));
    }
done:
    free(text);
    if (status != SP_OK) sp_unfinished_close(unfinished);
    return status;
}

sp_status sp_unfinished_add(sp_unfinished *unfinished, int64_t i, int64_t n_answers, const sp_answer *answers) {
    bool written = fprintf(unfinished->file, "{\"doc_id\":%" PRId64 ",\"answers\":[", i) > 0;
    for (int64_t a = 0; written && a < n_answers; a++)
        written = fprintf(unfinished->file, "%s[%.17e,%s]", a ? "," : "", answers[a].sum,
                          answers[a].greedy ? "true" : "false") > 0;
    written = written && fputs("]}\n", unfinished->file) >= 0;
    SP_REQUIRE(written, SP_IO, "%s: %s", unfinished->path, strerror(errno));
    return SP_OK;
}

sp_status sp_unfinished_flush(sp_unfinished *unfinished) {
    SP_REQUIRE(fflush(unfinished->file) == 0, SP_IO, "%s: %s", unfinished->path, strerror(errno));
    return SP_OK;
}

void sp_unfinished_close(sp_unfinished *unfinished) {
    if (unfinished->file) fclose(unfinished->file);
    unfinished->file = NULL;
}

void sp_unfinished_remove(const char *folder, const char *task) {
    char path[4096];
    if (path_of(path, folder, task) == SP_OK) unlink(path);
}
