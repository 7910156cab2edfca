/* CUDA devices are described, opened, or refused with a sentence, in builds with and without CUDA; memory and copies of
 * a device, the host among them; a device that fails is an error, not a crash. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "device/device.h"
#include "layers/layers.h"
#include "softpick/device.h"

static void every_counted_device_has_a_name_and_memory(void **state) {
    (void)state;
    if (sp_cuda_device_count() == 0) skip();
    for (int i = 0; i < sp_cuda_device_count(); i++) {
        sp_cuda_device device;
        assert_int_equal(sp_cuda_device_describe(i, &device), SP_OK);
        assert_true(strlen(device.name) > 0);
        assert_true(device.compute_major > 0 && device.n_multiprocessors > 0 && device.memory_bytes > 0);
        print_message("%d: %s, compute %d.%d\n", i, device.name, device.compute_major, device.compute_minor);
    }
}

static void a_device_that_is_not_there_is_refused_by_number(void **state) {
    (void)state;
    const int wrong[] = {sp_cuda_device_count() + 7, -1};
    const char *const named[] = {sp_cuda_device_count() ? "" : "CUDA device 7", "CUDA device -1"};
    for (int i = 0; i < 2; i++) {
        sp_cuda_device device;
        memset(&device, 0xff, sizeof device);
        assert_int_equal(sp_cuda_device_describe(wrong[i], &device), SP_NO_DEVICE);
        assert_non_null(strstr(sp_last_message(), named[i]));
        assert_int_equal(device.memory_bytes, 0);
        assert_string_equal(device.name, "");
    }
}

static void a_build_without_cuda_has_no_devices(void **state) {
    (void)state;
    if (!sp_cuda_built()) assert_int_equal(sp_cuda_device_count(), 0);
}

#define assert_ok(call)                                                                                                \
    do {                                                                                                               \
        if ((call) != SP_OK) fail_msg("%s: %s", #call, sp_last_message());                                             \
    } while (0)

/* The host and, where there is one, the first GPU. */
static int n_devices(void) { return sp_cuda_device_count() ? 2 : 1; }

static void a_device_that_is_not_there_is_not_opened(void **state) {
    (void)state;
    const int32_t wrong[] = {1 + sp_cuda_device_count(), -1};
    for (int i = 0; i < 2; i++) {
        sp_device *device = sp_device_host();
        assert_int_equal(sp_device_open(&device, wrong[i]), SP_NO_DEVICE);
        assert_null(device);
        int64_t free_bytes, total_bytes;
        assert_int_equal(sp_device_free_bytes(wrong[i], &free_bytes, &total_bytes), SP_NO_DEVICE);
    }
}

static void memory_begins_as_zero_and_copies_are_exact(void **state) {
    (void)state;
    enum { N = 1001, ROWS = 7, ROW = 24, GAP = 10 };
    for (int32_t id = 0; id < n_devices(); id++) {
        sp_device *device;
        void *memory, *other;
        unsigned char bytes[N], back[N];
        const void *read;
        assert_ok(sp_device_open(&device, id));
        assert_ok(sp_device_allocate(device, &memory, N, "a test"));
        assert_ok(sp_device_allocate(device, &other, N, "a test"));
        assert_ok(sp_device_download(device, back, memory, N));
        for (int i = 0; i < N; i++) assert_int_equal(back[i], 0);
        for (int i = 0; i < N; i++) bytes[i] = (unsigned char)(i * 37 + 1);
        assert_ok(sp_device_upload(device, memory, bytes, N));
        assert_ok(sp_device_copy_rows(device, other, ROW + GAP, memory, ROW, ROW, ROWS));
        memset(bytes, 0xee, N); /* the upload has its own copy */
        assert_ok(sp_device_read_begin(device, &read, other, N));
        for (int i = 0; i < ROWS * (ROW + GAP); i++) {
            int row = i / (ROW + GAP), column = i % (ROW + GAP);
            int expected = column < ROW ? (unsigned char)((row * ROW + column) * 37 + 1) : 0;
            assert_int_equal(((const unsigned char *)read)[i], expected);
        }
        sp_device_read_end(device, read);
        assert_ok(sp_device_zero(device, memory, N));
        assert_ok(sp_device_download(device, back, memory, N));
        for (int i = 0; i < N; i++) assert_int_equal(back[i], 0);
        sp_device_release(device, memory);
        sp_device_release(device, other);
        sp_device_close(device);
    }
}

static void scratch_memory_is_kept_and_grows(void **state) {
    (void)state;
    for (int32_t id = 0; id < n_devices(); id++) {
        sp_device *device;
        void *first, *again, *larger;
        assert_ok(sp_device_open(&device, id));
        assert_ok(sp_device_scratch(device, &first, 1000));
        assert_ok(sp_device_scratch(device, &again, 10));
        assert_ptr_equal(first, again);
        assert_ok(sp_device_scratch(device, &larger, 1 << 20));
        assert_ok(sp_device_zero(device, larger, 1 << 20));
        assert_ok(sp_device_wait(device));
        sp_device_close(device);
    }
}

static void more_memory_than_there_is_is_refused_with_its_size(void **state) {
    (void)state;
    for (int32_t id = 0; id < n_devices(); id++) {
        sp_device *device;
        void *memory = &device;
        int64_t free_bytes, total_bytes;
        assert_ok(sp_device_open(&device, id));
        assert_ok(sp_device_memory(device, &free_bytes, &total_bytes));
        assert_true(free_bytes > 0 && total_bytes > 0);
        assert_int_equal(sp_device_allocate(device, &memory, (int64_t)1 << 44, "moonshots"), SP_OUT_OF_MEMORY);
        assert_null(memory);
        assert_non_null(strstr(sp_last_message(), "moonshots"));
        assert_ok(sp_device_allocate(device, &memory, 100, "a test")); /* the failure left nothing behind */
        assert_ok(sp_device_wait(device));
        sp_device_release(device, memory);
        sp_device_close(device);
    }
}

static void time_between_marks_is_not_negative(void **state) {
    (void)state;
    for (int32_t id = 0; id < n_devices(); id++) {
        sp_device *device;
        void *marks[2], *memory;
        double seconds = -1;
        assert_ok(sp_device_open(&device, id));
        assert_ok(sp_device_allocate(device, &memory, 1 << 24, "a test"));
        for (int i = 0; i < 2; i++) assert_ok(sp_device_mark_new(device, &marks[i]));
        assert_ok(sp_device_mark(device, marks[0]));
        assert_ok(sp_device_zero(device, memory, 1 << 24));
        assert_ok(sp_device_mark(device, marks[1]));
        assert_ok(sp_device_wait(device));
        assert_ok(sp_device_seconds_between(device, marks[0], marks[1], &seconds));
        assert_true(seconds >= 0 && seconds < 1);
        for (int i = 0; i < 2; i++) sp_device_mark_free(device, marks[i]);
        sp_device_release(device, memory);
        sp_device_close(device);
    }
}

/* Last: a device that a kernel has broken stays broken for this process. */
static void a_device_that_fails_is_an_error_from_then_on(void **state) {
    (void)state;
    if (sp_cuda_device_count() == 0) skip();
    sp_device *device;
    char host[16];
    assert_ok(sp_device_open(&device, 1));
    void *nowhere = (void *)(uintptr_t)0x1000;
    sp_status queued = sp_layers_on_id(1)->convert(device, nowhere, SP_DTYPE_F32, nowhere, SP_DTYPE_BF16, 4096);
    if (queued == SP_OK) assert_int_equal(sp_device_wait(device), SP_DEVICE_FAILED);
    assert_non_null(strstr(sp_last_message(), "src/"));
    assert_int_equal(sp_device_download(device, host, host, 16), SP_DEVICE_FAILED);
    sp_device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_counted_device_has_a_name_and_memory),
        cmocka_unit_test(a_device_that_is_not_there_is_refused_by_number),
        cmocka_unit_test(a_build_without_cuda_has_no_devices),
        cmocka_unit_test(a_device_that_is_not_there_is_not_opened),
        cmocka_unit_test(memory_begins_as_zero_and_copies_are_exact),
        cmocka_unit_test(scratch_memory_is_kept_and_grows),
        cmocka_unit_test(more_memory_than_there_is_is_refused_with_its_size),
        cmocka_unit_test(time_between_marks_is_not_negative),
        cmocka_unit_test(a_device_that_fails_is_an_error_from_then_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
