/* Files: mapped for reading, and written so that they are either wholly there or not at all. */
#define _GNU_SOURCE
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

sp_status sp_file_map_open(sp_file_map *map, const char *path) {
    *map = (sp_file_map){0};
    /* Without waiting: a pipe without a writer would hold us here. */
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    SP_REQUIRE(descriptor >= 0, SP_IO, "%s: %s", path, strerror(errno));
    struct stat facts;
    sp_status status = SP_OK;
    SP_REQUIRE_OR_DONE(fstat(descriptor, &facts) == 0, SP_IO, "%s: %s", path, strerror(errno));
    SP_REQUIRE_OR_DONE(S_ISREG(facts.st_mode), SP_IO, "%s: not a regular file", path);
    if (facts.st_size > 0) {
        void *data = mmap(NULL, (size_t)facts.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
        SP_REQUIRE_OR_DONE(data != MAP_FAILED, SP_IO, "%s: %s", path, strerror(errno));
        map->data = data;
        map->n_bytes = facts.st_size;
    }
done:
    close(descriptor);
    return status;
}

void sp_file_map_close(sp_file_map *map) {
    if (map->data) munmap((void *)(uintptr_t)map->data, (size_t)map->n_bytes);
    *map = (sp_file_map){0};
}

sp_status sp_file_writer_open(sp_file_writer *writer, const char *path) {
    *writer = (sp_file_writer){0};
    int length = snprintf(writer->temporary, sizeof writer->temporary, "%s.tmp.%ld", path, (long)getpid());
    if (length >= (int)sizeof writer->temporary) {
        writer->temporary[0] = 0; /* what was cut off may name somebody else's file */
        return sp_fail(SP_IO, "%.200s...: the path is too long", path);
    }
    snprintf(writer->path, sizeof writer->path, "%s", path);
    writer->file = fopen(writer->temporary, "wbe");
    if (!writer->file) {
        writer->temporary[0] = 0;
        return sp_fail(SP_IO, "%s: %s", path, strerror(errno));
    }
    return SP_OK;
}

sp_status sp_file_writer_add(sp_file_writer *writer, const void *data, int64_t n_bytes) {
    size_t written = n_bytes > 0 ? fwrite(data, 1, (size_t)n_bytes, writer->file) : 0;
    SP_REQUIRE(written == (size_t)n_bytes, SP_IO, "%s: %s", writer->path, strerror(errno));
    return SP_OK;
}

sp_status sp_folder_sync_parent(const char *path) {
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (!slash) return sp_folder_sync(".");
    if (slash == folder) slash++;
    *slash = 0;
    return sp_folder_sync(folder);
}

sp_status sp_file_writer_finish(sp_file_writer *writer) {
    bool complete = fflush(writer->file) == 0 && fsync(fileno(writer->file)) == 0;
    int error = errno;
    complete = fclose(writer->file) == 0 && complete;
    writer->file = NULL;
    SP_REQUIRE(complete, SP_IO, "%s: %s", writer->path, strerror(error));
    SP_REQUIRE(rename(writer->temporary, writer->path) == 0, SP_IO, "%s: %s", writer->path, strerror(errno));
    writer->temporary[0] = 0;
    return sp_folder_sync_parent(writer->path);
}

void sp_file_writer_abandon(sp_file_writer *writer) {
    if (writer->file) fclose(writer->file);
    if (writer->temporary[0]) unlink(writer->temporary);
    writer->file = NULL;
    writer->temporary[0] = 0;
}

sp_status sp_file_write(const char *path, const void *data, int64_t n_bytes) {
    sp_file_writer writer;
    sp_status status = sp_file_writer_open(&writer, path);
    if (status == SP_OK) status = sp_file_writer_add(&writer, data, n_bytes);
    if (status == SP_OK) status = sp_file_writer_finish(&writer);
    sp_file_writer_abandon(&writer);
    return status;
}

sp_status sp_file_read(const char *path, char **text, int64_t *n_bytes) {
    *text = NULL;
    sp_file_map map;
    SP_TRY(sp_file_map_open(&map, path));
    char *copy = malloc((size_t)map.n_bytes + 1);
    if (copy) {
        if (map.data) memcpy(copy, map.data, (size_t)map.n_bytes);
        copy[map.n_bytes] = 0;
    }
    if (n_bytes) *n_bytes = map.n_bytes;
    sp_file_map_close(&map);
    SP_REQUIRE(copy, SP_OUT_OF_MEMORY, "%s: no memory to read it", path);
    *text = copy;
    return SP_OK;
}

bool sp_file_exists(const char *path) {
    struct stat facts;
    return stat(path, &facts) == 0 && S_ISREG(facts.st_mode);
}

bool sp_folder_exists(const char *path) {
    struct stat facts;
    return stat(path, &facts) == 0 && S_ISDIR(facts.st_mode);
}

sp_status sp_folder_make(const char *path) {
    char part[4096];
    int length = snprintf(part, sizeof part, "%s", path);
    SP_REQUIRE(length > 0 && length < (int)sizeof part, SP_IO, "%.200s: not a usable path", path);
    for (char *at = part + 1; *at; at++) {
        if (*at != '/') continue;
        *at = 0;
        if (mkdir(part, 0777) != 0 && errno != EEXIST) return sp_fail(SP_IO, "%s: %s", part, strerror(errno));
        *at = '/';
    }
    if (mkdir(part, 0777) != 0 && errno != EEXIST) return sp_fail(SP_IO, "%s: %s", part, strerror(errno));
    SP_REQUIRE(sp_folder_exists(path), SP_IO, "%s: exists and is not a folder", path);
    return SP_OK;
}

static int remove_entry(const char *path, const struct stat *facts, int kind, struct FTW *walk) {
    (void)facts, (void)kind, (void)walk;
    return remove(path);
}

sp_status sp_folder_remove(const char *path) {
    if (nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT)
        return sp_fail(SP_IO, "%s: %s", path, strerror(errno));
    return SP_OK;
}

sp_status sp_folder_sync(const char *path) {
    int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    SP_REQUIRE(descriptor >= 0, SP_IO, "%s: %s", path, strerror(errno));
    /* Some file systems cannot sync a folder and say EINVAL: nothing more can be done there. */
    bool synced = fsync(descriptor) == 0 || errno == EINVAL;
    int error = errno;
    close(descriptor);
    SP_REQUIRE(synced, SP_IO, "%s: %s", path, strerror(error));
    return SP_OK;
}

sp_status sp_path_join(char *out, int64_t out_bytes, const char *folder, const char *name) {
    size_t length = strlen(folder);
    const char *slash = length && folder[length - 1] == '/' ? "" : "/";
    int written = snprintf(out, (size_t)out_bytes, "%s%s%s", folder, slash, name);
    SP_REQUIRE(written >= 0 && written < out_bytes, SP_IO, "%.200s/%.200s: the path is too long", folder, name);
    return SP_OK;
}
