/* Python's ideas of length and case: that of the Unicode tables, with the characters whose title case is several
 * letters (SpecialCasing.txt) and the final sigma. */
#define _GNU_SOURCE
#include "evaluate/python_letters.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#if SP_WITH_UTF8PROC
#include <utf8proc.h>
#endif

static bool is_continuation(char byte) { return ((unsigned char)byte & 0xc0) == 0x80; }

int64_t sp_python_length(const char *text) {
    int64_t n = 0;
    for (; *text; text++) n += !is_continuation(*text);
    return n;
}

/* ---- case ---- */

#if SP_WITH_UTF8PROC
/* The code point at `text` and its bytes; the text is valid. */
static int32_t decode(const char *text, int64_t *n_bytes) {
    const unsigned char *b = (const unsigned char *)text;
    if (b[0] < 0x80) {
        *n_bytes = 1;
        return b[0];
    }
    int n = b[0] < 0xe0 ? 2 : b[0] < 0xf0 ? 3 : 4;
    int32_t code = b[0] & (0xff >> (n + 1));
    for (int i = 1; i < n; i++) code = code << 6 | (b[i] & 0x3f);
    *n_bytes = n;
    return code;
}

typedef struct title {
    int32_t code;
    const char *letters;
} title;

/* Characters whose title case is more than one letter. */
static const title titles[] = {
    {0x00df, "Ss"},
    {0x0149, "\u02bcN"},
    {0x01f0, "J\u030c"},
    {0x0390, "\u0399\u0308\u0301"},
    {0x03b0, "\u03a5\u0308\u0301"},
    {0x0587, "\u0535\u0582"},
    {0x1e96, "H\u0331"},
    {0x1e97, "T\u0308"},
    {0x1e98, "W\u030a"},
    {0x1e99, "Y\u030a"},
    {0x1e9a, "A\u02be"},
    {0x1f50, "\u03a5\u0313"},
    {0x1f52, "\u03a5\u0313\u0300"},
    {0x1f54, "\u03a5\u0313\u0301"},
    {0x1f56, "\u03a5\u0313\u0342"},
    {0x1fb2, "\u1fba\u0345"},
    {0x1fb4, "\u0386\u0345"},
    {0x1fb6, "\u0391\u0342"},
    {0x1fb7, "\u0391\u0342\u0345"},
    {0x1fc2, "\u1fca\u0345"},
    {0x1fc4, "\u0389\u0345"},
    {0x1fc6, "\u0397\u0342"},
    {0x1fc7, "\u0397\u0342\u0345"},
    {0x1fd2, "\u0399\u0308\u0300"},
    {0x1fd3, "\u0399\u0308\u0301"},
    {0x1fd6, "\u0399\u0342"},
    {0x1fd7, "\u0399\u0308\u0342"},
    {0x1fe2, "\u03a5\u0308\u0300"},
    {0x1fe3, "\u03a5\u0308\u0301"},
    {0x1fe4, "\u03a1\u0313"},
    {0x1fe6, "\u03a5\u0342"},
    {0x1fe7, "\u03a5\u0308\u0342"},
    {0x1ff2, "\u1ffa\u0345"},
    {0x1ff4, "\u038f\u0345"},
    {0x1ff6, "\u03a9\u0342"},
    {0x1ff7, "\u03a9\u0342\u0345"},
    {0xfb00, "Ff"},
    {0xfb01, "Fi"},
    {0xfb02, "Fl"},
    {0xfb03, "Ffi"},
    {0xfb04, "Ffl"},
    {0xfb05, "St"},
    {0xfb06, "St"},
    {0xfb13, "\u0544\u0576"},
    {0xfb14, "\u0544\u0565"},
    {0xfb15, "\u0544\u056b"},
    {0xfb16, "\u054e\u0576"},
    {0xfb17, "\u0544\u056d"},
};

enum { SIGMA = 0x3a3, FINAL_SIGMA = 0x3c2, DOTTED_I = 0x130 };

static bool is_cased(int32_t c) {
    utf8proc_category_t category = utf8proc_category(c);
    return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL || category == UTF8PROC_CATEGORY_LT;
}

/* What a final sigma looks through: marks, modifiers, format characters, and punctuation inside words. */
static bool is_case_ignorable(int32_t c) {
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK: return true;
    default: return c == '\'' || c == '.' || c == ':' || c == 0xb7 || c == 0x2019 || c == 0x2018 || c == 0x2024;
    }
}

/* A capital sigma at text[at] is the last letter of a word, and not its only one. */
static bool is_final_sigma(const char *text, int64_t at) {
    int64_t n, start = at;
    int32_t c = 0;
    do {
        if (start == 0) return false;
        start--;
        while (is_continuation(text[start])) start--;
        c = decode(text + start, &n);
    } while (is_case_ignorable(c));
    if (!is_cased(c)) return false;
    at += 2;
    while (text[at] && is_case_ignorable(c = decode(text + at, &n))) at += n;
    return !text[at] || !is_cased(c);
}

static int64_t put(char *out, int32_t code) { return utf8proc_encode_char(code, (utf8proc_uint8_t *)out); }

static int64_t put_title(char *out, int32_t code) {
    for (size_t i = 0; i < sizeof titles / sizeof *titles; i++)
        if (titles[i].code == code) {
            size_t n = strlen(titles[i].letters);
            memcpy(out, titles[i].letters, n);
            return (int64_t)n;
        }
    return put(out, utf8proc_totitle(code));
}

static int64_t put_lower(char *out, const char *text, int64_t at, int32_t code) {
    if (code == SIGMA && is_final_sigma(text, at)) return put(out, FINAL_SIGMA);
    if (code != DOTTED_I) return put(out, utf8proc_tolower(code));
    int64_t n = put(out, 'i');
    return n + put(out + n, 0x307);
}

sp_status sp_python_capitalize(char **out, const char *text) {
    enum { GROWTH = 3 }; /* the worst case: two bytes become three letters of two bytes each */
    char *letters = malloc(strlen(text) * GROWTH + 1);
    *out = letters;
    SP_REQUIRE(letters, SP_OUT_OF_MEMORY, "no memory for a text");
    int64_t n_out = 0, n;
    for (int64_t at = 0; text[at]; at += n) {
        int32_t code = decode(text + at, &n);
        n_out += at == 0 ? put_title(letters, code) : put_lower(letters + n_out, text, at, code);
    }
    letters[n_out] = 0;
    return SP_OK;
}
#else
sp_status sp_python_capitalize(char **out, const char *text) {
    *out = NULL;
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++)
        SP_REQUIRE((unsigned char)text[i] < 0x80, SP_UNSUPPORTED,
                   "this build knows no upper and lower case beyond ASCII: it was made without utf8proc");
    *out = strdup(text);
    SP_REQUIRE(*out, SP_OUT_OF_MEMORY, "no memory for a text");
    for (size_t i = 0; i < n; i++) {
        char *c = *out + i;
        if (i == 0 && *c >= 'a' && *c <= 'z') *c = (char)(*c - 'a' + 'A');
        if (i > 0 && *c >= 'A' && *c <= 'Z') *c = (char)(*c - 'A' + 'a');
    }
    return SP_OK;
}
#endif
