/* Regular expressions as a tokenizer.json means them: Oniguruma's, in its Ruby syntax, over Unicode. */
#ifndef SP_TEXT_REGEX_H
#define SP_TEXT_REGEX_H

#include <stdint.h>

#include "base/status.h"
#include "text/bytes.h"

typedef struct sp_regex sp_regex; /* constant after making: many threads may use it */

/* What is not understood is refused by name (SP_UNSUPPORTED); `source` begins the message. */
SP_MUST_CHECK sp_status sp_regex_new(sp_regex **out, const char *pattern, int64_t n_pattern, const char *source);
void sp_regex_free(sp_regex *regex);
/* Adds the matches in `text`, valid UTF-8, from left to right and apart from each other.  An empty match is one if the
 * match before it does not end there. */
SP_MUST_CHECK sp_status sp_regex_find_all(const sp_regex *regex, const char *text, int64_t n_bytes, sp_spans *matches);

#endif
