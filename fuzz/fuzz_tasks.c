/* Readers of evaluations: data files of every task of the table, and task files.  What is read are questions that
 * can be asked; what is refused is refused in a sentence that names the file. */
#define _GNU_SOURCE
#include "fuzzer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "evaluate/document.h"
#include "evaluate/task.h"
#include "evaluate/task_file.h"
#include "text/utf8.h"

static void require(int holds) {
    if (!holds) abort();
}

static void check_texts(const sp_strings *texts) {
    for (int64_t i = 0; i < texts->n; i++) {
        int64_t n = (int64_t)strlen(texts->items[i]);
        require(sp_utf8_prefix(texts->items[i], n) == n);
    }
}

static void check_refusal(sp_status status, const char *path) {
    require(status == SP_BAD_FILE || status == SP_UNSUPPORTED);
    require(strncmp(sp_last_message(), path, strlen(path)) == 0 && !strchr(sp_last_message(), '\n'));
}

static void read_data(const sp_task *task, const char *path) {
    sp_documents documents = {0};
    const sp_task_file file = {path, NULL};
    sp_status status = sp_documents_read(&documents, task, &file, path, "/nowhere");
    if (status != SP_OK) check_refusal(status, path);
    require(status != SP_OK || documents.n > 0);
    for (int64_t i = 0; status == SP_OK && i < documents.n; i++) {
        const sp_document *document = &documents.items[i];
        require(document->n_answers >= 1 && document->gold >= 0 && document->gold < document->n_answers);
        check_texts(&document->contexts);
        check_texts(&document->continuations);
    }
    sp_documents_clear(&documents);
}

static void read_task(const char *path) {
    sp_task_file_task *file;
    sp_status status = sp_task_file_open(&file, path);
    if (status != SP_OK) check_refusal(status, path);
    require(status != SP_OK || (file->task.kind && file->task.name && file->task.metrics[0]));
    sp_task_file_close(file);
}

/* The first byte says who reads the rest. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    if (n_bytes == 0) return 0;
    static int file = -1;
    if (file < 0) file = memfd_create("input", MFD_CLOEXEC);
    require(file >= 0 && ftruncate(file, 0) == 0);
    require(pwrite(file, data + 1, n_bytes - 1, 0) == (ssize_t)(n_bytes - 1));
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    int64_t n_tasks = 0;
    while (sp_task_at(n_tasks)) n_tasks++;
    const sp_task *task = sp_task_at(data[0] % (n_tasks + 1));
    if (!task)
        read_task(path);
    else if (!task->kind->run)
        read_data(task, path);
    return 0;
}
