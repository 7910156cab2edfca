/* The row sm90 alone: what it takes and leaves to others, sizes around its tiles, and memory beside the sequences that
 * must not be felt.  What holds for all rows of GPUs is in test_attention_cuda.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_sample.h"
#include "cuda_support.h"

static sp_device *gpu;

static int open_gpu(void **state) {
    (void)state;
    gpu = cuda_open_first();
    return 0;
}

static int close_gpu(void **state) {
    (void)state;
    sp_device_close(gpu);
    return 0;
}

/* Changes the inputs of a case before it is copied to the GPU. */
typedef void (*change_inputs)(attention_case *c);

static const char *row_of(const sp_attention *problem) {
    const char *name = "";
    cuda_expect(sp_attention_choose(problem, SP_ATTENTION_FORWARD, &name));
    return name;
}

static const char *row_of_shape(const attention_shape *shape) {
    attention_case host;
    cuda_case ours;
    case_open(&host, shape);
    cuda_case_open(&ours, &host, gpu);
    const char *name = row_of(&ours.problem);
    cuda_case_close(&ours);
    case_close(&host);
    return name;
}

static bool is_hopper(void) {
    attention_shape shape = cuda_shape(8, 64, SP_DTYPE_BF16);
    return gpu && strcmp(row_of_shape(&shape), "sm90") == 0;
}

/* Whether forward here and the definition agree; tells what does not. */
static bool forward_agrees(const attention_shape *shape, change_inputs change) {
    attention_case truth, host;
    cuda_case ours;
    char text[320];
    case_open(&truth, shape);
    case_open(&host, shape);
    if (change) change(&truth), change(&host);
    cuda_case_open(&ours, &host, gpu);
    assert_string_equal(row_of(&ours.problem), "sm90");
    cuda_expect(sp_attention_define_forward(&truth.problem));
    cuda_expect(cuda_case_run(&ours, SP_ATTENTION_FORWARD));
    double out = cuda_tensor_error(&truth.problem.out, &host.problem.out);
    double lse = cuda_floats_error(truth.lse, host.lse, host.n_lse);
    bool near = out <= 4e-3 && lse <= 1e-3 && ours.n_written_outside == 0;
    case_describe(shape, text, sizeof text);
    if (!near)
        fprintf(stderr, "%s: error of out %.3g, of lse %.3g, %lld bytes written outside\n", text, out, lse,
                (long long)ours.n_written_outside);
    cuda_case_close(&ours);
    case_close(&host);
    case_close(&truth);
    return near;
}

static void leaves_to_others_what_it_has_no_code_for(void **state) {
    (void)state;
    attention_shape shapes[4];
    if (!is_hopper()) skip();
    for (int i = 0; i < 4; i++) shapes[i] = cuda_shape(100, 64, SP_DTYPE_BF16);
    shapes[0].D = 256;
    shapes[1].lambda = 0.5f;
    shapes[2].normalizer = SP_NORMALIZER_RECTIFIED;
    shapes[3].statistics = true;
    for (int i = 0; i < 4; i++) assert_string_equal(row_of_shape(&shapes[i]), "sm80");
}

/* Tiles are of 192 or 128 queries, blocks of 96 or 128 keys, a group has 64 queries. */
static void lengths_around_tiles_agree(void **state) {
    (void)state;
    static const int64_t edges[] = {64, 96, 128, 192, 384};
    bool near = true;
    if (!is_hopper()) skip();
    for (int i = 0; i < 5; i++)
        for (int64_t T = edges[i] - 1; T <= edges[i] + 1; T++)
            for (int64_t D = 64; D <= 128; D += 64) {
                attention_shape shape = cuda_shape(T, D, SP_DTYPE_BF16);
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
        for (int64_t D = 64; D <= 128; D += 64) {
            attention_shape shape = cuda_shape(130, D, SP_DTYPE_BF16);
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
    for (int64_t D = 64; D <= 128; D += 64)
        for (int64_t T = 1; T < 400; T += 57)
            for (int causal = 0; causal < 2; causal++) {
                attention_shape shape = cuda_shape(T, D, SP_DTYPE_BF16);
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
    for (int64_t D = 64; D <= 128; D += 64)
        for (int64_t T = 50; T < 1500; T *= 3) {
            attention_shape shape = cuda_shape(T, D, SP_DTYPE_BF16);
            shape.B = 1, shape.n_packed = 5;
            near = forward_agrees(&shape, NULL) && near;
            near = forward_agrees(&shape, spoil_neighbours) && near;
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
    };
    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
