/* The row sm90 alone: what it takes and leaves to others, sizes around its tiles, and memory beside the sequences that
 * must not be felt.  What holds for all rows of GPUs is in test_attention_cuda.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_sample.h"
#include "attention_signs.h"
#include "cuda_first.h"

static const int64_t widths[] = {64, 96, 128, 192, 256};
enum { N_WIDTHS = sizeof widths / sizeof *widths };

/* With few heads: the definition takes its time. */
static attention_shape small_shape(int64_t T, int64_t D, sp_dtype dtype) {
    attention_shape shape = cuda_shape(T, D, dtype);
    shape.H = 2, shape.Hkv = 1;
    return shape;
}

/* Changes the inputs of a case before it is copied to the GPU. */
typedef void (*change_inputs)(attention_case *c);

static int64_t bits_apart(const attention_case *a, const attention_case *b) {
    int64_t n = 0;
    for (int64_t i = 0; i < a->n_liveness; i++) n += __builtin_popcount(a->liveness[i] ^ b->liveness[i]);
    return n;
}

/* Whether forward here and the definition agree, one bit of liveness in 200 left to the rounding of scores near 0;
 * tells what does not. */
static bool forward_agrees(const attention_shape *shape, change_inputs change) {
    attention_case truth, host;
    cuda_case ours;
    char text[320];
    case_open(&truth, shape);
    case_open(&host, shape);
    if (change) change(&truth), change(&host);
    cuda_case_open(&ours, &host, gpu);
    assert_string_equal(row_of(&ours.problem, SP_ATTENTION_FORWARD), "sm90");
    cuda_expect(sp_attention_define_forward(&truth.problem));
    cuda_expect(cuda_case_run(&ours, SP_ATTENTION_FORWARD));
    double out = cuda_tensor_error(&truth.problem.out, &host.problem.out);
    double lse = cuda_floats_error(truth.lse, host.lse, host.n_lse);
    int64_t apart = bits_apart(&truth, &host);
    bool near = out <= 5e-3 && lse <= 1e-3 && ours.n_written_outside == 0 && apart <= truth.n_liveness * 32 / 200;
    case_describe(shape, text, sizeof text);
    if (!near)
        fprintf(stderr,
                "%s: error of out %.3g, of lse %.3g, %lld bytes written outside, %lld wrong bits of %lld words\n", text,
                out, lse, (long long)ours.n_written_outside, (long long)apart, (long long)truth.n_liveness);
    cuda_case_close(&ours);
    case_close(&host);
    case_close(&truth);
    return near;
}

static void leaves_to_others_what_it_has_no_code_for(void **state) {
    (void)state;
    attention_shape shapes[2];
    if (!is_hopper()) skip();
    for (int i = 0; i < 2; i++) shapes[i] = cuda_shape(100, 64, SP_DTYPE_BF16);
    shapes[0].statistics = true;
    shapes[1].S = 0;
    for (int i = 0; i < 2; i++) assert_string_equal(row_of_shape(&shapes[i], SP_ATTENTION_FORWARD), "sm80");
}

/* Tiles are of 192 or 128 queries, blocks of 64 to 128 keys, a group has 64 queries. */
static void lengths_around_tiles_agree(void **state) {
    (void)state;
    static const int64_t edges[] = {64, 96, 128, 192, 384};
    bool near = true;
    if (!is_hopper()) skip();
    for (int edge = 0; edge < 5; edge++)
        for (int64_t T = edges[edge] - 1; T <= edges[edge] + 1; T++)
            for (int i = (int)(T % 3); i < N_WIDTHS; i += 3) {
                attention_shape shape = small_shape(T, widths[i], SP_DTYPE_BF16);
                near = forward_agrees(&shape, NULL) && near;
                shape.causal = false;
                near = forward_agrees(&shape, NULL) && near;
                shape.causal = true, shape.S = T + 130;
                near = forward_agrees(&shape, NULL) && near;
                shape.S = T / 2 + 1; /* the first queries see nothing */
                near = forward_agrees(&shape, NULL) && near;
                shape.S = T, shape.window = 50;
                near = forward_agrees(&shape, NULL) && near;
                shape.window = 97, shape.S = T + 200;
                near = forward_agrees(&shape, NULL) && near;
            }
    assert_true(near);
}

/* More tiles than multiprocessors: blocks of threads go from tile to tile. */
static void many_tiles_agree(void **state) {
    (void)state;
    bool near = true;
    if (!is_hopper()) skip();
    for (int kind = 0; kind < 2; kind++)
        for (int i = 0; i < N_WIDTHS; i++) {
            attention_shape shape = cuda_shape(130, widths[i], SP_DTYPE_BF16);
            shape.H = 80, shape.Hkv = 8;
            shape.normalizer = kind ? SP_NORMALIZER_SOFTMAX : SP_NORMALIZER_SOFTPICK;
            shape.spread = 4;
            near = forward_agrees(&shape, NULL) && near;
        }
    assert_true(near);
}

static void spoil_rows(const sp_tensor *tensor, int64_t b, int64_t first, int64_t end) {
    for (int64_t t = first; t < end; t++)
        for (int64_t h = 0; h < tensor->shape[2]; h++)
            for (int64_t d = 0; d < tensor->shape[3]; d++) case_store(tensor, b, t, h, d, NAN);
}

static void spoil_behind_lengths(attention_case *c) {
    for (int64_t b = 0; b < c->problem.k.shape[0]; b++) {
        spoil_rows(&c->problem.k, b, c->key_lengths[b], c->problem.k.shape[1]);
        spoil_rows(&c->problem.v, b, c->key_lengths[b], c->problem.k.shape[1]);
    }
}

static void what_lies_behind_key_lengths_is_not_felt(void **state) {
    (void)state;
    bool near = true;
    if (!is_hopper()) skip();
    for (int i = 0; i < N_WIDTHS; i++)
        for (int64_t T = 1; T < 400; T += 57)
            for (int causal = 0; causal < 2; causal++) {
                attention_shape shape = small_shape(T, widths[i], SP_DTYPE_BF16);
                shape.lengths = true, shape.causal = causal, shape.S = T + 30;
                near = forward_agrees(&shape, spoil_behind_lengths) && near;
            }
    assert_true(near);
}

/* Keys and values of every other sequence are NaN, and so are its outputs. */
static void spoil_neighbours(attention_case *c) {
    for (int64_t i = 1; i < c->problem.n_sequences; i += 2) {
        const int64_t *cu_k = c->cu_k ? c->cu_k : c->cu_q;
        spoil_rows(&c->problem.k, 0, cu_k[i], cu_k[i + 1]);
        spoil_rows(&c->problem.v, 0, cu_k[i], cu_k[i + 1]);
    }
}

static void packed_neighbours_are_not_felt(void **state) {
    (void)state;
    bool near = true;
    if (!is_hopper()) skip();
    for (int i = 0; i < N_WIDTHS; i++)
        for (int64_t T = 50; T < 1500; T *= 3) {
            attention_shape shape = small_shape(T, widths[i], SP_DTYPE_BF16);
            shape.B = 1, shape.n_packed = 5;
            near = forward_agrees(&shape, NULL) && near;
            near = forward_agrees(&shape, spoil_neighbours) && near;
        }
    assert_true(near);
}

/* ---- zeros -------------------------------------------------------------------------------------------------------- */

/* Every normalizer, softpick with three lambdas. */
enum { N_KINDS = SP_NORMALIZER_COUNT + 2 };

static void set_kind(attention_shape *shape, int kind) {
    shape->normalizer = (sp_normalizer)(kind < SP_NORMALIZER_COUNT ? kind : 0);
    shape->lambda = kind < SP_NORMALIZER_COUNT ? 1 : 0.5f * (float)(kind - SP_NORMALIZER_COUNT);
}

static void set_signs(attention_case *c) { case_signs(c, 5); }

/* Masks, lengths and layouts by which words and tiles meet in every way. */
static attention_shape shape_with_zeros(int which, int64_t D, sp_dtype dtype) {
    static const struct {
        int64_t T, S, window, n_packed;
        bool causal, lengths;
    } kinds[] = {
        {300, 300, 0, 0, true, false}, {256, 256, 0, 0, true, false}, {200, 420, 0, 0, true, false},
        {420, 200, 0, 0, true, false}, {130, 333, 0, 0, false, true}, {301, 301, 70, 0, true, false},
        {900, 900, 0, 5, true, false}, {1, 500, 0, 0, false, false},  {64, 64, 0, 0, true, false},
    };
    attention_shape shape = small_shape(kinds[which].T, D, dtype);
    shape.S = kinds[which].S, shape.window = kinds[which].window, shape.n_packed = kinds[which].n_packed;
    shape.causal = kinds[which].causal, shape.lengths = kinds[which].lengths;
    if (shape.n_packed) shape.B = 1;
    shape.liveness = true;
    return shape;
}

enum { N_SHAPES_WITH_ZEROS = 9 };

static void words_are_those_of_the_definition(void **state) {
    (void)state;
    bool near = true;
    if (!is_hopper()) skip();
    for (int which = 0; which < N_SHAPES_WITH_ZEROS; which++)
        for (int kind = 0; kind < N_KINDS; kind++)
            for (int i = (which + kind) % 3; i < N_WIDTHS; i += 3) {
                attention_shape shape = shape_with_zeros(which, widths[i], kind % 2 ? SP_DTYPE_F16 : SP_DTYPE_BF16);
                set_kind(&shape, kind);
                near = forward_agrees(&shape, set_signs) && near;
                shape.spread = kind % 3 == 0 ? 20 : 1;
                near = forward_agrees(&shape, NULL) && near;
            }
    assert_true(near);
}

/* Runs the case as `shape` says, without the words if they are not wanted. */
static void run_with_signs(attention_case *c, const attention_shape *shape) {
    cuda_case ours;
    case_open(c, shape);
    set_signs(c);
    cuda_case_open(&ours, c, gpu);
    assert_string_equal(row_of(&ours.problem, SP_ATTENTION_FORWARD), "sm90");
    cuda_expect(cuda_case_run(&ours, SP_ATTENTION_FORWARD));
    cuda_case_close(&ours);
}

static void the_same_bits_with_dead_slabs_computed_or_left_out(void **state) {
    (void)state;
    if (!is_hopper()) skip();
    for (int which = 0; which < N_SHAPES_WITH_ZEROS; which++)
        for (int kind = 0; kind < N_KINDS; kind++)
            for (int i = (which + kind) % 3; i < N_WIDTHS; i += 3) {
                attention_shape shape = shape_with_zeros(which, widths[i], kind % 2 ? SP_DTYPE_BF16 : SP_DTYPE_F16);
                attention_case cases[3];
                set_kind(&shape, kind);
                for (int way = 0; way < 3; way++) {
                    shape.compute_dead = way == 1, shape.liveness = way != 2;
                    run_with_signs(&cases[way], &shape);
                }
                for (int way = 1; way < 3; way++) {
                    assert_memory_equal(cases[0].blocks[3], cases[way].blocks[3], (size_t)cases[0].block_bytes[3]);
                    assert_memory_equal(cases[0].lse, cases[way].lse, (size_t)cases[0].n_lse * sizeof(float));
                }
                assert_int_equal(bits_apart(&cases[0], &cases[1]), 0);
                for (int way = 0; way < 3; way++) case_close(&cases[way]);
            }
}

/* Queries of zeros: heads that say nothing. */
static void silence(attention_case *c) {
    const sp_tensor *q = &c->problem.q;
    for (int64_t b = 0; b < q->shape[0]; b++)
        for (int64_t t = 0; t < q->shape[1]; t++)
            for (int64_t h = 0; h < q->shape[2]; h += 2)
                for (int64_t d = 0; d < q->shape[3]; d++) case_store(q, b, t, h, d, 0);
}

static void silent_heads_agree(void **state) {
    (void)state;
    bool near = true;
    if (!is_hopper()) skip();
    for (int kind = 0; kind < N_KINDS; kind++)
        for (int i = 0; i < N_WIDTHS; i++) {
            attention_shape shape = shape_with_zeros(0, widths[i], SP_DTYPE_BF16);
            set_kind(&shape, kind);
            near = forward_agrees(&shape, silence) && near;
        }
    assert_true(near);
}

/* A value that no query weighs is not looked at where its whole slab is dead. */
static void spoil_dead_values(attention_case *c) {
    const sp_tensor *q = &c->problem.q, *k = &c->problem.k;
    for (int64_t b = 0; b < k->shape[0]; b++)
        for (int64_t h = 0; h < k->shape[2]; h++)
            for (int64_t j = 0; j < k->shape[1]; j++)
                for (int64_t d = 0; d < k->shape[3]; d++) {
                    bool dead = j / 16 % 3 == 1;
                    case_store(k, b, j, h, d, d == 0 ? (dead ? -3 : 2) : 0);
                    if (dead) case_store(&c->problem.v, b, j, h, d, NAN);
                }
    for (int64_t b = 0; b < q->shape[0]; b++)
        for (int64_t h = 0; h < q->shape[2]; h++)
            for (int64_t t = 0; t < q->shape[1]; t++)
                for (int64_t d = 0; d < q->shape[3]; d++) case_store(q, b, t, h, d, d == 0);
}

static void dead_values_are_not_felt(void **state) {
    (void)state;
    bool near = true;
    if (!is_hopper()) skip();
    for (int i = 0; i < N_WIDTHS; i++) {
        attention_shape shape = small_shape(500, widths[i], SP_DTYPE_BF16);
        shape.liveness = true;
        near = forward_agrees(&shape, spoil_dead_values) && near;
    }
    assert_true(near);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leaves_to_others_what_it_has_no_code_for),
        cmocka_unit_test(lengths_around_tiles_agree),
        cmocka_unit_test(many_tiles_agree),
        cmocka_unit_test(what_lies_behind_key_lengths_is_not_felt),
        cmocka_unit_test(packed_neighbours_are_not_felt),
        cmocka_unit_test(words_are_those_of_the_definition),
        cmocka_unit_test(the_same_bits_with_dead_slabs_computed_or_left_out),
        cmocka_unit_test(silent_heads_agree),
        cmocka_unit_test(dead_values_are_not_felt),
    };
    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
