/* Memory and numbers of a problem to be timed.
 *
 *   memory   | q | dout | sink | out dq dk dv dsink lse liveness | k v | k v | ...        outputs in the middle
 *
 * Numbers are drawn on the host and then copied to the device.
 *
 * A pattern takes a few of the D channels for itself and leaves the others normal.  With a the product of one such
 * channel of query and key, times the scale: dead slabs and keys get a = -DEPTH on top of scores of deviation 1, which
 * no score survives; scattered zeros get the quantile of the normal distribution that their share asks for. */
#include "cli/bench_problem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention/problem.h"
#include "base/memory.h"
#include "base/random.h"
#include "cli/bench_captured.h"
#include "cli/bench_number.h"

/* ---- patterns --------------------------------------------------------------------------------------------------- */

static const char *const pattern_names[BENCH_PATTERN_COUNT] = {[BENCH_DENSE] = "dense",
                                                               [BENCH_SLABS] = "slabs",
                                                               [BENCH_KEYS] = "keys",
                                                               [BENCH_ZEROS] = "zeros",
                                                               [BENCH_CAPTURED] = "captured"};

sp_status bench_pattern_parse(bench_pattern *out, const char *text) {
    char *end;
    for (int i = 0; i < BENCH_PATTERN_COUNT; i++) {
        size_t n = strlen(pattern_names[i]);
        if (strncmp(text, pattern_names[i], n) != 0) continue;
        *out = (bench_pattern){.kind = (bench_pattern_kind)i};
        if (i == BENCH_DENSE && text[n] == '\0') return SP_OK;
        if (i == BENCH_DENSE || text[n] != '=') break;
        if (i == BENCH_CAPTURED) {
            out->file = text + n + 1;
            return SP_OK;
        }
        out->share = strtod(text + n + 1, &end);
        SP_REQUIRE(end != text + n + 1 && *end == '\0' && out->share >= 0 && out->share <= 1, SP_BAD_ARGUMENT,
                   "\"%s\": \"%s\" is not a share between 0 and 1", text, text + n + 1);
        return SP_OK;
    }
    return sp_fail(SP_BAD_ARGUMENT, "\"%s\" is not dense, slabs=F, keys=F, zeros=F or captured=FILE", text);
}

void bench_pattern_format(char *text, size_t n_bytes, bench_pattern pattern) {
    const char *name = pattern_names[pattern.kind];
    switch (pattern.kind) {
    case BENCH_DENSE: snprintf(text, n_bytes, "%s", name); break;
    case BENCH_CAPTURED: snprintf(text, n_bytes, "%s=%s", name, pattern.file); break;
    default: snprintf(text, n_bytes, "%s=%g", name, pattern.share);
    }
}

/* ---- numbers ---------------------------------------------------------------------------------------------------- */

enum { STREAM_Q = 1, STREAM_K, STREAM_V, STREAM_DOUT, STREAM_SINK, STREAM_DEAD, STREAM_PAGES };
static const double DEPTH = 10;

/* Near to normal: the sum of four uniform numbers of 16 bits, in units of its deviation. */
static float draw(uint64_t seed, uint64_t stream, uint64_t index) {
    uint64_t bits = sp_random_bits(seed, stream, index);
    int64_t sum = (int64_t)((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48));
    return (float)(sum - 2 * 0xffff) * (1 / 37837.2f);
}

static void fill(const sp_tensor *tensor, uint64_t seed, uint64_t stream) {
    int64_t width = tensor->shape[3], n_rows = sp_tensor_count(tensor) / width;
#pragma omp parallel for
    for (int64_t row = 0; row < n_rows; row++) {
        char *out = (char *)tensor->data + row * width * sp_dtype_bytes(tensor->dtype);
        for (int64_t i = 0; i < width; i++)
            bench_store(out, tensor->dtype, i, draw(seed, stream, (uint64_t)(row * width + i)));
    }
}

/* x with P(normal <= x) = share, by halving an interval. */
static double normal_quantile(double share) {
    double low = -DEPTH, high = DEPTH;
    while (high - low > 1e-9) {
        double middle = (low + high) / 2;
        *(0.5 * erfc(-middle / sqrt(2)) < share ? &low : &high) = middle;
    }
    return low;
}

/* Channels that the pattern takes. */
static int64_t pattern_channels(const bench_shape *shape) {
    if (shape->pattern.kind == BENCH_DENSE || shape->pattern.kind == BENCH_CAPTURED) return 0;
    if (shape->pattern.kind != BENCH_SLABS) return 1;
    int64_t n = shape->D / 4, n_tiles = (shape->T + SP_LIVENESS_QUERIES - 1) / SP_LIVENESS_QUERIES;
    n = n < n_tiles ? n : n_tiles;
    return n > 1 ? n : 1;
}

/* What channel c of key j adds to the scores of the queries that it is for. */
static double key_score(const bench_shape *shape, uint64_t seed, int64_t head, int64_t j, int64_t c) {
    double share = shape->pattern.share, noise = sqrt((double)(shape->D - 1) / (double)shape->D);
    int64_t n_slabs = (shape->S + SP_LIVENESS_BLOCK - 1) / SP_LIVENESS_BLOCK;
    uint64_t slab = (uint64_t)((head * n_slabs + j / SP_LIVENESS_BLOCK) * shape->D + c);
    switch (shape->pattern.kind) {
    case BENCH_SLABS: return sp_random_uniform(seed, STREAM_DEAD, slab) < share ? -DEPTH : 0;
    case BENCH_KEYS:
        return (sp_random_uniform(seed, STREAM_DEAD, (uint64_t)(head * shape->S + j)) < share ? 0.5 : -0.5) * DEPTH;
    default: return -noise * normal_quantile(share);
    }
}

/* Query tile m looks along channel m % n; the product of the two numbers there, times 1/sqrt(D), is the key's score. */
static void apply_pattern(bench_problem *p, uint64_t seed) {
    const bench_shape *shape = &p->shape;
    const sp_tensor *q = &p->problem.q, *k = &p->problem.k;
    int64_t n = pattern_channels(shape);
    float along = sqrtf((float)DEPTH * sqrtf((float)shape->D));
    if (n == 0) return;
#pragma omp parallel for
    for (int64_t i = 0; i < shape->B * shape->T * shape->H; i++) {
        int64_t b = i / (shape->T * shape->H), t = i / shape->H % shape->T, h = i % shape->H;
        for (int64_t c = 0; c < n; c++)
            bench_store(sp_problem_row(q, b, t, h), shape->dtype, c, c == t / SP_LIVENESS_QUERIES % n ? along : 0);
    }
#pragma omp parallel for
    for (int64_t i = 0; i < shape->B * shape->S * shape->Hkv; i++) {
        int64_t b = i / (shape->S * shape->Hkv), j = i / shape->Hkv % shape->S, h = i % shape->Hkv;
        for (int64_t c = 0; c < n; c++) {
            double score = key_score(shape, seed, b * shape->Hkv + h, j, c);
            bench_store(sp_problem_row(k, b, j, h), shape->dtype, c, (float)(score * sqrt((double)shape->D)) / along);
        }
    }
}

/* ---- views ------------------------------------------------------------------------------------------------------ */

static int64_t n_pages(const bench_shape *s) { return (s->S + s->page_size - 1) / s->page_size; }

/* The same memory as pages: (B,S,Hkv,D) to (B n_pages, page_size, Hkv, D). */
static sp_tensor paged(const sp_tensor *tensor, const bench_shape *s) {
    const int64_t shape[] = {s->B * n_pages(s), s->page_size, tensor->shape[2], tensor->shape[3]};
    sp_tensor pages = sp_tensor_view(tensor->data, tensor->dtype, 4, shape);
    pages.device = tensor->device;
    return pages;
}

sp_attention bench_problem_of(const bench_problem *p, const bench_options *options, sp_attention_pass pass) {
    sp_attention problem = p->problem;
    problem.normalizer = options->normalizer;
    problem.lambda = options->lambda;
    problem.causal = options->causal;
    problem.window = options->window;
    problem.compute_dead = options->compute_dead;
    problem.any_order = options->any_order;
    if (!options->liveness || pass == SP_ATTENTION_DECODE) problem.liveness = NULL;
    if (options->normalizer != SP_NORMALIZER_SOFTMAX_SINK) problem.dsink = NULL;
    if (pass != SP_ATTENTION_DECODE || !p->page_table) return problem;
    problem.k = paged(&problem.k, &p->shape);
    problem.v = paged(&problem.v, &p->shape);
    problem.page_table = p->page_table;
    problem.pages_per_sequence = n_pages(&p->shape);
    problem.key_lengths = p->key_lengths;
    return problem;
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

static void *take(char *base, int64_t *used, int64_t bytes) {
    void *at = base ? base + *used : NULL;
    *used += sp_round_up(bytes, SP_ALIGNMENT);
    return at;
}

static sp_tensor take_tensor(char *base, int64_t *used, const bench_shape *s, int64_t t, int64_t h, int64_t d) {
    const int64_t shape[] = {s->B, t, h, d};
    sp_tensor tensor = sp_tensor_view(NULL, s->dtype, 4, shape);
    tensor.data = take(base, used, sp_tensor_count(&tensor) * sp_dtype_bytes(s->dtype));
    return tensor;
}

/* Rows of k and v for each sequence: whole pages. */
static int64_t key_rows(const bench_shape *s) { return s->page_size ? n_pages(s) * s->page_size : s->S; }

/* Bytes of one k and v. */
static int64_t cache_bytes(const bench_shape *s) {
    int64_t rows = s->B * key_rows(s) * s->Hkv * sp_dtype_bytes(s->dtype);
    return sp_round_up(rows * s->D, SP_ALIGNMENT) + sp_round_up(rows * s->Dv, SP_ALIGNMENT);
}

static int64_t liveness_words(const bench_shape *s) {
    int64_t n_query_tiles = (s->T + SP_LIVENESS_QUERIES - 1) / SP_LIVENESS_QUERIES;
    int64_t n_key_tiles = (s->S + SP_LIVENESS_KEYS - 1) / SP_LIVENESS_KEYS;
    return s->B * s->H * n_query_tiles * n_key_tiles;
}

/* Points everything into `base` and returns how many bytes it takes with one k and v; with base NULL only that. */
static int64_t carve(bench_problem *p, char *base) {
    const bench_shape *s = &p->shape;
    sp_attention *a = &p->problem;
    int64_t used = 0, four = (int64_t)sizeof(float);
    a->q = take_tensor(base, &used, s, s->T, s->H, s->D);
    if (s->gradients) a->dout = take_tensor(base, &used, s, s->T, s->H, s->Dv);
    a->sink = p->sink = take(base, &used, s->H * four);
    int64_t outputs = used;
    a->out = take_tensor(base, &used, s, s->T, s->H, s->Dv);
    if (s->gradients) {
        a->dq = take_tensor(base, &used, s, s->T, s->H, s->D);
        a->dk = take_tensor(base, &used, s, s->S, s->Hkv, s->D);
        a->dv = take_tensor(base, &used, s, s->S, s->Hkv, s->Dv);
        a->dsink = take(base, &used, s->H * four);
    }
    a->lse = take(base, &used, s->B * s->H * s->T * four);
    a->liveness = take(base, &used, liveness_words(s) * (int64_t)sizeof *a->liveness);
    p->outputs = base ? base + outputs : NULL;
    p->output_bytes = used - outputs;
    a->k = take_tensor(base, &used, s, key_rows(s), s->Hkv, s->D);
    a->v = take_tensor(base, &used, s, key_rows(s), s->Hkv, s->Dv);
    return used;
}

/* Of the key rows only these are keys: the last page may have some to spare. */
static void see_keys(sp_attention *a, const bench_shape *s) { a->k.shape[1] = a->v.shape[1] = s->S; }

static sp_status draw_pages(bench_problem *p, uint64_t seed) {
    const bench_shape *s = &p->shape;
    void *pages, *lengths;
    if (!s->page_size) return SP_OK;
    SP_TRY(sp_allocate(&pages, s->B * n_pages(s) * (int64_t)sizeof *p->page_table, "pages"));
    p->page_table = pages;
    SP_TRY(sp_allocate(&lengths, s->B * (int64_t)sizeof *p->key_lengths, "pages"));
    p->key_lengths = lengths;
    for (int64_t b = 0; b < s->B; b++) {
        p->key_lengths[b] = s->S;
        for (int64_t i = 0; i < n_pages(s); i++) {
            uint64_t page = sp_random_permuted(seed, STREAM_PAGES, (uint64_t)i, (uint64_t)n_pages(s));
            p->page_table[b * n_pages(s) + i] = b * n_pages(s) + (int64_t)page;
        }
    }
    return SP_OK;
}

/* Inputs by the pattern, outputs NaN; everything lies on the host. */
static sp_status draw_numbers(bench_problem *p, uint64_t seed) {
    const bench_shape *s = &p->shape;
    sp_attention *a = &p->problem;
    fill(&a->q, seed, STREAM_Q);
    fill(&a->k, seed, STREAM_K);
    fill(&a->v, seed, STREAM_V);
    if (s->gradients) fill(&a->dout, seed, STREAM_DOUT);
    for (int64_t h = 0; h < s->H; h++) p->sink[h] = draw(seed, STREAM_SINK, (uint64_t)h);
    memset(p->outputs, 0xff, (size_t)p->output_bytes);
    if (a->dsink) memset(a->dsink, 0, (size_t)s->H * sizeof *a->dsink);
    see_keys(a, s);
    if (s->pattern.kind == BENCH_CAPTURED) return bench_captured_fill(s->pattern.file, &a->q, &a->k, &a->v);
    apply_pattern(p, seed);
    return SP_OK;
}

static sp_status move_to_device(bench_problem *p, const char *image, int64_t bytes) {
    sp_attention *a = &p->problem;
    sp_tensor *const tensors[] = {&a->q, &a->k, &a->v, &a->out, &a->dout, &a->dq, &a->dk, &a->dv};
    carve(p, p->memory);
    see_keys(a, &p->shape);
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) tensors[i]->device = p->device->id;
    a->stream = p->device->stream;
    return sp_device_upload(p->device, p->memory, image, bytes);
}

sp_status bench_problem_open(bench_problem *p, sp_device *device, const bench_shape *shape, uint64_t seed) {
    sp_status status = SP_OK;
    void *memory = NULL, *image = NULL;
    *p = (bench_problem){.shape = *shape, .device = device};
    sp_attention_init(&p->problem);
    int64_t bytes = carve(p, NULL), cache = cache_bytes(shape), all = bytes + (shape->n_caches - 1) * cache;
    SP_TRY_OR_DONE(sp_device_allocate(device, &memory, all, "the tensors of a benchmark"));
    p->memory = memory;
    if (device->id) SP_TRY_OR_DONE(sp_allocate(&image, bytes, "the tensors of a benchmark"));
    carve(p, image ? image : memory);
    SP_TRY_OR_DONE(draw_pages(p, seed));
    SP_TRY_OR_DONE(draw_numbers(p, seed));
    if (image) SP_TRY_OR_DONE(move_to_device(p, image, bytes));
    for (int64_t i = 1; i < shape->n_caches; i++)
        SP_TRY_OR_DONE(sp_device_copy_rows(device, (char *)p->problem.k.data + i * cache, cache, p->problem.k.data,
                                           cache, cache, 1));
    status = sp_device_wait(device);
done:
    free(image);
    return status;
}

void bench_problem_close(bench_problem *p) {
    if (p->memory) sp_device_release(p->device, p->memory);
    free(p->page_table);
    free(p->key_lengths);
    *p = (bench_problem){0};
}

sp_status bench_problem_fetch(bench_problem *host, const bench_problem *p) {
    return sp_device_download(p->device, host->outputs, p->outputs, p->output_bytes);
}

void bench_problem_turn(bench_problem *p) {
    int64_t next = (p->cache + 1) % p->shape.n_caches, bytes = (next - p->cache) * cache_bytes(&p->shape);
    p->problem.k.data = (char *)p->problem.k.data + bytes;
    p->problem.v.data = (char *)p->problem.v.data + bytes;
    p->cache = next;
}
