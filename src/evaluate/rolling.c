/* The kinds of tasks that predict whole texts: any text ("rolling"), and the pages of WikiText ("wikitext").
 *
 * A document's one continuation is its text; it has no context.  Words and bytes, by which log p is divided, are those of
 * the text, but on WikiText's pages those from before it was detokenized. */
#include "evaluate/rolling.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "evaluate/document.h"
#include "evaluate/task.h"
#include "evaluate/wikitext.h"

/* ---- windows ---- */

int64_t sp_rolling_n_windows(int64_t n_text, int64_t max_length) { return (n_text + max_length - 1) / max_length; }

/* In the run, the text's token t stands at t + 1: a window that predicts [first, end) of the text ends at end + 1 there,
 * and begins max_length + 1 before that, or at the prefix. */
sp_rolling_window sp_rolling_window_at(int64_t i, int64_t n_text, int64_t max_length) {
    int64_t first = i * max_length, end = first + max_length < n_text ? first + max_length : n_text;
    int64_t start = end > max_length ? end - max_length : 0;
    return (sp_rolling_window){start, end + 1 - start, end - first};
}

/* ---- asking and judging ---- */

static sp_status ask_text(sp_requests *requests, const sp_evaluation *evaluation, int64_t answer, sp_tokens text) {
    int32_t *run = NULL;
    SP_TRY(sp_allocate((void **)&run, (text.n + 1) * (int64_t)sizeof *run, "the tokens of a text"));
    run[0] = evaluation->prefix;
    if (text.n > 0) memcpy(run + 1, text.items, (size_t)text.n * sizeof *run);
    sp_status status = SP_OK;
    for (int64_t i = 0; status == SP_OK && i < sp_rolling_n_windows(text.n, evaluation->max_length); i++) {
        sp_rolling_window window = sp_rolling_window_at(i, text.n, evaluation->max_length);
        int32_t *tokens = malloc((size_t)window.n_tokens * sizeof *tokens);
        if (!tokens) {
            status = sp_fail(SP_OUT_OF_MEMORY, "no memory for a window of %lld tokens", (long long)window.n_tokens);
            break;
        }
        memcpy(tokens, run + window.first, (size_t)window.n_tokens * sizeof *tokens);
        status = sp_requests_add(requests, answer, tokens, window.n_tokens, window.n_scored);
    }
    free(run);
    return status;
}

static sp_status ask_texts(sp_requests *requests, const sp_evaluation *evaluation, const sp_task *task,
                           const sp_documents *documents, int64_t first, int64_t n, char *const *examples) {
    (void)task;
    (void)examples;
    const char **texts = NULL;
    int64_t *lengths = NULL;
    sp_tokens *tokens = NULL;
    sp_status status;
    SP_TRY_OR_DONE(sp_allocate((void **)&texts, n * (int64_t)sizeof *texts, "texts to encode"));
    SP_TRY_OR_DONE(sp_allocate((void **)&lengths, n * (int64_t)sizeof *lengths, "lengths of texts"));
    SP_TRY_OR_DONE(sp_allocate((void **)&tokens, n * (int64_t)sizeof *tokens, "tokens of texts"));
    for (int64_t i = 0; i < n; i++) {
        texts[i] = documents->items[first + i].continuations.items[0];
        lengths[i] = (int64_t)strlen(texts[i]);
    }
    SP_TRY_OR_DONE(
        sp_tokenizer_encode_many(evaluation->tokenizer, texts, lengths, n, evaluation->encode_flags, tokens));
    for (int64_t i = 0; i < n; i++) SP_TRY_OR_DONE(ask_text(requests, evaluation, i, tokens[i]));
done:
    for (int64_t i = 0; tokens && i < n; i++) free(tokens[i].items);
    free(tokens);
    free(lengths);
    free(texts);
    return status;
}

static void judge_text(sp_metric_value *values, const sp_task *task, const sp_document *document,
                       const sp_answer *answers) {
    const char *text = document->continuations.items[0];
    sp_text_view view = {text, (int64_t)strlen(text)};
    double words = document->words, bytes = document->bytes;
    if (words == 0) {
        words = (double)sp_wikitext_words(view);
        bytes = (double)view.n_bytes;
    }
    for (int64_t m = 0; task->metrics[m]; m++) {
        bool per_word = strcmp(task->metrics[m], "word_perplexity") == 0;
        values[m] = (sp_metric_value){answers->sum, per_word ? words : bytes};
    }
}

/* ---- WikiText's file ---- */

static sp_status add_page(sp_documents *documents, sp_text_view page) {
    sp_document *document;
    char *text = NULL;
    int64_t n_text;
    SP_TRY(sp_documents_add(documents, &document));
    sp_status status;
    SP_TRY_OR_DONE(sp_wikitext_detokenize(&text, &n_text, page));
    SP_TRY_OR_DONE(sp_strings_add(&document->continuations, text, n_text));
    document->fields = json_pack("{s:s%}", "page", page.text, (size_t)page.n_bytes);
    SP_REQUIRE_OR_DONE(document->fields, SP_OUT_OF_MEMORY, "no memory for a page");
    document->n_answers = 1;
    document->words = (double)sp_wikitext_words(page);
    document->bytes = (double)page.n_bytes;
done:
    free(text);
    return status;
}

static sp_status read_pages(sp_documents *documents, const sp_task *task, const char *path) {
    (void)task;
    char *text = NULL;
    int64_t n_text, n_pages = 0;
    sp_text_view *pages = NULL;
    sp_status status;
    SP_TRY_OR_DONE(sp_data_read_text(&text, &n_text, path));
    SP_TRY_OR_DONE(sp_wikitext_pages(&pages, &n_pages, (sp_text_view){text, n_text}));
    for (int64_t i = 0; n_text > 0 && i < n_pages; i++) SP_TRY_OR_DONE(add_page(documents, pages[i]));
done:
    free(pages);
    free(text);
    return status;
}

const sp_task_kind sp_task_kind_rolling = {
    .name = "rolling",
    .output_type = "loglikelihood_rolling",
    .ask = ask_texts,
    .judge = judge_text,
    .continuation_key = "text",
    .metrics = {"word_perplexity", "byte_perplexity", "bits_per_byte"},
};
const sp_task_kind sp_task_kind_wikitext = {
    .name = "wikitext",
    .output_type = "loglikelihood_rolling",
    .read = read_pages,
    .ask = ask_texts,
    .judge = judge_text,
    .metrics = {"word_perplexity", "byte_perplexity", "bits_per_byte"},
};
