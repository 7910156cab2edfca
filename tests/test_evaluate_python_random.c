/* Python's random numbers.  The expected values were printed by CPython 3.11 and numpy 2.4; the comment at each test tells how. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "evaluate/python_random.h"

/* r = Random(seed); [r.random().hex() for _ in range(3)], [r.randrange(n) for n in (1, 2, 7, 1000, 2**32, 2**40 + 1)],
 * r.randint(1, 50000) */
static void numbers_are_those_of_python(void **state) {
    (void)state;
    static const struct {
        uint64_t seed;
        double uniform[3];
        int64_t below[6], between;
    } expected[] = {
        {0,
         {0x1.b0580f98a7dbep-1, 0x1.84129978f9c1ap-1, 0x1.aeaa51052e978p-2},
         {0, 1, 3, 940, 2046968324, 480641685011},
         33076},
        {1234,
         {0x1.eed2ff71cd77dp-1, 0x1.c34f680ef4f52p-2, 0x1.eaf602e68d680p-8},
         {0, 0, 0, 784, 1523148328, 64499362338},
         1039},
        {4294967301,
         {0x1.4218067c49768p-3, 0x1.21442cf1e9172p-2, 0x1.357affb575f81p-1},
         {0, 1, 5, 175, 3497239160, 350051233592},
         26413},
        {UINT64_MAX,
         {0x1.659799fd7f980p-6, 0x1.5a35a94f333d8p-2, 0x1.b21c0274c09a4p-3},
         {0, 1, 6, 749, 2286593340, 175877875469},
         21615},
    };
    static const int64_t bounds[6] = {1, 2, 7, 1000, (int64_t)1 << 32, ((int64_t)1 << 40) + 1};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        sp_python_random random;
        sp_python_random_seed(&random, expected[i].seed);
        for (int j = 0; j < 3; j++) assert_true(sp_python_random_uniform(&random) == expected[i].uniform[j]);
        for (int j = 0; j < 6; j++) {
            assert_true(sp_python_random_below(&random, bounds[j]) == expected[i].below[j]);
        }
        assert_int_equal(sp_python_random_between(&random, 1, 50000), expected[i].between);
    }
}

/* r = Random(7); for _ in range(100000): r.random(); then r.random().hex() */
static void words_are_renewed_as_in_python(void **state) {
    (void)state;
    sp_python_random random;
    sp_python_random_seed(&random, 7);
    for (int i = 0; i < 100000; i++) (void)sp_python_random_uniform(&random);
    assert_true(sp_python_random_uniform(&random) == 0x1.1d8172b1c3502p-2);
}

/* r = Random(1234); r.sample(range(n), k) in turn */
static void samples_are_those_of_python(void **state) {
    (void)state;
    static const struct {
        int64_t n, k, items[7];
    } expected[] = {
        {2251, 6, {1805, 478, 30, 371, 143, 343}}, /* by a set */
        {20, 6, {3, 11, 7, 0, 16, 12}},            /* by a list */
        {85, 7, {2, 44, 82, 79, 61, 78, 59}},      /* the longest list for this k */
        {86, 5, {19, 11, 23, 14, 1}},
        {3, 3, {2, 1, 0}},
    };
    sp_python_random random;
    sp_python_random_seed(&random, 1234);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        int64_t items[7];
        assert_int_equal(sp_python_random_sample(&random, expected[i].n, expected[i].k, items), SP_OK);
        assert_memory_equal(items, expected[i].items, (size_t)expected[i].k * sizeof *items);
    }
}

/* r = Random(9); h = 0
 * for i in range(1, 2000):
 *     for v in r.sample(range(3 * i), i): h = (h * 1000003 + v) % (2**61 - 1) */
static void samples_of_all_sizes_are_those_of_python(void **state) {
    (void)state;
    enum { N = 2000 };
    int64_t *items = malloc(N * sizeof *items);
    assert_non_null(items);
    sp_python_random random;
    sp_python_random_seed(&random, 9);
    unsigned __int128 hash = 0;
    for (int64_t i = 1; i < N; i++) {
        assert_int_equal(sp_python_random_sample(&random, 3 * i, i, items), SP_OK);
        for (int64_t j = 0; j < i; j++) {
            hash = (hash * 1000003 + (uint64_t)items[j]) % (((uint64_t)1 << 61) - 1);
        }
    }
    assert_true((uint64_t)hash == 1671957375146873782u);
    free(items);
}

static void a_sample_larger_than_its_source_is_refused(void **state) {
    (void)state;
    sp_python_random random;
    int64_t items[4];
    sp_python_random_seed(&random, 0);
    assert_int_equal(sp_python_random_sample(&random, 3, 4, items), SP_BAD_ARGUMENT);
    assert_string_equal(sp_last_message(), "cannot draw 4 different items of 3");
    assert_int_equal(sp_python_random_sample(&random, 0, 0, items), SP_OK);
}

/* r = Random(3); r.choices(range(5153), k=8); x = list(range(10)); r.shuffle(x); x */
static void choices_and_shuffles_are_those_of_python(void **state) {
    (void)state;
    static const int64_t chosen[8] = {1226, 2804, 1906, 3111, 3224, 337, 67, 4315};
    static const int64_t shuffled[10] = {2, 0, 6, 9, 7, 5, 1, 3, 8, 4};
    int64_t items[10];
    sp_python_random random;
    sp_python_random_seed(&random, 3);
    sp_python_random_choices(&random, 5153, 8, items);
    assert_memory_equal(items, chosen, sizeof chosen);
    for (int64_t i = 0; i < 10; i++) items[i] = i;
    sp_python_random_shuffle(&random, 10, items);
    assert_memory_equal(items, shuffled, sizeof shuffled);
}

/* numpy.random.seed(seed); [randint(0, n) for n in (3072, 1, 2, 38000)], randint(1, 50000), randint(-5, 2**32 - 7) */
static void integers_are_those_of_numpy(void **state) {
    (void)state;
    static const struct {
        uint32_t seed;
        int64_t below[4], between, wide;
    } expected[] = {
        {0, {2732, 0, 1, 21243}, 30404, 3638918498},
        {3072, {1007, 0, 1, 28154}, 8986, 151328995},
        {18433, {389, 0, 1, 33946}, 32698, 2633666338},
    };
    static const int64_t bounds[4] = {3072, 1, 2, 38000};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        sp_python_random random;
        sp_numpy_random_seed(&random, expected[i].seed);
        for (int j = 0; j < 4; j++) {
            assert_int_equal(sp_numpy_random_integer(&random, 0, bounds[j]), expected[i].below[j]);
        }
        assert_int_equal(sp_numpy_random_integer(&random, 1, 50000), expected[i].between);
        assert_true(sp_numpy_random_integer(&random, -5, ((int64_t)1 << 32) - 7) == expected[i].wide);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_those_of_python),
        cmocka_unit_test(words_are_renewed_as_in_python),
        cmocka_unit_test(samples_are_those_of_python),
        cmocka_unit_test(samples_of_all_sizes_are_those_of_python),
        cmocka_unit_test(a_sample_larger_than_its_source_is_refused),
        cmocka_unit_test(choices_and_shuffles_are_those_of_python),
        cmocka_unit_test(integers_are_those_of_numpy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
