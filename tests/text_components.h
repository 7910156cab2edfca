/* Golden answers of Hugging Face's tokenizers for components of tokenizer.json, written by oracles/text_components.py. */
#ifndef TEXT_COMPONENTS_H
#define TEXT_COMPONENTS_H

#include "text_fixture.h"

#include "base/json.h"
#include "text/bytes.h"

static inline json_t *read_components(void) {
    char path[4096];
    const char *slash = strrchr(__FILE__, '/');
    snprintf(path, sizeof path, "%.*s/vectors/text_components.json", (int)(slash - __FILE__), __FILE__);
    json_t *all;
    assert_ok(sp_json_read(&all, path));
    return all;
}

static inline json_t *parse(const char *text) {
    json_t *json;
    assert_ok(sp_json_parse(&json, text, (int64_t)strlen(text), "tokenizer.json"));
    return json;
}

static inline sp_bytes bytes_of(const char *text) {
    sp_bytes bytes = {0};
    assert_ok(sp_bytes_add(&bytes, text, (int64_t)strlen(text)));
    return bytes;
}

/* Does a build without PCRE2 or utf8proc refuse the component?  Then there is nothing to compare. */
static inline bool is_left_out(sp_status status) {
    return status == SP_UNSUPPORTED && strstr(sp_last_message(), "this build is without");
}

#endif
