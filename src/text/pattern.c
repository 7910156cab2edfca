/* One way to search for all that components of a tokenizer.json search for. */
#define _GNU_SOURCE
#include "text/pattern.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "text/utf8.h"

sp_status sp_pattern_from_regex(sp_pattern *pattern, const char *regex, const char *source) {
    return sp_regex_new(&pattern->regex, regex, (int64_t)strlen(regex), source);
}

sp_status sp_pattern_from_string(sp_pattern *pattern, const char *string, const char *source) {
    SP_REQUIRE(*string, SP_UNSUPPORTED, "%s: a pattern is an empty string", source);
    pattern->string = strdup(string);
    SP_REQUIRE(pattern->string, SP_OUT_OF_MEMORY, "%s: no memory for a pattern", source);
    pattern->n_string = (int64_t)strlen(string);
    return SP_OK;
}

sp_status sp_pattern_from_set(sp_pattern *pattern, const char *name) {
    bool known;
    SP_TRY(sp_code_set_add_named(&pattern->set, name, (int64_t)strlen(name), &known));
    SP_REQUIRE(known, SP_INTERNAL, "there is no set of characters named %s", name);
    return SP_OK;
}

sp_status sp_pattern_read(sp_pattern *pattern, const json_t *json, const char *source) {
    const json_t *string = json_object_get(json, "String"), *regex = json_object_get(json, "Regex");
    SP_REQUIRE(json_is_string(string) || json_is_string(regex), SP_BAD_FILE,
               "%s: a pattern is neither {\"String\": ...} nor {\"Regex\": ...}", source);
    if (regex) return sp_pattern_from_regex(pattern, json_string_value(regex), source);
    return sp_pattern_from_string(pattern, json_string_value(string), source);
}

void sp_pattern_free(sp_pattern *pattern) {
    sp_regex_free(pattern->regex);
    free(pattern->string);
    sp_code_set_free(&pattern->set);
    *pattern = (sp_pattern){0};
}

static sp_status find_strings(const sp_pattern *pattern, const char *text, int64_t n_bytes, sp_spans *matches) {
    const char *at = text, *end = text + n_bytes;
    while ((at = memmem(at, (size_t)(end - at), pattern->string, (size_t)pattern->n_string))) {
        SP_TRY(sp_spans_add(matches, at - text, at - text + pattern->n_string));
        at += pattern->n_string;
    }
    return SP_OK;
}

static sp_status find_characters(const sp_code_set *set, const char *text, int64_t n_bytes, sp_spans *matches) {
    uint32_t code;
    for (int64_t at = 0, n; at < n_bytes; at += n) {
        n = sp_utf8_read(text + at, n_bytes - at, &code);
        if (sp_code_set_holds(set, code)) SP_TRY(sp_spans_add(matches, at, at + n));
    }
    return SP_OK;
}

sp_status sp_pattern_find_all(const sp_pattern *pattern, const char *text, int64_t n_bytes, sp_spans *matches) {
    if (n_bytes == 0) return SP_OK;
    if (pattern->regex) return sp_regex_find_all(pattern->regex, text, n_bytes, matches);
    if (pattern->string) return find_strings(pattern, text, n_bytes, matches);
    return find_characters(&pattern->set, text, n_bytes, matches);
}
