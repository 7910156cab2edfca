/* Splitters: against golden answers, and what is refused. */
#include "text_components.h"

#include "text/regex.h"
#include "text/splitter.h"

/* ---- golden answers ---- */

static void check_pieces(const char *component, const sp_bytes *text, const sp_spans *pieces, const json_t *expected) {
    for (int64_t i = 0; i < pieces->n || (size_t)i < json_array_size(expected); i++) {
        const json_t *piece = json_array_get(expected, (size_t)i);
        sp_span span = i < pieces->n ? pieces->items[i] : (sp_span){0, 0};
        int64_t n = span.end - span.begin;
        if (!piece || n != (int64_t)json_string_length(piece) ||
            memcmp(text->data + span.begin, json_string_value(piece), (size_t)n) != 0)
            fail_msg("%s: piece %" PRId64 " is \"%.*s\", not \"%s\"", component, i, (int)n, text->data + span.begin,
                     piece ? json_string_value(piece) : "(none)");
    }
}

static void check_component(const json_t *component, const json_t *texts, const json_t *expected) {
    char *words = json_dumps(component, 0);
    sp_splitter *splitter;
    sp_status status = sp_splitter_new(&splitter, component, "golden");
    if (is_left_out(status)) {
        free(words);
        return;
    }
    assert_ok(status);
    sp_spans pieces = {0};
    for (size_t i = 0; i < json_array_size(texts); i++) {
        sp_bytes text = bytes_of(json_string_value(json_array_get(texts, i)));
        assert_ok(sp_splitter_split(splitter, &text, true, &pieces));
        check_pieces(words, &text, &pieces, json_array_get(expected, i));
        sp_bytes_free(&text);
    }
    sp_spans_free(&pieces);
    sp_splitter_free(splitter);
    free(words);
}

static void pieces_are_those_of_tokenizers(void **state) {
    (void)state;
    json_t *all = read_components();
    size_t i, n = 0;
    const json_t *one;
    json_array_foreach(json_object_get(all, "cases"), i, one) {
        if (strcmp(json_string_value(json_object_get(one, "kind")), "splitter") != 0) continue;
        check_component(json_object_get(one, "component"), json_object_get(all, "texts"),
                        json_object_get(one, "pieces"));
        n++;
    }
    assert_true(n > 80);
    json_decref(all);
}

/* ---- what golden answers do not show ---- */

/* Pieces between '|', of a text that begins what is encoded or not. */
static void check_split(const char *component, const char *given, bool begins_text, const char *expected) {
    json_t *json = parse(component);
    sp_splitter *splitter;
    sp_bytes text = bytes_of(given), joined = {0};
    sp_spans pieces = {0};
    assert_ok(sp_splitter_new(&splitter, json, "tokenizer.json"));
    assert_ok(sp_splitter_split(splitter, &text, begins_text, &pieces));
    for (int64_t i = 0; i < pieces.n; i++) {
        if (i > 0) assert_ok(sp_bytes_add(&joined, "|", 1));
        int64_t n = pieces.items[i].end - pieces.items[i].begin;
        assert_ok(sp_bytes_add(&joined, text.data + pieces.items[i].begin, n));
    }
    assert_ok(sp_bytes_add(&joined, "", 1));
    assert_string_equal(joined.data, expected);
    sp_bytes_free(&text);
    sp_bytes_free(&joined);
    sp_spans_free(&pieces);
    sp_splitter_free(splitter);
    json_decref(json);
}

static void scheme_first_marks_the_beginning_of_the_text_alone(void **state) {
    (void)state;
    static const char first[] = "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\"}";
    check_split(first, "a b", true, "_a|_b");
    check_split(first, "a b", false, "a|_b");
    static const char behind[] = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"},"
                                 "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\"}]}";
    check_split(behind, "a b", true, "_a|b");
    check_split(behind, " a b", true, "a|b");
}

static void no_splitter_leaves_the_text_whole(void **state) {
    (void)state;
    sp_splitter *splitter;
    sp_bytes text = bytes_of("a b"), none = {0};
    sp_spans pieces = {0};
    assert_ok(sp_splitter_new(&splitter, NULL, "tokenizer.json"));
    assert_false(sp_splitter_byte_level(splitter));
    assert_ok(sp_splitter_split(splitter, &text, true, &pieces));
    assert_int_equal(pieces.n, 1);
    assert_int_equal(pieces.items[0].end, 3);
    assert_ok(sp_splitter_split(splitter, &none, true, &pieces));
    assert_int_equal(pieces.n, 0);
    sp_bytes_free(&text);
    sp_spans_free(&pieces);
    sp_splitter_free(splitter);
}

static void check_refused(const char *component, sp_status status, const char *words) {
    json_t *json = parse(component);
    sp_splitter *splitter;
    assert_fails(sp_splitter_new(&splitter, json, "tokenizer.json"), status, words);
    assert_null(splitter);
    if (strncmp(sp_last_message(), "tokenizer.json: ", 16) != 0) fail_msg("%s", sp_last_message());
    json_decref(json);
}

static void unknown_components_are_refused_by_name(void **state) {
    (void)state;
    check_refused("{\"type\":\"UnicodeScripts\"}", SP_UNSUPPORTED,
                  "UnicodeScripts is not supported (these are: Sequence, ByteLevel,");
    check_refused("{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                  "\"trim_offsets\":true,\"use_regex\":false},{\"type\":\"Whitespace\"}]}",
                  SP_UNSUPPORTED, "Whitespace behind ByteLevel");
    check_refused("{\"type\":7}", SP_BAD_FILE, "\"type\"");
    check_refused("{\"type\":\"Sequence\"}", SP_BAD_FILE, "pretokenizers");
    check_refused("{\"type\":\"Digits\"}", SP_BAD_FILE, "individual_digits");
    check_refused("{\"type\":\"Metaspace\"}", SP_BAD_FILE, "replacement");
    check_refused("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":false}", SP_BAD_FILE, "never");
    check_refused("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"last\"}", SP_BAD_FILE, "last");
    check_refused("{\"type\":\"Split\",\"pattern\":{\"String\":\"\"},\"behavior\":\"Removed\",\"invert\":false}",
                  SP_UNSUPPORTED, "empty string");
    check_refused("{\"type\":\"Split\",\"pattern\":\"a\",\"behavior\":\"Removed\",\"invert\":false}", SP_BAD_FILE,
                  "pattern");
    check_refused("{\"type\":\"Punctuation\",\"behavior\":\"isolated\"}", SP_BAD_FILE, "isolated");
}

static void sequences_have_an_end(void **state) {
    (void)state;
    json_t *list = json_array(), *sequence = json_object();
    sp_splitter *splitter;
    for (int i = 0; i < 65; i++) json_array_append_new(list, json_pack("{ss}", "type", "WhitespaceSplit"));
    json_object_set_new(sequence, "type", json_string("Sequence"));
    json_object_set_new(sequence, "pretokenizers", list);
    assert_fails(sp_splitter_new(&splitter, sequence, "tokenizer.json"), SP_UNSUPPORTED, "more than 64 steps");
    json_decref(sequence);
}

/* ---- regular expressions ---- */

#if SP_WITH_PCRE2

static void check_no_regex(const char *pattern, const char *words) {
    sp_regex *regex;
    assert_fails(sp_regex_new(&regex, pattern, (int64_t)strlen(pattern), "tokenizer.json"), SP_UNSUPPORTED, words);
    assert_null(regex);
}

static void what_a_regex_may_not_hold_is_named_with_its_place(void **state) {
    (void)state;
    check_no_regex("ab(?<x", "group at byte 4");
    check_no_regex("a**)", "')' that ends nothing at byte 3");
    check_no_regex("*a", "a repetition of nothing at byte 0");
    check_no_regex("(a", "a group without its end");
    check_no_regex("[a", "a class without its end");
    check_no_regex("[]", "an empty class");
    check_no_regex("[z-a]", "a range without ends");
    check_no_regex("\\p{Klingon}", "a name that is not known");
    check_no_regex("\\p{rust word}", "a name that is not known");
    check_no_regex("\\pL", "a property without braces");
    check_no_regex("(a)\\1", "an escape");
    check_no_regex("\\K", "an escape");
    check_no_regex("\\xff", "a byte by its number");
    check_no_regex("\\x{d800}", "a number of no character");
    check_no_regex("a(?i)b", "options in the middle");
    check_no_regex("(?x: a )", "this kind of group");
    check_no_regex("(?i:\xc3\xa9)", "beyond ASCII whose case does not count");
    check_no_regex("(?i:pass)", "letters that are one in another case");
    check_no_regex("a{70000}", "more than 65535 times");
    check_no_regex("a{3,2}", "exchanged");
    check_no_regex("(?<=a*)b", "refused by PCRE2");
    check_no_regex("\\", "its end too early");
}

static void large_regexes_are_refused(void **state) {
    (void)state;
    char *pattern = calloc(1, 40000);
    assert_non_null(pattern);
    memset(pattern, '(', 100);
    check_no_regex(pattern, "nested this deep");
    memset(pattern, '[', 100);
    check_no_regex(pattern, "nested too deep");
    memset(pattern, 'a', 20000);
    check_no_regex(pattern, "20000 bytes");
    char *end = pattern;
    for (int i = 0; i < 70; i++) end += sprintf(end, "[^\\x{%x}]", 0x100 + i);
    check_no_regex(pattern, "more than 64 different classes");
    free(pattern);
}

/* Nested repetition: found, or given up with a message, but not endless. */
static void matching_gives_up(void **state) {
    (void)state;
    static const char pattern[] = "(?:a+a+)+[^a]";
    sp_regex *regex;
    sp_spans matches = {0};
    char text[64];
    memset(text, 'a', sizeof text);
    assert_ok(sp_regex_new(&regex, pattern, sizeof pattern - 1, "tokenizer.json"));
    assert_fails(sp_regex_find_all(regex, text, sizeof text, &matches), SP_UNSUPPORTED, "match limit");
    sp_spans_free(&matches);
    sp_regex_free(regex);
}

static void long_runs_of_spaces_are_matched(void **state) {
    (void)state;
    enum { N = 300000 };
    static const char pattern[] = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+|(?:\\p{L}|\\p{M})+";
    sp_regex *regex;
    sp_spans matches = {0};
    char *text = malloc(N);
    assert_non_null(text);
    memset(text, ' ', N);
    memset(text + N / 2, 'x', N / 2);
    memcpy(text, "\xc2\xa0", 2);
    assert_ok(sp_regex_new(&regex, pattern, sizeof pattern - 1, "tokenizer.json"));
    assert_ok(sp_regex_find_all(regex, text, N, &matches));
    assert_int_equal(matches.n, 3);
    assert_int_equal(matches.items[0].end, N / 2 - 1);
    assert_int_equal(matches.items[2].end, N);
    sp_spans_free(&matches);
    sp_regex_free(regex);
    free(text);
}

#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_those_of_tokenizers),
        cmocka_unit_test(scheme_first_marks_the_beginning_of_the_text_alone),
        cmocka_unit_test(no_splitter_leaves_the_text_whole),
        cmocka_unit_test(unknown_components_are_refused_by_name),
        cmocka_unit_test(sequences_have_an_end),
#if SP_WITH_PCRE2
        cmocka_unit_test(what_a_regex_may_not_hold_is_named_with_its_place),
        cmocka_unit_test(large_regexes_are_refused),
        cmocka_unit_test(matching_gives_up),
        cmocka_unit_test(long_runs_of_spaces_are_matched),
#endif
    };
    return cmocka_run_group_tests_name("text splitter", tests, NULL, NULL);
}
