/* What tests of evaluation share: documents out of texts, and the questions they become. */
#ifndef EVALUATE_SUPPORT_H
#define EVALUATE_SUPPORT_H

#include "text_fixture.h"

#include "base/json.h"
#include "evaluate/document.h"
#include "evaluate/task.h"

/* Reads the data of a task from the test's folder. */
static inline sp_status read_task(sp_documents *documents, const char *name) {
    const sp_task *task;
    const sp_task_file *file;
    char path[4096];
    *documents = (sp_documents){0};
    assert_ok(sp_task_find(&task, name));
    assert_ok(sp_task_file_find(path, &file, task, task->files, test_folder));
    return sp_documents_read(documents, task, file, path, test_folder);
}

/* The document asks this: contexts and continuations with | between them. */
static inline void check_question(const sp_document *document, const char *contexts, const char *continuations,
                                  int64_t gold) {
    const sp_strings *both[] = {&document->contexts, &document->continuations};
    const char *expected[] = {contexts, continuations};
    for (int k = 0; k < 2; k++) {
        char joined[1024] = "";
        for (int64_t i = 0; i < both[k]->n; i++) {
            if (i) strcat(joined, "|");
            strcat(joined, both[k]->items[i]);
        }
        assert_string_equal(joined, expected[k]);
    }
    assert_int_equal(document->gold, gold);
}

#endif
