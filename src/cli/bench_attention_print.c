/* What `softpick bench attention` prints: a table, or one JSON document.  docs/bench.md tells how things are counted. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cli/bench_attention.h"
#include "cli/placement.h"
#include "softpick/device.h"

/* ---- rates ------------------------------------------------------------------------------------------------------ */

static bool on_gpu(const bench_run *run) { return run->device->id != 0; }

/* The time that rates are counted by: on the CPU, which others use as well, the least one, on a GPU the median. */
static double seconds_of(const bench_row *row) {
    return row->problem->device->id ? bench_times_median(&row->times) : row->times.least;
}

/* In units of 10^9 a second; 0 if the row did not run. */
static double rate(const bench_row *row, double count) { return row->times.n ? 1e-9 * count / seconds_of(row) : 0; }

/* Multiplications and additions of the products, for each pair: forward S and O; backward S, dP, dQ, dK and dV. */
static double operations(const bench_row *row) {
    double D = (double)row->problem->shape.D, Dv = (double)row->problem->shape.Dv;
    return row->counts.pairs * (row->pass == SP_ATTENTION_BACKWARD ? 6 * D + 4 * Dv : 2 * D + 2 * Dv);
}

/* Backward gives a dead pair a gradient of its score only by its part of the denominator. */
static bool dead_scores_have_gradients(const bench_options *options) {
    return options->normalizer == SP_NORMALIZER_SOFTPICK && options->lambda != 0;
}

static double needless_operations(const bench_row *row) {
    double D = (double)row->problem->shape.D, Dv = (double)row->problem->shape.Dv, dead = row->counts.dead_pairs;
    if (row->options.compute_dead) return 0;
    switch (row->pass) {
    case SP_ATTENTION_FORWARD: return 2 * Dv * dead;
    case SP_ATTENTION_BACKWARD: return (4 * Dv + (dead_scores_have_gradients(&row->options) ? 0 : 4 * D)) * dead;
    default: return 2 * Dv * row->counts.zero_pairs;
    }
}

static double bytes_moved(const bench_row *row) {
    const bench_shape *s = &row->problem->shape;
    double one = (double)sp_dtype_bytes(s->dtype), D = (double)s->D, Dv = (double)s->Dv;
    double keys = (double)(s->B * s->S * s->Hkv), queries = (double)(s->B * s->T * s->H);
    double cache = keys * (D + Dv) * one, ends = queries * (D + Dv) * one, lse = queries * (double)sizeof(float);
    switch (row->pass) {
    case SP_ATTENTION_FORWARD: return cache + ends + lse;
    case SP_ATTENTION_BACKWARD: return 2 * cache + 2 * ends + lse; /* read q k v out dout lse, write dq dk dv */
    default: return cache;
    }
}

static double row_gflops(const bench_row *row) { return rate(row, operations(row)); }
static double row_executed(const bench_row *row) { return rate(row, operations(row) - needless_operations(row)); }
static double row_gb_per_s(const bench_row *row) { return rate(row, bytes_moved(row)); }

static double share(double part, double whole) { return whole > 0 ? part / whole : 0; }

/* Rate of the product of the row's dtype (of f16: f32, on a GPU bf16) with as many threads; 0 if there is none. */
static double matmul_gflops(const bench_run *run, const bench_row *row) {
    bool bf16 = on_gpu(run) || row->problem->shape.dtype == SP_DTYPE_BF16;
    sp_dtype dtype = bf16 ? SP_DTYPE_BF16 : SP_DTYPE_F32;
    for (int i = 0; i < run->n_matmuls; i++)
        if (run->matmuls[i].dtype == dtype && run->matmuls[i].n_threads == row->n_threads)
            return bench_matmul_gflops(&run->matmuls[i]);
    return 0;
}

/* The row's rate in units of the product's; 0 if there is none, and for decode, which memory decides. */
static double of_matmul(const bench_run *run, const bench_row *row) {
    double matmul = row->pass == SP_ATTENTION_DECODE ? 0 : matmul_gflops(run, row);
    return matmul > 0 ? row_gflops(row) / matmul : 0;
}

/* ---- the table -------------------------------------------------------------------------------------------------- */

/* GFLOP/s and GB/s of a CPU, TFLOP/s and TB/s of a GPU. */
static double shown(const bench_run *run, double rate) { return on_gpu(run) ? 1e-3 * rate : rate; }
static const char *prefix(const bench_run *run) { return on_gpu(run) ? "T" : "G"; }

/* ", N threads"; of a GPU nothing. */
static const char *threads_text(char out[32], const bench_run *run, int n_threads) {
    if (on_gpu(run)) return "";
    snprintf(out, 32, ", %d thread%s", n_threads, n_threads == 1 ? "" : "s");
    return out;
}

static void print_scale(const bench_run *run) {
    char text[256];
    cli_device_describe(text, sizeof text, run->device->id);
    printf("%s\n", text);
    if (run->fma_gflops > 0) printf("multiply-add of one core, f32: %.1f GFLOP/s\n", run->fma_gflops);
    for (int i = 0; i < run->n_matmuls; i++) {
        const bench_matmul *m = &run->matmuls[i];
        printf("matmul %" PRId64 " x %" PRId64 " x %" PRId64 ", %s, %s%s: %.1f %sFLOP/s\n", m->N, m->K, m->M,
               sp_dtype_name(m->dtype), run->matmul_name, threads_text(text, run, m->n_threads),
               shown(run, bench_matmul_gflops(m)), prefix(run));
    }
    for (int i = 0; i < run->n_reads; i++)
        printf("reading memory%s: %.1f GB/s\n", threads_text(text, run, run->reads[i].n_threads),
               bench_read_gb_per_s(&run->reads[i]));
    if (run->copy.memory)
        printf("copying memory, read and written: %.2f TB/s\n", shown(run, bench_copy_gb_per_s(&run->copy)));
}

static void print_mask(const bench_run *run) {
    const bench_shape *s = &run->shape;
    const bench_options *options = &run->rows[0].options;
    printf("batch %" PRId64 ", heads %" PRId64 "/%" PRId64 ", %s", s->B, s->H, s->Hkv,
           options->causal ? "causal" : "every key seen");
    if (options->window) printf(", window %" PRId64, options->window);
    if (run->page_size) printf(", decode from pages of %" PRId64 " keys", run->page_size);
    if (options->lambda != 1) printf(", lambda %g", (double)options->lambda);
    puts(options->compute_dead ? ", zeros computed" : "");
}

/* A dash for what is not known. */
static void print_number(int width, int decimals, double number) {
    if (number > 0)
        printf(" %*.*f", width, decimals, number);
    else
        printf(" %*s", width, "-");
}

static void print_share(double part, double whole) {
    if (isnan(part))
        printf(" %6s", "-");
    else
        printf(" %5.1f%%", 100 * share(part, whole));
}

static void print_rates(const bench_run *run, const bench_row *row) {
    printf("%9.3f %9.3f", 1e3 * row->times.least, 1e3 * bench_times_median(&row->times));
    print_number(8, 1, shown(run, row_gflops(row)));
    print_number(8, 1, shown(run, row_executed(row)));
    print_number(6, 2, of_matmul(run, row));
    print_number(7, 2, shown(run, row_gb_per_s(row)));
    print_share(row->counts.dead_blocks, row->counts.blocks);
    print_share(row->counts.zero_pairs, row->counts.pairs);
    puts(row->options.any_order ? "  dq in any order" : "");
}

static void print_row(const bench_run *run, const bench_row *row) {
    const bench_shape *s = &row->problem->shape;
    char pattern[32], width[48], threads[16];
    bench_pattern_format(pattern, sizeof pattern, s->pattern);
    if (s->pattern.kind == BENCH_CAPTURED) *strchr(pattern, '=') = '\0'; /* the file's name may be long */
    snprintf(width, sizeof width, s->D == s->Dv ? "%" PRId64 : "%" PRId64 "/%" PRId64, s->D, s->Dv);
    snprintf(threads, sizeof threads, on_gpu(run) ? "-" : "%d", row->n_threads);
    printf("%-8s %-5s%-16s %6" PRId64 " %6" PRId64 " %4s %-10s ", sp_attention_pass_name(row->pass),
           sp_dtype_name(s->dtype), sp_normalizer_name(row->options.normalizer), s->T, s->S, width, pattern);
    printf("%-12s %3s  ", row->variant ? row->variant : row->wanted ? row->wanted : "-", threads);
    if (row->variant)
        print_rates(run, row);
    else
        printf("refused: %s\n", row->refusal);
}

void bench_attention_print(const bench_run *run) {
    print_scale(run);
    print_mask(run);
    printf("\npass     dtype attention            T      S    D pattern    variant      thr         ms    median  "
           "%sFLOP/s executed matmul    %sB/s   dead  zeros\n",
           prefix(run), prefix(run));
    for (int64_t i = 0; i < run->n_rows; i++) print_row(run, &run->rows[i]);
}

/* ---- JSON ------------------------------------------------------------------------------------------------------- */

static json_t *describe_row(const bench_run *run, const bench_row *row) {
    const bench_shape *s = &row->problem->shape;
    const bench_options *options = &row->options;
    char pattern[4096];
    bench_pattern_format(pattern, sizeof pattern, s->pattern);
    json_t *json = json_pack(
        "{ss ss ss sI sI sI sI sI sI sI sI sb sI so ss sb sb sb so ss?}", "pass", sp_attention_pass_name(row->pass),
        "dtype", sp_dtype_name(s->dtype), "attention", sp_normalizer_name(options->normalizer), "batch",
        (json_int_t)s->B, "heads", (json_int_t)s->H, "kv_heads", (json_int_t)s->Hkv, "head_dim", (json_int_t)s->D,
        "value_dim", (json_int_t)s->Dv, "length", (json_int_t)s->T, "key_length", (json_int_t)s->S, "page_size",
        (json_int_t)s->page_size, "causal", options->causal, "window", (json_int_t)options->window, "lambda",
        sp_json_number((double)options->lambda), "pattern", pattern, "compute_dead", options->compute_dead, "any_order",
        options->any_order, "liveness", options->liveness, "threads",
        on_gpu(run) ? json_null() : json_integer(row->n_threads), "variant", row->variant);
    if (!row->variant) {
        json_object_set_new(json, "refused", json_string(row->refusal));
        return json;
    }
    double ratio = of_matmul(run, row);
    json_t *results =
        json_pack("{so so sI so so so so so so}", "ms", sp_json_number(1e3 * row->times.least), "ms_median",
                  sp_json_number(1e3 * bench_times_median(&row->times)), "calls", (json_int_t)row->times.n, "gflops",
                  sp_json_number(row_gflops(row)), "executed_gflops", sp_json_number(row_executed(row)), "gb_per_s",
                  sp_json_number(row_gb_per_s(row)), "of_matmul", ratio > 0 ? sp_json_number(ratio) : json_null(),
                  "dead_blocks", sp_json_number(share(row->counts.dead_blocks, row->counts.blocks)), "zeros",
                  sp_json_number(share(row->counts.zero_pairs, row->counts.pairs)));
    json_object_update(json, results);
    json_decref(results);
    return json;
}

/* null for what was not measured */
static json_t *rate_or_null(double rate) { return rate > 0 ? sp_json_number(rate) : json_null(); }

static json_t *describe_scale(const bench_run *run) {
    char device[16], name[256];
    json_t *matmuls = json_array(), *reads = json_array();
    for (int i = 0; i < run->n_matmuls; i++)
        json_array_append_new(matmuls, json_pack("{ss so so}", "dtype", sp_dtype_name(run->matmuls[i].dtype), "threads",
                                                 on_gpu(run) ? json_null() : json_integer(run->matmuls[i].n_threads),
                                                 "gflops", sp_json_number(bench_matmul_gflops(&run->matmuls[i]))));
    for (int i = 0; i < run->n_reads; i++)
        json_array_append_new(reads, json_pack("{si so}", "threads", run->reads[i].n_threads, "gb_per_s",
                                               sp_json_number(bench_read_gb_per_s(&run->reads[i]))));
    cli_device_format(device, sizeof device, run->device->id);
    cli_device_describe(name, sizeof name, run->device->id);
    return json_pack("{si ss ss ss ss ss so ss? so so so}", "schema", 1, "tool", "softpick", "version", sp_version(),
                     "cpu", sp_cpu_model(), "device", device, "device_name", name, "fma_gflops",
                     rate_or_null(run->fma_gflops), "matmul_by", run->matmul_name, "matmul", matmuls, "read", reads,
                     "copy_gb_per_s", rate_or_null(bench_copy_gb_per_s(&run->copy)));
}

/* The only row of that pass, NULL if there is none or more than one. */
static const bench_row *only_row(const bench_run *run, sp_attention_pass pass) {
    const bench_row *found = NULL;
    for (int64_t i = 0; i < run->n_rows; i++) {
        if (run->rows[i].pass != pass) continue;
        if (found) return NULL;
        found = &run->rows[i];
    }
    return found && found->variant ? found : NULL;
}

/* What a pass that was timed for one case alone gave, at the top of the document. */
static void describe_only_rows(json_t *json, const bench_run *run) {
    char key[64];
    const bench_row *last = NULL;
    for (int pass = 0; pass < SP_ATTENTION_PASS_COUNT; pass++) {
        const bench_row *row = only_row(run, (sp_attention_pass)pass);
        if (!row) continue;
        const struct {
            const char *name;
            double value;
        } values[] = {{"ms", 1e3 * row->times.least},
                      {"gflops", row_gflops(row)},
                      {"executed_gflops", row_executed(row)},
                      {"gb_per_s", row_gb_per_s(row)}};
        for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
            snprintf(key, sizeof key, "%s_%s", sp_attention_pass_name((sp_attention_pass)pass), values[i].name);
            json_object_set_new(json, key, sp_json_number(values[i].value));
        }
        last = row;
    }
    if (last && matmul_gflops(run, last) > 0)
        json_object_set_new(json, "matmul_gflops", sp_json_number(matmul_gflops(run, last)));
}

sp_status bench_attention_print_json(const bench_run *run) {
    char *text;
    json_t *json = describe_scale(run), *cases = json_array();
    describe_only_rows(json, run);
    for (int64_t i = 0; i < run->n_rows; i++) json_array_append_new(cases, describe_row(run, &run->rows[i]));
    json_object_set_new(json, "cases", cases);
    sp_status status = sp_json_format(&text, json, 0);
    if (status == SP_OK) printf("%s\n", text);
    json_decref(json);
    if (status == SP_OK) free(text);
    return status;
}
