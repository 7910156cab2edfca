/* Which code computes an attention problem: the table of variants, best first, those for the CPU before those for GPUs.
 * The scalar row takes all that any row of the CPU takes.  To add a row: its body in cpu/ or cuda/, and a line here. */
#include "attention/select.h"

#include <string.h>

#include "attention/cpu/attention_cpu.h"
#include "attention/cpu/decode.h"
#include "attention/cpu/pairs.h"
#include "attention/cpu/pairs_backward.h"
#include "base/status.h"
#include "softpick/device.h"
#if SP_WITH_CUDA
#include "attention/cuda/sm80.h"
#include "attention/cuda/sm80_backward.h"
#include "attention/cuda/sm90.h"
#include "attention/cuda/sm90_backward.h"
#include "attention/cuda/sm90_decode.h"
#endif

static bool on_cpu(const void *asked, const char **why) {
    const sp_attention *problem = ((const sp_attention_question *)asked)->problem;
    if (problem->q.device != 0) {
        *why = "the tensors are not in host memory";
        return false;
    }
    if (problem->q.dtype == SP_DTYPE_F64) {
        *why = "f64 is computed by the definition alone";
        return false;
    }
    return true;
}

static sp_status workspace_cpu(const sp_attention *problem, sp_attention_pass pass, int n_threads, int64_t *n_bytes) {
    return pass == SP_ATTENTION_DECODE ? sp_decode_workspace(problem, n_threads, n_bytes)
                                       : sp_cpu_workspace(problem, pass, n_threads, n_bytes);
}

#define CPU_ROW(isa)                                                                                                   \
    static sp_status run_##isa(const sp_attention *problem, sp_attention_pass pass, int n_threads, void *workspace) {  \
        if (pass == SP_ATTENTION_DECODE)                                                                               \
            sp_decode_run(&sp_decode_body_##isa, problem, n_threads, workspace);                                       \
        else                                                                                                           \
            sp_cpu_run(&sp_cpu_body_##isa, problem, pass, n_threads, workspace);                                       \
        return SP_OK;                                                                                                  \
    }                                                                                                                  \
    static sp_status rows_##isa(const sp_attention *problem, sp_attention_row_function function, void *user) {         \
        return sp_cpu_rows(&sp_cpu_body_##isa, problem, function, user);                                               \
    }

#if defined(__x86_64__)
CPU_ROW(avx512)
CPU_ROW(avx2)
#elif defined(__aarch64__)
CPU_ROW(neon)
#endif
CPU_ROW(scalar)

#if defined(__x86_64__)
/* Decode waits for memory, not for products: these rows compute it as avx512 does. */
static bool on_pairs(const void *asked, const char **why) {
    const sp_attention_question *question = asked;
    if (!on_cpu(asked, why)) return false;
    if (question->pass != SP_ATTENTION_DECODE) return sp_pairs_accept(question->problem, question->pass, why);
    bool takes = question->problem->q.dtype == SP_DTYPE_BF16;
    *why = takes ? "" : "it computes bf16 alone";
    return takes;
}

static sp_status workspace_pairs(const sp_attention *problem, sp_attention_pass pass, int n_threads, int64_t *n_bytes) {
    switch (pass) {
    case SP_ATTENTION_DECODE: return sp_decode_workspace(problem, n_threads, n_bytes);
    case SP_ATTENTION_BACKWARD: return sp_pairs_backward_workspace(problem, n_threads, n_bytes);
    default: return sp_pairs_forward_workspace(problem, n_threads, n_bytes);
    }
}

#define PAIRS_ROW(isa)                                                                                                 \
    static sp_status run_##isa(const sp_attention *problem, sp_attention_pass pass, int n_threads, void *workspace) {  \
        switch (pass) {                                                                                                \
        case SP_ATTENTION_DECODE: sp_decode_run(&sp_decode_body_avx512, problem, n_threads, workspace); break;         \
        case SP_ATTENTION_BACKWARD:                                                                                    \
            sp_pairs_backward_run(&sp_pairs_backward_##isa, problem, n_threads, workspace);                            \
            break;                                                                                                     \
        default: sp_pairs_forward_run(&sp_pairs_body_##isa, problem, n_threads, workspace);                            \
        }                                                                                                              \
        return SP_OK;                                                                                                  \
    }

PAIRS_ROW(amx)
PAIRS_ROW(avx512_bf16)

/* On Intel's processors a dot product of bf16 pairs takes four times as long as a product of f32, and does twice
 * as much (measured on one with AMX, which such a machine takes in any case). */
static bool on_dots(const void *asked, const char **why) {
    const char *named = sp_variant_named(&sp_attention_table);
    if (!on_pairs(asked, why)) return false;
    *why = "this CPU's bf16 dot products are slower than its f32 products; it runs if it is named";
    return !strstr(sp_cpu_model(), "Intel") || (named && strcmp(named, "avx512_bf16") == 0);
}

enum { AVX512_BF16 = SP_CPU_AVX2 | SP_CPU_AVX512 | SP_CPU_AVX512_BF16, AMX = AVX512_BF16 | SP_CPU_AMX_BF16 };
#endif

#if SP_WITH_CUDA
static bool on_sm80(const void *asked, const char **why) {
    const sp_attention_question *question = asked;
    return sp_sm80_accepts(question->problem, question->pass, why);
}

static sp_status workspace_sm80(const sp_attention *problem, sp_attention_pass pass, int n_threads, int64_t *n_bytes) {
    (void)n_threads;
    switch (pass) {
    case SP_ATTENTION_DECODE: return sp_sm80_decode_workspace(problem, n_bytes);
    case SP_ATTENTION_BACKWARD: return sp_sm80_backward_workspace(problem, n_bytes);
    default: return sp_sm80_forward_workspace(problem, n_bytes);
    }
}

static sp_status run_sm80(const sp_attention *problem, sp_attention_pass pass, int n_threads, void *workspace) {
    (void)n_threads;
    switch (pass) {
    case SP_ATTENTION_DECODE: return sp_sm80_decode(problem, workspace);
    case SP_ATTENTION_BACKWARD: return sp_sm80_backward(problem, workspace);
    default: return sp_sm80_forward(problem, workspace);
    }
}

static sp_status rows_sm80(const sp_attention *problem, sp_attention_row_function function, void *user);

static bool on_sm90(const void *asked, const char **why) {
    const sp_attention_question *question = asked;
    return sp_sm90_accepts(question->problem, question->pass, why);
}

static sp_status workspace_sm90(const sp_attention *problem, sp_attention_pass pass, int n_threads, int64_t *n_bytes) {
    (void)n_threads;
    switch (pass) {
    case SP_ATTENTION_DECODE: return sp_sm90_decode_workspace(problem, n_bytes);
    case SP_ATTENTION_BACKWARD: return sp_sm90_backward_workspace(problem, n_bytes);
    default: return sp_sm90_forward_workspace(problem, n_bytes);
    }
}

static sp_status run_sm90(const sp_attention *problem, sp_attention_pass pass, int n_threads, void *workspace) {
    (void)n_threads;
    switch (pass) {
    case SP_ATTENTION_DECODE: return sp_sm90_decode(problem, workspace);
    case SP_ATTENTION_BACKWARD: return sp_sm90_backward(problem, workspace);
    default: return sp_sm90_forward(problem, workspace);
    }
}
#endif

static const sp_attention_row rows[] = {
#if defined(__x86_64__)
    {{"amx", AMX, on_pairs}, workspace_pairs, run_amx, rows_avx512, NULL, false},
    {{"avx512_bf16", AVX512_BF16, on_dots}, workspace_pairs, run_avx512_bf16, rows_avx512, NULL, false},
    {{"avx512", SP_CPU_AVX2 | SP_CPU_AVX512, on_cpu}, workspace_cpu, run_avx512, rows_avx512, NULL, false},
    {{"avx2", SP_CPU_AVX2, on_cpu}, workspace_cpu, run_avx2, rows_avx2, NULL, false},
#elif defined(__aarch64__)
    {{"neon", SP_CPU_NEON, on_cpu}, workspace_cpu, run_neon, rows_neon, NULL, false},
#endif
    {{"scalar", 0, on_cpu}, workspace_cpu, run_scalar, rows_scalar, NULL, false},
#if SP_WITH_CUDA
    {{"sm90", 0, on_sm90}, workspace_sm90, run_sm90, rows_sm80, sp_sm80_row_sums, true},
    {{"sm80", 0, on_sm80}, workspace_sm80, run_sm80, rows_sm80, sp_sm80_row_sums, true},
#endif
};

const sp_variant_table sp_attention_table = {
    .variable = "SP_ATTENTION", .rows = rows, .row_bytes = sizeof *rows, .n_rows = sizeof rows / sizeof *rows};

sp_status sp_attention_host_rows(const sp_attention *problem, sp_attention_row_function function, void *user) {
    const char *why = "";
    sp_status status = SP_UNSUPPORTED;
    sp_attention_question question = {problem, SP_ATTENTION_FORWARD};
    for (int i = 0; i < sp_attention_table.n_rows && status == SP_UNSUPPORTED; i++)
        if (sp_variant_takes(&sp_attention_table, i, &question, &why)) status = rows[i].rows(problem, function, user);
    return status;
}

#if SP_WITH_CUDA
static sp_status rows_sm80(const sp_attention *problem, sp_attention_row_function function, void *user) {
    sp_attention host;
    SP_TRY(sp_sm80_keys_download(problem, &host));
    sp_status status = sp_attention_host_rows(&host, function, user);
    sp_sm80_keys_release(&host);
    return status;
}
#endif

/* The rows for the tensors' kind of device, which stand together: a refusal then gives a reason that concerns it.  A row
 * that is named is looked for among all. */
static sp_variant_table rows_for(const sp_attention *problem, int *first) {
    sp_variant_table part = sp_attention_table;
    *first = 0;
    if (sp_variant_named(&part)) return part;
    bool gpu = problem->q.device != 0;
    int n = 0;
    for (int i = 0; i < sp_attention_table.n_rows; i++)
        if (rows[i].gpu == gpu && n++ == 0) *first = i;
    if (n == 0) return part;
    part.rows = &rows[*first];
    part.n_rows = n;
    return part;
}

sp_status sp_attention_select(const sp_attention *problem, sp_attention_pass pass, const sp_attention_row **row) {
    sp_attention_question question = {problem, pass};
    int first, index;
    *row = NULL;
    sp_variant_table part = rows_for(problem, &first);
    SP_TRY(sp_variant_choose(&part, &question, &index));
    *row = &rows[first + index];
    return SP_OK;
}
