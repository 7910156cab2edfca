/* softpick tokenize: text into a tokenizer and token shards. */
#define _GNU_SOURCE
#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "softpick/text.h"

enum { PATH_BYTES = 4096 };

typedef struct settings {
    const char **texts; /* argv's strings */
    int64_t n_texts;
    const char *out;
    const char *tokenizer; /* NULL: train one */
    sp_tokenizer_train_options training;
    sp_shards_write_options writing;
    int64_t n_threads;
    bool training_set; /* an option of training was given */
    bool force, json, quiet;
} settings;

/* ---- options ---- */

enum {
    OPTION_TOKENIZER = 256,
    OPTION_KIND,
    OPTION_TRAIN_BYTES,
    OPTION_VALIDATION,
    OPTION_DOCUMENT_BYTES,
    OPTION_SHARD_TOKENS,
    OPTION_THREADS,
    OPTION_FORCE,
    OPTION_JSON,
};

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "What is read and where the result goes:", 1},
    {"text", 't', "PATH", 0,
     "A file, a folder (its .txt and .jsonl files, each also .gz or .zst) or - for standard input; may be given many "
     "times, and further paths may follow it",
     1},
    {"out", 'o', "DIR", 0, "Where the tokenizer and the shards are written", 1},
    {"force", OPTION_FORCE, NULL, 0, "Replace the shards and the tokenizer that are in DIR", 1},
    {NULL, 0, NULL, 0, "Tokenizer (trained on the text unless one is given):", 2},
    {"tokenizer", OPTION_TOKENIZER, "FILE", 0,
     "tokenizer.json, a sentencepiece model, tokenizer.bin of llama2.c, a GGUF file, or a folder with one of them", 2},
    {"vocabulary", 'v', "N", 0, "Pieces of a trained tokenizer (default 8192)", 2},
    {"kind", OPTION_KIND, "KIND", 0, "bpe or unigram (default bpe)", 2},
    {"train-bytes", OPTION_TRAIN_BYTES, "N", 0,
     "Bytes of text, taken evenly, to train it on; 0: all (default 67108864)", 2},
    {NULL, 0, NULL, 0, "Shards:", 3},
    {"validation", OPTION_VALIDATION, "SHARE", 0, "Share of the text, at its end, held out; 0: none (default 0.05)", 3},
    {"document-bytes", OPTION_DOCUMENT_BYTES, "N", 0,
     "Cut longer text files into documents of at most N bytes, at line ends; 0: one document per file (default 0)", 3},
    {"shard-tokens", OPTION_SHARD_TOKENS, "N", 0, "Tokens per shard file (default 134217728)", 3},
    {NULL, 0, NULL, 0, "Running:", 4},
    {"threads", OPTION_THREADS, "N", 0, "Threads; 0: as many as OpenMP chooses (default 0)", 4},
    {"json", OPTION_JSON, NULL, 0, "Print the result as one JSON document", 4},
    {"quiet", 'q', NULL, 0, "No progress on standard error", 4},
    {0},
};

static const char doc[] =
    "Encodes text into token shards for training, with a tokenizer that is given or trained on the text."
    "\vA .txt file is one document, a line of a .jsonl file is one (its field \"text\"). Counts take k, M and G.\n\n"
    "Examples:\n"
    "  softpick tokenize --text book.txt --out tokens\n"
    "  softpick tokenize --text articles/ notes.jsonl.zst --vocabulary 32k --out tokens\n"
    "  softpick tokenize --text new/ --tokenizer llama/tokenizer.model --out tokens\n"
    "  bible -f Gen1:1-Rev22:21 | softpick tokenize --text - --vocabulary 2048 --out tokens\n\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage, 3 a file is missing, damaged or no text.";

static error_t parse_tokenizer_option(int key, char *argument, struct argp_state *state) {
    settings *s = state->input;
    switch (key) {
    case OPTION_TOKENIZER: s->tokenizer = argument; return 0;
    case 'v': s->training.vocabulary = cli_count(state, "--vocabulary", argument, 260, 1 << 24); break;
    case OPTION_KIND: s->training.kind = argument; break;
    case OPTION_TRAIN_BYTES: s->training.n_bytes_max = cli_count(state, "--train-bytes", argument, 0, INT64_MAX); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    s->training_set = true;
    return 0;
}

static error_t parse_shard_option(int key, char *argument, struct argp_state *state) {
    settings *s = state->input;
    switch (key) {
    case OPTION_VALIDATION:
        s->writing.validation_fraction = cli_number(state, "--validation", argument, 0, 0.999999);
        return 0;
    case OPTION_DOCUMENT_BYTES:
        s->writing.document_bytes_max = cli_count(state, "--document-bytes", argument, 0, INT64_MAX);
        return 0;
    case OPTION_SHARD_TOKENS:
        s->writing.shard_tokens_max = cli_count(state, "--shard-tokens", argument, 1, (int64_t)1 << 40);
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static void check_usage(const settings *s, struct argp_state *state) {
    if (s->n_texts == 0) argp_error(state, "--text: no text was named");
    if (!s->out) argp_error(state, "--out: no folder was named");
    if (s->tokenizer && s->training_set)
        argp_error(state,
                   "--tokenizer: given, so there is nothing to train with --vocabulary, --kind or --train-bytes");
}

static error_t parse_option(int key, char *argument, struct argp_state *state) {
    settings *s = state->input;
    switch (key) {
    case 't':
    case ARGP_KEY_ARG: s->texts[s->n_texts++] = argument; return 0;
    case 'o': s->out = argument; return 0;
    case OPTION_THREADS: s->n_threads = cli_count(state, "--threads", argument, 0, 1024); return 0;
    case OPTION_FORCE: s->force = true; return 0;
    case OPTION_JSON: s->json = true; return 0;
    case 'q': s->quiet = true; return 0;
    case ARGP_KEY_END: check_usage(s, state); return 0;
    default: {
        error_t answer = parse_tokenizer_option(key, argument, state);
        return answer == ARGP_ERR_UNKNOWN ? parse_shard_option(key, argument, state) : answer;
    }
    }
}

/* ---- the work ---- */

static int silent(void *user, const char *what, int64_t done, int64_t total) {
    (void)user, (void)what, (void)done, (void)total;
    return cli_interrupted();
}

static sp_status refuse_overwriting(const settings *s) {
    static const char *const names[] = {"train-00000.tokens", "validation-00000.tokens", "tokenizer.model",
                                        "tokenizer.json"};
    char path[PATH_BYTES];
    for (size_t i = 0; i < sizeof names / sizeof *names && !s->force; i++) {
        SP_TRY(sp_path_join(path, sizeof path, s->out, names[i]));
        SP_REQUIRE(!sp_file_exists(path), SP_BAD_ARGUMENT, "%s: exists; --force replaces it", path);
    }
    return SP_OK;
}

/* A trained tokenizer lies under `trained` until the shards are written; the tokenizer gets its final name last, so that
 * a failure before leaves what was there. */
static sp_status write_all(const settings *s, const char *trained) {
    sp_tokenizer *tokenizer = NULL;
    sp_status status = SP_OK;
    if (!s->tokenizer) SP_TRY_OR_DONE(sp_tokenizer_train(trained, s->texts, s->n_texts, &s->training));
    SP_TRY_OR_DONE(sp_tokenizer_open(&tokenizer, s->tokenizer ? s->tokenizer : trained));
    SP_TRY_OR_DONE(sp_shards_write(s->out, tokenizer, s->texts, s->n_texts, &s->writing));
    SP_TRY_OR_DONE(sp_tokenizer_keep(tokenizer, s->out));
done:
    sp_tokenizer_free(tokenizer);
    unlink(trained);
    return status;
}

static sp_status tokenize(const settings *s) {
    char trained[PATH_BYTES], name[64];
    bool was_there = sp_folder_exists(s->out);
    SP_TRY(refuse_overwriting(s));
    SP_TRY(sp_folder_make(s->out));
    snprintf(name, sizeof name, ".tokenizer.tmp.%ld", (long)getpid());
    SP_TRY(sp_path_join(trained, sizeof trained, s->out, name));
    sp_status status = write_all(s, trained);
    if (status != SP_OK && !was_there) rmdir(s->out);
    return status;
}

/* ---- the result ---- */

typedef struct split_facts {
    int64_t n_tokens, n_documents, text_bytes;
} split_facts;

static sp_status read_facts(split_facts *facts, const char *folder, const char *split, int64_t *vocabulary) {
    sp_shards *shards;
    SP_TRY(sp_shards_open(&shards, folder, split));
    *facts = (split_facts){sp_shards_n_tokens(shards), sp_shards_n_documents(shards), sp_shards_text_bytes(shards)};
    *vocabulary = sp_shards_vocabulary(shards);
    sp_shards_close(shards);
    return SP_OK;
}

static json_t *split_json(const split_facts *facts) {
    return json_pack("{s:I, s:I, s:I, s:f}", "tokens", (json_int_t)facts->n_tokens, "documents",
                     (json_int_t)facts->n_documents, "text_bytes", (json_int_t)facts->text_bytes, "bytes_per_token",
                     (double)facts->text_bytes / (double)facts->n_tokens);
}

static sp_status print_json(const settings *s, const split_facts facts[2], int64_t vocabulary, double seconds) {
    json_t *json = json_pack("{s:s, s:s, s:{s:I, s:b}, s:o, s:o, s:f}", "schema", "softpick-tokenize/1", "folder",
                             s->out, "tokenizer", "vocabulary", (json_int_t)vocabulary, "trained", s->tokenizer == NULL,
                             "train", split_json(&facts[0]), "validation",
                             facts[1].n_tokens ? split_json(&facts[1]) : json_null(), "seconds", seconds);
    SP_REQUIRE(json, SP_OUT_OF_MEMORY, "no memory for the result");
    char *text;
    sp_status status = sp_json_format(&text, json, 0);
    json_decref(json);
    SP_TRY(status);
    puts(text);
    free(text);
    return SP_OK;
}

static void print_split(const char *name, const split_facts *facts) {
    printf("%-12s%" PRId64 " tokens, %" PRId64 " document%s, %" PRId64 " bytes of text (%.3f per token)\n", name,
           facts->n_tokens, facts->n_documents, facts->n_documents == 1 ? "" : "s", facts->text_bytes,
           (double)facts->text_bytes / (double)facts->n_tokens);
}

static sp_status print_result(const settings *s, double seconds) {
    split_facts facts[2] = {0};
    int64_t vocabulary;
    SP_TRY(read_facts(&facts[0], s->out, "train", &vocabulary));
    if (s->writing.validation_fraction > 0) SP_TRY(read_facts(&facts[1], s->out, "validation", &vocabulary));
    if (s->json) return print_json(s, facts, vocabulary, seconds);
    printf("%-12s%" PRId64 " pieces, %s\n", "tokenizer", vocabulary,
           s->tokenizer ? s->tokenizer : "trained on the text");
    print_split("train", &facts[0]);
    if (s->writing.validation_fraction > 0) print_split("validation", &facts[1]);
    printf("%-12s%s, in %.1f s (%.2f MB/s)\n", "written to", s->out, seconds,
           1e-6 * (double)(facts[0].text_bytes + facts[1].text_bytes) / seconds);
    return SP_OK;
}

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int cmd_tokenize(int argc, char **argv) {
    static const struct argp argp = {options, parse_option, "--text PATH... --out DIR", doc, NULL, NULL, NULL};
    settings s = {
        .texts = calloc((size_t)argc, sizeof *s.texts),
        .training = sp_tokenizer_train_options_default(),
        .writing = sp_shards_write_options_default(),
    };
    if (!s.texts) return CLI_FAILED;
    cli_parse(&argp, argc, argv, &s);
    cli_set_threads(s.n_threads);
    cli_catch_signals();
    s.training.progress = s.writing.progress = s.quiet ? silent : cli_progress;
    double start = seconds_now();
    sp_status status = tokenize(&s);
    if (status == SP_OK) status = print_result(&s, seconds_now() - start);
    free(s.texts);
    return status == SP_OK ? CLI_DONE : cli_fail(status);
}
