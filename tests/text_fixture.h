/* What the tests of text share: a folder of their own, files in it, a small corpus, and messages. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#ifndef TEXT_FIXTURE_H
#define TEXT_FIXTURE_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/random.h"
#include "softpick/text.h"

static char test_folder[64];

#define assert_ok(call)                                                                                                \
    do {                                                                                                               \
        sp_status got_ = (call);                                                                                       \
        if (got_ != SP_OK) fail_msg("%s: %s (%s)", #call, sp_status_name(got_), sp_last_message());                    \
    } while (0)

/* The call fails with this status, and its sentence holds `words`. */
#define assert_fails(call, status, words)                                                                              \
    do {                                                                                                               \
        sp_status got_ = (call);                                                                                       \
        if (got_ != (status) || !strstr(sp_last_message(), words) || strchr(sp_last_message(), '\n'))                  \
            fail_msg("%s: %s (%s)", #call, sp_status_name(got_), sp_last_message());                                   \
    } while (0)

static inline int make_test_folder(void **state) {
    (void)state;
    snprintf(test_folder, sizeof test_folder, "/tmp/softpick-test-XXXXXX");
    return mkdtemp(test_folder) ? 0 : -1;
}

static inline int remove_test_folder(void **state) {
    (void)state;
    return sp_folder_remove(test_folder) == SP_OK ? 0 : -1;
}

/* Path of a name in the folder; the 256 last ones stay valid. */
static inline const char *at(const char *name) {
    static char paths[256][256];
    static int next;
    char *path = paths[next++ % 256];
    snprintf(path, sizeof paths[0], "%s/%s", test_folder, name);
    return path;
}

static inline const char *put(const char *name, const void *data, int64_t n_bytes) {
    const char *path = at(name);
    assert_ok(sp_file_write(path, data, n_bytes));
    return path;
}

static inline const char *put_text(const char *name, const char *text) {
    return put(name, text, (int64_t)strlen(text));
}

/* Lines of made-up words, `n_lines` of them; the same for the same seed.  Caller frees. */
static inline char *make_lines(uint64_t seed, int64_t n_lines) {
    static const char *const words[] = {"the",   "river", "and",  "carries",     "stones",  "of",    "light", "slowly",
                                        "under", "seven", "1984", "caf\xc3\xa9", "bridges", "while", "it",    "sings"};
    char *text = malloc((size_t)(n_lines * 128 + 1)), *end = text;
    assert_non_null(text);
    for (int64_t line = 0; line < n_lines; line++) {
        uint64_t n = 1 + sp_random_below(seed, 1, (uint64_t)line, 12);
        for (uint64_t w = 0; w < n; w++) {
            uint64_t word = sp_random_below(seed, 2, (uint64_t)line * 16 + w, 16);
            end += sprintf(end, "%s%s", w ? " " : "", words[word]);
        }
        end += sprintf(end, "%s", sp_random_below(seed, 3, (uint64_t)line, 9) ? ".\n" : ".\n\n");
    }
    *end = 0;
    return text;
}

/* A small tokenizer trained on such lines, at `name` in the folder. */
static inline sp_tokenizer *make_tokenizer(const char *name, int64_t vocabulary) {
    char *lines = make_lines(99, 400);
    const char *path = put_text("tokenizer-text.txt", lines);
    free(lines);
    sp_tokenizer_train_options options = sp_tokenizer_train_options_default();
    options.vocabulary = vocabulary;
    assert_ok(sp_tokenizer_train(at(name), &path, 1, &options));
    sp_tokenizer *tokenizer;
    assert_ok(sp_tokenizer_open(&tokenizer, at(name)));
    return tokenizer;
}

/* A file of the data that is kept beside the sources, or a skipped test. */
static inline const char *data_file(const char *name) {
    static char path[4096];
    const char *folder = getenv("SOFTPICK_DATA"), *here = strstr(__FILE__, "/tests/");
    if (folder)
        snprintf(path, sizeof path, "%s/%s", folder, name);
    else
        snprintf(path, sizeof path, "%.*s/../shared/data/%s", (int)(here - __FILE__), __FILE__, name);
    if (access(path, R_OK) != 0) skip();
    return path;
}

#endif
