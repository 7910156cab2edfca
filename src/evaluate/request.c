/* Token sequences of questions.
 *
 * lm-eval's rule for a context and a continuation: white space at the end of the context moves to the front of the
 * continuation; both together, and the context alone, are encoded as whole texts; what the first has more tokens
 * than the second is the continuation's; the sequence is the context's tokens and these, cut from the left to the
 * model's length and one.  A context that is empty is the prefix token.  All texts of a call are encoded at once. */
#define _GNU_SOURCE
#include "evaluate/request.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "evaluate/python_text.h"

/* ---- lists of sequences ---- */

sp_status sp_requests_add(sp_requests *requests, int64_t answer, int32_t *tokens, int64_t n_tokens, int64_t n_scored) {
    if (requests->n == requests->capacity) {
        int64_t capacity = requests->capacity ? 2 * requests->capacity : 64;
        sp_score_item *items = realloc(requests->items, (size_t)capacity * sizeof *items);
        if (items) requests->items = items;
        int64_t *answers = items ? realloc(requests->answers, (size_t)capacity * sizeof *answers) : NULL;
        if (answers) requests->answers = answers;
        if (!answers) {
            free(tokens);
            return sp_fail(SP_OUT_OF_MEMORY, "no memory for %" PRId64 " requests", capacity);
        }
        requests->capacity = capacity;
    }
    requests->items[requests->n] = (sp_score_item){.tokens = tokens, .n_tokens = n_tokens, .n_scored = n_scored};
    requests->answers[requests->n++] = answer;
    return SP_OK;
}

void sp_requests_clear(sp_requests *requests) {
    for (int64_t i = 0; i < requests->n; i++) free((void *)(uintptr_t)requests->items[i].tokens);
    free(requests->items);
    free(requests->answers);
    *requests = (sp_requests){0};
}

/* ---- texts ---- */

sp_status sp_text_pair_make(sp_text_pair *pair, const sp_task *task, const sp_document *document, int64_t i,
                            const char *examples) {
    *pair = (sp_text_pair){0};
    const sp_strings *contexts = &document->contexts, *continuations = &document->continuations;
    const char *delimiter = task->kind == &sp_task_kind_cloze ? "" : task->delimiter ? task->delimiter : " ";
    int a = asprintf(&pair->context, "%s%s", examples ? examples : "", contexts->items[contexts->n > 1 ? i : 0]);
    if (a < 0) pair->context = NULL;
    int b = asprintf(&pair->continuation, "%s%s", delimiter, continuations->items[continuations->n > 1 ? i : 0]);
    if (b < 0) pair->continuation = NULL;
    if (a >= 0 && b >= 0) return SP_OK;
    sp_text_pair_clear(pair);
    return sp_fail(SP_OUT_OF_MEMORY, "no memory for a prompt");
}

void sp_text_pair_clear(sp_text_pair *pair) {
    free(pair->context);
    free(pair->continuation);
    *pair = (sp_text_pair){0};
}

/* ---- texts to encode ---- */

/* One request on its way: its texts by their index in the list below, -1 for an empty context. */
typedef struct pending_pair {
    int64_t document, answer; /* answer: counted from the first document of the call */
    int64_t context, whole;
} pending_pair;

typedef struct text_list {
    char **items;
    int64_t *n_bytes;
    sp_tokens *tokens;
    int64_t n;
    pending_pair *pending;
    int64_t n_pending;
} text_list;

static void clear_texts(text_list *texts) {
    for (int64_t i = 0; i < texts->n; i++) {
        free(texts->items[i]);
        if (texts->tokens) free(texts->tokens[i].items);
    }
    free(texts->items);
    free(texts->n_bytes);
    free(texts->tokens);
    free(texts->pending);
}

static sp_status allocate_texts(text_list *texts, const sp_documents *documents, int64_t first, int64_t n) {
    int64_t n_answers = 0;
    for (int64_t i = first; i < first + n; i++) n_answers += documents->items[i].n_answers;
    size_t most = (size_t)n_answers + 1;
    *texts = (text_list){.items = calloc(2 * most, sizeof *texts->items),
                         .n_bytes = calloc(2 * most, sizeof *texts->n_bytes),
                         .tokens = calloc(2 * most, sizeof *texts->tokens),
                         .pending = calloc(most, sizeof *texts->pending)};
    bool all = texts->items && texts->n_bytes && texts->tokens && texts->pending;
    if (!all) clear_texts(texts);
    SP_REQUIRE(all, SP_OUT_OF_MEMORY, "no memory for %" PRId64 " requests", n_answers);
    return SP_OK;
}

/* Takes `text` over. */
static int64_t add_text(text_list *texts, char *text, int64_t n_bytes) {
    texts->items[texts->n] = text;
    texts->n_bytes[texts->n] = n_bytes;
    return texts->n++;
}

/* Adds the texts of a pair; a context that the previous request has too is added once. */
static sp_status add_pair(text_list *texts, sp_text_pair *pair, int64_t document, int64_t answer) {
    pending_pair *request = &texts->pending[texts->n_pending];
    int64_t n_context = (int64_t)strlen(pair->context);
    char *whole;
    int n_whole = asprintf(&whole, "%s%s", pair->context, pair->continuation);
    SP_REQUIRE(n_whole >= 0, SP_OUT_OF_MEMORY, "no memory for a prompt");
    *request = (pending_pair){.document = document, .answer = answer, .context = -1};
    request->whole = add_text(texts, whole, n_whole);
    texts->n_pending++;
    if (n_context == 0) return SP_OK;
    int64_t n = sp_python_strip_right((sp_text_view){pair->context, n_context}).n_bytes;
    int64_t previous = texts->n_pending > 1 ? request[-1].context : -1;
    if (previous >= 0 && texts->n_bytes[previous] == n && memcmp(texts->items[previous], whole, (size_t)n) == 0) {
        request->context = previous;
        return SP_OK;
    }
    request->context = add_text(texts, pair->context, n);
    pair->context[n] = 0;
    pair->context = NULL;
    return SP_OK;
}

static sp_status collect_texts(text_list *texts, const sp_task *task, const sp_documents *documents, int64_t first,
                               int64_t n, char *const *examples) {
    int64_t answer = 0;
    for (int64_t i = 0; i < n; i++) {
        const sp_document *document = &documents->items[first + i];
        for (int64_t j = 0; j < document->n_answers; j++) {
            sp_text_pair pair;
            SP_TRY(sp_text_pair_make(&pair, task, document, j, examples ? examples[i] : NULL));
            sp_status status = add_pair(texts, &pair, first + i, answer++);
            sp_text_pair_clear(&pair);
            SP_TRY(status);
        }
    }
    return SP_OK;
}

/* ---- tokens ---- */

/* Encodes text i once more, with other flags than the rest. */
static sp_status encode_again(text_list *texts, const sp_evaluation *evaluation, int64_t i, unsigned flags) {
    sp_tokens tokens;
    SP_TRY(sp_tokenizer_encode_with(evaluation->tokenizer, texts->items[i], texts->n_bytes[i], flags, &tokens.items,
                                    &tokens.n));
    free(texts->tokens[i].items);
    texts->tokens[i] = tokens;
    return SP_OK;
}

/* The prefix token is not added to a text that begins with its name, nor to one that it stands before as the
 * context. */
static sp_status encode_texts(text_list *texts, const sp_evaluation *evaluation) {
    unsigned flags = evaluation->encode_flags, bare = flags & ~(unsigned)SP_ENCODE_TEMPLATE;
    SP_TRY(sp_tokenizer_encode_many(evaluation->tokenizer, (const char *const *)texts->items, texts->n_bytes, texts->n,
                                    flags, texts->tokens));
    if (flags == bare) return SP_OK;
    const char *name = sp_tokenizer_piece(evaluation->tokenizer, evaluation->prefix);
    size_t n_name = name ? strlen(name) : 0;
    for (int64_t i = 0; i < texts->n; i++)
        if (n_name && strncmp(texts->items[i], name, n_name) == 0) SP_TRY(encode_again(texts, evaluation, i, bare));
    for (int64_t i = 0; i < texts->n_pending; i++)
        if (texts->pending[i].context < 0) SP_TRY(encode_again(texts, evaluation, texts->pending[i].whole, bare));
    return SP_OK;
}

/* A tokenizer may know more tokens than the model, as long as texts do not use them. */
static sp_status check_tokens(const sp_evaluation *evaluation, const int32_t *tokens, int64_t n) {
    int64_t V = sp_model_config_of(evaluation->model)->vocabulary;
    for (int64_t i = 0; i < n; i++)
        SP_REQUIRE(tokens[i] < V, SP_BAD_FILE, "%s: its token %" PRId32 " is not in the model's vocabulary of %" PRId64,
                   sp_tokenizer_path(evaluation->tokenizer), tokens[i], V);
    return SP_OK;
}

/* The sequence of a request: at most the model's length and one token of context and continuation. */
static sp_status add_sequence(sp_requests *requests, const sp_evaluation *evaluation, const sp_task *task,
                              const text_list *texts, const pending_pair *request) {
    sp_tokens whole = texts->tokens[request->whole];
    sp_tokens context = {(int32_t[]){evaluation->prefix}, 1};
    int64_t skipped = 0;
    if (request->context >= 0) {
        context = texts->tokens[request->context];
        skipped = context.n;
    } else if (evaluation->options->compat != SP_EVALUATE_COMPAT_0_4_8 && whole.n > 0 &&
               whole.items[0] == evaluation->prefix) {
        skipped = 1; /* it is there already */
    }
    int64_t n_scored = whole.n - skipped, L = evaluation->max_length;
    SP_REQUIRE(n_scored >= 1 && context.n >= 1, SP_BAD_FILE,
               "%s, document %" PRId64 ": nothing is left to predict in tokens", task->name, request->document);
    SP_REQUIRE(n_scored <= L, SP_BAD_FILE,
               "%s, document %" PRId64 ": %" PRId64 " tokens to predict, the model sees %" PRId64, task->name,
               request->document, n_scored, L);
    SP_TRY(check_tokens(evaluation, context.items, context.n));
    SP_TRY(check_tokens(evaluation, whole.items, whole.n));
    int64_t n_context = context.n + n_scored > L + 1 ? L + 1 - n_scored : context.n;
    int32_t *tokens = malloc((size_t)(n_context + n_scored) * sizeof *tokens);
    SP_REQUIRE(tokens, SP_OUT_OF_MEMORY, "no memory for a request");
    memcpy(tokens, context.items + context.n - n_context, (size_t)n_context * sizeof *tokens);
    memcpy(tokens + n_context, whole.items + skipped, (size_t)n_scored * sizeof *tokens);
    return sp_requests_add(requests, request->answer, tokens, n_context + n_scored, n_scored);
}

sp_status sp_ask_pairs(sp_requests *requests, const sp_evaluation *evaluation, const sp_task *task,
                       const sp_documents *documents, int64_t first, int64_t n, char *const *examples) {
    text_list texts;
    SP_TRY(allocate_texts(&texts, documents, first, n));
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(collect_texts(&texts, task, documents, first, n, examples));
    SP_TRY_OR_DONE(encode_texts(&texts, evaluation));
    for (int64_t i = 0; i < texts.n_pending; i++)
        SP_TRY_OR_DONE(add_sequence(requests, evaluation, task, &texts, &texts.pending[i]));
done:
    clear_texts(&texts);
    return status;
}
