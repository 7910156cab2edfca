/* The memory of words: what was put in is found, under its own text alone, and it does not grow without end. */
#include "text_fixture.h"

#include "text/word_cache.h"

enum { N_WORDS = 300000 }; /* more than it holds */

static void name_word(char word[16], int i) { sprintf(word, "w%d", i); }

static bool holds(const sp_word_cache *cache, int i) {
    char text[16];
    name_word(text, i);
    int64_t n = (int64_t)strlen(text);
    const sp_cached_word *word = sp_word_cache_find(cache, text, n, sp_word_hash(text, n));
    if (!word) return false;
    assert_int_equal(word->n_tokens, 1 + i % 3);
    for (int k = 0; k < word->n_tokens; k++) assert_int_equal(cache->tokens.items[word->first + (uint32_t)k], i + k);
    return true;
}

static void words_are_found_until_it_is_emptied(void **state) {
    (void)state;
    sp_word_cache cache = {0};
    assert_false(holds(&cache, 0));
    int n_emptied = 0;
    for (int i = 0; i < N_WORDS; i++) {
        char text[16];
        name_word(text, i);
        int64_t n = (int64_t)strlen(text), n_before = cache.n_words;
        assert_ok(sp_word_cache_add(&cache, text, n, sp_word_hash(text, n), (int32_t[]){i, i + 1, i + 2}, 1 + i % 3));
        n_emptied += cache.n_words < n_before;
        assert_true(holds(&cache, i));
        if (i == 1000)
            for (int k = 0; k <= i; k++) assert_true(holds(&cache, k));
    }
    assert_int_equal(n_emptied, 1);
    assert_false(holds(&cache, 0));
    assert_true(2 * cache.n_words <= cache.n_places);
    sp_word_cache_free(&cache);
}

static void words_of_one_hash_stay_apart(void **state) {
    (void)state;
    sp_word_cache cache = {0};
    assert_ok(sp_word_cache_add(&cache, "one", 3, 7, (int32_t[]){1}, 1));
    assert_null(sp_word_cache_find(&cache, "two", 3, 7));
    assert_ok(sp_word_cache_add(&cache, "two", 3, 7, (int32_t[]){2}, 1));
    assert_int_equal(cache.tokens.items[sp_word_cache_find(&cache, "one", 3, 7)->first], 1);
    assert_int_equal(cache.tokens.items[sp_word_cache_find(&cache, "two", 3, 7)->first], 2);
    assert_null(sp_word_cache_find(&cache, "on", 2, 7));
    sp_word_cache_free(&cache);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_found_until_it_is_emptied),
        cmocka_unit_test(words_of_one_hash_stay_apart),
    };
    return cmocka_run_group_tests_name("text word cache", tests, make_test_folder, remove_test_folder);
}
