/* What zeros allow to leave out, in every variant: leaving it out changes no bit, and what stands in the values of keys
 * without weight, or in masked keys, has no part in any result. */
#define _GNU_SOURCE /* setenv */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_signs.h"
#include "base/status.h"

static const attention_shape medium = {.B = 2,
                                       .T = 150,
                                       .S = 170,
                                       .H = 4,
                                       .Hkv = 2,
                                       .D = 40,
                                       .Dv = 24,
                                       .causal = true,
                                       .lambda = 1,
                                       .eps = SP_EPS_DEFAULT,
                                       .spread = 2,
                                       .seed = 11};

/* Every normalizer, with and without lambda, dtypes, scores with scattered and with blockwise zeros. */
enum { N_KINDS = (SP_NORMALIZER_COUNT + 1) * 3 * 2 };

static attention_shape kind_shape(int kind, bool *signs) {
    static const sp_dtype dtypes[] = {SP_DTYPE_F32, SP_DTYPE_BF16, SP_DTYPE_F16};
    attention_shape shape = medium;
    int normalizer = kind / 6;
    shape.normalizer = (sp_normalizer)(normalizer % SP_NORMALIZER_COUNT);
    shape.lambda = normalizer == SP_NORMALIZER_COUNT ? 0 : 1;
    shape.dtype = dtypes[kind / 2 % 3];
    shape.window = kind % 4 == 3 ? 60 : 0;
    *signs = kind % 2;
    return shape;
}

static void open_kind(attention_case *c, int kind) {
    bool signs;
    attention_shape shape = kind_shape(kind, &signs);
    case_open(c, &shape);
    if (signs) case_signs(c, shape.seed);
}

/* Calls `check` for each kind with each variant forced that takes it, both ways. */
static void with_each_variant(void (*check)(int kind)) {
    for (int kind = 0; kind < N_KINDS; kind++) {
        attention_case c;
        const char *name;
        open_kind(&c, kind);
        for (int i = 0; i < sp_attention_table.n_rows; i++) {
            if (!case_takes(&c, SP_ATTENTION_FORWARD, i, &name) || !case_takes(&c, SP_ATTENTION_BACKWARD, i, &name))
                continue;
            setenv("SP_ATTENTION", name, 1);
            check(kind);
            unsetenv("SP_ATTENTION");
        }
        case_close(&c);
    }
}

static void run_both(attention_case *c, int n_threads) {
    case_poison(c);
    assert_int_equal(case_run(c, SP_ATTENTION_FORWARD, n_threads), SP_OK);
    assert_int_equal(case_run(c, SP_ATTENTION_BACKWARD, n_threads), SP_OK);
}

static const int results[] = {3, 5, 6, 7}; /* out dq dk dv */

static void assert_same_results(const attention_case *a, const attention_case *b) {
    for (int i = 0; i < 4; i++)
        assert_memory_equal(a->blocks[results[i]], b->blocks[results[i]], (size_t)a->block_bytes[results[i]]);
    assert_memory_equal(a->lse, b->lse, (size_t)a->n_lse * sizeof *a->lse);
    assert_memory_equal(a->dsink, b->dsink, (size_t)a->problem.q.shape[2] * sizeof *a->dsink);
}

static uint32_t *open_words(attention_case *c) {
    int64_t n;
    assert_int_equal(sp_attention_liveness_words(&c->problem, &n), SP_OK);
    c->problem.liveness = case_allocate((n + 1) * (int64_t)sizeof *c->problem.liveness);
    return c->problem.liveness;
}

static void check_compute_dead(int kind) {
    attention_case skips, computes;
    open_kind(&skips, kind), open_kind(&computes, kind);
    computes.problem.compute_dead = true;
    run_both(&skips, 1), run_both(&computes, 1);
    assert_same_results(&skips, &computes);
    uint32_t *words = open_words(&skips), *others = open_words(&computes);
    run_both(&skips, 1);
    assert_same_results(&skips, &computes);
    run_both(&computes, 1);
    assert_same_results(&skips, &computes);
    free(words), free(others);
    case_close(&skips), case_close(&computes);
}

static void the_same_bits_with_dead_blocks_computed_or_left_out_and_with_liveness_words(void **state) {
    (void)state;
    with_each_variant(check_compute_dead);
}

/* Some values, and keys that few queries see, become NaN or infinite: out and dq are so where the definition's are, and
 * dk and dv nowhere else. */
static void spoil(const attention_case *c, double value) {
    const sp_attention *p = &c->problem;
    for (int64_t j = 3; j < p->v.shape[1]; j += 7)
        for (int64_t d = 0; d < p->v.shape[3]; d += 5) case_store(&p->v, 1, j, j % 2, d, value);
    if (value != 1) case_store(&p->k, 0, p->k.shape[1] - 2, 0, 1, NAN); /* only the last two queries see it */
    for (int64_t d = 0; d < p->v.shape[3]; d++) case_store(&p->v, 0, p->v.shape[1] - 1, 1, d, value);
}

static void check_spoiled(int kind) {
    for (int i = 0; i < 2; i++) {
        attention_case truth, ours, plain;
        open_kind(&truth, kind), open_kind(&ours, kind), open_kind(&plain, kind);
        spoil(&truth, i ? NAN : INFINITY), spoil(&ours, i ? NAN : INFINITY), spoil(&plain, 1);
        assert_int_equal(sp_attention_define_forward(&truth.problem), SP_OK);
        assert_int_equal(sp_attention_define_backward(&truth.problem), SP_OK);
        run_both(&ours, 1), run_both(&plain, 1);
        bool same = true;
        for (int k = 0; k < 4; k++) {
            double *a = case_numbers(truth.tensors[results[k]]), *b = case_numbers(ours.tensors[results[k]]);
            double *c = case_numbers(plain.tensors[results[k]]);
            int64_t n = sp_tensor_count(truth.tensors[results[k]]);
            /* of dk and dv the batch entry whose rows are all numbers */
            for (int64_t j = k > 1 ? n / 2 : 0; j < n && same; j++) {
                same = isfinite(a[j]) ? isfinite(b[j]) : k > 1 || !isfinite(b[j]);
                if (!same)
                    fprintf(stderr, "kind %d, result %d, number %lld: %g, should be %g (%g without)\n", kind,
                            results[k], (long long)j, b[j], a[j], c[j]);
            }
            double unit =
                truth.problem.q.dtype == SP_DTYPE_BF16 ? 0x1p-7 : 0; /* products of pairs add in their order */
            for (int64_t j = 0; results[k] == 3 && j < n;
                 j++) /* a row of out is a matter of its own weights and values */
                if (isfinite(b[j]) && i) assert_true(fabs(b[j] - c[j]) <= unit * fmax(1, fabs(c[j])));
            free(a), free(b), free(c);
        }
        assert_true(same);
        case_close(&truth), case_close(&ours), case_close(&plain);
    }
}

static void values_without_weight_and_masked_keys_have_no_part_in_results(void **state) {
    (void)state;
    with_each_variant(check_spoiled);
}

/* NaN in a query, or in the gradient of its output, reaches the gradients of the keys that it sees and of no other. */
static void check_spoiled_query(int kind) {
    attention_case truth, ours;
    open_kind(&truth, kind), open_kind(&ours, kind);
    for (int i = 0; i < 2; i++) {
        const sp_attention *p = i ? &truth.problem : &ours.problem;
        case_store(&p->q, 0, 40, 0, 1, NAN);
        case_store(&p->dout, 1, 90, 3, 1, NAN);
    }
    assert_int_equal(sp_attention_define_forward(&truth.problem), SP_OK);
    assert_int_equal(sp_attention_define_backward(&truth.problem), SP_OK);
    run_both(&ours, 1);
    for (int k = 0; k < 4; k++) {
        double *a = case_numbers(truth.tensors[results[k]]), *b = case_numbers(ours.tensors[results[k]]);
        for (int64_t j = 0; j < sp_tensor_count(truth.tensors[results[k]]); j++)
            if (isfinite(a[j]) && !isfinite(b[j])) fail_msg("kind %d, result %d, number %lld", kind, k, (long long)j);
        free(a), free(b);
    }
    case_close(&truth), case_close(&ours);
}

static void what_is_not_finite_in_a_query_stays_with_the_keys_that_it_sees(void **state) {
    (void)state;
    with_each_variant(check_spoiled_query);
}

/* ---- threads ---------------------------------------------------------------------------------------------------- */

/* Few heads, long enough that their keys are cut into chunks: one thread or many, GQA, packed, windows. */
static void the_chunks_of_a_head_give_the_same_bits_to_any_number_of_threads(void **state) {
    (void)state;
    for (int kind = 0; kind < 6; kind++) {
        attention_shape shape = medium;
        shape.B = 1, shape.T = shape.S = 900, shape.H = kind % 2 ? 2 : 1, shape.Hkv = 1, shape.D = 16, shape.Dv = 8;
        shape.window = kind == 2 ? 700 : 0;
        shape.causal = kind != 3;
        shape.n_packed = kind == 4 ? 3 : 0;
        shape.normalizer = kind == 5 ? SP_NORMALIZER_SOFTMAX_SINK : SP_NORMALIZER_SOFTPICK;
        shape.row_factor = kind == 1;
        attention_case once, again, truth;
        case_open(&once, &shape), case_open(&again, &shape), case_open(&truth, &shape);
        run_both(&once, 1);
        for (int n_threads = 2; n_threads <= 16; n_threads *= 2) {
            run_both(&again, n_threads);
            assert_same_results(&once, &again);
            assert_memory_equal(once.drow_factor, again.drow_factor, (size_t)shape.H * sizeof *once.drow_factor);
        }
        assert_int_equal(sp_attention_define_forward(&truth.problem), SP_OK);
        assert_int_equal(sp_attention_define_backward(&truth.problem), SP_OK);
        for (int k = 0; k < 4; k++) {
            double *a = case_numbers(truth.tensors[results[k]]), *b = case_numbers(once.tensors[results[k]]);
            double error = 0, size = 0;
            for (int64_t j = 0; j < sp_tensor_count(truth.tensors[results[k]]); j++)
                error += (a[j] - b[j]) * (a[j] - b[j]), size += a[j] * a[j];
            assert_true(error <= 1e-10 * size);
            free(a), free(b);
        }
        case_close(&once), case_close(&again), case_close(&truth);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_bits_with_dead_blocks_computed_or_left_out_and_with_liveness_words),
        cmocka_unit_test(values_without_weight_and_masked_keys_have_no_part_in_results),
        cmocka_unit_test(what_is_not_finite_in_a_query_stays_with_the_keys_that_it_sees),
        cmocka_unit_test(the_chunks_of_a_head_give_the_same_bits_to_any_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
