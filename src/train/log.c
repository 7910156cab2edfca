/* log.jsonl of a run.
 *
 * Invariants: 1. every line but the last is complete; 2. steps do not decrease; 3. a checkpoint of step s is
 * written after all lines of steps <= s, its own included.  So after a crash, to cut behind the restored step
 * leaves exactly what an unbroken run would have logged. */
#define _GNU_SOURCE
#include "train/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/file.h"

sp_status sp_train_log_open(sp_train_log *log, const char *run_folder) {
    *log = (sp_train_log){0};
    SP_TRY(sp_path_join(log->path, sizeof log->path, run_folder, "log.jsonl"));
    log->file = fopen(log->path, "abe");
    SP_REQUIRE(log->file, SP_IO, "%s: %s", log->path, strerror(errno));
    if (flock(fileno(log->file), LOCK_EX | LOCK_NB) == 0) return SP_OK;
    sp_status status = errno == EWOULDBLOCK
                           ? sp_fail(SP_IO, "%s: another process is training in this folder", log->path)
                           : sp_fail(SP_IO, "%s: %s", log->path, strerror(errno));
    sp_train_log_close(log);
    return status;
}

/* The step of a line, -1 if it is not a line of ours. */
static int64_t step_of_line(const char *line, int64_t n_bytes) {
    json_t *object = json_loadb(line, (size_t)n_bytes, 0, NULL);
    json_t *step = json_object_get(object, "step");
    int64_t value = json_is_integer(step) ? json_integer_value(step) : -1;
    json_decref(object);
    return value;
}

/* Bytes of the complete lines up to and including those of `step`. */
static int64_t bytes_until(const char *text, int64_t n_bytes, int64_t step) {
    int64_t kept = 0;
    for (;;) {
        const char *end = memchr(text + kept, '\n', (size_t)(n_bytes - kept));
        if (!end) return kept;
        int64_t next = end + 1 - text, line_step = step_of_line(text + kept, next - kept);
        if (line_step < 0 || line_step > step) return kept;
        kept = next;
    }
}

sp_status sp_train_log_truncate(sp_train_log *log, int64_t step) {
    char *text;
    int64_t n_bytes;
    SP_TRY(sp_file_read(log->path, &text, &n_bytes));
    int64_t kept = step < 0 ? 0 : bytes_until(text, n_bytes, step);
    free(text);
    SP_REQUIRE(ftruncate(fileno(log->file), kept) == 0, SP_IO, "%s: %s", log->path, strerror(errno));
    return SP_OK;
}

sp_status sp_train_log_add(sp_train_log *log, json_t *line) {
    SP_REQUIRE(line, SP_OUT_OF_MEMORY, "%s: no memory for a line", log->path);
    char *text;
    sp_status status = sp_json_format(&text, line, 1);
    json_decref(line);
    SP_TRY(status);
    bool written = fprintf(log->file, "%s\n", text) >= 0 && fflush(log->file) == 0;
    int error = errno;
    free(text);
    SP_REQUIRE(written, SP_IO, "%s: %s", log->path, strerror(error));
    return SP_OK;
}

sp_status sp_train_log_sync(sp_train_log *log) {
    /* A log on a file that cannot be synced (a pipe, some network file systems) says EINVAL: nothing to wait
     * for. */
    SP_REQUIRE(fsync(fileno(log->file)) == 0 || errno == EINVAL, SP_IO, "%s: %s", log->path, strerror(errno));
    return SP_OK;
}

void sp_train_log_close(sp_train_log *log) {
    if (log->file) fclose(log->file);
    log->file = NULL;
}
