/* What is looked for in text: a regular expression, a string, or any character of a set. */
#ifndef SP_TEXT_PATTERN_H
#define SP_TEXT_PATTERN_H

#include <jansson.h>

#include "base/status.h"
#include "text/bytes.h"
#include "text/regex.h"
#include "text/unicode_set.h"

typedef struct sp_pattern {
    sp_regex *regex; /* else */
    char *string;    /* else */
    int64_t n_string;
    sp_code_set set;
} sp_pattern; /* a zeroed one holds nothing to free */

/* {"Regex": "..."} or {"String": "..."} of a tokenizer.json. */
SP_MUST_CHECK sp_status sp_pattern_read(sp_pattern *pattern, const json_t *json, const char *source);
SP_MUST_CHECK sp_status sp_pattern_from_regex(sp_pattern *pattern, const char *regex, const char *source);
SP_MUST_CHECK sp_status sp_pattern_from_string(sp_pattern *pattern, const char *string, const char *source);
SP_MUST_CHECK sp_status sp_pattern_from_set(sp_pattern *pattern, const char *name);
void sp_pattern_free(sp_pattern *pattern);
/* Adds the matches in `text`, valid UTF-8, from left to right and apart from each other; each character of a set is a
 * match of its own. */
SP_MUST_CHECK sp_status sp_pattern_find_all(const sp_pattern *pattern, const char *text, int64_t n_bytes,
                                            sp_spans *matches);

#endif
