/* SHA-256.  The constants are the first 32 bits of the fractional parts of the square roots (initial state) and cube
 * roots (rounds) of the first primes. */
#include "base/sha256.h"

#include <stdio.h>
#include <string.h>

static const uint32_t initial[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

static const uint32_t rounds[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotated(uint32_t x, int n) { return x >> n | x << (32 - n); }

/* The message schedule: 64 words out of a block's 16. */
static void expand(uint32_t words[64], const uint8_t block[64]) {
    for (int i = 0; i < 16; i++)
        words[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
                   block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = words[i - 15], b = words[i - 2];
        words[i] = words[i - 16] + (rotated(a, 7) ^ rotated(a, 18) ^ a >> 3) + words[i - 7] +
                   (rotated(b, 17) ^ rotated(b, 19) ^ b >> 10);
    }
}

static void add_block(uint32_t state[8], const uint8_t block[64]) {
    uint32_t words[64], s[8];
    expand(words, block);
    memcpy(s, state, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]), majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
        uint32_t a = s[7] + (rotated(s[4], 6) ^ rotated(s[4], 11) ^ rotated(s[4], 25)) + choice + rounds[i] + words[i];
        uint32_t b = (rotated(s[0], 2) ^ rotated(s[0], 13) ^ rotated(s[0], 22)) + majority;
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += a;
        s[0] = a + b;
    }
    for (int i = 0; i < 8; i++) state[i] += s[i];
}

void sp_sha256_begin(sp_sha256 *hash) {
    memcpy(hash->state, initial, sizeof initial);
    hash->n_bytes = 0;
}

void sp_sha256_add(sp_sha256 *hash, const void *data, int64_t n_bytes) {
    const uint8_t *bytes = data;
    while (n_bytes > 0) {
        int64_t used = (int64_t)(hash->n_bytes % 64), n = 64 - used < n_bytes ? 64 - used : n_bytes;
        memcpy(hash->block + used, bytes, (size_t)n);
        hash->n_bytes += (uint64_t)n;
        bytes += n;
        n_bytes -= n;
        if (hash->n_bytes % 64 == 0) add_block(hash->state, hash->block);
    }
}

void sp_sha256_finish(sp_sha256 *hash, char hex[65]) {
    uint64_t n_bits = 8 * hash->n_bytes;
    uint8_t padding[72] = {0x80};
    int64_t n = 64 - (int64_t)((hash->n_bytes + 8) % 64); /* 1 to 64 bytes up to the length */
    for (int i = 0; i < 8; i++) padding[n + i] = (uint8_t)(n_bits >> (56 - 8 * i));
    sp_sha256_add(hash, padding, n + 8);
    for (int i = 0; i < 8; i++) snprintf(hex + 8 * i, 9, "%08x", hash->state[i]);
}

void sp_sha256_of(char hex[65], const void *data, int64_t n_bytes) {
    sp_sha256 hash;
    sp_sha256_begin(&hash);
    sp_sha256_add(&hash, data, n_bytes);
    sp_sha256_finish(&hash, hex);
}
