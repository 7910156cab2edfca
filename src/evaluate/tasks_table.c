/* The one table of tasks, in the order in which they are listed.  Prompts and metrics are those of lm-eval's tasks
 * of the same names and versions; layouts cover the fields of the official distributions, of their copies as JSON
 * lines, and of llm-foundry's files. */
#include <string.h>

#include "base/file.h"
#include "evaluate/task.h"

/* ARC's questions as a list of texts with an index, as columns, and as AI2 gives them out; OpenBookQA's are alike. */
#define ARC_LAYOUTS(question, stem)                                                                                    \
    {.contexts = {question}, .continuations = {"{choices}"}, .gold = "{gold}"},                                        \
        {.contexts = {question},                                                                                       \
         .continuations = {"{choices.text}"},                                                                          \
         .gold = "{answerKey|lstrip}",                                                                                 \
         .labels = {"{choices.label}"}},                                                                               \
    {                                                                                                                  \
        .contexts = {stem}, .continuations = {"{question.choices[].text}"}, .gold = "{answerKey|lstrip}", .labels = {  \
            "{question.choices[].label}"                                                                               \
        }                                                                                                              \
    }

#define WIKITEXT "https://huggingface.co/datasets/Salesforce/wikitext (wikitext-2-raw-v1)"
#define WIKITEXT_FILES                                                                                                 \
    {"wikitext2_wiki.test.raw", NULL}, {"wikitext-2-raw/wiki.test.raw", NULL}, { "wiki.test.raw", NULL }

static const sp_task tasks[] = {
    {
        .name = "arc_easy",
        .version = "1.0",
        .about = "school science questions, the easy part",
        .source = "https://huggingface.co/datasets/allenai/ai2_arc",
        .kind = &sp_task_kind_choice,
        .files = {{"arc_easy_test.jsonl", NULL}, {"ARC-Easy-Test.jsonl", NULL}, {"ARC-Easy/ARC-Easy-Test.jsonl", NULL}},
        .example_files = {{"arc_easy_train.jsonl", NULL},
                          {"ARC-Easy-Train.jsonl", NULL},
                          {"ARC-Easy/ARC-Easy-Train.jsonl", NULL}},
        .layouts = {ARC_LAYOUTS("Question: {question}\nAnswer:", "Question: {question.stem}\nAnswer:")},
        .metrics = {"acc", "acc_norm"},
        .has_test_split = true,
    },
    {
        .name = "arc_challenge",
        .version = "1.0",
        .about = "school science questions, the hard part",
        .source = "https://huggingface.co/datasets/allenai/ai2_arc",
        .kind = &sp_task_kind_choice,
        .files = {{"arc_challenge_test.jsonl", NULL},
                  {"ARC-Challenge-Test.jsonl", NULL},
                  {"ARC-Challenge/ARC-Challenge-Test.jsonl", NULL}},
        .example_files = {{"arc_challenge_train.jsonl", NULL},
                          {"ARC-Challenge-Train.jsonl", NULL},
                          {"ARC-Challenge/ARC-Challenge-Train.jsonl", NULL}},
        .layouts = {ARC_LAYOUTS("Question: {question}\nAnswer:", "Question: {question.stem}\nAnswer:")},
        .metrics = {"acc", "acc_norm"},
        .has_test_split = true,
    },
    {
        .name = "hellaswag",
        .version = "1.0",
        .about = "how a description of an everyday scene goes on",
        .source = "https://github.com/rowanz/hellaswag",
        .kind = &sp_task_kind_choice,
        .files = {{"hellaswag_val.jsonl", NULL}, {"hellaswag/hellaswag_val.jsonl", NULL}},
        .example_files = {{"hellaswag_train.jsonl", NULL}, {"hellaswag/hellaswag_train.jsonl", NULL}},
        .layouts = {{.contexts = {"{activity_label}: {ctx_a} {ctx_b|capitalize}"},
                     .continuations = {"{endings}"},
                     .gold = "{label}",
                     .filter = "wikihow"},
                    {.contexts = {"{activity_label}: {ctx}"}, /* files that do not tell the two parts apart */
                     .continuations = {"{endings}"},
                     .gold = "{label}",
                     .filter = "wikihow"}},
        .metrics = {"acc", "acc_norm"},
    },
    {
        .name = "piqa",
        .version = "1.0",
        .about = "which of two ways reaches a practical goal",
        .source = "https://yonatanbisk.com/piqa",
        .kind = &sp_task_kind_choice,
        .files = {{"piqa_valid.jsonl", "piqa_valid-labels.lst"}, {"piqa/valid.jsonl", "piqa/valid-labels.lst"}},
        .example_files = {{"piqa_train.jsonl", "piqa_train-labels.lst"}, {"piqa/train.jsonl", "piqa/train-labels.lst"}},
        .layouts = {{.contexts = {"Question: {goal}\nAnswer:"},
                     .continuations = {"{sol1}", "{sol2}"},
                     .gold = "{label}"}},
        .metrics = {"acc", "acc_norm"},
    },
    {
        .name = "sciq",
        .version = "1.0",
        .about = "science questions with a text that helps",
        .source = "https://huggingface.co/datasets/allenai/sciq",
        .kind = &sp_task_kind_choice,
        .files = {{"sciq_test.jsonl", NULL}, {"sciq/test.json", NULL}, {"sciq/test.jsonl", NULL}},
        .example_files = {{"sciq_train.jsonl", NULL},
                          {"sciq/train.json", NULL},
                          {"sciq/train.jsonl", NULL},
                          {"sciq_validation.jsonl", NULL}},
        .layouts = {{.contexts = {"{support|lstrip}\nQuestion: {question}\nAnswer:"},
                     .continuations = {"{distractor1}", "{distractor2}", "{distractor3}", "{correct_answer}"},
                     .gold = "3"}},
        .metrics = {"acc", "acc_norm"},
        .has_test_split = true,
    },
    {
        .name = "lambada_openai",
        .version = "1.0",
        .about = "the last word of a passage, OpenAI's form of it",
        .source = "https://huggingface.co/datasets/EleutherAI/lambada_openai",
        .kind = &sp_task_kind_cloze,
        .files = {{"lambada_openai_test.jsonl", NULL}, {"lambada_test.jsonl", NULL}},
        .layouts = {{.contexts = {"{text|before_last: }"}, .continuations = {" {text|after_last: }"}}},
        .metrics = {"perplexity", "acc"},
        .has_test_split = true,
    },
    {
        .name = "winogrande",
        .version = "1.0",
        .about = "whom a sentence speaks of",
        .source = "https://winogrande.allenai.org",
        .kind = &sp_task_kind_partial,
        .files = {{"winogrande_xl_validation.jsonl", NULL},
                  {"winogrande_1.1/dev.jsonl", NULL},
                  {"winogrande/dev.jsonl", NULL}},
        .example_files = {{"winogrande_xl_train.jsonl", NULL},
                          {"winogrande_1.1/train_xl.jsonl", NULL},
                          {"winogrande/train_xl.jsonl", NULL}},
        .layouts = {{.contexts = {"{sentence|before:_}{option1}", "{sentence|before:_}{option2}"},
                     .continuations = {"{sentence|after:_|strip}"},
                     .gold = "{answer}",
                     .labels = {"1", "2"}}},
        .metrics = {"acc"},
    },
    {
        .name = "openbookqa",
        .version = "1.0",
        .about = "science facts and what follows from them",
        .source = "https://huggingface.co/datasets/allenai/openbookqa",
        .kind = &sp_task_kind_choice,
        .files = {{"openbookqa_test.jsonl", NULL},
                  {"openbookqa/test.jsonl", NULL},
                  {"OpenBookQA-V1-Sep2018/Data/Main/test.jsonl", NULL},
                  {"openbookqa_test_500.lf.jsonl", NULL}},
        .example_files = {{"openbookqa_train.jsonl", NULL},
                          {"openbookqa/train.jsonl", NULL},
                          {"OpenBookQA-V1-Sep2018/Data/Main/train.jsonl", NULL}},
        .layouts = {ARC_LAYOUTS("{question_stem}", "{question.stem}"),
                    {.contexts = {"{query}"}, .continuations = {"{choices}"}, .gold = "{gold}"}},
        .metrics = {"acc", "acc_norm"},
        .has_test_split = true,
    },
    {
        .name = "boolq",
        .version = "2.0",
        .about = "yes or no, from a passage",
        .source = "https://super.gluebenchmark.com",
        .kind = &sp_task_kind_choice,
        .files = {{"boolq_val.jsonl", NULL},
                  {"BoolQ/val.jsonl", NULL},
                  {"boolq/dev.jsonl", NULL},
                  {"boolq_val.lf.jsonl", NULL}},
        .example_files = {{"boolq_train.jsonl", NULL}, {"BoolQ/train.jsonl", NULL}, {"boolq/train.jsonl", NULL}},
        .layouts = {{.contexts = {"{passage}\nQuestion: {question}?\nAnswer:"},
                     .continuations = {"no", "yes"},
                     .gold = "{label}"},
                    {.contexts = {"{passage}\nQuestion: {question}?\nAnswer:"}, /* as Google gives it out */
                     .continuations = {"no", "yes"},
                     .gold = "{answer}"},
                    {.contexts = {"{query|after:Passage: }\nAnswer:"}, /* llm-foundry's prompt, made lm-eval's */
                     .continuations = {"no", "yes"},
                     .gold = "{gold}"}},
        .metrics = {"acc"},
    },
    {
        .name = "wikitext",
        .version = "2.0",
        .about = "perplexity per word and byte, bits per byte of WikiText-2's test pages",
        .source = WIKITEXT,
        .kind = &sp_task_kind_wikitext,
        .files = {WIKITEXT_FILES},
        .metrics = {"word_perplexity", "byte_perplexity", "bits_per_byte"},
        .has_test_split = true,
    },
    {
        .name = "ppl",
        .version = "1.0",
        .about = "perplexity per token of WikiText-2's test text in blocks, as papers on quantization count it",
        .source = WIKITEXT,
        .kind = &sp_task_kind_blocks,
        .files = {WIKITEXT_FILES},
        .metrics = {"ppl_gptq"},
    },
    {
        .name = "passkey",
        .version = "1.0",
        .about = "a number hidden in filler, by length and depth",
        .source = "the prompts are made here",
        .kind = &sp_task_kind_passkey,
        .metrics = {"acc"},
    },
};
enum { N_TASKS = sizeof tasks / sizeof *tasks };

const sp_task *sp_task_at(int64_t i) { return i >= 0 && i < N_TASKS ? &tasks[i] : NULL; }
