/* Items to batches and back.  Sequences are packed one after another, without padding; the last token of an item is
 * predicted and never read. */
#include "evaluate/score.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/memory.h"

sp_score_options sp_score_options_default(void) {
    return (sp_score_options){.struct_bytes = sizeof(sp_score_options), .share_prefixes = true};
}

/* Tokens that keep a device busy without taking much of its memory. */
static int64_t tokens_of_device(const sp_model *model) { return sp_model_device(model) ? 32768 : 2048; }

static sp_status check(const sp_model *model, const sp_score_item *items, int64_t n_items) {
    int64_t longest = sp_model_config_of(model)->max_positions;
    for (int64_t i = 0; i < n_items; i++) {
        SP_REQUIRE(items[i].n_scored >= 0 && items[i].n_scored < items[i].n_tokens, SP_BAD_ARGUMENT,
                   "item %" PRId64 ": %" PRId64 " of %" PRId64 " tokens are to be scored", i, items[i].n_scored,
                   items[i].n_tokens);
        SP_REQUIRE(items[i].n_tokens - 1 <= longest, SP_BAD_ARGUMENT,
                   "item %" PRId64 ": %" PRId64 " tokens, and the model has %" PRId64 " positions", i,
                   items[i].n_tokens, longest);
    }
    return SP_OK;
}

/* A batch as the model takes it, and room for what it gives. */
typedef struct packed_batch {
    int32_t *tokens;  /* (n_rows) */
    int64_t *cu;      /* (n_sequences + 1) */
    int32_t *rows;    /* (n_targets): where each prediction is made */
    int32_t *targets; /* (n_targets) */
    float *log_p;     /* (n_targets) */
    bool *greedy;     /* (n_targets) */
    int64_t n_rows, n_sequences, n_targets;
} packed_batch;

static void packed_clear(packed_batch *b) {
    free(b->tokens), free(b->cu), free(b->rows), free(b->targets), free(b->log_p), free(b->greedy);
}

static sp_status packed_new(packed_batch *b, int64_t n_rows, int64_t n_sequences) {
    *b = (packed_batch){0};
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_allocate((void **)&b->tokens, n_rows * (int64_t)sizeof *b->tokens, "tokens to score"));
    SP_TRY_OR_DONE(sp_allocate((void **)&b->cu, (n_sequences + 1) * (int64_t)sizeof *b->cu, "tokens to score"));
    SP_TRY_OR_DONE(sp_allocate((void **)&b->rows, n_rows * (int64_t)sizeof *b->rows, "tokens to score"));
    SP_TRY_OR_DONE(sp_allocate((void **)&b->targets, n_rows * (int64_t)sizeof *b->targets, "tokens to score"));
    SP_TRY_OR_DONE(sp_allocate((void **)&b->log_p, n_rows * (int64_t)sizeof *b->log_p, "tokens to score"));
    SP_TRY_OR_DONE(sp_allocate((void **)&b->greedy, n_rows * (int64_t)sizeof *b->greedy, "tokens to score"));
    return SP_OK;
done:
    packed_clear(b);
    return status;
}

static void pack(packed_batch *b, const sp_score_item *item) {
    int64_t n = item->n_tokens - 1;
    for (int64_t i = 0; i < n; i++) b->tokens[b->n_rows + i] = item->tokens[i];
    for (int64_t i = n - item->n_scored; i < n; i++) {
        b->rows[b->n_targets] = (int32_t)(b->n_rows + i);
        b->targets[b->n_targets++] = item->tokens[i + 1];
    }
    b->n_rows += n;
    b->cu[++b->n_sequences] = b->n_rows;
}

static void unpack(sp_score_item *item, const float *log_p, const bool *greedy) {
    item->sum = 0;
    item->greedy = true;
    for (int64_t i = 0; i < item->n_scored; i++) {
        item->sum += (double)log_p[i];
        item->greedy = item->greedy && greedy[i];
        if (item->log_probabilities) item->log_probabilities[i] = log_p[i];
    }
}

static sp_status score_batch(sp_model *model, sp_score_item *items, int64_t n_items, int64_t n_rows) {
    packed_batch b;
    SP_TRY(packed_new(&b, n_rows, n_items));
    sp_status status = SP_OK;
    b.cu[0] = 0;
    for (int64_t i = 0; i < n_items; i++) pack(&b, &items[i]);
    sp_batch batch = {.B = 1, .T = b.n_rows, .tokens = b.tokens, .cu = b.cu, .n_sequences = b.n_sequences};
    if (b.n_targets > 0)
        SP_TRY_OR_DONE(sp_model_score(model, &batch, b.rows, b.targets, b.n_targets, b.log_p, b.greedy));
    for (int64_t i = 0, at = 0; i < n_items; at += items[i++].n_scored) unpack(&items[i], b.log_p + at, b.greedy + at);
done:
    packed_clear(&b);
    return status;
}

sp_status sp_score(sp_model *model, sp_score_item *items, int64_t n_items, const sp_score_options *options) {
    sp_score_options o = options ? *options : sp_score_options_default();
    int64_t most = o.batch_tokens > 0 ? o.batch_tokens : tokens_of_device(model);
    SP_TRY(check(model, items, n_items));
    for (int64_t first = 0, end; first < n_items; first = end) {
        int64_t n_rows = items[first].n_tokens - 1;
        for (end = first + 1; end < n_items && n_rows + items[end].n_tokens - 1 <= most; end++)
            n_rows += items[end].n_tokens - 1;
        SP_TRY(score_batch(model, items + first, end - first, n_rows));
        SP_REQUIRE(!o.progress || o.progress(o.progress_user, "scoring", end, n_items) == 0, SP_CANCELLED,
                   "scoring was cancelled after %" PRId64 " of %" PRId64 " items", end, n_items);
    }
    return SP_OK;
}
