/* Whole evaluations of a tiny model on made-up questions: documents, files, what resuming keeps, what compat
 * changes. */
#include "evaluate_support.h"

#include <dirent.h>
#include <math.h>
#include <omp.h>

#include "evaluate/score.h"
#include "softpick/evaluate.h"

static sp_tokenizer *tokenizer;
static sp_model *model;

/* 40 questions of ARC's form, and cloze texts. */
static void write_data(void) {
    static const char *const words[] = {"river", "stone", "moon", "bridge", "seven", "caf\u00e9", "light", "slowly"};
    FILE *arc = fopen(at("arc_easy_test.jsonl"), "w"), *lambada = fopen(at("lambada_test.jsonl"), "w");
    assert_true(arc && lambada);
    for (uint64_t i = 0; i < 40; i++) {
        const char *w[6];
        for (uint64_t k = 0; k < 6; k++) w[k] = words[sp_random_below(1, i, k, 8)];
        fprintf(arc, "{\"question\":\"the %s and the %s\",\"choices\":[\"%s\",\"of %s\",\"%s and %s\"],\"gold\":%d}\n",
                w[0], w[1], w[2], w[3], w[4], w[5], (int)(i % 3));
        fprintf(lambada, "{\"text\":\"%s%s %s %s\"}\n", i ? "it sings " : "", w[0], w[1], w[2]);
    }
    fputs("{\"text\":\"river\"}\n", lambada);
    assert_int_equal(fclose(arc) + fclose(lambada), 0);
}

static int set_up(void **state) {
    if (make_test_folder(state) != 0) return -1;
    omp_set_num_threads(1); /* passes of a few tokens: threads would wait for each other */
    tokenizer = make_tokenizer("tokenizer.model", 300);
    sp_model_config config = sp_model_config_default();
    config.vocabulary = 300;
    config.width = 32;
    config.n_layers = 2;
    config.n_heads = config.n_kv_heads = 2;
    config.head_width = 16;
    config.ffn_width = 64;
    config.max_positions = 48;
    config.initializer_range = 0.3;
    config.bos = sp_tokenizer_bos(tokenizer);
    config.eos = sp_tokenizer_eos(tokenizer);
    sp_model_options options = sp_model_options_default();
    assert_ok(sp_model_new(&model, &config, &options));
    write_data();
    return 0;
}

static int tear_down(void **state) {
    sp_model_free(model);
    sp_tokenizer_free(tokenizer);
    return remove_test_folder(state);
}

static const char *const both_tasks[] = {"arc_easy", "lambada_openai"};

static sp_evaluate_options make_options(void) {
    sp_evaluate_options options = sp_evaluate_options_default();
    options.tasks = both_tasks;
    options.n_tasks = 2;
    options.data = test_folder;
    options.bootstrap_iterations = 100;
    options.model_name = "tiny/model";
    return options;
}

static json_t *evaluate(const sp_evaluate_options *options) {
    char *text;
    json_t *document;
    assert_ok(sp_evaluate(model, tokenizer, options, &text));
    assert_ok(sp_json_parse(&document, text, (int64_t)strlen(text), "results"));
    free(text);
    return document;
}

/* A number of results.TASK. */
static double result_of(const json_t *document, const char *task, const char *metric) {
    const json_t *value = json_object_get(json_object_get(json_object_get(document, "results"), task), metric);
    if (!json_is_number(value)) fail_msg("%s of %s is no number", metric, task);
    return json_number_value(value);
}

/* ---- files ---- */

/* The path of the file in out/tiny__model whose name begins like this; "" if there is none. */
static const char *find_file(const char *out, const char *prefix) {
    static char found[4096];
    char folder[2048];
    snprintf(folder, sizeof folder, "%s/%s/tiny__model", test_folder, out);
    found[0] = 0;
    DIR *entries = opendir(folder);
    for (struct dirent *entry = entries ? readdir(entries) : NULL; entry; entry = readdir(entries))
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0)
            snprintf(found, sizeof found, "%s/%s", folder, entry->d_name);
    if (entries) closedir(entries);
    return found;
}

/* Lines of a file of JSON lines. */
static json_t *read_lines(const char *path) {
    char *text;
    assert_ok(sp_file_read(path, &text, NULL));
    json_t *lines = json_array();
    char *rest = text;
    for (char *line = strsep(&rest, "\n"); line; line = strsep(&rest, "\n"))
        if (*line) json_array_append_new(lines, json_loads(line, 0, NULL));
    free(text);
    return lines;
}

/* ---- tests ---- */

/* The log probability of a continuation, alone, by the rule of lm-eval. */
static double score_alone(const char *context, const char *continuation, unsigned flags, int64_t L) {
    char whole[512];
    snprintf(whole, sizeof whole, "%s%s", context, continuation);
    int32_t *all, *before, prefix = sp_tokenizer_bos(tokenizer), items[600];
    int64_t n_all, n_before, n = 0;
    unsigned bare = *context ? flags : SP_ENCODE_SPECIAL;
    assert_ok(sp_tokenizer_encode_with(tokenizer, whole, (int64_t)strlen(whole), bare, &all, &n_all));
    assert_ok(sp_tokenizer_encode_with(tokenizer, context, (int64_t)strlen(context), bare, &before, &n_before));
    if (!*context) items[n++] = prefix;
    for (int64_t i = 0; *context && i < n_before; i++) items[n++] = before[i];
    if (!*context) n_before = 0;
    for (int64_t i = n_before; i < n_all; i++) items[n++] = all[i];
    int64_t skipped = n > L + 1 ? n - L - 1 : 0;
    sp_score_item item = {.tokens = items + skipped, .n_tokens = n - skipped, .n_scored = n_all - n_before};
    assert_ok(sp_score(model, &item, 1, NULL));
    free(all);
    free(before);
    return item.sum;
}

/* Samples hold the texts that were asked; each answer is what that text gets alone. */
static void check_samples(const char *out, const char *task, unsigned flags, int64_t L) {
    char prefix[64];
    snprintf(prefix, sizeof prefix, "samples_%s_", task);
    json_t *samples = read_lines(find_file(out, prefix)), *sample, *arguments;
    size_t i;
    assert_true(json_array_size(samples) >= 40);
    json_array_foreach(samples, i, sample) {
        const char *key;
        json_t *answers = json_object_get(sample, "filtered_resps");
        size_t a = 0;
        json_object_foreach(json_object_get(sample, "arguments"), key, arguments) {
            const char *context = json_string_value(json_object_get(arguments, "arg_0"));
            const char *continuation = json_string_value(json_object_get(arguments, "arg_1"));
            double sum = strtod(json_string_value(json_array_get(json_array_get(answers, a++), 0)), NULL);
            assert_true(fabs(sum - score_alone(context, continuation, flags, L)) < 1e-3);
        }
        assert_int_equal(a, json_array_size(answers));
        assert_int_equal(json_integer_value(json_object_get(sample, "doc_id")), i);
    }
    json_decref(samples);
}

static void answers_are_those_of_each_question_alone(void **state) {
    (void)state;
    sp_evaluate_options options = make_options();
    options.out = at("alone");
    options.samples = true;
    json_decref(evaluate(&options));
    check_samples("alone", "arc_easy", SP_ENCODE_SPECIAL | SP_ENCODE_TEMPLATE, 48);
    check_samples("alone", "lambada_openai", SP_ENCODE_SPECIAL | SP_ENCODE_TEMPLATE, 48);
    assert_string_equal(find_file("alone", "unfinished_"), "");
    json_t *results;
    assert_ok(sp_json_read(&results, find_file("alone", "results_")));
    assert_true(result_of(results, "arc_easy", "acc,none") >= 0);
    json_decref(results);

    options.compat = SP_EVALUATE_COMPAT_0_4_8;
    options.out = at("old");
    json_decref(evaluate(&options));
    check_samples("old", "arc_easy", SP_ENCODE_SPECIAL, 48);
    check_samples("old", "lambada_openai", SP_ENCODE_SPECIAL, 48);
}

static void long_contexts_are_cut_from_the_left(void **state) {
    (void)state;
    sp_evaluate_options options = make_options();
    options.n_fewshot = 2; /* some 60 tokens in front */
    options.max_length = 20;
    options.out = at("cut");
    options.samples = true;
    json_decref(evaluate(&options));
    check_samples("cut", "arc_easy", SP_ENCODE_SPECIAL | SP_ENCODE_TEMPLATE, 20);
}

static void metrics_follow_from_the_samples(void **state) {
    (void)state;
    sp_evaluate_options options = make_options();
    options.out = at("metrics");
    options.samples = true;
    json_t *results = evaluate(&options), *sample;
    json_t *samples = read_lines(find_file("metrics", "samples_lambada_openai_"));
    double sum = 0, right = 0;
    size_t i, n = json_array_size(samples);
    json_array_foreach(samples, i, sample) {
        sum += json_number_value(json_object_get(sample, "perplexity"));
        right += json_number_value(json_object_get(sample, "acc"));
    }
    assert_true(fabs(result_of(results, "lambada_openai", "perplexity,none") / exp(-sum / (double)n) - 1) < 1e-12);
    assert_true(fabs(result_of(results, "lambada_openai", "acc,none") - right / (double)n) < 1e-12);
    assert_true(result_of(results, "lambada_openai", "perplexity_stderr,none") > 0);
    json_decref(samples);
    json_decref(results);
}

static void limit_takes_the_first_documents(void **state) {
    (void)state;
    sp_evaluate_options options = make_options();
    options.limit = 7;
    json_t *results = evaluate(&options), *counts = json_object_get(json_object_get(results, "n-samples"), "arc_easy");
    assert_int_equal(json_integer_value(json_object_get(counts, "effective")), 7);
    assert_int_equal(json_integer_value(json_object_get(counts, "original")), 40);
    json_decref(results);
}

/* ---- resuming ---- */

typedef struct counter {
    int64_t stop_at; /* documents after which to cancel, of the second task */
    int64_t first;   /* of the first task: where counting began */
} counter;

static int count_documents(void *user, const char *what, int64_t done, int64_t total) {
    (void)total;
    counter *counts = user;
    if (counts->first < 0 && strcmp(what, "arc_easy") == 0) counts->first = done;
    return strcmp(what, "lambada_openai") == 0 && done >= counts->stop_at;
}

static void interrupted_runs_resume_to_the_same_results(void **state) {
    (void)state;
    sp_evaluate_options options = make_options();
    options.out = at("resumed");
    json_t *whole = evaluate(&options);
    counter counts = {.stop_at = 1, .first = -1};
    options.progress = count_documents;
    options.progress_user = &counts;
    char *text;
    assert_fails(sp_evaluate(model, tokenizer, &options, &text), SP_CANCELLED, "");
    assert_null(text);
    assert_string_not_equal(find_file("resumed", "unfinished_arc_easy"), "");

    options.resume = true;
    counts = (counter){.stop_at = 1000, .first = -1};
    json_t *resumed = evaluate(&options);
    assert_int_equal(counts.first, -1); /* the first task was not asked again */
    assert_true(json_equal(json_object_get(whole, "results"), json_object_get(resumed, "results")));
    assert_string_equal(find_file("resumed", "unfinished_"), "");
    json_decref(whole);
    json_decref(resumed);
}

static void answers_of_other_choices_are_not_taken_over(void **state) {
    (void)state;
    sp_evaluate_options options = make_options();
    options.out = at("other");
    counter counts = {.stop_at = 1, .first = -1};
    options.progress = count_documents;
    options.progress_user = &counts;
    char *text;
    assert_fails(sp_evaluate(model, tokenizer, &options, &text), SP_CANCELLED, "");
    options.resume = true;
    options.compat = SP_EVALUATE_COMPAT_0_4_8;
    counts = (counter){.stop_at = 1000, .first = -1};
    json_decref(evaluate(&options));
    assert_int_equal(counts.first, 0);
}

/* Lines behind a damaged one are asked again; a line cut short is passed over. */
static void damaged_lines_are_asked_again(void **state) {
    (void)state;
    sp_evaluate_options options = make_options();
    options.out = at("damaged");
    json_t *whole = evaluate(&options);
    counter counts = {.stop_at = 1, .first = -1};
    options.progress = count_documents;
    options.progress_user = &counts;
    char *text, *lines;
    assert_fails(sp_evaluate(model, tokenizer, &options, &text), SP_CANCELLED, "");
    const char *path = find_file("damaged", "unfinished_arc_easy");
    assert_ok(sp_file_read(path, &lines, NULL));
    char *fifth = lines;
    for (int i = 0; i < 5; i++) fifth = strchr(fifth, '\n') + 1;
    fifth[10] = 0;
    assert_ok(sp_file_write(path, lines, (int64_t)strlen(lines)));
    free(lines);
    options.resume = true;
    counts = (counter){.stop_at = 1000, .first = -1};
    json_t *resumed = evaluate(&options);
    assert_int_equal(counts.first, 4);
    assert_true(json_equal(json_object_get(whole, "results"), json_object_get(resumed, "results")));
    json_decref(whole);
    json_decref(resumed);
}

/* ---- task files ---- */

static void a_task_file_does_what_the_row_does(void **state) {
    (void)state;
    const char *path =
        put_text("mine.json", "{\"name\": \"mine\", \"kind\": \"multiple_choice\", "
                              "\"data\": \"arc_easy_test.jsonl\", "
                              "\"context\": \"Question: {question}\\nAnswer:\", \"choices\": \"{choices}\", "
                              "\"gold\": \"{gold}\", \"metrics\": [\"acc\", \"acc_norm\", \"acc_bytes\"]}");
    sp_evaluate_options options = make_options();
    options.task_files = &path;
    options.n_task_files = 1;
    options.data = test_folder;
    json_t *results = evaluate(&options);
    assert_true(result_of(results, "mine", "acc,none") == result_of(results, "arc_easy", "acc,none"));
    assert_true(result_of(results, "mine", "acc_norm,none") == result_of(results, "arc_easy", "acc_norm,none"));
    assert_true(result_of(results, "mine", "acc_bytes,none") >= 0);
    json_decref(results);
}

/* An answer that begins with BOS itself, behind nothing, gets no second one. */
static void a_bos_that_an_answer_begins_with_is_not_predicted(void **state) {
    (void)state;
    static const char text[] = "<s>river";
    put_text("begun.jsonl", "{\"text\": \"<s>river\"}\n");
    const char *path = put_text(
        "begun.json", "{\"name\": \"begun\", \"kind\": \"cloze\", \"data\": \"begun.jsonl\", \"context\": \"\", "
                      "\"target\": \"{text}\", \"delimiter\": \"\"}");
    sp_evaluate_options options = make_options();
    options.n_tasks = 0;
    options.task_files = &path;
    options.n_task_files = 1;
    json_t *results = evaluate(&options);
    int32_t *tokens;
    int64_t n;
    assert_ok(sp_tokenizer_encode_with(tokenizer, text, sizeof text - 1, SP_ENCODE_SPECIAL, &tokens, &n));
    assert_int_equal(tokens[0], sp_tokenizer_bos(tokenizer));
    sp_score_item item = {.tokens = tokens, .n_tokens = n, .n_scored = n - 1};
    assert_ok(sp_score(model, &item, 1, NULL));
    assert_true(fabs(result_of(results, "begun", "perplexity,none") / exp(-item.sum) - 1) < 1e-5);
    free(tokens);
    json_decref(results);
}

static void check_task_file(const char *text, const char *words) {
    const char *path = put_text("broken.json", text);
    sp_evaluate_options options = sp_evaluate_options_default();
    options.task_files = &path;
    options.n_task_files = 1;
    assert_fails(sp_evaluate_check(&options), SP_BAD_FILE, words);
}

#define HEAD "{\"name\": \"mine\", \"kind\": \"multiple_choice\", \"data\": \"arc_easy_test.jsonl\", "

static void broken_task_files_are_refused(void **state) {
    (void)state;
    check_task_file("[]", "broken.json: not a JSON object");
    check_task_file("{", "broken.json: line 1");
    check_task_file("{\"name\": \"x\"}", "broken.json: \"kind\" is missing");
    check_task_file("{\"kind\": \"essay\"}", "broken.json: there is no kind \"essay\" of tasks");
    check_task_file("{\"kind\": \"cloze\"}", "broken.json: \"name\" is missing");
    check_task_file(HEAD "\"choices\": \"{c}\"}", "broken.json: \"context\" is missing");
    check_task_file(HEAD "\"context\": \"c\"}", "broken.json: \"choices\" is missing");
    check_task_file(HEAD "\"context\": \"c\", \"choices\": 3}", "\"choices\" is neither a text nor a list of texts");
    check_task_file(HEAD "\"context\": \"c\", \"choices\": [\"a\", 3]}", "\"choices\" is not a text");
    check_task_file(HEAD "\"context\": \"c\", \"choices\": \"x\", \"target\": \"y\"}",
                    "\"target\" is not a key of a task of kind multiple_choice");
    check_task_file(HEAD "\"context\": \"c\", \"choices\": \"x\", \"metrics\": [\"perplexity\"]}",
                    "a task of kind multiple_choice has no metric \"perplexity\"");
    check_task_file(HEAD "\"context\": \"c\", \"choices\": \"x\", \"filter\": \"upper\"}",
                    "there is no filter \"upper\"");
    check_task_file(HEAD "\"context\": \"c\", \"choices\": \"x\", \"version\": \"one\"}", "the version \"one\"");
    check_task_file(HEAD "\"context\": \"c\", \"choices\": [\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\"]}",
                    "\"choices\" holds more than 7 texts");
    check_task_file("{\"name\": \"../x\", \"kind\": \"cloze\", \"data\": \"d\", \"context\": \"c\", \"target\": \"t\"}",
                    "the name \"../x\" is not made of");
}

static void tokens_that_the_model_lacks_are_refused(void **state) {
    (void)state;
    sp_model_config config = *sp_model_config_of(model);
    config.vocabulary = 270; /* of the tokenizer's 300 */
    sp_model_options model_options = sp_model_options_default();
    sp_model *small;
    assert_ok(sp_model_new(&small, &config, &model_options));
    sp_evaluate_options options = make_options();
    char *text;
    assert_fails(sp_evaluate(small, tokenizer, &options, &text), SP_BAD_FILE,
                 "is not in the model's vocabulary of 270");
    sp_model_free(small);
}

static void wrong_options_are_named(void **state) {
    (void)state;
    sp_evaluate_options options = make_options();
    char *text;
    options.n_tasks = 0;
    assert_fails(sp_evaluate_check(&options), SP_BAD_ARGUMENT, "no task is named");
    options = make_options();
    options.tasks = (const char *const[]){"arc_easy", "arc_easy"};
    assert_fails(sp_evaluate_check(&options), SP_BAD_ARGUMENT, "two tasks are named arc_easy");
    options = make_options();
    options.max_length = 49;
    assert_fails(sp_evaluate(model, tokenizer, &options, &text), SP_BAD_ARGUMENT, "the model has 48 positions");
    options = make_options();
    options.n_fewshot = 40;
    assert_fails(sp_evaluate(model, tokenizer, &options, &text), SP_BAD_ARGUMENT,
                 "arc_easy: 41 examples are to be drawn from 40 documents");
    options = make_options();
    options.bootstrap_iterations = 1500;
    assert_fails(sp_evaluate(model, tokenizer, &options, &text), SP_BAD_ARGUMENT, "1500 bootstrap samples");
    sp_evaluate_compat compat;
    assert_fails(sp_evaluate_compat_find(&compat, "0.5"), SP_BAD_ARGUMENT, "\"0.5\" is not 0.4.8 or 0.4.10");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_those_of_each_question_alone),
        cmocka_unit_test(long_contexts_are_cut_from_the_left),
        cmocka_unit_test(metrics_follow_from_the_samples),
        cmocka_unit_test(limit_takes_the_first_documents),
        cmocka_unit_test(interrupted_runs_resume_to_the_same_results),
        cmocka_unit_test(answers_of_other_choices_are_not_taken_over),
        cmocka_unit_test(damaged_lines_are_asked_again),
        cmocka_unit_test(a_task_file_does_what_the_row_does),
        cmocka_unit_test(a_bos_that_an_answer_begins_with_is_not_predicted),
        cmocka_unit_test(broken_task_files_are_refused),
        cmocka_unit_test(tokens_that_the_model_lacks_are_refused),
        cmocka_unit_test(wrong_options_are_named),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
