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

/* The character at `text`, of which n_bytes >= 1 are there, and its length.  In what is not UTF-8, some code up to
 * U+1FFFFF, and never more bytes than there are. */
static inline int64_t sp_utf8_read(const char *text, int64_t n_bytes, uint32_t *code) {
    const uint8_t *byte = (const uint8_t *)text;
    *code = *byte;
    int64_t n = *byte < 0xc0 ? 1 : *byte < 0xe0 ? 2 : *byte < 0xf0 ? 3 : 4;
    if (n == 1 || n > n_bytes) return 1;
    *code = *byte & (0x7fu >> n);
    for (int64_t i = 1; i < n; i++) *code = *code << 6 | (byte[i] & 0x3f);
    return n;
}

enum { SP_UTF8_BYTES_MAX = 4 };
/* Writes a character and returns its length. */
static inline int64_t sp_utf8_write(char text[SP_UTF8_BYTES_MAX], uint32_t code) {
    static const uint8_t marks[] = {0, 0, 0xc0, 0xe0, 0xf0};
    int64_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (int64_t i = n - 1; i > 0; i--, code >>= 6) text[i] = (char)(0x80 | (code & 0x3f));
    text[0] = (char)(marks[n] | code);
    return n;
}

#endif
