/* The "post_processor" of a tokenizer.json, as far as one text is concerned: tokens before it and behind it. */
#ifndef SP_TEXT_TEMPLATE_H
#define SP_TEXT_TEMPLATE_H

#include <jansson.h>

#include "text/token_list.h"

/* Adds to `before` and `after`.  `json`: the component, NULL or null for none. */
SP_MUST_CHECK sp_status sp_template_read(sp_token_list *before, sp_token_list *after, const json_t *json,
                                         const char *source);

#endif
