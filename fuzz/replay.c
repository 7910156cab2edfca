/* Runs a fuzzer's function on every file of the folders named: the seeds, and what a fuzzer once found. */
#define _POSIX_C_SOURCE 200809L
#include "fuzzer.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"

static int replay_file(const char *path) {
    char *text;
    int64_t n_bytes;
    if (sp_file_read(path, &text, &n_bytes) != SP_OK) {
        fprintf(stderr, "%s\n", sp_last_message());
        return 1;
    }
    LLVMFuzzerTestOneInput((const uint8_t *)text, (size_t)n_bytes);
    free(text);
    return 0;
}

/* Number of files run, negative when one could not be read. */
static int replay_folder(const char *folder) {
    DIR *entries = opendir(folder);
    if (!entries) return 0;
    int n = 0;
    const struct dirent *found;
    while (n >= 0 && (found = readdir(entries))) {
        char path[4096];
        if (sp_path_join(path, sizeof path, folder, found->d_name) != SP_OK || !sp_file_exists(path)) continue;
        n = replay_file(path) == 0 ? n + 1 : -1;
    }
    closedir(entries);
    return n;
}

int main(int n_arguments, char **arguments) {
    for (int i = 1; i < n_arguments; i++) {
        int n = replay_folder(arguments[i]);
        if (n <= 0) {
            fprintf(stderr, "%s: no inputs were run\n", arguments[i]);
            return 1;
        }
        printf("%s: %d inputs\n", arguments[i], n);
    }
    return n_arguments > 1 ? 0 : 2;
}
