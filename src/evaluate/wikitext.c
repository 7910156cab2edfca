/* WikiText's pages and its detokenizer.  Both are defined by Python code elsewhere (the data set's loader, lm-eval's task
 * "wikitext" 2.0); order and oddities of the rules are kept, for the numbers depend on them. */
#define _GNU_SOURCE /* memmem */
#include "evaluate/wikitext.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* ---- pages ---- */

/* A heading of level one: a single "=" at both ends.  Runs of "= = =" and "= =" are closed up before looking, so that
 * " = = Section = = " begins with "==". */
static sp_status is_title(bool *out, sp_text_view line) {
    *out = false;
    if (!memchr(line.text, '=', (size_t)line.n_bytes)) return SP_OK;
    char *threes = NULL, *twos = NULL;
    int64_t n_threes, n_twos;
    sp_status status;
    SP_TRY_OR_DONE(sp_python_replace(&threes, &n_threes, line, "= = =", "==="));
    SP_TRY_OR_DONE(sp_python_replace(&twos, &n_twos, (sp_text_view){threes, n_threes}, "= =", "=="));
    sp_text_view rest = sp_python_strip((sp_text_view){twos, n_twos});
    *out = rest.n_bytes >= 2 && memcmp(rest.text, "= ", 2) == 0 && memcmp(rest.text + rest.n_bytes - 2, " =", 2) == 0;
done:
    free(threes);
    free(twos);
    return status;
}

/* The line at the start of `text`, without its newline. */
static sp_text_view first_line(sp_text_view text) {
    const char *end = text.n_bytes > 0 ? memchr(text.text, '\n', (size_t)text.n_bytes) : NULL;
    if (end) text.n_bytes = end - text.text;
    return text;
}

static bool is_blank(sp_text_view view) { return sp_python_strip_left(view).n_bytes == 0; }

/* Pages are joined lines: the newline before a title belongs to neither page. */
sp_status sp_wikitext_pages(sp_text_view **pages, int64_t *n_pages, sp_text_view file) {
    int64_t n_lines = 1;
    for (int64_t i = 0; i < file.n_bytes; i++) n_lines += file.text[i] == '\n';
    sp_text_view *found = NULL;
    int64_t n = 0;
    sp_status status;
    *pages = NULL;
    SP_TRY_OR_DONE(sp_allocate((void **)&found, n_lines * (int64_t)sizeof *found, "pages of a text"));
    const char *end = file.text + file.n_bytes, *start = file.text;
    for (const char *at = file.text; at < end;) {
        sp_text_view line = first_line((sp_text_view){at, end - at});
        bool title;
        SP_TRY_OR_DONE(is_title(&title, line));
        if (title && at > start) {
            sp_text_view page = {start, at - 1 - start};
            if (!is_blank(page)) found[n++] = page;
        }
        if (title) start = at;
        at = line.text + line.n_bytes + 1;
    }
    found[n++] = (sp_text_view){start, end - start};
    *pages = found;
    *n_pages = n;
    found = NULL;
done:
    free(found);
    return status;
}

/* ---- detokenizer ---- */

/* Takes white space from inside every pair of `open` and the next `close`. */
static sp_status trim_inside(char **out, int64_t *n_out, sp_text_view view, char open, char close) {
    *out = NULL;
    SP_TRY(sp_allocate((void **)out, view.n_bytes + 1, "text with trimmed brackets"));
    const char *at = view.text, *end = view.text + view.n_bytes;
    char *to = *out;
    while (at < end) {
        const char *last = *at == open ? memchr(at + 1, close, (size_t)(end - at - 1)) : NULL;
        if (!last) {
            *to++ = *at++;
            continue;
        }
        sp_text_view inside = sp_python_strip((sp_text_view){at + 1, last - at - 1});
        *to++ = open;
        to = mempcpy(to, inside.text, (size_t)inside.n_bytes);
        *to++ = close;
        at = last + 1;
    }
    *n_out = to - *out;
    return SP_OK;
}

/* In this order.  A rule without `to` trims between the two characters of `from`.  The task's rule for the regular
 * expression "/' [0-9]/" is left out: slashes stand in it as in Perl, so that it means text that nobody writes. */
static const struct {
    const char *from, *to;
} rules[] = {
    {"s '", "s'"}, {" @-@ ", "-"}, {" @,@ ", ","}, {" @.@ ", "."},      {" : ", ": "},    {" ; ", "; "},
    {" . ", ". "}, {" ! ", "! "},  {" ? ", "? "},  {" , ", ", "},       {"()", NULL},     {"[]", NULL},
    {"{}", NULL},  {"\"\"", NULL}, {"''", NULL},   {"= = = =", "===="}, {"= = =", "==="}, {"= =", "=="},
    {" ° ", "°"},  {" \n", "\n"},  {"\n ", "\n"},  {" N ", " 1 "},      {" 's", "'s"},
};

sp_status sp_wikitext_detokenize(char **out, int64_t *n_out, sp_text_view page) {
    char *text = NULL;
    int64_t n_text = page.n_bytes;
    sp_text_view view = page;
    *out = NULL;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        const char *from = rules[i].from, *to = rules[i].to;
        char *next;
        sp_status status = to ? sp_python_replace(&next, &n_text, view, from, to)
                              : trim_inside(&next, &n_text, view, from[0], from[1]);
        free(text);
        text = next;
        if (status != SP_OK) return status;
        view = (sp_text_view){text, n_text};
    }
    *out = text;
    *n_out = n_text;
    return SP_OK;
}

int64_t sp_wikitext_words(sp_text_view page) {
    int64_t n = 1;
    bool in_space = false;
    while (page.n_bytes > 0) {
        int64_t space = sp_python_space(page.text, page.n_bytes), step = space > 0 ? space : 1;
        if (space > 0 && !in_space) n++;
        in_space = space > 0;
        page.text += step;
        page.n_bytes -= step;
    }
    return n;
}

/* ---- the quantization papers' text ---- */

sp_status sp_wikitext_join_lines(char **out, int64_t *n_out, sp_text_view file) {
    *out = NULL;
    int64_t n_lines = 1;
    for (int64_t i = 0; i < file.n_bytes; i++) n_lines += file.text[i] == '\n';
    SP_TRY(sp_allocate((void **)out, file.n_bytes + 2 * n_lines + 1, "joined lines of a text"));
    char *to = *out;
    const char *end = file.text + file.n_bytes;
    for (const char *at = file.text; at < end;) {
        sp_text_view line = first_line((sp_text_view){at, end - at});
        const char *next = line.text + line.n_bytes + 1;
        if (at > file.text) to = mempcpy(to, "\n\n", 2);
        if (!is_blank(line)) to = mempcpy(to, at, (size_t)((next < end ? next : end) - at));
        at = next;
    }
    *n_out = to - *out;
    return SP_OK;
}
