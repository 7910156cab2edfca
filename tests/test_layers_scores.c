/* Rows by number and predictions, on the host and on a CUDA device, against plain loops. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "layers/row_kernels.h"
#include "softpick/device.h"
#include "test_layers.h"

enum { N_DEVICES = 2, DEVICE_BYTES = 1 << 23 };

static sp_device *devices[N_DEVICES]; /* the second is NULL where there is no GPU */
static char *memory[N_DEVICES];

static void must(sp_status status) {
    if (status != SP_OK) fail_msg("%s", sp_last_message());
}

static int open_devices(void **state) {
    (void)state;
    devices[0] = sp_device_host();
    if (sp_cuda_device_count() > 0) must(sp_device_open(&devices[1], 1));
    for (int i = 0; i < N_DEVICES && devices[i]; i++)
        must(sp_device_allocate(devices[i], (void **)&memory[i], DEVICE_BYTES, "test"));
    return 0;
}

static int close_devices(void **state) {
    (void)state;
    for (int i = 0; i < N_DEVICES && devices[i]; i++) sp_device_release(devices[i], memory[i]);
    sp_device_close(devices[1]);
    return 0;
}

/* ---- rows ---- */

static void check_gather(int device, int64_t row_bytes, int64_t stride, int64_t n_from, int64_t n) {
    uint8_t *from = malloc((size_t)(n_from * stride)), *to = malloc((size_t)(n * row_bytes) + 16);
    int32_t *rows = malloc((size_t)n * sizeof *rows + 1);
    char *to_device = memory[device], *from_device, *rows_device;
    for (int64_t i = 0; i < n_from * stride; i++) from[i] = (uint8_t)sp_random_below(3, 1, (uint64_t)i, 256);
    for (int64_t i = 0; i < n; i++) rows[i] = (int32_t)sp_random_below(3, 2, (uint64_t)i, (uint64_t)n_from);
    memset(to, 0xff, (size_t)(n * row_bytes) + 16);
    from_device = to_device + n * row_bytes + 64;
    from_device += (64 - (uintptr_t)from_device % 64) % 64;
    rows_device = from_device + n_from * stride;
    must(sp_device_upload(devices[device], to_device, to, n * row_bytes + 16));
    must(sp_device_upload(devices[device], from_device, from, n_from * stride));
    must(sp_device_upload(devices[device], rows_device, rows, n * (int64_t)sizeof *rows));
    must(sp_layers_on_id(device)->gather_rows(devices[device], to_device, from_device, stride,
                                              (const int32_t *)(void *)rows_device, row_bytes, n));
    must(sp_device_download(devices[device], to, to_device, n * row_bytes + 16));
    for (int64_t i = 0; i < n; i++) assert_memory_equal(to + i * row_bytes, from + rows[i] * stride, (size_t)row_bytes);
    for (int64_t i = 0; i < 16; i++) assert_int_equal(to[n * row_bytes + i], 0xff);
    free(from), free(to), free(rows);
}

static void rows_are_gathered_by_number(void **state) {
    (void)state;
    for (int device = 0; device < N_DEVICES && devices[device]; device++) {
        check_gather(device, 16, 16, 1, 1);
        check_gather(device, 48, 64, 7, 33);
        check_gather(device, 2048, 6144, 100, 301);
        check_gather(device, 4096, 4096, 3, 0);
        check_gather(device, 10000, 10000, 30, 17);
    }
}

/* ---- predictions ---- */

/* Logits with a few that are equal to the row's largest. */
static float *some_logits(int64_t n, int64_t V) {
    float *logits = random_numbers(SP_DTYPE_F32, n * V, 31, 3.0);
    for (int64_t row = 0; row < n; row += 2)
        for (int64_t i = 0; i < 3; i++)
            logits[row * V + (int64_t)sp_random_below(4, (uint64_t)row, (uint64_t)i, (uint64_t)V)] = 20.0f;
    return logits;
}

/* A row's first largest logit, or any other token. */
static int32_t some_target(const float *logits, int64_t row, int64_t V) {
    int32_t best = 0;
    for (int32_t i = 1; i < V; i++)
        if (logits[row * V + i] > logits[row * V + best]) best = i;
    return row % 3 == 0 ? best : (int32_t)sp_random_below(5, 1, (uint64_t)row, (uint64_t)V);
}

static void check_prediction(const float *logits, int32_t target, int64_t V, float log_p, bool greedy) {
    double top = -INFINITY, sum = 0;
    int64_t first = -1;
    for (int64_t i = 0; i < V; i++)
        if ((double)logits[i] > top) top = (double)logits[i], first = i;
    for (int64_t i = 0; i < V; i++) sum += exp((double)logits[i] - top);
    assert_near((double)log_p, (double)logits[target] - top - log(sum), 1e-6, 1.0, "log p", V);
    assert_int_equal(greedy, target == first);
}

static void check_predictions(int device, int64_t n, int64_t V) {
    float *logits = some_logits(n, V), *log_p = numbers(SP_DTYPE_F32, n);
    int32_t *targets = malloc((size_t)n * sizeof *targets);
    bool *greedy = malloc((size_t)n);
    for (int64_t row = 0; row < n; row++) targets[row] = some_target(logits, row, V);
    int64_t place = (n * V * 4 + 63) / 64 * 64, targets_at = place, log_p_at = place + n * 4, greedy_at = place + n * 8;
    assert_true(greedy_at + n <= DEVICE_BYTES);
    char *m = memory[device];
    must(sp_device_upload(devices[device], m, logits, n * V * 4));
    must(sp_device_upload(devices[device], m + targets_at, targets, n * 4));
    must(sp_device_upload(devices[device], m + log_p_at, log_p, n * 4));
    must(sp_layers_on_id(device)->predictions(devices[device], (float *)(void *)(m + log_p_at), (bool *)(m + greedy_at),
                                              (const float *)(void *)m, (const int32_t *)(void *)(m + targets_at), n,
                                              V));
    must(sp_device_download(devices[device], log_p, m + log_p_at, n * 4));
    must(sp_device_download(devices[device], greedy, m + greedy_at, n));
    for (int64_t row = 0; row < n; row++) check_prediction(logits + row * V, targets[row], V, log_p[row], greedy[row]);
    free(logits), free(log_p), free(targets), free(greedy);
}

static void predictions_are_the_formula(void **state) {
    (void)state;
    static const int64_t vocabularies[] = {1, 2, 7, 17, 512, 1000, 8192, 32000, 50257};
    for (int device = 0; device < N_DEVICES && devices[device]; device++) {
        for (size_t v = 0; v < sizeof vocabularies / sizeof *vocabularies; v++)
            check_predictions(device, 9, vocabularies[v]);
        check_predictions(device, 300, 1000);
        check_predictions(device, 0, 1000);
    }
}

static void what_is_not_finite_does_not_pass_for_a_number(void **state) {
    (void)state;
    static const float rows[2][4] = {{0.0f, NAN, 1.0f, 0.5f}, {-INFINITY, 2.0f, -INFINITY, -INFINITY}};
    static const int32_t targets[2] = {1, 1};
    for (int device = 0; device < N_DEVICES && devices[device]; device++) {
        float log_p[2];
        bool greedy[2];
        char *m = memory[device];
        must(sp_device_upload(devices[device], m, rows, sizeof rows));
        must(sp_device_upload(devices[device], m + 64, targets, sizeof targets));
        must(sp_layers_on_id(device)->predictions(devices[device], (float *)(void *)(m + 128), (bool *)(m + 192),
                                                  (const float *)(void *)m, (const int32_t *)(void *)(m + 64), 2, 4));
        must(sp_device_download(devices[device], log_p, m + 128, sizeof log_p));
        must(sp_device_download(devices[device], greedy, m + 192, sizeof greedy));
        assert_true(isnan(log_p[0]) && !greedy[0]);
        assert_true(log_p[1] == 0.0f && greedy[1]);
    }
}

static void every_instruction_set_predicts_alike(void **state) {
    (void)state;
    for (int i = 0; sp_row_kernels_at(i); i++)
        for (int64_t V = 1; sp_row_kernels_usable(sp_row_kernels_at(i)) && V < 1200; V += V < 70 ? 1 : 97) {
            float *logits = some_logits(3, V);
            for (int64_t row = 0; row < 3; row++) {
                bool greedy;
                int32_t target = some_target(logits, row, V);
                float log_p = sp_row_kernels_at(i)->prediction(logits + row * V, target, V, &greedy);
                check_prediction(logits + row * V, target, V, log_p, greedy);
            }
            free(logits);
        }
}

static void rows_that_a_gpu_cannot_copy_are_refused(void **state) {
    (void)state;
    if (!devices[1]) skip();
    char *m = memory[1];
    const int32_t *rows = (const int32_t *)(void *)m;
    assert_int_equal(sp_layers_on_id(1)->gather_rows(devices[1], m, m, 24, rows, 24, 1), SP_UNSUPPORTED);
    assert_non_null(strstr(sp_last_message(), "24 bytes"));
    assert_int_equal(sp_layers_on_id(1)->gather_rows(devices[1], m + 8, m, 32, rows, 32, 1), SP_BAD_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_gathered_by_number),
        cmocka_unit_test(predictions_are_the_formula),
        cmocka_unit_test(what_is_not_finite_does_not_pass_for_a_number),
        cmocka_unit_test(every_instruction_set_predicts_alike),
        cmocka_unit_test(rows_that_a_gpu_cannot_copy_are_refused),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
