/* Templates of prompts: text with fields of a document in it.
 *
 *   "Question: {question}\nAnswer:"       a field
 *   "{question.stem}"                     a field of a field
 *   "{choices.text}"                      a list, where one is wanted
 *   "{question.choices[].text}"           the list of a field of each element
 *   "{support|lstrip}"                    a field through a filter; filters are applied from left to right
 *   "{sentence|before:_}"                 a filter with an argument, up to the next | or }
 *   "{{" and "}}"                         braces
 *
 * Fields are strings, whole numbers, or true and false, which read 1 and 0. */
#ifndef SP_EVALUATE_PROMPT_H
#define SP_EVALUATE_PROMPT_H

#include "base/json.h"
#include "base/status.h"
#include "evaluate/task.h"

/* Text of a template; `filter` (NULL: none), without an argument, is applied to the whole.  Caller frees. */
SP_MUST_CHECK sp_status sp_prompt_render(char **text, const char *template, const json_t *fields, const char *filter);
/* Adds the text of every template, and of each element where a template is one field that holds a list. */
SP_MUST_CHECK sp_status sp_prompt_expand(sp_strings *texts, const char *const *templates, const json_t *fields,
                                         const char *filter);
/* Whether there is a filter of this name that takes no argument. */
bool sp_prompt_filter_exists(const char *name);

#endif
