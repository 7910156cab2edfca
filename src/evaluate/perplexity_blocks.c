/* The kind of task "ppl": perplexity as the papers on quantization count it (GPTQ, AWQ, HQQ).
 *
 * The lines of wikitext-2's test file are joined by "\n\n" and encoded as one text, which is cut into blocks of T tokens;
 * what is left at the end is dropped.  A block's mean loss over its T - 1 predictions stands for T tokens:
 *
 *   ppl = exp(sum over blocks of (mean loss * T) / (blocks * T))
 *
 * per token, and so never to be compared with perplexities per word. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "evaluate/document.h"
#include "evaluate/task.h"
#include "evaluate/wikitext.h"

enum { BLOCK = 2048 };

/* The file's text as tokens; BOS where the tokenizer's own template puts it. */
static sp_status encode_file(sp_tokens *tokens, const sp_evaluation *evaluation, const sp_task *task) {
    const char *data = task->folder ? task->folder : evaluation->options->data;
    char path[4096], *text = NULL, *joined = NULL;
    int64_t n_text, n_joined;
    sp_status status;
    SP_TRY_OR_DONE(sp_task_file_find(path, NULL, task, task->files, data));
    SP_TRY_OR_DONE(sp_data_read_text(&text, &n_text, path));
    SP_TRY_OR_DONE(sp_wikitext_join_lines(&joined, &n_joined, (sp_text_view){text, n_text}));
    SP_TRY_OR_DONE(sp_tokenizer_encode_with(evaluation->tokenizer, joined, n_joined, SP_ENCODE_TEMPLATE, &tokens->items,
                                            &tokens->n));
done:
    free(joined);
    free(text);
    return status;
}

static sp_status score_blocks(double *loss, sp_evaluation *evaluation, const sp_tokens *tokens, int64_t T,
                              int64_t n_blocks) {
    sp_score_item *items = NULL;
    SP_TRY(sp_allocate((void **)&items, n_blocks * (int64_t)sizeof *items, "blocks to score"));
    for (int64_t i = 0; i < n_blocks; i++)
        items[i] = (sp_score_item){.tokens = tokens->items + i * T, .n_tokens = T, .n_scored = T - 1};
    sp_score_options options = sp_score_options_default();
    options.batch_tokens = evaluation->options->batch_tokens;
    options.counts = &evaluation->counts;
    options.progress = evaluation->options->progress;
    options.progress_user = evaluation->options->progress_user;
    sp_status status = sp_score(evaluation->model, items, n_blocks, &options);
    *loss = 0;
    for (int64_t i = 0; i < n_blocks; i++) *loss -= items[i].sum / (double)(T - 1) * (double)T;
    free(items);
    return status;
}

static sp_status run_blocks(sp_task_outcome *outcome, sp_evaluation *evaluation, const sp_task *task) {
    const sp_evaluate_options *options = evaluation->options;
    sp_tokens tokens = {0};
    sp_status status;
    SP_TRY_OR_DONE(encode_file(&tokens, evaluation, task));
    int64_t T = options->ppl_length ? options->ppl_length : BLOCK;
    if (options->ppl_length == 0 && T > evaluation->max_length) T = evaluation->max_length;
    int64_t n_all = tokens.n / T, n_blocks = options->limit && options->limit < n_all ? options->limit : n_all;
    SP_REQUIRE_OR_DONE(T >= 2 && T <= evaluation->max_length, SP_BAD_ARGUMENT,
                       "%s: blocks of %lld tokens, but the model sees 2 to %lld at once", task->name, (long long)T,
                       (long long)evaluation->max_length);
    SP_REQUIRE_OR_DONE(n_blocks > 0, SP_BAD_FILE, "%s: the text has %lld tokens, less than one block of %lld",
                       task->name, (long long)tokens.n, (long long)T);
    double loss;
    SP_TRY_OR_DONE(score_blocks(&loss, evaluation, &tokens, T, n_blocks));
    outcome->metrics = json_pack("{s:o, s:s}", "ppl_gptq,none", sp_json_number(exp(loss / (double)(n_blocks * T))),
                                 "ppl_gptq_stderr,none", "N/A");
    outcome->extra = json_pack("{s:I, s:I, s:I}", "block_tokens", (json_int_t)T, "blocks", (json_int_t)n_blocks,
                               "text_tokens", (json_int_t)tokens.n);
    SP_REQUIRE_OR_DONE(outcome->metrics && outcome->extra, SP_OUT_OF_MEMORY, "no memory for the results of %s",
                       task->name);
    outcome->n_original = n_all;
    outcome->n_effective = n_blocks;
done:
    free(tokens.items);
    return status;
}

const sp_task_kind sp_task_kind_blocks = {.name = "ppl", .output_type = "loglikelihood_rolling", .run = run_blocks};
