/* Many threads: the library's first use by eight at once, calls at the same time, and any number of threads in a call
 * give the bits of one thread. */
#define _GNU_SOURCE /* setenv, barriers */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>

#include "attention_agree.h"
#include "base/status.h"

static const attention_shape shapes[] = {
    {.B = 2, .T = 150, .S = 150, .H = 4, .Hkv = 2, .D = 40, .Dv = 24, .causal = true, .row_factor = true},
    {.B = 1, .T = 520, .S = 520, .H = 1, .Hkv = 1, .D = 32, .Dv = 32, .causal = true, .liveness = true},
    {.B = 1, .T = 190, .S = 300, .H = 4, .Hkv = 1, .D = 64, .Dv = 64, .n_packed = 7, .liveness = true},
    {.B = 3, .T = 65, .S = 700, .H = 2, .Hkv = 2, .D = 16, .Dv = 128, .window = 90, .lengths = true},
    {.B = 1, .T = 300, .S = 200, .H = 3, .Hkv = 3, .D = 72, .Dv = 72, .normalizer = SP_NORMALIZER_SOFTMAX_SINK},
    {.B = 2, .T = 2, .S = 3000, .H = 4, .Hkv = 1, .D = 64, .Dv = 64, .causal = true},
};

enum { N_SHAPES = sizeof shapes / sizeof *shapes, N_CALLERS = 8 };

static attention_shape shape_of(int i, sp_dtype dtype) {
    attention_shape shape = shapes[i];
    shape.dtype = dtype;
    shape.lambda = 1;
    shape.eps = SP_EPS_DEFAULT;
    shape.spread = 2;
    shape.seed = 40 + (uint64_t)i;
    return shape;
}

static sp_status run_both(attention_case *c, int n_threads) {
    case_poison(c);
    SP_TRY(case_run(c, SP_ATTENTION_FORWARD, n_threads));
    return case_run(c, SP_ATTENTION_BACKWARD, n_threads);
}

/* ---- several callers -------------------------------------------------------------------------------------------- */

typedef struct caller {
    attention_case c;
    pthread_barrier_t *start;
    int n_threads, n_rounds;
    sp_status status;
} caller;

static void *call(void *user) {
    caller *self = user;
    pthread_barrier_wait(self->start);
    for (int i = 0; i < self->n_rounds && self->status == SP_OK; i++)
        self->status = run_both(&self->c, self->n_threads);
    return NULL;
}

static void call_at_once(caller *callers, int n) {
    pthread_barrier_t start;
    pthread_t threads[N_CALLERS];
    assert_int_equal(pthread_barrier_init(&start, NULL, (unsigned)n), 0);
    for (int i = 0; i < n; i++) {
        callers[i].start = &start;
        assert_int_equal(pthread_create(&threads[i], NULL, call, &callers[i]), 0);
    }
    for (int i = 0; i < n; i++) pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&start);
    for (int i = 0; i < n; i++) assert_int_equal(callers[i].status, SP_OK);
}

/* Must be the program's first test: nothing of the library has run before. */
static void eight_threads_may_be_the_first_users(void **state) {
    (void)state;
    static caller callers[N_CALLERS];
    for (int i = 0; i < N_CALLERS; i++) {
        attention_shape shape = shape_of(0, i % 2 ? SP_DTYPE_BF16 : SP_DTYPE_F32);
        callers[i] = (caller){.n_threads = 1 + i / 4, .n_rounds = 1};
        case_open(&callers[i].c, &shape);
    }
    call_at_once(callers, N_CALLERS);
    for (int i = 2; i < N_CALLERS; i++) assert_null(agree_difference(&callers[i % 2].c, &callers[i].c));
    for (int i = 0; i < N_CALLERS; i++) case_close(&callers[i].c);
}

static void other_problems_may_be_computed_at_the_same_time(void **state) {
    (void)state;
    static caller callers[N_SHAPES];
    static attention_case alone[N_SHAPES];
    for (int i = 0; i < N_SHAPES; i++) {
        attention_shape shape = shape_of(i, i % 2 ? SP_DTYPE_F32 : SP_DTYPE_BF16);
        callers[i] = (caller){.n_threads = 1 + i % 3, .n_rounds = 3};
        case_open(&callers[i].c, &shape), case_open(&alone[i], &shape);
        assert_int_equal(run_both(&alone[i], 1), SP_OK);
    }
    for (int i = 0; i + 1 < N_SHAPES; i += 2) call_at_once(callers + i, 2);
    call_at_once(callers, N_SHAPES);
    for (int i = 0; i < N_SHAPES; i++) {
        assert_null(agree_difference(&alone[i], &callers[i].c));
        case_close(&alone[i]), case_close(&callers[i].c);
    }
}

/* ---- several threads in a call ---------------------------------------------------------------------------------- */

/* The pass (forward stands for both) with 1, 2, 3, 8 and 64 threads. */
static bool same_bits(const char *variant, const attention_shape *shape, sp_attention_pass pass) {
    static const int counts[] = {1, 2, 3, 8, 64};
    attention_case once, again;
    sp_status status;
    bool same = true;
    case_open(&once, shape), case_open(&again, shape);
    for (int i = 0; i < 5; i++) {
        attention_case *c = i == 0 ? &once : &again;
        case_poison(c);
        if (agree_run(c, variant, pass, counts[i], &status) && status == SP_OK && pass == SP_ATTENTION_FORWARD)
            agree_run(c, variant, SP_ATTENTION_BACKWARD, counts[i], &status);
        assert_int_equal(status, SP_OK);
        const char *difference = i ? agree_difference(&once, &again) : NULL;
        if (difference) print_error("%s: %s has other bits with %d threads\n", variant, difference, counts[i]);
        same = same && !difference;
    }
    case_close(&once), case_close(&again);
    return same;
}

static bool check_threads(const char *variant, void *user) {
    (void)user;
    bool same = true;
    for (int i = 0; i < 2 * N_SHAPES; i++) {
        attention_shape shape = shape_of(i / 2, i % 2 ? SP_DTYPE_F32 : SP_DTYPE_BF16);
        same = same_bits(variant, &shape, SP_ATTENTION_FORWARD) && same;
        if (shape.T > 2) continue;
        same = same_bits(variant, &shape, SP_ATTENTION_DECODE) && same;
        shape.lengths = true, shape.page_size = 16;
        same = same_bits(variant, &shape, SP_ATTENTION_DECODE) && same;
    }
    return same;
}

static void same_bits_with_any_number_of_threads(void **state) {
    (void)state;
    assert_true(agree_with_each_variant(check_threads, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eight_threads_may_be_the_first_users),
        cmocka_unit_test(other_problems_may_be_computed_at_the_same_time),
        cmocka_unit_test(same_bits_with_any_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
