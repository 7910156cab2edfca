/* RMSNorm, RoPE, SwiGLU and the conversions against plain loops in double, for every row kernel set this CPU
 * runs. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <omp.h>

#include "layers/row_kernels.h"
#include "test_layers.h"

static const sp_dtype dtypes[] = {SP_DTYPE_F32, SP_DTYPE_BF16};
static const int64_t widths[] = {1, 2, 7, 16, 31, 64, 257};
enum { N_WIDTHS = sizeof widths / sizeof *widths };

/* ---- RMSNorm ---- */

static double rmsnorm_rstd(const float *x, int64_t C, double eps) {
    double sum = 0.0;
    for (int64_t i = 0; i < C; i++) sum += (double)x[i] * x[i];
    return 1.0 / sqrt(sum / (double)C + eps);
}

static void check_rmsnorm(sp_dtype act, int64_t N, int64_t C) {
    float eps = 1e-5f;
    float *x = random_numbers(SP_DTYPE_F32, N * C, 1, 3.0), *weight = random_numbers(SP_DTYPE_F32, C, 2, 1.0);
    void *y = numbers(act, N * C);
    float *rstd = numbers(SP_DTYPE_F32, N);
    CPU(rmsnorm_forward, y, act, rstd, x, weight, N, C, eps);
    for (int64_t n = 0; n < N; n++) {
        double r = rmsnorm_rstd(x + n * C, C, eps);
        assert_near(rstd[n], r, 8 * 0x1p-24, 0.0, "rstd", n);
        for (int64_t i = 0; i < C; i++)
            assert_near(number_at(y, act, n * C + i), x[n * C + i] * r * weight[i], bound_of(act, 10), 0.0, "y", i);
    }
    assert_end_untouched(y, act, N * C);
    free(x), free(weight), free(y), free(rstd);
}

static void rmsnorm_forward_is_the_formula(void **state) {
    (void)state;
    for (int d = 0; d < 2; d++)
        for (int w = 0; w < N_WIDTHS; w++)
            for (int64_t N = 1; N <= 71; N += 70) check_rmsnorm(dtypes[d], N, widths[w]);
}

static void rmsnorm_of_zeros_is_zero(void **state) {
    (void)state;
    float x[5] = {0}, weight[5] = {1, 1, 1, 1, 1}, y[5];
    CPU(rmsnorm_forward, y, SP_DTYPE_F32, NULL, x, weight, 1, 5, 1e-6f);
    for (int i = 0; i < 5; i++) assert_true(y[i] == 0.0f);
}

/* loss = sum dy y, in double, at x and weight moved by h in one place */
static double rmsnorm_loss(const double *x, const double *weight, const void *dy, sp_dtype act, int64_t N, int64_t C,
                           double eps) {
    double loss = 0.0;
    for (int64_t n = 0; n < N; n++) {
        double sum = 0.0, row = 0.0;
        for (int64_t i = 0; i < C; i++) {
            sum += x[n * C + i] * x[n * C + i];
            row += number_at(dy, act, n * C + i) * x[n * C + i] * weight[i];
        }
        loss += row / sqrt(sum / (double)C + eps);
    }
    return loss;
}

static double rmsnorm_difference(double *x, double *weight, double *moved, const void *dy, sp_dtype act, int64_t N,
                                 int64_t C, double eps) {
    double h = 1e-5, at = *moved;
    *moved = at + h;
    double above = rmsnorm_loss(x, weight, dy, act, N, C, eps);
    *moved = at - h;
    double below = rmsnorm_loss(x, weight, dy, act, N, C, eps);
    *moved = at;
    return (above - below) / (2 * h);
}

static void check_rmsnorm_gradient(sp_dtype act, int64_t N, int64_t C) {
    float eps = 1e-5f;
    float *x = random_numbers(SP_DTYPE_F32, N * C, 3, 1.0), *weight = random_numbers(SP_DTYPE_F32, C, 4, 1.0);
    void *dy = random_numbers(act, N * C, 5, 1.0), *y = numbers(act, N * C);
    float *rstd = numbers(SP_DTYPE_F32, N), *dx = random_numbers(SP_DTYPE_F32, N * C, 6, 1.0);
    float *dx_before = random_numbers(SP_DTYPE_F32, N * C, 6, 1.0), *dweight = random_numbers(SP_DTYPE_F32, C, 7, 1.0);
    float *dweight_before = random_numbers(SP_DTYPE_F32, C, 7, 1.0);
    void *workspace = malloc((size_t)sp_layers_cpu.rmsnorm_workspace(C));
    memset(workspace, 0xff, (size_t)sp_layers_cpu.rmsnorm_workspace(C));
    CPU(rmsnorm_forward, y, act, rstd, x, weight, N, C, eps);
    void *dx_act = numbers(act, N * C), *again = numbers(act, N * C);
    CPU(rmsnorm_backward, dx, dx_act, again, dweight, dy, act, x, weight, rstd, N, C, workspace);
    assert_memory_equal(again, y, (size_t)(N * C * sp_dtype_bytes(act)));
    for (int64_t i = 0; i < N * C; i++)
        assert_near(number_at(dx_act, act, i), dx[i], act == SP_DTYPE_BF16 ? 0x1p-8 : 0, 0, "dx_act", i);
    free(dx_act), free(again);
    double *x64 = malloc((size_t)(N * C) * sizeof *x64), *weight64 = malloc((size_t)C * sizeof *weight64);
    for (int64_t i = 0; i < N * C; i++) x64[i] = x[i];
    for (int64_t i = 0; i < C; i++) weight64[i] = weight[i];
    for (int64_t i = 0; i < N * C; i++)
        assert_near(dx[i], dx_before[i] + rmsnorm_difference(x64, weight64, x64 + i, dy, act, N, C, eps), 2e-6, 2.0,
                    "dx", i);
    for (int64_t i = 0; i < C; i++)
        assert_near(dweight[i], dweight_before[i] + rmsnorm_difference(x64, weight64, weight64 + i, dy, act, N, C, eps),
                    2e-6, sqrt((double)N), "dweight", i);
    assert_end_untouched(dx, SP_DTYPE_F32, N * C);
    assert_end_untouched(dweight, SP_DTYPE_F32, C);
    free(x), free(weight), free(dy), free(y), free(rstd), free(dx), free(dx_before), free(dweight);
    free(dweight_before), free(workspace), free(x64), free(weight64);
}

static void rmsnorm_backward_is_the_difference_quotient(void **state) {
    (void)state;
    for (int d = 0; d < 2; d++) {
        check_rmsnorm_gradient(dtypes[d], 1, 7);
        check_rmsnorm_gradient(dtypes[d], 5, 33);
        check_rmsnorm_gradient(dtypes[d], 67, 3); /* more rows than sections */
    }
}

/* ---- RoPE ---- */

static void check_rope(sp_dtype act, int64_t D, int64_t n_heads) {
    enum { N = 6, GAP = 3 };
    double theta = 10000.0;
    int32_t positions[N] = {0, 1, 9, 2, 499, 3};
    int64_t stride = n_heads * D + GAP;
    float *table = numbers(SP_DTYPE_F32, 500 * D);
    sp_rope_table(table, 500, D, &(sp_rope){.theta = theta});
    void *x = random_numbers(act, N * stride, 8, 1.0), *before = random_numbers(act, N * stride, 8, 1.0);
    CPU(rope_apply, x, act, stride, positions, table, N, n_heads, D, false);
    for (int64_t n = 0; n < N; n++)
        for (int64_t i = 0; i < n_heads * D; i++) {
            int64_t pair = i % D % (D / 2), first = n * stride + i / D * D + pair;
            double angle = positions[n] * pow(theta, -2.0 * (double)pair / (double)D);
            double a = number_at(before, act, first), b = number_at(before, act, first + D / 2);
            double turned = i % D < D / 2 ? a * cos(angle) - b * sin(angle) : b * cos(angle) + a * sin(angle);
            assert_near(number_at(x, act, n * stride + i), turned, bound_of(act, 4), 1.0, "rope", i);
        }
    for (int64_t i = n_heads * D; i < stride; i++) /* the gap keeps its numbers */
        assert_true(number_at(x, act, i) == number_at(before, act, i));
    CPU(rope_apply, x, act, stride, positions, table, N, n_heads, D, true);
    for (int64_t i = 0; i < N * stride; i++)
        assert_near(number_at(x, act, i), number_at(before, act, i), 2 * bound_of(act, 4), 2.0, "there and back", i);
    free(table), free(x), free(before);
}

static void rope_turns_each_pair_by_its_angle_and_back(void **state) {
    (void)state;
    for (int d = 0; d < 2; d++)
        for (int64_t D = 2; D <= 130; D += 32) check_rope(dtypes[d], D, 3);
}

/* ---- SwiGLU ---- */

static double silu(double g) { return g / (1.0 + exp(-g)); }

static void check_swiglu(sp_dtype act, int64_t N, int64_t F, double scale) {
    void *gu = random_numbers(act, N * 2 * F, 9, scale), *s = numbers(act, N * F);
    CPU(swiglu_forward, s, gu, act, N, F);
    for (int64_t n = 0; n < N; n++)
        for (int64_t i = 0; i < F; i++) {
            double g = number_at(gu, act, n * 2 * F + i), u = number_at(gu, act, n * 2 * F + F + i);
            assert_near(number_at(s, act, n * F + i), silu(g) * u, bound_of(act, 8), 1e-30, "s", i);
        }
    assert_end_untouched(s, act, N * F);
    free(gu), free(s);
}

static void swiglu_forward_is_the_formula(void **state) {
    (void)state;
    for (int d = 0; d < 2; d++)
        for (int w = 0; w < N_WIDTHS; w++) check_swiglu(dtypes[d], 5, widths[w], w % 2 ? 2.0 : 20.0);
}

static void swiglu_of_huge_gates_is_finite(void **state) {
    (void)state;
    float gu[8] = {-1e30f, -300.0f, 300.0f, 1e30f, 1.0f, 1.0f, 2.0f, 3.0f}, s[4], ds[4] = {1, 1, 1, 1};
    CPU(swiglu_forward, s, gu, SP_DTYPE_F32, 1, 4);
    assert_true(s[0] == 0.0f && s[1] == 0.0f && s[2] == 600.0f && fabsf(s[3] / 3e30f - 1.0f) < 1e-6f);
    CPU(swiglu_backward, gu, s, ds, gu, SP_DTYPE_F32, 1, 4);
    assert_true(gu[0] == 0.0f && gu[1] == 0.0f && gu[2] == 2.0f && gu[3] == 3.0f && gu[6] == 300.0f);
}

static void check_swiglu_gradient(sp_dtype act, int64_t N, int64_t F, bool in_place, bool again) {
    void *gu = random_numbers(act, N * 2 * F, 10, 2.0), *before = random_numbers(act, N * 2 * F, 10, 2.0);
    void *ds = random_numbers(act, N * F, 11, 1.0), *ds_before = random_numbers(act, N * F, 11, 1.0);
    void *dgu = in_place ? gu : numbers(act, N * 2 * F);
    void *s = again ? (in_place ? ds : numbers(act, N * F)) : NULL;
    CPU(swiglu_backward, dgu, s, ds, gu, act, N, F);
    for (int64_t n = 0; n < N; n++)
        for (int64_t i = 0; i < F; i++) {
            double g = number_at(before, act, n * 2 * F + i), u = number_at(before, act, n * 2 * F + F + i);
            double d = number_at(ds_before, act, n * F + i), h = 1e-5;
            double slope = (silu(g + h) - silu(g - h)) / (2 * h);
            assert_near(number_at(dgu, act, n * 2 * F + i), d * u * slope, bound_of(act, 16), fabs(d * u), "dg", i);
            assert_near(number_at(dgu, act, n * 2 * F + F + i), d * silu(g), bound_of(act, 8), 1e-3, "du", i);
            if (s) assert_near(number_at(s, act, n * F + i), silu(g) * u, bound_of(act, 8), 1e-30, "s", i);
        }
    free(gu), free(before), free(ds), free(ds_before);
    if (!in_place) free(dgu), free(s);
}

static void swiglu_backward_is_the_difference_quotient(void **state) {
    (void)state;
    for (int d = 0; d < 2; d++)
        for (int w = 0; w < N_WIDTHS; w++)
            for (int flags = 0; flags < 4; flags++)
                check_swiglu_gradient(dtypes[d], 3, widths[w], flags & 1, flags & 2);
}

/* ---- conversion ---- */

/* f16 by arithmetic in double: 11 significant bits, subnormals in steps of 2^-24, infinity from 65520. */
static double round_to_f16(double value) {
    if (value == 0.0 || !isfinite(value)) return value;
    int exponent;
    frexp(value, &exponent);
    double step = ldexp(1.0, (exponent > -13 ? exponent : -13) - 11);
    double rounded = nearbyint(value / step) * step;
    return fabs(rounded) > 65504.0 ? copysign(INFINITY, value) : rounded;
}

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Or becomes 0, if it is a bf16 below 2^-126. */
static void check_16_bit_number(const sp_row_kernels *kernels, sp_dtype dtype, uint16_t in, uint16_t out, float wide) {
    bool subnormal = dtype == SP_DTYPE_BF16 && (in & 0x7f80) == 0;
    if (isnan(wide)) {
        kernels->convert(&wide, SP_DTYPE_F32, &out, dtype, 1);
        assert_true(isnan(wide));
    } else if (!subnormal || out != (in & 0x8000))
        assert_int_equal(out, in);
}

static void every_16_bit_number_survives_the_way_through_f32(void **state) {
    (void)state;
    enum { ALL = 65536 };
    static uint16_t in[ALL], out[ALL];
    static float wide[ALL];
    for (int i = 0; i < ALL; i++) in[i] = (uint16_t)i;
    for (int k = 0; sp_row_kernels_at(k); k++) {
        const sp_row_kernels *kernels = sp_row_kernels_at(k);
        for (int d = 0; sp_row_kernels_usable(kernels) && d < 2; d++) {
            sp_dtype dtype = d ? SP_DTYPE_F16 : SP_DTYPE_BF16;
            kernels->convert(wide, SP_DTYPE_F32, in, dtype, ALL);
            kernels->convert(out, dtype, wide, SP_DTYPE_F32, ALL);
            for (int i = 0; i < ALL; i++) check_16_bit_number(kernels, dtype, in[i], out[i], wide[i]);
        }
    }
}

/* Floats spread over all exponents, each power of two and each tie among them. */
static void conversion_rounds_to_nearest_even(void **state) {
    (void)state;
    enum { COUNT = 1 << 16 };
    static float in[COUNT], out[COUNT];
    static uint16_t narrow[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t tail = i % 4 == 0 ? 0x8000u : i % 4 == 1 ? 0x1000u : (uint32_t)sp_random_bits(1, 12, i) & 0xffffu;
        in[i] = float_of((i << 16 & 0xffff0000u) | tail);
        if (isnan(in[i])) in[i] = 1.0f;
    }
    for (int d = 0; d < 2; d++) {
        sp_dtype dtype = d ? SP_DTYPE_F16 : SP_DTYPE_BF16;
        sp_convert(narrow, dtype, in, SP_DTYPE_F32, COUNT);
        sp_convert(out, SP_DTYPE_F32, narrow, dtype, COUNT);
        for (int i = 0; i < COUNT; i++) {
            double expected = d ? round_to_f16(in[i]) : (double)(float)round_to_bf16(in[i]);
            if (!d && fabsf(in[i]) < 0x1p-126f) continue; /* round_to_bf16 knows no subnormals */
            if (out[i] != (float)expected) print_error("%a -> %a, expected %a\n", in[i], out[i], expected);
            assert_true(out[i] == (float)expected);
        }
    }
}

static void conversion_between_16_bit_formats_and_to_itself_is_exact_where_it_can_be(void **state) {
    (void)state;
    enum { COUNT = 5001 };
    static uint16_t half[COUNT], brain[COUNT];
    static float wide[COUNT];
    for (int i = 0; i < COUNT; i++) wide[i] = (float)(i % 257 - 128) * 0.5f; /* exact in both */
    sp_convert(half, SP_DTYPE_F16, wide, SP_DTYPE_F32, COUNT);
    sp_convert(brain, SP_DTYPE_BF16, half, SP_DTYPE_F16, COUNT);
    for (int i = 0; i < COUNT; i++) assert_true(number_at(brain, SP_DTYPE_BF16, i) == wide[i]);
    sp_convert(half, SP_DTYPE_F16, brain, SP_DTYPE_BF16, COUNT);
    sp_convert(wide, SP_DTYPE_F32, half, SP_DTYPE_F16, COUNT);
    for (int i = 0; i < COUNT; i++) assert_true(number_at(brain, SP_DTYPE_BF16, i) == wide[i]);
}

/* ---- all sets, all threads ---- */

static void check_kernels_agree(const sp_row_kernels *kernels, sp_dtype act, int64_t n) {
    void *row[2], *out[2];
    double loss[2], squares[2];
    float *weight = random_numbers(SP_DTYPE_F32, n, 14, 1.0), *x = random_numbers(SP_DTYPE_F32, n, 15, 1.0);
    const sp_row_kernels *sets[2] = {&sp_row_kernels_baseline, kernels};
    for (int i = 0; i < 2; i++) {
        row[i] = random_numbers(act, n, 13, 3.0);
        out[i] = numbers(act, 3 * n);
        char *third = (char *)out[i] + n * sp_dtype_bytes(act), *last = third + n * sp_dtype_bytes(act);
        sets[i]->swiglu(out[i], row[i], row[i], act, n);
        sets[i]->rmsnorm(third, act, x, weight, n, 1e-6f);
        sets[i]->convert(last, act, x, SP_DTYPE_F32, n);
        squares[i] = sets[i]->sum_of_squares(x, n);
        loss[i] = sets[i]->cross_entropy(row[i], act, n / 2, n, true, 2.0f);
    }
    assert_near(loss[1], loss[0], 1e-6, 1.0, "loss", n);
    assert_near(squares[1], squares[0], 1e-14, 0.0, "squares", n);
    for (int64_t i = 0; i < n; i++)
        assert_near(number_at(row[1], act, i), number_at(row[0], act, i), bound_of(act, 16) * 2, 1e-6, "gradient", i);
    for (int64_t i = 0; i < 3 * n; i++)
        assert_near(number_at(out[1], act, i), number_at(out[0], act, i), bound_of(act, 16) * 2, 1e-6, "rows", i);
    for (int i = 0; i < 2; i++) free(row[i]), free(out[i]);
    free(weight), free(x);
}

static void every_instruction_set_gives_the_baseline_numbers(void **state) {
    (void)state;
    for (int i = 0; sp_row_kernels_at(i); i++)
        for (int d = 0; sp_row_kernels_usable(sp_row_kernels_at(i)) && d < 2; d++)
            for (int64_t n = 1; n < 100; n++) check_kernels_agree(sp_row_kernels_at(i), dtypes[d], n);
}

static void rmsnorm_gradient_with(int threads, float *dx, float *dweight) {
    enum { N = 131, C = 48 };
    float *x = random_numbers(SP_DTYPE_F32, N * C, 16, 1.0), *weight = random_numbers(SP_DTYPE_F32, C, 17, 1.0);
    void *dy = random_numbers(SP_DTYPE_BF16, N * C, 18, 1.0), *y = numbers(SP_DTYPE_BF16, N * C);
    float rstd[N];
    void *workspace = malloc((size_t)sp_layers_cpu.rmsnorm_workspace(C));
    omp_set_num_threads(threads);
    CPU(rmsnorm_forward, y, SP_DTYPE_BF16, rstd, x, weight, N, C, 1e-6f);
    CPU(rmsnorm_backward, dx, NULL, NULL, dweight, dy, SP_DTYPE_BF16, x, weight, rstd, N, C, workspace);
    free(x), free(weight), free(dy), free(y), free(workspace);
}

static void rmsnorm_gradient_has_the_same_bits_for_any_threads(void **state) {
    (void)state;
    int n_threads = omp_get_max_threads();
    float dx[3][131 * 48] = {{0}}, dweight[3][48] = {{0}};
    for (int threads = 1; threads <= 3; threads++)
        rmsnorm_gradient_with(threads, dx[threads - 1], dweight[threads - 1]);
    omp_set_num_threads(n_threads);
    for (int i = 1; i < 3; i++) {
        assert_memory_equal(dx[i], dx[0], sizeof dx[0]);
        assert_memory_equal(dweight[i], dweight[0], sizeof dweight[0]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rmsnorm_forward_is_the_formula),
        cmocka_unit_test(rmsnorm_of_zeros_is_zero),
        cmocka_unit_test(rmsnorm_backward_is_the_difference_quotient),
        cmocka_unit_test(rope_turns_each_pair_by_its_angle_and_back),
        cmocka_unit_test(swiglu_forward_is_the_formula),
        cmocka_unit_test(swiglu_of_huge_gates_is_finite),
        cmocka_unit_test(swiglu_backward_is_the_difference_quotient),
        cmocka_unit_test(every_16_bit_number_survives_the_way_through_f32),
        cmocka_unit_test(conversion_rounds_to_nearest_even),
        cmocka_unit_test(conversion_between_16_bit_formats_and_to_itself_is_exact_where_it_can_be),
        cmocka_unit_test(every_instruction_set_gives_the_baseline_numbers),
        cmocka_unit_test(rmsnorm_gradient_has_the_same_bits_for_any_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
