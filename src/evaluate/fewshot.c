/* Few-shot examples.
 *
 * One generator, Random(1234), goes through the documents of a task in their order.  A task for which lm-eval names
 * a test split draws n_fewshot examples; any other draws one more, leaves out those equal to the document itself and
 * keeps the first n_fewshot, and where duplicates leave too few it draws again from the rest (0.4.10 on).  0.4.8
 * leaves the document out in either case and does not draw again.  Where a task has examples of its own, but their
 * file is not there, the documents stand in, and a document is never its own example. */
#define _GNU_SOURCE
#include "evaluate/fewshot.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "evaluate/python_random.h"

enum { SEED = 1234 };

typedef struct example_sampler {
    const sp_task *task;
    const sp_documents *pool;
    int64_t n_fewshot;
    bool extra, removes, redraws; /* one more is drawn; the document is left out; again when too few are left */
    sp_python_random random;
    int64_t *indices, *others; /* (n_fewshot + 1), (pool->n) */
} example_sampler;

/* The example as it is shown: its question and the right answer.  Where the answer is no choice but a text, an empty
 * one leaves out what stands around it, too. */
static void write_example(FILE *stream, const sp_task *task, const sp_document *document) {
    const sp_strings *contexts = &document->contexts, *continuations = &document->continuations;
    const char *answer = continuations->items[continuations->n > 1 ? document->gold : 0];
    fputs(contexts->items[contexts->n > 1 ? document->gold : 0], stream);
    if (*answer || task->kind == &sp_task_kind_choice)
        fprintf(stream, "%s%s\n\n", task->delimiter ? task->delimiter : " ", answer);
}

/* Keeps the indices of documents that differ from this one; returns how many. */
static int64_t leave_out(const example_sampler *sampler, int64_t n, const sp_document *document) {
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++)
        if (!json_equal(sampler->pool->items[sampler->indices[i]].fields, document->fields))
            sampler->indices[kept++] = sampler->indices[i];
    return kept;
}

/* Draws from the documents of the pool that differ from this one. */
static sp_status draw_from_others(example_sampler *sampler, const sp_document *document) {
    int64_t n = 0;
    for (int64_t i = 0; i < sampler->pool->n; i++)
        if (!json_equal(sampler->pool->items[i].fields, document->fields)) sampler->others[n++] = i;
    SP_TRY(sp_python_random_sample(&sampler->random, n, sampler->n_fewshot, sampler->indices));
    for (int64_t i = 0; i < sampler->n_fewshot; i++) sampler->indices[i] = sampler->others[sampler->indices[i]];
    return SP_OK;
}

static sp_status draw(char **text, example_sampler *sampler, const sp_document *document) {
    int64_t n = sampler->n_fewshot + sampler->extra;
    SP_TRY(sp_python_random_sample(&sampler->random, sampler->pool->n, n, sampler->indices));
    if (sampler->removes) n = leave_out(sampler, n, document);
    if (n < sampler->n_fewshot && sampler->redraws) {
        SP_TRY(draw_from_others(sampler, document));
        n = sampler->n_fewshot;
    }
    size_t n_bytes;
    FILE *stream = open_memstream(text, &n_bytes);
    SP_REQUIRE(stream, SP_OUT_OF_MEMORY, "no memory for few-shot examples");
    for (int64_t i = 0; i < n && i < sampler->n_fewshot; i++)
        write_example(stream, sampler->task, &sampler->pool->items[sampler->indices[i]]);
    SP_REQUIRE(fclose(stream) == 0, SP_OUT_OF_MEMORY, "no memory for few-shot examples");
    return SP_OK;
}

sp_status sp_fewshot_draw(char **texts, const sp_task *task, const sp_documents *documents, int64_t n,
                          const sp_documents *pool, int64_t n_fewshot, sp_evaluate_compat compat) {
    memset(texts, 0, (size_t)n * sizeof *texts);
    bool old = compat == SP_EVALUATE_COMPAT_0_4_8;
    bool may_meet = task->has_test_split && (pool || !task->example_files[0].path); /* it would be by chance alone */
    if (!pool) pool = documents;
    example_sampler sampler = {.task = task,
                               .pool = pool,
                               .n_fewshot = n_fewshot,
                               .extra = !may_meet,
                               .removes = old || !may_meet,
                               .redraws = !old};
    SP_REQUIRE(n_fewshot + sampler.extra <= pool->n, SP_BAD_ARGUMENT,
               "%s: %" PRId64 " examples are to be drawn from %" PRId64 " documents", task->name,
               n_fewshot + sampler.extra, pool->n);
    sp_python_random_seed(&sampler.random, SEED);
    sampler.indices = malloc((size_t)(n_fewshot + 1) * sizeof *sampler.indices);
    sampler.others = malloc((size_t)pool->n * sizeof *sampler.others);
    sp_status status = SP_OK;
    SP_REQUIRE_OR_DONE(sampler.indices && sampler.others, SP_OUT_OF_MEMORY, "no memory for few-shot examples");
    for (int64_t i = 0; i < n; i++) SP_TRY_OR_DONE(draw(&texts[i], &sampler, &documents->items[i]));
done:
    for (int64_t i = 0; status != SP_OK && i < n; i++) {
        free(texts[i]);
        texts[i] = NULL;
    }
    free(sampler.indices);
    free(sampler.others);
    return status;
}
