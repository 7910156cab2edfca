/* Captured tensors: reading them into a problem, whatever its batch and heads; `softpick bench capture` writes them. */
#include "cli/bench_captured.h"

#include <inttypes.h>

#include "attention/problem.h"
#include "cli/bench_number.h"
#include "softpick/checkpoint.h"

/* ---- reading ---------------------------------------------------------------------------------------------------- */

typedef struct captured {
    const sp_tensor *q, *k, *v;
} captured;

static bool holds_numbers(const sp_tensor *t) {
    return t && t->n_dims == 4 && sp_tensor_count(t) > 0 &&
           (t->dtype == SP_DTYPE_F32 || t->dtype == SP_DTYPE_BF16 || t->dtype == SP_DTYPE_F16);
}

/* As many sequences, tokens and heads in each as attention asks for. */
static bool fit_together(const captured *c) {
    for (int i = 0; i < 2; i++)
        if (c->q->shape[i] != c->k->shape[i] || c->k->shape[i] != c->v->shape[i]) return false;
    return c->k->shape[2] == c->v->shape[2] && c->q->shape[3] == c->k->shape[3] && c->q->shape[2] % c->k->shape[2] == 0;
}

static sp_status find_tensors(captured *c, const sp_safetensors *file, const char *path) {
    *c = (captured){sp_safetensors_find(file, "q"), sp_safetensors_find(file, "k"), sp_safetensors_find(file, "v")};
    SP_REQUIRE(holds_numbers(c->q) && holds_numbers(c->k) && holds_numbers(c->v) && fit_together(c), SP_BAD_FILE,
               "%s: not q (B,T,H,D), k (B,T,Hkv,D) and v (B,T,Hkv,Dv) in f32, bf16 or f16", path);
    return SP_OK;
}

static sp_status check_shape(const captured *c, const char *path, const sp_tensor *k, const sp_tensor *v) {
    SP_REQUIRE(c->q->shape[3] == k->shape[3] && c->v->shape[3] == v->shape[3], SP_BAD_ARGUMENT,
               "%s: its heads have %" PRId64 " channels (values %" PRId64 "), %" PRId64 " (%" PRId64 ") were asked for",
               path, c->q->shape[3], c->v->shape[3], k->shape[3], v->shape[3]);
    SP_REQUIRE(c->q->shape[1] >= k->shape[1], SP_BAD_ARGUMENT,
               "%s: its sequences have %" PRId64 " tokens, %" PRId64 " were asked for", path, c->q->shape[1],
               k->shape[1]);
    return SP_OK;
}

/* Head h of `group` heads to a key head, in a file of n_key_heads with file_group to each. */
static int64_t head_in_file(int64_t h, int64_t group, int64_t n_key_heads, int64_t file_group) {
    return h / group % n_key_heads * file_group + h % group % file_group;
}

/* Row t of `to` is row `first` + t of `from`. */
static void copy_rows(const sp_tensor *to, const sp_tensor *from, int64_t first, int64_t group, int64_t n_key_heads) {
    const int64_t T = to->shape[1], H = to->shape[2], width = to->shape[3], file_group = from->shape[2] / n_key_heads;
#pragma omp parallel for
    for (int64_t i = 0; i < to->shape[0] * T * H; i++) {
        int64_t b = i / (T * H), t = i / H % T, h = i % H;
        const char *in =
            sp_problem_row(from, b % from->shape[0], first + t, head_in_file(h, group, n_key_heads, file_group));
        char *out = sp_problem_row(to, b, t, h);
        for (int64_t d = 0; d < width; d++) bench_store(out, to->dtype, d, bench_load(in, from->dtype, d));
    }
}

sp_status bench_captured_fill(const char *path, const sp_tensor *q, const sp_tensor *k, const sp_tensor *v) {
    sp_status status = SP_OK;
    sp_safetensors *file = NULL;
    captured c;
    SP_TRY_OR_DONE(sp_safetensors_open(&file, path));
    SP_TRY_OR_DONE(find_tensors(&c, file, path));
    SP_TRY_OR_DONE(check_shape(&c, path, k, v));
    const int64_t n_key_heads = c.k->shape[2];
    copy_rows(q, c.q, k->shape[1] - q->shape[1], q->shape[2] / k->shape[2], n_key_heads);
    copy_rows(k, c.k, 0, 1, n_key_heads);
    copy_rows(v, c.v, 0, 1, n_key_heads);
done:
    sp_safetensors_close(file);
    return status;
}
