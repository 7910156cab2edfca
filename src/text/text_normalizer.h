/* The "normalizer" of a tokenizer.json: rewrites text before it is split. */
#ifndef SP_TEXT_TEXT_NORMALIZER_H
#define SP_TEXT_TEXT_NORMALIZER_H

#include <jansson.h>

#include "base/status.h"
#include "text/bytes.h"

typedef struct sp_text_normalizer sp_text_normalizer; /* constant after making: many threads may use it */

/* `json`: the component, NULL or null for none.  `source` names the file in messages.  A component that is not known
 * is refused by its name (SP_UNSUPPORTED), one of a wrong shape is SP_BAD_FILE. */
SP_MUST_CHECK sp_status sp_text_normalizer_new(sp_text_normalizer **out, const json_t *json, const char *source);
void sp_text_normalizer_free(sp_text_normalizer *normalizer);
/* Rewrites `text`, valid UTF-8, in place.  What fails leaves it in an unspecified state. */
SP_MUST_CHECK sp_status sp_text_normalizer_apply(const sp_text_normalizer *normalizer, sp_bytes *text);

#endif
