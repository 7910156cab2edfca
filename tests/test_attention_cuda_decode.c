/* Decode by the row sm90 alone: what it takes and leaves to others, sizes around its steps and splits, values that it must
 * not read, and results that are the same to the bit.  What holds for all rows of GPUs is in test_attention_cuda.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_sample.h"
#include "attention_signs.h"
#include "cuda_agree.h"
#include "cuda_first.h"

static const int64_t widths[] = {64, 128, 256};

static attention_shape decode_shape(int64_t T, int64_t S, int64_t D) {
    attention_shape shape = cuda_shape(T, D, SP_DTYPE_BF16);
    shape.S = S;
    shape.seed = (uint64_t)(S * 1000 + T * 10 + D);
    return shape;
}

/* Opens a case, decodes it on the GPU and leaves the outputs in it. */
static void decode(attention_case *c, const attention_shape *shape, cuda_change change) {
    cuda_case ours;
    case_open(c, shape);
    if (change) change(c, NULL);
    cuda_case_open(&ours, c, gpu);
    assert_string_equal(row_of(&ours.problem, SP_ATTENTION_DECODE), "sm90");
    cuda_expect(cuda_case_run(&ours, SP_ATTENTION_DECODE));
    assert_int_equal(ours.n_written_outside, 0);
    cuda_case_close(&ours);
}

/* Whether decode here and the definition agree; tells what does not. */
static bool decode_agrees(const attention_shape *shape, cuda_change change) {
    cuda_truth truth;
    attention_case ours;
    char text[320];
    cuda_truth_open(&truth, shape, change, NULL, true, true);
    truth.alike = true; /* there are few rows */
    decode(&ours, shape, change);
    case_describe(shape, text, sizeof text);
    bool near = cuda_near_forward(text, &truth, &ours);
    case_close(&ours);
    cuda_truth_close(&truth);
    return near;
}

static void assert_same_bits(const attention_case *a, const attention_case *b) {
    assert_memory_equal(a->blocks[3], b->blocks[3], (size_t)a->block_bytes[3]);
    assert_memory_equal(a->lse, b->lse, (size_t)a->n_lse * sizeof *a->lse);
}

/* ---- what it takes ------------------------------------------------------------------------------------------------- */

static void leaves_to_others_what_it_has_no_code_for(void **state) {
    (void)state;
    attention_shape shapes[3];
    if (!is_hopper()) skip();
    for (int i = 0; i < 3; i++) shapes[i] = decode_shape(1, 200, 64);
    shapes[0].normalizer = SP_NORMALIZER_RECTIFIED;
    shapes[1].page_size = 8, shapes[1].lengths = true;
    shapes[2].page_size = 100, shapes[2].lengths = true;
    for (int i = 0; i < 3; i++) assert_string_equal(row_of_shape(&shapes[i], SP_ATTENTION_DECODE), "sm80");
}

/* ---- sizes ----------------------------------------------------------------------------------------------------------- */

/* Steps are of 16 or 32 keys, four or six warps take turns, and splits have at least 256 keys. */
static void lengths_around_steps_agree(void **state) {
    (void)state;
    static const int64_t lengths[] = {1, 16, 17, 65, 128, 257, 513, 1030};
    bool near = true;
    if (!is_hopper()) skip();
    for (int d = 0; d < 3; d++)
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
            for (int kind = 0; kind < 2; kind++) {
                attention_shape shape = decode_shape(1, lengths[i], widths[d]);
                shape.normalizer = kind ? SP_NORMALIZER_SOFTMAX : SP_NORMALIZER_SOFTPICK;
                near = decode_agrees(&shape, NULL) && near;
                shape.T = 5, shape.H = 8, shape.dtype = SP_DTYPE_F16; /* two tiles of rows */
                shape.causal = i % 2;
                shape.window = i % 3 == 0 ? 40 : i % 3 == 1 ? 700 : 0;
                shape.lengths = i % 4 < 2;
                near = decode_agrees(&shape, NULL) && near;
            }
    assert_true(near);
}

static void pages_agree(void **state) {
    (void)state;
    static const int64_t sizes[] = {16, 32, 128};
    bool near = true;
    if (!is_hopper()) skip();
    for (int d = 0; d < 3; d++)
        for (int i = 0; i < 3; i++)
            for (int kind = 0; kind < 2; kind++) {
                attention_shape shape = decode_shape(1 + i, 800, widths[d]);
                shape.normalizer = kind ? SP_NORMALIZER_SOFTMAX : SP_NORMALIZER_SOFTPICK;
                shape.page_size = sizes[i], shape.lengths = true;
                shape.head_major = i == 1;
                near = decode_agrees(&shape, NULL) && near;
                shape.window = 300;
                near = decode_agrees(&shape, NULL) && near;
            }
    assert_true(near);
}

/* One key head and one query: as many splits as there are. */
static void long_caches_agree(void **state) {
    (void)state;
    bool near = true;
    if (!is_hopper()) skip();
    for (int d = 0; d < 3; d++)
        for (int kind = 0; kind < SP_NORMALIZER_COUNT - 1; kind++) {
            attention_shape shape = decode_shape(1, 4000, widths[d]);
            shape.B = 1, shape.H = 4, shape.Hkv = 1;
            shape.normalizer = (sp_normalizer)kind;
            near = decode_agrees(&shape, NULL) && near;
            if (kind > 1) continue;
            shape.lambda = 0.5f, shape.row_factor = true, shape.spread = 3;
            near = decode_agrees(&shape, NULL) && near;
        }
    assert_true(near);
}

/* ---- scores that climb, and few that are positive --------------------------------------------------------------------- */

static double (*score_of)(int64_t key);
static void set_scores(attention_case *c, const void *user) {
    (void)user;
    case_set_scores(c, score_of);
}

static double climbing(int64_t j) { return (double)j * 0.25; }
static double climbing_by_steps(int64_t j) { return (double)(j / 300 * 12 - j % 3 * 20); }
static double one_in_a_hundred(int64_t j) { return j % 100 == 37 ? 3 : -1; }
static double only_the_last(int64_t j) { return j == 2999 ? 20 : -3; }
static double only_the_first(int64_t j) { return j == 0 ? 20 : -3; }
static double none(int64_t j) { return -1 - (double)(j % 5); }

/* Every raise of the shift meets values that are still on their way. */
static void unlike_scores_agree(void **state) {
    (void)state;
    static double (*const lists[])(int64_t key) = {climbing,      climbing_by_steps, one_in_a_hundred,
                                                   only_the_last, only_the_first,    none};
    bool near = true;
    if (!is_hopper()) skip();
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        for (int d = 0; d < 3; d++)
            for (int kind = 0; kind < 2; kind++) {
                attention_shape shape = decode_shape(1, 3000, widths[d]);
                shape.B = shape.Hkv = 1;
                shape.normalizer = kind ? SP_NORMALIZER_SOFTMAX : SP_NORMALIZER_SOFTPICK;
                score_of = lists[i];
                near = decode_agrees(&shape, set_scores) && near;
            }
    assert_true(near);
}

/* ---- values that are not read --------------------------------------------------------------------------------------- */

static double score(const sp_attention *problem, int64_t b, int64_t t, int64_t h, int64_t j) {
    double sum = 0;
    for (int64_t d = 0; d < problem->q.shape[3]; d++)
        sum += case_load(&problem->q, b, t, h, d) *
               case_load(&problem->k, b, j, h / (problem->q.shape[2] / problem->k.shape[2]), d);
    return sum * sp_problem_scale(problem);
}

/* Whether no row that shares the key head gives the key weight, whatever the rounding. */
static bool is_dead(const sp_attention *problem, int64_t b, int64_t key_head, int64_t j) {
    int64_t group = problem->q.shape[2] / problem->k.shape[2];
    for (int64_t h = key_head * group; h < (key_head + 1) * group; h++)
        for (int64_t t = 0; t < problem->q.shape[1]; t++)
            if (score(problem, b, t, h, j) > -1e-4) return false;
    return true;
}

static int64_t n_spoilt;

static void spoil_dead_values(attention_case *c, const void *user) {
    (void)user;
    const sp_tensor *v = &c->problem.v;
    n_spoilt = 0;
    for (int64_t b = 0; b < v->shape[0]; b++)
        for (int64_t h = 0; h < v->shape[2]; h++)
            for (int64_t j = 0; j < v->shape[1]; j++) {
                if (!is_dead(&c->problem, b, h, j)) continue;
                n_spoilt++;
                for (int64_t d = 0; d < v->shape[3]; d++) case_store(v, b, j, h, d, j % 2 ? NAN : INFINITY);
            }
}

static void dead_values_are_not_read(void **state) {
    (void)state;
    if (!is_hopper()) skip();
    for (int d = 0; d < 3; d++)
        for (int64_t T = 1; T <= 2; T++)
            for (int dtype = 0; dtype < 2; dtype++) {
                attention_shape shape = decode_shape(T, 1000, widths[d]);
                attention_case clean, spoilt;
                shape.dtype = dtype ? SP_DTYPE_F16 : SP_DTYPE_BF16;
                decode(&clean, &shape, NULL);
                decode(&spoilt, &shape, spoil_dead_values);
                assert_true(n_spoilt > 50);
                assert_same_bits(&clean, &spoilt);
                case_close(&spoilt), case_close(&clean);
            }
}

/* Keys behind the lengths are NaN in such a case anyway; here, those before the window too. */
static void spoil_unseen(attention_case *c, const void *user) {
    (void)user;
    const sp_attention *p = &c->problem;
    for (int64_t b = 0; b < p->k.shape[0]; b++)
        for (int64_t j = 0; j <= c->key_lengths[b] - p->q.shape[1] - p->window; j++)
            for (int64_t h = 0; h < p->k.shape[2]; h++) {
                for (int64_t d = 0; d < p->k.shape[3]; d++) case_store(&p->k, b, j, h, d, NAN);
                for (int64_t d = 0; d < p->v.shape[3]; d++) case_store(&p->v, b, j, h, d, NAN);
            }
}

static void what_no_row_sees_is_not_felt(void **state) {
    (void)state;
    if (!is_hopper()) skip();
    for (int d = 0; d < 3; d++)
        for (int kind = 0; kind < SP_NORMALIZER_COUNT - 1; kind++)
            for (int dead = 0; dead < 2; dead++) {
                attention_shape shape = decode_shape(3, 700, widths[d]);
                attention_case clean, spoilt;
                shape.window = 203, shape.lengths = true, shape.compute_dead = dead;
                shape.normalizer = (sp_normalizer)kind;
                decode(&clean, &shape, NULL);
                decode(&spoilt, &shape, spoil_unseen);
                assert_same_bits(&clean, &spoilt);
                case_close(&spoilt), case_close(&clean);
            }
}

/* ---- to the bit --------------------------------------------------------------------------------------------------------- */

static void same_bits_whether_dead_values_are_read(void **state) {
    (void)state;
    if (!is_hopper()) skip();
    for (int d = 0; d < 3; d++)
        for (int spread = 1; spread <= 10; spread += 9)
            for (int64_t page_size = 0; page_size <= 64; page_size += 64) {
                attention_shape shape = decode_shape(2, 1500, widths[d]);
                attention_case lazy, whole;
                shape.spread = (float)spread, shape.page_size = page_size, shape.lengths = page_size;
                decode(&lazy, &shape, NULL);
                shape.compute_dead = true;
                decode(&whole, &shape, NULL);
                assert_same_bits(&lazy, &whole);
                case_close(&whole), case_close(&lazy);
            }
}

static void same_bits_again(void **state) {
    (void)state;
    if (!is_hopper()) skip();
    for (int d = 0; d < 3; d++)
        for (int kind = 0; kind < 2; kind++) {
            attention_shape shape = decode_shape(1, 4000, widths[d]);
            attention_case first, again;
            cuda_case ours;
            shape.B = 1;
            shape.normalizer = kind ? SP_NORMALIZER_SOFTMAX : SP_NORMALIZER_SOFTPICK;
            decode(&first, &shape, NULL);
            case_open(&again, &shape);
            cuda_case_open(&ours, &again, gpu);
            for (int i = 0; i < 20; i++) {
                case_poison(&again);
                cuda_expect(cuda_case_run(&ours, SP_ATTENTION_DECODE));
                assert_same_bits(&first, &again);
            }
            cuda_case_close(&ours);
            case_close(&again), case_close(&first);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leaves_to_others_what_it_has_no_code_for),
        cmocka_unit_test(lengths_around_steps_agree),
        cmocka_unit_test(pages_agree),
        cmocka_unit_test(long_caches_agree),
        cmocka_unit_test(unlike_scores_agree),
        cmocka_unit_test(dead_values_are_not_read),
        cmocka_unit_test(what_no_row_sees_is_not_felt),
        cmocka_unit_test(same_bits_whether_dead_values_are_read),
        cmocka_unit_test(same_bits_again),
    };
    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
