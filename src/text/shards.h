/* The file format of token shards, version 1.  The drawing for others: docs/formats.md. */
#ifndef SP_TEXT_SHARDS_H
#define SP_TEXT_SHARDS_H

#include <stdint.h>

#include "base/status.h"
#include "softpick/text.h"

#define SP_SHARD_MAGIC "SPTOKENS"
enum { SP_SHARD_VERSION = 1, SP_SHARD_PATH_BYTES = 4096, SP_SHARD_FILES_MAX = 100000 };

/* The first bytes of a file, little-endian, as they lie there.  Behind them: tokens, zeros up to a multiple
 * of 8, and n_documents positions (int64_t, tokens from the beginning of this file, rising) where documents
 * start. */
typedef struct sp_shard_header {
    char magic[8];
    uint32_t version;
    uint32_t token_bytes; /* 2 (vocabulary <= 65536) or 4 */
    int64_t n_tokens;     /* in this file */
    int64_t n_documents;  /* that start in this file */
    int64_t text_bytes;   /* that its tokens stand for */
    int64_t vocabulary;
    uint32_t index;     /* of this file in its split, from 0 */
    uint32_t is_last;   /* 1: no file follows in this split */
    uint64_t set;       /* the same in all files that were written together */
    uint64_t tokenizer; /* fingerprint of the model file */
    uint64_t reserved[6];
    uint64_t hash; /* of all bytes before it */
} sp_shard_header;
_Static_assert(sizeof(sp_shard_header) == 128, "the header has no padding");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are mapped as they are");

/* "folder/split-00000.tokens" */
SP_MUST_CHECK sp_status sp_shard_path(char path[SP_SHARD_PATH_BYTES], const char *folder, const char *split,
                                      int64_t index);
uint64_t sp_shard_header_hash(const sp_shard_header *header);
/* A split of one file that lies in memory, at a multiple of 8; `data` must outlive it.  `name` is for messages. */
SP_MUST_CHECK sp_status sp_shards_parse(sp_shards **out, const void *data, int64_t n_bytes, const char *name);
/* "folder/split", for messages.  Borrowed. */
const char *sp_shards_name(const sp_shards *shards);

#endif
