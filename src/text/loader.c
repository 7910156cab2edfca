/* Batches out of token shards.  Nothing is remembered from batch to batch: sequence numbers are computed from
 * the step, and their order within an epoch is a permutation computed from (seed, epoch).
 *
 *   step s, rank r, row b  ->  g = (s * n_ranks + r) * B + b  ->  epoch g / n, sequence permuted(g mod n)
 *
 * Sequence i covers tokens from i*T on.  Every token but the run's first is a target exactly once (with BOS
 * in front, the first as well); with document packing the first token of a document is no target. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"
#include "base/status.h"
#include "softpick/text.h"
#include "text/shards.h"

static const char *const packing_names[] = {
    [SP_PACKING_BOS] = "bos",
    [SP_PACKING_CONCATENATE] = "concatenate",
    [SP_PACKING_DOCUMENTS] = "documents",
};
enum { N_PACKINGS = sizeof packing_names / sizeof *packing_names };

const char *sp_packing_name(sp_packing packing) {
    return (int)packing >= 0 && (int)packing < N_PACKINGS ? packing_names[packing] : "unknown packing";
}

sp_status sp_packing_find(sp_packing *out, const char *name) {
    for (int i = 0; i < N_PACKINGS; i++) {
        if (strcmp(packing_names[i], name) != 0) continue;
        *out = (sp_packing)i;
        return SP_OK;
    }
    return sp_fail(SP_BAD_ARGUMENT, "packing %s: bos, concatenate and documents are known", name);
}

struct sp_loader {
    const sp_shards *shards;
    sp_loader_options options;
    int64_t n_sequences; /* of one pass */
    int32_t *tokens;     /* (B,T) */
    int32_t *targets;    /* (B,T) */
    int32_t *window;     /* (T+1): tokens and what follows the last */
    int64_t *cu;         /* (B*T+1) */
    int64_t n_cu;        /* starts in it so far */
};

sp_loader_options sp_loader_options_default(void) {
    return (sp_loader_options){.struct_bytes = sizeof(sp_loader_options), .B = 1, .T = 512, .bos = 1, .n_ranks = 1};
}

static sp_status check_options(const sp_shards *shards, const sp_loader_options *options) {
    SP_REQUIRE(shards && options, SP_BAD_ARGUMENT, "the loader needs shards and options");
    SP_REQUIRE(options->struct_bytes == sizeof *options, SP_BAD_ARGUMENT,
               "loader options: struct_bytes is %zu, not %zu", options->struct_bytes, sizeof *options);
    SP_REQUIRE(options->B >= 1 && options->T >= 1 && options->B <= ((int64_t)1 << 40) / options->T, SP_BAD_ARGUMENT,
               "loader: a batch of %" PRId64 " sequences of %" PRId64 " tokens is out of range", options->B,
               options->T);
    SP_REQUIRE(options->n_ranks >= 1 && options->rank >= 0 && options->rank < options->n_ranks, SP_BAD_ARGUMENT,
               "loader: rank %" PRId64 " of %" PRId64 " does not exist", options->rank, options->n_ranks);
    SP_REQUIRE((int)options->packing >= 0 && (int)options->packing < N_PACKINGS, SP_BAD_ARGUMENT,
               "packing number %d is not known", (int)options->packing);
    SP_REQUIRE(options->packing != SP_PACKING_BOS || (options->bos >= 0 && options->bos < sp_shards_vocabulary(shards)),
               SP_BAD_ARGUMENT, "bos packing: BOS is %" PRId32 ", which the vocabulary of %" PRId64 " does not have",
               options->bos, sp_shards_vocabulary(shards));
    return SP_OK;
}

sp_status sp_loader_new(sp_loader **out, const sp_shards *shards, const sp_loader_options *options) {
    *out = NULL;
    SP_TRY(check_options(shards, options));
    int64_t B = options->B, T = options->T, needed = options->packing == SP_PACKING_BOS ? T : T + 1;
    int64_t n_tokens = sp_shards_n_tokens(shards);
    SP_REQUIRE(n_tokens >= needed, SP_BAD_FILE, "%s: %" PRId64 " tokens: too short for one sequence of %" PRId64,
               sp_shards_name(shards), n_tokens, T);
    sp_loader *loader = calloc(1, sizeof *loader);
    SP_REQUIRE(loader, SP_OUT_OF_MEMORY, "loader: no memory");
    sp_status status = SP_OK;
    loader->shards = shards;
    loader->options = *options;
    loader->n_sequences = (n_tokens - (needed - T)) / T;
    SP_TRY_OR_DONE(sp_allocate((void **)&loader->tokens, B * T * 4, "a batch of tokens"));
    SP_TRY_OR_DONE(sp_allocate((void **)&loader->targets, B * T * 4, "a batch of targets"));
    SP_TRY_OR_DONE(sp_allocate((void **)&loader->window, (T + 1) * 4, "a sequence of tokens"));
    SP_TRY_OR_DONE(sp_allocate((void **)&loader->cu, (B * T + 1) * 8, "the starts of documents"));
    *out = loader;
    loader = NULL;
done:
    sp_loader_free(loader);
    return status;
}

void sp_loader_free(sp_loader *loader) {
    if (!loader) return;
    free(loader->tokens);
    free(loader->targets);
    free(loader->window);
    free(loader->cu);
    free(loader);
}

int64_t sp_loader_n_sequences(const sp_loader *loader) { return loader->n_sequences; }

/* First document that starts at token `at` or later. */
static int64_t find_document(const sp_shards *shards, int64_t at) {
    int64_t low = 0, high = sp_shards_n_documents(shards);
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (sp_shards_document(shards, middle) < at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Row b starts a segment, and so does each document inside it; what comes before a start has no target. */
static void mark_documents(sp_loader *loader, int64_t b, int64_t first) {
    int64_t T = loader->options.T;
    int32_t *targets = loader->targets + b * T;
    loader->cu[loader->n_cu++] = b * T;
    for (int64_t i = find_document(loader->shards, first + 1);; i++) {
        int64_t start = sp_shards_document(loader->shards, i) - first;
        if (start > T) return;
        targets[start - 1] = -1;
        if (start < T) loader->cu[loader->n_cu++] = b * T + start;
    }
}

static sp_status fill_row(sp_loader *loader, int64_t b, int64_t sequence) {
    int64_t T = loader->options.T, first = sequence * T;
    int32_t *tokens = loader->tokens + b * T, *targets = loader->targets + b * T;
    if (loader->options.packing == SP_PACKING_BOS) {
        SP_TRY(sp_shards_read(loader->shards, first, T, targets));
        tokens[0] = loader->options.bos;
        memcpy(tokens + 1, targets, (size_t)(T - 1) * sizeof *tokens);
        return SP_OK;
    }
    SP_TRY(sp_shards_read(loader->shards, first, T + 1, loader->window));
    memcpy(tokens, loader->window, (size_t)T * sizeof *tokens);
    memcpy(targets, loader->window + 1, (size_t)T * sizeof *targets);
    if (loader->options.packing == SP_PACKING_DOCUMENTS) mark_documents(loader, b, first);
    return SP_OK;
}

static int64_t sequence_at(const sp_loader *loader, int64_t g) {
    int64_t n = loader->n_sequences;
    if (loader->options.in_order) return g;
    return (int64_t)sp_random_permuted(loader->options.seed, (uint64_t)(g / n), (uint64_t)(g % n), (uint64_t)n);
}

sp_status sp_loader_batch(sp_loader *loader, int64_t step, sp_batch *batch) {
    const sp_loader_options *options = &loader->options;
    *batch = (sp_batch){0};
    int64_t global, first;
    bool fits = step >= 0 && sp_multiply_sizes(step, options->n_ranks, &global) &&
                sp_add_sizes(global, options->rank, &global) && sp_multiply_sizes(global, options->B, &first) &&
                sp_add_sizes(first, options->B, &global);
    SP_REQUIRE(fits, SP_BAD_ARGUMENT, "loader: step %" PRId64 " is out of range", step);
    int64_t B = options->B;
    if (options->in_order && first + B > loader->n_sequences)
        B = first < loader->n_sequences ? loader->n_sequences - first : 0;
    loader->n_cu = 0;
    for (int64_t b = 0; b < B; b++) SP_TRY(fill_row(loader, b, sequence_at(loader, first + b)));
    *batch = (sp_batch){.B = B, .T = options->T, .tokens = loader->tokens, .targets = loader->targets};
    if (options->packing == SP_PACKING_DOCUMENTS && B > 0) {
        loader->cu[loader->n_cu] = B * options->T;
        batch->cu = loader->cu;
        batch->n_sequences = loader->n_cu;
    }
    return SP_OK;
}
