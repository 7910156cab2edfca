/* Reads a pattern by recursive descent and writes it again, with each thing whose meaning differs spelled out:
 *   ^ $         begin and end of lines;             \A \z \Z      of the text
 *   .           anything but \n; after (?m anything; (?i           spelled as classes of both cases
 *   x{n,m}+     repeats x{n,m}; x{n}? may leave it out; x{,m} is x{0,m}; x*+ x++ x?+ give nothing back
 *   ( (?<name>  groups: what they catch is not needed
 * Refused: references to groups, recursion, conditions, absent operators, options but i and m, \G \K \R \X. */
#include "text/regex_translate.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "text/utf8.h"

enum { PATTERN_BYTES_MAX = 16384, TRANSLATED_BYTES_MAX = 1 << 20, REPEAT_MAX = 65535 };

sp_status sp_regex_refuse(const sp_regex_reader *reader, const char *what) {
    return sp_fail(SP_UNSUPPORTED, "%s: the regular expression \"%.200s\" has %s at byte %td, which is not supported",
                   reader->source, reader->pattern, what, reader->at - reader->pattern);
}

sp_status sp_regex_next(sp_regex_reader *reader, uint32_t *code) {
    if (reader->at == reader->end) return sp_regex_refuse(reader, "its end too early");
    reader->at += sp_utf8_read(reader->at, reader->end - reader->at, code);
    return SP_OK;
}

bool sp_regex_accept(sp_regex_reader *reader, const char *words) {
    size_t n = strlen(words);
    if ((size_t)(reader->end - reader->at) < n || memcmp(reader->at, words, n) != 0) return false;
    reader->at += n;
    return true;
}

static sp_status write_text(const sp_regex_reader *reader, const char *text) {
    if (reader->out->n > TRANSLATED_BYTES_MAX) return sp_regex_refuse(reader, "too much");
    return sp_bytes_add(reader->out, text, (int64_t)strlen(text));
}

static sp_status read_alternatives(sp_regex_reader *reader);

/* ---- one character, set or place ---- */

static bool is_letter(uint32_t code) { return (code | 32) >= 'a' && (code | 32) <= 'z'; }

/* Some letters together are equal to one that looks like them ("ss" to U+00DF) where case does not count. */
static bool folds_with_next(const sp_regex_reader *reader, uint32_t code) {
    static const char *const pairs[] = {"ff", "fi", "fl", "ss", "st"};
    if (reader->at == reader->end || !is_letter(code)) return false;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if ((code | 32) == (uint32_t)pairs[i][0] && (*reader->at | 32) == pairs[i][1]) return true;
    return false;
}

static sp_status write_character(const sp_regex_reader *reader, uint32_t code) {
    sp_code_set set = {0};
    if (reader->caseless && folds_with_next(reader, code))
        return sp_regex_refuse(reader, "letters that are one in another case");
    sp_status status = sp_code_set_add(&set, code, code);
    if (status == SP_OK && reader->caseless) status = sp_regex_fold(reader, &set);
    if (status == SP_OK) status = sp_regex_write_set(reader, &set);
    sp_code_set_free(&set);
    return status;
}

static sp_status write_dot(const sp_regex_reader *reader) {
    sp_code_set set = {0};
    sp_status status = reader->dot_is_any ? SP_OK : sp_code_set_add(&set, '\n', '\n');
    if (status == SP_OK) status = sp_code_set_complement(&set);
    if (status == SP_OK) status = sp_regex_write_set(reader, &set);
    sp_code_set_free(&set);
    return status;
}

/* A place between a character of a word and another one; `inside`: not such a place. */
static sp_status write_word_border(const sp_regex_reader *reader, bool inside) {
    sp_code_set word = {0};
    bool known;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_code_set_add_named(&word, "word", 4, &known));
    static const char *const around[2][5] = {{"(?:(?<=", ")(?!", ")|(?<!", ")(?=", "))"},
                                             {"(?:(?<=", ")(?=", ")|(?<!", ")(?!", "))"}};
    for (int i = 0; i < 5; i++) {
        SP_TRY_OR_DONE(write_text(reader, around[inside][i]));
        if (i < 4) SP_TRY_OR_DONE(sp_regex_write_set(reader, &word));
    }
done:
    sp_code_set_free(&word);
    return status;
}

static sp_status read_backslash(sp_regex_reader *reader) {
    static const struct { const char *name, *text; } places[] = {{"A", "\\A"}, {"z", "\\z"}, {"Z", "(?=\\n?\\z)"}};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (sp_regex_accept(reader, places[i].name)) return write_text(reader, places[i].text);
    if (sp_regex_accept(reader, "b")) return write_word_border(reader, false);
    if (sp_regex_accept(reader, "B")) return write_word_border(reader, true);
    sp_code_set set = {0};
    bool is_set;
    uint32_t code;
    sp_status status = sp_regex_read_escape(reader, &set, &is_set, &code);
    if (status == SP_OK) status = is_set ? sp_regex_write_set(reader, &set) : write_character(reader, code);
    sp_code_set_free(&set);
    return status;
}

static sp_status read_bracket(sp_regex_reader *reader) {
    sp_code_set set = {0};
    sp_status status = sp_regex_read_class(reader, &set);
    if (status == SP_OK) status = sp_regex_write_set(reader, &set);
    sp_code_set_free(&set);
    return status;
}

/* ---- groups ---- */

/* Options behind "(?", up to ')' or ':'; i: case does not count, m: a dot is any character. */
static sp_status read_options(sp_regex_reader *reader) {
    bool on = true;
    for (; reader->at < reader->end && *reader->at != ')' && *reader->at != ':'; reader->at++) {
        if (*reader->at == '-')
            on = false;
        else if (*reader->at == 'i')
            reader->caseless = on;
        else if (*reader->at == 'm')
            reader->dot_is_any = on;
        else
            return sp_regex_refuse(reader, "this kind of group");
    }
    return SP_OK;
}

static sp_status close_group(sp_regex_reader *reader) {
    if (!sp_regex_accept(reader, ")")) return sp_regex_refuse(reader, "a group without its end");
    return write_text(reader, ")");
}

/* (?<name> and its like without a name are groups for us. */
static bool accept_name(sp_regex_reader *reader) {
    if (reader->end - reader->at < 3 || reader->at[0] != '?' || reader->at[1] != '<') return false;
    const char *close = memchr(reader->at + 2, '>', (size_t)(reader->end - reader->at - 2));
    if (!close || reader->at[2] == '=' || reader->at[2] == '!') return false;
    reader->at = close + 1;
    return true;
}

/* Behind '('. */
static sp_status read_group(sp_regex_reader *reader) {
    static const char *const same[] = {"?:", "?=", "?!", "?<=", "?<!", "?>"};
    bool caseless = reader->caseless, dot_is_any = reader->dot_is_any;
    if (++reader->depth > SP_REGEX_DEPTH_MAX) return sp_regex_refuse(reader, "groups nested this deep");
    size_t kind = 0;
    while (kind < sizeof same / sizeof *same && !sp_regex_accept(reader, same[kind])) kind++;
    if (kind < sizeof same / sizeof *same) {
        SP_TRY(write_text(reader, "("));
        SP_TRY(write_text(reader, same[kind]));
    } else {
        if (!accept_name(reader) && sp_regex_accept(reader, "?")) {
            SP_TRY(read_options(reader));
            if (!sp_regex_accept(reader, ":")) return sp_regex_refuse(reader, "options in the middle");
        }
        SP_TRY(write_text(reader, "(?:"));
    }
    SP_TRY(read_alternatives(reader));
    reader->caseless = caseless;
    reader->dot_is_any = dot_is_any;
    reader->depth--;
    return close_group(reader);
}

/* ---- what may be repeated, and how often ---- */

static sp_status read_atom(sp_regex_reader *reader) {
    if (strchr("*+?", *reader->at)) return sp_regex_refuse(reader, "a repetition of nothing");
    if (sp_regex_accept(reader, "(")) return read_group(reader);
    if (sp_regex_accept(reader, "[")) return read_bracket(reader);
    if (sp_regex_accept(reader, "\\")) return read_backslash(reader);
    if (sp_regex_accept(reader, ".")) return write_dot(reader);
    if (sp_regex_accept(reader, "^")) return write_text(reader, "(?:\\A|(?<=\\n)(?!\\z))");
    if (sp_regex_accept(reader, "$")) return write_text(reader, "(?=\\n|\\z)");
    uint32_t code;
    SP_TRY(sp_regex_next(reader, &code));
    return write_character(reader, code);
}

/* Digits of a number at `text`, if it has any; REPEAT_MAX + 1 if it is larger. */
static const char *read_number(const char *text, const char *end, int64_t *number) {
    for (*number = 0; text < end && *text >= '0' && *text <= '9'; text++)
        *number = *number > REPEAT_MAX ? *number : *number * 10 + (*text - '0');
    return text;
}

/* {n} {n,} {,m} {n,m}, or none of them and a '{' that stands for itself.  *most < 0: no end. */
static bool accept_braces(sp_regex_reader *reader, int64_t *least, int64_t *most) {
    if (reader->at == reader->end || *reader->at != '{') return false;
    const char *first = reader->at + 1, *at = read_number(first, reader->end, least);
    bool has_least = at > first;
    *most = *least;
    if (at < reader->end && *at == ',') {
        const char *second = ++at;
        at = read_number(second, reader->end, most);
        if (at == second) *most = -1;
        if (at == second && !has_least) return false;
    } else if (!has_least) {
        return false;
    }
    if (at == reader->end || *at != '}') return false;
    reader->at = at + 1;
    return true;
}

static sp_status write_braces(const sp_regex_reader *reader, int64_t least, int64_t most) {
    char text[64];
    if (least > REPEAT_MAX || most > REPEAT_MAX)
        return sp_regex_refuse(reader, "a repetition of more than 65535 times");
    if (most >= 0 && least > most) return sp_regex_refuse(reader, "a repetition whose ends are exchanged");
    if (most < 0)
        snprintf(text, sizeof text, "{%" PRId64 ",}", least);
    else
        snprintf(text, sizeof text, "{%" PRId64 ",%" PRId64 "}", least, most);
    return write_text(reader, text);
}

/* One quantifier, if there is one. */
static sp_status read_repetition(sp_regex_reader *reader, bool *found) {
    static const char *const signs[] = {"*", "+", "?"};
    int64_t least, most;
    *found = true;
    if (accept_braces(reader, &least, &most)) {
        SP_TRY(write_braces(reader, least, most));
        return least != most && sp_regex_accept(reader, "?") ? write_text(reader, "?") : SP_OK;
    }
    for (int i = 0; i < 3; i++) {
        if (!sp_regex_accept(reader, signs[i])) continue;
        SP_TRY(write_text(reader, signs[i]));
        if (sp_regex_accept(reader, "?")) return write_text(reader, "?");
        return sp_regex_accept(reader, "+") ? write_text(reader, "+") : SP_OK;
    }
    *found = false;
    return SP_OK;
}

/* What is repeated again becomes a group first. */
static sp_status read_repeated(sp_regex_reader *reader) {
    int64_t begin = reader->out->n;
    SP_TRY(read_atom(reader));
    bool found;
    SP_TRY(read_repetition(reader, &found));
    while (found) {
        int64_t before = reader->out->n;
        SP_TRY(read_repetition(reader, &found));
        if (!found) break;
        SP_TRY(sp_bytes_replace(reader->out, before, before, ")", 1));
        SP_TRY(sp_bytes_replace(reader->out, begin, begin, "(?:", 3));
        if (reader->out->n > TRANSLATED_BYTES_MAX) return sp_regex_refuse(reader, "too much");
    }
    return SP_OK;
}

/* Options that stand at the beginning hold to the end of the group. */
static sp_status read_leading_options(sp_regex_reader *reader) {
    while (reader->end - reader->at > 2 && memcmp(reader->at, "(?", 2) == 0 && strchr("im-", reader->at[2])) {
        sp_regex_reader ahead = *reader;
        ahead.at += 2;
        SP_TRY(read_options(&ahead));
        if (!sp_regex_accept(&ahead, ")")) break;
        *reader = ahead;
    }
    return SP_OK;
}

static sp_status read_alternatives(sp_regex_reader *reader) {
    SP_TRY(read_leading_options(reader));
    while (reader->at < reader->end && *reader->at != ')') {
        if (sp_regex_accept(reader, "|"))
            SP_TRY(write_text(reader, "|"));
        else
            SP_TRY(read_repeated(reader));
    }
    return SP_OK;
}

sp_status sp_regex_translate(sp_bytes *out, sp_regex_sets *sets, const char *pattern, int64_t n_pattern,
                             const char *source) {
    sp_regex_reader reader = {
        .at = pattern, .end = pattern + n_pattern, .pattern = pattern, .source = source, .out = out, .sets = sets};
    SP_REQUIRE(n_pattern <= PATTERN_BYTES_MAX, SP_UNSUPPORTED,
               "%s: a regular expression of %" PRId64 " bytes: at most %d are supported", source, n_pattern,
               PATTERN_BYTES_MAX);
    SP_TRY(read_alternatives(&reader));
    if (reader.at < reader.end) return sp_regex_refuse(&reader, "a ')' that ends nothing");
    return SP_OK;
}
