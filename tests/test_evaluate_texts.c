/* Tasks over whole texts and passkey retrieval, from files to results, with a tiny model: against sums made here. */
#include "evaluate_support.h"

#include <math.h>
#include <omp.h>

#include "evaluate/rolling.h"
#include "evaluate/score.h"
#include "softpick/evaluate.h"

enum { POSITIONS = 320 };

static sp_tokenizer *tokenizer;
static sp_model *model;

static const char file[] = " \n = Rivers = \n \n the river carries stones @,@ and \" light \" . it sings \n"
                           " = = Seven bridges = = \n under seven bridges ; slowly ; 1984 \n"
                           " = Light = \n light and light and light ( while it sings ) of stones \n";
/* Its pages, detokenized; words and bytes before that. */
static const char *const pages[] = {" = Rivers =\n\nthe river carries stones,and \"light\". it sings\n== Seven bridges "
                                    "==\nunder seven bridges; slowly; 1984 ",
                                    " = Light =\nlight and light and light (while it sings) of stones\n"};

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
    config.max_positions = POSITIONS;
    config.initializer_range = 0.3;
    config.bos = sp_tokenizer_bos(tokenizer);
    config.eos = sp_tokenizer_eos(tokenizer);
    sp_model_options options = sp_model_options_default();
    assert_ok(sp_model_new(&model, &config, &options));
    put_text("wiki.test.raw", file);
    return 0;
}

static int tear_down(void **state) {
    sp_model_free(model);
    sp_tokenizer_free(tokenizer);
    return remove_test_folder(state);
}

static sp_evaluate_options make_options(const char *const *task) {
    sp_evaluate_options options = sp_evaluate_options_default();
    options.tasks = task;
    options.n_tasks = 1;
    options.data = test_folder;
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

static double result_of(const json_t *document, const char *task, const char *metric) {
    const json_t *value = json_object_get(json_object_get(json_object_get(document, "results"), task), metric);
    if (!json_is_number(value)) fail_msg("%s of %s is no number", metric, task);
    return json_number_value(value);
}

/* log p of a text after `prefix`, 16 tokens seen at once: each token from those before it, window by window. */
static double log_probability(const char *text, unsigned flags, int64_t length) {
    int32_t *tokens, run[512];
    int64_t n;
    assert_ok(sp_tokenizer_encode_with(tokenizer, text, (int64_t)strlen(text), flags, &tokens, &n));
    assert_true(n + 1 <= 512);
    run[0] = sp_tokenizer_bos(tokenizer);
    memcpy(run + 1, tokens, (size_t)n * sizeof *tokens);
    free(tokens);
    double sum = 0;
    for (int64_t first = 0; first < n; first += length) {
        int64_t end = first + length < n ? first + length : n, start = end > length ? end - length : 0;
        sp_score_item item = {.tokens = run + start, .n_tokens = end + 1 - start, .n_scored = end - first};
        assert_ok(sp_score(model, &item, 1, NULL));
        sum += item.sum;
    }
    return sum;
}

static void wikitext_counts_words_and_bytes_of_the_raw_pages(void **state) {
    (void)state;
    static const char *const task[] = {"wikitext"};
    sp_evaluate_options options = make_options(task);
    options.max_length = 16;
    for (int i = 0; i < 2; i++) {
        options.compat = i ? SP_EVALUATE_COMPAT_0_4_8 : SP_EVALUATE_COMPAT_0_4_10;
        unsigned flags = SP_ENCODE_SPECIAL | (i ? 0 : SP_ENCODE_TEMPLATE);
        double sum = log_probability(pages[0], flags, 16) + log_probability(pages[1], flags, 16);
        double bytes =
            (double)strlen(file) - 2 - 1; /* the blank line before the first page, the newline before the second */
        double words = 30 + 17;
        json_t *document = evaluate(&options);
        assert_true(fabs(result_of(document, "wikitext", "word_perplexity,none") / exp(-sum / words) - 1) < 1e-4);
        assert_true(fabs(result_of(document, "wikitext", "byte_perplexity,none") / exp(-sum / bytes) - 1) < 1e-4);
        assert_true(fabs(result_of(document, "wikitext", "bits_per_byte,none") + sum / bytes / log(2)) < 1e-4);
        json_decref(document);
    }
}

static void perplexity_in_blocks_is_that_of_gptq(void **state) {
    (void)state;
    static const char *const task[] = {"ppl"};
    static const char joined[] =
        "\n\n = Rivers = \n\n\n\n\n the river carries stones @,@ and \" light \" . it sings \n\n\n"
        " = = Seven bridges = = \n\n\n under seven bridges ; slowly ; 1984 \n\n\n"
        " = Light = \n\n\n light and light and light ( while it sings ) of stones \n";
    sp_evaluate_options options = make_options(task);
    options.ppl_length = 24;
    int32_t *tokens;
    int64_t n;
    assert_ok(sp_tokenizer_encode_with(tokenizer, joined, (int64_t)strlen(joined), SP_ENCODE_TEMPLATE, &tokens, &n));
    double loss = 0;
    for (int64_t i = 0; i < n / 24; i++) {
        sp_score_item item = {.tokens = tokens + i * 24, .n_tokens = 24, .n_scored = 23};
        assert_ok(sp_score(model, &item, 1, NULL));
        loss -= item.sum / 23;
    }
    free(tokens);
    json_t *document = evaluate(&options);
    assert_true(fabs(result_of(document, "ppl", "ppl_gptq,none") / exp(loss / (double)(n / 24)) - 1) < 1e-4);
    json_decref(document);
    char *text;
    options.ppl_length = POSITIONS + 1;
    assert_int_equal(sp_evaluate(model, tokenizer, &options, &text), SP_BAD_ARGUMENT);
    assert_string_equal(sp_last_message(), "ppl: blocks of 321 tokens, but the model sees 2 to 320 at once");
    options.ppl_length = POSITIONS;
    assert_int_equal(sp_evaluate(model, tokenizer, &options, &text), SP_BAD_FILE);
    assert_non_null(strstr(sp_last_message(), "less than one block of 320"));
    assert_null(text);
}

static void a_rolling_task_of_the_user_counts_its_own_text(void **state) {
    (void)state;
    put_text("notes.jsonl", "{\"note\":\"the river carries stones\"}\n{\"note\":\"it sings\"}\n");
    const char *path = put_text("notes.json", "{\"name\":\"notes\",\"kind\":\"rolling\",\"data\":\"notes.jsonl\","
                                              "\"text\":\"{note}\"}");
    sp_evaluate_options options = make_options(NULL);
    options.n_tasks = 0;
    options.task_files = &path;
    options.n_task_files = 1;
    unsigned flags = SP_ENCODE_SPECIAL | SP_ENCODE_TEMPLATE;
    double sum =
        log_probability("the river carries stones", flags, POSITIONS) + log_probability("it sings", flags, POSITIONS);
    json_t *document = evaluate(&options);
    assert_true(fabs(result_of(document, "notes", "word_perplexity,none") / exp(-sum / 6) - 1) < 1e-4);
    assert_true(fabs(result_of(document, "notes", "byte_perplexity,none") / exp(-sum / 32) - 1) < 1e-4);
    json_decref(document);
}

/* ---- passkey ---- */

static void the_passkey_grid_has_its_lengths_and_depths(void **state) {
    (void)state;
    static const char *const task[] = {"passkey"}, *const protocols[] = {"paper", "landmark"};
    static const int64_t lengths[] = {0, 40, 100000};
    for (int i = 0; i < 2; i++) {
        sp_evaluate_options options = make_options(task);
        options.passkey = (sp_passkey_options){
            .protocol = protocols[i], .lengths = lengths, .n_lengths = 3, .n_depths = i ? 0 : 3, .n_trials = 2};
        json_t *document = evaluate(&options);
        const json_t *grid =
            json_object_get(json_object_get(json_object_get(document, "softpick"), "tasks"), "passkey");
        const json_t *accuracy = json_object_get(grid, "accuracy"), *tokens = json_object_get(grid, "lengths");
        assert_string_equal(json_string_value(json_object_get(grid, "protocol")), protocols[i]);
        assert_int_equal(json_array_size(accuracy), i ? 1 : 3);
        assert_int_equal(json_array_size(json_object_get(grid, "depths")), i ? 1 : 3);
        assert_int_equal(json_array_size(json_array_get(accuracy, 0)), 3);
        assert_true(json_is_real(json_array_get(json_array_get(accuracy, 0), 0)));
        assert_true(json_is_null(json_array_get(json_array_get(accuracy, 0), 2))); /* longer than the model sees */
        assert_true(json_integer_value(json_array_get(tokens, 0)) < json_integer_value(json_array_get(tokens, 1)));
        assert_int_equal(json_integer_value(json_object_get(
                             json_object_get(json_object_get(document, "n-samples"), "passkey"), "effective")),
                         i ? 4 : 12);
        json_decref(document);
    }
}

static void lengths_adapt_to_a_model_that_sees_little(void **state) {
    (void)state;
    static const char *const task[] = {"passkey"};
    sp_evaluate_options options = make_options(task);
    options.passkey.n_trials = 1;
    json_t *document = evaluate(&options);
    const json_t *grid = json_object_get(json_object_get(json_object_get(document, "softpick"), "tasks"), "passkey");
    const json_t *tokens = json_object_get(grid, "lengths"),
                 *row = json_array_get(json_object_get(grid, "accuracy"), 0);
    assert_int_equal(json_array_size(tokens), 5);
    for (size_t i = 0; i < 5; i++) assert_true(json_is_real(json_array_get(row, i)));
    assert_true(json_integer_value(json_array_get(tokens, 4)) > POSITIONS * 8 / 10);
    json_decref(document);
    char *text;
    options.max_length = 16;
    assert_int_equal(sp_evaluate(model, tokenizer, &options, &text), SP_BAD_ARGUMENT);
    assert_non_null(strstr(sp_last_message(), "the model sees 16"));
}

static int keep(void *user, int32_t token) {
    int32_t **end = user;
    *(*end)++ = token;
    return 0;
}

/* What the task relies on where the key's tokens must follow exactly. */
static void tokens_that_greedy_decoding_gives_are_scored_as_greedy(void **state) {
    (void)state;
    sp_sampling greedy = sp_sampling_default();
    greedy.temperature = 0;
    for (int32_t trial = 0; trial < 8; trial++) {
        int32_t tokens[40], *end = tokens + 30;
        for (int32_t i = 0; i < 30; i++) tokens[i] = (i * (trial + 3) * 7 + trial) % 297 + 3;
        assert_ok(sp_generate(model, tokens, 30, 6, &greedy, keep, &end));
        int64_t n = end - tokens;
        sp_score_item item = {.tokens = tokens, .n_tokens = n, .n_scored = n - 30};
        assert_ok(sp_score(model, &item, 1, NULL));
        assert_true(item.greedy);
        tokens[n - 1] = tokens[n - 1] == 5 ? 6 : 5;
        assert_ok(sp_score(model, &item, 1, NULL));
        assert_false(item.greedy);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wikitext_counts_words_and_bytes_of_the_raw_pages),
        cmocka_unit_test(perplexity_in_blocks_is_that_of_gptq),
        cmocka_unit_test(a_rolling_task_of_the_user_counts_its_own_text),
        cmocka_unit_test(the_passkey_grid_has_its_lengths_and_depths),
        cmocka_unit_test(lengths_adapt_to_a_model_that_sees_little),
        cmocka_unit_test(tokens_that_greedy_decoding_gives_are_scored_as_greedy),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
