/* From a regular expression of Oniguruma to one of PCRE2 that means the same.  Used by regex*.c.
 *
 * A pattern can tell apart only those characters that some class of it holds and another one does not.  So PCRE2 is given
 * bytes to match: a character of ASCII is itself, others are the number (from 128 on) of their kind, which is what is in
 * the same classes.  Its own tables of Unicode are not used. */
#ifndef SP_TEXT_REGEX_TRANSLATE_H
#define SP_TEXT_REGEX_TRANSLATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "text/bytes.h"
#include "text/unicode_set.h"

enum {
    SP_REGEX_DEPTH_MAX = 60,
    SP_REGEX_SETS_MAX = 64, /* bits of a word; kinds are told apart by it */
    SP_REGEX_SET = 1,       /* in the translation: the byte behind it is the number of a set, plus 1 */
};

/* The sets of a pattern that reach beyond ASCII, each once. */
typedef struct sp_regex_sets {
    sp_code_set items[SP_REGEX_SETS_MAX];
    int n;
} sp_regex_sets;

/* Where the translation stands. */
typedef struct sp_regex_reader {
    const char *at, *end;
    const char *pattern, *source; /* for messages */
    bool caseless, dot_is_any, in_class;
    int depth;
    sp_bytes *out;
    sp_regex_sets *sets;
} sp_regex_reader;

/* The whole pattern, in which sets beyond ASCII stand by their numbers; regex_translate.c.  Caller frees both results,
 * after a failure too. */
SP_MUST_CHECK sp_status sp_regex_translate(sp_bytes *out, sp_regex_sets *sets, const char *pattern, int64_t n_pattern,
                                           const char *source);

/* What the pattern holds is not supported, or wrong: the message names `what` and its place. */
sp_status sp_regex_refuse(const sp_regex_reader *reader, const char *what);
/* The next character of the pattern, which is not at its end. */
SP_MUST_CHECK sp_status sp_regex_next(sp_regex_reader *reader, uint32_t *code);
/* Is this what comes next?  Then it is passed. */
bool sp_regex_accept(sp_regex_reader *reader, const char *words);

/* ---- regex_class.c: sets of characters ---- */

/* Behind a backslash: a set (\s \p{L} ...; *is_set) or one character. */
SP_MUST_CHECK sp_status sp_regex_read_escape(sp_regex_reader *reader, sp_code_set *set, bool *is_set, uint32_t *code);
/* Behind '['. */
SP_MUST_CHECK sp_status sp_regex_read_class(sp_regex_reader *reader, sp_code_set *set);
/* Adds the other cases of what is in the set. */
SP_MUST_CHECK sp_status sp_regex_fold(const sp_regex_reader *reader, sp_code_set *set);
/* Writes the set in PCRE2's syntax, or its number: something a quantifier may follow. */
SP_MUST_CHECK sp_status sp_regex_write_set(const sp_regex_reader *reader, const sp_code_set *set);
/* "[...]" with these bytes in it. */
SP_MUST_CHECK sp_status sp_regex_write_bytes(sp_bytes *out, const bool holds[256]);

#endif
