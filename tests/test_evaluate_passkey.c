/* Passkey retrieval: prompts against those of the published scripts (with a seed), and what counts as right. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "evaluate/passkey.h"

static const sp_passkey_protocol *protocol(const char *name) {
    const sp_passkey_protocol *found;
    assert_int_equal(sp_passkey_protocol_find(&found, name), SP_OK);
    return found;
}

static uint32_t fingerprint(const char *text) {
    uint32_t hash = 2166136261u;
    for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 16777619u;
    return hash;
}

/* Made in Python by the rules of LongLoRA's script (numpy.random.seed(trial + n), randint(0, n), randint(1, 50000)) and of
 * landmark attention's (random.seed(trial + n), randint(0, n), randint(1, 50000)). */
static void prompts_are_those_of_the_scripts(void **state) {
    (void)state;
    static const struct {
        const char *protocol;
        int64_t length, trial, key;
        size_t n_bytes;
        uint32_t fingerprint;
    } expected[] = {
        {"paper", 3072, 0, 12836, 3319, 0x4ce7da81},      {"paper", 18432, 3, 33117, 18679, 0x8016c9bc},
        {"landmark", 0, 0, 49674, 247, 0x03c883ff},       {"landmark", 100, 1, 12764, 347, 0xffcfa257},
        {"landmark", 38000, 49, 4650, 38245, 0x765835a7},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        char *prompt;
        int64_t key;
        const sp_passkey_protocol *by = protocol(expected[i].protocol);
        assert_int_equal(sp_passkey_prompt(&prompt, &key, by, expected[i].length, expected[i].trial, -1), SP_OK);
        assert_int_equal(key, expected[i].key);
        assert_int_equal(strlen(prompt), expected[i].n_bytes);
        assert_int_equal(fingerprint(prompt), expected[i].fingerprint);
        free(prompt);
    }
}

static void depth_moves_the_key_and_nothing_else(void **state) {
    (void)state;
    static const char *const expected[] = {
        "\n\nThe pass key is 12764. Remember it. 12764 is the pass key.\nThe grass is green. ",
        "There and back again. The\nThe pass key is 12764. Remember it. 12764 is the pass key.\n\nWhat is",
    };
    for (int i = 0; i < 2; i++) {
        char *prompt;
        int64_t key;
        assert_int_equal(sp_passkey_prompt(&prompt, &key, protocol("landmark"), i ? 93 : 100, i ? 8 : 1, i), SP_OK);
        assert_int_equal(key, 12764);
        assert_non_null(strstr(prompt, expected[i]));
        free(prompt);
    }
}

static void without_filler_two_lines_are_empty(void **state) {
    (void)state;
    char *prompt;
    int64_t key;
    assert_int_equal(sp_passkey_prompt(&prompt, &key, protocol("paper"), 0, 5, -1), SP_OK);
    assert_non_null(strstr(prompt, "there.\n\nThe pass key is "));
    assert_non_null(strstr(prompt, "is the pass key.\n\nWhat is the pass key? The pass key is"));
    free(prompt);
}

static void the_first_number_counts(void **state) {
    (void)state;
    assert_true(sp_passkey_found(" 123. Remember", 123));
    assert_true(sp_passkey_found("the key: 00123 456", 123));
    assert_false(sp_passkey_found(" 1234", 123));
    assert_false(sp_passkey_found(" 12 3", 123));
    assert_false(sp_passkey_found(" 45 123", 123));
    assert_false(sp_passkey_found("", 123));
    assert_false(sp_passkey_found("99999999999999999999999999999999999", 123));
}

/* proportion_confint(right, n, method="wilson") of statsmodels. */
static void intervals_are_wilsons(void **state) {
    (void)state;
    double low, high;
    sp_wilson_interval(&low, &high, 0, 10);
    assert_true(low == 0 && fabs(high - 0.2775327998628892) < 1e-12);
    sp_wilson_interval(&low, &high, 7, 10);
    assert_true(fabs(low - 0.39677815) < 1e-7 && fabs(high - 0.89220870) < 1e-7);
    sp_wilson_interval(&low, &high, 10, 10);
    assert_true(high > 1 - 1e-12 && fabs(low - (1 - 0.2775327998628892)) < 1e-12);
}

static void an_unknown_protocol_is_refused(void **state) {
    (void)state;
    const sp_passkey_protocol *found;
    assert_int_equal(sp_passkey_protocol_find(&found, "flame"), SP_BAD_ARGUMENT);
    assert_string_equal(sp_last_message(), "passkey protocol \"flame\": there are paper and landmark");
    assert_null(found);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_are_those_of_the_scripts),
        cmocka_unit_test(depth_moves_the_key_and_nothing_else),
        cmocka_unit_test(without_filler_two_lines_are_empty),
        cmocka_unit_test(the_first_number_counts),
        cmocka_unit_test(intervals_are_wilsons),
        cmocka_unit_test(an_unknown_protocol_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
