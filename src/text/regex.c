/* Compiling and matching by PCRE2, on bytes that stand for characters (regex_translate.h tells how). */
#define _GNU_SOURCE
#include "text/regex.h"

#include <stddef.h>

#include "text/regex_translate.h"

#if SP_WITH_PCRE2

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "text/utf8.h"

enum {
    FIRST_KIND = 128,
    KINDS_MAX = 128,
    PAGE_CODES = 128,
    N_PAGES = (SP_CODE_LAST + 1) / PAGE_CODES,
    MATCH_LIMIT = 50000000, /* steps of one match */
    HEAP_LIMIT_KIB = 65536,
};

struct sp_regex {
    pcre2_code *code;
    pcre2_match_context *limits;
    char *source;
    uint16_t pages[N_PAGES]; /* which page tells of these 128 characters */
    uint8_t *kinds;          /* n_pages pages */
    int64_t n_pages, n_pages_held;
    uint64_t sets_of_kind[KINDS_MAX]; /* bit i: in set i */
    int n_kinds;
};

void sp_regex_free(sp_regex *regex) {
    if (!regex) return;
    pcre2_code_free(regex->code);
    pcre2_match_context_free(regex->limits);
    free(regex->source);
    free(regex->kinds);
    free(regex);
}

/* ---- kinds of characters ---- */

static sp_status find_kind(sp_regex *regex, uint64_t sets, uint8_t *kind) {
    int i = 0;
    while (i < regex->n_kinds && regex->sets_of_kind[i] != sets) i++;
    SP_REQUIRE(i < KINDS_MAX, SP_UNSUPPORTED, "%s: a regular expression tells more than %d kinds of characters apart",
               regex->source, KINDS_MAX);
    regex->sets_of_kind[i] = sets;
    if (i == regex->n_kinds) regex->n_kinds++;
    *kind = (uint8_t)(FIRST_KIND + i);
    return SP_OK;
}

/* The page of 128 characters from at * PAGE_CODES on. */
static sp_status add_page(sp_regex *regex, int64_t at, const uint8_t page[PAGE_CODES]) {
    if (regex->n_pages == regex->n_pages_held) {
        int64_t n_held = 2 * regex->n_pages_held + 64;
        uint8_t *kinds = realloc(regex->kinds, (size_t)n_held * PAGE_CODES);
        SP_REQUIRE(kinds, SP_OUT_OF_MEMORY, "%s: no memory for a regular expression", regex->source);
        regex->kinds = kinds;
        regex->n_pages_held = n_held;
    }
    memcpy(regex->kinds + regex->n_pages * PAGE_CODES, page, PAGE_CODES);
    regex->pages[at] = (uint16_t)regex->n_pages++;
    return SP_OK;
}

/* Bit `set` in the words of the characters of a page that are in the set, whose ranges before `range` end before it. */
static void mark_set(uint64_t words[PAGE_CODES], uint32_t first, const sp_code_set *of, int set, int64_t *range) {
    uint32_t last = first + PAGE_CODES - 1;
    while (*range < of->n && of->ranges[*range].last < first) ++*range;
    for (int64_t i = *range; i < of->n && of->ranges[i].first <= last; i++) {
        uint32_t c = of->ranges[i].first > first ? of->ranges[i].first : first;
        for (; c <= last && c <= of->ranges[i].last; c++) words[c - first] |= UINT64_C(1) << set;
    }
}

/* Pages on which a set begins or ends. */
static void mark_borders(bool borders[N_PAGES + 1], const sp_regex_sets *sets) {
    for (int i = 0; i < sets->n; i++)
        for (int64_t k = 0; k < sets->items[i].n; k++) {
            borders[sets->items[i].ranges[k].first / PAGE_CODES] = true;
            borders[(sets->items[i].ranges[k].last + 1) / PAGE_CODES] = true;
        }
}

static sp_status find_page(sp_regex *regex, const sp_regex_sets *sets, int64_t ranges[], uint32_t at, uint8_t *kind) {
    uint64_t words[PAGE_CODES] = {0};
    uint8_t page[PAGE_CODES];
    for (int i = 0; i < sets->n; i++) mark_set(words, at * PAGE_CODES, &sets->items[i], i, &ranges[i]);
    for (int i = 0; i < PAGE_CODES; i++) {
        if (i == 0 || words[i] != words[i - 1]) SP_TRY(find_kind(regex, words[i], kind));
        page[i] = *kind;
    }
    return add_page(regex, at, page);
}

/* A page without borders is all of the kind with which the page before it ends; one serves for all of that kind. */
static sp_status find_kinds(sp_regex *regex, const sp_regex_sets *sets) {
    int64_t ranges[SP_REGEX_SETS_MAX] = {0}, plain[FIRST_KIND + KINDS_MAX] = {0}; /* of a kind: its page, plus 1 */
    bool borders[N_PAGES + 1] = {false};
    uint8_t codes[PAGE_CODES], kind = 0;
    for (int i = 0; i < PAGE_CODES; i++) codes[i] = (uint8_t)i;
    SP_TRY(add_page(regex, 0, codes)); /* ASCII is itself */
    mark_borders(borders, sets);
    borders[1] = true;
    for (uint32_t at = 1; at < N_PAGES; at++) {
        if (borders[at]) {
            SP_TRY(find_page(regex, sets, ranges, at, &kind));
            continue;
        }
        if (!plain[kind]) {
            memset(codes, kind, sizeof codes);
            SP_TRY(add_page(regex, at, codes));
            plain[kind] = regex->n_pages;
        }
        regex->pages[at] = (uint16_t)(plain[kind] - 1);
    }
    return SP_OK;
}

static uint8_t kind_of(const sp_regex *regex, uint32_t code) {
    if (code > SP_CODE_LAST) code = 0xfffd;
    return regex->kinds[regex->pages[code / PAGE_CODES] * PAGE_CODES + code % PAGE_CODES];
}

/* ---- compiling ---- */

static sp_status write_set(const sp_regex *regex, const sp_regex_sets *sets, int set, sp_bytes *out) {
    bool holds[256] = {false};
    for (uint32_t c = 0; c < FIRST_KIND; c++) holds[c] = sp_code_set_holds(&sets->items[set], c);
    for (int i = 0; i < regex->n_kinds; i++) holds[FIRST_KIND + i] = regex->sets_of_kind[i] >> set & 1;
    return sp_regex_write_bytes(out, holds);
}

/* The translation with classes in the place of numbers. */
static sp_status write_sets(const sp_regex *regex, const sp_regex_sets *sets, const sp_bytes *from, sp_bytes *to) {
    for (int64_t i = 0; i < from->n; i++) {
        if (from->data[i] == SP_REGEX_SET)
            SP_TRY(write_set(regex, sets, from->data[++i] - 1, to));
        else
            SP_TRY(sp_bytes_add(to, from->data + i, 1));
    }
    return SP_OK;
}

static sp_status compile(sp_regex *regex, const sp_bytes *text, const char *pattern) {
    int problem;
    PCRE2_SIZE place;
    char words[256];
    regex->code =
        pcre2_compile((PCRE2_SPTR)(text->data ? text->data : ""), (PCRE2_SIZE)text->n, 0, &problem, &place, NULL);
    if (!regex->code) {
        pcre2_get_error_message(problem, (PCRE2_UCHAR *)words, sizeof words);
        return sp_fail(SP_UNSUPPORTED, "%s: the regular expression \"%.200s\" is refused by PCRE2: %s", regex->source,
                       pattern, words);
    }
    (void)pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE); /* without it: the same, slower */
    regex->limits = pcre2_match_context_create(NULL);
    SP_REQUIRE(regex->limits, SP_OUT_OF_MEMORY, "%s: no memory for a regular expression", regex->source);
    pcre2_set_match_limit(regex->limits, MATCH_LIMIT);
    pcre2_set_heap_limit(regex->limits, HEAP_LIMIT_KIB);
    return SP_OK;
}

sp_status sp_regex_new(sp_regex **out, const char *pattern, int64_t n_pattern, const char *source) {
    *out = NULL;
    sp_bytes numbered = {0}, text = {0};
    sp_regex_sets sets = {.n = 0};
    sp_status status = SP_OK;
    sp_regex *regex = calloc(1, sizeof *regex);
    if (regex) regex->source = strdup(source);
    SP_REQUIRE_OR_DONE(regex && regex->source, SP_OUT_OF_MEMORY, "%s: no memory for a regular expression", source);
    SP_TRY_OR_DONE(sp_regex_translate(&numbered, &sets, pattern, n_pattern, source));
    SP_TRY_OR_DONE(find_kinds(regex, &sets));
    SP_TRY_OR_DONE(write_sets(regex, &sets, &numbered, &text));
    SP_TRY_OR_DONE(compile(regex, &text, pattern));
    *out = regex;
    regex = NULL;
done:
    for (int i = 0; i < sets.n; i++) sp_code_set_free(&sets.items[i]);
    sp_bytes_free(&numbered);
    sp_bytes_free(&text);
    sp_regex_free(regex);
    return status;
}

/* ---- matching ---- */

/* What PCRE2 is given: the text itself when all of it is ASCII, else a byte for each character. */
typedef struct subject {
    const char *bytes; /* owned if it is not the text */
    int64_t n;
    const char *text;
    int64_t n_text;
    int64_t character, byte; /* the character last looked up, and the byte of the text where it begins */
} subject;

static sp_status subject_make(subject *made, const sp_regex *regex, const char *text, int64_t n_bytes) {
    *made = (subject){.bytes = text, .n = n_bytes, .text = text, .n_text = n_bytes};
    int64_t plain = 0;
    while (plain < n_bytes && (uint8_t)text[plain] < 0x80) plain++;
    if (plain == n_bytes) return SP_OK;
    char *bytes = malloc((size_t)n_bytes);
    SP_REQUIRE(bytes, SP_OUT_OF_MEMORY, "%s: no memory to match %" PRId64 " bytes", regex->source, n_bytes);
    memcpy(bytes, text, (size_t)plain);
    int64_t n = plain;
    uint32_t code;
    for (int64_t at = plain; at < n_bytes; n++) {
        at += sp_utf8_read(text + at, n_bytes - at, &code);
        bytes[n] = (char)(code < FIRST_KIND ? code : kind_of(regex, code));
    }
    made->bytes = bytes;
    made->n = n;
    return SP_OK;
}

static void subject_free(subject *of) {
    if (of->bytes != of->text) free((void *)(uintptr_t)of->bytes);
}

/* The byte of the text where a character begins, which does not stand before the one asked last. */
static int64_t byte_of(subject *in, int64_t character) {
    if (in->bytes == in->text) return character;
    uint32_t code;
    for (; in->character < character; in->character++)
        in->byte += sp_utf8_read(in->text + in->byte, in->n_text - in->byte, &code);
    return in->byte;
}

/* A match in the subject from `from` on; *found is false at its end. */
static sp_status find_next(const sp_regex *regex, const subject *in, int64_t from, pcre2_match_data *match,
                           bool *found) {
    PCRE2_SPTR bytes = (PCRE2_SPTR)in->bytes;
    int result = pcre2_match(regex->code, bytes, (PCRE2_SIZE)in->n, (PCRE2_SIZE)from, 0, match, regex->limits);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT)
        result =
            pcre2_match(regex->code, bytes, (PCRE2_SIZE)in->n, (PCRE2_SIZE)from, PCRE2_NO_JIT, match, regex->limits);
    *found = result >= 0;
    if (result >= 0 || result == PCRE2_ERROR_NOMATCH) return SP_OK;
    char words[256];
    pcre2_get_error_message(result, (PCRE2_UCHAR *)words, sizeof words);
    return sp_fail(SP_UNSUPPORTED, "%s: a regular expression fails on a text of %" PRId64 " bytes: %s", regex->source,
                   in->n_text, words);
}

static sp_status find_all(const sp_regex *regex, subject *in, pcre2_match_data *match, sp_spans *matches) {
    const PCRE2_SIZE *place = pcre2_get_ovector_pointer(match);
    int64_t last = -1; /* where the last match ends */
    for (int64_t from = 0; from <= in->n;) {
        bool found;
        SP_TRY(find_next(regex, in, from, match, &found));
        if (!found) break;
        int64_t begin = (int64_t)place[0], end = (int64_t)place[1];
        if (begin == end && end == last) {
            from++;
            continue;
        }
        from = last = end;
        begin = byte_of(in, begin);
        SP_TRY(sp_spans_add(matches, begin, byte_of(in, end)));
    }
    return SP_OK;
}

sp_status sp_regex_find_all(const sp_regex *regex, const char *text, int64_t n_bytes, sp_spans *matches) {
    subject in;
    SP_TRY(subject_make(&in, regex, text, n_bytes));
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    sp_status status = match ? find_all(regex, &in, match, matches)
                             : sp_fail(SP_OUT_OF_MEMORY, "%s: no memory for a match", regex->source);
    pcre2_match_data_free(match);
    subject_free(&in);
    return status;
}

#else

sp_status sp_regex_new(sp_regex **out, const char *pattern, int64_t n_pattern, const char *source) {
    *out = NULL;
    (void)pattern, (void)n_pattern;
    return sp_fail(SP_UNSUPPORTED, "%s: it needs a regular expression, and this build is without PCRE2", source);
}

void sp_regex_free(sp_regex *regex) { (void)regex; }

sp_status sp_regex_find_all(const sp_regex *regex, const char *text, int64_t n_bytes, sp_spans *matches) {
    (void)regex, (void)text, (void)n_bytes, (void)matches;
    return sp_fail(SP_INTERNAL, "a regular expression without PCRE2");
}

#endif
