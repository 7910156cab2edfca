/* Biases, and norms of single heads, on a GPU: within bf16's rounding of what the CPU gives (test_layers_heads.c), and the
 * same sums twice. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "softpick/device.h"
#include "test_layers.h"

static const sp_dtype dtypes[] = {SP_DTYPE_F32, SP_DTYPE_BF16};

static sp_device *gpu;
static const sp_layers *layers;

static int open_gpu(void **state) {
    (void)state;
    if (sp_cuda_device_count() == 0) return 0;
    layers = sp_layers_on_id(1);
    return sp_device_open(&gpu, 1) == SP_OK ? 0 : -1;
}

static int close_gpu(void **state) {
    (void)state;
    sp_device_close(gpu);
    return 0;
}

static void must(sp_status status) {
    if (status != SP_OK) fail_msg("%s", sp_last_message());
}

/* A copy on the GPU of n numbers and the one behind them. */
static void *uploaded(const void *data, sp_dtype dtype, int64_t n) {
    void *copy;
    int64_t bytes = (n + 1) * sp_dtype_bytes(dtype);
    must(sp_device_allocate(gpu, &copy, bytes, "test"));
    must(sp_device_upload(gpu, copy, data, bytes));
    return copy;
}

/* Compares what the GPU holds with the host's numbers, and releases it. */
static void assert_same(void *on_gpu, const void *host, sp_dtype dtype, int64_t n, double bound, const char *what) {
    void *copy = numbers(dtype, n);
    must(sp_device_download(gpu, copy, on_gpu, (n + 1) * sp_dtype_bytes(dtype)));
    for (int64_t i = 0; i < n; i++)
        assert_near(number_at(copy, dtype, i), number_at(host, dtype, i), bound, 1, what, i);
    assert_end_untouched(copy, dtype, n);
    free(copy);
    sp_device_release(gpu, on_gpu);
}

static void check_gpu_bias(sp_dtype dtype, int64_t N, int64_t M, int64_t gap) {
    int64_t stride = M + gap;
    void *y = random_numbers(dtype, N * stride, 20, 1.0), *gpu_y = uploaded(y, dtype, N * stride);
    void *dy = random_numbers(SP_DTYPE_BF16, N * stride, 21, 1.0), *gpu_dy = uploaded(dy, SP_DTYPE_BF16, N * stride);
    float *bias = random_numbers(SP_DTYPE_F32, M, 22, 1.0), *gpu_bias = uploaded(bias, SP_DTYPE_F32, M), *twice[2];
    void *workspace;
    must(sp_device_allocate(gpu, &workspace, layers->bias_workspace(M), "test"));
    must(layers->bias_add(gpu, gpu_y, dtype, stride, gpu_bias, N, M));
    CPU(bias_add, y, dtype, stride, bias, N, M);
    assert_same(gpu_y, y, dtype, N * stride, bound_of(dtype, 1), "y");
    for (int i = 0; i < 2; i++) {
        twice[i] = uploaded(bias, SP_DTYPE_F32, M);
        must(layers->bias_backward(gpu, twice[i], gpu_dy, stride, SP_DTYPE_BF16, N, M, workspace));
    }
    CPU(bias_backward, bias, dy, stride, SP_DTYPE_BF16, N, M, NULL);
    float *first = numbers(SP_DTYPE_F32, M);
    must(sp_device_download(gpu, first, twice[0], (M + 1) * (int64_t)sizeof *first));
    assert_same(twice[1], first, SP_DTYPE_F32, M, 0, "dbias again");
    assert_same(twice[0], bias, SP_DTYPE_F32, M, 1e-6 * sqrt((double)N), "dbias");
    free(first);
    sp_device_release(gpu, workspace), sp_device_release(gpu, gpu_bias), sp_device_release(gpu, gpu_dy);
    free(y), free(dy), free(bias);
}

static void a_gpu_adds_biases_and_sums_their_gradients(void **state) {
    (void)state;
    if (!gpu) skip();
    for (int d = 0; d < 2; d++) {
        check_gpu_bias(dtypes[d], 1, 8, 0);
        check_gpu_bias(dtypes[d], 7, 264, 8);
        check_gpu_bias(dtypes[d], 3000, 2304, 0);
    }
}

static void check_gpu_head_norm(int64_t N, int64_t n_heads, int64_t D) {
    const sp_dtype act = SP_DTYPE_BF16;
    const float eps = 1e-5f;
    int64_t stride = n_heads * D + 6, n = N * stride;
    void *x = random_numbers(act, n, 23, 1.0), *dx = random_numbers(act, n, 24, 1.0), *kept = numbers(act, n);
    float *weight = random_numbers(SP_DTYPE_F32, D, 25, 1.0), *dweight = random_numbers(SP_DTYPE_F32, D, 26, 1.0);
    void *gpu_x = uploaded(x, act, n), *gpu_dx = uploaded(dx, act, n), *gpu_kept = uploaded(x, act, n), *workspace;
    float *gpu_weight = uploaded(weight, SP_DTYPE_F32, D), *gpu_dweight = uploaded(dweight, SP_DTYPE_F32, D);
    void *host_workspace = malloc((size_t)sp_layers_cpu.rmsnorm_workspace(D));
    memcpy(kept, x, (size_t)(n * 2)); /* the gaps between rows are not written */
    must(sp_device_allocate(gpu, &workspace, layers->rmsnorm_workspace(D), "test"));
    must(layers->head_norm_forward(gpu, gpu_x, act, stride, gpu_kept, stride, gpu_weight, N, n_heads, D, eps));
    must(layers->head_norm_backward(gpu, gpu_dx, act, stride, gpu_dweight, gpu_kept, stride, gpu_weight, N, n_heads, D,
                                    eps, workspace));
    CPU(head_norm_forward, x, act, stride, kept, stride, weight, N, n_heads, D, eps);
    CPU(head_norm_backward, dx, act, stride, dweight, kept, stride, weight, N, n_heads, D, eps, host_workspace);
    assert_same(gpu_x, x, act, n, 0x1p-8, "x");
    assert_same(gpu_kept, kept, act, n, 0, "kept");
    assert_same(gpu_dx, dx, act, n, 0x1p-7, "dx");
    assert_same(gpu_dweight, dweight, SP_DTYPE_F32, D, 2e-6 * sqrt((double)(N * n_heads)), "dweight");
    sp_device_release(gpu, gpu_weight), sp_device_release(gpu, workspace);
    free(x), free(dx), free(kept), free(weight), free(dweight), free(host_workspace);
}

static void a_gpu_norms_heads_and_their_gradients(void **state) {
    (void)state;
    if (!gpu) skip();
    check_gpu_head_norm(1, 1, 6);
    check_gpu_head_norm(5, 3, 64);
    check_gpu_head_norm(2, 2, 256);
    check_gpu_head_norm(1000, 8, 128);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_gpu_adds_biases_and_sums_their_gradients),
        cmocka_unit_test(a_gpu_norms_heads_and_their_gradients),
    };
    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
