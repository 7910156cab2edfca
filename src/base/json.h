/* JSON by jansson, with our messages: strict, duplicate keys refused. */
#ifndef SP_BASE_JSON_H
#define SP_BASE_JSON_H

#include <jansson.h>
#include <stdint.h>

#include "base/status.h"

/* Parses a document; SP_BAD_FILE with `source`, line and column otherwise.  Release with json_decref.  Whole numbers
 * beyond 64 bits become reals: transformers writes 10^30 for "no limit" into tokenizer_config.json. */
SP_MUST_CHECK sp_status sp_json_parse(json_t **out, const char *text, int64_t n_bytes, const char *source);
/* Reads and parses a file. */
SP_MUST_CHECK sp_status sp_json_read(json_t **out, const char *path);
/* Text of a document, keys in the order of insertion, indented unless `compact`.  Caller frees. */
SP_MUST_CHECK sp_status sp_json_format(char **text, const json_t *json, int compact);
/* Writes the document to a file, atomically. */
SP_MUST_CHECK sp_status sp_json_write(const char *path, const json_t *json);
/* A number, or null when it is not finite (JSON has no NaN). */
json_t *sp_json_number(double value);

#endif
