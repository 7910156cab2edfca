/* The checks that stand before every call: each refusal names the argument and its values. */
#include "attention/problem.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"

static sp_status check_tensor(const sp_tensor *tensor, const char *name, const sp_attention *problem) {
    SP_REQUIRE(tensor->n_dims == 4, SP_BAD_ARGUMENT, "%s has %" PRId64 " dimensions, not 4", name, tensor->n_dims);
    SP_REQUIRE(tensor->dtype == problem->q.dtype, SP_BAD_ARGUMENT, "%s is %s, q is %s: they must share a dtype", name,
               sp_dtype_name(tensor->dtype), sp_dtype_name(problem->q.dtype));
    SP_REQUIRE(tensor->device == problem->q.device, SP_BAD_ARGUMENT, "%s is on device %d, q on device %d", name,
               (int)tensor->device, (int)problem->q.device);
    int64_t count = 8; /* bytes of the widest number: what the code below computes from a shape must not overflow */
    bool empty = false;
    for (int i = 0; i < 4; i++) {
        SP_REQUIRE(tensor->shape[i] >= 0, SP_BAD_ARGUMENT, "%s has a dimension of %" PRId64, name, tensor->shape[i]);
        empty = empty || tensor->shape[i] == 0;
        SP_REQUIRE(sp_multiply_sizes(count, tensor->shape[i] ? tensor->shape[i] : 1, &count), SP_BAD_ARGUMENT,
                   "%s is too large to count", name);
    }
    SP_REQUIRE(tensor->shape[3] <= 1 || tensor->stride[3] == 1, SP_BAD_ARGUMENT,
               "%s has a stride of %" PRId64 " in its last dimension, which must be contiguous", name,
               tensor->stride[3]);
    SP_REQUIRE(empty || tensor->data, SP_BAD_ARGUMENT, "%s has no data", name);
    return SP_OK;
}

static sp_status check_shape(const sp_tensor *tensor, const char *name, int64_t b, int64_t t, int64_t h, int64_t d,
                             const char *like) {
    const int64_t wanted[4] = {b, t, h, d}, *shape = tensor->shape;
    for (int i = 0; i < 4; i++)
        SP_REQUIRE(shape[i] == wanted[i], SP_BAD_ARGUMENT,
                   "%s is (%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 "), %s asks for (%" PRId64 ",%" PRId64
                   ",%" PRId64 ",%" PRId64 ")",
                   name, shape[0], shape[1], shape[2], shape[3], like, b, t, h, d);
    return SP_OK;
}

static sp_status check_options(const sp_attention *problem) {
    SP_REQUIRE((int)problem->normalizer >= 0 && problem->normalizer < SP_NORMALIZER_COUNT, SP_BAD_ARGUMENT,
               "normalizer %d is not one of the %d", (int)problem->normalizer, (int)SP_NORMALIZER_COUNT);
    SP_REQUIRE(isfinite(problem->scale), SP_BAD_ARGUMENT, "scale is %g, not a finite number", (double)problem->scale);
    SP_REQUIRE(isfinite(problem->lambda) && problem->lambda >= 0, SP_BAD_ARGUMENT,
               "lambda is %g, not a finite number >= 0", (double)problem->lambda);
    SP_REQUIRE(isfinite(problem->eps) && problem->eps >= 0, SP_BAD_ARGUMENT, "eps is %g, not a finite number >= 0",
               (double)problem->eps);
    SP_REQUIRE(problem->normalizer != SP_NORMALIZER_SOFTMAX_SINK || problem->sink, SP_BAD_ARGUMENT,
               "sink is NULL, softmax_sink needs one number per head");
    SP_REQUIRE(problem->window >= 0, SP_BAD_ARGUMENT, "window is %" PRId64 ", it must be >= 0", problem->window);
    return SP_OK;
}

/* Starts of packed sequences: cu[0] = 0, not decreasing, cu[n] = `total`. */
static sp_status check_starts(const int64_t *cu, const char *name, int64_t n, int64_t total) {
    SP_REQUIRE(cu[0] == 0, SP_BAD_ARGUMENT, "%s[0] is %" PRId64 ", not 0", name, cu[0]);
    for (int64_t i = 0; i < n; i++)
        SP_REQUIRE(cu[i] <= cu[i + 1], SP_BAD_ARGUMENT, "%s decreases from %" PRId64 " to %" PRId64 " at %" PRId64,
                   name, cu[i], cu[i + 1], i + 1);
    SP_REQUIRE(cu[n] == total, SP_BAD_ARGUMENT, "%s ends at %" PRId64 ", the tensor has %" PRId64 " positions", name,
               cu[n], total);
    return SP_OK;
}

static sp_status check_pages(const sp_attention *problem) {
    int64_t n_pages = problem->k.shape[0], page_size = problem->k.shape[1], per_sequence = problem->pages_per_sequence;
    SP_REQUIRE(problem->key_lengths, SP_BAD_ARGUMENT, "page_table is given without key_lengths");
    SP_REQUIRE(!problem->cu_q && !problem->cu_k, SP_BAD_ARGUMENT, "page_table cannot be used with cu_q");
    SP_REQUIRE(per_sequence >= 0, SP_BAD_ARGUMENT, "pages_per_sequence is %" PRId64, per_sequence);
    for (int64_t b = 0; b < problem->q.shape[0]; b++) {
        int64_t length = problem->key_lengths[b], n = page_size > 0 ? (length + page_size - 1) / page_size : 0;
        SP_REQUIRE(length >= 0 && n <= per_sequence && (length == 0 || page_size > 0), SP_BAD_ARGUMENT,
                   "key_lengths[%" PRId64 "] is %" PRId64 ", %" PRId64 " pages of %" PRId64 " keys hold less", b,
                   length, per_sequence, page_size);
        for (int64_t i = 0; i < n; i++) {
            int64_t page = problem->page_table[b * per_sequence + i];
            SP_REQUIRE(page >= 0 && page < n_pages, SP_BAD_ARGUMENT,
                       "page_table[%" PRId64 "][%" PRId64 "] is %" PRId64 ", there are %" PRId64 " pages", b, i, page,
                       n_pages);
        }
    }
    return SP_OK;
}

static sp_status check_sequences(const sp_attention *problem) {
    int64_t B = problem->q.shape[0], T = problem->q.shape[1], S = problem->k.shape[1];
    if (problem->page_table) return check_pages(problem);
    if (problem->cu_q) {
        SP_REQUIRE(B == 1, SP_BAD_ARGUMENT, "q has B = %" PRId64 ", packed sequences need B = 1", B);
        SP_REQUIRE(!problem->key_lengths, SP_BAD_ARGUMENT, "key_lengths cannot be used with cu_q");
        SP_REQUIRE(problem->n_sequences >= 0, SP_BAD_ARGUMENT, "n_sequences is %" PRId64, problem->n_sequences);
        SP_TRY(check_starts(problem->cu_q, "cu_q", problem->n_sequences, T));
        return check_starts(problem->cu_k ? problem->cu_k : problem->cu_q, problem->cu_k ? "cu_k" : "cu_q (as cu_k)",
                            problem->n_sequences, S);
    }
    SP_REQUIRE(!problem->cu_k, SP_BAD_ARGUMENT, "cu_k is given without cu_q");
    for (int64_t b = 0; problem->key_lengths && b < B; b++)
        SP_REQUIRE(problem->key_lengths[b] >= 0 && problem->key_lengths[b] <= S, SP_BAD_ARGUMENT,
                   "key_lengths[%" PRId64 "] is %" PRId64 ", k has %" PRId64 " keys", b, problem->key_lengths[b], S);
    return SP_OK;
}

sp_status sp_problem_read(sp_attention *copy, const sp_attention *callers) {
    /* the first release's struct ended here */
    const size_t least = offsetof(sp_attention, compute_dead) + sizeof copy->compute_dead;
    SP_REQUIRE(callers, SP_BAD_ARGUMENT, "the problem is NULL");
    SP_REQUIRE(callers->struct_bytes >= least && callers->struct_bytes <= sizeof *copy, SP_BAD_ARGUMENT,
               "struct_bytes is %zu, this library knows %zu to %zu: sp_attention_init sets it", callers->struct_bytes,
               least, sizeof *copy);
    *copy = (sp_attention){0};
    memcpy(copy, callers, callers->struct_bytes);
    return SP_OK;
}

sp_liveness_shape sp_problem_liveness_shape(const sp_attention *problem) {
    int64_t n_q = 0, n_k = 0;
    for (int64_t i = 0; i < sp_problem_n_sequences(problem); i++) {
        sp_sequence sequence = sp_problem_sequence(problem, i);
        if (sequence.n_q > n_q) n_q = sequence.n_q;
        if (sequence.n_k_rows > n_k) n_k = sequence.n_k_rows;
    }
    return (sp_liveness_shape){.n_query_tiles = (n_q + SP_LIVENESS_QUERIES - 1) / SP_LIVENESS_QUERIES,
                               .n_key_tiles = (n_k + SP_LIVENESS_KEYS - 1) / SP_LIVENESS_KEYS};
}

sp_status sp_problem_check_keys(const sp_attention *problem) {
    const sp_tensor *q = &problem->q, *k = &problem->k;
    SP_REQUIRE(q->dtype == SP_DTYPE_F32 || q->dtype == SP_DTYPE_BF16 || q->dtype == SP_DTYPE_F16 ||
                   q->dtype == SP_DTYPE_F64,
               SP_BAD_ARGUMENT, "q is %s, attention is computed in f32, bf16, f16 or f64", sp_dtype_name(q->dtype));
    SP_TRY(check_tensor(q, "q", problem));
    SP_TRY(check_tensor(k, "k", problem));
    SP_REQUIRE(q->shape[3] >= 1, SP_BAD_ARGUMENT, "q has no channels");
    SP_REQUIRE(k->shape[2] >= 1 && q->shape[2] % k->shape[2] == 0, SP_BAD_ARGUMENT,
               "k has %" PRId64 " heads, q has %" PRId64 ": not a multiple", k->shape[2], q->shape[2]);
    SP_TRY(check_shape(k, "k", problem->page_table ? k->shape[0] : q->shape[0], k->shape[1], k->shape[2], q->shape[3],
                       "q"));
    SP_TRY(check_options(problem));
    return check_sequences(problem);
}

/* Members that belong to another pass. */
static sp_status check_pass(const sp_attention *problem, sp_attention_pass pass) {
    const char *name = sp_attention_pass_name(pass);
    SP_REQUIRE(!problem->page_table || pass == SP_ATTENTION_DECODE, SP_BAD_ARGUMENT,
               "page_table is given, but %s takes no pages: decode does", name);
    if (pass != SP_ATTENTION_DECODE) return SP_OK;
    SP_REQUIRE(!problem->cu_q, SP_BAD_ARGUMENT, "cu_q is given, but decode takes no packed sequences");
    SP_REQUIRE(!sp_problem_wants_statistics(problem), SP_BAD_ARGUMENT,
               "statistics are wanted, but decode has none: forward does");
    SP_REQUIRE(!problem->liveness, SP_BAD_ARGUMENT, "liveness is given, but decode writes none: forward does");
    return SP_OK;
}

sp_status sp_problem_check(const sp_attention *problem, sp_attention_pass pass) {
    SP_REQUIRE((int)pass >= 0 && pass < SP_ATTENTION_PASS_COUNT, SP_BAD_ARGUMENT,
               "pass %d is neither forward nor backward nor decode", (int)pass);
    SP_TRY(check_pass(problem, pass));
    SP_TRY(sp_problem_check_keys(problem));
    const sp_tensor *q = &problem->q, *k = &problem->k, *v = &problem->v;
    SP_TRY(check_tensor(v, "v", problem));
    SP_TRY(check_shape(v, "v", k->shape[0], k->shape[1], k->shape[2], v->shape[3], "k"));
    SP_TRY(check_tensor(&problem->out, "out", problem));
    SP_TRY(check_shape(&problem->out, "out", q->shape[0], q->shape[1], q->shape[2], v->shape[3], "q and v"));
    if (pass != SP_ATTENTION_BACKWARD) return SP_OK;
    SP_REQUIRE(problem->lse, SP_BAD_ARGUMENT, "lse is NULL, backward needs what forward stored there");
    SP_REQUIRE(!problem->dsink || problem->normalizer == SP_NORMALIZER_SOFTMAX_SINK, SP_BAD_ARGUMENT,
               "dsink is given, but %s has no sink", sp_normalizer_name(problem->normalizer));
    SP_REQUIRE(!problem->drow_factor || problem->row_factor, SP_BAD_ARGUMENT,
               "drow_factor is given, but row_factor is NULL");
    const struct {
        const sp_tensor *tensor, *like;
        const char *name, *like_name;
    } gradients[] = {{&problem->dout, &problem->out, "dout", "out"},
                     {&problem->dq, q, "dq", "q"},
                     {&problem->dk, k, "dk", "k"},
                     {&problem->dv, v, "dv", "v"}};
    for (int i = 0; i < 4; i++) {
        const int64_t *shape = gradients[i].like->shape;
        SP_TRY(check_tensor(gradients[i].tensor, gradients[i].name, problem));
        SP_TRY(check_shape(gradients[i].tensor, gradients[i].name, shape[0], shape[1], shape[2], shape[3],
                           gradients[i].like_name));
    }
    return SP_OK;
}
