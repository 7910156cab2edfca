/* Where the files lie that tests read: those beside the sources, and the data that is kept apart from them. */
#ifndef TESTS_DATA_PATH_H
#define TESTS_DATA_PATH_H

#include <stdio.h>
#include <stdlib.h>

/* A file of the sources, "tests/vectors/attention.json"; valid until the next call. */
static inline const char *source_path(const char *name) {
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", SP_TEST_SOURCES, name);
    return path;
}

/* A file of the real data, which need not be there: in $SOFTPICK_DATA, else beside the source folder; valid until the
 * next call. */
static inline const char *data_path(const char *name) {
    static char path[4096];
    const char *folder = getenv("SOFTPICK_DATA");
    if (folder)
        snprintf(path, sizeof path, "%s/%s", folder, name);
    else
        snprintf(path, sizeof path, "%s/../shared/data/%s", SP_TEST_SOURCES, name);
    return path;
}

#endif
