/* Attention by every variant against the definition.  The input chooses a small problem: its sizes, options and layout,
 * the pass, how its numbers are drawn, and what is put in their place here and there.  Lists (key lengths, starts, page
 * table) may be spoiled: then all refuse alike.  Tolerances are wide, since a fuzzer looks for the worst rounding too:
 * the tests have the narrow ones. */
#define _GNU_SOURCE /* setenv */
#include "fuzzer.h"

#include <stdlib.h>

#include "../tests/attention_agree.h"

static void require(bool holds) {
    if (!holds) abort();
}

typedef struct input {
    const uint8_t *bytes;
    size_t n;
} input;

/* The next byte, below `limit`; 0 when there are no more. */
static int64_t take(input *in, int64_t limit) {
    if (in->n == 0) return 0;
    in->n--;
    return *in->bytes++ % limit;
}

static attention_shape take_shape(input *in, sp_attention_pass pass) {
    static const int64_t widths[] = {16, 8, 32, 24, 64, 40, 1, 3, 17, 72};
    static const float lambdas[] = {1, 0, 0.5f, 2}, epsilons[] = {SP_EPS_DEFAULT, 0, 0.25f},
                       spreads[] = {1, 3, 0.01f, 30};
    attention_shape s = {.B = take(in, 3), .Hkv = 1 + take(in, 2)};
    s.H = s.Hkv * (1 + take(in, 3));
    s.D = widths[take(in, 10)];
    int64_t width = take(in, 20);
    s.Dv = width < 10 ? widths[width] : s.D;
    s.T = take(in, pass == SP_ATTENTION_DECODE ? 10 : 40);
    s.S = take(in, 2) ? s.T : take(in, 100);
    s.dtype = (sp_dtype)take(in, 3);
    s.normalizer = (sp_normalizer)take(in, SP_NORMALIZER_COUNT);
    s.lambda = lambdas[take(in, 4)];
    s.eps = epsilons[take(in, 3)];
    s.spread = spreads[take(in, 4)];
    s.window = take(in, 3) ? 0 : take(in, 100);
    int64_t flags = take(in, 256);
    s.causal = flags & 1, s.row_factor = flags & 2, s.lengths = flags & 4, s.head_major = flags & 8;
    s.liveness = flags & 16 && pass == SP_ATTENTION_FORWARD, s.statistics = flags & 32 && pass == SP_ATTENTION_FORWARD;
    s.compute_dead = flags & 64, s.interleaved = flags & 128 && s.S == s.T && !s.head_major;
    s.n_packed = pass == SP_ATTENTION_FORWARD && !s.lengths ? take(in, 8) : 0;
    if (s.n_packed) s.B = 1;
    s.page_size = pass == SP_ATTENTION_DECODE ? take(in, 20) : 0;
    s.lengths = s.lengths || s.page_size, s.interleaved = s.interleaved && !s.page_size;
    s.seed = (uint64_t)take(in, 256) << 8 | (uint64_t)take(in, 256);
    return s;
}

/* A list's number becomes another, which may be wrong.  Key lengths do not grow within their bound: keys past them are
 * NaN. */
static void spoil_list(attention_case *c, int64_t which, int64_t at, int64_t value) {
    int64_t B = c->problem.q.shape[0], n = c->problem.n_sequences + 1;
    int64_t *length = c->key_lengths && B ? &c->key_lengths[at % B] : NULL;
    if (which == 0 && length && (value <= *length || value > 160)) *length = value;
    if (which == 1 && c->cu_q) c->cu_q[at % n] = value;
    if (which == 2 && c->cu_k) c->cu_k[at % n] = value;
    int64_t n_entries = B * c->problem.pages_per_sequence;
    if (which == 3 && c->page_table && n_entries > 0) c->page_table[at % n_entries] = value;
}

/* Some rows of q, k or v become constant. */
static void replace_row(attention_case *c, int64_t which, int64_t at, int64_t kind) {
    static const double values[] = {0, 1, -1, 8, -8, 0x1p-20};
    const sp_tensor *tensor = c->tensors[which];
    int64_t rows = tensor->shape[0] * tensor->shape[1] * tensor->shape[2];
    if (rows == 0) return;
    int64_t row = at % rows, h = row % tensor->shape[2], t = row / tensor->shape[2] % tensor->shape[1];
    for (int64_t d = 0; d < tensor->shape[3]; d++)
        case_store(tensor, row / tensor->shape[2] / tensor->shape[1], t, h, d, values[kind]);
}

static void prepare(attention_case *c, const void *user) {
    input in = *(const input *)user;
    while (in.n) {
        int64_t what = take(&in, 16), at = take(&in, 256), value = take(&in, 256);
        if (what < 4 && !c->problem.liveness)
            spoil_list(c, what, at, value < 200 ? value : value - 256);
        else
            replace_row(c, what % 3, at * 7, value % 6);
    }
}

static bool check_refusal(const char *variant, void *user) {
    agree_case *a = user;
    attention_case ours;
    agree_open_copy(a, &ours);
    bool refused = case_run(&ours, a->pass, 1) != SP_OK;
    if (!refused) fprintf(stderr, "%s [%s]: runs what the definition refuses\n", a->text, variant);
    case_close(&ours);
    return refused;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    input in = {data, n_bytes};
    agree_case a = {.prepare = prepare, .user = &in, .lenience = 20};
    a.pass = take(&in, 3) ? SP_ATTENTION_FORWARD : SP_ATTENTION_DECODE;
    a.shape = take_shape(&in, a.pass);
    if (in.n > 24) in.n = 24;
    if (agree_open(&a) == SP_OK)
        require(agree_with_each_variant(agree_check_variant, &a));
    else
        require(agree_with_each_variant(check_refusal, &a));
    agree_close(&a);
    return 0;
}
