/* The reader of token shards.  Each input is parsed as it is, and once more with magic, version and hash put right, so
 * that the fuzzer need not guess a hash to get at the checks behind it. */
#include "fuzzer.h"

#include <stdlib.h>
#include <string.h>

#include "softpick/text.h"
#include "text/shards.h"

static void require(int holds) {
    if (!holds) abort();
}

/* Everything a caller may ask for: tokens stay in the vocabulary, documents rise, batches can be made or refused. */
static void walk(const sp_shards *shards) {
    int64_t n = sp_shards_n_tokens(shards), n_documents = sp_shards_n_documents(shards), before = -1;
    for (int64_t i = 0; i <= n_documents; i++) {
        int64_t start = sp_shards_document(shards, i);
        require(start > before && start <= n);
        before = start;
    }
    require(sp_shards_document(shards, 0) == 0 && before == n);
    int32_t *tokens = malloc((size_t)n * sizeof *tokens);
    require(tokens != NULL);
    if (sp_shards_read(shards, 0, n, tokens) == SP_OK)
        for (int64_t i = 0; i < n; i++) require(tokens[i] >= 0 && tokens[i] < sp_shards_vocabulary(shards));
    free(tokens);
    sp_loader_options options = sp_loader_options_default();
    options.B = 2;
    options.T = 1 + n / 3;
    options.packing = SP_PACKING_DOCUMENTS;
    sp_loader *loader;
    if (sp_loader_new(&loader, shards, &options) != SP_OK) return;
    sp_batch batch;
    if (sp_loader_batch(loader, 1, &batch) == SP_OK) require(batch.cu[batch.n_sequences] == 2 * options.T);
    sp_loader_free(loader);
}

static void parse(const void *bytes, int64_t n_bytes) {
    sp_shards *shards;
    sp_status status = sp_shards_parse(&shards, bytes, n_bytes, "input");
    require((status == SP_OK) == (shards != NULL));
    if (shards)
        walk(shards);
    else
        require(status == SP_BAD_FILE || status == SP_VERSION);
    sp_shards_close(shards);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    if (n_bytes == 0) return 0;
    uint8_t *aligned = malloc(n_bytes);
    require(aligned != NULL);
    memcpy(aligned, data, n_bytes);
    parse(aligned, (int64_t)n_bytes);
    sp_shard_header header;
    if (n_bytes >= sizeof header) {
        memcpy(&header, aligned, sizeof header);
        memcpy(header.magic, SP_SHARD_MAGIC, sizeof header.magic);
        header.version = SP_SHARD_VERSION;
        header.hash = sp_shard_header_hash(&header);
        memcpy(aligned, &header, sizeof header);
        parse(aligned, (int64_t)n_bytes);
    }
    free(aligned);
    return 0;
}
