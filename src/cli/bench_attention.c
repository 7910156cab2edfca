/* softpick bench attention: the passes of attention, each variant held against the definition, then timed.
 *
 * An option may list several values; every combination is a row of the table.  Rows of the same tensors share them.  All
 * rows, the matrix products and the reads of memory take turns, so that what else the machine does falls on all alike.
 * On a GPU tensors and workspace lie there, and bench_turn.c times. */
#define _GNU_SOURCE /* setenv */
#include "cli/bench_attention.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "cli/bench_gate.h"
#include "cli/cli.h"
#include "cli/placement.h"
#include "softpick/device.h"

enum { LIST_MAX = 16, N_ROUNDS = 5 };
static const int64_t DECODE_KEYS = 65536, GPU_DECODE_KEYS = 16384, COLD_BYTES = 1 << 28;

typedef struct list {
    int64_t at[LIST_MAX];
    int n;
} list;

typedef struct attention_options {
    int32_t device;
    int64_t B, H, Hkv, Dv, S, n_queries, page_size, window; /* Hkv, Dv, S 0: by the others */
    double lambda, seconds;
    bool full, compute_dead, any_order, no_liveness, json;
    list D, T, dtypes, passes, normalizers, patterns, threads, variants;
    bench_pattern pattern_at[LIST_MAX];
    const char *variant_at[LIST_MAX]; /* NULL: the chosen one */
    uint64_t seed;
} attention_options;

/* ---- options ---------------------------------------------------------------------------------------------------- */

enum {
    KEY_BATCH = 1000,
    KEY_HEADS,
    KEY_KV_HEADS,
    KEY_HEAD_DIM,
    KEY_VALUE_DIM,
    KEY_LENGTH,
    KEY_KEY_LENGTH,
    KEY_QUERIES,
    KEY_PAGE_SIZE,
    KEY_NO_CAUSAL,
    KEY_WINDOW,
    KEY_ATTENTION,
    KEY_LAMBDA,
    KEY_DTYPE,
    KEY_PATTERN,
    KEY_COMPUTE_DEAD,
    KEY_NO_LIVENESS,
    KEY_ANY_ORDER,
    KEY_SEED,
    KEY_DEVICE,
    KEY_PASSES,
    KEY_VARIANT,
    KEY_THREADS,
    KEY_SECONDS,
    KEY_JSON
};

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "Problem (a list LIST is values with commas between them: each makes a row):", 1},
    {"batch", KEY_BATCH, "B", 0, "sequences (default 1; on a GPU 4)", 1},
    {"heads", KEY_HEADS, "H", 0, "query heads (default 8; on a GPU 32)", 1},
    {"kv-heads", KEY_KV_HEADS, "N", 0, "key/value heads (default: as many)", 1},
    {"head-dim", KEY_HEAD_DIM, "LIST", 0, "channels of a query and a key (default 64,128)", 1},
    {"value-dim", KEY_VALUE_DIM, "N", 0, "channels of a value (default: as many)", 1},
    {"length", KEY_LENGTH, "LIST", 0, "queries of forward and backward (default 2048; on a GPU 4096)", 1},
    {"key-length", KEY_KEY_LENGTH, "N", 0, "keys (default: as many as queries; of decode 65536, on a GPU 16384)", 1},
    {"queries", KEY_QUERIES, "N", 0, "queries of decode (default 1)", 1},
    {"page-size", KEY_PAGE_SIZE, "N", 0, "decode from pages of N keys in random order (default: one after another)", 1},
    {"no-causal", KEY_NO_CAUSAL, NULL, 0, "every query sees every key", 1},
    {"window", KEY_WINDOW, "N", 0, "keys that a query sees at most (default: all)", 1},
    {"dtype", KEY_DTYPE, "LIST", 0, "of f32, bf16, f16, or all (default f32,bf16; on a GPU bf16)", 1},
    {"attention", KEY_ATTENTION, "LIST", 0,
     "of softpick, softmax, softmax_plus_one, softmax_sink, rectified, or all (default softpick)", 1},
    {"lambda", KEY_LAMBDA, "X", 0, "weight of the negative part in softpick (default 1)", 1},
    {NULL, 0, NULL, 0, "Numbers:", 2},
    {"pattern", KEY_PATTERN, "LIST", 0,
     "dense: normal scores, half of them positive; slabs=F: share F of the slabs of 64 queries x 16 keys is dead; "
     "keys=F: share F of the keys lives, for every query the same; zeros=F: share F of the scores is not positive, "
     "scattered; captured=FILE: q, k and v of a model, as softpick bench capture writes them (default dense)",
     2},
    {"compute-dead", KEY_COMPUTE_DEAD, NULL, 0, "compute also what zeros let a variant leave out", 2},
    {"no-liveness", KEY_NO_LIVENESS, NULL, 0,
     "without liveness words (default: forward writes and backward reads them where the variant takes them)", 2},
    {"any-order", KEY_ANY_ORDER, NULL, 0, "a row more for backward: the shares of dq added in any order", 2},
    {"seed", KEY_SEED, "N", 0, "of the random numbers (default 1)", 2},
    {NULL, 0, NULL, 0, "Run:", 3},
    {"device", KEY_DEVICE, "NAME", 0, CLI_DEVICE_HELP " (default cpu)", 3},
    {"passes", KEY_PASSES, "LIST", 0, "of forward, backward, decode (default: all three)", 3},
    {"variant", KEY_VARIANT, "LIST", 0,
     "names of rows that softpick info lists, or all (default: the one the library chooses)", 3},
    {"threads", KEY_THREADS, "LIST", 0, "of the CPU; 0: as many as processors (default 0)", 3},
    {"seconds", KEY_SECONDS, "X", 0, "time to measure each row (default 0.5, on a GPU 30 calls; 0: one call)", 3},
    {"json", KEY_JSON, NULL, 0, "print one JSON document", 3},
    {0},
};

static void list_add(struct argp_state *state, list *l, const char *option, const char *word, int64_t value) {
    if (l->n == LIST_MAX) argp_error(state, "%s: \"%s\": more than %d values", option, word, LIST_MAX);
    l->at[l->n++] = value;
}

/* The value of a name in a list of names; -1 for none. */
typedef const char *(*name_function)(int i);
static const char *dtype_name(int i) { return i <= SP_DTYPE_F16 ? sp_dtype_name((sp_dtype)i) : NULL; }
static const char *pass_name(int i) {
    return i < SP_ATTENTION_PASS_COUNT ? sp_attention_pass_name((sp_attention_pass)i) : NULL;
}
static const char *normalizer_name(int i) {
    return i < SP_NORMALIZER_COUNT ? sp_normalizer_name((sp_normalizer)i) : NULL;
}
static const char *variant_name(int i) {
    sp_attention any;
    const char *name;
    sp_attention_init(&any);
    (void)sp_attention_variant(&any, SP_ATTENTION_FORWARD, i, &name, NULL);
    return name;
}

static void add_name(struct argp_state *state, list *l, const char *option, const char *word, name_function name) {
    char known[256] = "";
    bool all = strcmp(word, "all") == 0, found = all;
    for (int i = 0; name(i); i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", name(i));
        if (!all && strcmp(word, name(i)) != 0) continue;
        list_add(state, l, option, word, i);
        found = true;
    }
    if (!found) argp_error(state, "%s: \"%s\" is not all or one of %s", option, word, known);
}

static void add_pattern(struct argp_state *state, attention_options *o, const char *word) {
    bench_pattern pattern;
    if (bench_pattern_parse(&pattern, word) != SP_OK) argp_error(state, "--pattern: %s", sp_last_message());
    list_add(state, &o->patterns, "--pattern", word, o->patterns.n);
    o->pattern_at[o->patterns.n - 1] = pattern;
}

static void add_word(struct argp_state *state, attention_options *o, int key, const char *word) {
    switch (key) {
    case KEY_HEAD_DIM: list_add(state, &o->D, "--head-dim", word, cli_count(state, "--head-dim", word, 1, 4096)); break;
    case KEY_LENGTH: list_add(state, &o->T, "--length", word, cli_count(state, "--length", word, 1, 1 << 24)); break;
    case KEY_THREADS:
        list_add(state, &o->threads, "--threads", word, cli_count(state, "--threads", word, 0, 4096));
        break;
    case KEY_DTYPE: add_name(state, &o->dtypes, "--dtype", word, dtype_name); break;
    case KEY_ATTENTION: add_name(state, &o->normalizers, "--attention", word, normalizer_name); break;
    case KEY_PASSES: add_name(state, &o->passes, "--passes", word, pass_name); break;
    case KEY_VARIANT: add_name(state, &o->variants, "--variant", word, variant_name); break;
    default: add_pattern(state, o, word);
    }
}

/* The words of a list are cut out of the argument itself. */
static void add_words(struct argp_state *state, attention_options *o, int key, char *text) {
    char *word;
    do {
        word = strsep(&text, ",");
        add_word(state, o, key, word);
    } while (text);
}

static void complete(struct argp_state *state, attention_options *o) {
    const bool gpu = o->device != 0;
    if (o->B == 0) o->B = gpu ? 4 : 1;
    if (o->H == 0) o->H = gpu ? 32 : 8;
    if (o->Hkv == 0) o->Hkv = o->H;
    if (o->H % o->Hkv != 0)
        argp_error(state, "--heads: %lld is not a multiple of --kv-heads %lld", (long long)o->H, (long long)o->Hkv);
    if (gpu && o->threads.n > 0) argp_error(state, "--threads: of the CPU alone, not of --device cuda");
    for (int i = 0; i < o->variants.n; i++) o->variant_at[i] = variant_name((int)o->variants.at[i]);
    if (o->variants.n == 0) o->variant_at[0] = getenv("SP_ATTENTION");
    const struct {
        list *l;
        list standard;
    } lists[] = {{&o->D, {{64, 128}, 2}},
                 {&o->T, {{gpu ? 4096 : 2048}, 1}},
                 {&o->dtypes, {{gpu ? SP_DTYPE_BF16 : SP_DTYPE_F32, SP_DTYPE_BF16}, gpu ? 1 : 2}},
                 {&o->normalizers, {{SP_NORMALIZER_SOFTPICK}, 1}},
                 {&o->passes, {{SP_ATTENTION_FORWARD, SP_ATTENTION_BACKWARD, SP_ATTENTION_DECODE}, 3}},
                 {&o->patterns, {{0}, 1}},
                 {&o->threads, {{0}, 1}},
                 {&o->variants, {{0}, 1}}};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (lists[i].l->n == 0) *lists[i].l = lists[i].standard;
    for (int i = 0; i < o->threads.n; i++)
        if (o->threads.at[i] == 0) o->threads.at[i] = sp_cpu_count();
}

static error_t parse_option(int key, char *text, struct argp_state *state) {
    attention_options *o = state->input;
    switch (key) {
    case KEY_BATCH: o->B = cli_count(state, "--batch", text, 1, 1 << 16); break;
    case KEY_HEADS: o->H = cli_count(state, "--heads", text, 1, 1 << 12); break;
    case KEY_KV_HEADS: o->Hkv = cli_count(state, "--kv-heads", text, 1, 1 << 12); break;
    case KEY_VALUE_DIM: o->Dv = cli_count(state, "--value-dim", text, 1, 4096); break;
    case KEY_KEY_LENGTH: o->S = cli_count(state, "--key-length", text, 1, 1 << 24); break;
    case KEY_QUERIES: o->n_queries = cli_count(state, "--queries", text, 1, 1 << 10); break;
    case KEY_PAGE_SIZE: o->page_size = cli_count(state, "--page-size", text, 1, 1 << 20); break;
    case KEY_NO_CAUSAL: o->full = true; break;
    case KEY_WINDOW: o->window = cli_count(state, "--window", text, 1, 1 << 24); break;
    case KEY_LAMBDA: o->lambda = cli_number(state, "--lambda", text, 0, 1e6); break;
    case KEY_COMPUTE_DEAD: o->compute_dead = true; break;
    case KEY_NO_LIVENESS: o->no_liveness = true; break;
    case KEY_ANY_ORDER: o->any_order = true; break;
    case KEY_DEVICE: o->device = cli_device(state, "--device", text); break;
    case KEY_SEED: o->seed = (uint64_t)cli_count(state, "--seed", text, 0, INT64_MAX); break;
    case KEY_SECONDS: o->seconds = cli_number(state, "--seconds", text, 0, 1e5); break;
    case KEY_JSON: o->json = true; break;
    case KEY_HEAD_DIM:
    case KEY_LENGTH:
    case KEY_DTYPE:
    case KEY_ATTENTION:
    case KEY_PATTERN:
    case KEY_PASSES:
    case KEY_VARIANT:
    case KEY_THREADS: add_words(state, o, key, text); break;
    case ARGP_KEY_ARG: argp_error(state, "\"%s\": no argument is expected", text); break;
    case ARGP_KEY_END: complete(state, o); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* ---- rows ------------------------------------------------------------------------------------------------------- */

static bool same_tensors(const bench_shape *a, const bench_shape *b) {
    return a->T == b->T && a->S == b->S && a->D == b->D && a->Dv == b->Dv && a->dtype == b->dtype &&
           a->page_size == b->page_size && a->pattern.kind == b->pattern.kind && a->pattern.share == b->pattern.share &&
           a->pattern.file == b->pattern.file && a->gradients == b->gradients;
}

static sp_status find_problem(bench_problem **out, bench_run *run, const bench_shape *shape, uint64_t seed) {
    for (int64_t i = 0; i < run->n_problems; i++)
        if (same_tensors(&run->problems[i]->shape, shape)) {
            *out = run->problems[i];
            return SP_OK;
        }
    void *memory;
    SP_TRY(sp_allocate(&memory, (int64_t)sizeof **out, "a problem"));
    run->problems[run->n_problems++] = *out = memory;
    return bench_problem_open(*out, run->device, shape, seed);
}

/* One value of each list. */
typedef struct choice {
    int D, T, dtype, pattern, normalizer, pass, variant, threads;
} choice;

/* The i-th combination; the last list turns fastest. */
static choice choice_at(const attention_options *o, int64_t i) {
    choice c;
    const struct {
        const list *l;
        int *index;
    } lists[] = {
        {&o->threads, &c.threads},  {&o->variants, &c.variant}, {&o->passes, &c.pass}, {&o->normalizers, &c.normalizer},
        {&o->patterns, &c.pattern}, {&o->dtypes, &c.dtype},     {&o->T, &c.T},         {&o->D, &c.D}};
    for (size_t k = 0; k < sizeof lists / sizeof *lists; k++) {
        *lists[k].index = (int)(i % lists[k].l->n);
        i /= lists[k].l->n;
    }
    return c;
}

static int64_t n_choices(const attention_options *o) {
    return (int64_t)o->threads.n * o->variants.n * o->passes.n * o->normalizers.n * o->patterns.n * o->dtypes.n *
           o->T.n * o->D.n;
}

static bool list_has(const list *l, int64_t value) {
    for (int i = 0; i < l->n; i++)
        if (l->at[i] == value) return true;
    return false;
}

static bench_shape shape_of(const attention_options *o, const choice *c) {
    bool decode = o->passes.at[c->pass] == SP_ATTENTION_DECODE;
    bench_shape shape = {.B = o->B,
                         .H = o->H,
                         .Hkv = o->Hkv,
                         .T = decode ? o->n_queries : o->T.at[c->T],
                         .D = o->D.at[c->D],
                         .dtype = (sp_dtype)o->dtypes.at[c->dtype],
                         .pattern = o->pattern_at[c->pattern],
                         .gradients = !decode && list_has(&o->passes, SP_ATTENTION_BACKWARD),
                         .page_size = decode ? o->page_size : 0,
                         .n_caches = 1};
    shape.S = o->S ? o->S : !decode ? shape.T : o->device ? GPU_DECODE_KEYS : DECODE_KEYS;
    shape.Dv = o->Dv ? o->Dv : shape.D;
    int64_t cache = shape.B * shape.S * shape.Hkv * (shape.D + shape.Dv) * sp_dtype_bytes(shape.dtype);
    if (decode) shape.n_caches = (COLD_BYTES + cache - 1) / cache;
    return shape;
}

/* The environment's word decides which variant runs. */
static void force_variant(const char *name) {
    if (name)
        setenv("SP_ATTENTION", name, 1);
    else
        unsetenv("SP_ATTENTION");
}

static sp_attention problem_of(const bench_row *row) {
    return bench_problem_of(row->problem, &row->options, row->pass);
}

/* The variant that runs all that the pass needs, backward forward as well: its last name. */
static sp_status choose(const bench_row *row, const char **name) {
    sp_attention problem = problem_of(row);
    force_variant(row->wanted);
    if (row->pass == SP_ATTENTION_BACKWARD) SP_TRY(sp_attention_choose(&problem, SP_ATTENTION_FORWARD, name));
    return sp_attention_choose(&problem, row->pass, name);
}

/* Names the variant, or keeps its reason for refusing.  It gets liveness words if it takes them. */
static sp_status choose_variant(bench_row *row) {
    const bool wanted = row->options.liveness;
    const char *name, *with_words;
    row->options.liveness = false;
    sp_status status = choose(row, &name);
    if (status == SP_UNSUPPORTED) {
        snprintf(row->refusal, sizeof row->refusal, "%s", sp_last_message());
        return SP_OK;
    }
    SP_TRY(status);
    row->variant = name;
    if (!wanted || row->pass == SP_ATTENTION_DECODE) return SP_OK;
    row->options.liveness = true;
    status = choose(row, &with_words);
    if (status != SP_OK || strcmp(with_words, name) != 0) row->options.liveness = false;
    return status == SP_UNSUPPORTED ? SP_OK : status;
}

static sp_status open_row(bench_row *row, bench_run *run, const attention_options *o, const choice *c, bool any_order) {
    bench_shape shape = shape_of(o, c);
    row->pass = (sp_attention_pass)o->passes.at[c->pass];
    row->wanted = o->variant_at[c->variant];
    row->n_threads = (int)o->threads.at[c->threads];
    row->options = (bench_options){.normalizer = (sp_normalizer)o->normalizers.at[c->normalizer],
                                   .lambda = (float)o->lambda,
                                   .causal = !o->full,
                                   .window = o->window,
                                   .compute_dead = o->compute_dead,
                                   .any_order = any_order,
                                   .liveness = !o->no_liveness};
    SP_TRY(find_problem(&row->problem, run, &shape, o->seed));
    return choose_variant(row);
}

static sp_status open_rows(bench_run *run, const attention_options *o) {
    void *rows, *problems;
    int64_t n = n_choices(o);
    SP_TRY(sp_allocate(&rows, 2 * n * (int64_t)sizeof *run->rows, "the rows of a benchmark"));
    run->rows = rows;
    SP_TRY(sp_allocate(&problems, n * (int64_t)sizeof *run->problems, "the rows of a benchmark"));
    run->problems = problems;
    for (int64_t i = 0; i < n; i++) {
        choice c = choice_at(o, i);
        if (o->passes.at[c.pass] == SP_ATTENTION_DECODE && c.T > 0) continue; /* the lengths are not its own */
        SP_TRY(open_row(&run->rows[run->n_rows++], run, o, &c, false));
        if (o->any_order && o->passes.at[c.pass] == SP_ATTENTION_BACKWARD)
            SP_TRY(open_row(&run->rows[run->n_rows++], run, o, &c, true));
    }
    run->shape = run->rows[0].problem->shape;
    run->page_size = o->page_size;
    return SP_OK;
}

/* No product: a library that is not there. */
static sp_status open_matmul(bench_run *run, sp_dtype dtype, int n_threads) {
    const char *name;
    bench_matmul *matmul = &run->matmuls[run->n_matmuls];
    sp_status status = bench_matmul_open(matmul, run->device, dtype, n_threads, &name);
    if (status == SP_OK && name) {
        run->matmul_name = name;
        run->n_matmuls++;
        return SP_OK;
    }
    bench_matmul_close(matmul);
    return status == SP_UNSUPPORTED ? SP_OK : status;
}

static sp_status open_scale(bench_run *run, const attention_options *o) {
    static const sp_dtype dtypes[] = {SP_DTYPE_F32, SP_DTYPE_BF16};
    if (o->device) {
        SP_TRY(bench_turns_open(&run->turns, run->device, o->seconds == 0));
        SP_TRY(bench_copy_open(&run->copy, run->device));
    } else
        run->fma_gflops = bench_fma_gflops();
    for (int i = 0; i < o->threads.n; i++) {
        for (int d = 0; d < 2; d++) SP_TRY(open_matmul(run, dtypes[d], (int)o->threads.at[i]));
        if (!o->device && list_has(&o->passes, SP_ATTENTION_DECODE))
            SP_TRY(bench_read_open(&run->reads[run->n_reads++], (int)o->threads.at[i]));
    }
    return SP_OK;
}

static void close_run(bench_run *run) {
    for (int64_t i = 0; i < run->n_problems; i++) {
        bench_problem_close(run->problems[i]);
        free(run->problems[i]);
    }
    for (int i = 0; i < BENCH_SCALES; i++) {
        bench_matmul_close(&run->matmuls[i]);
        bench_read_close(&run->reads[i]);
    }
    bench_copy_close(&run->copy);
    bench_turns_close(&run->turns);
    sp_device_close(run->device);
    free(run->problems);
    free(run->rows);
}

/* ---- running ---------------------------------------------------------------------------------------------------- */

/* Every row, before any is timed.  The sentence of a failure tells the row. */
static sp_status pass_gates(const bench_run *run, uint64_t seed) {
    char sentence[200];
    for (int64_t i = 0; i < run->n_rows; i++) {
        const bench_row *row = &run->rows[i];
        if (!row->variant) continue;
        force_variant(row->wanted);
        sp_status status =
            bench_gate(run->device, &row->problem->shape, &row->options, row->pass, row->n_threads, seed);
        if (status == SP_OK && run->device->id && !row->problem->shape.page_size)
            status = bench_gate_large(row->problem, &row->options, row->pass, row->n_threads);
        if (status != SP_INTERNAL) {
            SP_TRY(status);
            if (cli_progress(NULL, "checking", i + 1, run->n_rows)) return sp_fail(SP_CANCELLED, "interrupted");
            continue;
        }
        snprintf(sentence, sizeof sentence, "%s", sp_last_message());
        return sp_fail(status, "%s of %s %s in %s is wrong, nothing is timed: %s", sp_attention_pass_name(row->pass),
                       row->variant, sp_normalizer_name(row->options.normalizer),
                       sp_dtype_name(row->problem->shape.dtype), sentence);
    }
    return SP_OK;
}

/* By whichever variant is chosen: the counts are the problem's. */
static sp_status count_rows(bench_run *run) {
    force_variant(NULL);
    for (int64_t i = 0; i < run->n_rows; i++) {
        bench_row *row = &run->rows[i];
        bool as_before =
            i > 0 && row->problem == row[-1].problem && row->options.normalizer == row[-1].options.normalizer;
        if (as_before)
            row->counts = row[-1].counts;
        else
            SP_TRY(bench_count(&row->counts, row->problem, &row->options));
    }
    return SP_OK;
}

/* The largest workspace of any row; backward runs forward as well. */
static sp_status open_workspace(void **workspace, int64_t *n_bytes, const bench_run *run) {
    *n_bytes = 0;
    for (int64_t i = 0; i < run->n_rows; i++) {
        const bench_row *row = &run->rows[i];
        sp_attention problem = problem_of(row);
        sp_attention_pass passes[] = {row->pass, row->pass == SP_ATTENTION_BACKWARD ? SP_ATTENTION_FORWARD : row->pass};
        if (!row->variant) continue;
        force_variant(row->wanted);
        for (int p = 0; p < 2; p++) {
            int64_t bytes;
            SP_TRY(sp_attention_workspace(&problem, passes[p], row->n_threads, &bytes));
            if (bytes > *n_bytes) *n_bytes = bytes;
        }
    }
    return sp_device_allocate(run->device, workspace, *n_bytes, "the workspace of a benchmark");
}

/* What a row calls, again and again. */
typedef struct row_call {
    bench_row *row;
    sp_attention problem;
    void *workspace;
    int64_t n_bytes;
} row_call;

/* With the next keys and values. */
static sp_status call_row(void *user) {
    row_call *c = user;
    bench_problem_turn(c->row->problem);
    c->problem.k.data = c->row->problem->problem.k.data;
    c->problem.v.data = c->row->problem->problem.v.data;
    return bench_call(&c->problem, c->row->pass, c->workspace, c->n_bytes, c->row->n_threads);
}

/* Calls as long as this do not need one before them that is not timed. */
static const double LONG_CALL = 0.1;

/* Times for about so many seconds, one at least.  Three are enough where each is longer than all turns should be. */
static sp_status time_on_host(row_call *c, double seconds) {
    bench_row *row = c->row;
    if (row->times.n >= 3 && row->times.least > N_ROUNDS * seconds) return SP_OK;
    if (row->times.n == 0 || row->times.least < LONG_CALL) SP_TRY(call_row(c));
    double end = bench_wall_seconds() + seconds;
    do {
        double start = bench_seconds(row->n_threads);
        SP_TRY(call_row(c));
        bench_times_add(&row->times, bench_seconds(row->n_threads) - start);
    } while (bench_wall_seconds() < end);
    return SP_OK;
}

/* One of the turns. */
static sp_status time_row(bench_run *run, bench_row *row, void *workspace, int64_t n_bytes, double seconds) {
    row_call c = {row, problem_of(row), workspace, n_bytes};
    force_variant(row->wanted);
    if (row->pass == SP_ATTENTION_BACKWARD) /* rows that share the tensors write other outputs */
        SP_TRY(bench_call(&c.problem, SP_ATTENTION_FORWARD, workspace, n_bytes, row->n_threads));
    return run->device->id ? bench_turn(&run->turns, &row->times, call_row, &c) : time_on_host(&c, seconds);
}

static sp_status time_round(bench_run *run, void *workspace, int64_t n_bytes, double seconds) {
    for (int i = 0; i < run->n_matmuls; i++) SP_TRY(bench_matmul_time(&run->matmuls[i], seconds, &run->turns));
    for (int i = 0; i < run->n_reads; i++) SP_TRY(bench_read_time(&run->reads[i], seconds));
    if (run->copy.memory) SP_TRY(bench_copy_time(&run->copy, &run->turns));
    for (int64_t i = 0; i < run->n_rows; i++) {
        if (cli_interrupted()) return sp_fail(SP_CANCELLED, "interrupted");
        if (run->rows[i].variant) SP_TRY(time_row(run, &run->rows[i], workspace, n_bytes, seconds));
    }
    return SP_OK;
}

static sp_status time_all(bench_run *run, double seconds) {
    void *workspace = NULL;
    int64_t n_bytes;
    sp_status status = SP_OK;
    SP_TRY(open_workspace(&workspace, &n_bytes, run));
    int n_rounds = seconds == 0 ? 1 : run->device->id ? BENCH_TURNS : N_ROUNDS;
    for (int round = 0; round < n_rounds; round++) {
        SP_TRY_OR_DONE(time_round(run, workspace, n_bytes, seconds / n_rounds));
        cli_progress(NULL, "timing", round + 1, n_rounds);
    }
done:
    sp_device_release(run->device, workspace);
    return status;
}

static sp_status require_a_variant(const bench_run *run) {
    for (int64_t i = 0; i < run->n_rows; i++)
        if (run->rows[i].variant) return SP_OK;
    return sp_fail(SP_UNSUPPORTED, "nothing to time: %s", run->rows[0].refusal);
}

static sp_status run_attention_bench(bench_run *run, const attention_options *o) {
    SP_TRY(sp_device_open(&run->device, o->device));
    SP_TRY(open_rows(run, o));
    SP_TRY(require_a_variant(run));
    SP_TRY(pass_gates(run, o->seed + 1));
    SP_TRY(count_rows(run));
    SP_TRY(open_scale(run, o));
    SP_TRY(time_all(run, o->seconds));
    if (o->json) return bench_attention_print_json(run);
    bench_attention_print(run);
    return SP_OK;
}

int bench_attention(int argc, char **argv) {
    static const struct argp argp = {
        .options = options,
        .parser = parse_option,
        .doc =
            "Times the passes of attention on this machine, beside a matrix product and the reading of memory.  "
            "Each is first held against the definition on a smaller problem; if a result is wrong, nothing is "
            "timed.\v"
            "ms is the least time of a call and median the middle one: processor time with one thread, time on the "
            "wall with more.  GFLOP/s counts the products for every pair of a query and a key that it sees; "
            "executed leaves out what blocks of zeros make needless; matmul is the ratio to the matrix "
            "product of the same run, dtype and threads.  GB/s counts what a pass must read and write, of decode the "
            "keys and values.  dead is the share of blocks of 16 x 16 weights that are all zero, zeros that of single "
            "weights.\n\n"
            "Examples:\n"
            "  softpick bench attention\n"
            "  softpick bench attention --dtype bf16 --head-dim 64,128 --length 4096 --threads 1,2\n"
            "  softpick bench attention --passes forward,backward --pattern dense,slabs=0.9 --attention softpick\n"
            "  softpick bench attention --passes decode --pattern keys=1,keys=0.1 --json\n"
            "  softpick bench attention --device cuda --attention softpick,softmax\n\n"
            "Exit status: 0 done, 1 failed or a wrong result, 2 wrong usage.",
    };
    attention_options o = {.n_queries = 1, .lambda = 1, .seconds = 0.5, .seed = 1};
    bench_run run = {0};
    cli_parse(&argp, argc, argv, &o);
    cli_catch_signals();
    sp_status status = run_attention_bench(&run, &o);
    close_run(&run);
    return status == SP_OK ? CLI_DONE : cli_fail(status);
}
