/* Where the files lie that tests read: those beside the sources, and the data that is kept apart from them. */
#ifndef TESTS_DATA_PATH_H
#define TESTS_DATA_PATH_H

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

/* A file of the sources: "tests/vectors/attention.json". */
static inline void source_path(char *path, size_t path_bytes, const char *name) {
    snprintf(path, path_bytes, "%s/%s", SP_TEST_SOURCES, name);
}

/* A file of the data, which may be absent: in $SOFTPICK_DATA, else beside the source folder. */
static inline void data_path(char *path, size_t path_bytes, const char *name) {
    const char *folder = getenv("SOFTPICK_DATA");
    if (folder)
        snprintf(path, path_bytes, "%s/%s", folder, name);
    else
        snprintf(path, path_bytes, "%s/../shared/data/%s", SP_TEST_SOURCES, name);
}

#endif
