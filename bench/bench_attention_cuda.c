/* Times attention on the first GPU: bf16, causal, 16384 tokens of width 2048 in sequences of several lengths; decode of
 * one token for each, with 4 query heads for each key head.  Before a shape is timed, its last rows are held against the
 * definition.
 *
 *   bench_attention_cuda [NORMALIZER [PASS [D]]]     softpick; forward, backward, ...; 64 or 128
 *
 * A pass counts 4 D floating-point operations for each query and key that see each other, backward 10 D; decode counts the
 * bytes of keys and values. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "device/device.h"
#include "formats/halves.h"
#include "softpick/attention.h"
#include "softpick/device.h"

enum { TOKENS = 16384, WIDTH = 2048, GROUP = 4, CHECKED = 64, WARM_UPS = 5, RUNS = 30, TENSORS = 8 };

static const struct {
    int64_t D, T;
} shapes[] = {{64, 2048}, {64, 4096}, {64, 8192}, {64, 16384}, {128, 4096}, {128, 16384}};

typedef struct bench_pass {
    const char *name;
    sp_attention_pass pass;
    bool any_order;
    double flops; /* times D, for each pair of query and key; 0: memory decides */
} bench_pass;

static const bench_pass passes[] = {
    {"forward", SP_ATTENTION_FORWARD, false, 4},
    {"backward", SP_ATTENTION_BACKWARD, false, 10},
    {"backward_any_order", SP_ATTENTION_BACKWARD, true, 10},
    {"decode", SP_ATTENTION_DECODE, false, 0},
};

/* The tensors of a problem, each of TOKENS x WIDTH numbers, on the GPU and on the host. */
typedef struct bench_case {
    sp_device *device;
    sp_attention problem;
    sp_tensor *tensors[TENSORS]; /* q k v dout, then out dq dk dv */
    void *host[TENSORS];
    void *workspace;
    int64_t n_bytes;
} bench_case;

static const int64_t TENSOR_BYTES = (int64_t)TOKENS * WIDTH * 2;

/* Normal numbers, or near enough: sums of four uniform ones, by xorshift. */
static void fill(uint16_t *numbers, uint64_t seed) {
    uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;
    for (int64_t i = 0; i < (int64_t)TOKENS * WIDTH; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        double sum = (double)(x & 0xffff) + (double)(x >> 16 & 0xffff) + (double)(x >> 32 & 0xffff) + (double)(x >> 48);
        numbers[i] = sp_bf16_from_f32((float)((sum - 131070) * (1.7320508 / 65536)));
    }
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

static sp_status case_open(bench_case *c, sp_device *device) {
    sp_attention *p = &c->problem;
    sp_tensor *tensors[TENSORS] = {&p->q, &p->k, &p->v, &p->dout, &p->out, &p->dq, &p->dk, &p->dv};
    *c = (bench_case){.device = device};
    memcpy(c->tensors, tensors, sizeof tensors);
    sp_attention_init(p);
    for (int i = 0; i < TENSORS; i++) {
        SP_TRY(sp_allocate(&c->host[i], TENSOR_BYTES, "a tensor"));
        SP_TRY(sp_device_allocate(device, &c->tensors[i]->data, TENSOR_BYTES, "a tensor"));
        if (i >= 4) continue;
        fill(c->host[i], (uint64_t)i + 1);
        SP_TRY(sp_device_upload(device, c->tensors[i]->data, c->host[i], TENSOR_BYTES));
    }
    SP_TRY(sp_device_allocate(device, (void **)&p->lse, (int64_t)TOKENS * WIDTH / 8, "lse"));
    SP_TRY(sp_device_allocate(device, (void **)(uintptr_t)&p->sink, WIDTH, "sink"));
    p->stream = device->stream;
    return sp_device_wait(device);
}

static void case_close(bench_case *c) {
    for (int i = 0; i < TENSORS; i++) {
        free(c->host[i]);
        if (c->tensors[i]) sp_device_release(c->device, c->tensors[i]->data);
    }
    sp_device_release(c->device, c->problem.lse);
    sp_device_release(c->device, (void *)(uintptr_t)c->problem.sink);
    sp_device_release(c->device, c->workspace);
}

/* Sequences of T tokens; in decode q and out have one query of GROUP times as many heads. */
static void case_shape(bench_case *c, int64_t D, int64_t T, bool decode) {
    for (int i = 0; i < TENSORS; i++) {
        bool one = decode && (i == 0 || i == 4); /* q and out */
        const int64_t shape[4] = {TOKENS / T, one ? 1 : T, WIDTH / D * (one ? GROUP : 1), D};
        void *data = c->tensors[i]->data;
        *c->tensors[i] = sp_tensor_view(data, SP_DTYPE_BF16, 4, shape);
        c->tensors[i]->device = c->device->id;
    }
}

/* ---- running ---------------------------------------------------------------------------------------------------- */

static sp_status prepare(bench_case *c, const bench_pass *pass) {
    sp_device_release(c->device, c->workspace);
    c->workspace = NULL;
    c->problem.any_order = pass->any_order;
    SP_TRY(sp_attention_workspace(&c->problem, pass->pass, 0, &c->n_bytes));
    return sp_device_allocate(c->device, &c->workspace, c->n_bytes, "workspace");
}

static sp_status run(bench_case *c, const bench_pass *pass) {
    static sp_status (*const functions[])(const sp_attention *, void *, int64_t, int) = {
        [SP_ATTENTION_FORWARD] = sp_attention_forward,
        [SP_ATTENTION_BACKWARD] = sp_attention_backward,
        [SP_ATTENTION_DECODE] = sp_attention_decode,
    };
    return functions[pass->pass](&c->problem, c->workspace, c->n_bytes, 0);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static sp_status time_pass(bench_case *c, const bench_pass *pass, double *seconds) {
    double times[RUNS];
    void *marks[RUNS + 1];
    for (int i = 0; i <= RUNS; i++) SP_TRY(sp_device_mark_new(c->device, &marks[i]));
    for (int i = 0; i < WARM_UPS; i++) SP_TRY(run(c, pass));
    SP_TRY(sp_device_mark(c->device, marks[0]));
    for (int i = 0; i < RUNS; i++) {
        SP_TRY(run(c, pass));
        SP_TRY(sp_device_mark(c->device, marks[i + 1]));
    }
    SP_TRY(sp_device_wait(c->device));
    for (int i = 0; i < RUNS; i++) SP_TRY(sp_device_seconds_between(c->device, marks[i], marks[i + 1], &times[i]));
    for (int i = 0; i <= RUNS; i++) sp_device_mark_free(c->device, marks[i]);
    qsort(times, RUNS, sizeof *times, by_size);
    *seconds = times[RUNS / 2];
    return SP_OK;
}

/* ---- checking ----------------------------------------------------------------------------------------------------- */

/* The last queries (at most CHECKED) of one head with all keys, as a problem on the host; outputs go to `memory`. */
static sp_attention last_rows(const bench_case *c, int64_t b, int64_t h, uint16_t *memory) {
    sp_attention sub = c->problem;
    const int64_t S = sub.k.shape[1], D = sub.q.shape[3], group = sub.q.shape[2] / sub.k.shape[2];
    sp_tensor *tensors[TENSORS] = {&sub.q, &sub.k, &sub.v, &sub.dout, &sub.out, &sub.dq, &sub.dk, &sub.dv};
    for (int i = 0; i < TENSORS; i++) {
        bool of_keys = i == 1 || i == 2 || i >= 6;
        sp_tensor *t = tensors[i];
        int64_t all = t->shape[1], n = of_keys || all < CHECKED ? all : CHECKED;
        int64_t first = b * t->stride[0] + (all - n) * t->stride[1] + (of_keys ? h / group : h) * D;
        t->device = 0;
        t->shape[0] = t->shape[2] = 1;
        t->shape[1] = n;
        t->data = i < 4 ? (uint16_t *)c->host[i] + first : memory + (i - 4) * S * D;
        if (i >= 4) t->stride[1] = D;
    }
    sub.lse = NULL, sub.sink = NULL, sub.stream = NULL;
    if (sub.normalizer == SP_NORMALIZER_SOFTMAX_SINK) sub.sink = (const float *)c->host[4]; /* zeros, as on the GPU */
    return sub;
}

/* ||ours - truth|| / ||truth|| over the last rows (at most CHECKED) of tensor i, `truth` being that of the sub-problem. */
static double error_of(const bench_case *c, int i, const sp_tensor *truth, int64_t b, int64_t h) {
    const sp_tensor *all = c->tensors[i];
    const int64_t D = truth->shape[3], n = truth->shape[1] < CHECKED ? truth->shape[1] : CHECKED;
    double error = 0, size = 0;
    for (int64_t t = 0; t < n; t++)
        for (int64_t d = 0; d < D; d++) {
            int64_t at = b * all->stride[0] + (all->shape[1] - n + t) * all->stride[1] + h * D + d;
            double x = (double)sp_bf16_to_f32(((const uint16_t *)truth->data)[(truth->shape[1] - n + t) * D + d]);
            double y = (double)sp_bf16_to_f32(((const uint16_t *)c->host[i])[at]);
            error += (x - y) * (x - y);
            size += x * x;
        }
    return sqrt(error / size);
}

/* Runs the pass into outputs that are NaN and compares heads here and there. */
static sp_status check(bench_case *c, const bench_pass *pass) {
    const int64_t B = c->problem.q.shape[0], H = c->problem.q.shape[2], S = c->problem.k.shape[1];
    const bool backward = pass->pass == SP_ATTENTION_BACKWARD;
    const int first = backward ? 5 : 4, end = backward ? 8 : 5;
    static const char *const names[TENSORS] = {"q", "k", "v", "dout", "out", "dq", "dk", "dv"};
    void *memory;
    for (int i = first; i < end; i++) {
        memset(c->host[i], 0xff, (size_t)TENSOR_BYTES);
        SP_TRY(sp_device_upload(c->device, c->tensors[i]->data, c->host[i], TENSOR_BYTES));
    }
    SP_TRY(run(c, pass));
    for (int i = first; i < end; i++)
        SP_TRY(sp_device_download(c->device, c->host[i], c->tensors[i]->data, TENSOR_BYTES));
    SP_TRY(sp_allocate(&memory, 4 * S * c->problem.q.shape[3] * 2, "the definition's outputs"));
    sp_status status = SP_OK;
    for (int64_t k = 0; k < 3 && status == SP_OK; k++) {
        int64_t b = k * 5 % B, h = (k * 7 + 3) % H;
        sp_attention sub = last_rows(c, b, h, memory);
        SP_TRY_OR_DONE(sp_attention_define_forward(&sub));
        if (backward) {
            sub.lse = c->host[4]; /* the definition asks for it, and does not read it */
            SP_TRY_OR_DONE(sp_attention_define_backward(&sub));
        }
        const sp_tensor *const truth[TENSORS] = {[4] = &sub.out, [5] = &sub.dq, [6] = &sub.dk, [7] = &sub.dv};
        for (int i = first; i < end; i++) {
            double error = error_of(c, i, truth[i], b, h);
            SP_REQUIRE_OR_DONE(error <= 2e-2, SP_DEVICE_FAILED, "%s of sequence %lld, head %lld is wrong by %g",
                               names[i], (long long)b, (long long)h, error);
        }
    }
done:
    free(memory);
    return status;
}

/* ---- the table ---------------------------------------------------------------------------------------------------- */

static sp_status bench_pass_of(bench_case *c, const bench_pass *pass, int64_t D, int64_t T) {
    const double pairs = (double)(TOKENS / T) * (WIDTH / D) * T * (T + 1) / 2;
    const char *name;
    double seconds;
    case_shape(c, D, T, pass->pass == SP_ATTENTION_DECODE);
    if (sp_attention_choose(&c->problem, pass->pass, &name) != SP_OK) return SP_OK;
    SP_TRY(prepare(c, pass));
    SP_TRY(check(c, pass));
    SP_TRY(time_pass(c, pass, &seconds));
    printf("  %s [%s] %.4f ms", pass->name, name, 1e3 * seconds);
    if (pass->flops > 0)
        printf(" %.1f TFLOP/s", 1e-12 * pass->flops * (double)D * pairs / seconds);
    else
        printf(" %.2f TB/s", 2e-12 * (double)TENSOR_BYTES / seconds);
    fflush(stdout);
    return SP_OK;
}

static sp_status bench(bench_case *c, const char *only_pass, int64_t only_D) {
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        if (only_D && shapes[s].D != only_D) continue;
        printf("D %3lld T %5lld", (long long)shapes[s].D, (long long)shapes[s].T);
        for (size_t i = 0; i < sizeof passes / sizeof *passes; i++) {
            bool needed = passes[i].pass == SP_ATTENTION_FORWARD; /* backward reads what it leaves */
            if (!only_pass || needed || strcmp(only_pass, passes[i].name) == 0)
                SP_TRY(bench_pass_of(c, &passes[i], shapes[s].D, shapes[s].T));
        }
        printf("\n");
    }
    return SP_OK;
}

int main(int argc, char **argv) {
    bench_case c = {0};
    sp_device *device = NULL;
    sp_status status;
    SP_TRY_OR_DONE(sp_device_open(&device, 1));
    SP_TRY_OR_DONE(case_open(&c, device));
    SP_TRY_OR_DONE(sp_normalizer_find(&c.problem.normalizer, argc > 1 ? argv[1] : "softpick"));
    status = bench(&c, argc > 2 ? argv[2] : NULL, argc > 3 ? atoll(argv[3]) : 0);
done:
    if (status != SP_OK) fprintf(stderr, "%s\n", sp_last_message());
    if (device) case_close(&c);
    sp_device_close(device);
    return status != SP_OK;
}
