/* The options of training: one table, read by the command line and its help (sp_train_option_at), by the
 * check of ranges, by the log and by the comparison on resume.  A new option is a field of sp_train_options
 * and a row here. */
#include "train/options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/schedule.h"

typedef enum option_kind {
    OPTION_COUNT,  /* int64_t, or uint64_t up to 2^53 */
    OPTION_NUMBER, /* double */
    OPTION_PACKING,
    OPTION_SCHEDULE,
    OPTION_TEXT, /* const char *, may be NULL */
    OPTION_SWITCH,
} option_kind;

/* Whether a resumed run must have the same value. */
typedef enum option_bond {
    OPTION_FREE,  /* how long, when to look, what to keep */
    OPTION_BOUND, /* every step depends on it */
    OPTION_RATE,  /* bound as far as the learning rates of the steps done depend on it */
} option_bond;

typedef struct option {
    option_kind kind;
    option_bond bond;
    size_t offset;
    double min, max; /* of counts and numbers, inclusive */
    sp_train_option shown;
} option;

#define FIELD(name) offsetof(sp_train_options, name)
#define READ        "What is read:"
#define LENGTH      "How long (whichever limit comes first; 0: no such limit):"
#define RATE        "Learning rate:"
#define ADAMW       "AdamW (default: the settings of the paper's code):"
#define NOW         "Now and then (in steps; 0: never, but validation and a checkpoint end every run):"

static const double count_max = 9007199254740992; /* 2^53: what a double, and so every JSON reader, can hold */

/* A limit on B, T and n_accumulate that keeps their product within 2^52. */
enum { BATCH_MAX = 1 << 16, LENGTH_MAX = 1 << 20 };

/* clang-format off: one option, two lines */
static const option options_table[] = {
    {OPTION_COUNT, OPTION_BOUND, FIELD(B), 1, BATCH_MAX, {"batch", "B", "sequences per micro-batch", READ}},
    {OPTION_COUNT, OPTION_BOUND, FIELD(T), 2, LENGTH_MAX, {"length", "T", "tokens per sequence", READ}},
    {OPTION_COUNT,
     OPTION_BOUND,
     FIELD(n_accumulate),
     1,
     BATCH_MAX,
     {"accumulate", "N", "micro-batches per step; their gradients are added up", READ}},
    {OPTION_PACKING,
     OPTION_BOUND,
     FIELD(packing),
     0,
     0,
     {"packing", "NAME", "how sequences are cut: bos, concatenate or documents", READ}},
    {OPTION_COUNT,
     OPTION_BOUND,
     FIELD(seed),
     0,
     count_max,
     {"seed", "N", "of initial weights, of the order of the text, of samples", READ}},

    {OPTION_COUNT, OPTION_RATE, FIELD(n_steps), 0, 1e12, {"steps", "N", "steps in all", LENGTH}},
    {OPTION_COUNT, OPTION_RATE, FIELD(n_tokens), 0, 1e15, {"tokens", "N", "tokens in all", LENGTH}},
    {OPTION_NUMBER, OPTION_FREE, FIELD(minutes), 0, 1e7, {"minutes", "X", "minutes of this process", LENGTH}},

    {OPTION_NUMBER, OPTION_BOUND, FIELD(learning_rate), 0, 10, {"learning-rate", "X", "the highest rate", RATE}},
    {OPTION_NUMBER,
     OPTION_RATE,
     FIELD(rate_floor),
     0,
     1,
     {"rate-floor", "X", "the last rate as a share of the highest", RATE}},
    {OPTION_SCHEDULE,
     OPTION_RATE,
     FIELD(schedule),
     0,
     0,
     {"schedule", "NAME", "cosine, linear, wsd (warm-up, stable, decay) or constant", RATE}},
    {OPTION_COUNT,
     OPTION_RATE,
     FIELD(warmup_steps),
     -1,
     1e12,
     {"warmup", "N", "steps of warm-up; -1: a tenth of the steps, at most 100", RATE}},
    {OPTION_NUMBER,
     OPTION_RATE,
     FIELD(decay_fraction),
     0,
     1,
     {"decay-fraction", "X", "wsd: the share of the steps that decays", RATE}},

    {OPTION_NUMBER, OPTION_BOUND, FIELD(beta1), 0, 0.999999, {"beta1", "X", "decay of the mean of gradients", ADAMW}},
    {OPTION_NUMBER, OPTION_BOUND, FIELD(beta2), 0, 0.999999, {"beta2", "X", "decay of the mean of squares", ADAMW}},
    {OPTION_NUMBER,
     OPTION_BOUND,
     FIELD(weight_decay),
     0,
     10,
     {"weight-decay", "X", "on all parameters, times the rate", ADAMW}},
    {OPTION_NUMBER,
     OPTION_BOUND,
     FIELD(adam_eps),
     0,
     1,
     {"adam-eps", "X", "added to the root of the mean of squares", ADAMW}},
    {OPTION_NUMBER,
     OPTION_BOUND,
     FIELD(clip_norm),
     0,
     1e6,
     {"clip", "X", "longest gradient, by its global norm; 0: none", ADAMW}},

    {OPTION_COUNT,
     OPTION_FREE,
     FIELD(validate_every),
     0,
     1e12,
     {"validate-every", "N", "measure the validation loss", NOW}},
    {OPTION_COUNT,
     OPTION_FREE,
     FIELD(validation_tokens_max),
     0,
     1e15,
     {"validation-tokens", "N", "tokens of the held-out text used for it; 0: all", NOW}},
    {OPTION_COUNT, OPTION_FREE, FIELD(sample_every), 0, 1e12, {"sample-every", "N", "write a sample of text", NOW}},
    {OPTION_TEXT, OPTION_FREE, FIELD(sample_prompt), 0, 0, {"sample-prompt", "TEXT", "what samples begin with", NOW}},
    {OPTION_COUNT, OPTION_FREE, FIELD(checkpoint_every), 0, 1e12, {"checkpoint-every", "N", "save a checkpoint", NOW}},
    {OPTION_COUNT, OPTION_FREE, FIELD(keep), 1, 1e6, {"keep", "N", "checkpoints kept", NOW}},
    {OPTION_COUNT, OPTION_FREE, FIELD(log_every), 0, 1e12, {"log-every", "N", "add a line to log.jsonl", NOW}},
    {OPTION_SWITCH,
     OPTION_FREE,
     FIELD(resume),
     0,
     0,
     {"resume", NULL, "go on, exactly, from the newest checkpoint of the run", NOW}},
};
/* clang-format on */
enum { N_OPTIONS = sizeof options_table / sizeof *options_table };

sp_train_options sp_train_options_default(void) {
    return (sp_train_options){
        .struct_bytes = sizeof(sp_train_options),
        .B = 4,
        .T = 512,
        .n_accumulate = 1,
        .packing = SP_PACKING_BOS,
        .seed = 1,
        .n_steps = 1000,
        .learning_rate = 3e-4,
        .rate_floor = 0.1,
        .schedule = SP_SCHEDULE_COSINE,
        .warmup_steps = -1,
        .decay_fraction = 0.2,
        .beta1 = 0.9,
        .beta2 = 0.95,
        .weight_decay = 0.1,
        .adam_eps = 1e-15,
        .clip_norm = 1,
        .validate_every = 100,
        .validation_tokens_max = 200000,
        .sample_every = 0,
        .checkpoint_every = 500,
        .log_every = 1,
        .keep = 2,
    };
}

const sp_train_option *sp_train_option_at(int i) { return i >= 0 && i < N_OPTIONS ? &options_table[i].shown : NULL; }

static const option *find_option(const char *name) {
    for (int i = 0; i < N_OPTIONS; i++)
        if (strcmp(options_table[i].shown.name, name) == 0) return &options_table[i];
    return NULL;
}

static void *field_of(sp_train_options *options, const option *row) { return (char *)options + row->offset; }
static const void *field_in(const sp_train_options *options, const option *row) {
    return (const char *)options + row->offset;
}

/* ---- text -> value ---- */

static sp_status parse_count(int64_t *out, const option *row, const char *text) {
    static const struct {
        const char *suffix;
        int64_t factor;
    } units[] = {{"", 1}, {"k", 1000}, {"K", 1000}, {"M", 1000000}, {"G", 1000000000}};
    char *end;
    errno = 0;
    int64_t value = strtoll(text, &end, 10);
    for (size_t i = 0; end != text && i < sizeof units / sizeof *units; i++) {
        if (strcmp(end, units[i].suffix) != 0) continue;
        bool fits = errno == 0 && !__builtin_mul_overflow(value, units[i].factor, out);
        SP_REQUIRE(fits, SP_BAD_ARGUMENT, "%s: %s is too large", row->shown.name, text);
        return SP_OK;
    }
    return sp_fail(SP_BAD_ARGUMENT, "%s: \"%s\" is not a whole number (k, M and G may follow it)", row->shown.name,
                   text);
}

static sp_status parse_number(double *out, const option *row, const char *text) {
    char *end;
    *out = strtod(text, &end);
    SP_REQUIRE(end != text && *end == 0, SP_BAD_ARGUMENT, "%s: \"%s\" is not a number", row->shown.name, text);
    return SP_OK;
}

static sp_status parse_switch(bool *out, const option *row, const char *text) {
    bool yes = strcmp(text, "yes") == 0;
    SP_REQUIRE(yes || strcmp(text, "no") == 0, SP_BAD_ARGUMENT, "%s: \"%s\" is not yes or no", row->shown.name, text);
    *out = yes;
    return SP_OK;
}

static sp_status parse_value(void *field, const option *row, const char *text) {
    switch (row->kind) {
    case OPTION_COUNT: return parse_count(field, row, text);
    case OPTION_NUMBER: return parse_number(field, row, text);
    case OPTION_PACKING: return sp_packing_find(field, text);
    case OPTION_SCHEDULE: return sp_schedule_find(field, text);
    case OPTION_SWITCH: return parse_switch(field, row, text);
    case OPTION_TEXT: *(const char **)field = text; return SP_OK;
    }
    return sp_fail(SP_INTERNAL, "%s: an option of no kind", row->shown.name);
}

static sp_status check_range(const sp_train_options *options, const option *row) {
    const void *field = field_in(options, row);
    double value = row->min;
    if (row->kind == OPTION_COUNT) value = (double)*(const int64_t *)field;
    if (row->kind == OPTION_NUMBER) value = *(const double *)field;
    SP_REQUIRE(value >= row->min && value <= row->max, SP_BAD_ARGUMENT, "%s: %.12g is not between %.12g and %.12g",
               row->shown.name, value, row->min, row->max);
    return SP_OK;
}

sp_status sp_train_option_set(sp_train_options *options, const char *name, const char *text) {
    const option *row = find_option(name);
    SP_REQUIRE(row, SP_BAD_ARGUMENT, "\"%s\" is not an option of training", name);
    sp_train_options changed = *options;
    SP_TRY(parse_value(field_of(&changed, row), row, text));
    SP_TRY(check_range(&changed, row));
    *options = changed;
    return SP_OK;
}

/* ---- value -> text and JSON ---- */

static json_t *format_value(const sp_train_options *options, const option *row) {
    const void *field = field_in(options, row);
    switch (row->kind) {
    case OPTION_COUNT: return json_integer(*(const int64_t *)field);
    case OPTION_NUMBER: return sp_json_number(*(const double *)field);
    case OPTION_PACKING: return json_string(sp_packing_name(*(const sp_packing *)field));
    case OPTION_SCHEDULE: return json_string(sp_schedule_name(*(const sp_schedule *)field));
    case OPTION_SWITCH: return json_boolean(*(const bool *)field);
    case OPTION_TEXT: {
        const char *text = *(const char *const *)field;
        return text ? json_string(text) : json_null();
    }
    }
    return NULL;
}

/* As sp_train_option_set reads it; null: an empty text. */
static void print_value(char *out, int64_t out_bytes, const json_t *value) {
    if (json_is_string(value))
        snprintf(out, (size_t)out_bytes, "%s", json_string_value(value));
    else if (json_is_real(value))
        snprintf(out, (size_t)out_bytes, "%.12g", json_real_value(value));
    else if (json_is_integer(value))
        snprintf(out, (size_t)out_bytes, "%lld", (long long)json_integer_value(value));
    else
        snprintf(out, (size_t)out_bytes, "%s",
                 json_is_true(value)    ? "yes"
                 : json_is_false(value) ? "no"
                 : !value               ? "nothing"
                                        : "");
}

void sp_train_option_get(const sp_train_options *options, const char *name, char *out, int64_t out_bytes) {
    const option *row = find_option(name);
    json_t *value = row ? format_value(options, row) : json_null();
    print_value(out, out_bytes, value);
    json_decref(value);
}

sp_status sp_train_options_format(json_t **out, const sp_train_options *options) {
    *out = json_object();
    bool complete = *out;
    for (int i = 0; i < N_OPTIONS && complete; i++) {
        const option *row = &options_table[i];
        if (row->kind == OPTION_SWITCH) continue;
        complete = json_object_set_new(*out, row->shown.name, format_value(options, row)) == 0;
    }
    if (complete) return SP_OK;
    json_decref(*out);
    *out = NULL;
    return sp_fail(SP_BAD_ARGUMENT, "the options of training cannot be written as JSON: is sample-prompt UTF-8?");
}

/* ---- agreement ---- */

sp_status sp_train_options_check(const sp_train_options *options) {
    SP_REQUIRE(options->struct_bytes == sizeof *options, SP_BAD_ARGUMENT,
               "training options of %zu bytes, expected %zu: begin with sp_train_options_default()",
               options->struct_bytes, sizeof *options);
    for (int i = 0; i < N_OPTIONS; i++) SP_TRY(check_range(options, &options_table[i]));
    sp_packing packing;
    SP_TRY(sp_packing_find(&packing, sp_packing_name(options->packing)));
    SP_REQUIRE(strcmp(sp_schedule_name(options->schedule), "?") != 0, SP_BAD_ARGUMENT, "schedule: %d is none",
               (int)options->schedule);
    int64_t n_steps = sp_train_n_steps(options);
    SP_REQUIRE(n_steps > 0 || options->minutes > 0, SP_BAD_ARGUMENT,
               "steps, tokens and minutes are all 0: training would not end");
    if (!sp_schedule_ends(options->schedule)) return SP_OK;
    SP_REQUIRE(n_steps > 0, SP_BAD_ARGUMENT, "schedule: %s needs steps or tokens to know its end",
               sp_schedule_name(options->schedule));
    SP_REQUIRE(options->warmup_steps < n_steps, SP_BAD_ARGUMENT, "warmup: %lld steps, the whole run has %lld",
               (long long)options->warmup_steps, (long long)n_steps);
    SP_REQUIRE(sp_train_warmup_steps(options, n_steps) + sp_train_decay_steps(options, n_steps) <= n_steps,
               SP_BAD_ARGUMENT, "decay-fraction: %g of %lld steps leaves no room for %lld steps of warm-up",
               options->decay_fraction, (long long)n_steps, (long long)options->warmup_steps);
    return SP_OK;
}

/* Numbers stand in files with 12 digits. */
static bool same_value(const json_t *a, const json_t *b) {
    if (!json_is_real(a) || !json_is_real(b)) return json_equal(a, b);
    double x = json_real_value(a), y = json_real_value(b);
    return fabs(x - y) <= 1e-11 * fmax(fabs(x), fabs(y));
}

sp_status sp_train_require_same(const json_t *now, const json_t *saved, const char *name, const char *source) {
    if (same_value(now, saved)) return SP_OK;
    char now_text[128], saved_text[128];
    print_value(now_text, sizeof now_text, now);
    print_value(saved_text, sizeof saved_text, saved);
    return sp_fail(SP_BAD_ARGUMENT, "%s: %s contradicts the run to be resumed, which has %s (%s)", name, now_text,
                   saved_text, source);
}

/* The options of `saved` over those of `now`: parsed by the same table that wrote them. */
static sp_status parse_saved(sp_train_options *out, const sp_train_options *now, const json_t *saved,
                             const char *source) {
    *out = *now;
    for (int i = 0; i < N_OPTIONS; i++) {
        const option *row = &options_table[i];
        if (row->bond == OPTION_FREE) continue;
        json_t *value = json_object_get(saved, row->shown.name);
        SP_REQUIRE(value, SP_BAD_FILE, "%s: option %s is missing", source, row->shown.name);
        char text[128];
        print_value(text, sizeof text, value);
        SP_REQUIRE(sp_train_option_set(out, row->shown.name, text) == SP_OK, SP_BAD_FILE, "%s: %s", source,
                   sp_last_message());
    }
    return SP_OK;
}

/* Do two runs have had the same learning rates so far?  A run may be prolonged as long as they do: always
 * with a constant rate, with wsd until its decay has begun. */
static bool same_rates(const sp_train_options *a, const sp_train_options *b, int64_t n_steps_done) {
    int64_t n_a = sp_train_n_steps(a), n_b = sp_train_n_steps(b);
    for (int64_t step = 0; step < n_steps_done; step++) {
        double x = sp_train_learning_rate(a, n_a, step), y = sp_train_learning_rate(b, n_b, step);
        if (fabs(x - y) > 1e-10 * fmax(x, y)) return false;
    }
    return true;
}

sp_status sp_train_options_agree(const sp_train_options *options, const json_t *saved, int64_t n_steps_done,
                                 const char *source) {
    sp_train_options before;
    SP_TRY(parse_saved(&before, options, saved, source));
    bool rates_differ = !same_rates(options, &before, n_steps_done);
    for (int i = 0; i < N_OPTIONS; i++) {
        const option *row = &options_table[i];
        if (row->bond == OPTION_FREE || (row->bond == OPTION_RATE && !rates_differ)) continue;
        json_t *now = format_value(options, row);
        sp_status status = sp_train_require_same(now, json_object_get(saved, row->shown.name), row->shown.name, source);
        json_decref(now);
        SP_TRY(status);
    }
    return SP_OK;
}
