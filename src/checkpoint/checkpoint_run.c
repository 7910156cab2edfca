/* The checkpoints of a run: folders step-XXXXXXXX in one run folder.  A checkpoint is complete when all its
 * files open; a newer one that does not (a damaged disk; a killed process cannot leave one, see
 * folder_swap.c) is passed over with a warning. */
#define _POSIX_C_SOURCE 200809L
#include "softpick/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "checkpoint/folder_swap.h"

enum { NAME_BYTES = 64, DIGITS_MIN = 8, DIGITS_MAX = 18 };

typedef struct step {
    int64_t number;
    char name[NAME_BYTES]; /* without the suffix of a swap */
} step;

/* step-XXXXXXXX, alone or with the suffix of a swap. */
static bool parse_step(step *out, const char *name) {
    static const char prefix[] = "step-";
    if (strncmp(name, prefix, sizeof prefix - 1) != 0) return false;
    const char *digits = name + sizeof prefix - 1;
    size_t n = strspn(digits, "0123456789");
    const char *suffix = digits + n;
    if (n < DIGITS_MIN || n > DIGITS_MAX) return false;
    if (*suffix && strcmp(suffix, SP_SWAP_TEMPORARY) != 0 && strcmp(suffix, SP_SWAP_OLD) != 0) return false;
    out->number = strtoll(digits, NULL, 10);
    snprintf(out->name, sizeof out->name, "%.*s", (int)(suffix - name), name);
    return true;
}

/* Newest first. */
static int compare_steps(const void *left, const void *right) {
    const step *a = left, *b = right;
    if (a->number != b->number) return a->number > b->number ? -1 : 1;
    return strcmp(a->name, b->name);
}

static sp_status read_steps(DIR *entries, step **steps, int64_t *n, const char *run_folder) {
    const struct dirent *found;
    for (errno = 0; (found = readdir(entries)); errno = 0) {
        step parsed;
        if (!parse_step(&parsed, found->d_name)) continue;
        step *grown = realloc(*steps, (size_t)(*n + 1) * sizeof **steps);
        SP_REQUIRE(grown, SP_OUT_OF_MEMORY, "%s: no memory for its list of checkpoints", run_folder);
        *steps = grown;
        grown[(*n)++] = parsed;
    }
    SP_REQUIRE(errno == 0, SP_IO, "%s: %s", run_folder, strerror(errno));
    return SP_OK;
}

/* The steps of a run, newest first, each once; none when the folder does not exist.  Caller frees, also on
 * failure. */
static sp_status list_steps(const char *run_folder, step **steps, int64_t *n) {
    *steps = NULL;
    *n = 0;
    DIR *entries = opendir(run_folder);
    if (!entries && errno == ENOENT) return SP_OK;
    SP_REQUIRE(entries, SP_IO, "%s: %s", run_folder, strerror(errno));
    sp_status status = read_steps(entries, steps, n, run_folder);
    closedir(entries);
    SP_TRY(status);
    if (*n) qsort(*steps, (size_t)*n, sizeof **steps, compare_steps);
    int64_t kept = 0;
    for (int64_t i = 0; i < *n; i++)
        if (kept == 0 || compare_steps(&(*steps)[kept - 1], &(*steps)[i]) != 0) (*steps)[kept++] = (*steps)[i];
    *n = kept;
    return SP_OK;
}

static sp_status open_all(const char *folder) {
    char training[SP_PATH_BYTES];
    sp_checkpoint *checkpoint;
    sp_safetensors *moments;
    SP_TRY(sp_path_join(training, sizeof training, folder, "training.safetensors"));
    SP_TRY(sp_checkpoint_open(&checkpoint, folder));
    sp_checkpoint_close(checkpoint);
    if (!sp_file_exists(training)) return SP_OK;
    SP_TRY(sp_safetensors_open(&moments, training));
    sp_safetensors_close(moments);
    return SP_OK;
}

/* Where the step's content stands now, and whether all of it opens. */
static sp_status find_step(const char *run_folder, const step *wanted, char path[SP_PATH_BYTES], bool *complete) {
    char folder[SP_PATH_BYTES];
    SP_TRY(sp_path_join(folder, sizeof folder, run_folder, wanted->name));
    SP_TRY(sp_swap_resolve(folder, path));
    *complete = false;
    if (!sp_folder_exists(path)) return SP_OK;
    *complete = open_all(path) == SP_OK;
    if (!*complete) sp_log(SP_LOG_WARNING, "a checkpoint is passed over: %s", sp_last_message());
    return SP_OK;
}

sp_status sp_checkpoint_newest(const char *run_folder, char **folder) {
    *folder = NULL;
    step *steps;
    int64_t n;
    sp_status status = list_steps(run_folder, &steps, &n);
    for (int64_t i = 0; status == SP_OK && !*folder && i < n; i++) {
        char path[SP_PATH_BYTES];
        bool complete = false;
        SP_TRY_OR_DONE(find_step(run_folder, &steps[i], path, &complete));
        if (!complete) continue;
        *folder = strdup(path);
        SP_REQUIRE_OR_DONE(*folder, SP_OUT_OF_MEMORY, "%s: no memory for its name", path);
    }
done:
    free(steps);
    return status;
}

sp_status sp_checkpoint_list(const char *run_folder, sp_checkpoint_step **out, int64_t *n_out) {
    *out = NULL;
    *n_out = 0;
    step *steps;
    int64_t n;
    sp_checkpoint_step *list = NULL;
    sp_status status = list_steps(run_folder, &steps, &n);
    if (status == SP_OK) status = sp_allocate((void **)&list, (n + 1) * (int64_t)sizeof *list, "a list of checkpoints");
    for (int64_t i = n - 1; status == SP_OK && i >= 0; i--) {
        char path[SP_PATH_BYTES];
        bool complete = false;
        SP_TRY_OR_DONE(find_step(run_folder, &steps[i], path, &complete));
        if (!complete) continue;
        list[*n_out] = (sp_checkpoint_step){steps[i].number, strdup(path)};
        SP_REQUIRE_OR_DONE(list[*n_out].folder, SP_OUT_OF_MEMORY, "%s: no memory for its name", path);
        ++*n_out;
    }
done:
    free(steps);
    if (status == SP_OK) {
        *out = list;
        return SP_OK;
    }
    sp_checkpoint_list_free(list, *n_out);
    *n_out = 0;
    return status;
}

void sp_checkpoint_list_free(sp_checkpoint_step *steps, int64_t n) {
    for (int64_t i = 0; i < n; i++) free(steps[i].folder);
    free(steps);
}

/* Removes the step unless `keep` more complete ones are wanted; *kept counts these. */
static sp_status prune_step(const char *run_folder, const step *at, int64_t keep, int64_t *kept) {
    char folder[SP_PATH_BYTES], path[SP_PATH_BYTES];
    bool complete;
    SP_TRY(sp_path_join(folder, sizeof folder, run_folder, at->name));
    SP_TRY(sp_swap_recover(folder));
    if (!sp_folder_exists(folder)) return SP_OK;
    if (*kept >= keep) return sp_swap_remove(folder);
    SP_TRY(find_step(run_folder, at, path, &complete));
    *kept += complete;
    return SP_OK;
}

sp_status sp_checkpoint_prune(const char *run_folder, int64_t keep) {
    SP_REQUIRE(keep >= 1, SP_BAD_ARGUMENT, "%s: %" PRId64 " checkpoints to keep: at least 1", run_folder, keep);
    step *steps;
    int64_t n, kept = 0;
    sp_status status = list_steps(run_folder, &steps, &n);
    for (int64_t i = 0; status == SP_OK && i < n; i++) status = prune_step(run_folder, &steps[i], keep, &kept);
    free(steps);
    return status;
}
