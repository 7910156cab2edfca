/* The problem struct may grow: what a call reads of it is as much as its struct_bytes says. */
#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "softpick/attention.h"

/* The members of the first release, without what the compiler adds after the last. */
enum { FIRST_RELEASE = offsetof(sp_attention, compute_dead) + sizeof(bool) };

static float q[4] = {1, 2, 3, 4}, k[4] = {1, -1, 2, 1}, v[4] = {1, 2, 3, 4}, out[4], lse[4];

static void describe(sp_attention *problem) {
    const int64_t shape[4] = {1, 4, 1, 1};
    sp_attention_init(problem);
    problem->q = sp_tensor_view(q, SP_DTYPE_F32, 4, shape);
    problem->k = sp_tensor_view(k, SP_DTYPE_F32, 4, shape);
    problem->v = sp_tensor_view(v, SP_DTYPE_F32, 4, shape);
    problem->out = sp_tensor_view(out, SP_DTYPE_F32, 4, shape);
    problem->lse = lse;
}

static sp_status forward(const sp_attention *problem) {
    int64_t n_bytes;
    sp_status status = sp_attention_workspace(problem, SP_ATTENTION_FORWARD, 1, &n_bytes);
    if (status != SP_OK) return status;
    void *workspace = aligned_alloc(64, (size_t)n_bytes);
    status = sp_attention_forward(problem, workspace, n_bytes, 1);
    free(workspace);
    return status;
}

static void ignore_row(void *user, int64_t b, int64_t h, int64_t t, const float *weights, const float *scores,
                       int64_t first, int64_t end) {
    (void)b, (void)h, (void)t, (void)weights, (void)scores, (void)first, (void)end;
    ++*(int *)user;
}

/* Every call that takes a problem; the status of each. */
enum { N_CALLS = 9 };
static void call_all(const sp_attention *problem, sp_status status[N_CALLS]) {
    int64_t n;
    int rows = 0;
    const char *name;
    _Alignas(64) static char memory[1 << 20];
    status[0] = sp_attention_workspace(problem, SP_ATTENTION_FORWARD, 1, &n);
    status[1] = sp_attention_forward(problem, memory, sizeof memory, 1);
    status[2] = sp_attention_liveness_words(problem, &n);
    status[3] = sp_attention_choose(problem, SP_ATTENTION_FORWARD, &name);
    status[4] = sp_attention_define_forward(problem);
    status[5] = sp_attention_define_decode(problem);
    status[6] = sp_attention_rows(problem, ignore_row, &rows);
    status[7] = sp_attention_backward(problem, memory, sizeof memory, 1);
    status[8] = sp_attention_define_backward(problem);
}

static void a_smaller_struct_of_an_older_caller_works(void **state) {
    (void)state;
    float expected[4];
    sp_attention whole;
    describe(&whole);
    assert_int_equal(forward(&whole), SP_OK);
    memcpy(expected, out, sizeof out);
    /* the caller's ends at a page that cannot be read */
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(pages != MAP_FAILED && FIRST_RELEASE < page);
    assert_int_equal(mprotect(pages + page, page, PROT_NONE), 0);
    size_t aligned = (FIRST_RELEASE + _Alignof(sp_attention) - 1) / _Alignof(sp_attention) * _Alignof(sp_attention);
    sp_attention *older = (sp_attention *)(void *)(pages + page - aligned);
    whole.struct_bytes = FIRST_RELEASE;
    memcpy(older, &whole, FIRST_RELEASE);
    memset(out, 0xff, sizeof out);
    assert_int_equal(forward(older), SP_OK);
    assert_memory_equal(out, expected, sizeof out);
    sp_status status[N_CALLS];
    call_all(older, status);
    for (int i = 0; i < 7; i++) assert_int_equal(status[i], SP_OK); /* backward has no dout here */
    assert_int_equal(munmap(pages, 2 * page), 0);
}

static void init_fills_as_much_as_the_caller_has(void **state) {
    (void)state;
    struct {
        sp_attention problem;
        char grown[64]; /* of a caller newer than the library */
    } callers;
    sp_attention fresh;
    sp_attention_init(&fresh);
    for (size_t n = FIRST_RELEASE; n <= sizeof callers; n++) {
        const char *bytes = (const char *)&callers, *wanted = (const char *)&fresh;
        memset(&callers, 0xff, sizeof callers);
        sp_attention_init_bytes(&callers.problem, n);
        assert_int_equal(callers.problem.struct_bytes, n);
        for (size_t i = sizeof(size_t); i < sizeof callers; i++)
            assert_int_equal(bytes[i], i >= n ? (char)0xff : i < sizeof fresh ? wanted[i] : 0);
    }
}

static void a_struct_of_another_size_is_refused_by_every_call(void **state) {
    (void)state;
    const size_t sizes[] = {0, 1, FIRST_RELEASE - 1, sizeof(sp_attention) + 1, SIZE_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        sp_attention problem;
        char sentence[32];
        sp_status status[N_CALLS];
        describe(&problem);
        problem.struct_bytes = sizes[i];
        call_all(&problem, status);
        snprintf(sentence, sizeof sentence, "struct_bytes is %zu,", sizes[i]);
        for (int j = 0; j < N_CALLS; j++) {
            assert_int_equal(status[j], SP_BAD_ARGUMENT);
            assert_non_null(strstr(sp_last_message(), sentence));
        }
        const char *name, *why;
        assert_false(sp_attention_variant(&problem, SP_ATTENTION_FORWARD, 0, &name, &why));
        assert_non_null(name);
        assert_non_null(strstr(why, sentence));
    }
}

static void null_is_refused_by_every_call(void **state) {
    (void)state;
    sp_status status[N_CALLS];
    call_all(NULL, status);
    for (int i = 0; i < N_CALLS; i++) assert_int_equal(status[i], SP_BAD_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(init_fills_as_much_as_the_caller_has),
        cmocka_unit_test(a_smaller_struct_of_an_older_caller_works),
        cmocka_unit_test(a_struct_of_another_size_is_refused_by_every_call),
        cmocka_unit_test(null_is_refused_by_every_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
