/* The "pre_tokenizer" of a tokenizer.json: cuts text into the pieces that are tokenized one by one. */
#ifndef SP_TEXT_SPLITTER_H
#define SP_TEXT_SPLITTER_H

#include <jansson.h>
#include <stdbool.h>

#include "base/status.h"
#include "text/bytes.h"

typedef struct sp_splitter sp_splitter; /* constant after making: many threads may use it */

/* `json`: the component, NULL or null for none (then a text is one piece).  `source` names the file in messages.  A
 * component that is not known is refused by its name (SP_UNSUPPORTED), one of a wrong shape is SP_BAD_FILE. */
SP_MUST_CHECK sp_status sp_splitter_new(sp_splitter **out, const json_t *json, const char *source);
void sp_splitter_free(sp_splitter *splitter);
/* True when it ends in a ByteLevel step: the vocabulary is written in the characters of that table.  The step rewrites
 * nothing here: pieces are the text's own bytes. */
bool sp_splitter_byte_level(const sp_splitter *splitter);
/* Puts the pieces of `text`, valid UTF-8, in `pieces` (emptied first), in order and none of them empty.  They are spans
 * of `text` as the call leaves it: some steps replace spaces or put one before a piece.  `begins_text`: nothing stands
 * before it in what the caller encodes (for Metaspace's scheme "first"). */
SP_MUST_CHECK sp_status sp_splitter_split(const sp_splitter *splitter, sp_bytes *text, bool begins_text,
                                          sp_spans *pieces);

#endif
