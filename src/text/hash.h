/* A 64-bit fingerprint: tells sets and files apart, protects from accidents, not from malice. */
#ifndef SP_TEXT_HASH_H
#define SP_TEXT_HASH_H

#include <stdint.h>
#include <string.h>

/* Continues `hash` with the bytes: eight at a time by xor, an odd multiplier and a shift. */
static inline uint64_t sp_hash_bytes(uint64_t hash, const void *data, int64_t n_bytes) {
    const uint8_t *bytes = data;
    for (int64_t at = 0; at < n_bytes; at += 8) {
        uint64_t word = 0;
        int64_t left = n_bytes - at;
        memcpy(&word, bytes + at, left < 8 ? (size_t)left : 8);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 32;
    }
    return (hash ^ (uint64_t)n_bytes) * 0x9e3779b97f4a7c15u;
}

#endif
