/* CUDA devices are described, or refused with a sentence, in builds with and without CUDA. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_counted_device_has_a_name_and_memory),
        cmocka_unit_test(a_device_that_is_not_there_is_refused_by_number),
        cmocka_unit_test(a_build_without_cuda_has_no_devices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
