/* Lines of sample files, in lm-eval's shape: numbers of answers are texts, as Python prints them. */
#define _GNU_SOURCE
#include "evaluate/samples.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/sha256.h"
#include "evaluate/request.h"

/* repr() of a float: the shortest digits that give it back. */
static void format_float(char out[32], double value) {
    if (!isfinite(value)) {
        snprintf(out, 32, "%s", isnan(value) ? "nan" : value > 0 ? "inf" : "-inf");
        return;
    }
    int digits = 1;
    do snprintf(out, 32, "%.*e", digits - 1, value);
    while (strtod(out, NULL) != value && digits++ < 17);
    int exponent = atoi(strchr(out, 'e') + 1), after_point = digits - 1 - exponent;
    if (exponent >= -4 && exponent < 16) snprintf(out, 32, "%.*f", after_point > 1 ? after_point : 1, value);
}

/* ["-12.5", "False"]; of rolling tasks "-12.5". */
static json_t *answer_of(const sp_document *document, const sp_answer *answer) {
    char sum[32];
    format_float(sum, answer->sum);
    if (document->contexts.n == 0) return json_string(sum);
    return json_pack("[s, s]", sum, answer->greedy ? "True" : "False");
}

/* What lm-eval calls the target: the number of the right choice, or the text to predict. */
static sp_status target_of(char **target, const sp_document *document) {
    bool is_number = document->n_answers > 1 && document->contexts.n == 1;
    int written = is_number ? asprintf(target, "%lld", (long long)document->gold)
                            : asprintf(target, "%s", document->continuations.items[0]);
    SP_REQUIRE(written >= 0, SP_OUT_OF_MEMORY, "no memory for a sample");
    return SP_OK;
}

/* {"gen_args_0": {"arg_0": context, "arg_1": continuation}, ...}, and the hash of the first text. */
static sp_status describe_arguments(json_t *arguments, char hash[65], const sp_answered *answered, int64_t i) {
    const sp_document *document = &answered->documents->items[i];
    for (int64_t a = 0; a < document->n_answers; a++) {
        sp_text_pair pair = {0};
        const char *first = document->continuations.items[0];
        json_t *texts;
        if (document->contexts.n > 0) {
            SP_TRY(sp_text_pair_make(&pair, answered->task, document, a,
                                     answered->examples ? answered->examples[i] : NULL));
            first = pair.context;
            texts = json_pack("{s:s, s:s}", "arg_0", pair.context, "arg_1", pair.continuation);
        } else {
            texts = json_pack("{s:s}", "arg_0", first);
        }
        if (a == 0) sp_sha256_of(hash, first, (int64_t)strlen(first));
        sp_text_pair_clear(&pair);
        char name[32];
        snprintf(name, sizeof name, "gen_args_%lld", (long long)a);
        SP_REQUIRE(json_object_set_new(arguments, name, texts) == 0, SP_OUT_OF_MEMORY, "no memory for a sample");
    }
    return SP_OK;
}

/* The hash of the document's text as Python's json.dumps(doc, indent=2, ensure_ascii=False) gives it. */
static sp_status hash_fields(char hash[65], const json_t *fields) {
    char *text = json_dumps(fields, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    SP_REQUIRE(text, SP_OUT_OF_MEMORY, "no memory for a sample");
    sp_sha256_of(hash, text, (int64_t)strlen(text));
    free(text);
    return SP_OK;
}

static void add_values(json_t *sample, const sp_task *task, const sp_metric_value *values) {
    json_t *names = json_array();
    json_object_set_new(sample, "metrics", names);
    for (int64_t m = 0; task->metrics[m]; m++) {
        sp_aggregate aggregate = sp_metric_find(task->metrics[m])->aggregate;
        bool weighted = aggregate == SP_AGGREGATE_WEIGHTED_PERPLEXITY || aggregate == SP_AGGREGATE_BITS;
        json_t *value = sp_json_number(values[m].value);
        if (weighted) value = json_pack("[o, f]", value, values[m].weight);
        json_array_append_new(names, json_string(task->metrics[m]));
        json_object_set_new(sample, task->metrics[m], value);
    }
}

/* `hashes` goes on with what was asked. */
static sp_status describe_sample(json_t *sample, sp_sha256 *hashes, const sp_answered *answered, int64_t i,
                                 const sp_answer *answers) {
    const sp_document *document = &answered->documents->items[i];
    char doc_hash[65], prompt_hash[65], target_hash[65], *target;
    json_t *arguments = json_object(), *responses = json_array(), *filtered = json_array();
    SP_TRY(target_of(&target, document));
    sp_sha256_of(target_hash, target, (int64_t)strlen(target));
    json_object_set_new(sample, "doc_id", json_integer(i));
    json_object_set(sample, "doc", document->fields);
    json_object_set_new(sample, "target", json_string(target));
    free(target);
    json_object_set_new(sample, "arguments", arguments);
    json_object_set_new(sample, "resps", responses);
    json_object_set_new(sample, "filtered_resps", filtered);
    json_object_set_new(sample, "filter", json_string("none"));
    SP_TRY(describe_arguments(arguments, prompt_hash, answered, i));
    for (int64_t a = 0; a < document->n_answers; a++) {
        json_array_append_new(responses, json_pack("[o]", answer_of(document, &answers[a])));
        json_array_append_new(filtered, answer_of(document, &answers[a]));
    }
    add_values(sample, answered->task, answered->values + i * sp_task_n_metrics(answered->task));
    SP_TRY(hash_fields(doc_hash, document->fields));
    json_object_set_new(sample, "doc_hash", json_string(doc_hash));
    json_object_set_new(sample, "prompt_hash", json_string(prompt_hash));
    json_object_set_new(sample, "target_hash", json_string(target_hash));
    sp_sha256_add(hashes, doc_hash, 64);
    sp_sha256_add(hashes, prompt_hash, 64);
    sp_sha256_add(hashes, target_hash, 64);
    return SP_OK;
}

static sp_status write_sample(sp_file_writer *writer, sp_sha256 *hashes, const sp_answered *answered, int64_t i,
                              const sp_answer *answers) {
    json_t *sample = json_object();
    char *text = NULL;
    sp_status status = SP_OK;
    SP_REQUIRE_OR_DONE(sample, SP_OUT_OF_MEMORY, "no memory for a sample");
    SP_TRY_OR_DONE(describe_sample(sample, hashes, answered, i, answers));
    text = json_dumps(sample, JSON_REAL_PRECISION(17));
    SP_REQUIRE_OR_DONE(text, SP_OUT_OF_MEMORY, "no memory for a sample");
    SP_TRY_OR_DONE(sp_file_writer_add(writer, text, (int64_t)strlen(text)));
    status = sp_file_writer_add(writer, "\n", 1);
done:
    free(text);
    json_decref(sample);
    return status;
}

sp_status sp_samples_write(char hash[65], const char *path, const sp_answered *answered) {
    sp_file_writer writer;
    sp_sha256 hashes;
    sp_sha256_begin(&hashes);
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_file_writer_open(&writer, path));
    const sp_answer *answers = answered->answers;
    for (int64_t i = 0; i < answered->n; i++) {
        SP_TRY_OR_DONE(write_sample(&writer, &hashes, answered, i, answers));
        answers += answered->documents->items[i].n_answers;
    }
    status = sp_file_writer_finish(&writer);
done:
    sp_file_writer_abandon(&writer);
    sp_sha256_finish(&hashes, hash);
    return status;
}
