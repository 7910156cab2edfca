/* Tokenizers: round trips, chunks that change nothing, training, and models that are refused. */
#include "text_fixture.h"

#include "text/sentencepiece_shim.h"
#include "text/tokenizer.h"

static sp_tokenizer *tokenizer; /* of 300 pieces, trained once */

static int set_up(void **state) {
    if (make_test_folder(state) != 0) return -1;
    tokenizer = make_tokenizer("tokenizer.model", 300);
    return 0;
}

static int tear_down(void **state) {
    sp_tokenizer_free(tokenizer);
    return remove_test_folder(state);
}

static void check_round_trip(const sp_tokenizer *with, const char *text) {
    int32_t *tokens;
    int64_t n_tokens, n_bytes;
    char *back;
    assert_ok(sp_tokenizer_encode(with, text, (int64_t)strlen(text), &tokens, &n_tokens));
    assert_ok(sp_tokenizer_decode(with, tokens, n_tokens, &back, &n_bytes));
    assert_int_equal(n_bytes, strlen(text));
    assert_string_equal(back, text);
    free(tokens);
    free(back);
}

static void decoding_undoes_encoding(void **state) {
    (void)state;
    static const char *const texts[] = {"",
                                        "a",
                                        " ",
                                        "  two  spaces ",
                                        "\n",
                                        "\n\n x\t\r\n",
                                        "caf\xc3\xa9 \xf0\x9f\x98\x80",
                                        "<s> </s> <unk> <0x0A> [INST]",
                                        "1234567890",
                                        "\xe2\x80\xa8"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) check_round_trip(tokenizer, texts[i]);
    for (uint64_t seed = 0; seed < 5; seed++) {
        char *lines = make_lines(seed, 50);
        check_round_trip(tokenizer, lines);
        free(lines);
    }
}

static void trained_model_is_as_llamas(void **state) {
    (void)state;
    assert_int_equal(sp_tokenizer_vocabulary(tokenizer), 300);
    assert_int_equal(sp_tokenizer_bos(tokenizer), 1);
    assert_int_equal(sp_tokenizer_eos(tokenizer), 2);
    assert_string_equal(sp_tokenizer_piece(tokenizer, 0), "<unk>");
    assert_string_equal(sp_tokenizer_piece(tokenizer, 1), "<s>");
    assert_string_equal(sp_tokenizer_piece(tokenizer, 2), "</s>");
    assert_string_equal(sp_tokenizer_piece(tokenizer, 3), "<0x00>");
    assert_string_equal(sp_tokenizer_piece(tokenizer, 258), "<0xFF>");
    assert_null(sp_tokenizer_piece(tokenizer, 300));
    assert_null(sp_tokenizer_piece(tokenizer, -1));
    assert_string_equal(sp_tokenizer_path(tokenizer), at("tokenizer.model"));
}

static void digits_stand_alone(void **state) {
    (void)state;
    char text[32 * 50], *end = text;
    for (int i = 0; i < 50; i++) end += sprintf(end, "in 1984 and 1984%d\n", i);
    const char *path = put_text("digits.txt", text);
    sp_tokenizer_train_options options = sp_tokenizer_train_options_default();
    options.vocabulary = 280;
    assert_ok(sp_tokenizer_train(at("digits.model"), &path, 1, &options));
    sp_tokenizer *digits;
    assert_ok(sp_tokenizer_open(&digits, at("digits.model")));
    for (int32_t id = 259; id < 280; id++) {
        const char *piece = sp_tokenizer_piece(digits, id), *digit = strpbrk(piece, "0123456789");
        assert_true(!digit || (digit == piece && digit[1] == 0));
    }
    sp_tokenizer_free(digits);
}

static void control_pieces_in_text_are_text(void **state) {
    (void)state;
    int32_t *tokens;
    int64_t n;
    assert_ok(sp_tokenizer_encode(tokenizer, "<s></s><0x0A>", 13, &tokens, &n));
    for (int64_t i = 0; i < n; i++) assert_true(tokens[i] > 2 && tokens[i] != 3 + '\n');
    free(tokens);
}

static void special_tokens_decode_to_nothing(void **state) {
    (void)state;
    int32_t *tokens, framed[64];
    int64_t n, n_bytes;
    char *text;
    assert_ok(sp_tokenizer_encode(tokenizer, "the river", 9, &tokens, &n));
    framed[0] = 1;
    memcpy(framed + 1, tokens, (size_t)n * 4);
    framed[n + 1] = 2;
    assert_ok(sp_tokenizer_decode(tokenizer, framed, n + 2, &text, &n_bytes));
    assert_string_equal(text, "the river");
    free(text);
    free(tokens);
    assert_fails(sp_tokenizer_decode(tokenizer, (int32_t[]){5, 300}, 2, &text, &n_bytes), SP_BAD_ARGUMENT,
                 "token 300 at 1");
    assert_null(text);
    assert_fails(sp_tokenizer_decode(tokenizer, (int32_t[]){-1}, 1, &text, &n_bytes), SP_BAD_ARGUMENT, "token -1 at 0");
}

/* ---- chunks ---- */

/* The text in chunks, by threads, against sentencepiece on the whole of it. */
static void check_chunks(const sp_tokenizer *with, const char *model_path, const char *text) {
    char *model;
    int64_t n_bytes, n_whole, n;
    int32_t *whole, *tokens;
    sp_sentencepiece *plain;
    assert_ok(sp_file_read(model_path, &model, &n_bytes));
    assert_ok(sp_sentencepiece_open(&plain, model, n_bytes, model_path));
    assert_ok(sp_sentencepiece_encode(plain, text, (int64_t)strlen(text), &whole, &n_whole));
    assert_ok(sp_tokenizer_encode(with, text, (int64_t)strlen(text), &tokens, &n));
    assert_int_equal(n, n_whole);
    assert_memory_equal(tokens, whole, (size_t)n * sizeof *tokens);
    free(tokens);
    free(whole);
    sp_sentencepiece_free(plain);
    free(model);
}

static void chunks_change_no_token(void **state) {
    (void)state;
    assert_true(sp_tokenizer_cuts_at_newlines(tokenizer));
    for (uint64_t seed = 0; seed < 4; seed++) {
        char *lines = make_lines(10 + seed, 1500), *cut = lines + 4096;
        memcpy(cut, "  \n\n \n", 6); /* spaces around the first place where it may be cut */
        check_chunks(tokenizer, at("tokenizer.model"), lines);
        free(lines);
    }
}

/* The model with more bytes: repeated fields of its message grow, single ones are replaced. */
static sp_tokenizer *open_changed(const char *name, const void *more, size_t n_more) {
    char *model;
    int64_t n_bytes;
    assert_ok(sp_file_read(at("tokenizer.model"), &model, &n_bytes));
    model = realloc(model, (size_t)n_bytes + n_more);
    assert_non_null(model);
    memcpy(model + n_bytes, more, n_more);
    sp_tokenizer *changed;
    assert_ok(sp_tokenizer_open(&changed, put(name, model, n_bytes + (int64_t)n_more)));
    free(model);
    return changed;
}

/* Words cut at spaces and newlines wherever they stand, against sentencepiece on the whole. */
static void words_change_no_token(void **state) {
    (void)state;
    static const char *const parts[] = {" ",  " ",           "\n",   "the",          "river",           "a",
                                        "\t", "caf\xc3\xa9", "1984", "\xe2\x96\x81", "\xf0\x9f\x98\x80"};
    static const char doubles[] = "\x0a\x0d\x0a\x06"
                                  "\xe2\x96\x81\xe2\x96\x81"
                                  "\x15\x00\x00\x80\x3f"; /* two spaces in one */
    sp_tokenizer *changed = open_changed("doubles.model", doubles, sizeof doubles - 1);
    for (uint64_t seed = 0; seed < 500; seed++) {
        char text[256], *end = text;
        uint64_t n_kinds = seed % 2 ? 11 : 9, n = 1 + sp_random_below(seed, 0, 0, 16);
        *end = 0;
        for (uint64_t i = 0; i < n; i++) end += sprintf(end, "%s", parts[sp_random_below(seed, 1, i, n_kinds)]);
        check_chunks(tokenizer, at("tokenizer.model"), text);
        check_chunks(changed, at("doubles.model"), text);
    }
    sp_tokenizer_free(changed);
    char longest[600]; /* a word that is too long to be remembered */
    memset(longest, 'r', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    longest[300] = ' ';
    check_chunks(tokenizer, at("tokenizer.model"), longest);
}

static void models_that_forbid_chunks_are_known(void **state) {
    (void)state;
    static const char trims[] = "\x1a\x02\x20\x01"; /* normalizer: remove extra whitespace */
    static const char crosses[] = "\x0a\x0b\x0a\x04"
                                  "a\n\ns"
                                  "\x15\x00\x00\x80\xbf"; /* a piece with newlines */
    static const char spans[] = "\x0a\x0b\x0a\x04"
                                "e\xe2\x96\x81"
                                "\x15\x00\x00\x80\x3f"; /* over two words */
    char *lines = make_lines(20, 1500);
    sp_tokenizer *changed = open_changed("trims.model", trims, sizeof trims - 1);
    assert_false(sp_tokenizer_cuts_at_newlines(changed));
    check_chunks(changed, at("trims.model"), lines);
    sp_tokenizer_free(changed);
    changed = open_changed("crosses.model", crosses, sizeof crosses - 1);
    assert_int_equal(sp_tokenizer_vocabulary(changed), 301);
    assert_false(sp_tokenizer_cuts_at_newlines(changed));
    check_chunks(changed, at("crosses.model"), lines);
    sp_tokenizer_free(changed);
    changed = open_changed("spans.model", spans, sizeof spans - 1);
    assert_string_equal(sp_tokenizer_piece(changed, 300), "e\xe2\x96\x81");
    assert_true(sp_tokenizer_cuts_at_newlines(changed));
    check_chunks(changed, at("spans.model"), lines);
    sp_tokenizer_free(changed);
    free(lines);
}

/* ---- training ---- */

static sp_status train(const char *name, const char *kind, int64_t vocabulary, int64_t n_bytes_max) {
    const char *path = at("tokenizer-text.txt");
    sp_tokenizer_train_options options = sp_tokenizer_train_options_default();
    options.kind = kind;
    options.vocabulary = vocabulary;
    options.n_bytes_max = n_bytes_max;
    return sp_tokenizer_train(at(name), &path, 1, &options);
}

static bool same_files(const char *a, const char *b) {
    char *text_a, *text_b;
    int64_t n_a, n_b;
    assert_ok(sp_file_read(a, &text_a, &n_a));
    assert_ok(sp_file_read(b, &text_b, &n_b));
    bool same = n_a == n_b && memcmp(text_a, text_b, (size_t)n_a) == 0;
    free(text_a);
    free(text_b);
    return same;
}

static void training_again_gives_the_same_bytes(void **state) {
    (void)state;
    assert_ok(train("again.model", "bpe", 300, 0));
    assert_true(same_files(at("again.model"), at("tokenizer.model")));
    assert_ok(train("u1.model", "unigram", 290, 0));
    assert_ok(train("u2.model", "unigram", 290, 0));
    assert_true(same_files(at("u1.model"), at("u2.model")));
    sp_tokenizer *unigram;
    assert_ok(sp_tokenizer_open(&unigram, at("u1.model")));
    check_round_trip(unigram, "the river carries\n  stones\n");
    char *lines = make_lines(30, 1500);
    check_chunks(unigram, at("u1.model"), lines);
    free(lines);
    sp_tokenizer_free(unigram);
}

static void training_reads_an_even_sample(void **state) {
    (void)state;
    char text[64 * 300], *end = text;
    for (int i = 0; i < 300; i++) end += sprintf(end, "%s\n", i < 150 ? "aaa bbb aaa bbb ccc" : "xxx yyy xxx yyy zzz");
    const char *path = put_text("halves.txt", text);
    sp_tokenizer_train_options options = sp_tokenizer_train_options_default();
    options.vocabulary = 272;
    options.n_bytes_max = 600; /* a tenth: of both halves */
    assert_ok(sp_tokenizer_train(at("halves.model"), &path, 1, &options));
    sp_tokenizer *halves;
    assert_ok(sp_tokenizer_open(&halves, at("halves.model")));
    bool has_a = false, has_z = false;
    for (int32_t id = 0; id < 272; id++) {
        has_a |= strstr(sp_tokenizer_piece(halves, id), "a") != NULL;
        has_z |= strstr(sp_tokenizer_piece(halves, id), "z") != NULL;
    }
    assert_true(has_a && has_z);
    sp_tokenizer_free(halves);
}

static int cancel(void *user, const char *what, int64_t done, int64_t total) {
    (void)what, (void)done, (void)total;
    ++*(int *)user;
    return 1;
}

static void impossible_training_is_refused_in_one_line(void **state) {
    (void)state;
    assert_fails(train("no.model", "bpe", 1000000, 0), SP_BAD_ARGUMENT, "too large for this text: at most ");
    assert_fails(train("no.model", "unigram", 1000000, 0), SP_BAD_ARGUMENT, "too large for this text: at most ");
    int64_t largest = atol(strstr(sp_last_message(), "at most ") + 8);
    assert_ok(train("largest.model", "unigram", largest, 0));
    assert_fails(train("no.model", "bpe", 262, 0), SP_BAD_ARGUMENT, "too small: this text needs at least ");
    int64_t smallest = atol(strstr(sp_last_message(), "at least ") + 9);
    assert_ok(train("smallest.model", "bpe", smallest, 0));
    assert_fails(train("no.model", "bpe", 259, 0), SP_BAD_ARGUMENT, "vocabulary 259");
    assert_fails(train("no.model", "word", 300, 0), SP_BAD_ARGUMENT, "kind word");
    assert_false(sp_file_exists(at("no.model")));
    const char *path = put_text("blank.txt", "\n\n\n");
    sp_tokenizer_train_options options = sp_tokenizer_train_options_default();
    assert_fails(sp_tokenizer_train(at("no.model"), &path, 1, &options), SP_BAD_FILE, "no line that is not empty");
    int calls = 0;
    path = at("tokenizer-text.txt");
    options.vocabulary = 300;
    options.progress = cancel;
    options.progress_user = &calls;
    assert_fails(sp_tokenizer_train(at("no.model"), &path, 1, &options), SP_CANCELLED, "cancelled");
    assert_int_equal(calls, 1);
    assert_false(sp_file_exists(at("no.model")));
}

static void damaged_models_are_refused(void **state) {
    (void)state;
    sp_tokenizer *none;
    char *model;
    int64_t n_bytes;
    assert_ok(sp_file_read(at("tokenizer.model"), &model, &n_bytes));
    assert_fails(sp_tokenizer_open(&none, at("absent.model")), SP_IO, "absent.model");
    assert_fails(sp_tokenizer_open(&none, put_text("empty.model", "")), SP_BAD_FILE, "empty");
    assert_fails(sp_tokenizer_open(&none, put_text("text.model", "this is no model")), SP_BAD_FILE,
                 "not a sentencepiece model");
    assert_fails(sp_tokenizer_open(&none, put("cut.model", model, n_bytes / 2)), SP_BAD_FILE,
                 "not a sentencepiece model");
    assert_null(none);
    free(model);
}

static void folder_stands_for_the_model_in_it(void **state) {
    (void)state;
    sp_tokenizer *same;
    assert_ok(sp_tokenizer_open(&same, test_folder));
    assert_string_equal(sp_tokenizer_path(same), at("tokenizer.model"));
    sp_tokenizer_free(same);
}

/* ---- LLaMA-2's tokenizer ---- */

static void check_ids(const sp_tokenizer *with, const char *text, size_t n_bytes, char *expected) {
    int32_t *tokens;
    int64_t n, i = 0;
    assert_ok(sp_tokenizer_encode(with, text, (int64_t)n_bytes, &tokens, &n));
    for (char *word = strtok(expected, " "); word; word = strtok(NULL, " "), i++) {
        assert_true(i < n);
        assert_int_equal(tokens[i], atol(word));
    }
    assert_int_equal(i, n);
    free(tokens);
}

static void llama_ids_are_the_published_ones(void **state) {
    (void)state;
    static const char between[] = "\n__ggml_vocab_test__\n";
    sp_tokenizer *llama;
    char *inputs, *outputs;
    assert_ok(sp_tokenizer_open(&llama, data_file("tokenizer/llama2/tokenizer.model")));
    assert_true(sp_tokenizer_cuts_at_newlines(llama));
    assert_ok(sp_file_read(data_file("tokenizer/llamacpp-vectors/ggml-vocab-llama-spm.gguf.inp"), &inputs, NULL));
    assert_ok(sp_file_read(data_file("tokenizer/llamacpp-vectors/ggml-vocab-llama-spm.gguf.out"), &outputs, NULL));
    char *input = inputs, *output = outputs, *end;
    int n = 0;
    for (; (end = strstr(input, between)); input = end + sizeof between - 1, n++) {
        char *line_end = strchr(output, '\n');
        *line_end = 0;
        check_ids(llama, input, (size_t)(end - input), output);
        output = line_end + 1;
    }
    assert_true(n >= 46);
    free(inputs);
    free(outputs);
    sp_tokenizer_free(llama);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoding_undoes_encoding),
        cmocka_unit_test(trained_model_is_as_llamas),
        cmocka_unit_test(digits_stand_alone),
        cmocka_unit_test(control_pieces_in_text_are_text),
        cmocka_unit_test(special_tokens_decode_to_nothing),
        cmocka_unit_test(chunks_change_no_token),
        cmocka_unit_test(words_change_no_token),
        cmocka_unit_test(models_that_forbid_chunks_are_known),
        cmocka_unit_test(training_again_gives_the_same_bytes),
        cmocka_unit_test(training_reads_an_even_sample),
        cmocka_unit_test(impossible_training_is_refused_in_one_line),
        cmocka_unit_test(damaged_models_are_refused),
        cmocka_unit_test(folder_stands_for_the_model_in_it),
        cmocka_unit_test(llama_ids_are_the_published_ones),
    };
    return cmocka_run_group_tests_name("text tokenizer", tests, set_up, tear_down);
}
