/* Every variant, by name, on sampled problems: it agrees with the definition, and neither the number of threads nor what
 * is skipped changes a bit.  SOFTPICK_TEST_SEEDS=n samples n problems, from SOFTPICK_TEST_FIRST on. */
#define _GNU_SOURCE /* setenv */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_agree.h"
#include "attention_sample.h"
#include "base/status.h"

enum { LIMIT = 3000000 }; /* products per pass over Q K^T and P V */

/* A second run, otherwise: with other threads, with what was skipped computed or the other way round, and in the
 * end without liveness words. */
static bool same_otherwise(const agree_case *a, const char *variant, attention_case *ours, int n_threads) {
    attention_case other;
    sp_status status;
    bool same = true;
    case_open(&other, &a->shape);
    other.problem.compute_dead = !a->shape.compute_dead;
    for (int round = 0; round < 2; round++) {
        if (round == 1 && !a->shape.liveness) break;
        if (round == 1) other.problem.liveness = NULL;
        if (agree_run(&other, variant, a->pass, n_threads, &status) && a->pass == SP_ATTENTION_FORWARD)
            agree_run(&other, variant, SP_ATTENTION_BACKWARD, n_threads, &status);
        const char *difference = agree_difference(ours, &other);
        if (status != SP_OK) difference = sp_last_message();
        if (difference)
            fprintf(stderr, "%s [%s]: other bits with %d threads, compute_dead %d, liveness %d: %s\n", a->text, variant,
                    n_threads, other.problem.compute_dead, other.problem.liveness != NULL, difference);
        same = same && !difference;
        case_poison(&other);
    }
    case_close(&other);
    return same;
}

static bool check_variant(const char *variant, void *user) {
    agree_case *a = user;
    attention_case ours;
    int n_threads = 1 + (int)(a->shape.seed % 3);
    bool good = agree_variant(a, variant, n_threads, &ours);
    good = same_otherwise(a, variant, &ours, n_threads == 1 ? 8 : 1) && good;
    case_close(&ours);
    return good;
}

static void check_all(attention_shape (*sample)(uint64_t seed, int64_t limit), sp_attention_pass pass, uint64_t usual) {
    uint64_t first = sample_first(), n = sample_count(usual), bad = 0;
    printf("%s: problems %llu to %llu\n", sp_attention_pass_name(pass), (unsigned long long)first,
           (unsigned long long)(first + n - 1));
    for (uint64_t seed = first; seed < first + n; seed++) {
        attention_shape shape = sample(seed, LIMIT);
        agree_case a = {.shape = shape, .pass = pass};
        if (agree_open(&a) != SP_OK) fail_msg("%s: %s", a.text, sp_last_message());
        bad += !agree_with_each_variant(check_variant, &a);
        agree_close(&a);
    }
    bool all_ran = agree_tell(pass);
    if (pass == SP_ATTENTION_FORWARD) all_ran = agree_tell(SP_ATTENTION_BACKWARD) && all_ran;
    assert_int_equal(bad, 0);
    assert_true(all_ran || n < usual);
}

static void forward_and_backward_agree_with_the_definition(void **state) {
    (void)state;
    check_all(sample_shape, SP_ATTENTION_FORWARD, 100);
}

static void decode_agrees_with_the_definition(void **state) {
    (void)state;
    check_all(sample_decode, SP_ATTENTION_DECODE, 60);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_and_backward_agree_with_the_definition),
        cmocka_unit_test(decode_agrees_with_the_definition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
