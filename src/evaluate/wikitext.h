/* WikiText as evaluations read it: pages of a wiki.test.raw, their detokenized form, their words; and the one long text
 * of the quantization papers. */
#ifndef SP_EVALUATE_WIKITEXT_H
#define SP_EVALUATE_WIKITEXT_H

#include <stdint.h>

#include "base/status.h"
#include "evaluate/python_text.h"

/* Cuts a file's text into pages, views into it; caller frees *pages.  A page begins at a line that looks like a title
 * (" = Title = "), by the rule of EleutherAI/wikitext_document_level: formulas that look like one begin a page, too. */
SP_MUST_CHECK sp_status sp_wikitext_pages(sp_text_view **pages, int64_t *n_pages, sp_text_view file);
/* A page as people write: what lm-eval's task "wikitext" predicts.  Caller frees *out; a 0 follows the text. */
SP_MUST_CHECK sp_status sp_wikitext_detokenize(char **out, int64_t *n_out, sp_text_view page);
/* Words of a page as lm-eval counts them: pieces between white space, empty ones at both ends included. */
int64_t sp_wikitext_words(sp_text_view page);

/* The text of GPTQ's perplexity: lines joined by two newlines more, where blank lines are empty.  Caller frees *out. */
SP_MUST_CHECK sp_status sp_wikitext_join_lines(char **out, int64_t *n_out, sp_text_view file);

#endif
