/* Is it text? */
#ifndef SP_TEXT_UTF8_H
#define SP_TEXT_UTF8_H

#include <stdint.h>

/* Bytes of the longest prefix that is valid UTF-8 (RFC 3629) without zero bytes: n_bytes if all of it is. */
int64_t sp_utf8_prefix(const char *text, int64_t n_bytes);

#endif
