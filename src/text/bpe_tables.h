/* The tables of a BPE model: what bpe_read.c makes of the file and bpe.c works with. */
#ifndef SP_TEXT_BPE_TABLES_H
#define SP_TEXT_BPE_TABLES_H

#include "text/bpe.h"
#include "text/bytes.h"
#include "text/hash.h"

/* A token by its text: that of the file, or the bytes it stands for. */
typedef struct sp_bpe_name {
    const char *text; /* NULL: a free place */
    int64_t n_bytes;
    int32_t id;
} sp_bpe_name;

typedef struct sp_bpe_merge {
    uint64_t pair; /* left << 32 | right */
    int32_t rank;  /* the lowest one merges first; -1: a free place */
    int32_t id;    /* what the pair becomes */
} sp_bpe_merge;

struct sp_bpe {
    sp_bytes texts;
    sp_bpe_name *names; /* by open addressing, as are merges; n_* places: powers of two */
    int64_t n_names;
    sp_bpe_merge *merges;
    int64_t n_merges;
    int32_t byte_tokens[256];  /* "<0xHH>" where byte_fallback is on; -1: none */
    int32_t first_tokens[256]; /* of a one-byte character alone; -1: none, or prefix or suffix are to be looked at */
    int32_t unk;               /* -1: what has no token gives none */
    bool byte_level, byte_fallback, fuse_unk, ignore_merges;
    char *prefix, *suffix; /* NULL: none */
    bool has_mark;         /* words may be cut before "▁" behind every byte for which `crosses_mark` is false */
    bool crosses_mark[256];
    bool newlines_apart; /* words may be cut before and behind every newline */
};

static inline const sp_bpe_name *sp_bpe_find(const sp_bpe *bpe, const char *text, int64_t n_bytes) {
    for (uint64_t at = sp_hash_bytes(0, text, n_bytes) >> 20;; at++) {
        const sp_bpe_name *name = &bpe->names[at & (uint64_t)(bpe->n_names - 1)];
        if (!name->text) return NULL;
        if (name->n_bytes == n_bytes && memcmp(name->text, text, (size_t)n_bytes) == 0) return name;
    }
}

static inline uint64_t sp_bpe_pair(int32_t left, int32_t right) { return (uint64_t)left << 32 | (uint32_t)right; }

/* NULL: the two do not merge. */
static inline const sp_bpe_merge *sp_bpe_find_merge(const sp_bpe *bpe, uint64_t pair) {
    for (uint64_t at = (pair * 0x9e3779b97f4a7c15u) >> 32;; at++) {
        const sp_bpe_merge *merge = &bpe->merges[at & (uint64_t)(bpe->n_merges - 1)];
        if (merge->rank < 0) return NULL;
        if (merge->pair == pair) return merge;
    }
}

#endif
