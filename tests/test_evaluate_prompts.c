/* What is asked in each task is what lm-eval asks, to the byte: tests/vectors/prompts.json, which make_prompts.py makes
 * with lm-eval itself. */
#include "text_fixture.h"

#include "base/json.h"
#include "evaluate/document.h"
#include "evaluate/fewshot.h"
#include "evaluate/request.h"
#include "evaluate/task.h"

static json_t *vectors;

static int set_up(void **state) {
    char path[4096];
    const char *source = __FILE__;
    snprintf(path, sizeof path, "%.*svectors/prompts.json", (int)(strrchr(source, '/') + 1 - source), source);
    assert_ok(sp_json_read(&vectors, path));
    return make_test_folder(state);
}

static int tear_down(void **state) {
    json_decref(vectors);
    return remove_test_folder(state);
}

static void put_lines(const char *name, const json_t *list) {
    char *text = NULL;
    size_t n_bytes, i;
    const json_t *document;
    FILE *stream = open_memstream(&text, &n_bytes);
    json_array_foreach(list, i, document) {
        json_dumpf(document, stream, JSON_COMPACT);
        fputc('\n', stream);
    }
    fclose(stream);
    put_text(name, text);
    free(text);
}

static void read_documents(sp_documents *documents, const sp_task *task, const sp_task_file *files,
                           const json_t *list) {
    char path[4096];
    const sp_task_file *file;
    put_lines(files[0].path, list);
    assert_ok(sp_task_file_find(path, &file, task, files, test_folder));
    assert_ok(sp_documents_read(documents, task, file, path, test_folder));
}

/* [[context, continuation], ...] of one document */
static void check_pairs(const sp_task *task, const sp_document *document, const char *examples,
                        const json_t *expected) {
    assert_int_equal(document->n_answers, json_array_size(expected));
    for (int64_t i = 0; i < document->n_answers; i++) {
        sp_text_pair pair;
        const json_t *texts = json_array_get(expected, (size_t)i);
        assert_ok(sp_text_pair_make(&pair, task, document, i, examples));
        assert_string_equal(pair.context, json_string_value(json_array_get(texts, 0)));
        assert_string_equal(pair.continuation, json_string_value(json_array_get(texts, 1)));
        sp_text_pair_clear(&pair);
    }
}

static void check_shots(const sp_task *task, const sp_documents *documents, const sp_documents *pool, int64_t n_fewshot,
                        const json_t *expected) {
    char **examples = calloc((size_t)documents->n, sizeof *examples);
    assert_int_equal(documents->n, json_array_size(expected));
    if (n_fewshot > 0)
        assert_ok(sp_fewshot_draw(examples, task, documents, documents->n, pool, n_fewshot, SP_EVALUATE_COMPAT_0_4_10));
    for (int64_t i = 0; i < documents->n; i++) {
        check_pairs(task, &documents->items[i], examples[i], json_array_get(expected, (size_t)i));
        free(examples[i]);
    }
    free(examples);
}

static void every_task_asks_what_lm_eval_asks(void **state) {
    (void)state;
    const char *name, *shots;
    json_t *made, *expected;
    int64_t n_tasks = 0;
    json_object_foreach(json_object_get(vectors, "tasks"), name, made) {
        const sp_task *task;
        sp_documents documents = {0}, examples = {0};
        assert_ok(sp_task_find(&task, name));
        read_documents(&documents, task, task->files, json_object_get(made, "documents"));
        bool own = task->example_files[0].path != NULL;
        if (own) read_documents(&examples, task, task->example_files, json_object_get(made, "examples"));
        for (int64_t i = 0; i < documents.n; i++)
            assert_int_equal(documents.items[i].gold,
                             json_integer_value(json_array_get(json_object_get(made, "gold"), (size_t)i)));
        json_object_foreach(json_object_get(made, "shots"), shots, expected)
            check_shots(task, &documents, own ? &examples : &documents, atoi(shots), expected);
        sp_documents_clear(&documents);
        sp_documents_clear(&examples);
        n_tasks++;
    }
    assert_int_equal(n_tasks, 9);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_task_asks_what_lm_eval_asks)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
