/* Python's white space, strip and replace. */
#define _GNU_SOURCE /* memmem, mempcpy */
#include "evaluate/python_text.h"

#include <stdbool.h>
#include <string.h>

#include "base/memory.h"

/* White space of two and three bytes: U+0085, 00A0, 1680, 2000-200A, 2028, 2029, 202F, 205F, 3000. */
static const char *const wide_spaces[] = {
    "\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80", "\xe2\x80\x80", "\xe2\x80\x81", "\xe2\x80\x82", "\xe2\x80\x83",
    "\xe2\x80\x84", "\xe2\x80\x85", "\xe2\x80\x86", "\xe2\x80\x87", "\xe2\x80\x88", "\xe2\x80\x89", "\xe2\x80\x8a",
    "\xe2\x80\xa8", "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80",
};

static bool is_narrow_space(unsigned char byte) {
    return byte == ' ' || (byte >= '\t' && byte <= '\r') || (byte >= 0x1c && byte <= 0x1f);
}

int64_t sp_python_space(const char *text, int64_t n_bytes) {
    if (n_bytes <= 0) return 0;
    if ((unsigned char)*text < 0x80) return is_narrow_space((unsigned char)*text);
    for (size_t i = 0; i < sizeof wide_spaces / sizeof *wide_spaces; i++) {
        int64_t length = (int64_t)strlen(wide_spaces[i]);
        if (length <= n_bytes && memcmp(text, wide_spaces[i], (size_t)length) == 0) return length;
    }
    return 0;
}

sp_text_view sp_python_strip_left(sp_text_view view) {
    int64_t space;
    while ((space = sp_python_space(view.text, view.n_bytes)) > 0) {
        view.text += space;
        view.n_bytes -= space;
    }
    return view;
}

sp_text_view sp_python_strip_right(sp_text_view view) {
    while (view.n_bytes > 0) {
        int64_t last = view.n_bytes - 1;
        while (last > 0 && ((unsigned char)view.text[last] & 0xc0) == 0x80) last--;
        if (sp_python_space(view.text + last, view.n_bytes - last) != view.n_bytes - last) break;
        view.n_bytes = last;
    }
    return view;
}

sp_text_view sp_python_strip(sp_text_view view) { return sp_python_strip_right(sp_python_strip_left(view)); }

static const char *find(sp_text_view view, const char *wanted, size_t n_wanted) {
    return view.n_bytes > 0 ? memmem(view.text, (size_t)view.n_bytes, wanted, n_wanted) : NULL;
}

static int64_t count(sp_text_view view, const char *wanted, size_t n_wanted) {
    int64_t n = 0;
    for (const char *at; (at = find(view, wanted, n_wanted)); n++) {
        view.n_bytes -= at + n_wanted - view.text;
        view.text = at + n_wanted;
    }
    return n;
}

sp_status sp_python_replace(char **out, int64_t *n_out, sp_text_view view, const char *from, const char *to) {
    size_t n_from = strlen(from), n_to = strlen(to);
    int64_t n = view.n_bytes + count(view, from, n_from) * ((int64_t)n_to - (int64_t)n_from);
    *out = NULL;
    SP_TRY(sp_allocate((void **)out, n + 1, "text with replacements"));
    char *end = *out;
    for (const char *at; (at = find(view, from, n_from));) {
        end = mempcpy(end, view.text, (size_t)(at - view.text));
        end = mempcpy(end, to, n_to);
        view.n_bytes -= at + n_from - view.text;
        view.text = at + n_from;
    }
    if (view.n_bytes > 0) memcpy(end, view.text, (size_t)view.n_bytes);
    *n_out = n;
    return SP_OK;
}
