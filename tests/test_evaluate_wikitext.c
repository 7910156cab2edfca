/* WikiText: pages, detokenizer, words, joined lines.  Expected texts were printed by lm-eval 0.4.13's task and by the data
 * set's loader; the whole test file is compared by counts and a fingerprint, where it is at hand. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "evaluate/wikitext.h"
#include "text_fixture.h"

static sp_text_view view(const char *text) { return (sp_text_view){text, (int64_t)strlen(text)}; }

static void expect_detokenized(const char *page, const char *expected) {
    char *text;
    int64_t n;
    assert_int_equal(sp_wikitext_detokenize(&text, &n, view(page)), SP_OK);
    assert_string_equal(text, expected);
    assert_int_equal(n, strlen(expected));
    free(text);
}

static void text_is_detokenized_as_lm_eval_does(void **state) {
    (void)state;
    expect_detokenized("", "");
    expect_detokenized("12 @,@ 000 ft , or 3 @.@ 5 @-@ mile ; yes : no ! why ? so . End",
                       "12,000 ft, or 3.5-mile; yes: no! why? so. End");
    expect_detokenized(" ( a , b ) [ c] {d } \n = = = = Four = = = = \n = = = Three = = = \n = = Two = = \n",
                       " (a, b) [c] {d}\n==== Four ====\n=== Three ===\n== Two ==\n");
    expect_detokenized("the dogs ' bone , it 's 5 ° C , N men , \" said\n he \" and \" open",
                       "the dogs'bone, it's 5°C, 1 men, \"said\nhe\" and \" open");
    expect_detokenized("( nested ( once ) more )", "(nested ( once) more )");
    expect_detokenized("\"\xe3\x80\x80wide\xc2\xa0\"", "\"wide\"");
}

static void unclosed_brackets_stay(void **state) {
    (void)state;
    expect_detokenized("( [ { \" '", "( [ { \" '");
    expect_detokenized(") ] }", ") ] }");
}

static void words_count_the_empty_ends(void **state) {
    (void)state;
    assert_int_equal(sp_wikitext_words(view("")), 1);
    assert_int_equal(sp_wikitext_words(view("one  two\n three")), 3);
    assert_int_equal(sp_wikitext_words(view(" one \xe2\x80\xa8\n")), 3);
}

static void expect_pages(const char *file, const char *expected) {
    sp_text_view *pages;
    int64_t n;
    char joined[256] = "";
    assert_int_equal(sp_wikitext_pages(&pages, &n, view(file)), SP_OK);
    for (int64_t i = 0; i < n; i++) {
        strncat(joined, pages[i].text, (size_t)pages[i].n_bytes);
        strcat(joined, "|");
    }
    assert_string_equal(joined, expected);
    free(pages);
}

static void pages_begin_at_titles(void **state) {
    (void)state;
    expect_pages("", "|");
    expect_pages(" \n = A = \n \n text \n = = Section = = \n more \n = B = \n text \n",
                 " = A = \n \n text \n = = Section = = \n more | = B = \n text \n|");
    expect_pages(" = A = \n = B = \n", " = A = | = B = \n|");
    expect_pages("no title\n", "no title\n|");
    expect_pages(" = a formula that looks like one , x = \n", " = a formula that looks like one , x = \n|");
    expect_pages(" = A = B \n=x =\n", " = A = B \n=x =\n|");
}

static void blank_lines_are_empty_between_two_newlines(void **state) {
    (void)state;
    char *text;
    int64_t n;
    assert_int_equal(sp_wikitext_join_lines(&text, &n, view(" \n = A = \n \n last")), SP_OK);
    assert_string_equal(text, "\n\n = A = \n\n\n\n\n last");
    assert_int_equal(n, strlen(text));
    free(text);
    assert_int_equal(sp_wikitext_join_lines(&text, &n, view("")), SP_OK);
    assert_int_equal(n, 0);
    free(text);
}

static uint32_t fingerprint(uint32_t hash, const char *text, int64_t n) {
    for (int64_t i = 0; i < n; i++) hash = (hash ^ (unsigned char)text[i]) * 16777619u;
    return hash;
}

static void the_test_file_gives_the_texts_of_lm_eval(void **state) {
    (void)state;
    char *file, *text;
    int64_t n_file, n_pages, n, n_words = 0, n_bytes = 0, n_text = 0;
    assert_int_equal(sp_file_read(data_file("eval/wikitext2_wiki.test.raw"), &file, &n_file), SP_OK);
    sp_text_view *pages;
    assert_int_equal(sp_wikitext_pages(&pages, &n_pages, (sp_text_view){file, n_file}), SP_OK);
    assert_int_equal(n_pages, 62);
    uint32_t hash = 2166136261u;
    for (int64_t i = 0; i < n_pages; i++) {
        n_words += sp_wikitext_words(pages[i]);
        n_bytes += pages[i].n_bytes;
        assert_int_equal(sp_wikitext_detokenize(&text, &n, pages[i]), SP_OK);
        hash = fingerprint(hash, text, n);
        n_text += n;
        free(text);
    }
    assert_int_equal(n_words, 241335);
    assert_int_equal(n_bytes, 1290527);
    assert_int_equal(n_text, 1240466);
    assert_int_equal(hash, 0xcd5784e3);
    assert_int_equal(sp_wikitext_join_lines(&text, &n, (sp_text_view){file, n_file}), SP_OK);
    assert_int_equal(n, 1296370);
    assert_int_equal(fingerprint(2166136261u, text, n), 0x29cd067b);
    free(text);
    free(pages);
    free(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_detokenized_as_lm_eval_does),
        cmocka_unit_test(unclosed_brackets_stay),
        cmocka_unit_test(words_count_the_empty_ends),
        cmocka_unit_test(pages_begin_at_titles),
        cmocka_unit_test(blank_lines_are_empty_between_two_newlines),
        cmocka_unit_test(the_test_file_gives_the_texts_of_lm_eval),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
