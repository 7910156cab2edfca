/* Views of DLPack tensors, described by DLPack's own header where it is installed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#if __has_include(<dlpack/dlpack.h>)

#include <stdbool.h>
#include <string.h>

#include "base/dlpack.h"
#include "softpick/dlpack.h"

#define SAME_PLACE(ours, theirs)                                                                                       \
    _Static_assert(offsetof(sp_dlpack_tensor, ours) == offsetof(DLTensor, theirs) &&                                   \
                       sizeof(((sp_dlpack_tensor *)0)->ours) == sizeof(((DLTensor *)0)->theirs),                       \
                   #theirs " lies where the library looks for it")
SAME_PLACE(data, data);
SAME_PLACE(device_type, device.device_type);
SAME_PLACE(device_id, device.device_id);
SAME_PLACE(n_dims, ndim);
SAME_PLACE(dtype_code, dtype.code);
SAME_PLACE(dtype_bits, dtype.bits);
SAME_PLACE(dtype_lanes, dtype.lanes);
SAME_PLACE(shape, shape);
SAME_PLACE(strides, strides);
SAME_PLACE(byte_offset, byte_offset);
_Static_assert(sizeof(sp_dlpack_tensor) == sizeof(DLTensor), "nothing else is in it");

static float numbers[64];
static int64_t shape[8] = {2, 3, 4, 1, 1, 1, 1, 1}, strides[8] = {24, 8, 2, 1, 1, 1, 1, 1};

static DLTensor whole(void) {
    return (DLTensor){.data = numbers,
                      .device = {.device_type = kDLCPU},
                      .ndim = 3,
                      .dtype = {.code = kDLFloat, .bits = 32, .lanes = 1},
                      .shape = shape};
}

static void strides_that_are_not_given_are_row_major(void **state) {
    (void)state;
    DLTensor tensor = whole();
    sp_tensor view;
    assert_int_equal(sp_tensor_from_dlpack(&view, &tensor), SP_OK);
    sp_tensor expected = sp_tensor_view(numbers, SP_DTYPE_F32, 3, shape);
    assert_memory_equal(&view, &expected, sizeof view);
}

static void strides_and_offset_are_taken_over(void **state) {
    (void)state;
    DLTensor tensor = whole();
    sp_tensor view;
    tensor.strides = strides;
    tensor.byte_offset = 20;
    assert_int_equal(sp_tensor_from_dlpack(&view, &tensor), SP_OK);
    assert_ptr_equal(view.data, numbers + 5);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(view.shape[i], shape[i]);
        assert_int_equal(view.stride[i], strides[i]);
    }
    int64_t backwards[3] = {-12, 4, 1};
    tensor.strides = backwards;
    assert_int_equal(sp_tensor_from_dlpack(&view, &tensor), SP_OK);
    assert_int_equal(view.stride[0], -12);
}

static void scalar_and_empty_tensors_are_views_too(void **state) {
    (void)state;
    DLTensor tensor = whole();
    sp_tensor view;
    tensor.ndim = 0;
    tensor.shape = NULL;
    assert_int_equal(sp_tensor_from_dlpack(&view, &tensor), SP_OK);
    assert_int_equal(view.n_dims, 0);
    assert_int_equal(sp_tensor_count(&view), 1);
    int64_t empty[3] = {2, 0, INT64_MAX / 4};
    tensor = whole();
    tensor.shape = empty;
    tensor.data = NULL;
    tensor.byte_offset = 3; /* of nothing */
    assert_int_equal(sp_tensor_from_dlpack(&view, &tensor), SP_OK);
    assert_null(view.data);
    assert_int_equal(sp_tensor_count(&view), 0);
}

static void each_kind_of_number_is_found(void **state) {
    (void)state;
    static const struct {
        uint8_t code, bits;
        sp_dtype dtype;
    } kinds[] = {
        {kDLFloat, 32, SP_DTYPE_F32}, {kDLBfloat, 16, SP_DTYPE_BF16}, {kDLFloat, 16, SP_DTYPE_F16},
        {kDLFloat, 64, SP_DTYPE_F64}, {kDLInt, 64, SP_DTYPE_I64},     {kDLInt, 32, SP_DTYPE_I32},
        {kDLInt, 16, SP_DTYPE_I16},   {kDLInt, 8, SP_DTYPE_I8},       {kDLUInt, 8, SP_DTYPE_U8},
        {6, 8, SP_DTYPE_BOOL},        {10, 8, SP_DTYPE_F8_E4M3},      {12, 8, SP_DTYPE_F8_E5M2}, /* from version 1 on */
    };
    _Static_assert(sizeof kinds / sizeof *kinds == SP_DTYPE_COUNT, "one line for each dtype");
    for (int code = 0; code < 256; code++)
        for (int bits = 0; bits < 256; bits++) {
            DLTensor tensor = whole();
            sp_tensor view;
            const sp_dtype *expected = NULL;
            tensor.dtype.code = (uint8_t)code;
            tensor.dtype.bits = (uint8_t)bits;
            for (int i = 0; i < SP_DTYPE_COUNT; i++)
                if (kinds[i].code == code && kinds[i].bits == bits) expected = &kinds[i].dtype;
            assert_int_equal(sp_tensor_from_dlpack(&view, &tensor), expected ? SP_OK : SP_UNSUPPORTED);
            if (expected) assert_int_equal(view.dtype, *expected);
        }
    assert_string_equal(sp_last_message(),
                        "the DLPack tensor has numbers of type code 255 with 255 bits: no dtype here");
}

static void devices_are_host_memory_or_cuda(void **state) {
    (void)state;
    for (int type = 0; type < 20; type++) {
        DLTensor tensor = whole();
        sp_tensor view;
        tensor.device.device_type = (DLDeviceType)type;
        tensor.device.device_id = 3;
        bool taken = type == kDLCPU || type == kDLCUDA || type == kDLCUDAHost;
        assert_int_equal(sp_tensor_from_dlpack(&view, &tensor), taken ? SP_OK : SP_UNSUPPORTED);
        assert_int_equal(view.device, type == kDLCUDA ? 4 : 0);
    }
    DLTensor tensor = whole();
    sp_tensor view;
    tensor.device.device_type = kDLCUDA;
    tensor.device.device_id = -1;
    assert_int_equal(sp_tensor_from_dlpack(&view, &tensor), SP_BAD_ARGUMENT);
}

static void check_refused(const DLTensor *tensor, sp_status status, const char *sentence) {
    sp_tensor view, zero = {0};
    memset(&view, 0xff, sizeof view);
    assert_int_equal(sp_tensor_from_dlpack(&view, tensor), status);
    assert_string_equal(sp_last_message(), sentence);
    assert_memory_equal(&view, &zero, sizeof view);
}

static void what_cannot_be_is_refused_in_a_sentence(void **state) {
    (void)state;
    DLTensor tensor = whole();
    check_refused(NULL, SP_BAD_ARGUMENT, "the DLPack tensor is NULL");
    tensor.dtype.lanes = 4;
    check_refused(&tensor, SP_UNSUPPORTED, "the DLPack tensor has 4 lanes to a number, not 1");
    tensor = whole(), tensor.ndim = 7;
    check_refused(&tensor, SP_UNSUPPORTED, "the DLPack tensor has 7 dimensions, more than 6");
    tensor = whole(), tensor.ndim = -1;
    check_refused(&tensor, SP_BAD_ARGUMENT, "the DLPack tensor has -1 dimensions");
    tensor = whole(), tensor.shape = NULL;
    check_refused(&tensor, SP_BAD_ARGUMENT, "the DLPack tensor has 3 dimensions and no shape");
    tensor = whole(), tensor.data = NULL;
    check_refused(&tensor, SP_BAD_ARGUMENT, "the DLPack tensor has no data");
    tensor = whole(), tensor.byte_offset = 2;
    check_refused(&tensor, SP_UNSUPPORTED, "the DLPack tensor's numbers are not at multiples of their 4 bytes");
    int64_t huge[3] = {INT64_MAX / 2, 3, 1}, negative[3] = {2, -3, 4};
    tensor = whole(), tensor.shape = huge;
    check_refused(&tensor, SP_BAD_ARGUMENT, "the DLPack tensor is too large to count");
    tensor = whole(), tensor.shape = negative;
    check_refused(&tensor, SP_BAD_ARGUMENT, "the DLPack tensor has a dimension of -3");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strides_that_are_not_given_are_row_major),
        cmocka_unit_test(strides_and_offset_are_taken_over),
        cmocka_unit_test(scalar_and_empty_tensors_are_views_too),
        cmocka_unit_test(each_kind_of_number_is_found),
        cmocka_unit_test(devices_are_host_memory_or_cuda),
        cmocka_unit_test(what_cannot_be_is_refused_in_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

static void dlpack_header_is_not_installed(void **state) {
    (void)state;
    skip();
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(dlpack_header_is_not_installed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
