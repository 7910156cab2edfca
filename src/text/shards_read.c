/* Token shards, read: all files of a split, memory-mapped, as one run of tokens and documents.
 *
 * Invariants after opening: every size in a header agrees with the size of its file; documents start inside
 * their file at rising positions; all files are of one set.  Token values alone are checked later, when they
 * are read. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "softpick/text.h"
#include "text/hash.h"
#include "text/shards.h"

typedef struct shard {
    sp_file_map map;
    sp_shard_header header;
    const uint8_t *tokens;               /* n_tokens of token_bytes each */
    const int64_t *documents;            /* n_documents */
    int64_t first_token, first_document; /* in the run */
} shard;

struct sp_shards {
    char name[SP_SHARD_PATH_BYTES]; /* "folder/split" */
    shard *items;
    int64_t n, capacity;
    int64_t n_tokens, n_documents, text_bytes;
    bool borrows; /* the maps are memory of the caller */
};

/* ---- the format ---- */

sp_status sp_shard_path(char path[SP_SHARD_PATH_BYTES], const char *folder, const char *split, int64_t index) {
    char name[64];
    snprintf(name, sizeof name, "%s-%05" PRId64 ".tokens", split, index);
    return sp_path_join(path, SP_SHARD_PATH_BYTES, folder, name);
}

uint64_t sp_shard_header_hash(const sp_shard_header *header) {
    return sp_hash_bytes(0, header, offsetof(sp_shard_header, hash));
}

/* ---- checks of one file ---- */

static sp_status check_header(const sp_shard_header *header, const char *path) {
    SP_REQUIRE(memcmp(header->magic, SP_SHARD_MAGIC, sizeof header->magic) == 0, SP_BAD_FILE, "%s: not a token shard",
               path);
    SP_REQUIRE(header->version <= SP_SHARD_VERSION, SP_VERSION,
               "%s: token shard version %" PRIu32 " is newer than this program, which reads up to %d", path,
               header->version, SP_SHARD_VERSION);
    SP_REQUIRE(header->version >= 1 && header->hash == sp_shard_header_hash(header), SP_BAD_FILE,
               "%s: its header is damaged", path);
    bool sound = header->vocabulary > 0 && header->vocabulary <= INT32_MAX &&
                 header->token_bytes == (header->vocabulary <= 65536 ? 2 : 4) && header->n_tokens > 0 &&
                 header->n_documents >= 0 && header->n_documents <= header->n_tokens && header->text_bytes >= 0;
    SP_REQUIRE(sound, SP_BAD_FILE, "%s: its header contradicts itself", path);
    return SP_OK;
}

static sp_status check_size(const shard *item, const char *path, int64_t *documents_at) {
    int64_t tokens, documents, size;
    bool fits = sp_multiply_sizes(item->header.n_tokens, item->header.token_bytes, &tokens) &&
                sp_add_sizes(tokens, (int64_t)sizeof(sp_shard_header) + 7, documents_at) &&
                sp_multiply_sizes(item->header.n_documents, 8, &documents) &&
                sp_add_sizes(*documents_at, documents, &size);
    if (fits) {
        *documents_at -= *documents_at % 8;
        size = *documents_at + documents;
    }
    SP_REQUIRE(fits && size >= item->map.n_bytes, SP_BAD_FILE, "%s: %" PRId64 " bytes long, more than its header says",
               path, item->map.n_bytes);
    SP_REQUIRE(size == item->map.n_bytes, SP_BAD_FILE, "%s: cut short: %" PRId64 " bytes of %" PRId64, path,
               item->map.n_bytes, size);
    return SP_OK;
}

static sp_status check_documents(const shard *item, const char *path) {
    int64_t before = -1;
    for (int64_t i = 0; i < item->header.n_documents; i++) {
        int64_t start = item->documents[i];
        SP_REQUIRE(start > before && start < item->header.n_tokens, SP_BAD_FILE,
                   "%s: document %" PRId64 " starts at token %" PRId64 ": its table is damaged", path, i, start);
        before = start;
    }
    return SP_OK;
}

/* Of a shard whose map is set. */
static sp_status parse_shard(shard *item, const char *path) {
    SP_REQUIRE(item->map.n_bytes >= (int64_t)sizeof item->header, SP_BAD_FILE,
               "%s: cut short: %" PRId64 " bytes, less than a header", path, item->map.n_bytes);
    memcpy(&item->header, item->map.data, sizeof item->header);
    SP_TRY(check_header(&item->header, path));
    int64_t documents_at;
    SP_TRY(check_size(item, path, &documents_at));
    item->tokens = item->map.data + sizeof item->header;
    item->documents = (const int64_t *)(const void *)(item->map.data + documents_at);
    return check_documents(item, path);
}

static sp_status open_shard(shard *item, const char *path) {
    SP_TRY(sp_file_map_open(&item->map, path));
    return parse_shard(item, path);
}

/* ---- the set ---- */

static sp_status check_neighbours(const sp_shards *shards, const shard *item, const char *path) {
    const sp_shard_header *first = &shards->items[0].header, *header = &item->header;
    int64_t index = item - shards->items;
    SP_REQUIRE(header->set == first->set && header->index == (uint32_t)index &&
                   header->vocabulary == first->vocabulary && header->tokenizer == first->tokenizer,
               SP_BAD_FILE, "%s: of another set than the files beside it: write the shards again", path);
    SP_REQUIRE(index > 0 || (header->n_documents > 0 && item->documents[0] == 0), SP_BAD_FILE,
               "%s: no document starts at its first token", path);
    return SP_OK;
}

static sp_status add_item(sp_shards *shards, const char *path) {
    if (shards->n == shards->capacity) {
        int64_t capacity = shards->capacity ? 2 * shards->capacity : 4;
        shard *items = realloc(shards->items, (size_t)capacity * sizeof *items);
        SP_REQUIRE(items, SP_OUT_OF_MEMORY, "%s: no memory for %" PRId64 " shards", path, capacity);
        shards->items = items;
        shards->capacity = capacity;
    }
    shards->items[shards->n++] = (shard){.first_token = shards->n_tokens, .first_document = shards->n_documents};
    return SP_OK;
}

/* The last item, parsed, becomes part of the run. */
static sp_status join_run(sp_shards *shards, const char *path) {
    const shard *item = &shards->items[shards->n - 1];
    SP_TRY(check_neighbours(shards, item, path));
    bool fits = sp_add_sizes(shards->n_tokens, item->header.n_tokens, &shards->n_tokens) &&
                sp_add_sizes(shards->text_bytes, item->header.text_bytes, &shards->text_bytes);
    SP_REQUIRE(fits, SP_BAD_FILE, "%s: more tokens than can be counted", path);
    shards->n_documents += item->header.n_documents;
    return SP_OK;
}

static sp_status open_split(sp_shards *shards, const char *folder, const char *split) {
    do {
        char path[SP_SHARD_PATH_BYTES];
        SP_TRY(sp_shard_path(path, folder, split, shards->n));
        SP_REQUIRE(sp_file_exists(path), SP_IO, "%s: there is no such file%s", path,
                   shards->n ? ", but the shard before it is not the last" : "");
        SP_TRY(add_item(shards, path));
        SP_TRY(open_shard(&shards->items[shards->n - 1], path));
        SP_TRY(join_run(shards, path));
    } while (!shards->items[shards->n - 1].header.is_last);
    return SP_OK;
}

/* A crash between the renames of writing leaves two sets mixed: the other split, if it is there, must be of ours. */
static sp_status check_other_split(const sp_shards *shards, const char *folder, const char *split) {
    char path[SP_SHARD_PATH_BYTES];
    SP_TRY(sp_shard_path(path, folder, strcmp(split, "train") == 0 ? "validation" : "train", 0));
    if (!sp_file_exists(path)) return SP_OK;
    shard other = {0};
    sp_status status = open_shard(&other, path);
    if (status == SP_OK && other.header.set != shards->items[0].header.set)
        status = sp_fail(SP_BAD_FILE, "%s: of another set than the %s shards: write the shards again", path, split);
    sp_file_map_close(&other.map);
    return status;
}

static sp_status check_tokenizer(const sp_shards *shards, const char *folder) {
    char path[SP_SHARD_PATH_BYTES];
    SP_TRY(sp_path_join(path, sizeof path, folder, "tokenizer.json"));
    if (!sp_file_exists(path)) SP_TRY(sp_path_join(path, sizeof path, folder, "tokenizer.model"));
    if (!sp_file_exists(path)) return SP_OK;
    sp_file_map map;
    SP_TRY(sp_file_map_open(&map, path));
    uint64_t hash = sp_hash_bytes(0, map.data, map.n_bytes);
    sp_file_map_close(&map);
    SP_REQUIRE(hash == shards->items[0].header.tokenizer, SP_BAD_FILE,
               "%s: not the tokenizer with which the shards beside it were encoded", path);
    return SP_OK;
}

sp_status sp_shards_open(sp_shards **out, const char *folder, const char *split) {
    *out = NULL;
    SP_REQUIRE(folder && split && (strcmp(split, "train") == 0 || strcmp(split, "validation") == 0), SP_BAD_ARGUMENT,
               "split %s: train and validation are known", split ? split : "(null)");
    sp_shards *shards = calloc(1, sizeof *shards);
    SP_REQUIRE(shards, SP_OUT_OF_MEMORY, "%s: no memory to read it", folder);
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_path_join(shards->name, sizeof shards->name, folder, split));
    SP_TRY_OR_DONE(open_split(shards, folder, split));
    SP_TRY_OR_DONE(check_other_split(shards, folder, split));
    SP_TRY_OR_DONE(check_tokenizer(shards, folder));
    *out = shards;
    shards = NULL;
done:
    sp_shards_close(shards);
    return status;
}

sp_status sp_shards_parse(sp_shards **out, const void *data, int64_t n_bytes, const char *name) {
    *out = NULL;
    sp_shards *shards = calloc(1, sizeof *shards);
    SP_REQUIRE(shards, SP_OUT_OF_MEMORY, "%s: no memory to read it", name);
    sp_status status = SP_OK;
    snprintf(shards->name, sizeof shards->name, "%s", name);
    shards->borrows = true;
    SP_TRY_OR_DONE(add_item(shards, name));
    shards->items->map = (sp_file_map){data, n_bytes};
    SP_TRY_OR_DONE(parse_shard(shards->items, name));
    SP_TRY_OR_DONE(join_run(shards, name));
    *out = shards;
    shards = NULL;
done:
    sp_shards_close(shards);
    return status;
}

void sp_shards_close(sp_shards *shards) {
    if (!shards) return;
    for (int64_t i = 0; i < shards->n && !shards->borrows; i++) sp_file_map_close(&shards->items[i].map);
    free(shards->items);
    free(shards);
}

/* ---- reading ---- */

const char *sp_shards_name(const sp_shards *shards) { return shards->name; }

int64_t sp_shards_n_tokens(const sp_shards *shards) { return shards->n_tokens; }

int64_t sp_shards_n_documents(const sp_shards *shards) { return shards->n_documents; }

int64_t sp_shards_vocabulary(const sp_shards *shards) { return shards->items[0].header.vocabulary; }

int64_t sp_shards_text_bytes(const sp_shards *shards) { return shards->text_bytes; }

int64_t sp_shards_document(const sp_shards *shards, int64_t i) {
    if (i >= shards->n_documents) return shards->n_tokens;
    int64_t low = 0, high = shards->n; /* the last shard whose first document is at most i */
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (shards->items[middle].first_document <= i)
            low = middle;
        else
            high = middle;
    }
    const shard *item = &shards->items[low];
    return item->first_token + item->documents[i - item->first_document];
}

/* Copies n tokens of one file and returns the largest of them. */
static uint32_t copy_tokens(const shard *item, int64_t first, int64_t n, int32_t *tokens) {
    uint32_t largest = 0;
    if (item->header.token_bytes == 2) {
        const uint16_t *from = (const uint16_t *)(const void *)item->tokens + first;
        for (int64_t i = 0; i < n; i++) {
            tokens[i] = from[i];
            largest = from[i] > largest ? from[i] : largest;
        }
    } else {
        const uint32_t *from = (const uint32_t *)(const void *)item->tokens + first;
        for (int64_t i = 0; i < n; i++) {
            tokens[i] = (int32_t)from[i];
            largest = from[i] > largest ? from[i] : largest;
        }
    }
    return largest;
}

sp_status sp_shards_read(const sp_shards *shards, int64_t first, int64_t n, int32_t *tokens) {
    SP_REQUIRE(first >= 0 && n >= 0 && first <= shards->n_tokens && n <= shards->n_tokens - first, SP_BAD_ARGUMENT,
               "tokens %" PRId64 " to %" PRId64 ": there are %" PRId64, first, first + n, shards->n_tokens);
    for (int64_t i = 0; n > 0; i++) {
        const shard *item = &shards->items[i];
        int64_t skip = first - item->first_token;
        if (skip >= item->header.n_tokens) continue;
        int64_t here = item->header.n_tokens - skip < n ? item->header.n_tokens - skip : n;
        uint32_t largest = copy_tokens(item, skip, here, tokens);
        SP_REQUIRE(largest < item->header.vocabulary, SP_BAD_FILE,
                   "%s: file %" PRId64 " holds token %" PRIu32 ", beyond its vocabulary of %" PRId64, shards->name, i,
                   largest, item->header.vocabulary);
        first += here;
        tokens += here;
        n -= here;
    }
    return SP_OK;
}
