/* Sets of characters in regular expressions: escapes, classes in brackets with nesting and intersection, the other cases
 * of letters. */
#include "text/regex_translate.h"

#include <stdio.h>
#include <string.h>

static sp_status add_named(const sp_regex_reader *reader, sp_code_set *set, const char *name, int64_t n_name,
                           bool inverted) {
    sp_code_set found = {0};
    bool known;
    sp_status status = sp_code_set_add_named(&found, name, n_name, &known);
    if (status == SP_OK && (!known || memchr(name, ' ', (size_t)n_name)))
        status = sp_regex_refuse(reader, "a property or class with a name that is not known");
    if (status == SP_OK && inverted) status = sp_code_set_complement(&found);
    if (status == SP_OK) status = sp_code_set_unite(set, &found);
    sp_code_set_free(&found);
    return status;
}

/* Some names mean another set in brackets: there word has no superscript digits, and punct has signs. */
static sp_status add_class(const sp_regex_reader *reader, sp_code_set *set, const char *name, int64_t n_name,
                           bool inverted) {
    static const char *const special[] = {"class word", "class punct"};
    sp_code_set found = {0};
    bool known;
    for (size_t i = 0; i < sizeof special / sizeof *special; i++) {
        if ((int64_t)strlen(special[i]) != n_name + 6 || memcmp(special[i] + 6, name, (size_t)n_name) != 0) continue;
        sp_status status = sp_code_set_add_named(&found, special[i], n_name + 6, &known);
        if (status == SP_OK && inverted) status = sp_code_set_complement(&found);
        if (status == SP_OK) status = sp_code_set_unite(set, &found);
        sp_code_set_free(&found);
        return status;
    }
    return add_named(reader, set, name, n_name, inverted);
}

/* {Name} or {^Name} behind \p or \P. */
static sp_status read_property(sp_regex_reader *reader, sp_code_set *set, bool inverted) {
    if (!sp_regex_accept(reader, "{")) return sp_regex_refuse(reader, "a property without braces");
    if (sp_regex_accept(reader, "^")) inverted = !inverted;
    const char *name = reader->at, *close = memchr(name, '}', (size_t)(reader->end - name));
    if (!close) return sp_regex_refuse(reader, "a property without its end");
    SP_TRY(add_named(reader, set, name, close - name, inverted));
    reader->at = close + 1;
    return SP_OK;
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* From `least` to `most` hexadecimal digits. */
static sp_status read_hex(sp_regex_reader *reader, int least, int most, uint32_t *code) {
    int n = 0;
    for (*code = 0; n < most && reader->at < reader->end && hex_value(*reader->at) >= 0; n++)
        *code = *code * 16 + (uint32_t)hex_value(*reader->at++);
    bool surrogate = *code >= 0xd800 && *code <= 0xdfff;
    if (n < least || *code > SP_CODE_LAST || surrogate) return sp_regex_refuse(reader, "a number of no character");
    return SP_OK;
}

/* \x41 \x{1F600} é */
static sp_status read_number_of_character(sp_regex_reader *reader, bool four, uint32_t *code) {
    if (four) return read_hex(reader, 4, 4, code);
    if (!sp_regex_accept(reader, "{")) {
        SP_TRY(read_hex(reader, 1, 2, code)); /* beyond ASCII this is a byte, not a character */
        return *code < 0x80 ? SP_OK : sp_regex_refuse(reader, "a byte by its number");
    }
    SP_TRY(read_hex(reader, 1, 6, code));
    return sp_regex_accept(reader, "}") ? SP_OK : sp_regex_refuse(reader, "a number without its end");
}

static sp_status add_hex_digits(sp_code_set *set, bool inverted) {
    SP_TRY(sp_code_set_add(set, '0', '9'));
    SP_TRY(sp_code_set_add(set, 'a', 'f'));
    SP_TRY(sp_code_set_add(set, 'A', 'F'));
    return inverted ? sp_code_set_complement(set) : SP_OK;
}

sp_status sp_regex_read_escape(sp_regex_reader *reader, sp_code_set *set, bool *is_set, uint32_t *code) {
    static const char sets[] = "sdwSDW";
    static const char *const names[] = {"space", "digit", "word"};
    static const char letters[] = "nrtfvae", controls[] = "\n\r\t\f\v\a\x1b";
    uint32_t c;
    SP_TRY(sp_regex_next(reader, &c));
    *is_set = true;
    *code = c;
    const char *found = c > 0 && c < 0x80 ? strchr(sets, (int)c) : NULL;
    if (found) {
        const char *name = names[(found - sets) % 3];
        return (reader->in_class ? add_class : add_named)(reader, set, name, (int64_t)strlen(name), found - sets >= 3);
    }
    if (c == 'p' || c == 'P') return read_property(reader, set, c == 'P');
    if (c == 'h' || c == 'H') return add_hex_digits(set, c == 'H');
    *is_set = false;
    if (c == 'x' || c == 'u') return read_number_of_character(reader, c == 'u', code);
    found = c > 0 && c < 0x80 ? strchr(letters, (int)c) : NULL;
    if (found) {
        *code = (uint32_t)controls[found - letters];
        return SP_OK;
    }
    bool plain = c >= 0x80 || !((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z'));
    return plain ? SP_OK : sp_regex_refuse(reader, "an escape");
}

/* ---- [...] ---- */

/* [:name:] or [:^name:] behind the first '['. */
static sp_status read_posix(sp_regex_reader *reader, sp_code_set *set) {
    reader->at++;
    bool inverted = sp_regex_accept(reader, "^");
    const char *name = reader->at;
    while (reader->at < reader->end && *reader->at >= 'a' && *reader->at <= 'z') reader->at++;
    int64_t n_name = reader->at - name;
    if (!sp_regex_accept(reader, ":]")) return sp_regex_refuse(reader, "a class without its end");
    return add_class(reader, set, name, n_name, inverted);
}

/* One thing in brackets: a set, or a character (then *is_set is false). */
static sp_status read_member(sp_regex_reader *reader, sp_code_set *set, bool *is_set, uint32_t *code) {
    *is_set = true;
    if (sp_regex_accept(reader, "[")) {
        if (reader->at < reader->end && *reader->at == ':') return read_posix(reader, set);
        return sp_regex_read_class(reader, set);
    }
    *is_set = false;
    if (!sp_regex_accept(reader, "\\")) return sp_regex_next(reader, code);
    if (sp_regex_accept(reader, "b")) {
        *code = '\b';
        return SP_OK;
    }
    return sp_regex_read_escape(reader, set, is_set, code);
}

static bool comes_range(const sp_regex_reader *reader) {
    return reader->end - reader->at >= 2 && reader->at[0] == '-' && reader->at[1] != ']' && reader->at[1] != '[';
}

/* A member, or a range of them, goes into `set`. */
static sp_status add_member(sp_regex_reader *reader, sp_code_set *set) {
    sp_code_set member = {0};
    bool is_set;
    uint32_t first, last;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(read_member(reader, &member, &is_set, &first));
    if (is_set) {
        SP_TRY_OR_DONE(sp_code_set_unite(set, &member));
        goto done;
    }
    last = first;
    if (comes_range(reader)) {
        reader->at++;
        SP_TRY_OR_DONE(read_member(reader, &member, &is_set, &last));
        if (is_set || last < first) {
            status = sp_regex_refuse(reader, "a range without ends");
            goto done;
        }
    }
    SP_TRY_OR_DONE(sp_code_set_add(set, first, last));
done:
    sp_code_set_free(&member);
    return status;
}

/* Members up to ']' or "&&". */
static sp_status read_members(sp_regex_reader *reader, sp_code_set *set) {
    for (bool first = true;; first = false) {
        if (reader->at == reader->end) return sp_regex_refuse(reader, "a class without its end");
        bool both = reader->end - reader->at >= 2 && memcmp(reader->at, "&&", 2) == 0;
        if (both || (*reader->at == ']' && !first)) return SP_OK;
        if (*reader->at == ']') return sp_regex_refuse(reader, "an empty class");
        SP_TRY(add_member(reader, set));
    }
}

sp_status sp_regex_read_class(sp_regex_reader *reader, sp_code_set *set) {
    sp_code_set whole = {0}, part = {0};
    sp_status status = SP_OK;
    SP_REQUIRE_OR_DONE(++reader->depth <= SP_REGEX_DEPTH_MAX, SP_UNSUPPORTED,
                       "%s: a regular expression has classes nested too deep", reader->source);
    bool inverted = sp_regex_accept(reader, "^"), outer = reader->in_class;
    reader->in_class = true;
    SP_TRY_OR_DONE(read_members(reader, &whole));
    while (!sp_regex_accept(reader, "]")) {
        reader->at += 2; /* && */
        part.n = 0;
        SP_TRY_OR_DONE(read_members(reader, &part));
        SP_TRY_OR_DONE(sp_code_set_intersect(&whole, &part));
    }
    if (reader->caseless) SP_TRY_OR_DONE(sp_regex_fold(reader, &whole));
    if (inverted) SP_TRY_OR_DONE(sp_code_set_complement(&whole));
    SP_TRY_OR_DONE(sp_code_set_unite(set, &whole));
    reader->in_class = outer;
    reader->depth--;
done:
    sp_code_set_free(&whole);
    sp_code_set_free(&part);
    return status;
}

/* ---- case ---- */

/* Both cases of ASCII's letters, and the two signs beyond that belong to them.  Other letters must be there in both
 * cases already: what is equal to what beyond ASCII is not only pairs. */
sp_status sp_regex_fold(const sp_regex_reader *reader, sp_code_set *set) {
    static const struct { uint32_t letter, sign; } signs[] = {{'s', 0x17f}, {'k', 0x212a}};
    bool beyond_ascii = set->n > 0 && set->ranges[set->n - 1].last >= 0x80;
    for (uint32_t c = 'a'; c <= 'z'; c++) {
        if (!sp_code_set_holds(set, c) && !sp_code_set_holds(set, c - 32)) continue;
        SP_TRY(sp_code_set_add(set, c, c));
        SP_TRY(sp_code_set_add(set, c - 32, c - 32));
    }
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++) {
        if (sp_code_set_holds(set, signs[i].letter))
            SP_TRY(sp_code_set_add(set, signs[i].sign, signs[i].sign));
        else if (sp_code_set_holds(set, signs[i].sign))
            return sp_regex_refuse(reader, "letters beyond ASCII whose case does not count");
    }
    for (int64_t i = 0; i < sp_n_lowercase_runs && beyond_ascii; i++) {
        const sp_case_run *run = &sp_lowercase_runs[i];
        for (uint32_t c = run->first; c <= run->last; c += run->step)
            if (sp_code_set_holds(set, c) != sp_code_set_holds(set, (uint32_t)((int64_t)c + run->distance)))
                return sp_regex_refuse(reader, "letters beyond ASCII whose case does not count");
    }
    return SP_OK;
}

/* ---- writing ---- */

sp_status sp_regex_write_bytes(sp_bytes *out, const bool holds[256]) {
    char text[32];
    bool any = false;
    SP_TRY(sp_bytes_add(out, "[", 1));
    for (int first = 0, last; first < 256; first = last + 1) {
        last = first;
        if (!holds[first]) continue;
        while (last < 255 && holds[last + 1]) last++;
        SP_TRY(sp_bytes_add(out, text, snprintf(text, sizeof text, "\\x%02x-\\x%02x", first, last)));
        any = true;
    }
    if (any) return sp_bytes_add(out, "]", 1);
    out->n--; /* nothing is in it: what never matches */
    return sp_bytes_add(out, "(?:(?!))", 8);
}

static bool is_same_set(const sp_code_set *a, const sp_code_set *b) {
    return a->n == b->n && memcmp(a->ranges, b->ranges, (size_t)a->n * sizeof *a->ranges) == 0;
}

static sp_status write_number_of_set(const sp_regex_reader *reader, const sp_code_set *set) {
    sp_regex_sets *sets = reader->sets;
    int i = 0;
    while (i < sets->n && !is_same_set(&sets->items[i], set)) i++;
    if (i == SP_REGEX_SETS_MAX) return sp_regex_refuse(reader, "more than 64 different classes");
    if (i == sets->n) {
        SP_TRY(sp_code_set_unite(&sets->items[i], set));
        sets->n++;
    }
    const char text[] = {SP_REGEX_SET, (char)(i + 1)};
    return sp_bytes_add(reader->out, text, 2);
}

sp_status sp_regex_write_set(const sp_regex_reader *reader, const sp_code_set *set) {
    if (set->n > 0 && set->ranges[set->n - 1].last >= 0x80) return write_number_of_set(reader, set);
    bool holds[256];
    for (uint32_t c = 0; c < 256; c++) holds[c] = sp_code_set_holds(set, c);
    return sp_regex_write_bytes(reader->out, holds);
}
