/* softpick generate: continues a prompt, printing the text as it comes. */
#define _GNU_SOURCE
#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "cli/open_model.h"
#include "cli/placement.h"
#include "softpick/model.h"
#include "softpick/text.h"

typedef struct generate_arguments {
    const char *model, *prompt; /* prompt "-": standard input */
    const char *attention;      /* NULL: what the config says */
    const char *tokenizer;      /* NULL: the model's */
    int32_t device;
    bool has_dtype;
    sp_dtype dtype;
    int64_t n_threads, n_tokens, n_samples;
    bool json;
    sp_sampling sampling;
} generate_arguments;

enum {
    KEY_PROMPT = 256,
    KEY_TOKENS,
    KEY_SAMPLES,
    KEY_TEMPERATURE,
    KEY_TOP_K,
    KEY_TOP_P,
    KEY_SEED,
    KEY_ATTENTION,
    KEY_TOKENIZER,
    KEY_DEVICE,
    KEY_DTYPE,
    KEY_THREADS,
    KEY_JSON
};

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "What is written:", 1},
    {"prompt", KEY_PROMPT, "TEXT", 0,
     "text to continue; \"-\": standard input, less one newline at its end (default: nothing, the model begins)", 0},
    {"tokens", KEY_TOKENS, "N", 0, "new tokens at most (default 200); an end-of-text token stops earlier", 0},
    {"samples", KEY_SAMPLES, "N", 0, "continuations, with seeds SEED, SEED + 1, ... (default 1)", 0},
    {NULL, 0, NULL, 0, "Sampling:", 2},
    {"temperature", KEY_TEMPERATURE, "X", 0, "0: always the most likely token (default 0.8)", 0},
    {"top-k", KEY_TOP_K, "N", 0, "among the N most likely tokens; 0: all (default)", 0},
    {"top-p", KEY_TOP_P, "X", 0, "among the most likely tokens that hold a share X of the probability (default 0.95)",
     0},
    {"seed", KEY_SEED, "N", 0, "the same seed gives the same text (default 0)", 0},
    {NULL, 0, NULL, 0, "How:", 3},
    {"attention", KEY_ATTENTION, "NAME", 0, CLI_ATTENTION_HELP, 0},
    {"tokenizer", KEY_TOKENIZER, "PATH", 0, "the tokenizer's file, or a folder with one (default: the model's)", 0},
    {"device", KEY_DEVICE, "NAME", 0, CLI_DEVICE_HELP " (default cpu)", 0},
    {"dtype", KEY_DTYPE, "TYPE", 0, "f32 (default on the CPU) or bf16 (alone on a GPU): numbers of the forward pass",
     0},
    {"threads", KEY_THREADS, "N", 0, "threads (default: all processors)", 0},
    {"json", KEY_JSON, NULL, 0, "print one JSON document at the end instead of text as it comes", 0},
    {NULL, 0, NULL, 0, "Help:", -1},
    {0},
};

static error_t parse_option(int key, char *value, struct argp_state *state) {
    generate_arguments *arguments = state->input;
    sp_sampling *sampling = &arguments->sampling;
    switch (key) {
    case KEY_PROMPT: arguments->prompt = value; break;
    case KEY_TOKENS: arguments->n_tokens = cli_count(state, "--tokens", value, 1, 1 << 24); break;
    case KEY_SAMPLES: arguments->n_samples = cli_count(state, "--samples", value, 1, 1 << 24); break;
    case KEY_TEMPERATURE: sampling->temperature = cli_number(state, "--temperature", value, 0, 100); break;
    case KEY_TOP_K: sampling->top_k = cli_count(state, "--top-k", value, 0, INT32_MAX); break;
    case KEY_TOP_P: sampling->top_p = cli_number(state, "--top-p", value, 1e-6, 1); break;
    case KEY_SEED: sampling->seed = (uint64_t)cli_count(state, "--seed", value, 0, INT64_MAX); break;
    case KEY_ATTENTION: arguments->attention = value; break;
    case KEY_TOKENIZER: arguments->tokenizer = value; break;
    case KEY_DEVICE: arguments->device = cli_device(state, "--device", value); break;
    case KEY_DTYPE:
        arguments->dtype = cli_dtype(state, "--dtype", value);
        arguments->has_dtype = true;
        break;
    case KEY_THREADS: arguments->n_threads = cli_count(state, "--threads", value, 1, 1 << 16); break;
    case KEY_JSON: arguments->json = true; break;
    case ARGP_KEY_ARG:
        if (arguments->model) argp_error(state, "\"%s\": one model at a time; a prompt goes after --prompt", value);
        arguments->model = value;
        break;
    case ARGP_KEY_END:
        if (!arguments->model) argp_error(state, "which model? give its folder");
        if (!arguments->has_dtype) arguments->dtype = cli_dtype_default(arguments->device);
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp parser = {
    .options = options,
    .parser = parse_option,
    .args_doc = "MODEL",
    .doc =
        "Continues a prompt with a model and prints prompt and continuation as they come.  MODEL is a checkpoint "
        "folder with a tokenizer, a GGUF file, a model of llama2.c, or a run folder, of which the newest checkpoint is "
        "taken."
        "\vExamples:\n"
        "  softpick generate runs/softpick --prompt \"In the beginning\"\n"
        "  softpick generate runs/softpick --prompt - --temperature 0 < prompt.txt\n"
        "  softpick generate runs/softpick --samples 3 --seed 7 --top-k 40 --json\n\n"
        "Exit status: 0 done, 1 failed, 2 wrong usage, 3 a file is missing, damaged or of the wrong kind.",
};

/* ---- one continuation ------------------------------------------------------------------------------------------ */

/* Text as it grows, in whole characters. */
typedef struct text_writer {
    const sp_tokenizer *tokenizer;
    sp_decoder *decoder;
    int32_t *tokens; /* prompt (without BOS), then what is generated */
    int64_t n, n_prompt;
    char *text; /* of all tokens */
    int64_t n_bytes, capacity;
    bool silent; /* nothing is printed */
    sp_status status;
} text_writer;

static sp_status writer_add(text_writer *writer, const char *text, int64_t n_bytes) {
    if (writer->n_bytes + n_bytes > writer->capacity) {
        int64_t capacity = 2 * (writer->n_bytes + n_bytes);
        char *grown = realloc(writer->text, (size_t)capacity);
        SP_REQUIRE(grown, SP_OUT_OF_MEMORY, "no memory for the text");
        writer->text = grown;
        writer->capacity = capacity;
    }
    if (n_bytes == 0) return SP_OK;
    memcpy(writer->text + writer->n_bytes, text, (size_t)n_bytes);
    writer->n_bytes += n_bytes;
    if (writer->silent) return SP_OK;
    fwrite(text, 1, (size_t)n_bytes, stdout);
    fflush(stdout);
    return SP_OK;
}

static sp_status writer_push(text_writer *writer, int32_t token) {
    const char *text;
    int64_t n_bytes;
    SP_TRY(sp_decoder_push(writer->decoder, token, &text, &n_bytes));
    return writer_add(writer, text, n_bytes);
}

static int add_token(void *user, int32_t token) {
    text_writer *writer = user;
    writer->tokens[writer->n++] = token;
    writer->status = writer_push(writer, token);
    return writer->status != SP_OK || cli_interrupted();
}

static sp_status continue_prompt(text_writer *writer, sp_model *model, const int32_t *prompt, int64_t n_prompt,
                                 int64_t n_tokens, const sp_sampling *sampling) {
    writer->n = writer->n_prompt;
    writer->n_bytes = 0;
    for (int64_t i = 0; i < writer->n_prompt; i++) SP_TRY(writer_push(writer, writer->tokens[i]));
    SP_TRY(sp_generate(model, prompt, n_prompt, n_tokens, sampling, add_token, writer));
    SP_TRY(writer->status);
    const char *text;
    int64_t n_bytes;
    SP_TRY(sp_decoder_finish(writer->decoder, &text, &n_bytes));
    return writer_add(writer, text, n_bytes);
}

/* ---- the command ----------------------------------------------------------------------------------------------- */

/* The prompt's text; caller frees. */
static sp_status read_prompt(char **text, const char *prompt) {
    *text = NULL;
    size_t capacity = 0;
    ssize_t n = 0;
    if (prompt && strcmp(prompt, "-") == 0) {
        n = getdelim(text, &capacity, EOF, stdin);
        SP_REQUIRE(!ferror(stdin), SP_IO, "standard input: cannot be read");
        if (n > 0 && (*text)[n - 1] == '\n') (*text)[--n] = '\0';
        SP_REQUIRE(n <= 0 || strlen(*text) == (size_t)n, SP_BAD_FILE, "standard input: holds a zero byte");
    }
    if (!*text || n <= 0) {
        free(*text);
        *text = strdup(prompt && strcmp(prompt, "-") != 0 ? prompt : "");
    }
    SP_REQUIRE(*text, SP_OUT_OF_MEMORY, "no memory for the prompt");
    return SP_OK;
}

typedef struct generate_run {
    sp_model *model;
    sp_tokenizer *tokenizer;
    char *folder, *text;     /* the checkpoint's; the prompt's */
    int32_t *tokens;         /* BOS, where the model has one, and the prompt's tokens */
    int64_t n, n_bos, n_new; /* tokens before; of them BOS; new ones at most */
    text_writer writer;
} generate_run;

static void generation_close(generate_run *generation) {
    sp_model_free(generation->model);
    sp_tokenizer_free(generation->tokenizer);
    free(generation->folder);
    free(generation->text);
    free(generation->tokens);
    free(generation->writer.tokens);
    free(generation->writer.text);
    sp_decoder_free(generation->writer.decoder);
}

/* The prompt's tokens after BOS, and room for the new ones. */
static sp_status encode_prompt(generate_run *generation, int64_t n_new) {
    const sp_model_config *config = sp_model_config_of(generation->model);
    int32_t *tokens;
    int64_t n, n_bos = config->bos >= 0;
    SP_TRY(
        sp_tokenizer_encode(generation->tokenizer, generation->text, (int64_t)strlen(generation->text), &tokens, &n));
    sp_status status = SP_OK;
    SP_REQUIRE_OR_DONE(n + n_bos > 0, SP_BAD_ARGUMENT, "--prompt is empty, and the model has no token to begin with");
    int64_t room = config->max_positions - n - n_bos;
    SP_REQUIRE_OR_DONE(room > 0, SP_BAD_ARGUMENT,
                       "--prompt has %" PRId64 " tokens: the model's positions end at %" PRId64, n + n_bos,
                       config->max_positions);
    generation->n = n + n_bos;
    generation->n_bos = n_bos;
    generation->n_new = n_new < room ? n_new : room;
    SP_TRY_OR_DONE(sp_allocate((void **)&generation->tokens, generation->n * (int64_t)sizeof *tokens, "prompt"));
    int64_t bytes = (n + generation->n_new) * (int64_t)sizeof *tokens;
    SP_TRY_OR_DONE(sp_allocate((void **)&generation->writer.tokens, bytes, "tokens"));
    if (n_bos) generation->tokens[0] = config->bos;
    for (int64_t i = 0; i < n; i++) generation->tokens[n_bos + i] = generation->writer.tokens[i] = tokens[i];
    generation->writer.n_prompt = n;
    generation->writer.tokenizer = generation->tokenizer;
    status = sp_decoder_new(&generation->writer.decoder, generation->tokenizer, true);
done:
    free(tokens);
    return status;
}

static sp_status generation_open(generate_run *generation, const generate_arguments *arguments) {
    sp_model_options how = sp_model_options_default();
    how.device = arguments->device;
    how.dtype = arguments->dtype;
    how.attention = arguments->attention;
    SP_TRY(cli_open_model_with(&generation->model, arguments->model, &how, &generation->folder));
    SP_TRY(cli_open_tokenizer(&generation->tokenizer, arguments->tokenizer, generation->folder));
    int64_t V = sp_tokenizer_vocabulary(generation->tokenizer);
    int64_t model_V = sp_model_config_of(generation->model)->vocabulary;
    SP_REQUIRE(V <= model_V, SP_BAD_FILE, "%s: the tokenizer has %" PRId64 " tokens, the model %" PRId64,
               generation->folder, V, model_V);
    SP_TRY(read_prompt(&generation->text, arguments->prompt));
    SP_TRY(encode_prompt(generation, arguments->n_tokens));
    generation->writer.silent = arguments->json;
    if (generation->n_new < arguments->n_tokens)
        fprintf(stderr, "at most %" PRId64 " new tokens: there the model's positions end\n", generation->n_new);
    return SP_OK;
}

/* {seed, tokens, text}: the text that follows the prompt. */
static sp_status add_sample(json_t *samples, const text_writer *writer, uint64_t seed) {
    char *prompt;
    int64_t n_prompt;
    SP_TRY(sp_tokenizer_decode(writer->tokenizer, writer->tokens, writer->n_prompt, &prompt, &n_prompt));
    free(prompt);
    json_t *sample =
        json_pack("{s:I, s:I, s:s%}", "seed", (json_int_t)seed, "tokens", (json_int_t)(writer->n - writer->n_prompt),
                  "text", writer->text + n_prompt, (size_t)(writer->n_bytes - n_prompt));
    SP_REQUIRE(json_array_append_new(samples, sample) == 0, SP_INTERNAL, "a sample is not UTF-8");
    return SP_OK;
}

static sp_status generate_samples(generate_run *generation, const generate_arguments *arguments, json_t *samples) {
    sp_sampling sampling = arguments->sampling;
    text_writer *writer = &generation->writer;
    for (int64_t i = 0; i < arguments->n_samples && !cli_interrupted(); i++, sampling.seed++) {
        if (!arguments->json && arguments->n_samples > 1)
            printf("--- sample %" PRId64 ", seed %" PRIu64 "\n", i + 1, sampling.seed);
        SP_TRY(continue_prompt(writer, generation->model, generation->tokens, generation->n, generation->n_new,
                               &sampling));
        if (!arguments->json) putchar('\n');
        if (arguments->json) SP_TRY(add_sample(samples, writer, sampling.seed));
    }
    return SP_OK;
}

static sp_status print_json(const generate_run *generation, json_t *samples) {
    json_t *document = json_pack("{s:s, s:s, s:s, s:O}", "schema", "softpick-generate/1", "model", generation->folder,
                                 "prompt", generation->text, "samples", samples);
    SP_REQUIRE(document, SP_BAD_ARGUMENT, "--prompt or \"%s\" is not UTF-8", generation->folder);
    char *text;
    sp_status status = sp_json_format(&text, document, 0);
    json_decref(document);
    SP_TRY(status);
    puts(text);
    free(text);
    return SP_OK;
}

int cmd_generate(int argc, char **argv) {
    generate_arguments arguments = {.n_tokens = 200, .n_samples = 1, .sampling = sp_sampling_default()};
    cli_parse(&parser, argc, argv, &arguments);
    cli_set_threads(arguments.n_threads);
    cli_catch_signals();

    generate_run generation = {0};
    json_t *samples = json_array();
    sp_status status = generation_open(&generation, &arguments);
    if (status == SP_OK) status = generate_samples(&generation, &arguments, samples);
    if (status == SP_OK && arguments.json) status = print_json(&generation, samples);
    json_decref(samples);
    generation_close(&generation);
    return status == SP_OK ? CLI_DONE : cli_fail(status);
}
