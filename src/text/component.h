/* Components of a tokenizer.json: objects with a "type" and fields.  Messages begin with `source`. */
#ifndef SP_TEXT_COMPONENT_H
#define SP_TEXT_COMPONENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* The index of the component's type in a table of rows whose first member is the type's name.  One that is not there is
 * refused by its name, with the list of those that are; `kind` says what is read ("normalizer"). */
SP_MUST_CHECK sp_status sp_component_find(int64_t *index, const json_t *json, const void *rows, size_t row_bytes,
                                          int64_t n_rows, const char *kind, const char *source);
/* Fields.  `otherwise` < 0: the field must be there. */
SP_MUST_CHECK sp_status sp_component_bool(bool *value, const json_t *json, const char *key, int otherwise,
                                          const char *source);
/* A string; borrowed. */
SP_MUST_CHECK sp_status sp_component_string(const char **value, const json_t *json, const char *key,
                                            const char *source);

#endif
