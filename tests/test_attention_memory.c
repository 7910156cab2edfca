/* No variant touches memory outside of what it was handed: all arrays, the workspace among them, end right before an
 * unmapped page, or begin right behind one, and hold exactly what is needed.  Results are the same bits as elsewhere. */
#define _GNU_SOURCE /* setenv, MAP_ANONYMOUS */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "attention_agree.h"
#include "attention_sample.h"
#include "base/status.h"

/* ---- memory beside unmapped pages ------------------------------------------------------------------------------- */

typedef struct guarded_block {
    char *data, *map;
    size_t map_bytes;
} guarded_block;

enum { N_BLOCKS = 64 };
static guarded_block blocks[N_BLOCKS];
static bool page_behind; /* else before */

static void *guarded_allocate(int64_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = (size_t)bytes, used = (n + page - 1) / page * page;
    guarded_block *block = blocks;
    while (block->map) block++;
    assert_true(block < blocks + N_BLOCKS);
    block->map_bytes = used + 2 * page;
    block->map = mmap(NULL, block->map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(block->map != MAP_FAILED);
    assert_true(!used || mprotect(block->map + page, used, PROT_READ | PROT_WRITE) == 0);
    block->data = block->map + page + (page_behind ? used - n : 0);
    return memset(block->data, 0xff, n);
}

static void guarded_release(void *memory) {
    for (int i = 0; memory && i < N_BLOCKS; i++) {
        if (blocks[i].data != memory) continue;
        munmap(blocks[i].map, blocks[i].map_bytes);
        blocks[i] = (guarded_block){0};
        return;
    }
}

static const case_memory guarded = {guarded_allocate, guarded_release}, plain = {case_allocate_plain, free};

/* ---- what is running when a page is touched --------------------------------------------------------------------- */

static char running[400];

static void stop(int number) {
    static const char message[] = "\nmemory outside of what was handed over was touched by: ";
    ssize_t written = write(2, message, sizeof message - 1);
    if (written > 0) written = write(2, running, strlen(running));
    _exit(number);
}

/* ---- the test --------------------------------------------------------------------------------------------------- */

typedef struct guarded_case {
    const attention_shape *shape;
    sp_attention_pass pass;
} guarded_case;

static bool run_passes(attention_case *c, const char *variant, sp_attention_pass pass) {
    sp_status status;
    bool ran = agree_run(c, variant, pass, 1, &status);
    assert_int_equal(status, SP_OK);
    if (ran && pass == SP_ATTENTION_FORWARD) agree_run(c, variant, SP_ATTENTION_BACKWARD, 1, &status);
    assert_int_equal(status, SP_OK);
    return ran;
}

static bool check_variant(const char *variant, void *user) {
    const guarded_case *wanted = user;
    attention_case elsewhere, c;
    char text[320];
    bool same = true;
    case_describe(wanted->shape, text, sizeof text);
    snprintf(running, sizeof running, "%s [%s]\n", text, variant);
    case_open(&elsewhere, wanted->shape);
    bool ran = run_passes(&elsewhere, variant, wanted->pass);
    for (int i = 0; i < 2 && ran; i++) {
        page_behind = i == 0;
        case_source = guarded;
        case_open(&c, wanted->shape);
        run_passes(&c, variant, wanted->pass);
        const char *difference = agree_difference(&elsewhere, &c);
        if (difference) fprintf(stderr, "%s%s has other bits\n", running, difference);
        same = same && !difference;
        case_close(&c);
        case_source = plain;
    }
    case_close(&elsewhere);
    return same;
}

static void check_samples(attention_shape (*sample)(uint64_t seed, int64_t limit), sp_attention_pass pass) {
    signal(SIGSEGV, stop);
    signal(SIGBUS, stop);
    for (uint64_t seed = sample_first(); seed < sample_first() + sample_count(150); seed++) {
        attention_shape shape = sample(seed, 600000);
        guarded_case wanted = {&shape, pass};
        assert_true(agree_with_each_variant(check_variant, &wanted));
    }
    agree_tell(pass);
}

static void forward_and_backward_stay_inside(void **state) {
    (void)state;
    check_samples(sample_shape, SP_ATTENTION_FORWARD);
}

static void decode_stays_inside(void **state) {
    (void)state;
    check_samples(sample_decode, SP_ATTENTION_DECODE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_and_backward_stay_inside),
        cmocka_unit_test(decode_stays_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
