/* Every kernel of attention on a GPU on the smallest problems that take each way through it: quick enough to be run under
 * compute-sanitizer (./dev gpu --sanitize).  Each row of the table that takes a problem computes it, or the one that
 * SP_ATTENTION names.  To add a way through a kernel: a line in `cases`.
 *
 * With SOFTPICK_TEST_RAW workspaces are left as the driver gives them, so that initcheck knows what nobody has written;
 * else they are full of NaN.  initcheck does not see what the copy engine writes (dq's sums in their order, of which the
 * first share is stored): then dq is summed in any order, onto zeros.
 *
 * With SOFTPICK_TEST_RACE backward leaves out sequences that end within a block of keys: there both groups of threads write
 * the same zeros to the same places, which racecheck reports against the loads that follow. */
#define _GNU_SOURCE /* setenv */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dlfcn.h>

#include "attention/select.h"
#include "attention_signs.h"
#include "cuda_agree.h"
#include "cuda_first.h"

typedef struct small_case {
    const char *name;
    attention_shape shape; /* what is 0 here becomes what `shape_of` says */
    bool decode, any_order;
    bool signs; /* most blocks of scores are negative */
} small_case;

static const small_case cases[] = {
    {.name = "causal, grouped heads", .shape = {.T = 450, .causal = true}},
    {.name = "each sees all, more keys than queries", .shape = {.T = 200, .S = 330, .Hkv = 1}},
    {.name = "causal, more keys than queries", .shape = {.T = 200, .S = 330, .causal = true}},
    {.name = "causal, queries that see nothing", .shape = {.T = 250, .S = 100, .causal = true}},
    {.name = "window", .shape = {.T = 300, .causal = true, .window = 70}},
    {.name = "window over more keys", .shape = {.T = 150, .S = 400, .causal = true, .window = 97}},
    {.name = "packed, an empty sequence", .shape = {.T = 300, .n_packed = 4, .causal = true}},
    {.name = "packed, other lengths of keys", .shape = {.T = 200, .S = 300, .n_packed = 4}},
    {.name = "lengths", .shape = {.B = 3, .T = 130, .S = 200, .lengths = true}},
    {.name = "more tiles than multiprocessors", .shape = {.T = 3, .S = 150, .H = 160, .Hkv = 160}},
    {.name = "one query", .shape = {.T = 1, .S = 70, .causal = true}},
    {.name = "softmax", .shape = {.T = 200, .causal = true, .normalizer = SP_NORMALIZER_SOFTMAX}},
    {.name = "softmax, f16", .shape = {.T = 200, .dtype = SP_DTYPE_F16, .normalizer = SP_NORMALIZER_SOFTMAX}},
    {.name = "f16", .shape = {.T = 200, .dtype = SP_DTYPE_F16, .causal = true}},
    {.name = "high scores", .shape = {.T = 200, .causal = true, .spread = 8}},
    {.name = "liveness", .shape = {.T = 300, .causal = true, .liveness = true}},
    {.name = "liveness, lengths", .shape = {.B = 2, .T = 130, .S = 300, .lengths = true, .liveness = true}},
    {.name = "dead blocks", .shape = {.T = 450, .causal = true, .liveness = true}, .signs = true},
    {.name = "dead blocks, all computed",
     .shape = {.T = 200, .S = 300, .liveness = true, .compute_dead = true},
     .signs = true},
    {.name = "dead blocks, packed",
     .shape = {.T = 400, .n_packed = 4, .causal = true, .liveness = true},
     .signs = true},
    {.name = "any order", .shape = {.T = 450, .causal = true}, .any_order = true},
    {.name = "cache", .shape = {.T = 1, .S = 1000, .H = 8, .Hkv = 2}, .decode = true},
    {.name = "cache, a few queries",
     .shape = {.B = 2, .T = 3, .S = 300, .H = 4, .Hkv = 1, .causal = true},
     .decode = true},
    {.name = "cache of pages",
     .shape = {.B = 2, .T = 1, .S = 500, .H = 4, .page_size = 16, .lengths = true},
     .decode = true},
    {.name = "cache, lengths, softmax",
     .shape = {.B = 3, .T = 1, .S = 300, .H = 4, .lengths = true, .normalizer = SP_NORMALIZER_SOFTMAX},
     .decode = true},
    {.name = "cache, dead keys", .shape = {.T = 1, .S = 900, .H = 4, .Hkv = 1}, .decode = true, .signs = true},
    {.name = "cache, window",
     .shape = {.T = 1, .S = 700, .H = 4, .Hkv = 2, .causal = true, .window = 130},
     .decode = true},
};

enum { CASES = sizeof cases / sizeof *cases };

static attention_shape shape_of(const small_case *at, int64_t D) {
    attention_shape shape = at->shape;
    shape.D = shape.Dv = D;
    if (!shape.B) shape.B = 1;
    if (!shape.S) shape.S = shape.T;
    if (!shape.H) shape.H = 2;
    if (!shape.Hkv) shape.Hkv = shape.H / 2;
    if (shape.dtype == SP_DTYPE_F32) shape.dtype = SP_DTYPE_BF16;
    if (shape.spread == 0) shape.spread = 1;
    shape.lambda = 1, shape.eps = SP_EPS_DEFAULT, shape.seed = (uint64_t)(at - cases) + 1;
    return shape;
}

static void change(attention_case *c, const void *user) {
    if (((const small_case *)user)->signs) case_signs(c, 7);
}

/* ---- one pass by one row --------------------------------------------------------------------------------------------- */

/* Memory that nobody has written: sp_device_allocate's is full of zeros. */
static void *raw_memory(int64_t bytes) {
    void *driver = dlopen("libcuda.so.1", RTLD_NOW), *memory = NULL;
    if (!driver) fail_msg("%s", dlerror());
    int (*allocate)(void **, size_t) = (int (*)(void **, size_t))(uintptr_t)dlsym(driver, "cuMemAlloc_v2");
    if (!allocate || allocate(&memory, (size_t)(bytes > 0 ? bytes : 1)) != 0)
        fail_msg("no %lld bytes", (long long)bytes);
    return memory;
}

/* The workspace of a pass: of exactly the size asked for. */
static void *workspace_of(const sp_attention *problem, sp_attention_pass pass, int64_t *bytes) {
    cuda_expect(sp_attention_workspace(problem, pass, 0, bytes));
    return getenv("SOFTPICK_TEST_RAW") ? raw_memory(*bytes) : cuda_poisoned(gpu, *bytes);
}

/* False if the row that SP_ATTENTION names does not take it. */
static bool run(cuda_case *c, sp_attention_pass pass) {
    const char *name;
    int64_t bytes = 0;
    if (sp_attention_choose(&c->problem, pass, &name) == SP_UNSUPPORTED) return false;
    void *workspace = workspace_of(&c->problem, pass, &bytes);
    cuda_expect(pass == SP_ATTENTION_DECODE    ? sp_attention_decode(&c->problem, workspace, bytes, 0)
                : pass == SP_ATTENTION_FORWARD ? sp_attention_forward(&c->problem, workspace, bytes, 0)
                                               : sp_attention_backward(&c->problem, workspace, bytes, 0));
    cuda_expect(sp_device_wait(gpu));
    sp_device_release(gpu, workspace);
    cuda_case_download(c);
    return true;
}

/* Whether a pass of one case by one row went well, if it took it; n_taken: one more then. */
static bool pass_agrees(const char *what, const cuda_truth *truth, attention_case *host, sp_attention_pass pass,
                        bool any_order, int *n_taken) {
    cuda_case ours;
    cuda_case_open(&ours, host, gpu);
    ours.problem.any_order = any_order || getenv("SOFTPICK_TEST_RAW");
    bool taken = run(&ours, pass), near = true;
    if (taken)
        near = pass == SP_ATTENTION_BACKWARD ? cuda_near_backward(what, truth, host)
                                             : cuda_near_forward(what, truth, host);
    if (ours.n_written_outside)
        print_message("%s: %lld bytes written outside\n", what, (long long)ours.n_written_outside);
    cuda_case_close(&ours);
    *n_taken += taken;
    return near && ours.n_written_outside == 0;
}

/* Forward and backward, or decode, of one case by one row. */
static bool row_agrees(const small_case *at, const cuda_truth *truth, int64_t D, const char *row, int *n_taken) {
    attention_shape shape = shape_of(at, D);
    attention_case host;
    char what[160];
    snprintf(what, sizeof what, "%s, D %lld, %s", at->name, (long long)D, row);
    setenv("SP_ATTENTION", row, 1);
    case_open(&host, &shape);
    change(&host, at);
    bool near = pass_agrees(what, truth, &host, at->decode ? SP_ATTENTION_DECODE : SP_ATTENTION_FORWARD, at->any_order,
                            n_taken);
    cuda_take_forward(&host, truth);
    bool zeros_twice = getenv("SOFTPICK_TEST_RACE") && (shape.n_packed || shape.lengths);
    if (!at->decode && !zeros_twice)
        near = pass_agrees(what, truth, &host, SP_ATTENTION_BACKWARD, at->any_order, n_taken) && near;
    case_close(&host);
    return near;
}

/* ---- all of it --------------------------------------------------------------------------------------------------------- */

/* Cases of one width; tells how many passes each row took. */
static void check_width(int64_t D) {
    const char *named = getenv("SP_ATTENTION");
    char wanted[32] = "";
    bool all = true;
    if (!gpu) skip();
    if (named) snprintf(wanted, sizeof wanted, "%s", named);
    unsetenv("SP_ATTENTION");
    int taken[16] = {0};
    for (int i = 0; i < CASES; i++) {
        attention_shape shape = shape_of(&cases[i], D);
        cuda_truth truth;
        cuda_truth_open(&truth, &shape, change, &cases[i], cases[i].decode, false);
        truth.alike = cases[i].signs;
        for (int row = 0; row < sp_attention_table.n_rows; row++) {
            const sp_variant *variant = sp_variant_at(&sp_attention_table, row);
            if (!((const sp_attention_row *)variant)->gpu || (*wanted && strcmp(wanted, variant->name))) continue;
            all = row_agrees(&cases[i], &truth, D, variant->name, &taken[row]) && all;
        }
        unsetenv("SP_ATTENTION");
        cuda_truth_close(&truth);
    }
    for (int row = 0; row < sp_attention_table.n_rows; row++)
        if (taken[row])
            print_message("D %lld: %s took %d passes\n", (long long)D, sp_variant_at(&sp_attention_table, row)->name,
                          taken[row]);
    if (*wanted) setenv("SP_ATTENTION", wanted, 1);
    assert_true(all);
}

static void heads_of_64_channels_agree(void **state) {
    (void)state;
    check_width(64);
}
static void heads_of_128_channels_agree(void **state) {
    (void)state;
    check_width(128);
}
static void heads_of_96_channels_agree(void **state) {
    (void)state;
    check_width(96);
}
static void heads_of_192_channels_agree(void **state) {
    (void)state;
    check_width(192);
}
static void heads_of_256_channels_agree(void **state) {
    (void)state;
    check_width(256);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_of_64_channels_agree),  cmocka_unit_test(heads_of_128_channels_agree),
        cmocka_unit_test(heads_of_96_channels_agree),  cmocka_unit_test(heads_of_192_channels_agree),
        cmocka_unit_test(heads_of_256_channels_agree),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
