/* softpick tokenize as a user runs it: exit codes, what it prints, and what it leaves in the folder. */
#include "text_fixture.h"

#include <sys/wait.h>

#include "base/json.h"

static char tool[4096]; /* beside this program */

static int set_up(void **state) {
    ssize_t n = readlink("/proc/self/exe", tool, sizeof tool - 16);
    if (n < 0) return -1;
    tool[n] = 0;
    strcpy(strrchr(tool, '/'), "/softpick");
    if (make_test_folder(state) != 0) return -1;
    char *lines = make_lines(1, 500);
    put_text("text.txt", lines);
    free(lines);
    return 0;
}

/* Runs "softpick tokenize ARGUMENTS" in the test's folder; standard output and error lie in "out" and "err". */
static int run(const char *arguments) {
    char command[8192];
    if (access(tool, X_OK) != 0) skip(); /* a build of the tests alone */
    snprintf(command, sizeof command, "cd %s && %s tokenize %s >out 2>err", test_folder, tool, arguments);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* The stream, "out" or "err", holds `words`. */
static void check_says(const char *stream, const char *words) {
    char *text;
    assert_ok(sp_file_read(at(stream), &text, NULL));
    if (!strstr(text, words)) fail_msg("%s is not in %s: %s", words, stream, text);
    free(text);
}

/* One line on standard error, which holds `words`. */
static void check_fails(const char *arguments, int code, const char *words) {
    assert_int_equal(run(arguments), code);
    check_says("err", words);
    char *text;
    assert_ok(sp_file_read(at("err"), &text, NULL));
    assert_true(strchr(text, '\n')[1] == 0);
    free(text);
}

/* Wrong usage adds a hint. */
static void check_usage(const char *arguments, const char *words) {
    assert_int_equal(run(arguments), 2);
    check_says("err", words);
    check_says("err", "Try `softpick tokenize --help'");
}

static void trains_and_encodes(void **state) {
    (void)state;
    assert_int_equal(run("--text text.txt --vocabulary 300 --out a --json --quiet"), 0);
    json_t *json;
    assert_ok(sp_json_read(&json, at("out")));
    sp_shards *train;
    assert_ok(sp_shards_open(&train, at("a"), "train"));
    json_t *split = json_object_get(json, "train");
    assert_string_equal(json_string_value(json_object_get(json, "schema")), "softpick-tokenize/1");
    assert_int_equal(json_integer_value(json_object_get(split, "tokens")), sp_shards_n_tokens(train));
    assert_int_equal(json_integer_value(json_object_get(split, "documents")), 1);
    assert_int_equal(json_integer_value(json_object_get(split, "text_bytes")), sp_shards_text_bytes(train));
    json_decref(json);
    sp_shards_close(train);
    check_says("err", "");
}

static void uses_a_given_tokenizer(void **state) {
    (void)state;
    assert_int_equal(run("--text text.txt --vocabulary 300 --out b"), 0);
    assert_int_equal(run("text.txt --tokenizer b --validation 0 --out c"), 0);
    check_says("out", "300 pieces, b");
    assert_true(sp_file_exists(at("c/tokenizer.model")));
    assert_false(sp_file_exists(at("c/validation-00000.tokens")));
}

static void tokenizer_json_travels_with_the_shards(void **state) {
    (void)state;
    put_text("letters.json",
             "{\"added_tokens\":[{\"id\":3,\"content\":\"</s>\",\"special\":true}],\"model\":{\"type\":\"BPE\","
             "\"vocab\":{\"t\":0,\"h\":1,\"?\":2},\"merges\":[],\"unk_token\":\"?\",\"fuse_unk\":true}}");
    assert_int_equal(run("--text - --tokenizer letters.json --out h -q <text.txt"), 0);
    check_says("out", "4 pieces, letters.json");
    assert_true(sp_file_exists(at("h/tokenizer.json")));
    assert_int_equal(run("--text text.txt --tokenizer b/tokenizer.model --out h -q --force"), 0);
    assert_false(sp_file_exists(at("h/tokenizer.json")));
    check_fails("--text text.txt --tokenizer letters.json --out h -q", 2, "exists; --force replaces it");
    put_text("broken.json", "{\"model\":{\"type\":\"WordLevel\"}}");
    check_fails("--text text.txt --tokenizer broken.json --out i -q", 1,
                "broken.json: model 'WordLevel' is not supported");
}

static void reads_standard_input(void **state) {
    (void)state;
    assert_int_equal(run("--text - --vocabulary 300 --out d <text.txt"), 0);
    assert_int_equal(run("--text - --vocabulary 300 --out e --force < /dev/null"), 3);
    char command[8192];
    snprintf(command, sizeof command,
             "cd %s && cat text.txt | %s tokenize -t - -v 300 -o e -q >out && cmp d/train-00000.tokens "
             "e/train-00000.tokens && cmp d/tokenizer.model e/tokenizer.model",
             test_folder, tool);
    assert_int_equal(system(command), 0);
}

static void keeps_what_is_there(void **state) {
    (void)state;
    assert_int_equal(run("--text text.txt --vocabulary 300 --out f"), 0);
    char *before, *after;
    int64_t n_before, n_after;
    assert_ok(sp_file_read(at("f/train-00000.tokens"), &before, &n_before));
    check_fails("--text text.txt --vocabulary 310 --out f -q", 2, "f/train-00000.tokens: exists; --force replaces it");
    put("binary.txt", "text\n\0", 6);
    check_fails("--text text.txt binary.txt --vocabulary 310 --out f --force -q", 3, "binary.txt, line 2: a zero byte");
    assert_ok(sp_file_read(at("f/train-00000.tokens"), &after, &n_after));
    assert_int_equal(n_before, n_after);
    assert_memory_equal(before, after, (size_t)n_after);
    free(before);
    free(after);
    assert_int_equal(run("--text text.txt --vocabulary 310 --out f --force"), 0);
    check_says("out", "310 pieces");
}

static void names_what_is_wrong(void **state) {
    (void)state;
    check_fails("--text absent.txt --out g", 3, "absent.txt: No such file");
    check_fails("--text text.txt --out g --tokenizer text.txt", 3, "text.txt: not a sentencepiece model");
    check_fails("--text text.txt --out g --vocabulary 1M -q", 2,
                "vocabulary 1000000 is too large for this text: at most");
    check_usage("--out g", "--text: no text was named");
    check_usage("--text text.txt", "--out: no folder was named");
    check_usage("--text text.txt --out g --vocabulary few", "--vocabulary");
    check_fails("--text text.txt --out g --kind word -q", 2, "kind word: bpe and unigram are known");
    check_usage("--text text.txt --out g --tokenizer b --vocabulary 300", "--tokenizer: given");
    assert_false(sp_folder_exists(at("g")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trains_and_encodes),
        cmocka_unit_test(uses_a_given_tokenizer),
        cmocka_unit_test(tokenizer_json_travels_with_the_shards),
        cmocka_unit_test(reads_standard_input),
        cmocka_unit_test(keeps_what_is_there),
        cmocka_unit_test(names_what_is_wrong),
    };
    return cmocka_run_group_tests_name("text command", tests, set_up, remove_test_folder);
}
