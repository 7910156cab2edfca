/* Attention on a GPU on random problems, as many as there is time for: SOFTPICK_TEST_SECONDS (default 5; 600 before a
 * release), from number SOFTPICK_TEST_FIRST of the list on.  A number is all it takes to meet a problem again, under the
 * same seconds: they limit how large it may be.
 *
 * Each problem is computed by the row that the GPU prefers, some by the row sm80, with memory that is NaN wherever
 * nothing is to be read, and held against the definition.  What may change no bit (compute_dead, liveness words) is
 * tried with each. */
#define _GNU_SOURCE /* setenv */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <omp.h>
#include <time.h>

#include "attention/select.h"
#include "attention_sample.h"
#include "attention_signs.h"
#include "cuda_agree.h"
#include "cuda_first.h"

static double seconds_wanted(void) {
    const char *wanted = getenv("SOFTPICK_TEST_SECONDS");
    return wanted ? strtod(wanted, NULL) : 5;
}

static double now(void) {
    struct timespec time;
    timespec_get(&time, TIME_UTC);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* ---- rows that are not like others ------------------------------------------------------------------------------- */

/* Scores of all rows before scaling, for key j of S.  c: where the only one is, or a seed. */
typedef double (*score_list)(int64_t j, int64_t S, uint64_t c);

static double climbing(int64_t j, int64_t S, uint64_t c) { return (double)(j + (int64_t)(c % 3)) * 40 / (double)S; }
static double falling(int64_t j, int64_t S, uint64_t c) { return 100 - climbing(j, S, c) * 2; }
static double negative(int64_t j, int64_t S, uint64_t c) { return -1 - (double)((j + S + (int64_t)(c % 7)) % 5); }
static double zero(int64_t j, int64_t S, uint64_t c) { return 0 * (double)(j + S + (int64_t)(c % 2)); }
static double huge(int64_t j, int64_t S, uint64_t c) { return (j + S + (int64_t)(c % 3)) % 3 ? -1e4 : 1e4; }
static double one_positive(int64_t j, int64_t S, uint64_t c) {
    const int64_t places[] = {0, S - 1, S / 2, (int64_t)(c % (uint64_t)(S ? S : 1))};
    return j == places[c % 4] ? 3 : -1;
}
/* Below -100 in the first blocks of a row, and in the last. */
static double far_below_first(int64_t j, int64_t S, uint64_t c) { return j < S / 2 - (int64_t)(c % 3) ? -120 : 1; }
static double far_below_last(int64_t j, int64_t S, uint64_t c) { return j < 1 + (int64_t)(c % 3) + S / 9 ? 2 : -200; }
/* Around the height at which a row's shift is raised. */
static double near_the_limit(int64_t j, int64_t S, uint64_t c) {
    return 5 + (double)((j + S + (int64_t)(c % 5)) % 9) * 0.125;
}
static double jumping(int64_t j, int64_t S, uint64_t c) {
    return (double)((j + (int64_t)(c % 11)) * 7919 % 61) - 30 + 0 * (double)S;
}

static const score_list lists[] = {climbing,     falling,         negative,       zero,           huge,
                                   one_positive, far_below_first, far_below_last, near_the_limit, jumping};
enum { LISTS = sizeof lists / sizeof *lists };

/* q = (1, 0, ...), k[j] = (score, 0, ...); what is NaN is not there and stays. */
static void store_scores(attention_case *c, score_list list) {
    const sp_tensor *tensors[2] = {&c->problem.q, &c->problem.k};
    for (int i = 0; i < 2; i++) {
        const sp_tensor *x = tensors[i];
        for (int64_t b = 0; b < x->shape[0]; b++)
            for (int64_t t = 0; t < x->shape[1]; t++)
                for (int64_t h = 0; h < x->shape[2]; h++)
                    for (int64_t d = 0; d < x->shape[3]; d++)
                        if (!isnan(case_load(x, b, t, h, d)))
                            case_store(x, b, t, h, d, d > 0 ? 0 : i == 0 ? 1 : list(t, x->shape[1], (uint64_t)(b + h)));
    }
}

/* ---- problems ------------------------------------------------------------------------------------------------------- */

enum input_kind { INPUTS_NORMAL, INPUTS_LIST, INPUTS_SIGNS, INPUTS_NAN };

typedef struct stress_problem {
    uint64_t seed;
    attention_shape shape;
    enum input_kind kind;
    bool decode, any_order, older; /* older: by the row sm80 */
    cuda_truth truth;
} stress_problem;

/* Sequences, heads, keys and queries are taken away until the definition takes about `limit` products. */
static void shrink(attention_shape *s, int64_t limit) {
    while (s->B * s->H * (s->T + 1) * (s->S + 1) * (s->D + s->Dv) > limit) {
        if (s->B > 1)
            s->B--;
        else if (s->H > s->Hkv)
            s->H -= s->Hkv;
        else if (s->Hkv > 1)
            s->H = --s->Hkv;
        else
            s->T = (s->T + 1) / 2, s->S = (s->S + 1) / 2;
    }
    if (s->interleaved && s->S != s->T) s->interleaved = false;
}

static attention_shape stress_shape(uint64_t seed, int64_t limit) {
    attention_shape s = {.seed = seed};
    sample_options(&s, seed);
    s.B = SAMPLE(50, 1, 1, 1, 2, 3, 0);
    s.Hkv = SAMPLE(51, 1, 1, 2, 5);
    s.H = s.Hkv * SAMPLE(52, 1, 1, 2, 4, 8);
    s.D = s.Dv = SAMPLE(53, 32, 64, 64, 64, 96, 128, 128, 128, 192, 256);
    if (sample_chance(seed, 54, 8)) s.Dv = SAMPLE(55, 32, 64, 128, 256);
    s.T = SAMPLE(56, 0, 1, 7, 63, 64, 65, 127, 128, 129, 191, 300, 500, 1000, 1000, 4096);
    s.S = sample_chance(seed, 57, 3) ? SAMPLE(58, 0, 1, 7, 63, 64, 65, 127, 128, 129, 191, 1000, 4096) : s.T;
    s.window = sample_chance(seed, 59, 4) ? SAMPLE(60, 1, 17, 64, 100, 129, 1000) : 0;
    if (sample_chance(seed, 61, 2)) s.normalizer = SP_NORMALIZER_SOFTPICK, s.lambda = 1, s.row_factor = false;
    s.head_major = sample_chance(seed, 62, 3);
    s.n_packed = !s.lengths && sample_chance(seed, 63, 4) ? SAMPLE(64, 1, 3, 7) : 0;
    if (s.n_packed) s.B = 1;
    s.liveness = sample_chance(seed, 65, 2);
    shrink(&s, limit);
    return s;
}

static int64_t work_limit(void) { return (int64_t)fmin(4e9, 1e7 * seconds_wanted()); }

static stress_problem stress_sample(uint64_t seed) {
    stress_problem p = {.seed = seed, .decode = sample_chance(seed, 70, 4)};
    p.shape = p.decode ? sample_decode(seed, work_limit()) : stress_shape(seed, work_limit());
    if (p.shape.dtype == SP_DTYPE_F32) p.shape.dtype = SP_DTYPE_BF16;
    p.shape.compute_dead = false;
    p.any_order = sample_chance(seed, 71, 3);
    p.older = sample_chance(seed, 72, 8);
    p.kind =
        (enum input_kind)SAMPLE(73, INPUTS_NORMAL, INPUTS_NORMAL, INPUTS_NORMAL, INPUTS_LIST, INPUTS_SIGNS, INPUTS_NAN);
    if (p.kind != INPUTS_NAN && p.shape.spread > 4) p.shape.spread = 4;
    return p;
}

/* A query, if there is one, becomes NaN: its own rows are, and no others. */
static void spoil_query(attention_case *c, uint64_t seed) {
    const sp_tensor *q = &c->problem.q;
    int64_t at[3];
    for (int i = 0; i < 3; i++) {
        if (q->shape[i] == 0) return;
        at[i] = (int64_t)sp_random_below(seed, 74, (uint64_t)i, (uint64_t)q->shape[i]);
    }
    case_store(q, at[0], at[1], at[2], q->shape[3] / 2, NAN);
}

static void change(attention_case *c, const void *user) {
    const stress_problem *p = user;
    switch (p->kind) {
    case INPUTS_LIST:
        c->problem.scale = 1;
        store_scores(c, lists[sp_random_below(p->seed, 75, 0, LISTS)]);
        break;
    case INPUTS_SIGNS: case_signs(c, p->seed); break;
    case INPUTS_NAN: spoil_query(c, p->seed); break;
    case INPUTS_NORMAL: break;
    }
}

/* Masked scores of a NaN query's tile are 0 times NaN in gradients, which is left open. */
static bool has_backward(const stress_problem *p) { return !p->decode && p->kind != INPUTS_NAN; }

/* ---- one problem on the GPU ------------------------------------------------------------------------------------------ */

typedef struct pass_variant {
    bool compute_dead, liveness;
} pass_variant;

/* How often each row of the table ran a pass. */
static int ran[16][SP_ATTENTION_PASS_COUNT];

/* The row that ran last. */
static const char *last_row = "";

static void count_row(const char *name, sp_attention_pass pass) {
    last_row = name;
    for (int i = 0; i < sp_attention_table.n_rows; i++)
        ran[i][pass] += strcmp(sp_variant_at(&sp_attention_table, i)->name, name) == 0;
}

/* A pass on the inputs of `host`.  Where no row takes liveness words it goes without. */
static bool run(attention_case *host, const stress_problem *p, sp_attention_pass pass, pass_variant variant) {
    cuda_case ours;
    const char *name;
    uint32_t *words = host->problem.liveness;
    cuda_case_open(&ours, host, gpu);
    ours.problem.any_order = p->any_order, ours.problem.compute_dead = variant.compute_dead;
    uint32_t *device_words = ours.problem.liveness;
    if (!variant.liveness) ours.problem.liveness = NULL, host->problem.liveness = NULL;
    if (sp_attention_choose(&ours.problem, pass, &name) == SP_UNSUPPORTED && ours.problem.liveness) {
        ours.problem.liveness = NULL, host->problem.liveness = NULL;
        cuda_expect(sp_attention_choose(&ours.problem, pass, &name));
    }
    count_row(name, pass);
    cuda_expect(cuda_case_run(&ours, pass));
    ours.problem.liveness = device_words;
    cuda_case_close(&ours);
    host->problem.liveness = words;
    if (ours.n_written_outside) print_message("%lld bytes written outside\n", (long long)ours.n_written_outside);
    return ours.n_written_outside == 0;
}

static bool same_tensors(const attention_case *a, const attention_case *b, int first, int end) {
    for (int i = first; i < end; i++)
        if (memcmp(a->blocks[i], b->blocks[i], (size_t)a->block_bytes[i])) return false;
    return true;
}

static bool same_results(const attention_case *a, const attention_case *b, sp_attention_pass pass, bool any_order) {
    if (pass == SP_ATTENTION_BACKWARD) return same_tensors(a, b, any_order ? 6 : 5, 8);
    return same_tensors(a, b, 3, 4) && !memcmp(a->lse, b->lse, (size_t)a->n_lse * sizeof *a->lse);
}

/* The pass again with all computed and without liveness words: the same bits, if it is by the same row. */
static bool same_again(const attention_case *first, const stress_problem *p, sp_attention_pass pass) {
    const char *row = last_row;
    attention_case again;
    case_open(&again, &p->shape);
    change(&again, p);
    if (pass == SP_ATTENTION_BACKWARD) cuda_take_forward(&again, &p->truth);
    bool well = run(&again, p, pass, (pass_variant){.compute_dead = true});
    bool same = strcmp(row, last_row) != 0 || same_results(first, &again, pass, p->any_order);
    if (!same) print_message("%s: other bits with all computed\n", sp_attention_pass_name(pass));
    case_close(&again);
    return well && same;
}

static bool agrees(const stress_problem *p) {
    static const pass_variant usual = {.liveness = true};
    sp_attention_pass pass = p->decode ? SP_ATTENTION_DECODE : SP_ATTENTION_FORWARD;
    attention_case ours;
    char what[360];
    case_describe(&p->shape, what, sizeof what);
    if (p->older) setenv("SP_ATTENTION", "sm80", 1);
    case_open(&ours, &p->shape);
    change(&ours, p);
    bool near = run(&ours, p, pass, usual);
    near = cuda_near_forward(what, &p->truth, &ours) && near;
    near = same_again(&ours, p, pass) && near;
    if (has_backward(p)) {
        cuda_take_forward(&ours, &p->truth);
        near = run(&ours, p, SP_ATTENTION_BACKWARD, usual) && near;
        near = cuda_near_backward(what, &p->truth, &ours) && near;
        near = same_again(&ours, p, SP_ATTENTION_BACKWARD) && near;
    }
    case_close(&ours);
    unsetenv("SP_ATTENTION");
    if (!near)
        print_message("... problem %llu (inputs %d%s%s): %s\n", (unsigned long long)p->seed, (int)p->kind,
                      p->any_order ? ", any order" : "", p->older ? ", sm80" : "", what);
    return near;
}

static void random_problems_agree(void **state) {
    (void)state;
    enum { MOST = 64 };
    static stress_problem problems[MOST];
    int n = omp_get_max_threads() < MOST ? omp_get_max_threads() : MOST, failures = 0;
    uint64_t first = sample_first(), seed = first;
    if (!gpu) skip();
    for (double end = now() + seconds_wanted(); now() < end; seed += (uint64_t)n) {
#pragma omp parallel for schedule(dynamic) num_threads(n)
        for (int i = 0; i < n; i++) {
            stress_problem *p = &problems[i];
            *p = stress_sample(seed + (uint64_t)i);
            cuda_truth_open(&p->truth, &p->shape, change, p, p->decode, !has_backward(p));
            p->truth.alike = p->kind == INPUTS_LIST || p->kind == INPUTS_SIGNS;
        }
        for (int i = 0; i < n; i++) {
            failures += !agrees(&problems[i]);
            cuda_truth_close(&problems[i].truth);
        }
    }
    for (int row = 0; row < sp_attention_table.n_rows; row++)
        if (((const sp_attention_row *)sp_variant_at(&sp_attention_table, row))->gpu)
            print_message("%s: %d forward, %d backward, %d decode\n", sp_variant_at(&sp_attention_table, row)->name,
                          ran[row][SP_ATTENTION_FORWARD], ran[row][SP_ATTENTION_BACKWARD],
                          ran[row][SP_ATTENTION_DECODE]);
    print_message("problems %llu to %llu: %d do not agree\n", (unsigned long long)first, (unsigned long long)seed - 1,
                  failures);
    assert_int_equal(failures, 0);
}

/* ---- the same bits ---------------------------------------------------------------------------------------------------- */

/* Backward without a truth may be large. */
static attention_shape long_shape(uint64_t seed) {
    attention_shape s = stress_shape(seed, INT64_MAX);
    if (s.dtype == SP_DTYPE_F32) s.dtype = SP_DTYPE_F16;
    s.liveness = false;
    while (s.B * s.H * s.T * s.D > 4000000 && s.H > s.Hkv) s.H -= s.Hkv;
    while (s.B * s.Hkv * s.S * s.D > 4000000 && s.B > 1) s.B--;
    return s;
}

/* Any out and lse will do. */
static void invent_forward(attention_case *c) {
    case_fill(&c->problem.out, 0.1, 5, 5);
    for (int64_t i = 0; i < c->n_lse; i++) c->lse[i] = 8 + (float)sp_random_normal(5, 6, (uint64_t)i);
}

static void queue(cuda_case *c, void **workspace) {
    int64_t bytes = 0;
    cuda_expect(sp_attention_workspace(&c->problem, SP_ATTENTION_BACKWARD, 0, &bytes));
    *workspace = cuda_poisoned(c->device, bytes);
    cuda_expect(sp_attention_backward(&c->problem, *workspace, bytes, 0));
}

/* Runs backward of `host`, every second time beside another that never ends before it. */
static void run_beside(attention_case *host, cuda_case *busy, bool beside) {
    cuda_case ours;
    void *workspace = NULL, *other = NULL;
    cuda_case_open(&ours, host, gpu);
    if (beside) queue(busy, &other);
    queue(&ours, &workspace);
    cuda_expect(sp_device_wait(gpu));
    cuda_case_download(&ours);
    sp_device_release(gpu, workspace);
    cuda_case_close(&ours);
    if (!beside) return;
    cuda_expect(sp_device_wait(busy->device));
    sp_device_release(busy->device, other);
}

static void twenty_runs_give_the_same_bits_beside_a_competing_kernel(void **state) {
    (void)state;
    if (!gpu) skip();
    sp_device *other;
    cuda_expect(sp_device_open(&other, 1));
    attention_shape busy_shape = cuda_shape(2048, 64, SP_DTYPE_BF16);
    attention_case busy_host;
    cuda_case busy;
    case_open(&busy_host, &busy_shape);
    invent_forward(&busy_host);
    cuda_case_open(&busy, &busy_host, other);
    uint64_t seed = sample_first();
    for (double end = now() + seconds_wanted() / 2; now() < end; seed++) {
        attention_shape shape = long_shape(seed);
        attention_case first, next;
        case_open(&first, &shape), case_open(&next, &shape);
        invent_forward(&first), invent_forward(&next);
        run_beside(&first, &busy, false);
        for (int i = 1; i < 20; i++) {
            memset(next.dsink, 0, (size_t)shape.H * sizeof *next.dsink);
            memset(next.drow_factor, 0, (size_t)shape.H * sizeof *next.drow_factor);
            run_beside(&next, &busy, i % 2);
            if (same_tensors(&first, &next, 5, 8)) continue;
            char what[360];
            case_describe(&shape, what, sizeof what);
            fail_msg("run %d has other bits: %s", i, what);
        }
        case_close(&first), case_close(&next);
    }
    print_message("problems %llu to %llu\n", (unsigned long long)sample_first(), (unsigned long long)seed - 1);
    cuda_case_close(&busy);
    case_close(&busy_host);
    sp_device_close(other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_problems_agree),
        cmocka_unit_test(twenty_runs_give_the_same_bits_beside_a_competing_kernel),
    };
    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
