/* Lower case, as Rust knows it. */
#ifndef SP_TEXT_UNICODE_CASE_H
#define SP_TEXT_UNICODE_CASE_H

#include <stdint.h>

/* The lower case of a character; U+0130 alone becomes two, of which this is the first: U+0307 belongs behind it. */
uint32_t sp_unicode_lower(uint32_t code);

#endif
