/* Validation of UTF-8 by the table of well-formed sequences (Unicode 15, table 3-7). */
#include "text/utf8.h"

#include <stdbool.h>
#include <string.h>

/* Leading bytes from `first` to `last` want `n` more bytes, the next one from `low` to `high`, others 80..BF. */
static const struct {
    uint8_t first, last, n, low, high;
} sequences[] = {
    {0xc2, 0xdf, 1, 0x80, 0xbf}, {0xe0, 0xe0, 2, 0xa0, 0xbf}, {0xe1, 0xec, 2, 0x80, 0xbf}, {0xed, 0xed, 2, 0x80, 0x9f},
    {0xee, 0xef, 2, 0x80, 0xbf}, {0xf0, 0xf0, 3, 0x90, 0xbf}, {0xf1, 0xf3, 3, 0x80, 0xbf}, {0xf4, 0xf4, 3, 0x80, 0x8f},
};
enum { N_SEQUENCES = sizeof sequences / sizeof *sequences };

/* Bytes of the sequence at `text`, of which n >= 1 bytes are there; 0 if it is malformed. */
static int64_t sequence_bytes(const uint8_t *text, int64_t n) {
    if (*text < 0x80) return *text != 0;
    for (int i = 0; i < N_SEQUENCES; i++) {
        if (*text < sequences[i].first || *text > sequences[i].last) continue;
        if (n <= sequences[i].n || text[1] < sequences[i].low || text[1] > sequences[i].high) return 0;
        for (int k = 2; k <= sequences[i].n; k++)
            if ((text[k] & 0xc0) != 0x80) return 0;
        return 1 + sequences[i].n;
    }
    return 0;
}

int64_t sp_utf8_next(const char *text, int64_t n_bytes) {
    const uint8_t *bytes = (const uint8_t *)text;
    if (*bytes < 0x80) return 1;
    for (int i = 0; i < N_SEQUENCES; i++) {
        if (*bytes < sequences[i].first || *bytes > sequences[i].last) continue;
        for (int64_t k = 1; k <= sequences[i].n; k++) {
            if (k >= n_bytes) return 0;
            uint8_t low = k == 1 ? sequences[i].low : 0x80, high = k == 1 ? sequences[i].high : 0xbf;
            if (bytes[k] < low || bytes[k] > high) return -k;
        }
        return 1 + sequences[i].n;
    }
    return -1;
}

/* Eight bytes at once: all ASCII and none of them zero?  (x - 01..01) has a high bit where a byte of x is
 * zero. */
static bool eight_are_plain(const uint8_t *text) {
    uint64_t word;
    memcpy(&word, text, sizeof word);
    return ((word | (word - 0x0101010101010101u)) & 0x8080808080808080u) == 0;
}

int64_t sp_utf8_prefix(const char *text, int64_t n_bytes) {
    const uint8_t *bytes = (const uint8_t *)text;
    int64_t at = 0;
    while (at < n_bytes) {
        if (at + 8 <= n_bytes && eight_are_plain(bytes + at)) {
            at += 8;
            continue;
        }
        int64_t n = sequence_bytes(bytes + at, n_bytes - at);
        if (n == 0) return at;
        at += n;
    }
    return at;
}
