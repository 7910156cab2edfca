/* What the tests of checkpoints share: a scratch folder, crafted files, and tensors whose bytes follow from a number. */
#ifndef CHECKPOINT_SUPPORT_H
#define CHECKPOINT_SUPPORT_H

#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "data_path.h"
#include "softpick/checkpoint.h"

/* "place/name", which lives as long as the test program. */
static inline const char *path_in(const char *place, const char *name) {
    static char kept[1 << 18], *next = kept;
    size_t n_bytes = strlen(place) + strlen(name) + 2;
    if (n_bytes > (size_t)(kept + sizeof kept - next)) abort();
    char *out = next;
    next += n_bytes;
    memcpy(out, place, strlen(place));
    out[strlen(place)] = '/';
    strcpy(out + strlen(place) + 1, name);
    return out;
}

/* In memory where that is possible: the tests write thousands of files, each of them synced. */
static inline int make_scratch(void **state) {
    static char scratch[4096];
    const char *parent = getenv("TMPDIR"), *memory = "/dev/shm";
    if (!parent) parent = access(memory, W_OK) == 0 ? memory : "/tmp";
    snprintf(scratch, sizeof scratch, "%s/softpick-test-XXXXXX", parent);
    *state = mkdtemp(scratch);
    return *state ? 0 : -1;
}

static inline int remove_scratch(void **state) { return sp_folder_remove(*state) == SP_OK ? 0 : -1; }

/* Bytes of a file of tensors: length, header, data. */
static inline int64_t craft(uint8_t *out, const char *header, int64_t n_data) {
    uint64_t length = strlen(header);
    memcpy(out, &length, sizeof length);
    memcpy(out + 8, header, length);
    for (int64_t i = 0; i < n_data; i++) out[8 + (int64_t)length + i] = (uint8_t)i;
    return 8 + (int64_t)length + n_data;
}

/* Byte i of the data that belongs to `seed`. */
static inline uint8_t byte_of(uint64_t seed, int64_t i) {
    return (uint8_t)((uint64_t)i * 131 + seed * 29 + (seed >> 8));
}

static inline void fill(void *data, int64_t n_bytes, uint64_t seed) {
    for (int64_t i = 0; i < n_bytes; i++) ((uint8_t *)data)[i] = byte_of(seed, i);
}

static inline int64_t bytes_of(const sp_tensor *tensor) {
    return sp_tensor_count(tensor) * sp_dtype_bytes(tensor->dtype);
}

static inline bool holds(const sp_tensor *tensor, uint64_t seed) {
    const uint8_t *data = tensor->data;
    for (int64_t i = 0; i < bytes_of(tensor); i++)
        if (data[i] != byte_of(seed, i)) return false;
    return true;
}

#endif
