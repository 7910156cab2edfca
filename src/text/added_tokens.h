/* Tokens that are found in a text as they stand, before anything else is done with it. */
#ifndef SP_TEXT_ADDED_TOKENS_H
#define SP_TEXT_ADDED_TOKENS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

typedef struct sp_added_token {
    const char *text; /* n_bytes > 0, which the set copies */
    int64_t n_bytes;
    int32_t id;
    bool special;        /* found only if asked for */
    bool single_word;    /* not where a letter, a digit or "_" stands next to it */
    bool lstrip, rstrip; /* takes the white space before, behind it too */
} sp_added_token;

typedef struct sp_added_tokens sp_added_tokens; /* constant after making */

/* Of two with the same text the last one counts. */
SP_MUST_CHECK sp_status sp_added_tokens_new(sp_added_tokens **out, const sp_added_token *tokens, int64_t n);
void sp_added_tokens_free(sp_added_tokens *set);

/* A part of a text: an added token, or (id < 0) what stands between them. */
typedef struct sp_section {
    int64_t begin, end;
    int32_t id;
} sp_section;

/* A walk over the sections of a text, in order and none of them empty.  Of the tokens that begin at the leftmost place
 * the longest is taken. */
typedef struct sp_section_walk {
    const sp_added_tokens *set; /* NULL: the text is one section */
    const char *text;
    int64_t n_bytes;
    bool special;    /* find special tokens too */
    int64_t at;      /* begin of what was not given yet: 0 at first */
    int64_t search;  /* where to look for the next token: 0 at first */
    sp_section held; /* a token that was found behind the section given last */
    bool holds;
} sp_section_walk;

/* False at the end. */
bool sp_section_next(sp_section_walk *walk, sp_section *section);

#endif
