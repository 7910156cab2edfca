/* Is it text?  And what of it, where it may be cut or damaged? */
#ifndef SP_TEXT_UTF8_H
#define SP_TEXT_UTF8_H

#include <stdint.h>

/* Bytes of the longest prefix that is valid UTF-8 (RFC 3629) without zero bytes: n_bytes if all of it is. */
int64_t sp_utf8_prefix(const char *text, int64_t n_bytes);

/* What begins at `text`, of which n_bytes >= 1 are there: the bytes of a whole character (zero is one); 0 when more
 * bytes could make one; or minus the bytes that no byte can make one (Unicode's maximal subpart: as many as one U+FFFD
 * stands for). */
int64_t sp_utf8_next(const char *text, int64_t n_bytes);

#endif
