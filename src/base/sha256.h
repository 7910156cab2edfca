/* SHA-256 (FIPS 180-4): names texts in result files as other tools name them. */
#ifndef SP_BASE_SHA256_H
#define SP_BASE_SHA256_H

#include <stdint.h>

typedef struct sp_sha256 {
    uint32_t state[8];
    uint64_t n_bytes; /* added so far */
    uint8_t block[64];
} sp_sha256;

void sp_sha256_begin(sp_sha256 *hash);
void sp_sha256_add(sp_sha256 *hash, const void *data, int64_t n_bytes);
/* The digest in 64 hexadecimal digits and a 0.  The hash is used up. */
void sp_sha256_finish(sp_sha256 *hash, char hex[65]);
/* All three. */
void sp_sha256_of(char hex[65], const void *data, int64_t n_bytes);

#endif
