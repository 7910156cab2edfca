/* GGUF files written byte by byte, so that tests can write wrong ones. */
#ifndef GGUF_SUPPORT_H
#define GGUF_SUPPORT_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct gguf_bytes {
    uint8_t data[1 << 16];
    int64_t n;
} gguf_bytes;

static inline void put_bytes(gguf_bytes *to, const void *bytes, size_t n) {
    if (to->n + (int64_t)n > (int64_t)sizeof to->data) abort();
    memcpy(to->data + to->n, bytes, n);
    to->n += (int64_t)n;
}

static inline void put_u32(gguf_bytes *to, uint32_t value) { put_bytes(to, &value, sizeof value); }

static inline void put_u64(gguf_bytes *to, uint64_t value) { put_bytes(to, &value, sizeof value); }

static inline void put_f32(gguf_bytes *to, float value) { put_bytes(to, &value, sizeof value); }

static inline void put_text(gguf_bytes *to, const char *text) {
    put_u64(to, strlen(text));
    put_bytes(to, text, strlen(text));
}

static inline void put_head(gguf_bytes *to, uint32_t version, uint64_t n_tensors, uint64_t n_values) {
    put_bytes(to, "GGUF", 4);
    put_u32(to, version);
    put_u64(to, n_tensors);
    put_u64(to, n_values);
}

static inline void put_key(gguf_bytes *to, const char *key, uint32_t kind) {
    put_text(to, key);
    put_u32(to, kind);
}

static inline void put_key_u32(gguf_bytes *to, const char *key, uint32_t value) {
    put_key(to, key, 4);
    put_u32(to, value);
}

static inline void put_key_text(gguf_bytes *to, const char *key, const char *text) {
    put_key(to, key, 8);
    put_text(to, text);
}

/* A description; dimensions in the file's order, 0 ends them. */
static inline void put_tensor(gguf_bytes *to, const char *name, int64_t first, int64_t second, uint32_t type,
                              uint64_t offset) {
    put_text(to, name);
    put_u32(to, second ? 2 : 1);
    put_u64(to, (uint64_t)first);
    if (second) put_u64(to, (uint64_t)second);
    put_u32(to, type);
    put_u64(to, offset);
}

static inline void pad_to(gguf_bytes *to, int64_t multiple) {
    while (to->n % multiple) put_bytes(to, "", 1);
}

#endif
