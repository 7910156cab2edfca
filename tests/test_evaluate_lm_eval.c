/* Answers of a real model to the first questions of every task are those that lm-eval with transformers gets, for
 * both ways of BOS: tests/vectors/lm_eval_stories.json (made by tests/oracles/lm_eval).  Needs the data that lies
 * beside the sources. */
#include "evaluate_support.h"

#include <dirent.h>
#include <math.h>
#include <omp.h>

#include "softpick/evaluate.h"

enum { TASKS_MAX = 16 };

static json_t *vectors;

static int set_up(void **state) {
    char path[4096];
    const char *slash = strrchr(__FILE__, '/');
    snprintf(path, sizeof path, "%.*s/vectors/lm_eval_stories.json", (int)(slash - __FILE__), __FILE__);
    assert_ok(sp_json_read(&vectors, path));
    omp_set_num_threads(1); /* passes of few tokens: threads would wait for each other */
    return make_test_folder(state);
}

static int tear_down(void **state) {
    json_decref(vectors);
    return remove_test_folder(state);
}

/* The samples of a task, in the one folder of results below `out`. */
static void read_samples(char **text, const char *out, const char *task) {
    char folder[512], prefix[128], path[4096] = "";
    struct dirent *entry;
    DIR *models = opendir(out);
    assert_non_null(models);
    while ((entry = readdir(models)))
        if (entry->d_name[0] != '.') snprintf(folder, sizeof folder, "%.200s/%.255s", out, entry->d_name);
    closedir(models);
    snprintf(prefix, sizeof prefix, "samples_%s_2", task); /* the year */
    DIR *files = opendir(folder);
    assert_non_null(files);
    while ((entry = readdir(files)))
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0)
            snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    closedir(files);
    assert_ok(sp_file_read(path, text, NULL));
}

static void check_answers(const json_t *sample, const json_t *expected) {
    const json_t *answers = json_object_get(sample, "filtered_resps");
    assert_int_equal(json_array_size(answers), json_array_size(expected));
    for (size_t i = 0; i < json_array_size(expected); i++) {
        const json_t *ours = json_array_get(answers, i), *theirs = json_array_get(expected, i);
        double sum = strtod(json_string_value(json_array_get(ours, 0)), NULL);
        double wanted = json_number_value(json_array_get(theirs, 0));
        if (!(fabs(sum - wanted) < 2e-3 + 1e-5 * fabs(wanted))) fail_msg("%g, not %g", sum, wanted);
        bool greedy = strcmp(json_string_value(json_array_get(ours, 1)), "True") == 0;
        assert_int_equal(greedy, json_integer_value(json_array_get(theirs, 1)));
    }
}

static void check_task(const char *out, const char *task, const json_t *expected) {
    char *text;
    read_samples(&text, out, task);
    char *rest = text;
    for (size_t i = 0; i < json_array_size(expected); i++) {
        json_t *sample = json_loads(strsep(&rest, "\n"), 0, NULL);
        check_answers(sample, json_array_get(expected, i));
        json_decref(sample);
    }
    free(text);
}

static void check_compat(sp_evaluate_compat compat) {
    char model_path[4096], data[4096];
    snprintf(data, sizeof data, "%s", data_file("eval/arc_easy_test.jsonl"));
    *strrchr(data, '/') = 0;
    sp_tokenizer *tokenizer;
    sp_model *model;
    assert_ok(sp_tokenizer_open(&tokenizer, data_file("tokenizer/stories/tok512.bin")));
    snprintf(model_path, sizeof model_path, "%s", data_file("ckpt/stories260K-hf/config.json"));
    *strrchr(model_path, '/') = 0;
    sp_model_options model_options = sp_model_options_default();
    assert_ok(sp_model_open(&model, model_path, &model_options));

    const char *name = sp_evaluate_compat_name(compat), *task, *names[TASKS_MAX];
    json_t *answers = json_object_get(json_object_get(vectors, name), "answers"), *expected;
    sp_evaluate_options options = sp_evaluate_options_default();
    json_object_foreach(answers, task, expected) {
        names[options.n_tasks++] = task;
        options.limit = (int64_t)json_array_size(expected);
    }
    options.tasks = names;
    options.data = data;
    options.compat = compat;
    options.bootstrap_iterations = 0;
    options.out = at(name);
    options.samples = true;
    char *text;
    assert_ok(sp_evaluate(model, tokenizer, &options, &text));
    json_object_foreach(answers, task, expected) check_task(options.out, task, expected);
    free(text);
    sp_model_free(model);
    sp_tokenizer_free(tokenizer);
}

static void answers_with_bos_are_those_of_lm_eval(void **state) {
    (void)state;
    check_compat(SP_EVALUATE_COMPAT_0_4_10);
}

static void answers_without_bos_are_those_of_lm_eval(void **state) {
    (void)state;
    check_compat(SP_EVALUATE_COMPAT_0_4_8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_with_bos_are_those_of_lm_eval),
        cmocka_unit_test(answers_without_bos_are_those_of_lm_eval),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
