/* Finding tasks and their data files. */
#define _GNU_SOURCE
#include "evaluate/task.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

/* "a, b or c" of the names of a list. */
static void list_names(char *out, size_t out_bytes, const char *(*name)(int64_t i)) {
    size_t used = 0;
    *out = 0;
    for (int64_t i = 0; name(i) && used < out_bytes; i++)
        used += (size_t)snprintf(out + used, out_bytes - used, "%s%s", i ? ", " : "", name(i));
}

static const char *task_name(int64_t i) {
    const sp_task *task = sp_task_at(i);
    return task ? task->name : NULL;
}

sp_status sp_task_find(const sp_task **out, const char *name) {
    *out = NULL;
    for (int64_t i = 0; sp_task_at(i); i++)
        if (strcmp(sp_task_at(i)->name, name) == 0) {
            *out = sp_task_at(i);
            return SP_OK;
        }
    char names[512];
    list_names(names, sizeof names, task_name);
    return sp_fail(SP_BAD_ARGUMENT, "\"%s\" is no task; there are %s", name, names);
}

int64_t sp_task_n_metrics(const sp_task *task) {
    int64_t n = 0;
    while (task->metrics[n]) n++;
    return n;
}

/* The names of a list of files, ", " between them. */
static void list_files(char *out, size_t out_bytes, const sp_task_file *files) {
    size_t used = 0;
    *out = 0;
    for (int i = 0; i < SP_TASK_FILES && files[i].path && used < out_bytes; i++)
        used += (size_t)snprintf(out + used, out_bytes - used, "%s%s", i ? ", " : "", files[i].path);
}

sp_status sp_task_file_find(char path[4096], const sp_task_file **file, const sp_task *task, const sp_task_file *files,
                            const char *folder) {
    static const char *const suffixes[] = {"", ".zst", ".gz"};
    for (int i = 0; i < SP_TASK_FILES && files[i].path; i++)
        for (size_t s = 0; s < sizeof suffixes / sizeof *suffixes; s++) {
            char name[4096];
            snprintf(name, sizeof name, "%s%s", files[i].path, suffixes[s]);
            SP_TRY(sp_path_join(path, 4096, folder, name));
            if (!sp_file_exists(path)) continue;
            if (file) *file = &files[i];
            return SP_OK;
        }
    char names[512];
    list_files(names, sizeof names, files);
    return sp_fail(SP_IO, "%s: %s looks for %s (or .zst, .gz) there; from %s", folder, task->name, names,
                   task->source ? task->source : "the task file's author");
}

bool sp_evaluate_task_at(int64_t i, const char *data, sp_evaluate_task *out) {
    const sp_task *task = sp_task_at(i);
    if (!task) return false;
    *out = (sp_evaluate_task){.name = task->name, .about = task->about, .source = task->source};
    list_files(out->files, sizeof out->files, task->files);
    if (!data || !task->files[0].path || sp_task_file_find(out->found, NULL, task, task->files, data) != SP_OK)
        out->found[0] = 0;
    return true;
}
