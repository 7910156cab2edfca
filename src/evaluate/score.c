/* Items to batches and back.
 *
 * Sequences are packed one after another, without padding, and the last token of an item is predicted and never read.
 * Items are put in the order of their tokens: then each shares more with the one before it than with any other before, and
 * continuing that one computes every common beginning once, however many share it. */
#include "evaluate/score.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "softpick/device.h"

enum { TOKENS_OF_GPU = 65536, TOKENS_OF_HOST = 4096, TOKENS_LEAST = 1024 }; /* in a batch */
enum {
    SHARED_LEAST = 8,  /* tokens: fewer are not worth gathering keys for */
    KEYS_PER_TOKEN = 4 /* at most so many keys in a batch for each of its tokens: bounds what is gathered */
};

sp_score_options sp_score_options_default(void) {
    return (sp_score_options){.struct_bytes = sizeof(sp_score_options), .share_prefixes = true};
}

/* Tokens that keep a device busy; half as many again and again until the model, with what batches of them take, leaves a
 * fifth of what is free or its own already. */
static sp_status choose_tokens(int64_t *n, const sp_model *model) {
    const sp_model_config *c = sp_model_config_of(model);
    sp_model_options options = sp_model_options_default();
    int64_t free_bytes, total;
    options.device = sp_model_device(model);
    options.dtype = sp_model_dtype(model);
    SP_TRY(sp_device_free_bytes(options.device, &free_bytes, &total));
    int64_t most = free_bytes / 5 * 4 + sp_model_memory_bytes(model) / 5 * 4;
    int64_t key_bytes = KEYS_PER_TOKEN * 2 * c->n_kv_heads * c->head_width * sp_dtype_bytes(options.dtype);
    for (*n = options.device ? TOKENS_OF_GPU : TOKENS_OF_HOST; *n > TOKENS_LEAST; *n /= 2) {
        sp_model_memory plan;
        SP_TRY(sp_model_plan_memory(&plan, c, &options, 1, *n));
        if (plan.total + *n * key_bytes <= most) break;
    }
    return SP_OK;
}

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

/* Tokens that the model reads. */
static int64_t n_read(const sp_score_item *item) { return item->n_tokens - 1; }

static int64_t common_beginning(const sp_score_item *a, const sp_score_item *b) {
    int64_t n = n_read(a) < n_read(b) ? n_read(a) : n_read(b), i = 0;
    while (i < n && a->tokens[i] == b->tokens[i]) i++;
    return i;
}

/* Of pointers to items: by the tokens that are read, then by place. */
static int by_tokens(const void *left, const void *right) {
    const sp_score_item *a = *(const sp_score_item *const *)left, *b = *(const sp_score_item *const *)right;
    int64_t i = common_beginning(a, b);
    if (i < n_read(a) && i < n_read(b)) return a->tokens[i] < b->tokens[i] ? -1 : 1;
    if (n_read(a) != n_read(b)) return n_read(a) < n_read(b) ? -1 : 1;
    return a < b ? -1 : 1;
}

/* A batch as the model takes it, and room for what it says.  Reused from batch to batch. */
typedef struct packed_batch {
    int64_t n_rows, n_sequences, n_targets, n_keys;
    int64_t rows_max, sequences_max, targets_max;
    void *block;
    int32_t *tokens;             /* (n_rows) */
    int64_t *cu;                 /* (n_sequences + 1) */
    int64_t *continues, *shared; /* (n_sequences) */
    int32_t *rows, *targets;     /* (n_targets): after which token what is predicted */
    float *log_p;                /* (n_targets) */
    bool *greedy;                /* (n_targets) */
    int32_t *path;               /* (longest item): rows of the tokens of the sequence packed last */
} packed_batch;

static void carve(packed_batch *b, void *base, int64_t *used, int64_t longest) {
    b->tokens = sp_carve(base, used, b->rows_max, sizeof *b->tokens);
    b->cu = sp_carve(base, used, b->sequences_max + 1, sizeof *b->cu);
    b->continues = sp_carve(base, used, b->sequences_max, sizeof *b->continues);
    b->shared = sp_carve(base, used, b->sequences_max, sizeof *b->shared);
    b->rows = sp_carve(base, used, b->targets_max, sizeof *b->rows);
    b->targets = sp_carve(base, used, b->targets_max, sizeof *b->targets);
    b->log_p = sp_carve(base, used, b->targets_max, sizeof *b->log_p);
    b->greedy = sp_carve(base, used, b->targets_max, sizeof *b->greedy);
    b->path = sp_carve(base, used, longest, sizeof *b->path);
}

/* Room for batches of `most` tokens or all that there are, and for any single item. */
static sp_status packed_new(packed_batch *b, const sp_score_item *items, int64_t n_items, int64_t most) {
    int64_t longest = 0, all = 0, bytes = 0, used = 0;
    *b = (packed_batch){0};
    for (int64_t i = 0; i < n_items; i++) {
        all += n_read(&items[i]);
        if (n_read(&items[i]) > longest) longest = n_read(&items[i]);
    }
    if (most > all) most = all;
    b->rows_max = b->targets_max = most > longest ? most : longest;
    b->sequences_max = n_items < b->rows_max ? n_items : b->rows_max;
    carve(b, NULL, &bytes, longest);
    SP_TRY(sp_allocate(&b->block, bytes, "a batch of tokens to score"));
    carve(b, b->block, &used, longest);
    return SP_OK;
}

/* Adds an item, which shares `shared` tokens with the one before it; false, and nothing is added, if it does not fit. */
static bool pack(packed_batch *b, const sp_score_item *item, int64_t shared) {
    int64_t n = n_read(item), own = n - shared, before = b->n_sequences - 1;
    bool fits = b->n_rows + own <= b->rows_max && b->n_targets + item->n_scored <= b->targets_max &&
                b->n_keys + n <= b->rows_max * KEYS_PER_TOKEN;
    if (!fits && b->n_rows > 0) return false;
    if (own > 0) {
        for (int64_t i = shared; i < n; i++) {
            b->path[i] = (int32_t)b->n_rows;
            b->tokens[b->n_rows++] = item->tokens[i];
        }
        b->continues[b->n_sequences] = shared > 0 ? before : -1;
        b->shared[b->n_sequences] = shared;
        b->cu[++b->n_sequences] = b->n_rows;
        b->n_keys += n;
    }
    for (int64_t i = n - item->n_scored; i < n; i++) {
        b->rows[b->n_targets] = b->path[i];
        b->targets[b->n_targets++] = item->tokens[i + 1];
    }
    return true;
}

/* Fills the batch from order[first] on; returns the end of what it holds. */
static int64_t fill(packed_batch *b, sp_score_item *const *order, int64_t first, int64_t n_items, bool share) {
    int64_t end = first;
    b->n_rows = b->n_sequences = b->n_targets = b->n_keys = b->cu[0] = 0;
    for (; end < n_items; end++) {
        int64_t shared = share && end > first ? common_beginning(order[end - 1], order[end]) : 0;
        if (shared < SHARED_LEAST) shared = 0;
        if (!pack(b, order[end], shared)) break;
    }
    return end;
}

static sp_status run(sp_model *model, packed_batch *b) {
    bool any_shared = false;
    if (b->n_targets == 0) return SP_OK;
    for (int64_t n = 0; n < b->n_sequences && !any_shared; n++) any_shared = b->shared[n] > 0;
    sp_batch batch = {.B = 1,
                      .T = b->n_rows,
                      .tokens = b->tokens,
                      .cu = b->cu,
                      .n_sequences = b->n_sequences,
                      .continues = any_shared ? b->continues : NULL,
                      .shared = any_shared ? b->shared : NULL};
    return sp_model_score(model, &batch, b->rows, b->targets, b->n_targets, b->log_p, b->greedy);
}

/* Brings the item's part of what the model said to it; returns its end. */
static int64_t unpack(sp_score_item *item, const packed_batch *b, int64_t first) {
    item->sum = 0;
    item->greedy = true;
    for (int64_t i = 0; i < item->n_scored; i++) {
        item->sum += (double)b->log_p[first + i];
        item->greedy = item->greedy && b->greedy[first + i];
        if (item->log_probabilities) item->log_probabilities[i] = b->log_p[first + i];
    }
    return first + item->n_scored;
}

static void count(sp_score_counts *counts, const packed_batch *b, sp_score_item *const *items, int64_t n_items) {
    counts->n_batches += b->n_targets > 0;
    counts->n_computed += b->n_targets > 0 ? b->n_rows : 0;
    counts->n_scored += b->n_targets;
    for (int64_t i = 0; i < n_items; i++) counts->n_read += n_read(items[i]);
}

static sp_status score_all(sp_model *model, sp_score_item *const *order, int64_t n_items, packed_batch *b,
                           const sp_score_options *o) {
    for (int64_t first = 0, end; first < n_items; first = end) {
        end = fill(b, order, first, n_items, o->share_prefixes);
        SP_TRY(run(model, b));
        for (int64_t i = first, at = 0; i < end; i++) at = unpack(order[i], b, at);
        if (o->counts) count(o->counts, b, order + first, end - first);
        SP_REQUIRE(!o->progress || o->progress(o->progress_user, "scoring", end, n_items) == 0, SP_CANCELLED,
                   "scoring: cancelled after %" PRId64 " of %" PRId64 " items", end, n_items);
    }
    return SP_OK;
}

sp_status sp_score(sp_model *model, sp_score_item *items, int64_t n_items, const sp_score_options *options) {
    sp_score_options o = options ? *options : sp_score_options_default();
    sp_score_item **order = NULL;
    packed_batch batch = {0};
    SP_TRY(check(model, items, n_items));
    if (o.batch_tokens <= 0) SP_TRY(choose_tokens(&o.batch_tokens, model));
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_allocate((void **)&order, n_items * (int64_t)sizeof(sp_score_item *), "an order of items"));
    for (int64_t i = 0; i < n_items; i++) order[i] = &items[i];
    qsort(order, (size_t)n_items, sizeof(sp_score_item *), by_tokens);
    SP_TRY_OR_DONE(packed_new(&batch, items, n_items, o.batch_tokens));
    SP_TRY_OR_DONE(score_all(model, order, n_items, &batch, &o));
done:
    free(batch.block);
    free(order);
    return status;
}
