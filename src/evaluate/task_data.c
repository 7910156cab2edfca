/* Reading the data of tasks. */
#include "evaluate/task_data.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "evaluate/document.h"
#include "evaluate/fewshot.h"

void sp_task_data_clear(sp_task_data *data) {
    for (int64_t i = 0; data->examples && i < data->n; i++) free(data->examples[i]);
    free(data->examples);
    sp_documents_clear(&data->documents);
    *data = (sp_task_data){0};
}

static sp_status draw_examples(sp_task_data *data, const sp_task *task, const char *folder,
                               const sp_evaluate_options *options) {
    sp_documents pool = {0};
    const sp_task_file *file, *files = task->example_files;
    bool own = files[0].path && sp_task_file_find(data->example_file, &file, task, files, folder) == SP_OK;
    sp_status status = SP_OK;
    if (own) SP_TRY_OR_DONE(sp_documents_read(&pool, task, file, data->example_file, folder));
    if (!own) memcpy(data->example_file, data->file, sizeof data->file);
    data->examples = calloc((size_t)data->n, sizeof *data->examples);
    SP_REQUIRE_OR_DONE(data->examples, SP_OUT_OF_MEMORY, "no memory for few-shot examples");
    status = sp_fewshot_draw(data->examples, task, &data->documents, data->n, own ? &pool : NULL, options->n_fewshot,
                             options->compat);
done:
    sp_documents_clear(&pool);
    return status;
}

static sp_status read_task(sp_task_data *data, const sp_task *task, const sp_evaluate_options *options) {
    const sp_task_file *file;
    const char *folder = task->folder ? task->folder : options->data;
    SP_TRY(sp_task_file_find(data->file, &file, task, task->files, folder));
    SP_TRY(sp_documents_read(&data->documents, task, file, data->file, folder));
    int64_t n = data->documents.n;
    data->n = options->limit > 0 && options->limit < n ? options->limit : n;
    return options->n_fewshot > 0 && task->kind->takes_examples ? draw_examples(data, task, folder, options) : SP_OK;
}

/* Messages belong to threads: `problem` carries one to the caller's. */
sp_status sp_task_data_read(sp_task_data *data, const sp_task *const *tasks, int64_t n,
                            const sp_evaluate_options *options) {
    char problem[1024];
    int64_t failed = n;
    sp_status result = SP_OK;
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < n; i++) {
        data[i] = (sp_task_data){0};
        sp_status status = tasks[i]->kind->run ? SP_OK : read_task(&data[i], tasks[i], options);
        if (status == SP_OK) continue;
#pragma omp critical
        if (i < failed) {
            failed = i;
            result = status;
            snprintf(problem, sizeof problem, "%s", sp_last_message());
        }
    }
    return result == SP_OK ? SP_OK : sp_fail(result, "%s", problem);
}
