/* Every layer on a CUDA device against plain loops in double, on outputs and workspaces that begin as NaN, and twice: the
 * second run must give the same bits. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "formats/halves.h"
#include "softpick/device.h"
#include "test_layers.h"

static const sp_dtype BF16 = SP_DTYPE_BF16, F32 = SP_DTYPE_F32;

static sp_device *gpu;
static const sp_layers *layers;

static int open_gpu(void **state) {
    (void)state;
    if (sp_cuda_device_count() == 0) return 0;
    layers = sp_layers_on_id(1);
    return sp_device_open(&gpu, 1) == SP_OK ? 0 : -1;
}

static int close_gpu(void **state) {
    (void)state;
    sp_device_close(gpu);
    return 0;
}

#define NEEDS_GPU(state)                                                                                               \
    (void)(state);                                                                                                     \
    if (!gpu) skip()

/* ---- arrays on both sides ---- */

/* n numbers and a NaN behind them; `before` is what a run finds, `after` what it leaves. */
typedef struct array {
    sp_dtype dtype;
    int64_t n, bytes;
    void *before, *after, *gpu;
} array;

static array arrays[16];
static int n_arrays;

static void must(sp_status status) {
    if (status != SP_OK) fail_msg("%s", sp_last_message());
}

static array *array_of(sp_dtype dtype, int64_t n, void *before) {
    array *a = &arrays[n_arrays++];
    *a = (array){dtype, n, (n + 1) * sp_dtype_bytes(dtype), before, numbers(dtype, n), NULL};
    must(sp_device_allocate(gpu, &a->gpu, a->bytes, "test"));
    return a;
}

static array *blank(sp_dtype dtype, int64_t n) { return array_of(dtype, n, numbers(dtype, n)); }

static array *random_array(sp_dtype dtype, int64_t n, double scale) {
    return array_of(dtype, n, random_numbers(dtype, n, (uint64_t)n_arrays, scale));
}

/* Whole numbers in [0, limit). */
static array *random_indices(int64_t n, int64_t limit) {
    array *a = blank(SP_DTYPE_I32, n);
    for (int64_t i = 0; i < n; i++)
        ((int32_t *)a->before)[i] = (int32_t)sp_random_below(2, (uint64_t)n_arrays, (uint64_t)i, (uint64_t)limit);
    return a;
}

static double before(const array *a, int64_t i) { return number_at(a->before, a->dtype, i); }
static double after(const array *a, int64_t i) { return number_at(a->after, a->dtype, i); }

static void free_arrays(void) {
    for (array *a = arrays; a < arrays + n_arrays; a++) {
        free(a->before);
        free(a->after);
        sp_device_release(gpu, a->gpu);
    }
    n_arrays = 0;
}

static void run_once(void (*run)(const void *problem), const void *problem) {
    for (array *a = arrays; a < arrays + n_arrays; a++) must(sp_device_upload(gpu, a->gpu, a->before, a->bytes));
    run(problem);
    for (array *a = arrays; a < arrays + n_arrays; a++) must(sp_device_download(gpu, a->after, a->gpu, a->bytes));
}

/* Runs a layer twice on the same arrays, and compares the bits. */
static void run_twice(void (*run)(const void *problem), const void *problem) {
    void *first[16];
    run_once(run, problem);
    for (int i = 0; i < n_arrays; i++) {
        first[i] = malloc((size_t)arrays[i].bytes);
        memcpy(first[i], arrays[i].after, (size_t)arrays[i].bytes);
    }
    run_once(run, problem);
    for (int i = 0; i < n_arrays; i++) {
        assert_memory_equal(first[i], arrays[i].after, (size_t)arrays[i].bytes);
        int64_t size = sp_dtype_bytes(arrays[i].dtype), end = arrays[i].n * size;
        assert_memory_equal((char *)arrays[i].after + end, (char *)arrays[i].before + end, (size_t)size);
        free(first[i]);
    }
}

/* ---- products ---- */

/* Rows lie `gap` numbers further apart than they are wide. */
typedef struct linear {
    int64_t N, K, M, gap;
    sp_dtype out;
    array *x, *w, *dy, *residual, *y, *dx, *dw;
    bool adds, in_place;
} linear;

static void run_linear(const void *problem) {
    const linear *p = problem;
    const float *residual = !p->adds ? NULL : p->in_place ? p->y->gpu : p->residual->gpu;
    must(layers->linear_forward(gpu, p->y->gpu, p->out, p->M + p->gap, p->x->gpu, p->K + p->gap, p->w->gpu, BF16,
                                residual, p->N, p->K, p->M));
    must(layers->linear_backward_input(gpu, p->dx->gpu, p->out, p->K + p->gap, p->dy->gpu, p->M + p->gap, p->w->gpu,
                                       BF16, p->N, p->K, p->M));
    must(layers->linear_backward_weight(gpu, p->dw->gpu, p->dy->gpu, p->M + p->gap, p->x->gpu, p->K + p->gap, BF16,
                                        p->N, p->K, p->M));
}

/* f32 sums of n products of normal numbers err by about sqrt(n) half-ulps of their size, sqrt(n). */
static void assert_sum(const array *a, int64_t i, double expected, int64_t n, const char *what) {
    assert_near(after(a, i), expected, bound_of(a->dtype, 4.0 * sqrt((double)n)), sqrt((double)n), what, i);
}

static void check_forward_product(const linear *p) {
    for (int64_t n = 0; n < p->N; n++)
        for (int64_t m = 0; m < p->M; m++) {
            int64_t place = n * (p->M + p->gap) + m;
            double sum = !p->adds ? 0.0 : p->in_place ? before(p->y, place) : before(p->residual, n * p->M + m);
            for (int64_t k = 0; k < p->K; k++)
                sum += before(p->x, n * (p->K + p->gap) + k) * before(p->w, m * p->K + k);
            assert_sum(p->y, place, sum, p->K, "y");
        }
    if (p->gap) assert_true(isnan(after(p->y, p->M))); /* between two rows */
}

static void check_backward_products(const linear *p) {
    for (int64_t n = 0; n < p->N; n++)
        for (int64_t k = 0; k < p->K; k++) {
            double sum = 0.0;
            for (int64_t m = 0; m < p->M; m++)
                sum += before(p->dy, n * (p->M + p->gap) + m) * before(p->w, m * p->K + k);
            assert_sum(p->dx, n * (p->K + p->gap) + k, sum, p->M, "dx");
        }
    if (p->gap) assert_true(isnan(after(p->dx, p->K)));
    for (int64_t m = 0; m < p->M; m++)
        for (int64_t k = 0; k < p->K; k++) {
            double sum = before(p->dw, m * p->K + k);
            for (int64_t n = 0; n < p->N; n++)
                sum += before(p->dy, n * (p->M + p->gap) + m) * before(p->x, n * (p->K + p->gap) + k);
            assert_sum(p->dw, m * p->K + k, sum, p->N, "dw");
        }
}

static void check_linear(int64_t N, int64_t K, int64_t M, int64_t gap, sp_dtype out, bool adds, bool in_place) {
    linear p = {.N = N, .K = K, .M = M, .gap = gap, .out = out, .adds = adds, .in_place = in_place};
    p.x = random_array(BF16, N * (K + gap), 1.0);
    p.w = random_array(BF16, M * K, 1.0);
    p.dy = random_array(BF16, N * (M + gap), 1.0);
    p.residual = random_array(F32, N * M, 1.0);
    p.y = in_place ? random_array(F32, N * M, 1.0) : blank(out, N * (M + gap));
    p.dx = blank(out, N * (K + gap));
    p.dw = random_array(F32, M * K, 1.0);
    run_twice(run_linear, &p);
    check_forward_product(&p);
    check_backward_products(&p);
    free_arrays();
}

static void products_are_sums_in_double(void **state) {
    NEEDS_GPU(state);
    static const int64_t shapes[][3] = {{1, 8, 8},       {1, 1024, 1000}, {7, 24, 16},    {3, 17, 5},
                                        {65, 1000, 768}, {64, 256, 2048}, {300, 64, 128}, {2, 8192, 24}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const int64_t *s = shapes[i];
        check_linear(s[0], s[1], s[2], 0, BF16, false, false);
        check_linear(s[0], s[1], s[2], 8, F32, false, false);
        check_linear(s[0], s[1], s[2], 0, F32, true, true);
        check_linear(s[0], s[1], s[2], 16, F32, true, false);
    }
    check_linear(9, 40, 56, 3, BF16, false, false); /* rows that begin anywhere */
}

/* More shapes than plans are kept. */
static void products_of_many_shapes_stay_right(void **state) {
    NEEDS_GPU(state);
    for (int64_t N = 1; N <= 100; N++) check_linear(N, 8, 16, 0, BF16, false, false);
    check_linear(1, 8, 16, 0, BF16, false, false);
}

/* ---- RMSNorm ---- */

typedef struct rmsnorm {
    int64_t N, C;
    array *x, *weight, *y, *rstd, *dy, *dx, *dx_act, *dweight, *workspace;
    bool in_place;
} rmsnorm;

static const float EPS = 1e-5f;

static double row_rstd(const array *x, int64_t n, int64_t C) {
    double sum = 0.0;
    for (int64_t i = 0; i < C; i++) sum += before(x, n * C + i) * before(x, n * C + i);
    return 1.0 / sqrt(sum / (double)C + (double)EPS);
}

static void run_rmsnorm_forward(const void *problem) {
    const rmsnorm *p = problem;
    must(layers->rmsnorm_forward(gpu, p->y->gpu, BF16, p->rstd ? p->rstd->gpu : NULL, p->x->gpu, p->weight->gpu, p->N,
                                 p->C, EPS));
}

static void check_rmsnorm_forward(int64_t N, int64_t C, bool wants_rstd) {
    rmsnorm p = {.N = N, .C = C};
    p.x = random_array(F32, N * C, 3.0);
    p.weight = random_array(F32, C, 1.0);
    p.y = blank(BF16, N * C);
    p.rstd = wants_rstd ? blank(F32, N) : NULL;
    run_twice(run_rmsnorm_forward, &p);
    for (int64_t n = 0; n < N; n++) {
        double r = row_rstd(p.x, n, C);
        if (p.rstd) assert_near(after(p.rstd, n), r, 16 * 0x1p-24, 0.0, "rstd", n);
        for (int64_t i = 0; i < C; i++)
            assert_near(after(p.y, n * C + i), before(p.x, n * C + i) * r * before(p.weight, i), bound_of(BF16, 0), 0.0,
                        "y", n * C + i);
    }
    free_arrays();
}

static const int64_t widths[] = {8, 24, 768, 1000, 1024, 2048, 8192, 8200, 16384};
enum { N_WIDTHS = sizeof widths / sizeof *widths };
static const int64_t row_counts[] = {1, 7, 65};

static void rmsnorm_forward_is_the_formula(void **state) {
    NEEDS_GPU(state);
    for (int w = 0; w < N_WIDTHS; w++)
        for (int i = 0; i < 3; i++) check_rmsnorm_forward(row_counts[i], widths[w], i != 1);
}

static void run_rmsnorm_backward(const void *problem) {
    const rmsnorm *p = problem;
    void *y = p->in_place ? p->dy->gpu : p->y ? p->y->gpu : NULL;
    must(layers->rmsnorm_backward(gpu, p->dx->gpu, p->dx_act ? p->dx_act->gpu : NULL, y, p->dweight->gpu, p->dy->gpu,
                                  BF16, p->x->gpu, p->weight->gpu, p->rstd->gpu, p->N, p->C, p->workspace->gpu));
}

static void check_rmsnorm_row(const rmsnorm *p, int64_t n, double *dweight) {
    int64_t C = p->C;
    double r = before(p->rstd, n), mean = 0.0;
    for (int64_t i = 0; i < C; i++)
        mean += before(p->dy, n * C + i) * before(p->weight, i) * before(p->x, n * C + i) * r / (double)C;
    const array *y = p->in_place ? p->dy : p->y;
    for (int64_t i = 0; i < C; i++) {
        int64_t at = n * C + i;
        double unit = before(p->x, at) * r, dy = before(p->dy, at), w = before(p->weight, i);
        dweight[i] += dy * unit;
        assert_near(after(p->dx, at), before(p->dx, at) + r * (dy * w - unit * mean), 2e-6, 2.0, "dx", at);
        if (p->dx_act) assert_true(after(p->dx_act, at) == round_to_bf16(after(p->dx, at)));
        if (y) assert_near(after(y, at), unit * w, bound_of(BF16, 0), 0.0, "y", at);
    }
}

/* outputs: 0 neither dx_act nor y, 1 both, 2 both with y in place of dy */
static void check_rmsnorm_backward(int64_t N, int64_t C, int outputs) {
    rmsnorm p = {.N = N, .C = C, .in_place = outputs == 2};
    p.x = random_array(F32, N * C, 1.0);
    p.weight = random_array(F32, C, 1.0);
    p.dy = random_array(BF16, N * C, 1.0);
    p.rstd = blank(F32, N);
    for (int64_t n = 0; n < N; n++) ((float *)p.rstd->before)[n] = (float)row_rstd(p.x, n, C);
    p.dx = random_array(F32, N * C, 1.0);
    p.dx_act = outputs ? blank(BF16, N * C) : NULL;
    p.y = outputs == 1 ? blank(BF16, N * C) : NULL;
    p.dweight = random_array(F32, C, 1.0);
    p.workspace = blank(SP_DTYPE_U8, layers->rmsnorm_workspace(C));
    run_twice(run_rmsnorm_backward, &p);
    double *dweight = calloc((size_t)C, sizeof *dweight);
    for (int64_t n = 0; n < N; n++) check_rmsnorm_row(&p, n, dweight);
    for (int64_t i = 0; i < C; i++)
        assert_near(after(p.dweight, i), before(p.dweight, i) + dweight[i], 2e-6, 2.0 * sqrt((double)N), "dweight", i);
    free(dweight);
    free_arrays();
}

static void rmsnorm_backward_is_the_formula(void **state) {
    NEEDS_GPU(state);
    for (int w = 0; w < N_WIDTHS; w++)
        for (int i = 0; i < 3; i++) check_rmsnorm_backward(row_counts[i], widths[w], (w + i) % 3);
    check_rmsnorm_backward(4001, 72, 1); /* more rows than blocks */
    check_rmsnorm_backward(3000, 1024, 2);
}

/* ---- RoPE ---- */

typedef struct rope {
    int64_t N, n_heads, D, stride;
    array *x, *positions, *table;
    bool inverse;
} rope;

static void run_rope(const void *problem) {
    const rope *p = problem;
    must(layers->rope_apply(gpu, p->x->gpu, BF16, p->stride, p->positions->gpu, p->table->gpu, p->N, p->n_heads, p->D,
                            p->inverse));
}

static void check_rope_token(const rope *p, int64_t n, double theta) {
    double position = ((int32_t *)p->positions->before)[n];
    for (int64_t i = 0; i < p->n_heads * p->D; i++) {
        int64_t pair = i % p->D % (p->D / 2), first = n * p->stride + i / p->D * p->D + pair;
        double angle = (p->inverse ? -1.0 : 1.0) * position * pow(theta, -2.0 * (double)pair / (double)p->D);
        double a = before(p->x, first), b = before(p->x, first + p->D / 2);
        double turned = i % p->D < p->D / 2 ? a * cos(angle) - b * sin(angle) : b * cos(angle) + a * sin(angle);
        assert_near(after(p->x, n * p->stride + i), turned, bound_of(BF16, 0), 1e-3, "rope", i);
    }
    for (int64_t i = n * p->stride + p->n_heads * p->D; i < (n + 1) * p->stride; i++) /* the gap keeps its numbers */
        assert_true(after(p->x, i) == before(p->x, i));
}

static void check_rope(int64_t N, int64_t n_heads, int64_t D, int64_t gap, bool inverse) {
    enum { N_POSITIONS = 500 };
    rope p = {.N = N, .n_heads = n_heads, .D = D, .stride = n_heads * D + gap, .inverse = inverse};
    p.x = random_array(BF16, N * p.stride, 1.0);
    p.positions = random_indices(N, N_POSITIONS);
    p.table = blank(F32, N_POSITIONS * D);
    sp_rope_table(p.table->before, N_POSITIONS, D, &(sp_rope){.theta = 10000.0});
    run_twice(run_rope, &p);
    for (int64_t n = 0; n < N; n++) check_rope_token(&p, n, 10000.0);
    free_arrays();
}

static void rope_turns_each_pair_by_its_angle(void **state) {
    NEEDS_GPU(state);
    static const int64_t head_widths[] = {2, 8, 16, 48, 64, 80, 96, 128, 256, 2048};
    for (size_t d = 0; d < sizeof head_widths / sizeof *head_widths; d++)
        for (int i = 0; i < 3; i++)
            check_rope(row_counts[i],
                       i == 0   ? 32
                       : i == 1 ? 1
                                : 3,
                       head_widths[d],
                       i == 0   ? 64
                       : i == 1 ? 0
                                : 3,
                       i == 2);
}

/* ---- SwiGLU ---- */

typedef struct swiglu {
    int64_t N, F;
    array *gu, *s, *ds, *dgu;
    bool in_place;
} swiglu;

static void run_swiglu_forward(const void *problem) {
    const swiglu *p = problem;
    must(layers->swiglu_forward(gpu, p->s->gpu, p->gu->gpu, BF16, p->N, p->F));
}

static void run_swiglu_backward(const void *problem) {
    const swiglu *p = problem;
    must(layers->swiglu_backward(gpu, p->in_place ? p->gu->gpu : p->dgu->gpu,
                                 p->in_place ? p->ds->gpu
                                 : p->s      ? p->s->gpu
                                             : NULL,
                                 p->ds->gpu, p->gu->gpu, BF16, p->N, p->F));
}

static void check_swiglu_forward(int64_t N, int64_t F, double scale) {
    swiglu p = {.N = N, .F = F};
    p.gu = random_array(BF16, N * 2 * F, scale);
    p.s = blank(BF16, N * F);
    run_twice(run_swiglu_forward, &p);
    for (int64_t i = 0; i < N * F; i++) {
        double g = before(p.gu, i / F * 2 * F + i % F), u = before(p.gu, i / F * 2 * F + F + i % F);
        assert_near(after(p.s, i), g / (1.0 + exp(-g)) * u, bound_of(BF16, 0), 1e-30, "s", i);
    }
    free_arrays();
}

static void check_swiglu_backward(int64_t N, int64_t F, bool in_place, bool wants_s) {
    swiglu p = {.N = N, .F = F, .in_place = in_place};
    p.gu = random_array(BF16, N * 2 * F, 2.0);
    p.ds = random_array(BF16, N * F, 1.0);
    p.dgu = in_place ? p.gu : blank(BF16, N * 2 * F);
    p.s = in_place ? p.ds : wants_s ? blank(BF16, N * F) : NULL;
    run_twice(run_swiglu_backward, &p);
    for (int64_t i = 0; i < N * F; i++) {
        int64_t at = i / F * 2 * F + i % F;
        double g = before(p.gu, at), u = before(p.gu, at + F), ds = before(p.ds, i), part = 1.0 / (1.0 + exp(-g));
        assert_near(after(p.dgu, at), ds * u * part * (1.0 + g * (1.0 - part)), bound_of(BF16, 0), 1e-3, "dg", i);
        assert_near(after(p.dgu, at + F), ds * g * part, bound_of(BF16, 0), 1e-30, "du", i);
        if (p.s) assert_near(after(p.s, i), g * part * u, bound_of(BF16, 0), 1e-30, "s", i);
    }
    free_arrays();
}

static void swiglu_is_the_formula_both_ways(void **state) {
    NEEDS_GPU(state);
    for (int w = 0; w < N_WIDTHS; w++)
        for (int i = 0; i < 3; i++) {
            check_swiglu_forward(row_counts[i], widths[w], i == 1 ? 40.0 : 2.0); /* 40: e^-g overflows */
            check_swiglu_backward(row_counts[i], widths[w], i == 0, i == 1);
        }
}

/* ---- embedding ---- */

typedef struct embedding {
    int64_t N, C;
    array *tokens, *table, *x, *workspace;
} embedding;

static void run_embedding_forward(const void *problem) {
    const embedding *p = problem;
    must(layers->embedding_forward(gpu, p->x->gpu, p->table->gpu, p->tokens->gpu, p->N, p->C));
}

static void run_embedding_backward(const void *problem) {
    const embedding *p = problem;
    must(layers->embedding_backward(gpu, p->table->gpu, p->x->gpu, p->tokens->before, p->N, p->C, p->workspace->gpu));
}

static void embedding_forward_copies_rows(void **state) {
    NEEDS_GPU(state);
    enum { V = 1000 };
    for (int w = 0; w < N_WIDTHS - 2; w++)
        for (int i = 0; i < 3; i++) {
            embedding p = {.N = row_counts[i], .C = widths[w]};
            p.tokens = random_indices(p.N, V);
            p.table = random_array(F32, V * p.C, 1.0);
            p.x = blank(F32, p.N * p.C);
            run_twice(run_embedding_forward, &p);
            for (int64_t n = 0; n < p.N; n++)
                assert_memory_equal((float *)p.x->after + n * p.C,
                                    (float *)p.table->before + ((int32_t *)p.tokens->before)[n] * p.C,
                                    (size_t)p.C * sizeof(float));
            free_arrays();
        }
}

/* `frequent` of the tokens are token 7. */
static void check_embedding_backward(int64_t N, int64_t C, int64_t V, int64_t frequent) {
    embedding p = {.N = N, .C = C};
    p.tokens = random_indices(N, V);
    int32_t *tokens = p.tokens->before;
    for (int64_t i = 0; i < frequent; i++) tokens[i * (N / (frequent + 1))] = 7;
    p.table = random_array(F32, V * C, 1.0);
    p.x = random_array(F32, N * C, 1.0);
    p.workspace = blank(SP_DTYPE_U8, layers->embedding_workspace(N));
    float *expected = malloc((size_t)(V * C) * sizeof *expected);
    memcpy(expected, p.table->before, (size_t)(V * C) * sizeof *expected);
    for (int64_t i = 0; i < N * C; i++) expected[tokens[i / C] * C + i % C] += ((float *)p.x->before)[i];
    run_twice(run_embedding_backward, &p);
    assert_memory_equal(p.table->after, expected, (size_t)(V * C) * sizeof *expected);
    free(expected);
    free_arrays();
}

static void embedding_backward_adds_in_the_order_of_tokens(void **state) {
    NEEDS_GPU(state);
    for (int w = 0; w < N_WIDTHS - 2; w++)
        for (int i = 0; i < 3; i++) check_embedding_backward(row_counts[i], widths[w], 300, 0);
    check_embedding_backward(6000, 1000, 50, 3000);
    check_embedding_backward(6000, 24, 100000, 3000);
    check_embedding_backward(4096, 1024, 5, 0);
    check_embedding_backward(33, 768, 1, 0);
}

/* ---- cross entropy ---- */

typedef struct loss {
    int64_t n, V;
    array *losses, *logits, *targets;
    bool gradient;
} loss;

static const float SCALE = 0.25f;

static void run_loss(const void *problem) {
    const loss *p = problem;
    must(layers->cross_entropy(gpu, p->losses->gpu, p->logits->gpu, p->logits->dtype, p->targets->gpu, p->n, p->V,
                               p->gradient, SCALE));
}

static void check_loss_row(const loss *p, int64_t row) {
    int32_t target = ((int32_t *)p->targets->before)[row];
    double top = -INFINITY, sum = 0.0, result = ((double *)p->losses->after)[row];
    int64_t begin = row * p->V;
    for (int64_t i = 0; i < p->V; i++) top = fmax(top, before(p->logits, begin + i));
    for (int64_t i = 0; i < p->V; i++) sum += exp(before(p->logits, begin + i) - top);
    if (target >= 0)
        assert_near(result, log(sum) + top - before(p->logits, begin + target), 1e-6, 1.0, "loss", row);
    else
        assert_true(result == 0.0);
    for (int64_t i = 0; i < p->V; i++) {
        double x = before(p->logits, begin + i), now = after(p->logits, begin + i);
        double expected = target < 0 ? 0.0 : (double)SCALE * (exp(x - top) / sum - (i == target));
        if (!p->gradient)
            assert_true(now == x);
        else
            assert_near(now, expected, p->logits->dtype == BF16 ? 0x1p-8 : 1e-5, 1e-6, "gradient", begin + i);
    }
}

static void check_loss(sp_dtype dtype, int64_t n, int64_t V, bool gradient) {
    loss p = {.n = n, .V = V, .gradient = gradient};
    p.losses = blank(SP_DTYPE_F64, n);
    p.logits = random_array(dtype, n * V, 3.0);
    p.targets = random_indices(n, V);
    int32_t *targets = p.targets->before;
    for (int64_t row = 1; row < n; row += 3) targets[row] = -1;
    targets[0] = (int32_t)(V - 1);
    run_twice(run_loss, &p);
    for (int64_t row = 0; row < n; row++) check_loss_row(&p, row);
    free_arrays();
}

static void cross_entropy_is_the_formula(void **state) {
    NEEDS_GPU(state);
    static const int64_t vocabularies[] = {1, 7, 17, 1000, 8192, 16384, 32000, 32768, 50257, 131072};
    for (size_t v = 0; v < sizeof vocabularies / sizeof *vocabularies; v++)
        for (int d = 0; d < 2; d++) {
            check_loss(d ? BF16 : F32, 7, vocabularies[v], true);
            check_loss(d ? BF16 : F32, 2, vocabularies[v], false);
        }
    check_loss(BF16, 65, 17, true);
    check_loss(F32, 65, 1000, true);
}

static void logits_of_minus_infinity_weigh_nothing(void **state) {
    NEEDS_GPU(state);
    for (int d = 0; d < 2; d++)
        for (int64_t V = 100; V <= 40100; V += 40000) {
            loss p = {.n = 1, .V = V, .gradient = true};
            p.losses = blank(SP_DTYPE_F64, 1);
            p.logits = random_array(d ? BF16 : F32, V, 1.0);
            p.targets = random_indices(1, 1);
            for (int64_t i = 1; i < V; i++)
                if (i != V / 2) number_set(p.logits->before, p.logits->dtype, i, -INFINITY);
            run_twice(run_loss, &p);
            check_loss_row(&p, 0);
            free_arrays();
        }
}

/* ---- sums and the optimizer ---- */

static const int64_t counts[] = {0, 1, 2, 7, 8, 65, 1000, 300001, 2500003};
enum { N_COUNTS = sizeof counts / sizeof *counts };

static void sum_and_norm_are_sums_in_double(void **state) {
    NEEDS_GPU(state);
    for (int c = 0; c < N_COUNTS; c++) {
        int64_t n = counts[c];
        array *numbers_f32 = random_array(F32, n, 1.0), *doubles = blank(SP_DTYPE_F64, n);
        double sum = 0.0, squares = 0.0, sizes = 0.0, results[2][2];
        for (int64_t i = 0; i < n; i++) {
            double value = sp_random_normal(3, 0, (uint64_t)i);
            ((double *)doubles->before)[i] = value;
            sum += value;
            sizes += fabs(value);
            squares += before(numbers_f32, i) * before(numbers_f32, i);
        }
        must(sp_device_upload(gpu, numbers_f32->gpu, numbers_f32->before, numbers_f32->bytes));
        must(sp_device_upload(gpu, doubles->gpu, doubles->before, doubles->bytes));
        for (int i = 0; i < 2; i++) {
            must(layers->sum(gpu, &results[i][0], doubles->gpu, n));
            must(layers->norm(gpu, &results[i][1], numbers_f32->gpu, n));
        }
        assert_memory_equal(results[0], results[1], sizeof results[0]);
        assert_near(results[0][0], sum, 1e-13, sizes, "sum", n);
        assert_near(results[0][1], sqrt(squares), 1e-12, 0.0, "norm", n);
        free_arrays();
    }
}

static void norm_of_numbers_that_are_not_finite_is_not_finite(void **state) {
    NEEDS_GPU(state);
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int b = 0; b < 3; b++)
        for (int64_t at = 0; at < 1003; at += 334) {
            array *values = random_array(F32, 1003, 1.0);
            ((float *)values->before)[at] = bad[b];
            must(sp_device_upload(gpu, values->gpu, values->before, values->bytes));
            double norm;
            must(layers->norm(gpu, &norm, values->gpu, 1003));
            assert_false(isfinite(norm));
            free_arrays();
        }
}

typedef struct adamw {
    int64_t n;
    array *values, *halves, *gradient, *m, *v;
    sp_adamw options;
} adamw;

static void run_adamw(const void *problem) {
    const adamw *p = problem;
    must(layers->adamw_step(gpu, p->values->gpu, p->halves ? p->halves->gpu : NULL, p->gradient->gpu, p->m->gpu,
                            p->v->gpu, p->n, SCALE, &p->options));
}

static void check_adamw(int64_t n, int64_t step, bool wants_halves) {
    adamw p = {.n = n, .options = {1e-2, 0.9, 0.95, 1e-8, 0.1, step}};
    const sp_adamw *o = &p.options;
    p.values = random_array(F32, n, 1.0);
    p.gradient = random_array(F32, n, 1.0);
    p.m = random_array(F32, n, 0.1);
    p.v = random_array(F32, n, 0.1);
    for (int64_t i = 0; i < n; i++) ((float *)p.v->before)[i] = fabsf(((float *)p.v->before)[i]);
    p.halves = wants_halves ? blank(BF16, n) : NULL;
    run_twice(run_adamw, &p);
    for (int64_t i = 0; i < n; i++) {
        double g = before(p.gradient, i) * (double)SCALE, m = o->beta1 * before(p.m, i) + (1.0 - o->beta1) * g;
        double v = o->beta2 * before(p.v, i) + (1.0 - o->beta2) * g * g,
               corrected = m / (1.0 - pow(o->beta1, (double)step));
        double value = before(p.values, i) * (1.0 - o->learning_rate * o->weight_decay) -
                       o->learning_rate * corrected / (sqrt(v / (1.0 - pow(o->beta2, (double)step))) + o->eps);
        assert_near(after(p.m, i), m, 4e-7, 0.1, "m", i);
        assert_near(after(p.v, i), v, 4e-7, 0.01, "v", i);
        assert_near(after(p.values, i), value, 4e-7, 0.1, "value", i);
        if (p.halves) assert_true(after(p.halves, i) == round_to_bf16(after(p.values, i)));
    }
    free_arrays();
}

static void adamw_is_the_formula(void **state) {
    NEEDS_GPU(state);
    for (int c = 0; c < N_COUNTS - 1; c++)
        for (int64_t step = 1; step <= 100; step += 99) check_adamw(counts[c], step, c % 2 || step > 1);
}

/* ---- conversion ---- */

static const sp_dtype floats[] = {SP_DTYPE_F32, SP_DTYPE_BF16, SP_DTYPE_F16};

typedef struct conversion {
    int64_t n, offset;
    array *out, *in;
} conversion;

static void run_conversion(const void *problem) {
    const conversion *p = problem;
    must(layers->convert(gpu, (char *)p->out->gpu + p->offset * sp_dtype_bytes(p->out->dtype), p->out->dtype,
                         (char *)p->in->gpu + p->offset * sp_dtype_bytes(p->in->dtype), p->in->dtype,
                         p->n - p->offset));
}

/* Number i as f32, and a number of f32 as the bits of a dtype. */
static float widened(const void *data, sp_dtype dtype, int64_t i) {
    return dtype == SP_DTYPE_F32    ? ((const float *)data)[i]
           : dtype == SP_DTYPE_BF16 ? sp_bf16_to_f32(((const uint16_t *)data)[i])
                                    : sp_f16_to_f32(((const uint16_t *)data)[i]);
}

static uint32_t narrowed(float value, sp_dtype dtype) {
    return dtype == SP_DTYPE_F32    ? sp_f32_bits(value)
           : dtype == SP_DTYPE_BF16 ? sp_bf16_from_f32(value)
                                    : sp_f16_from_f32(value);
}

static uint32_t bits_at(const void *data, sp_dtype dtype, int64_t i) {
    return dtype == SP_DTYPE_F32 ? ((const uint32_t *)data)[i] : ((const uint16_t *)data)[i];
}

static void check_conversion(sp_dtype to, sp_dtype from, int64_t n, int64_t offset) {
    conversion p = {.n = n, .offset = offset};
    p.in = blank(from, n);
    p.out = blank(to, n);
    for (int64_t i = 0; i < n; i++) { /* every pattern of 16 bits; for f32 with random bits below */
        uint32_t bits = (uint32_t)i & 0xffffu;
        if (from == SP_DTYPE_F32)
            ((uint32_t *)p.in->before)[i] = bits << 16 | (uint32_t)(sp_random_bits(5, 0, (uint64_t)i) & 0xffffu);
        else
            ((uint16_t *)p.in->before)[i] = (uint16_t)bits;
    }
    run_twice(run_conversion, &p);
    for (int64_t i = 0; i < n; i++) {
        float value = widened(p.in->before, from, i);
        if (i < offset)
            assert_int_equal(bits_at(p.out->after, to, i), bits_at(p.out->before, to, i));
        else if (isnan(value))
            assert_true(isnan(widened(p.out->after, to, i)));
        else
            assert_int_equal(bits_at(p.out->after, to, i), narrowed(value, to));
    }
    free_arrays();
}

static void conversion_rounds_every_pattern_to_nearest_even(void **state) {
    NEEDS_GPU(state);
    for (int to = 0; to < 3; to++)
        for (int from = 0; from < 3; from++) {
            check_conversion(floats[to], floats[from], 65536, 0);
            check_conversion(floats[to], floats[from], 65543, 0);
            check_conversion(floats[to], floats[from], 1003, 1); /* no 16-byte accesses */
            check_conversion(floats[to], floats[from], 7, 0);
            check_conversion(floats[to], floats[from], 1, 0);
        }
}

/* ---- bad input ---- */

static void assert_refused(sp_status status, const char *word) {
    assert_int_not_equal(status, SP_OK);
    if (!strstr(sp_last_message(), word)) fail_msg("\"%s\" does not name \"%s\"", sp_last_message(), word);
}

static void what_the_device_does_not_do_is_refused_by_name(void **state) {
    NEEDS_GPU(state);
    void *p;
    must(sp_device_allocate(gpu, &p, 1 << 20, "test"));
    assert_refused(layers->linear_forward(gpu, p, F32, 8, p, 8, p, F32, NULL, 8, 8, 8), "f32");
    assert_refused(layers->linear_forward(gpu, p, SP_DTYPE_F16, 8, p, 8, p, BF16, NULL, 8, 8, 8), "f16");
    assert_refused(layers->linear_forward(gpu, p, BF16, 8, p, 8, p, BF16, p, 8, 8, 8), "residual");
    assert_refused(layers->linear_backward_input(gpu, p, F32, 8, p, 8, p, F32, 8, 8, 8), "f32");
    assert_refused(layers->linear_backward_weight(gpu, p, p, 8, p, 8, F32, 8, 8, 8), "f32");
    assert_refused(layers->rmsnorm_forward(gpu, p, F32, NULL, p, p, 1, 8, 1e-5f), "f32");
    assert_refused(layers->rmsnorm_forward(gpu, p, BF16, NULL, p, p, 1, 12, 1e-5f), "12");
    assert_refused(layers->rmsnorm_forward(gpu, p, BF16, NULL, p, p, 1, 16392, 1e-5f), "16392");
    assert_refused(layers->rmsnorm_forward(gpu, (char *)p + 2, BF16, NULL, p, p, 1, 8, 1e-5f), "16 bytes");
    assert_refused(layers->rmsnorm_backward(gpu, p, NULL, NULL, p, p, F32, p, p, p, 1, 8, p), "f32");
    assert_refused(layers->rope_apply(gpu, p, F32, 8, p, p, 1, 1, 8, false), "f32");
    assert_refused(layers->rope_apply(gpu, p, BF16, 8, p, p, 1, 1, 7, false), "7");
    assert_refused(layers->swiglu_forward(gpu, p, p, F32, 1, 8), "f32");
    assert_refused(layers->swiglu_backward(gpu, p, p, p, p, BF16, 1, 9), "9");
    assert_refused(layers->embedding_forward(gpu, p, p, p, 1, 6), "6");
    assert_refused(layers->cross_entropy(gpu, p, p, SP_DTYPE_F16, p, 1, 8, true, 1.0f), "f16");
    assert_refused(layers->convert(gpu, p, SP_DTYPE_I32, p, F32, 8), "i32");
    sp_device_release(gpu, p);
}

static void nothing_to_do_is_done(void **state) {
    NEEDS_GPU(state);
    sp_adamw options = {1e-3, 0.9, 0.95, 1e-8, 0.1, 1};
    must(layers->linear_forward(gpu, NULL, BF16, 8, NULL, 8, NULL, BF16, NULL, 0, 8, 8));
    must(layers->linear_backward_input(gpu, NULL, BF16, 8, NULL, 8, NULL, BF16, 0, 8, 8));
    must(layers->linear_backward_weight(gpu, NULL, NULL, 8, NULL, 8, BF16, 0, 8, 8));
    must(layers->rmsnorm_forward(gpu, NULL, BF16, NULL, NULL, NULL, 0, 8, 1e-5f));
    must(layers->rmsnorm_backward(gpu, NULL, NULL, NULL, NULL, NULL, BF16, NULL, NULL, NULL, 0, 8, NULL));
    must(layers->rope_apply(gpu, NULL, BF16, 8, NULL, NULL, 0, 1, 8, false));
    must(layers->swiglu_forward(gpu, NULL, NULL, BF16, 0, 8));
    must(layers->swiglu_backward(gpu, NULL, NULL, NULL, NULL, BF16, 0, 8));
    must(layers->embedding_forward(gpu, NULL, NULL, NULL, 0, 8));
    must(layers->embedding_backward(gpu, NULL, NULL, NULL, 0, 8, NULL));
    must(layers->cross_entropy(gpu, NULL, NULL, BF16, NULL, 0, 8, true, 1.0f));
    must(layers->adamw_step(gpu, NULL, NULL, NULL, NULL, NULL, 0, 1.0f, &options));
    must(layers->convert(gpu, NULL, BF16, NULL, F32, 0));
    must(sp_device_wait(gpu));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_sums_in_double),
        cmocka_unit_test(products_of_many_shapes_stay_right),
        cmocka_unit_test(rmsnorm_forward_is_the_formula),
        cmocka_unit_test(rmsnorm_backward_is_the_formula),
        cmocka_unit_test(rope_turns_each_pair_by_its_angle),
        cmocka_unit_test(swiglu_is_the_formula_both_ways),
        cmocka_unit_test(embedding_forward_copies_rows),
        cmocka_unit_test(embedding_backward_adds_in_the_order_of_tokens),
        cmocka_unit_test(cross_entropy_is_the_formula),
        cmocka_unit_test(logits_of_minus_infinity_weigh_nothing),
        cmocka_unit_test(sum_and_norm_are_sums_in_double),
        cmocka_unit_test(norm_of_numbers_that_are_not_finite_is_not_finite),
        cmocka_unit_test(adamw_is_the_formula),
        cmocka_unit_test(conversion_rounds_every_pattern_to_nearest_even),
        cmocka_unit_test(what_the_device_does_not_do_is_refused_by_name),
        cmocka_unit_test(nothing_to_do_is_done),
    };
    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
