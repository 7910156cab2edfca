/* Backward on a GPU agrees with the definition on all that a problem may be, and gives the same bits each time. */
#define _GNU_SOURCE /* setenv */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "attention_case.h"
#include "attention_plain.h"
#include "attention_sample.h"
#include "cuda_agree.h"
#include "cuda_support.h"

static sp_device *gpu;

/* The GPU may have better rows. */
static void choose_row(void) {
    if (getenv("SOFTPICK_TEST_BEST"))
        unsetenv("SP_ATTENTION");
    else
        setenv("SP_ATTENTION", "sm80", 1);
}

static int open_gpu(void **state) {
    (void)state;
    choose_row();
    gpu = cuda_open_first();
    return 0;
}

static int close_gpu(void **state) {
    (void)state;
    if (gpu) sp_device_close(gpu);
    return 0;
}

/* ---- comparing -------------------------------------------------------------------------------------------------- */

/* Queues the pass with a workspace full of NaN. */
static void queue_backward(cuda_case *c, void **workspace) {
    int64_t bytes = 0;
    cuda_expect(sp_attention_workspace(&c->problem, SP_ATTENTION_BACKWARD, 0, &bytes));
    *workspace = cuda_poisoned(c->device, bytes);
    cuda_expect(sp_attention_backward(&c->problem, *workspace, bytes, 0));
}

static void run_backward(attention_case *host, bool any_order) {
    cuda_case c;
    void *workspace;
    cuda_case_open(&c, host, gpu);
    c.problem.any_order = any_order;
    queue_backward(&c, &workspace);
    cuda_expect(sp_device_wait(gpu));
    cuda_case_download(&c);
    if (c.n_written_outside) fail_msg("%lld bytes beside the tensors were written", (long long)c.n_written_outside);
    sp_device_release(gpu, workspace);
    cuda_case_close(&c);
}

/* Allowed ||error|| / ||truth|| of dq, dk, dv on normal random numbers. */
static const double *error_bounds(sp_dtype dtype) {
    static const double bf16[3] = {1e-2, 1e-2, 6e-3}, f16[3] = {2e-3, 2e-3, 1e-3};
    return dtype == SP_DTYPE_BF16 ? bf16 : f16;
}

/* Within the bounds, or within twice the error of plain loops that round as the kernel does; where all cancels, within what
 * other orders of summation give. */
static bool near_tensor(const char *text, const attention_case *truth, const attention_case *plain,
                        const attention_case *ours, int i) {
    static const char *const names[] = {"dq", "dk", "dv"};
    double bound = error_bounds(ours->problem.q.dtype)[i];
    cuda_error n = cuda_measure(truth->tensors[5 + i], ours->tensors[5 + i]);
    cuda_error p = cuda_measure(truth->tensors[5 + i], plain->tensors[5 + i]);
    double least = 1e-5 * cuda_terms(&truth->problem, 5 + i), count = (double)sp_tensor_count(ours->tensors[5 + i]);
    double allowed = fmax(bound * n.size, 2 * p.norm) + fmax(least / 10 * sqrt(count), 1e-5);
    double most = fmax(8 * bound * n.largest, 2 * p.worst) + least;
    if (n.norm <= allowed && n.worst <= most) return true;
    print_message("%s: %s: error %.3g of %.3g (allowed %.3g), worst %.3g of %.3g (allowed %.3g)\n", text, names[i],
                  n.norm, n.size, allowed, n.worst, n.largest, most);
    return false;
}

/* What the rounding of `out` may do to the sums of head h: an error of delta = dout . out in each row.  `size`: what a
 * row's error is multiplied by. */
static double delta_slack(const attention_case *c, int64_t h, double size) {
    const sp_tensor *out = &c->problem.out, *dout = &c->problem.dout;
    double squares = 0;
    for (int64_t b = 0; b < out->shape[0]; b++)
        for (int64_t t = 0; t < out->shape[1]; t++)
            for (int64_t d = 0; d < out->shape[3]; d++) {
                double x = case_load(out, b, t, h, d) * case_load(dout, b, t, h, d);
                squares += isfinite(x) ? x * x : 0;
            }
    return 0x1p-8 * size * sqrt(squares) + 1e-5;
}

static bool near_heads(const char *text, const char *name, const attention_case *truth, const float *wanted,
                       const float *plain, const float *ours, double size) {
    for (int64_t h = 0; h < truth->problem.q.shape[2]; h++) {
        double allowed = delta_slack(truth, h, size) + 2 * fabs((double)plain[h] - (double)wanted[h]) +
                         1e-2 * fabs((double)wanted[h]);
        if (fabs((double)ours[h] - (double)wanted[h]) <= allowed) continue;
        print_message("%s: %s[%lld] is %g, not %g (allowed %g)\n", text, name, (long long)h, (double)ours[h],
                      (double)wanted[h], allowed);
        return false;
    }
    return true;
}

typedef void (*change_inputs)(attention_case *c, const void *user);

/* Backward of one shape by the definition, by plain loops and by us. */
static bool agrees(const attention_shape *shape, change_inputs change, const void *user, bool any_order) {
    attention_case truth, plain, ours, *const all[] = {&truth, &plain, &ours};
    char text[320];
    bool near = true;
    case_describe(shape, text, sizeof text);
    for (int i = 0; i < 3; i++) {
        case_open(all[i], shape);
        if (change) change(all[i], user);
    }
    cuda_expect(sp_attention_define_forward(&truth.problem));
    cuda_expect(sp_attention_define_forward(&ours.problem));
    cuda_expect(sp_attention_define_backward(&truth.problem));
    plain_forward(&plain.problem, true);
    plain_backward(&plain.problem, true);
    run_backward(&ours, any_order);
    for (int i = 0; i < 3; i++) near = near_tensor(text, &truth, &plain, &ours, i) && near;
    double score = 4 * (double)shape->spread * log((double)shape->S + 2); /* of a row factor of 1 */
    if (truth.problem.dsink) near = near_heads(text, "dsink", &truth, truth.dsink, plain.dsink, ours.dsink, 1) && near;
    if (truth.problem.drow_factor)
        near = near_heads(text, "drow_factor", &truth, truth.drow_factor, plain.drow_factor, ours.drow_factor, score) &&
               near;
    for (int i = 0; i < 3; i++) case_close(all[i]);
    return near;
}

static attention_shape plain_shape(int64_t T, int64_t D, sp_dtype dtype, sp_normalizer normalizer) {
    return (attention_shape){.B = 1,
                             .T = T,
                             .S = T,
                             .H = 2,
                             .Hkv = 2,
                             .D = D,
                             .Dv = D,
                             .dtype = dtype,
                             .normalizer = normalizer,
                             .causal = true,
                             .lambda = 1,
                             .eps = SP_EPS_DEFAULT,
                             .spread = 1,
                             .seed = 11};
}

/* ---- agreement -------------------------------------------------------------------------------------------------- */

static void every_width_dtype_and_normalizer_agrees(void **state) {
    (void)state;
    static const int64_t widths[] = {64, 128, 256, 32, 96, 192, 100, 7};
    bool all = true;
    if (!gpu) skip();
    for (int w = 0; w < 8; w++)
        for (int n = 0; n < SP_NORMALIZER_COUNT; n++)
            for (int order = 0; order < 2; order++) {
                attention_shape shape =
                    plain_shape(200, widths[w], (w + n) % 2 ? SP_DTYPE_F16 : SP_DTYPE_BF16, (sp_normalizer)n);
                all = agrees(&shape, NULL, NULL, order) && all;
                shape.causal = false;
                shape.dtype = shape.dtype == SP_DTYPE_BF16 ? SP_DTYPE_F16 : SP_DTYPE_BF16;
                all = agrees(&shape, NULL, NULL, order) && all;
            }
    assert_true(all);
}

static void sampled_problems_agree(void **state) {
    (void)state;
    bool all = true;
    uint64_t n = 0;
    if (!gpu) skip();
    for (uint64_t seed = sample_first(); seed < sample_first() + sample_count(300); seed++) {
        attention_shape shape = sample_shape(seed, 20000000);
        if (shape.dtype == SP_DTYPE_F32) shape.dtype = SP_DTYPE_BF16;
        if (shape.spread > 4) shape.spread = 4;
        shape.liveness = shape.statistics = false;
        all = agrees(&shape, NULL, NULL, seed % 3 == 0) && all;
        n++;
    }
    print_message("%llu problems\n", (unsigned long long)n);
    assert_true(all);
}

static void scores_in_several_blocks_of_keys_agree(void **state) {
    (void)state;
    bool all = true;
    if (!gpu) skip();
    for (int i = 0; i < 12; i++) {
        attention_shape shape = plain_shape(i < 6 ? 500 : 300, 64 << i % 3, SP_DTYPE_BF16, SP_NORMALIZER_SOFTPICK);
        shape.Hkv = 1;
        shape.causal = i % 2;
        shape.window = i == 5 ? 200 : 0;
        shape.lengths = i > 5;
        shape.B = i > 5 ? 2 : 1;
        shape.S = i > 8 ? 3 * shape.T / 2 : shape.T;
        shape.seed = (uint64_t)i;
        all = agrees(&shape, NULL, NULL, false) && all;
    }
    assert_true(all);
}

/* q = k = 1 but for signs: every score of a row in `user` is negative, or 0. */
static void make_scores(attention_case *c, const void *user) {
    double sign = *(const double *)user;
    const sp_tensor *q = &c->problem.q, *k = &c->problem.k;
    for (int64_t h = 0; h < q->shape[2]; h++)
        for (int64_t d = 0; d < q->shape[3]; d++) {
            for (int64_t t = 0; t < q->shape[1]; t += 3) case_store(q, 0, t, h, d, sign);
            for (int64_t t = 0; t < k->shape[1]; t++) case_store(k, 0, t, h, d, 1);
        }
}

static void rows_without_a_positive_score_have_gradient_zero(void **state) {
    (void)state;
    if (!gpu) skip();
    for (int i = 0; i < 4; i++) {
        double sign = i % 2 ? 0 : -1;
        attention_shape shape =
            plain_shape(150, 64, SP_DTYPE_BF16, i < 2 ? SP_NORMALIZER_SOFTPICK : SP_NORMALIZER_RECTIFIED);
        attention_case c;
        case_open(&c, &shape);
        make_scores(&c, &sign);
        cuda_expect(sp_attention_define_forward(&c.problem));
        run_backward(&c, i / 2);
        for (int64_t t = 0; t < shape.T; t += 3)
            for (int64_t d = 0; d < shape.D; d++) assert_true(case_load(&c.problem.dq, 0, t, 1, d) == 0);
        case_close(&c);
    }
}

static void rows_that_see_nothing_and_keys_that_nobody_sees_have_gradient_zero(void **state) {
    (void)state;
    if (!gpu) skip();
    attention_shape shape = plain_shape(200, 64, SP_DTYPE_F16, SP_NORMALIZER_SOFTPICK);
    attention_case c;
    shape.S = 70;
    case_open(&c, &shape);
    cuda_expect(sp_attention_define_forward(&c.problem));
    run_backward(&c, false);
    for (int64_t t = 0; t < 130; t++)
        for (int64_t d = 0; d < shape.D; d++) assert_true(case_load(&c.problem.dq, 0, t, 0, d) == 0);
    case_close(&c);
    shape.S = 400, shape.T = 50, shape.window = 100;
    case_open(&c, &shape);
    cuda_expect(sp_attention_define_forward(&c.problem));
    run_backward(&c, false);
    for (int64_t t = 0; t <= 400 - 50 - 100; t++)
        for (int64_t d = 0; d < shape.D; d++)
            assert_true(case_load(&c.problem.dk, 0, t, 0, d) == 0 && case_load(&c.problem.dv, 0, t, 0, d) == 0);
    case_close(&c);
}

/* Scores from far below to far above 0, such that powers overflow. */
static void spread_scores(attention_case *c, const void *user) {
    const sp_tensor *q = &c->problem.q;
    double size = *(const double *)user;
    for (int64_t t = 0; t < q->shape[1]; t++)
        for (int64_t h = 0; h < q->shape[2]; h++)
            for (int64_t d = 0; d < q->shape[3]; d++)
                case_store(q, 0, t, h, d, case_load(q, 0, t, h, d) * (t % 4 == 0 ? size : t % 4 == 1 ? 1 / size : 1));
}

static void rows_of_any_size_agree(void **state) {
    (void)state;
    bool all = true;
    if (!gpu) skip();
    static const double sizes[] = {30, 300};
    for (int i = 0; i < 2; i++)
        for (int n = 0; n < SP_NORMALIZER_COUNT; n++) {
            attention_shape shape = plain_shape(150, 64, SP_DTYPE_BF16, (sp_normalizer)n);
            all = agrees(&shape, spread_scores, &sizes[i], false) && all;
        }
    assert_true(all);
}

/* ---- what is left out -------------------------------------------------------------------------------------------- */

/* Scores have the sign of their 64 queries x 64 keys, and are far from 0; a share of the signs is positive, none of those of
 * queries 128 to 255. */
static void block_signs(attention_case *c, const void *user) {
    const sp_tensor *q = &c->problem.q, *k = &c->problem.k;
    const double share = *(const double *)user;
    for (int64_t b = 0; b < q->shape[0]; b++)
        for (int64_t d = 0; d < 8; d++) {
            for (int64_t t = 0; t < q->shape[1]; t++)
                for (int64_t h = 0; h < q->shape[2]; h++) case_store(q, b, t, h, d, t / 64 % 8 == d ? 10 : 0);
            for (int64_t t = 0; t < k->shape[1]; t++)
                for (int64_t h = 0; h < k->shape[2]; h++) {
                    uint64_t block = (uint64_t)((b * k->shape[2] + h) * 1000 + t / 64);
                    bool positive = d / 2 != 1 && sp_random_uniform(77, (uint64_t)d, block) < share;
                    if (!isnan(case_load(k, b, t, h, d))) case_store(k, b, t, h, d, positive ? 10 : -10);
                }
        }
}

/* Forward by the definition, backward here; false: the row sm90 does not take it. */
static bool run_sm90(attention_case *c, const attention_shape *shape, double share, bool any_order) {
    const char *name;
    cuda_case ours;
    case_open(c, shape);
    block_signs(c, &share);
    cuda_case_open(&ours, c, gpu);
    bool taken = sp_attention_choose(&ours.problem, SP_ATTENTION_BACKWARD, &name) == SP_OK;
    cuda_case_close(&ours);
    if (!taken) return false;
    cuda_expect(sp_attention_define_forward(&c->problem));
    run_backward(c, any_order);
    return true;
}

static bool same_gradients(const attention_case *a, const attention_case *b) {
    for (int i = 5; i < 8; i++)
        if (cuda_measure(a->tensors[i], b->tensors[i]).norm != 0) return false;
    return true;
}

/* With liveness words as without them, and as the definition. */
static bool words_change_nothing(attention_shape shape, double share, bool any_order, bool exactly) {
    attention_case with, without;
    bool same = true, near = true;
    shape.liveness = true;
    bool taken = run_sm90(&with, &shape, share, any_order);
    shape.compute_dead = true;
    taken = run_sm90(&without, &shape, share, any_order) && taken;
    if (taken) {
        same = !exactly || same_gradients(&with, &without);
        if (!same) print_message("D %lld share %g: other bits\n", (long long)shape.D, share);
        shape.compute_dead = false;
        near = agrees(&shape, block_signs, &share, any_order);
    }
    case_close(&with), case_close(&without);
    return same && near;
}

static void dead_blocks_change_no_bit(void **state) {
    (void)state;
    bool all = true;
    if (!gpu) skip();
    setenv("SP_ATTENTION", "sm90", 1);
    for (int i = 0; i < 12; i++) {
        static const double shares[] = {0.1, 0.5, 0};
        attention_shape shape = plain_shape(i % 4 < 2 ? 320 : 300,
                                            i % 3 == 2 ? 96
                                            : i % 2    ? 128
                                                       : 64,
                                            SP_DTYPE_BF16, SP_NORMALIZER_SOFTPICK);
        shape.Hkv = i % 3 ? 2 : 1;
        shape.lambda = i / 4 == 0 ? 1 : i / 4 == 1 ? 0 : 0.5f;
        shape.causal = i % 4 < 3;
        shape.S = i % 5 == 4 ? 450 : shape.T;
        shape.n_packed = i % 8 == 5 ? 3 : 0;
        shape.lengths = i % 8 == 6;
        shape.B = shape.lengths ? 2 : 1;
        shape.window = i % 8 == 7 ? 200 : 0;
        shape.seed = (uint64_t)i;
        all = words_change_nothing(shape, shares[i / 2 % 3], i % 6 == 1, i % 6 != 1) && all;
    }
    choose_row();
    assert_true(all);
}

/* ---- the same bits ---------------------------------------------------------------------------------------------- */

static bool same_outputs(const attention_case *a, const attention_case *b) {
    for (int i = 5; i < 8; i++)
        if (memcmp(a->blocks[i], b->blocks[i], (size_t)a->block_bytes[i])) return false;
    return !memcmp(a->dsink, b->dsink, (size_t)a->problem.q.shape[2] * sizeof *a->dsink) &&
           !memcmp(a->drow_factor, b->drow_factor, (size_t)a->problem.q.shape[2] * sizeof *a->drow_factor);
}

/* A long problem with more blocks of keys than a GPU has room for at once. */
static attention_shape long_shape(int64_t D, bool causal) {
    attention_shape shape = plain_shape(2048, D, SP_DTYPE_BF16, SP_NORMALIZER_SOFTMAX_SINK);
    shape.H = shape.Hkv = 32;
    shape.causal = causal;
    shape.row_factor = true;
    return shape;
}

/* out and lse need not be true ones here. */
static void invent_forward(attention_case *c) {
    case_fill(&c->problem.out, 0.1, 5, 5);
    for (int64_t i = 0; i < c->n_lse; i++) c->lse[i] = 8 + (float)sp_random_normal(5, 6, (uint64_t)i);
}

static void twenty_runs_give_the_same_bits_beside_a_competing_kernel(void **state) {
    (void)state;
    if (!gpu) skip();
    sp_device *other;
    cuda_expect(sp_device_open(&other, 1));
    for (int i = 0; i < 3; i++) {
        attention_shape shape = long_shape(i == 2 ? 128 : 64, i != 1);
        attention_case first, next;
        cuda_case busy;
        void *workspace;
        case_open(&first, &shape), case_open(&next, &shape);
        invent_forward(&first), invent_forward(&next);
        run_backward(&first, false);
        cuda_case_open(&busy, &next, other);
        busy.problem.any_order = true;
        for (int run = 0; run < 19; run++) {
            case_poison(&next);
            invent_forward(&next);
            if (run % 2) queue_backward(&busy, &workspace);
            run_backward(&next, false);
            assert_true(same_outputs(&first, &next));
            if (!(run % 2)) continue;
            cuda_expect(sp_device_wait(other));
            sp_device_release(other, workspace);
        }
        cuda_case_close(&busy);
        case_close(&first), case_close(&next);
    }
    sp_device_close(other);
}

static void any_order_gives_nearly_the_same(void **state) {
    (void)state;
    if (!gpu) skip();
    for (int i = 0; i < 6; i++) {
        attention_shape shape = long_shape(64 << i % 3, i < 3);
        attention_case ordered, any;
        shape.H = 8, shape.Hkv = 4;
        case_open(&ordered, &shape), case_open(&any, &shape);
        invent_forward(&ordered), invent_forward(&any);
        run_backward(&ordered, false);
        run_backward(&any, true);
        for (int j = 5; j < 8; j++) {
            cuda_error difference = cuda_measure(ordered.tensors[j], any.tensors[j]);
            assert_true(difference.norm < 1e-3 * difference.size);
        }
        case_close(&ordered), case_close(&any);
    }
}

/* The argument, if there is one: a pattern of tests' names. */
int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_width_dtype_and_normalizer_agrees),
        cmocka_unit_test(sampled_problems_agree),
        cmocka_unit_test(scores_in_several_blocks_of_keys_agree),
        cmocka_unit_test(rows_without_a_positive_score_have_gradient_zero),
        cmocka_unit_test(rows_that_see_nothing_and_keys_that_nobody_sees_have_gradient_zero),
        cmocka_unit_test(rows_of_any_size_agree),
        cmocka_unit_test(dead_blocks_change_no_bit),
        cmocka_unit_test(any_order_gives_nearly_the_same),
        cmocka_unit_test(twenty_runs_give_the_same_bits_beside_a_competing_kernel),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
