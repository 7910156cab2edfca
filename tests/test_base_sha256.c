/* SHA-256: the examples of FIPS 180-2, in one piece and in many. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/sha256.h"

static void digests_are_those_of_the_standard(void **state) {
    (void)state;
    static const char *const table[][2] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    char hex[65];
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        sp_sha256_of(hex, table[i][0], (int64_t)strlen(table[i][0]));
        assert_string_equal(hex, table[i][1]);
    }
}

/* A million letters a, in pieces of all lengths up to 200. */
static void pieces_make_the_same_digest(void **state) {
    (void)state;
    char letters[200], hex[65];
    memset(letters, 'a', sizeof letters);
    sp_sha256 hash;
    sp_sha256_begin(&hash);
    for (int64_t left = 1000000, n = 1; left > 0; left -= n, n = n % 200 + 1) {
        if (n > left) n = left;
        sp_sha256_add(&hash, letters, n);
    }
    sp_sha256_finish(&hash, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

/* Lengths around the end of a block, where the padding takes one block or two: each differs from the others, and
 * from itself by one byte. */
static void every_byte_counts(void **state) {
    (void)state;
    char text[130] = {0}, hex[65], changed[65], before[65] = "";
    for (int64_t n = 1; n <= 129; n++) {
        sp_sha256_of(hex, text, n);
        assert_string_not_equal(hex, before);
        text[n - 1] = 1;
        sp_sha256_of(changed, text, n);
        text[n - 1] = 0;
        assert_string_not_equal(hex, changed);
        memcpy(before, hex, sizeof before);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_are_those_of_the_standard),
        cmocka_unit_test(pieces_make_the_same_digest),
        cmocka_unit_test(every_byte_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
