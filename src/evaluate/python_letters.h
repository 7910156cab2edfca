/* Letters as Python's str sees them (white space and replacing: python_text.h).  Texts are valid UTF-8 and end with
 * a 0. */
#ifndef SP_EVALUATE_PYTHON_LETTERS_H
#define SP_EVALUATE_PYTHON_LETTERS_H

#include <stdint.h>

#include "base/status.h"

/* len(): code points. */
int64_t sp_python_length(const char *text);
/* str.capitalize(): the first character in title case, the others in lower case.  Caller frees. */
SP_MUST_CHECK sp_status sp_python_capitalize(char **out, const char *text);

#endif
