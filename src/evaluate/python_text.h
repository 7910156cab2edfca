/* Text as Python's str methods see it, for lm-eval's ways of preparing documents.  All of it works on UTF-8. */
#ifndef SP_EVALUATE_PYTHON_TEXT_H
#define SP_EVALUATE_PYTHON_TEXT_H

#include <stdint.h>

#include "base/status.h"

/* A piece of text that somebody else owns. */
typedef struct sp_text_view {
    const char *text;
    int64_t n_bytes;
} sp_text_view;

/* Bytes of the white space character (str.isspace, and \s of a regular expression) with which the text begins; 0: it
 * begins with something else. */
int64_t sp_python_space(const char *text, int64_t n_bytes);
/* lstrip(), rstrip(), strip(). */
sp_text_view sp_python_strip_left(sp_text_view view);
sp_text_view sp_python_strip_right(sp_text_view view);
sp_text_view sp_python_strip(sp_text_view view);
/* replace(from, to), `from` not empty: from left to right, without overlap.  A new text with a 0 after it, which the
 * caller frees. */
SP_MUST_CHECK sp_status sp_python_replace(char **out, int64_t *n_out, sp_text_view view, const char *from,
                                          const char *to);

#endif
