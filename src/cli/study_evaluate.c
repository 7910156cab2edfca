/* The tasks of a study: `softpick eval` on each of its models. */
#define _GNU_SOURCE
#include "cli/study.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/status.h"
#include "cli/cli.h"
#include "softpick/evaluate.h"

enum { TASKS_MAX = 64 };

/* Cuts the list of names up; `names` points into it. */
static sp_status list_tasks(const char **names, int64_t *n, char *list) {
    *n = 0;
    for (char *name; (name = strsep(&list, ","));) {
        if (!*name) continue;
        SP_REQUIRE(*n < TASKS_MAX, SP_BAD_ARGUMENT, "--tasks: more than %d", TASKS_MAX);
        names[(*n)++] = name;
    }
    return SP_OK;
}

/* Evaluates what --tasks names.  `rehearse`: one document and one trial of each, silently. */
static sp_status evaluate(json_t **document, const study *s, sp_model *model, const char *name, bool rehearse) {
    const char *tasks[TASKS_MAX];
    char *list = strdup(s->settings.tasks), *text = NULL;
    sp_evaluate_options options = sp_evaluate_options_default();
    sp_status status = SP_OK;
    *document = NULL;
    SP_REQUIRE_OR_DONE(list, SP_OUT_OF_MEMORY, "no memory for the names of tasks");
    SP_TRY_OR_DONE(list_tasks(tasks, &options.n_tasks, list));
    options.tasks = tasks;
    options.data = s->settings.task_data;
    options.limit = rehearse ? 1 : s->settings.task_limit;
    options.n_fewshot = s->settings.shots;
    options.model_name = name;
    if (rehearse) {
        options.passkey.n_trials = 1;
        options.bootstrap_iterations = 0;
    } else {
        options.progress = cli_progress;
    }
    SP_TRY_OR_DONE(model ? sp_evaluate(model, s->tokenizer, &options, &text) : sp_evaluate_check(&options));
    if (text) status = sp_json_parse(document, text, (int64_t)strlen(text), "evaluation");
done:
    free(text);
    free(list);
    return status;
}

sp_status study_check_tasks(const study *s) {
    json_t *none;
    return s->settings.tasks[0] ? evaluate(&none, s, NULL, "", true) : SP_OK;
}

sp_status study_rehearse_tasks(const study *s, sp_model *model) {
    json_t *document;
    if (!s->settings.tasks[0]) return SP_OK;
    SP_TRY(evaluate(&document, s, model, "rehearsal", true));
    json_decref(document);
    return SP_OK;
}

sp_status study_add_evaluation(json_t *root, const study *s, sp_model *model, const char *name) {
    if (!s->settings.tasks[0]) return SP_OK;
    json_t *document;
    SP_TRY(evaluate(&document, s, model, name, false));
    /* where the report looks for the grid */
    json_t *tasks = json_object_get(json_object_get(document, "softpick"), "tasks");
    json_t *passkey = json_object_get(tasks, "passkey");
    if (passkey) json_object_set(document, "passkey", passkey);
    json_object_set_new(root, "evaluation", document);
    return SP_OK;
}
