/* Files: mapped for reading, and written so that they are either wholly there or not at all. */
#ifndef SP_BASE_FILE_H
#define SP_BASE_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

/* A file mapped read-only.  A file that shrinks while mapped raises SIGBUS: do not do that. */
typedef struct sp_file_map {
    const uint8_t *data; /* NULL when the file is empty */
    int64_t n_bytes;
} sp_file_map;

SP_MUST_CHECK sp_status sp_file_map_open(sp_file_map *map, const char *path);
void sp_file_map_close(sp_file_map *map); /* a zeroed map is fine */

/* A file under a temporary name in the same folder, which `finish` syncs and renames to `path`. */
typedef struct sp_file_writer {
    FILE *file;
    char path[4096];
    char temporary[4096];
} sp_file_writer;

SP_MUST_CHECK sp_status sp_file_writer_open(sp_file_writer *writer, const char *path);
SP_MUST_CHECK sp_status sp_file_writer_add(sp_file_writer *writer, const void *data, int64_t n_bytes);
/* Makes the file visible under its name, or fails and leaves whatever was there. */
SP_MUST_CHECK sp_status sp_file_writer_finish(sp_file_writer *writer);
/* Removes the temporary file if `finish` has not succeeded.  A zeroed writer, or one finished, is fine. */
void sp_file_writer_abandon(sp_file_writer *writer);

/* Whole text or bytes at once, by the writer above. */
SP_MUST_CHECK sp_status sp_file_write(const char *path, const void *data, int64_t n_bytes);
/* Reads a whole file into memory with a 0 after it; caller frees.  `n_bytes` may be NULL. */
SP_MUST_CHECK sp_status sp_file_read(const char *path, char **text, int64_t *n_bytes);

bool sp_file_exists(const char *path);
bool sp_folder_exists(const char *path);
/* Makes the folder and its parents; fine if it is there. */
SP_MUST_CHECK sp_status sp_folder_make(const char *path);
/* Removes a folder with all that is in it; fine if it is not there. */
SP_MUST_CHECK sp_status sp_folder_remove(const char *path);
/* Flushes a folder's entries to the disk. */
SP_MUST_CHECK sp_status sp_folder_sync(const char *path);
/* The same for the folder in which `path` (a file or a folder) stands. */
SP_MUST_CHECK sp_status sp_folder_sync_parent(const char *path);
/* "folder/name" into `out`; fails when it does not fit. */
SP_MUST_CHECK sp_status sp_path_join(char *out, int64_t out_bytes, const char *folder, const char *name);

#endif
