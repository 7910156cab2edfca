/* Which files a corpus consists of: the list of paths with folders replaced by what is in them. */
#define _GNU_SOURCE
#include "text/corpus.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"

enum { DEPTH_MAX = 64 }; /* folders in folders: links that lead in circles end here */

static const struct {
    const char *suffix;
    sp_corpus_kind kind;
} readable[] = {
    {".txt", SP_CORPUS_KIND_TEXT},     {".jsonl", SP_CORPUS_KIND_JSON_LINES},
    {".txt.gz", SP_CORPUS_KIND_TEXT},  {".jsonl.gz", SP_CORPUS_KIND_JSON_LINES},
    {".txt.zst", SP_CORPUS_KIND_TEXT}, {".jsonl.zst", SP_CORPUS_KIND_JSON_LINES},
};
enum { N_READABLE = sizeof readable / sizeof *readable };

/* Row of `readable`, or -1. */
static int find_readable(const char *path) {
    size_t n = strlen(path);
    for (int i = 0; i < N_READABLE; i++) {
        size_t n_suffix = strlen(readable[i].suffix);
        if (n > n_suffix && strcmp(path + n - n_suffix, readable[i].suffix) == 0) return i;
    }
    return -1;
}

static sp_status add_file(sp_corpus_files *files, const char *path) {
    if (files->n == files->capacity) {
        int64_t capacity = files->capacity ? 2 * files->capacity : 16;
        sp_corpus_file *items = realloc(files->items, (size_t)capacity * sizeof *items);
        SP_REQUIRE(items, SP_OUT_OF_MEMORY, "%s: no memory for the list of files", path);
        files->items = items;
        files->capacity = capacity;
    }
    int row = find_readable(path);
    sp_corpus_file file = {.path = strdup(path), .kind_known = strcmp(path, "-") != 0};
    SP_REQUIRE(file.path, SP_OUT_OF_MEMORY, "%s: no memory for the list of files", path);
    file.kind = row >= 0 ? readable[row].kind : SP_CORPUS_KIND_TEXT;
    files->items[files->n++] = file;
    return SP_OK;
}

static sp_status add_folder(sp_corpus_files *files, const char *folder, int depth) {
    SP_REQUIRE(depth < DEPTH_MAX, SP_IO, "%s: more than %d folders deep", folder, DEPTH_MAX);
    DIR *entries = opendir(folder);
    SP_REQUIRE(entries, SP_IO, "%s: %s", folder, strerror(errno));
    sp_status status = SP_OK;
    for (struct dirent *entry; (entry = readdir(entries));) {
        char path[4096];
        struct stat facts;
        if (entry->d_name[0] == '.') continue;
        SP_TRY_OR_DONE(sp_path_join(path, sizeof path, folder, entry->d_name));
        SP_REQUIRE_OR_DONE(stat(path, &facts) == 0, SP_IO, "%s: %s", path, strerror(errno));
        if (S_ISDIR(facts.st_mode)) {
            SP_TRY_OR_DONE(add_folder(files, path, depth + 1));
        } else if (find_readable(path) >= 0) {
            SP_TRY_OR_DONE(add_file(files, path));
        }
    }
done:
    closedir(entries);
    return status;
}

static int compare_paths(const void *a, const void *b) {
    return strcmp(((const sp_corpus_file *)a)->path, ((const sp_corpus_file *)b)->path);
}

static sp_status add_path(sp_corpus_files *files, const char *path) {
    if (strcmp(path, "-") == 0 || !sp_folder_exists(path)) return add_file(files, path);
    int64_t first = files->n;
    SP_TRY(add_folder(files, path, 0));
    SP_REQUIRE(files->n > first, SP_IO, "%s: no .txt or .jsonl file (or .gz, .zst of one) in this folder", path);
    qsort(files->items + first, (size_t)(files->n - first), sizeof *files->items, compare_paths);
    return SP_OK;
}

sp_status sp_corpus_files_find(sp_corpus_files *files, const char *const *paths, int64_t n_paths) {
    *files = (sp_corpus_files){0};
    SP_REQUIRE(n_paths > 0, SP_BAD_ARGUMENT, "no text was named");
    for (int64_t i = 0; i < n_paths; i++) {
        sp_status status = add_path(files, paths[i]);
        if (status != SP_OK) {
            sp_corpus_files_clear(files);
            return status;
        }
    }
    return SP_OK;
}

void sp_corpus_files_clear(sp_corpus_files *files) {
    for (int64_t i = 0; i < files->n; i++) free(files->items[i].path);
    free(files->items);
    *files = (sp_corpus_files){0};
}
