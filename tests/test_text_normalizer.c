/* Normalizers: against golden answers, and what is refused. */
#include "text_components.h"

#include "text/text_normalizer.h"

static void check_component(const json_t *component, const json_t *texts, const json_t *expected) {
    sp_text_normalizer *normalizer;
    sp_status status = sp_text_normalizer_new(&normalizer, component, "golden");
    if (is_left_out(status)) return;
    assert_ok(status);
    char *words = json_dumps(component, 0);
    for (size_t i = 0; i < json_array_size(texts); i++) {
        sp_bytes text = bytes_of(json_string_value(json_array_get(texts, i)));
        const char *wanted = json_string_value(json_array_get(json_array_get(expected, i), 0));
        assert_ok(sp_text_normalizer_apply(normalizer, &text));
        if (text.n != (int64_t)strlen(wanted) || (text.n > 0 && memcmp(text.data, wanted, (size_t)text.n) != 0))
            fail_msg("%s: \"%.*s\", not \"%s\"", words, (int)text.n, text.data, wanted);
        sp_bytes_free(&text);
    }
    free(words);
    sp_text_normalizer_free(normalizer);
}

static void texts_are_those_of_tokenizers(void **state) {
    (void)state;
    json_t *all = read_components();
    size_t i, n = 0;
    const json_t *one;
    json_array_foreach(json_object_get(all, "cases"), i, one) {
        if (strcmp(json_string_value(json_object_get(one, "kind")), "normalizer") != 0) continue;
        check_component(json_object_get(one, "component"), json_object_get(all, "texts"),
                        json_object_get(one, "pieces"));
        n++;
    }
    assert_true(n > 15);
    json_decref(all);
}

static void check_refused(const char *component, sp_status status, const char *words) {
    json_t *json = parse(component);
    sp_text_normalizer *normalizer;
    assert_fails(sp_text_normalizer_new(&normalizer, json, "tokenizer.json"), status, words);
    assert_null(normalizer);
    if (strncmp(sp_last_message(), "tokenizer.json: ", 16) != 0) fail_msg("%s", sp_last_message());
    json_decref(json);
}

static void unknown_components_are_refused_by_name(void **state) {
    (void)state;
    check_refused("{\"type\":\"Precompiled\"}", SP_UNSUPPORTED,
                  "Precompiled is not supported (these are: Sequence, Prepend,");
    check_refused("[]", SP_BAD_FILE, "\"type\"");
    check_refused("{\"type\":\"Sequence\",\"normalizers\":{}}", SP_BAD_FILE, "normalizers");
    check_refused("{\"type\":\"Prepend\"}", SP_BAD_FILE, "prepend");
    check_refused("{\"type\":\"Strip\",\"strip_left\":1,\"strip_right\":true}", SP_BAD_FILE, "strip_left");
    check_refused("{\"type\":\"Replace\",\"pattern\":{\"Word\":\"a\"},\"content\":\"b\"}", SP_BAD_FILE, "pattern");
}

static void sequences_have_an_end(void **state) {
    (void)state;
    json_t *list = json_array(), *sequence = json_object();
    sp_text_normalizer *normalizer;
    for (int i = 0; i < 65; i++) json_array_append_new(list, json_pack("{ss}", "type", "Nmt"));
    json_object_set_new(sequence, "type", json_string("Sequence"));
    json_object_set_new(sequence, "normalizers", list);
    assert_fails(sp_text_normalizer_new(&normalizer, sequence, "tokenizer.json"), SP_UNSUPPORTED, "more than 64 steps");
    json_decref(sequence);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_those_of_tokenizers),
        cmocka_unit_test(unknown_components_are_refused_by_name),
        cmocka_unit_test(sequences_have_an_end),
    };
    return cmocka_run_group_tests_name("text normalizer", tests, NULL, NULL);
}
