/* The public calls: check once, choose a variant, run it.  The table of variants is in select.c, the mathematics in
 * definition.c and normalizer.h. */
#include "softpick/attention.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "attention/problem.h"
#include "attention/select.h"
#include "base/memory.h"
#include "base/status.h"

static const char *const normalizers[SP_NORMALIZER_COUNT] = {
    [SP_NORMALIZER_SOFTPICK] = "softpick",
    [SP_NORMALIZER_SOFTMAX] = "softmax",
    [SP_NORMALIZER_SOFTMAX_PLUS_ONE] = "softmax_plus_one",
    [SP_NORMALIZER_SOFTMAX_SINK] = "softmax_sink",
    [SP_NORMALIZER_RECTIFIED] = "rectified",
};

const char *sp_normalizer_name(sp_normalizer normalizer) {
    return (int)normalizer >= 0 && normalizer < SP_NORMALIZER_COUNT ? normalizers[normalizer] : "?";
}

sp_status sp_normalizer_find(sp_normalizer *out, const char *name) {
    char list[128] = "";
    for (int i = 0; i < SP_NORMALIZER_COUNT; i++) {
        if (name && strcmp(name, normalizers[i]) == 0) {
            *out = (sp_normalizer)i;
            return SP_OK;
        }
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", normalizers[i]);
    }
    return sp_fail(SP_BAD_ARGUMENT, "there is no normalizer \"%s\": it can be %s", name ? name : "(NULL)", list);
}

static const char *const passes[SP_ATTENTION_PASS_COUNT] = {
    [SP_ATTENTION_FORWARD] = "forward",
    [SP_ATTENTION_BACKWARD] = "backward",
    [SP_ATTENTION_DECODE] = "decode",
};

const char *sp_attention_pass_name(sp_attention_pass pass) {
    return (int)pass >= 0 && pass < SP_ATTENTION_PASS_COUNT ? passes[pass] : "?";
}

void sp_attention_init_bytes(sp_attention *problem, size_t struct_bytes) {
    memset(problem, 0, struct_bytes);
    problem->struct_bytes = struct_bytes;
    problem->lambda = 1;
    problem->eps = SP_EPS_DEFAULT;
    problem->causal = true;
}

static sp_status check_threads(int n_threads) {
    SP_REQUIRE(n_threads >= 0, SP_BAD_ARGUMENT, "n_threads is %d, it must be >= 0", n_threads);
    return SP_OK;
}

/* The caller's problem, read and checked, and the row that runs it. */
static sp_status prepare(sp_attention *problem, const sp_attention *callers, sp_attention_pass pass,
                         const sp_attention_row **row) {
    SP_TRY(sp_problem_read(problem, callers));
    SP_TRY(sp_problem_check(problem, pass));
    return sp_attention_select(problem, pass, row);
}

sp_status sp_attention_workspace(const sp_attention *callers, sp_attention_pass pass, int n_threads, int64_t *n_bytes) {
    sp_attention problem;
    const sp_attention_row *row;
    SP_TRY(check_threads(n_threads));
    SP_TRY(prepare(&problem, callers, pass, &row));
    return row->workspace(&problem, pass, n_threads, n_bytes);
}

sp_status sp_attention_liveness_words(const sp_attention *callers, int64_t *n_words) {
    sp_attention problem;
    SP_TRY(sp_problem_read(&problem, callers));
    SP_TRY(sp_problem_check_keys(&problem));
    sp_liveness_shape shape = sp_problem_liveness_shape(&problem);
    *n_words = sp_problem_n_sequences(&problem) * problem.q.shape[2] * shape.n_query_tiles * shape.n_key_tiles;
    return SP_OK;
}

static sp_status run(const sp_attention *callers, sp_attention_pass pass, void *workspace, int64_t n_bytes,
                     int n_threads) {
    sp_attention problem;
    const sp_attention_row *row;
    int64_t needed;
    SP_TRY(check_threads(n_threads));
    SP_TRY(prepare(&problem, callers, pass, &row));
    SP_TRY(row->workspace(&problem, pass, n_threads, &needed));
    SP_REQUIRE(n_bytes >= needed, SP_BAD_ARGUMENT,
               "workspace has %" PRId64 " bytes, the pass needs %" PRId64 " (sp_attention_workspace tells)", n_bytes,
               needed);
    SP_REQUIRE(!needed || (workspace && (uintptr_t)workspace % SP_ALIGNMENT == 0), SP_BAD_ARGUMENT, "workspace is %s",
               workspace ? "not at a multiple of 64 bytes" : "NULL");
    return row->run(&problem, pass, n_threads, workspace);
}

sp_status sp_attention_forward(const sp_attention *problem, void *workspace, int64_t n_bytes, int n_threads) {
    return run(problem, SP_ATTENTION_FORWARD, workspace, n_bytes, n_threads);
}

sp_status sp_attention_backward(const sp_attention *problem, void *workspace, int64_t n_bytes, int n_threads) {
    return run(problem, SP_ATTENTION_BACKWARD, workspace, n_bytes, n_threads);
}

sp_status sp_attention_decode(const sp_attention *problem, void *workspace, int64_t n_bytes, int n_threads) {
    return run(problem, SP_ATTENTION_DECODE, workspace, n_bytes, n_threads);
}

sp_status sp_attention_choose(const sp_attention *callers, sp_attention_pass pass, const char **name) {
    sp_attention problem;
    const sp_attention_row *row;
    *name = NULL;
    SP_TRY(prepare(&problem, callers, pass, &row));
    *name = row->variant.name;
    return SP_OK;
}

bool sp_attention_variant(const sp_attention *callers, sp_attention_pass pass, int i, const char **name,
                          const char **why) {
    sp_attention problem;
    const char *reason = "";
    *name = NULL;
    if (why) *why = reason;
    if (i < 0 || i >= sp_attention_table.n_rows) return false;
    *name = sp_variant_at(&sp_attention_table, i)->name;
    if (sp_problem_read(&problem, callers) != SP_OK) {
        if (why) *why = sp_last_message();
        return false;
    }
    sp_attention_question question = {&problem, pass};
    bool takes = sp_variant_takes(&sp_attention_table, i, &question, &reason);
    if (why) *why = reason;
    return takes;
}
