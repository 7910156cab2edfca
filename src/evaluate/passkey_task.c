/* The kind of task "passkey": the grid of accuracies over lengths of filler and depths of the key.
 *
 * Where the key's tokens must be generated exactly, generating is not needed: greedy decoding gives them if, and only if,
 * each is the most likely one after the prompt and those before it.  So all prompts of the grid are scored at once. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "evaluate/passkey.h"
#include "evaluate/task.h"

enum { ANSWER_TOKENS = 10, AUTOMATIC_LENGTHS = 5 };

/* One length's column has n_depths * n_trials prompts, depth by depth. */
typedef struct passkey_grid {
    const sp_evaluate_options *options;
    const sp_passkey_protocol *protocol;
    int64_t *lengths; /* characters of filler */
    int64_t n_lengths;
    int64_t n_depths; /* >= 1; with random_depths 1 */
    bool random_depths;
    int64_t n_trials;
    int64_t *right;        /* (n_lengths, n_depths): prompts answered rightly */
    double *prompt_tokens; /* (n_lengths): tokens of prompts, summed */
    bool *fits;            /* (n_lengths): no prompt, with its answer, is longer than the model sees */
    int64_t n_done;        /* prompts of columns that are done */
} passkey_grid;

static int64_t n_column(const passkey_grid *grid) { return grid->n_depths * grid->n_trials; }

/* `done` prompts of a column. */
static int report_progress(void *user, const char *what, int64_t done, int64_t total) {
    (void)what;
    (void)total;
    const passkey_grid *grid = user;
    const sp_evaluate_options *options = grid->options;
    if (!options->progress) return 0;
    return options->progress(options->progress_user, "passkey", grid->n_done + done, grid->n_lengths * n_column(grid));
}

static double depth_at(const passkey_grid *grid, int64_t i) {
    if (grid->random_depths) return -1;
    return grid->n_depths == 1 ? 0.5 : (double)i / (double)(grid->n_depths - 1);
}

/* A prompt in tokens, and after it the tokens of its answer. */
typedef struct passkey_trial {
    int32_t *tokens;
    int64_t n_prompt, n_answer;
    int64_t key;
} passkey_trial;

/* The answer is encoded by itself, and BOS dropped, as the script does. */
static sp_status make_trial(passkey_trial *trial, const sp_evaluation *evaluation, const passkey_grid *grid,
                            int64_t length, int64_t i) {
    char *prompt = NULL, answer[32];
    int32_t *question = NULL, *reply = NULL;
    int64_t n_question = 0, n_reply = 0;
    *trial = (passkey_trial){0};
    sp_status status;
    SP_TRY_OR_DONE(sp_passkey_prompt(&prompt, &trial->key, grid->protocol, length, i % grid->n_trials,
                                     depth_at(grid, i / grid->n_trials)));
    int n_answer = snprintf(answer, sizeof answer, "%lld", (long long)trial->key);
    const sp_tokenizer *tokenizer = evaluation->tokenizer;
    SP_TRY_OR_DONE(sp_tokenizer_encode_with(tokenizer, prompt, (int64_t)strlen(prompt), SP_ENCODE_TEMPLATE, &question,
                                            &n_question));
    SP_TRY_OR_DONE(sp_tokenizer_encode_with(tokenizer, answer, n_answer, SP_ENCODE_PLAIN, &reply, &n_reply));
    SP_TRY_OR_DONE(sp_allocate((void **)&trial->tokens, (n_question + n_reply) * (int64_t)sizeof *trial->tokens,
                               "tokens of a passkey prompt"));
    memcpy(trial->tokens, question, (size_t)n_question * sizeof *question);
    memcpy(trial->tokens + n_question, reply, (size_t)n_reply * sizeof *reply);
    trial->n_prompt = n_question;
    trial->n_answer = n_reply;
done:
    free(prompt);
    free(question);
    free(reply);
    return status;
}

static sp_status make_column(passkey_trial *trials, const sp_evaluation *evaluation, passkey_grid *grid,
                             int64_t column) {
    grid->fits[column] = true;
    grid->prompt_tokens[column] = 0;
    for (int64_t i = 0; i < n_column(grid); i++) {
        SP_TRY(make_trial(&trials[i], evaluation, grid, grid->lengths[column], i));
        int64_t n_reply = grid->protocol->first_number ? ANSWER_TOKENS : trials[i].n_answer;
        if (trials[i].n_prompt + n_reply - 1 > evaluation->max_length) grid->fits[column] = false;
        grid->prompt_tokens[column] += (double)trials[i].n_prompt;
    }
    return SP_OK;
}

/* ---- answers ---- */

static sp_status score_trials(bool *right, sp_evaluation *evaluation, passkey_grid *grid, const passkey_trial *trials,
                              int64_t n) {
    sp_score_item *items = NULL;
    SP_TRY(sp_allocate((void **)&items, n * (int64_t)sizeof *items, "passkey prompts to score"));
    for (int64_t i = 0; i < n; i++) {
        int64_t n_tokens = trials[i].n_prompt + trials[i].n_answer;
        items[i] = (sp_score_item){.tokens = trials[i].tokens, .n_tokens = n_tokens, .n_scored = trials[i].n_answer};
    }
    sp_score_options options = sp_score_options_default();
    options.batch_tokens = evaluation->options->batch_tokens;
    options.counts = &evaluation->counts;
    options.progress = report_progress;
    options.progress_user = grid;
    sp_status status = sp_score(evaluation->model, items, n, &options);
    for (int64_t i = 0; status == SP_OK && i < n; i++) right[i] = items[i].greedy;
    free(items);
    return status;
}

typedef struct generated_tokens {
    int32_t tokens[ANSWER_TOKENS];
    int64_t n;
} generated_tokens;

static int keep_token(void *user, int32_t token) {
    generated_tokens *generated = user;
    generated->tokens[generated->n++] = token;
    return 0;
}

static sp_status generate_trials(bool *right, sp_evaluation *evaluation, passkey_grid *grid,
                                 const passkey_trial *trials, int64_t n) {
    sp_sampling sampling = sp_sampling_default();
    sampling.temperature = 0;
    for (int64_t i = 0; i < n; i++) {
        generated_tokens generated = {.n = 0};
        char *text;
        int64_t n_text;
        SP_TRY(sp_generate(evaluation->model, trials[i].tokens, trials[i].n_prompt, ANSWER_TOKENS, &sampling,
                           keep_token, &generated));
        SP_TRY(sp_tokenizer_decode(evaluation->tokenizer, generated.tokens, generated.n, &text, &n_text));
        right[i] = sp_passkey_found(text, trials[i].key);
        free(text);
        SP_REQUIRE(report_progress(grid, "passkey", i + 1, n) == 0, SP_CANCELLED, "passkey was stopped");
    }
    return SP_OK;
}

static sp_status run_column(sp_evaluation *evaluation, passkey_grid *grid, int64_t column) {
    int64_t n = n_column(grid);
    passkey_trial *trials = NULL;
    bool *right = NULL;
    sp_status status;
    SP_TRY_OR_DONE(sp_allocate((void **)&trials, n * (int64_t)sizeof *trials, "passkey prompts"));
    SP_TRY_OR_DONE(sp_allocate((void **)&right, n * (int64_t)sizeof *right, "passkey answers"));
    SP_TRY_OR_DONE(make_column(trials, evaluation, grid, column));
    if (!grid->fits[column]) goto done;
    SP_TRY_OR_DONE((grid->protocol->first_number ? generate_trials : score_trials)(right, evaluation, grid, trials, n));
    for (int64_t i = 0; i < n; i++) grid->right[column * grid->n_depths + i / grid->n_trials] += right[i];
done:
    for (int64_t i = 0; trials && i < n; i++) free(trials[i].tokens);
    free(trials);
    free(right);
    return status;
}

/* ---- the grid ---- */

/* Lengths asked for; else the protocol's, if the model sees enough for the shortest; else even parts of what it sees. */
static sp_status choose_lengths(passkey_grid *grid, const sp_evaluation *evaluation) {
    const sp_passkey_options *options = &evaluation->options->passkey;
    const int64_t *lengths = options->n_lengths ? options->lengths : grid->protocol->lengths;
    grid->n_lengths = options->n_lengths ? options->n_lengths : grid->protocol->n_lengths;
    int64_t automatic[AUTOMATIC_LENGTHS];
    passkey_trial empty = {0}, shortest = {0};
    sp_status status;
    SP_TRY_OR_DONE(make_trial(&empty, evaluation, grid, 0, 0));
    SP_TRY_OR_DONE(make_trial(&shortest, evaluation, grid, lengths[0] > 1000 ? lengths[0] : 1000, 0));
    int64_t room = evaluation->max_length - empty.n_prompt - 2 * ANSWER_TOKENS;
    SP_REQUIRE_OR_DONE(room > 0, SP_BAD_ARGUMENT,
                       "passkey: a prompt without filler has %lld tokens, the model sees %lld",
                       (long long)empty.n_prompt, (long long)evaluation->max_length);
    if (!options->n_lengths && shortest.n_prompt + ANSWER_TOKENS > evaluation->max_length) {
        double characters =
            (double)(lengths[0] > 1000 ? lengths[0] : 1000) / (double)(shortest.n_prompt - empty.n_prompt);
        for (int64_t i = 0; i < AUTOMATIC_LENGTHS; i++)
            automatic[i] = (int64_t)(characters * (double)(room * (i + 1)) / AUTOMATIC_LENGTHS);
        lengths = automatic;
        grid->n_lengths = AUTOMATIC_LENGTHS;
    }
    SP_TRY_OR_DONE(sp_allocate((void **)&grid->lengths, grid->n_lengths * (int64_t)sizeof *grid->lengths, "lengths"));
    memcpy(grid->lengths, lengths, (size_t)grid->n_lengths * sizeof *lengths);
done:
    free(empty.tokens);
    free(shortest.tokens);
    return status;
}

static sp_status make_grid(passkey_grid *grid, const sp_evaluation *evaluation) {
    const sp_passkey_options *options = &evaluation->options->passkey;
    grid->options = evaluation->options;
    SP_TRY(sp_passkey_protocol_find(&grid->protocol, options->protocol));
    SP_REQUIRE(options->n_depths >= 0 && options->n_trials >= 1, SP_BAD_ARGUMENT,
               "passkey: %lld depths and %lld trials, not at least 0 and 1", (long long)options->n_depths,
               (long long)options->n_trials);
    for (int64_t i = 0; i < options->n_lengths; i++)
        SP_REQUIRE(options->lengths[i] >= 0 && options->lengths[i] <= 100000000, SP_BAD_ARGUMENT,
                   "passkey: a length of %lld characters", (long long)options->lengths[i]);
    grid->random_depths = options->n_depths == 0;
    grid->n_depths = grid->random_depths ? 1 : options->n_depths;
    grid->n_trials = options->n_trials;
    SP_TRY(choose_lengths(grid, evaluation));
    int64_t n = grid->n_lengths;
    SP_TRY(sp_allocate((void **)&grid->right, n * grid->n_depths * (int64_t)sizeof *grid->right, "passkey counts"));
    SP_TRY(sp_allocate((void **)&grid->prompt_tokens, n * (int64_t)sizeof *grid->prompt_tokens, "prompt tokens"));
    return sp_allocate((void **)&grid->fits, n * (int64_t)sizeof *grid->fits, "lengths that fit");
}

static void free_grid(passkey_grid *grid) {
    free(grid->lengths);
    free(grid->right);
    free(grid->prompt_tokens);
    free(grid->fits);
}

static sp_status run_grid(sp_evaluation *evaluation, passkey_grid *grid) {
    for (int64_t i = 0; i < grid->n_lengths; i++) {
        SP_TRY(run_column(evaluation, grid, i));
        grid->n_done += n_column(grid);
    }
    return SP_OK;
}

/* ---- results ---- */

/* accuracy and intervals: a row for each depth, a column for each length; null where the model does not see enough. */
static json_t *describe_grid(const passkey_grid *grid) {
    json_t *lengths = json_array(), *tokens = json_array(), *depths = json_array(), *rows = json_array(),
           *intervals = json_array();
    for (int64_t i = 0; i < grid->n_lengths; i++) {
        json_array_append_new(lengths, json_integer(grid->lengths[i]));
        json_array_append_new(tokens, json_integer(llround(grid->prompt_tokens[i] / (double)n_column(grid))));
    }
    for (int64_t d = 0; d < grid->n_depths; d++) {
        json_t *row = json_array(), *bounds = json_array();
        json_array_append_new(depths, grid->random_depths ? json_string("random") : json_real(depth_at(grid, d)));
        for (int64_t i = 0; i < grid->n_lengths; i++) {
            int64_t right = grid->right[i * grid->n_depths + d];
            double low, high;
            sp_wilson_interval(&low, &high, right, grid->n_trials);
            bool fits = grid->fits[i];
            json_array_append_new(row, fits ? json_real((double)right / (double)grid->n_trials) : json_null());
            json_array_append_new(bounds, fits ? json_pack("[f, f]", low, high) : json_null());
        }
        json_array_append_new(rows, row);
        json_array_append_new(intervals, bounds);
    }
    return json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:I}", "protocol", grid->protocol->name, "lengths", tokens,
                     "filler_characters", lengths, "depths", depths, "accuracy", rows, "intervals", intervals, "n",
                     (json_int_t)grid->n_trials);
}

static sp_status describe_outcome(sp_task_outcome *outcome, const passkey_grid *grid) {
    int64_t n = 0, right = 0;
    for (int64_t i = 0; i < grid->n_lengths; i++) {
        if (!grid->fits[i]) continue;
        n += n_column(grid);
        for (int64_t d = 0; d < grid->n_depths; d++) right += grid->right[i * grid->n_depths + d];
    }
    SP_REQUIRE(n > 0, SP_BAD_ARGUMENT, "passkey: the model sees too few tokens for every length");
    double share = (double)right / (double)n;
    json_t *error = n > 1 ? json_real(sqrt(share * (1 - share) / (double)(n - 1))) : json_string("N/A");
    outcome->metrics = json_pack("{s:f, s:o}", "acc,none", share, "acc_stderr,none", error);
    outcome->extra = describe_grid(grid);
    SP_REQUIRE(outcome->metrics && outcome->extra, SP_OUT_OF_MEMORY, "no memory for the results of passkey");
    outcome->n_original = grid->n_lengths * n_column(grid);
    outcome->n_effective = n;
    return SP_OK;
}

static sp_status run_passkey(sp_task_outcome *outcome, sp_evaluation *evaluation, const sp_task *task) {
    (void)task;
    passkey_grid grid = {0};
    sp_status status;
    SP_TRY_OR_DONE(make_grid(&grid, evaluation));
    SP_TRY_OR_DONE(run_grid(evaluation, &grid));
    status = describe_outcome(outcome, &grid);
done:
    free_grid(&grid);
    return status;
}

const sp_task_kind sp_task_kind_passkey = {.name = "passkey", .output_type = "generate_until", .run = run_passkey};
