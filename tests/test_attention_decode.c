/* Decode by every variant: against the definition, against forward, and what holds to the bit: threads, pages, lengths,
 * values without weight, the merging of chunks. */
#define _GNU_SOURCE /* setenv, MAP_ANONYMOUS */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "attention_agree.h"
#include "attention_sample.h"
#include "base/status.h"

static void decode(attention_case *c, int n_threads) {
    case_poison(c);
    if (case_run(c, SP_ATTENTION_DECODE, n_threads) != SP_OK) fail_msg("%s", sp_last_message());
}

static void assert_same_rows(const attention_case *a, const attention_case *b) {
    double *x = case_numbers(&a->problem.out), *y = case_numbers(&b->problem.out);
    assert_memory_equal(x, y, (size_t)sp_tensor_count(&a->problem.out) * sizeof *x);
    assert_memory_equal(a->lse, b->lse, (size_t)a->n_lse * sizeof *a->lse);
    free(x), free(y);
}

/* ---- against the definition ------------------------------------------------------------------------------------- */

static bool check_agreement(const char *variant, void *user) {
    agree_case *a = user;
    attention_case ours;
    bool near = agree_variant(a, variant, (int)(a->shape.seed % 3) + 1, &ours);
    case_close(&ours);
    return near;
}

static void every_variant_agrees_with_the_definition(void **state) {
    (void)state;
    bool near = true;
    for (uint64_t seed = 1, n = sample_count(60); seed <= n; seed++) {
        attention_shape shape = sample_decode(seed, 1000000);
        agree_case a = {.shape = shape, .pass = SP_ATTENTION_DECODE};
        if (agree_open(&a) != SP_OK) fail_msg("%s", sp_last_message());
        near = agree_with_each_variant(check_agreement, &a) && near;
        agree_close(&a);
    }
    assert_true(near);
}

static const attention_shape medium = {.B = 2,
                                       .T = 3,
                                       .S = 2500, /* three chunks */
                                       .H = 6,
                                       .Hkv = 2,
                                       .D = 40,
                                       .Dv = 72,
                                       .causal = true,
                                       .lambda = 1,
                                       .eps = SP_EPS_DEFAULT,
                                       .spread = 3,
                                       .seed = 3};

/* Calls `check` with each variant that the CPU can run and that takes f32; the others share their code. */
static void with_each_variant(void (*check)(const void *user), const void *user) {
    attention_case c;
    const char *name;
    case_open(&c, &medium);
    for (int i = 0; i < sp_attention_table.n_rows; i++) {
        if (!sp_attention_variant(&c.problem, SP_ATTENTION_DECODE, i, &name, NULL)) continue;
        setenv("SP_ATTENTION", name, 1);
        check(user);
        unsetenv("SP_ATTENTION");
    }
    case_close(&c);
}

/* Decode and forward say the same, up to the order of their sums. */
static void check_forward(const void *user) {
    (void)user;
    for (int kind = 0; kind < SP_NORMALIZER_COUNT; kind++) {
        attention_shape shape = medium;
        shape.normalizer = (sp_normalizer)kind;
        attention_case once, whole;
        case_open(&once, &shape), case_open(&whole, &shape);
        decode(&once, 1);
        assert_int_equal(case_run(&whole, SP_ATTENTION_FORWARD, 1), SP_OK);
        double *x = case_numbers(&once.problem.out), *y = case_numbers(&whole.problem.out);
        for (int64_t i = 0; i < sp_tensor_count(&once.problem.out); i++) assert_true(fabs(x[i] - y[i]) < 1e-5);
        for (int64_t i = 0; i < once.n_lse; i++) assert_true(fabsf(once.lse[i] - whole.lse[i]) < 1e-5f);
        free(x), free(y);
        case_close(&once), case_close(&whole);
    }
}

static void decode_says_what_forward_says(void **state) {
    (void)state;
    with_each_variant(check_forward, NULL);
}

/* ---- to the bit ------------------------------------------------------------------------------------------------- */

static void check_threads(const void *user) {
    attention_case once, again;
    case_open(&once, user), case_open(&again, user);
    decode(&once, 1);
    for (int n_threads = 1; n_threads <= 5; n_threads += n_threads == 1 ? 1 : 3) {
        decode(&again, n_threads);
        assert_same_rows(&once, &again);
    }
    case_close(&once), case_close(&again);
}

static void same_bits_with_any_number_of_threads(void **state) {
    (void)state;
    for (int kind = 0; kind < SP_NORMALIZER_COUNT; kind++) {
        attention_shape shape = medium;
        shape.normalizer = (sp_normalizer)kind;
        shape.dtype = kind % 2 ? SP_DTYPE_BF16 : SP_DTYPE_F32;
        with_each_variant(check_threads, &shape);
    }
}

/* The case's k or v in pages in shuffled order; what belongs to no sequence is NaN. */
static sp_tensor make_pages(const attention_case *c, const sp_tensor *from, int64_t page_size, int64_t per_sequence,
                            int64_t n_pages, const int64_t *table) {
    int64_t Hkv = from->shape[2], D = from->shape[3], B = from->shape[0];
    const int64_t shape[] = {n_pages, page_size, Hkv, D};
    void *data = case_allocate(n_pages * page_size * Hkv * D * sp_dtype_bytes(from->dtype) + 1);
    sp_tensor pages = sp_tensor_view(data, from->dtype, 4, shape);
    for (int64_t b = 0; b < B; b++)
        for (int64_t j = 0; j < c->key_lengths[b]; j++)
            for (int64_t h = 0; h < Hkv; h++)
                for (int64_t d = 0; d < D; d++)
                    case_store(&pages, table[b * per_sequence + j / page_size], j % page_size, h, d,
                               case_load(from, b, j, h, d));
    return pages;
}

typedef struct page_test {
    attention_case linear, paged;
} page_test;

static void check_pages(const void *user) {
    page_test *test = (page_test *)(uintptr_t)user;
    decode(&test->linear, 1);
    decode(&test->paged, 2);
    assert_same_rows(&test->linear, &test->paged);
}

static void pages_say_what_a_linear_cache_says(void **state) {
    (void)state;
    static const int64_t sizes[] = {16, 64, 7};
    for (int i = 0; i < 3; i++) {
        attention_shape shape = medium;
        page_test test;
        int64_t size = sizes[i], per_sequence = shape.S / size + 1, n_pages = shape.B * per_sequence + 5;
        shape.lengths = true, shape.seed += (uint64_t)i, shape.dtype = (sp_dtype)(i + SP_DTYPE_F32);
        case_open(&test.linear, &shape), case_open(&test.paged, &shape);
        int64_t *table = case_allocate(shape.B * per_sequence * 8); /* entries past the lengths stay -1 */
        for (int64_t b = 0; b < shape.B; b++)
            for (int64_t j = 0; j < test.linear.key_lengths[b]; j += size)
                table[b * per_sequence + j / size] =
                    (int64_t)sp_random_permuted(9, 1, (uint64_t)(b * per_sequence + j / size), (uint64_t)n_pages);
        sp_attention *paged = &test.paged.problem;
        paged->page_table = table, paged->pages_per_sequence = per_sequence;
        paged->k = make_pages(&test.linear, &test.linear.problem.k, size, per_sequence, n_pages, table);
        paged->v = make_pages(&test.linear, &test.linear.problem.v, size, per_sequence, n_pages, table);
        with_each_variant(check_pages, &test);
        free(paged->k.data), free(paged->v.data), free(table);
        case_close(&test.linear), case_close(&test.paged);
    }
}

/* What lies past a sequence's length changes nothing: a case made longer by NaN keys gives the same bits. */
static void check_lengths(const void *user) {
    (void)user;
    attention_shape shape = medium;
    int64_t lengths[] = {0, 1500};
    shape.lengths = true;
    attention_case longer, shorter;
    case_open(&longer, &shape), case_open(&shorter, &shape);
    longer.problem.key_lengths = shorter.problem.key_lengths = lengths;
    case_fill(&longer.problem.k, 1, 5, 5), case_fill(&longer.problem.v, 1, 5, 6);
    case_fill(&shorter.problem.k, 1, 5, 5), case_fill(&shorter.problem.v, 1, 5, 6);
    for (int64_t j = 1500; j < shape.S; j++)
        for (int64_t d = 0; d < shape.D; d++) {
            case_store(&longer.problem.k, 1, j, 1, d, NAN);
            case_store(&longer.problem.v, 1, j, 1, d, NAN);
        }
    shorter.problem.k.shape[1] = shorter.problem.v.shape[1] = 1500;
    decode(&longer, 2), decode(&shorter, 2);
    assert_same_rows(&longer, &shorter);
    for (int64_t i = 0; i < shape.H * shape.T; i++) assert_true(longer.lse[i] == INFINITY); /* the empty sequence */
    assert_true(case_load(&longer.problem.out, 0, 1, 2, 3) == 0);
    case_close(&longer), case_close(&shorter);
}

static void keys_past_the_length_change_nothing(void **state) {
    (void)state;
    with_each_variant(check_lengths, NULL);
}

/* ---- values without weight -------------------------------------------------------------------------------------- */

/* Scores of all heads are negative but for every seventh key. */
static void make_few_live(attention_case *c) {
    sp_attention *p = &c->problem;
    for (int64_t b = 0; b < p->q.shape[0]; b++) {
        for (int64_t t = 0; t < p->q.shape[1]; t++)
            for (int64_t h = 0; h < p->q.shape[2]; h++)
                for (int64_t d = 0; d < p->q.shape[3]; d++) case_store(&p->q, b, t, h, d, d == 0 ? 1 + (double)h : 0);
        for (int64_t j = 0; j < p->k.shape[1]; j++)
            for (int64_t h = 0; h < p->k.shape[2]; h++) case_store(&p->k, b, j, h, 0, j % 7 == 3 ? 2 : -0.5);
    }
}

static void poison_dead_values(attention_case *c) {
    const sp_tensor *v = &c->problem.v;
    for (int64_t b = 0; b < v->shape[0]; b++)
        for (int64_t j = 0; j < v->shape[1]; j++)
            for (int64_t h = 0; h < v->shape[2] && j % 7 != 3; h++)
                for (int64_t d = 0; d < v->shape[3]; d++) case_store(v, b, j, h, d, j % 2 ? NAN : -INFINITY);
}

static void check_dead_values(const void *user) {
    (void)user;
    for (int i = 0; i < 4; i++) {
        attention_shape shape = medium;
        shape.normalizer = i < 2 ? SP_NORMALIZER_SOFTPICK : SP_NORMALIZER_RECTIFIED;
        shape.dtype = i % 2 ? SP_DTYPE_BF16 : SP_DTYPE_F32;
        attention_case clean, poisoned;
        case_open(&clean, &shape), case_open(&poisoned, &shape);
        make_few_live(&clean), make_few_live(&poisoned);
        poison_dead_values(&poisoned);
        decode(&clean, 1), decode(&poisoned, 1);
        assert_same_rows(&clean, &poisoned);
        clean.problem.compute_dead = true; /* the same bits with them */
        decode(&clean, 1);
        assert_same_rows(&clean, &poisoned);
        poisoned.problem.compute_dead = true; /* and then too their weight is 0 */
        decode(&poisoned, 1);
        assert_same_rows(&clean, &poisoned);
        case_close(&clean), case_close(&poisoned);
    }
}

static void values_without_weight_say_nothing(void **state) {
    (void)state;
    with_each_variant(check_dead_values, NULL);
}

/* A value that is not finite reaches the rows that give it weight and no other row of the group. */
static void check_nan_value(const void *user) {
    (void)user;
    attention_shape shape = medium;
    shape.B = 1, shape.T = 1, shape.H = 7, shape.Hkv = 1;
    attention_case c;
    case_open(&c, &shape);
    for (int64_t h = 0; h < shape.H; h++) /* key 1234 is dead for even heads */
        for (int64_t d = 0; d < shape.D; d++) case_store(&c.problem.q, 0, 0, h, d, d == h % 2 ? 1 : 0);
    case_store(&c.problem.k, 0, 1234, 0, 0, -1), case_store(&c.problem.k, 0, 1234, 0, 1, 1);
    case_store(&c.problem.v, 0, 1234, 0, 5, NAN), case_store(&c.problem.v, 0, 1234, 0, 71, INFINITY);
    decode(&c, 1);
    for (int64_t h = 0; h < shape.H; h++)
        for (int64_t d = 0; d < shape.Dv; d++) {
            double out = case_load(&c.problem.out, 0, 0, h, d);
            bool hit = h % 2 == 1;
            assert_true(hit && d == 5 ? isnan(out) : hit && d == 71 ? isinf(out) : isfinite(out));
        }
    case_close(&c);
}

static void a_value_that_is_not_finite_stays_with_its_rows(void **state) {
    (void)state;
    with_each_variant(check_nan_value, NULL);
}

static void check_nan_query(const void *user) {
    (void)user;
    for (int kind = 0; kind < SP_NORMALIZER_COUNT; kind++) {
        attention_shape shape = medium;
        shape.normalizer = (sp_normalizer)kind;
        attention_case c;
        case_open(&c, &shape);
        case_store(&c.problem.q, 1, 2, 4, 5, NAN);
        decode(&c, 1);
        for (int64_t t = 0; t < shape.T; t++)
            for (int64_t h = 0; h < shape.H; h++)
                assert_true(isnan(case_load(&c.problem.out, 1, t, h, 3)) == (t == 2 && h == 4));
        case_close(&c);
    }
}

static void nan_in_a_query_stays_in_its_row(void **state) {
    (void)state;
    with_each_variant(check_nan_query, NULL);
}

/* Values of dead keys lie on a page of memory that is not there. */
static void check_unmapped(const void *user) {
    (void)user;
    int64_t page = (int64_t)sysconf(_SC_PAGESIZE);
    attention_shape shape = medium;
    shape.B = 1, shape.H = 2, shape.Hkv = 1, shape.D = shape.Dv = 64;
    attention_case c;
    case_open(&c, &shape);
    make_few_live(&c);
    int64_t row = shape.Dv * 4, bytes = shape.S * page; /* a row to a page, at its end */
    char *memory = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(memory != MAP_FAILED);
    c.problem.v.data = memory + page - row;
    c.problem.v.stride[1] = c.problem.v.stride[2] = page / 4;
    case_fill(&c.problem.v, 1, 1, 1);
    for (int64_t j = 0; j < shape.S; j++)
        if (j % 7 != 3) assert_int_equal(mprotect(memory + j * page, (size_t)page, PROT_NONE), 0);
    decode(&c, 2);
    assert_true(isfinite(case_load(&c.problem.out, 0, 0, 1, 1)));
    munmap(memory, (size_t)bytes);
    case_close(&c);
}

static void values_without_weight_are_not_read(void **state) {
    (void)state;
    with_each_variant(check_unmapped, NULL);
}

/* ---- merging ---------------------------------------------------------------------------------------------------- */

/* One key far above all others, in any chunk: its value comes out whole, and lse is its score. */
static void check_merge(const void *user) {
    (void)user;
    static const int64_t places[] = {0, 1023, 1024, 2047, 2048, 2499};
    for (int i = 0; i < 12; i++) {
        attention_shape shape = medium;
        shape.B = 1, shape.T = 1, shape.H = shape.Hkv = shape.D = 1, shape.Dv = 3;
        shape.normalizer = i % 2 ? SP_NORMALIZER_SOFTMAX : SP_NORMALIZER_SOFTPICK;
        attention_case c;
        case_open(&c, &shape);
        case_store(&c.problem.q, 0, 0, 0, 0, 1);
        for (int64_t j = 0; j < shape.S; j++) case_store(&c.problem.k, 0, j, 0, 0, j == places[i / 2] ? 150 : -100);
        decode(&c, 1);
        for (int64_t d = 0; d < 3; d++)
            assert_true(case_load(&c.problem.out, 0, 0, 0, d) == case_load(&c.problem.v, 0, places[i / 2], 0, d));
        assert_true(fabs((double)c.lse[0] - 150 / log(2)) < 1e-4);
        case_close(&c);
    }
}

static void a_score_above_all_others_wins_from_any_chunk(void **state) {
    (void)state;
    with_each_variant(check_merge, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_variant_agrees_with_the_definition),
        cmocka_unit_test(decode_says_what_forward_says),
        cmocka_unit_test(same_bits_with_any_number_of_threads),
        cmocka_unit_test(pages_say_what_a_linear_cache_says),
        cmocka_unit_test(keys_past_the_length_change_nothing),
        cmocka_unit_test(values_without_weight_say_nothing),
        cmocka_unit_test(a_value_that_is_not_finite_stays_with_its_rows),
        cmocka_unit_test(nan_in_a_query_stays_in_its_row),
        cmocka_unit_test(values_without_weight_are_not_read),
        cmocka_unit_test(a_score_above_all_others_wins_from_any_chunk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
