/* Corpora: what is a document, what is refused, and that reading piece by piece loses nothing. */
#include "text_fixture.h"

#include <fcntl.h>
#include <sys/stat.h>
#if SP_WITH_ZLIB
#include <zlib.h>
#endif
#if SP_WITH_ZSTD
#include <zstd.h>
#endif

#include "text/corpus.h"
#include "text/utf8.h"

/* A corpus read to its end: documents as strings, and the status that ended it. */
typedef struct reading {
    char *documents[4096];
    int64_t n, n_pieces;
    sp_status status;
} reading;

static void add_piece(reading *got, const sp_corpus_piece *piece) {
    char **document = &got->documents[got->n];
    size_t before = *document ? strlen(*document) : 0;
    *document = realloc(*document, before + (size_t)piece->n_bytes + 1);
    assert_non_null(*document);
    memcpy(*document + before, piece->text, (size_t)piece->n_bytes);
    (*document)[before + (size_t)piece->n_bytes] = 0;
}

static void clear(reading *got) {
    for (int64_t i = 0; i <= got->n; i++) free(got->documents[i]);
    free(got);
}

static reading *read_corpus(const char *const *paths, int64_t n, sp_corpus_options options) {
    reading *got = calloc(1, sizeof *got);
    assert_non_null(got);
    bool inside = false;
    sp_corpus *corpus;
    got->status = sp_corpus_open(&corpus, paths, n, &options);
    if (got->status != SP_OK) return got;
    for (;;) {
        sp_corpus_piece piece;
        got->status = sp_corpus_next(corpus, &piece);
        if (got->status != SP_OK || !piece.text) break;
        assert_true(piece.n_bytes > 0);
        assert_int_equal(piece.starts, !inside);
        assert_true(piece.starts || piece.text[0] == '\n');
        add_piece(got, &piece);
        inside = !piece.ends;
        got->n_pieces++;
        got->n += piece.ends;
    }
    sp_corpus_close(corpus);
    return got;
}

static reading *read_one(const char *path) { return read_corpus(&path, 1, (sp_corpus_options){0}); }

static void check_refused(const char *path, sp_status status, const char *words) {
    reading *got = read_one(path);
    assert_fails(got->status, status, words);
    assert_non_null(strstr(sp_last_message(), path));
    clear(got);
}

/* ---- documents ---- */

static void text_file_is_one_document(void **state) {
    (void)state;
    const char *text = "one\n\ntwo \xe2\x80\xa8 three\nno newline at the end";
    reading *got = read_one(put_text("a.txt", text));
    assert_ok(got->status);
    assert_int_equal(got->n, 1);
    assert_string_equal(got->documents[0], text);
    clear(got);
}

static void json_lines_end_at_newline_bytes_only(void **state) {
    (void)state;
    const char *path = put_text("a.jsonl", "{\"text\": \"a\xe2\x80\xa8"
                                           "b\xe2\x80\xa9"
                                           "c\xc2\x85"
                                           "d\\ne\", \"id\": 7}\r\n"
                                           "\n"
                                           "{\"text\": \"\"}\n"
                                           "{\"id\": {\"text\": 1}, \"text\": \"\\ud83d\\ude00\"}");
    reading *got = read_one(path);
    assert_ok(got->status);
    assert_int_equal(got->n, 2);
    assert_string_equal(got->documents[0], "a\xe2\x80\xa8"
                                           "b\xe2\x80\xa9"
                                           "c\xc2\x85"
                                           "d\ne");
    assert_string_equal(got->documents[1], "\xf0\x9f\x98\x80");
    clear(got);
}

static void byte_order_mark_is_no_text(void **state) {
    (void)state;
    reading *got = read_one(put_text("mark.txt", "\xef\xbb\xbfhello\n"));
    assert_ok(got->status);
    assert_string_equal(got->documents[0], "hello\n");
    clear(got);
}

static void pieces_join_to_the_text(void **state) {
    (void)state;
    static const int64_t sizes[] = {1, 2, 17, 100, 1000, 1 << 20};
    char *text = make_lines(1, 600);
    const char *path = put_text("pieces.txt", text);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        reading *got = read_corpus(&path, 1, (sp_corpus_options){.piece_bytes = sizes[i]});
        assert_ok(got->status);
        assert_int_equal(got->n, 1);
        assert_true(sizes[i] > 1000 || got->n_pieces > 1);
        assert_string_equal(got->documents[0], text);
        clear(got);
    }
    free(text);
}

static void long_documents_are_cut_at_line_ends(void **state) {
    (void)state;
    char *text = make_lines(2, 600), *at_text = text;
    const char *path = put_text("long.txt", text);
    for (int64_t piece_bytes = 0; piece_bytes <= 100; piece_bytes += 50) {
        reading *got = read_corpus(&path, 1, (sp_corpus_options){piece_bytes, 500});
        assert_ok(got->status);
        assert_true(got->n > 10);
        at_text = text;
        for (int64_t i = 0; i < got->n; i++) {
            size_t n = strlen(got->documents[i]);
            assert_true(n <= 500 && n > 300);
            assert_int_equal(got->documents[i][n - 1], '\n');
            assert_memory_equal(got->documents[i], at_text, n);
            at_text += n;
            if (i == got->n - 2 && strlen(at_text) <= 300) break;
        }
        clear(got);
    }
    free(text);
}

static void long_lines_pass_through_the_buffer(void **state) {
    (void)state;
    int64_t n = 5 << 20;
    char *line = malloc((size_t)n + 1);
    memset(line, 'x', (size_t)n);
    line[n] = 0;
    reading *got =
        read_corpus((const char *const[]){put("line.txt", line, n)}, 1, (sp_corpus_options){.piece_bytes = 10});
    assert_ok(got->status);
    assert_int_equal(got->n, 1);
    assert_string_equal(got->documents[0], line);
    clear(got);
    free(line);
}

static void folders_are_searched_in_order(void **state) {
    (void)state;
    assert_ok(sp_folder_make(at("tree/b")));
    assert_ok(sp_folder_make(at("tree/.hidden")));
    put_text("tree/c.txt", "third");
    put_text("tree/b/z.jsonl", "{\"text\":\"second\"}\n");
    put_text("tree/a.txt", "first");
    put_text("tree/a.png", "no text");
    put_text("tree/.hidden/a.txt", "not this");
    reading *got = read_one(at("tree"));
    assert_ok(got->status);
    assert_int_equal(got->n, 3);
    assert_string_equal(got->documents[0], "first");
    assert_string_equal(got->documents[1], "second");
    assert_string_equal(got->documents[2], "third");
    clear(got);
    assert_ok(sp_folder_make(at("bare")));
    check_refused(at("bare"), SP_IO, "no .txt or .jsonl file");
}

static void survey_counts_what_reading_gives(void **state) {
    (void)state;
    const char *paths[] = {put_text("s.jsonl", "{\"text\":\"ab\\ncd\"}\n{\"text\":\"efg\"}\n"),
                           put_text("s.txt", "h\ni\nj\n")};
    for (int64_t piece_bytes = 0; piece_bytes < 3; piece_bytes++) {
        sp_corpus_facts facts;
        assert_ok(sp_corpus_survey(&facts, paths, 2, &(sp_corpus_options){.piece_bytes = piece_bytes}, NULL, NULL));
        assert_int_equal(facts.n_bytes, 14);
        assert_int_equal(facts.n_documents, 3);
        assert_int_equal(facts.last_document, 8);
        assert_int_equal(facts.last_line, 12);
    }
}

/* ---- compression ---- */

static void check_same_text(const char *path, const char *text) {
    reading *got = read_one(path);
    assert_ok(got->status);
    assert_int_equal(got->n, 1);
    assert_string_equal(got->documents[0], text);
    clear(got);
}

#if SP_WITH_ZLIB || SP_WITH_ZSTD
/* `data` is a whole compressed text of which every proper prefix must be refused. */
static void check_cut_short(const char *name, const uint8_t *data, int64_t n_bytes) {
    for (int64_t n = n_bytes - 1; n > 4; n = n > 200 ? n * 3 / 4 : n - 1) {
        const char *path = put(name, data, n);
        check_refused(path, SP_BAD_FILE, "cut short");
    }
}
#endif

static void gzip_is_read_and_its_end_is_checked(void **state) {
    (void)state;
#if SP_WITH_ZLIB
    char *text = make_lines(3, 3000);
    size_t half = strlen(text) / 2;
    gzFile file = gzopen(at("t.txt.gz"), "wb");
    gzwrite(file, text, (unsigned)half);
    gzclose(file);
    file = gzopen(at("t.txt.gz"), "ab"); /* a second member */
    gzwrite(file, text + half, (unsigned)strlen(text + half));
    gzclose(file);
    check_same_text(at("t.txt.gz"), text);
    char *data;
    int64_t n_bytes;
    file = gzopen(at("u.txt.gz"), "wb");
    gzwrite(file, text, (unsigned)half);
    gzclose(file);
    assert_ok(sp_file_read(at("u.txt.gz"), &data, &n_bytes));
    check_cut_short("cut.txt.gz", (uint8_t *)data, n_bytes);
    data[n_bytes / 2] ^= 0x55;
    check_refused(put("bad.txt.gz", data, n_bytes), SP_BAD_FILE, "damaged gzip data");
    check_refused(put_text("named.txt.gz", "plain text"), SP_BAD_FILE, "not gzip data");
    free(data);
    free(text);
#else
    skip();
#endif
}

static void zstd_is_read_and_its_end_is_checked(void **state) {
    (void)state;
#if SP_WITH_ZSTD
    char *text = make_lines(4, 3000);
    size_t n = strlen(text), half = n / 2, room = ZSTD_compressBound(n) + 1024;
    uint8_t *data = malloc(room);
    size_t first = ZSTD_compress(data, room, text, half, 3);
    size_t second = ZSTD_compress(data + first, room - first, text + half, n - half, 3);
    check_same_text(put("t.txt.zst", data, (int64_t)(first + second)), text);
    check_same_text(put("unnamed", data, (int64_t)(first + second)), text);
    check_cut_short("cut.txt.zst", data, (int64_t)first);
    data[first / 2] ^= 0x55;
    data[2 * first / 3] ^= 0xff;
    reading *got = read_one(put("bad.txt.zst", data, (int64_t)first));
    assert_int_equal(got->status, SP_BAD_FILE);
    clear(got);
    check_refused(put_text("named.txt.zst", "plain text"), SP_BAD_FILE, "not zstd data");
    free(data);
    free(text);
#else
    skip();
#endif
}

/* ---- what is no text ---- */

static void files_without_text_are_refused(void **state) {
    (void)state;
    check_refused(at("missing.txt"), SP_IO, "No such file");
    check_refused(put_text("empty.txt", ""), SP_BAD_FILE, "no text");
    check_refused(put_text("empty.jsonl", "\n \n{\"text\":\"\"}\n"), SP_BAD_FILE, "no text");
    check_refused(put("zero.txt", "ab\ncd\0ef", 8), SP_BAD_FILE, "line 2: a zero byte at column 3");
    check_refused(put_text("latin.txt", "ab\n\ncaf\xe9 au lait"), SP_BAD_FILE,
                  "line 3: a byte that is not UTF-8 at column 4");
    check_refused("/dev/null", SP_IO, "not a regular file");
    reading *got = read_corpus(NULL, 0, (sp_corpus_options){0});
    assert_fails(got->status, SP_BAD_ARGUMENT, "no text was named");
    clear(got);
}

static void bad_json_lines_are_named(void **state) {
    (void)state;
    static const struct {
        const char *line, *words;
    } cases[] = {
        {"{\"text\": \"a\"", "line 2: not JSON"},
        {"{\"text\": \"a\"} x", "line 2: not JSON"},
        {"{\"text\": \"a\", \"text\": \"b\"}", "line 2: not JSON: duplicate object key"},
        {"{\"text\": \"a\\u0000\"}", "line 2: not JSON"},
        {"{\"text\": \"\xe9\"}", "line 2: not JSON"},
        {"[\"text\"]", "line 2: not a JSON object"},
        {"{\"Text\": \"a\"}", "line 2: it has no field \"text\""},
        {"{\"text\": 7}", "line 2: its field \"text\" is not a string"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char lines[256];
        snprintf(lines, sizeof lines, "{\"text\":\"fine\"}\n%s\n", cases[i].line);
        check_refused(put_text("bad.jsonl", lines), SP_BAD_FILE, cases[i].words);
    }
}

static int64_t put_utf8(char *out, uint32_t point) {
    int64_t n = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    static const uint8_t leads[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (int64_t i = n - 1; i > 0; i--, point >>= 6) out[i] = (char)(0x80 | (point & 0x3f));
    out[0] = (char)(leads[n] | point);
    return n;
}

static void utf8_is_what_the_standard_says(void **state) {
    (void)state;
    char text[16];
    for (uint32_t point = 1; point < 0x130000; point++) {
        bool valid = point < 0x110000 && (point < 0xd800 || point > 0xdfff);
        int64_t n = put_utf8(text, point);
        text[n] = 'a';
        assert_int_equal(sp_utf8_prefix(text, n + 1), valid ? n + 1 : 0);
        assert_int_equal(sp_utf8_prefix(text, n - 1), 0);
    }
    static const char *const malformed[] = {"\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf",
                                            "\x80",     "\xff",     "\xfe"};
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++)
        assert_int_equal(sp_utf8_prefix(malformed[i], (int64_t)strlen(malformed[i])), 0);
    for (int64_t k = 0; k < 16; k++) { /* one bad byte anywhere among eight at once */
        memset(text, 'a', sizeof text);
        text[k] = k % 2 ? 0 : (char)0xff;
        assert_int_equal(sp_utf8_prefix(text, sizeof text), k);
    }
}

static void standard_input_may_be_read_twice(void **state) {
    (void)state;
    char *text = make_lines(5, 4000); /* more than a pipe holds */
    char command[256];
    snprintf(command, sizeof command, "cat %s", put_text("input", text));
    FILE *pipe_end = popen(command, "r");
    assert_non_null(pipe_end);
    assert_true(dup2(fileno(pipe_end), STDIN_FILENO) >= 0);
    for (int i = 0; i < 2; i++) check_same_text("-", text);
    pclose(pipe_end);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_file_is_one_document),           cmocka_unit_test(json_lines_end_at_newline_bytes_only),
        cmocka_unit_test(byte_order_mark_is_no_text),          cmocka_unit_test(pieces_join_to_the_text),
        cmocka_unit_test(long_documents_are_cut_at_line_ends), cmocka_unit_test(long_lines_pass_through_the_buffer),
        cmocka_unit_test(folders_are_searched_in_order),       cmocka_unit_test(survey_counts_what_reading_gives),
        cmocka_unit_test(gzip_is_read_and_its_end_is_checked), cmocka_unit_test(zstd_is_read_and_its_end_is_checked),
        cmocka_unit_test(files_without_text_are_refused),      cmocka_unit_test(bad_json_lines_are_named),
        cmocka_unit_test(utf8_is_what_the_standard_says),      cmocka_unit_test(standard_input_may_be_read_twice),
    };
    return cmocka_run_group_tests_name("text corpus", tests, make_test_folder, remove_test_folder);
}
