/* Token shards: what is written comes back, the split, and files that are refused. */
#include "text_fixture.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "text/shards.h"

static sp_tokenizer *tokenizer;

static int set_up(void **state) {
    if (make_test_folder(state) != 0) return -1;
    tokenizer = make_tokenizer("plain.model", 300);
    return 0;
}

static int tear_down(void **state) {
    sp_tokenizer_free(tokenizer);
    return remove_test_folder(state);
}

static sp_shards_write_options write_options(double validation_fraction, int64_t shard_tokens_max) {
    sp_shards_write_options options = sp_shards_write_options_default();
    options.validation_fraction = validation_fraction;
    options.shard_tokens_max = shard_tokens_max;
    return options;
}

static sp_status write_text(const char *folder, const char *path, double validation_fraction,
                            int64_t shard_tokens_max) {
    sp_shards_write_options options = write_options(validation_fraction, shard_tokens_max);
    return sp_shards_write(at(folder), tokenizer, &path, 1, &options);
}

static sp_shards *open_split(const char *folder, const char *split) {
    sp_shards *shards;
    assert_ok(sp_shards_open(&shards, at(folder), split));
    return shards;
}

/* JSON lines of `n` documents of made-up lines. */
static const char *put_documents(const char *name, int64_t n) {
    char *text = malloc((size_t)n * 4096), *end = text;
    for (int64_t i = 0; i < n; i++) {
        char *lines = make_lines(1000 + (uint64_t)i, 1 + i % 7);
        end += sprintf(end, "{\"text\":\"");
        for (const char *c = lines; *c; c++) end += sprintf(end, *c == '\n' ? "\\n" : "%c", *c);
        end += sprintf(end, "\"}\n");
        free(lines);
    }
    const char *path = put_text(name, text);
    free(text);
    return path;
}

/* Text of document i, without the tokens that frame it. */
static char *document_text(const sp_shards *shards, int64_t i) {
    int64_t first = sp_shards_document(shards, i), n = sp_shards_document(shards, i + 1) - first, n_bytes;
    int32_t *tokens = malloc((size_t)n * sizeof *tokens);
    char *text;
    assert_ok(sp_shards_read(shards, first, n, tokens));
    assert_int_equal(tokens[0], 1);
    assert_int_equal(tokens[n - 1], 2);
    for (int64_t k = 1; k + 1 < n; k++) assert_true(tokens[k] > 2);
    assert_ok(sp_tokenizer_decode(tokenizer, tokens + 1, n - 2, &text, &n_bytes));
    free(tokens);
    return text;
}

/* ---- what comes back ---- */

static void documents_come_back(void **state) {
    (void)state;
    assert_ok(write_text("set", put_documents("d.jsonl", 60), 0.2, 1 << 20));
    sp_shards *train = open_split("set", "train"), *validation = open_split("set", "validation");
    int64_t n = sp_shards_n_documents(train), n_bytes = 0;
    assert_int_equal(n + sp_shards_n_documents(validation), 60);
    assert_true(n > 40 && n < 55);
    for (int64_t i = 0; i < 60; i++) {
        char *text = i < n ? document_text(train, i) : document_text(validation, i - n);
        char *expected = make_lines(1000 + (uint64_t)i, 1 + i % 7);
        assert_string_equal(text, expected);
        n_bytes += (int64_t)strlen(expected);
        free(expected);
        free(text);
    }
    assert_int_equal(sp_shards_text_bytes(train) + sp_shards_text_bytes(validation), n_bytes);
    assert_true((double)sp_shards_text_bytes(validation) < 0.21 * (double)n_bytes);
    assert_true((double)sp_shards_text_bytes(validation) > 0.15 * (double)n_bytes);
    assert_int_equal(sp_shards_document(train, n), sp_shards_n_tokens(train));
    assert_int_equal(sp_shards_vocabulary(train), 300);
    sp_shards_close(train);
    sp_shards_close(validation);
}

static void enough_documents_are_kept_whole(void **state) {
    (void)state;
    const char *path = put_documents("d.jsonl", 60);
    for (double fraction = 0.03; fraction < 1; fraction += 0.07) {
        assert_ok(write_text("whole", path, fraction, 1 << 20));
        sp_shards *train = open_split("whole", "train"), *validation = open_split("whole", "validation");
        assert_int_equal(sp_shards_n_documents(train) + sp_shards_n_documents(validation), 60);
        sp_shards_close(train);
        sp_shards_close(validation);
    }
}

static void one_long_text_is_split_at_a_line(void **state) {
    (void)state;
    char *lines = make_lines(7, 20000); /* several pieces and batches */
    const char *path = put_text("long.txt", lines);
    static const double fractions[] = {0.5, 0.05, 0.00001, 0.99999};
    for (int i = 0; i < 4; i++) {
        assert_ok(write_text("long", path, fractions[i], 1 << 20));
        sp_shards *train = open_split("long", "train"), *validation = open_split("long", "validation");
        assert_int_equal(sp_shards_n_documents(train), 1);
        assert_int_equal(sp_shards_n_documents(validation), 1);
        char *head = document_text(train, 0), *tail = document_text(validation, 0);
        size_t n = strlen(head);
        assert_int_equal(head[n - 1], '\n');
        assert_memory_equal(head, lines, n);
        assert_string_equal(tail, lines + n);
        double share = (double)strlen(tail) / (double)strlen(lines);
        assert_true(share > fractions[i] - 0.001 && share < fractions[i] + 0.001);
        free(head);
        free(tail);
        sp_shards_close(train);
        sp_shards_close(validation);
    }
    free(lines);
}

static void smallest_texts_are_split(void **state) {
    (void)state;
    static const char *const texts[] = {"a\nb", "a\nb\n", "\nb", "a\n\n\n\nb\n", "a\n\n\n\n"};
    for (int i = 0; i < 5; i++) {
        assert_ok(write_text("small", put_text("small.txt", texts[i]), 0.05, 1 << 20));
        sp_shards *train = open_split("small", "train"), *validation = open_split("small", "validation");
        char joined[32], *head = document_text(train, 0), *tail = document_text(validation, 0);
        snprintf(joined, sizeof joined, "%s%s", head, tail);
        assert_true(*head && *tail);
        assert_string_equal(joined, texts[i]);
        free(head);
        free(tail);
        sp_shards_close(train);
        sp_shards_close(validation);
    }
    assert_fails(write_text("single", put_text("single.txt", "one line\n"), 0.05, 1 << 20), SP_BAD_FILE, "one line");
    assert_false(sp_folder_exists(at("single")));
    assert_ok(write_text("single", at("single.txt"), 0, 1 << 20));
    sp_shards *none;
    assert_fails(sp_shards_open(&none, at("single"), "validation"), SP_IO, "validation-00000.tokens");
}

static void run_does_not_depend_on_shards(void **state) {
    (void)state;
    const char *path = put_documents("d.jsonl", 60);
    assert_ok(write_text("one", path, 0.2, 1 << 20));
    assert_ok(write_text("many", path, 0.2, 97));
    assert_true(sp_file_exists(at("many/train-00010.tokens")));
    static const char *const splits[] = {"train", "validation"};
    for (int s = 0; s < 2; s++) {
        sp_shards *one = open_split("one", splits[s]), *many = open_split("many", splits[s]);
        int64_t n = sp_shards_n_tokens(one), n_documents = sp_shards_n_documents(one);
        assert_int_equal(sp_shards_n_tokens(many), n);
        assert_int_equal(sp_shards_n_documents(many), n_documents);
        assert_int_equal(sp_shards_text_bytes(many), sp_shards_text_bytes(one));
        for (int64_t i = 0; i <= n_documents; i++)
            assert_int_equal(sp_shards_document(many, i), sp_shards_document(one, i));
        int32_t a[250], b[250];
        for (int64_t first = 0; first + 250 <= n; first += 61) {
            assert_ok(sp_shards_read(one, first, 250, a));
            assert_ok(sp_shards_read(many, first, 250, b));
            assert_memory_equal(a, b, sizeof a);
        }
        assert_ok(sp_shards_read(many, n, 0, b));
        assert_fails(sp_shards_read(many, n - 1, 2, b), SP_BAD_ARGUMENT, "there are");
        assert_fails(sp_shards_read(many, -1, 1, b), SP_BAD_ARGUMENT, "there are");
        sp_shards_close(one);
        sp_shards_close(many);
    }
}

static void long_documents_are_cut_when_asked(void **state) {
    (void)state;
    char *lines = make_lines(8, 400);
    const char *path = put_text("cut.txt", lines);
    sp_shards_write_options options = write_options(0.1, 1 << 20);
    options.document_bytes_max = 300;
    assert_ok(sp_shards_write(at("cut"), tokenizer, &path, 1, &options));
    sp_shards *train = open_split("cut", "train");
    const char *expected = lines;
    for (int64_t i = 0; i < sp_shards_n_documents(train); i++) {
        char *text = document_text(train, i);
        assert_true(strlen(text) <= 300);
        assert_memory_equal(text, expected, strlen(text));
        expected += strlen(text);
        free(text);
    }
    assert_true(sp_shards_n_documents(train) > 20);
    sp_shards_close(train);
    free(lines);
}

/* Piece i of the large vocabulary: two Chinese characters. */
static void large_piece(char out[7], int i) {
    int a = 0x4e00 + i / 300, b = 0x6e00 + i % 300;
    snprintf(out, 7, "%c%c%c%c%c%c", 0xe0 | a >> 12, 0x80 | (a >> 6 & 0x3f), 0x80 | (a & 0x3f), 0xe0 | b >> 12,
             0x80 | (b >> 6 & 0x3f), 0x80 | (b & 0x3f));
}

/* A vocabulary beyond 16 bits: the small model with 70,000 pieces more. */
static void large_vocabularies_take_four_bytes(void **state) {
    (void)state;
    char *model, piece[7];
    int64_t n_bytes;
    assert_ok(sp_file_read(at("plain.model"), &model, &n_bytes));
    model = realloc(model, (size_t)n_bytes + 70000 * 16);
    char *end = model + n_bytes;
    for (int i = 0; i < 70000; i++) {
        large_piece(piece, i);
        end += sprintf(end, "\x0a\x08\x0a\x06%s", piece);
    }
    sp_tokenizer *large;
    assert_ok(sp_tokenizer_open(&large, put("large.model", model, end - model)));
    free(model);
    char expected[64];
    snprintf(expected, sizeof expected, "the river %s sings\n", piece);
    const char *path = put_text("large.txt", expected);
    sp_shards_write_options options = write_options(0, 1 << 20);
    assert_ok(sp_shards_write(at("large"), large, &path, 1, &options));
    sp_shards *train = open_split("large", "train");
    int64_t n = sp_shards_n_tokens(train), n_text;
    int32_t tokens[256], largest = 0;
    char *text;
    assert_true(n < 256);
    assert_ok(sp_shards_read(train, 0, n, tokens));
    for (int64_t i = 0; i < n; i++) largest = tokens[i] > largest ? tokens[i] : largest;
    assert_int_equal(largest, 70299);
    assert_ok(sp_tokenizer_decode(large, tokens, n, &text, &n_text));
    assert_string_equal(text, expected);
    free(text);
    sp_shards_close(train);
    sp_tokenizer_free(large);
}

/* ---- what was there stays ---- */

static int64_t count_entries(const char *folder) {
    char command[256];
    snprintf(command, sizeof command, "ls -A '%s' | wc -l", folder);
    FILE *output = popen(command, "r");
    int n = -1;
    assert_int_equal(fscanf(output, "%d", &n), 1);
    pclose(output);
    return n;
}

static void check_still_there(const char *folder, int64_t n_tokens, int64_t n_entries) {
    sp_shards *train = open_split(folder, "train");
    assert_int_equal(sp_shards_n_tokens(train), n_tokens);
    sp_shards_close(train);
    assert_int_equal(count_entries(at(folder)), n_entries);
}

static int cancel_late(void *user, const char *what, int64_t done, int64_t total) {
    (void)user;
    return strcmp(what, "encoding") == 0 && done > 0 && total > 0;
}

static void failed_writing_leaves_the_folder(void **state) {
    (void)state;
    assert_ok(write_text("kept", put_documents("d.jsonl", 60), 0.2, 97));
    sp_shards *train = open_split("kept", "train");
    int64_t n = sp_shards_n_tokens(train), n_entries = count_entries(at("kept"));
    sp_shards_close(train);
    char *lines = make_lines(9, 3000);
    const char *paths[] = {put_text("new.txt", lines), put("binary.txt", "a\0b", 3)};
    free(lines);
    assert_fails(sp_shards_write(at("kept"), tokenizer, paths, 2, NULL), SP_BAD_FILE, "a zero byte");
    check_still_there("kept", n, n_entries);

    sp_shards_write_options options = write_options(0.1, 1 << 20);
    options.progress = cancel_late;
    assert_fails(sp_shards_write(at("kept"), tokenizer, paths, 1, &options), SP_CANCELLED, "cancelled");
    check_still_there("kept", n, n_entries);
    assert_fails(sp_shards_write(at("fresh"), tokenizer, paths, 1, &options), SP_CANCELLED, "cancelled");
    assert_false(sp_folder_exists(at("fresh")));

    struct rlimit limit, small;
    getrlimit(RLIMIT_FSIZE, &limit);
    small = (struct rlimit){.rlim_cur = 40000, .rlim_max = limit.rlim_max};
    signal(SIGXFSZ, SIG_IGN); /* then a write beyond the limit fails as one to a full disk does */
    setrlimit(RLIMIT_FSIZE, &small);
    sp_status status = write_text("kept", paths[0], 0.1, 1 << 20);
    setrlimit(RLIMIT_FSIZE, &limit);
    assert_fails(status, SP_IO, "train-00000.tokens: ");
    check_still_there("kept", n, n_entries);

    assert_ok(write_text("kept", paths[0], 0.1, 1 << 20)); /* fewer files: the surplus goes */
    assert_int_equal(count_entries(at("kept")), 2);
}

static void writing_again_gives_the_same_bytes(void **state) {
    (void)state;
    const char *path = put_documents("d.jsonl", 30);
    char *first, *second;
    int64_t n_first, n_second;
    assert_ok(write_text("again", path, 0.1, 1 << 20));
    assert_ok(sp_file_read(at("again/train-00000.tokens"), &first, &n_first));
    assert_ok(write_text("again", path, 0.1, 1 << 20));
    assert_ok(sp_file_read(at("again/train-00000.tokens"), &second, &n_second));
    assert_int_equal(n_first, n_second);
    assert_memory_equal(first, second, (size_t)n_first);
    free(first);
    free(second);
}

/* ---- what is refused ---- */

static char *shard_bytes; /* of a sound file */
static int64_t n_shard_bytes;

static int set_up_damage(void **state) {
    (void)state;
    assert_ok(write_text("damage", put_documents("d.jsonl", 30), 0, 1 << 20));
    assert_ok(sp_file_read(at("damage/train-00000.tokens"), &shard_bytes, &n_shard_bytes));
    return 0;
}

static int tear_down_damage(void **state) {
    (void)state;
    free(shard_bytes);
    return 0;
}

static void check_refused(sp_status status, const char *words) {
    sp_shards *shards;
    assert_fails(sp_shards_open(&shards, at("damage"), "train"), status, words);
    assert_non_null(strstr(sp_last_message(), "train-00000.tokens"));
    assert_null(shards);
}

static void shard_cut_short_is_refused(void **state) {
    (void)state;
    for (int64_t n = n_shard_bytes - 1; n >= 0; n -= n > 200 ? 97 : 1) {
        put("damage/train-00000.tokens", shard_bytes, n);
        check_refused(SP_BAD_FILE, "cut short");
    }
    char *longer = calloc(1, (size_t)n_shard_bytes + 8);
    memcpy(longer, shard_bytes, (size_t)n_shard_bytes);
    put("damage/train-00000.tokens", longer, n_shard_bytes + 8);
    check_refused(SP_BAD_FILE, "more than its header says");
    free(longer);
}

static void every_byte_of_the_header_counts(void **state) {
    (void)state;
    for (int64_t i = 0; i < (int64_t)sizeof(sp_shard_header); i++) {
        shard_bytes[i] ^= 1;
        put("damage/train-00000.tokens", shard_bytes, n_shard_bytes);
        shard_bytes[i] ^= 1;
        bool version = i >= 8 && i < 12;
        check_refused(version && i > 8 ? SP_VERSION : SP_BAD_FILE, i < 8     ? "not a token shard"
                                                                   : version ? ""
                                                                             : "damaged");
    }
}

/* Puts the file with another header, whose hash is right. */
static void put_header(sp_shard_header header) {
    char *changed = malloc((size_t)n_shard_bytes);
    header.hash = sp_shard_header_hash(&header);
    memcpy(changed, shard_bytes, (size_t)n_shard_bytes);
    memcpy(changed, &header, sizeof header);
    put("damage/train-00000.tokens", changed, n_shard_bytes);
    free(changed);
}

static void contradictions_are_refused(void **state) {
    (void)state;
    sp_shard_header sound, header;
    memcpy(&sound, shard_bytes, sizeof sound);
    put_header(sound);
    sp_shards_close(open_split("damage", "train"));
    put_header((header = sound, header.version = 2, header));
    check_refused(SP_VERSION, "version 2 is newer than this program, which reads up to 1");
    put_header((header = sound, header.token_bytes = 4, header));
    check_refused(SP_BAD_FILE, "contradicts itself");
    put_header((header = sound, header.n_tokens = INT64_MAX - 1, header));
    check_refused(SP_BAD_FILE, "its header");
    put_header((header = sound, header.n_documents = header.n_tokens + 1, header));
    check_refused(SP_BAD_FILE, "contradicts itself");
    put_header((header = sound, header.n_tokens += 4, header.n_documents -= 1, header));
    check_refused(SP_BAD_FILE, "document"); /* the table is read from a wrong place */
    put_header((header = sound, header.index = 1, header));
    check_refused(SP_BAD_FILE, "of another set");
    put_header((header = sound, header.is_last = 0, header));
    sp_shards *shards;
    assert_fails(sp_shards_open(&shards, at("damage"), "train"), SP_IO, "train-00001.tokens: there is no such file");
}

static void token_beyond_the_vocabulary_is_refused(void **state) {
    (void)state;
    char *changed = malloc((size_t)n_shard_bytes);
    memcpy(changed, shard_bytes, (size_t)n_shard_bytes);
    memcpy(changed + sizeof(sp_shard_header) + 2 * 5, &(uint16_t){300}, 2);
    put("damage/train-00000.tokens", changed, n_shard_bytes);
    free(changed);
    sp_shards *shards = open_split("damage", "train");
    int32_t tokens[8];
    assert_ok(sp_shards_read(shards, 0, 5, tokens));
    assert_fails(sp_shards_read(shards, 0, 6, tokens), SP_BAD_FILE, "token 300");
    sp_shards_close(shards);
}

static void mixed_sets_are_refused(void **state) {
    (void)state;
    assert_ok(write_text("mix-a", put_documents("d.jsonl", 30), 0.2, 200));
    assert_ok(write_text("mix-b", put_documents("e.jsonl", 40), 0.2, 200));
    sp_shards *shards;
    assert_int_equal(rename(at("mix-b/train-00001.tokens"), at("mix-a/train-00001.tokens")), 0);
    assert_fails(sp_shards_open(&shards, at("mix-a"), "train"), SP_BAD_FILE, "train-00001.tokens: of another set");
    assert_fails(sp_shards_open(&shards, at("mix-b"), "train"), SP_IO,
                 "train-00001.tokens: there is no such file, but");
}

static void splits_of_different_sets_are_refused(void **state) {
    (void)state;
    assert_ok(write_text("left", put_documents("d.jsonl", 30), 0.2, 1 << 20));
    assert_ok(write_text("right", put_documents("e.jsonl", 40), 0.2, 1 << 20));
    assert_int_equal(rename(at("right/validation-00000.tokens"), at("left/validation-00000.tokens")), 0);
    sp_shards *shards;
    assert_fails(sp_shards_open(&shards, at("left"), "train"), SP_BAD_FILE, "validation-00000.tokens: of another set");
    assert_fails(sp_shards_open(&shards, at("left"), "validation"), SP_BAD_FILE, "train-00000.tokens: of another set");
    sp_shards_close(open_split("right", "train"));
}

static void other_tokenizer_is_refused(void **state) {
    (void)state;
    assert_ok(write_text("other", put_documents("d.jsonl", 30), 0, 1 << 20));
    char *model;
    int64_t n_bytes;
    assert_ok(sp_file_read(at("plain.model"), &model, &n_bytes));
    put("other/tokenizer.model", model, n_bytes);
    sp_shards_close(open_split("other", "train"));
    put("other/tokenizer.model", model, n_bytes - 1);
    free(model);
    sp_shards *shards;
    assert_fails(sp_shards_open(&shards, at("other"), "train"), SP_BAD_FILE, "tokenizer.model: not the tokenizer");
    assert_fails(sp_shards_open(&shards, at("other"), "test"), SP_BAD_ARGUMENT, "split test");
    assert_fails(sp_shards_open(&shards, at("nowhere"), "train"), SP_IO, "no such file");
}

static void options_out_of_range_are_refused(void **state) {
    (void)state;
    const char *path = put_text("t.txt", "a\nb\n");
    assert_fails(write_text("no", path, 1.0, 100), SP_BAD_ARGUMENT, "validation fraction 1");
    assert_fails(write_text("no", path, -0.1, 100), SP_BAD_ARGUMENT, "validation fraction -0.1");
    assert_fails(write_text("no", path, 0.1, 0), SP_BAD_ARGUMENT, "shard_tokens_max 0");
    assert_false(sp_folder_exists(at("no")));
}

/* ---- held-out text of which the number of tokens is known ---- */

static void llama_counts_are_the_known_ones(void **state) {
    (void)state;
    sp_tokenizer *llama;
    assert_ok(sp_tokenizer_open(&llama, data_file("tokenizer/llama2/tokenizer.model")));
    const char *path = data_file("train/val.jsonl.zst");
    sp_shards_write_options options = write_options(0, 1 << 20);
    assert_ok(sp_shards_write(at("llama"), llama, &path, 1, &options));
    sp_shards *train = open_split("llama", "train");
    assert_int_equal(sp_shards_n_documents(train), 359);
    assert_int_equal(sp_shards_text_bytes(train), 4892572);
    assert_int_equal(sp_shards_n_tokens(train), 1209367 + 2 * 359);
    sp_shards_close(train);
    sp_tokenizer_free(llama);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents_come_back),
        cmocka_unit_test(enough_documents_are_kept_whole),
        cmocka_unit_test(one_long_text_is_split_at_a_line),
        cmocka_unit_test(smallest_texts_are_split),
        cmocka_unit_test(run_does_not_depend_on_shards),
        cmocka_unit_test(long_documents_are_cut_when_asked),
        cmocka_unit_test(large_vocabularies_take_four_bytes),
        cmocka_unit_test(failed_writing_leaves_the_folder),
        cmocka_unit_test(writing_again_gives_the_same_bytes),
        cmocka_unit_test_setup_teardown(shard_cut_short_is_refused, set_up_damage, tear_down_damage),
        cmocka_unit_test_setup_teardown(every_byte_of_the_header_counts, set_up_damage, tear_down_damage),
        cmocka_unit_test_setup_teardown(contradictions_are_refused, set_up_damage, tear_down_damage),
        cmocka_unit_test_setup_teardown(token_beyond_the_vocabulary_is_refused, set_up_damage, tear_down_damage),
        cmocka_unit_test(mixed_sets_are_refused),
        cmocka_unit_test(splits_of_different_sets_are_refused),
        cmocka_unit_test(other_tokenizer_is_refused),
        cmocka_unit_test(options_out_of_range_are_refused),
        cmocka_unit_test(llama_counts_are_the_known_ones),
    };
    return cmocka_run_group_tests_name("text shards", tests, set_up, tear_down);
}
