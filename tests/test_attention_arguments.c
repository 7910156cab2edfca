/* Every wrong argument is refused, with a sentence that names it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_case.h"
#include "base/status.h"

static const attention_shape shape = {
    .B = 2, .T = 4, .S = 4, .H = 4, .Hkv = 2, .D = 8, .Dv = 8, .causal = true, .lambda = 1, .eps = 1e-6f, .spread = 1};

static const int64_t bad_lengths[] = {4, 5}, falling[] = {0, 3, 2, 4}, late[] = {1, 4}, short_[] = {0, 3},
                     whole[] = {0, 4};

static void wrong_struct(sp_attention *p) { p->struct_bytes = 8; }
static void wrong_dims(sp_attention *p) { p->k.n_dims = 3; }
static void wrong_dtype(sp_attention *p) { p->v.dtype = SP_DTYPE_BF16; }
static void no_such_dtype(sp_attention *p) { p->q.dtype = SP_DTYPE_I32; }
static void wrong_device(sp_attention *p) { p->out.device = 1; }
static void negative_shape(sp_attention *p) { p->k.shape[1] = -1; }
static void huge_shape(sp_attention *p) { p->q.shape[0] = p->q.shape[1] = INT64_MAX / 4; }
static void wrong_stride(sp_attention *p) { p->v.stride[3] = 2; }
static void no_data(sp_attention *p) { p->k.data = NULL; }
static void no_channels(sp_attention *p) { p->q.shape[3] = p->k.shape[3] = 0; }
static void wrong_heads(sp_attention *p) { p->k.shape[2] = p->v.shape[2] = 3; }
static void no_key_heads(sp_attention *p) { p->k.shape[2] = p->v.shape[2] = 0; }
static void wrong_batch(sp_attention *p) { p->k.shape[0] = 1; }
static void wrong_width(sp_attention *p) { p->k.shape[3] = 4; }
static void wrong_values(sp_attention *p) { p->v.shape[1] = 3; }
static void wrong_out(sp_attention *p) { p->out.shape[3] = 7; }
static void wrong_normalizer(sp_attention *p) { p->normalizer = SP_NORMALIZER_COUNT; }
static void wrong_scale(sp_attention *p) { p->scale = NAN; }
static void wrong_lambda(sp_attention *p) { p->lambda = -1; }
static void wrong_eps(sp_attention *p) { p->eps = -1e-6f; }
static void no_sink(sp_attention *p) { p->normalizer = SP_NORMALIZER_SOFTMAX_SINK, p->sink = NULL; }
static void wrong_window(sp_attention *p) { p->window = -2; }
static void wrong_lengths(sp_attention *p) { p->key_lengths = bad_lengths; }
static void cu_k_alone(sp_attention *p) { p->cu_k = whole; }
static void packed_batch(sp_attention *p) { p->cu_q = whole, p->n_sequences = 1; }
static void one_batch(sp_attention *p) {
    p->q.shape[0] = p->k.shape[0] = p->v.shape[0] = p->out.shape[0] = 1;
    p->dout.shape[0] = p->dq.shape[0] = p->dk.shape[0] = p->dv.shape[0] = 1;
}
static void packed_lengths(sp_attention *p) {
    one_batch(p);
    p->cu_q = whole, p->n_sequences = 1, p->key_lengths = bad_lengths;
}
static void packed_count(sp_attention *p) { one_batch(p), p->cu_q = whole, p->n_sequences = -1; }
static void starts_fall(sp_attention *p) { one_batch(p), p->cu_q = falling, p->n_sequences = 3; }
static void starts_late(sp_attention *p) { one_batch(p), p->cu_q = late, p->n_sequences = 1; }
static void starts_short(sp_attention *p) { one_batch(p), p->cu_q = whole, p->cu_k = short_, p->n_sequences = 1; }
static void no_lse(sp_attention *p) { p->lse = NULL; }
static void wrong_dout(sp_attention *p) { p->dout.shape[1] = 5; }
static void wrong_dq(sp_attention *p) { p->dq.shape[2] = 2; }
static void wrong_dk(sp_attention *p) { p->dk.dtype = SP_DTYPE_F16; }
static void wrong_dv(sp_attention *p) { p->dv.data = NULL; }
static void dsink_without_sink(sp_attention *p) { p->dsink = p->lse; }
static void factor_gradient_alone(sp_attention *p) { p->drow_factor = p->lse; }

static const struct {
    void (*spoil)(sp_attention *problem);
    bool backward_alone;
    const char *says;
} wrongs[] = {
    {wrong_struct, false, "struct_bytes is 8"},
    {wrong_dims, false, "k has 3 dimensions"},
    {wrong_dtype, false, "v is bf16, q is f32"},
    {no_such_dtype, false, "q is i32"},
    {wrong_device, false, "out is on device 1"},
    {negative_shape, false, "k has a dimension of -1"},
    {huge_shape, false, "q is too large"},
    {wrong_stride, false, "v has a stride of 2"},
    {no_data, false, "k has no data"},
    {no_channels, false, "q has no channels"},
    {wrong_heads, false, "k has 3 heads, q has 4: not a multiple"},
    {no_key_heads, false, "k has 0 heads"},
    {wrong_batch, false, "k is (1,4,2,8), q asks for (2,4,2,8)"},
    {wrong_width, false, "k is (2,4,2,4)"},
    {wrong_values, false, "v is (2,3,2,8)"},
    {wrong_out, false, "out is (2,4,4,7)"},
    {wrong_normalizer, false, "normalizer 5"},
    {wrong_scale, false, "scale is nan"},
    {wrong_lambda, false, "lambda is -1"},
    {wrong_eps, false, "eps is -1e-06"},
    {no_sink, false, "sink is NULL"},
    {wrong_window, false, "window is -2"},
    {wrong_lengths, false, "key_lengths[1] is 5, k has 4"},
    {cu_k_alone, false, "cu_k is given without cu_q"},
    {packed_batch, false, "q has B = 2"},
    {packed_lengths, false, "key_lengths cannot be used with cu_q"},
    {packed_count, false, "n_sequences is -1"},
    {starts_fall, false, "cu_q decreases from 3 to 2 at 2"},
    {starts_late, false, "cu_q[0] is 1"},
    {starts_short, false, "cu_k ends at 3, the tensor has 4"},
    {no_lse, true, "lse is NULL"},
    {wrong_dout, true, "dout is (2,5,4,8), out asks for (2,4,4,8)"},
    {wrong_dq, true, "dq is (2,4,2,8)"},
    {wrong_dk, true, "dk is f16"},
    {wrong_dv, true, "dv has no data"},
    {dsink_without_sink, true, "dsink is given, but softpick has no sink"},
    {factor_gradient_alone, true, "drow_factor is given"},
};

static void refused(sp_status status, const char *says) {
    assert_int_equal(status, SP_BAD_ARGUMENT);
    if (!strstr(sp_last_message(), says)) fail_msg("\"%s\" does not say \"%s\"", sp_last_message(), says);
}

static void each_wrong_argument_is_named(void **state) {
    (void)state;
    static char workspace[64];
    const char *name;
    int64_t bytes;
    for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
        attention_case c;
        case_open(&c, &shape);
        assert_int_equal(sp_attention_choose(&c.problem, SP_ATTENTION_BACKWARD, &name), SP_OK);
        wrongs[i].spoil(&c.problem);
        const char *says = wrongs[i].says;
        refused(sp_attention_workspace(&c.problem, SP_ATTENTION_BACKWARD, 1, &bytes), says);
        refused(sp_attention_backward(&c.problem, workspace, sizeof workspace, 1), says);
        refused(sp_attention_define_backward(&c.problem), says);
        refused(sp_attention_choose(&c.problem, SP_ATTENTION_BACKWARD, &name), says);
        assert_null(name);
        if (!wrongs[i].backward_alone) {
            refused(sp_attention_forward(&c.problem, workspace, sizeof workspace, 1), says);
            refused(sp_attention_define_forward(&c.problem), says);
        }
        case_close(&c);
    }
    refused(sp_attention_forward(NULL, NULL, 0, 1), "the problem is NULL");
}

static void pass_threads_and_workspace_are_checked(void **state) {
    (void)state;
    attention_case c;
    int64_t bytes;
    case_open(&c, &shape);
    refused(sp_attention_workspace(&c.problem, (sp_attention_pass)7, 1, &bytes), "pass 7");
    refused(sp_attention_workspace(&c.problem, SP_ATTENTION_FORWARD, -1, &bytes), "n_threads is -1");
    assert_int_equal(sp_attention_workspace(&c.problem, SP_ATTENTION_FORWARD, 1, &bytes), SP_OK);
    assert_true(bytes > 64);
    char *workspace = case_allocate(bytes + 64);
    refused(sp_attention_forward(&c.problem, workspace, bytes - 1, 1), "workspace has");
    refused(sp_attention_forward(&c.problem, NULL, bytes, 1), "workspace is NULL");
    refused(sp_attention_forward(&c.problem, workspace + 4, bytes, 1), "workspace is not at a multiple of 64");
    assert_int_equal(sp_attention_forward(&c.problem, workspace, bytes, 1), SP_OK);
    free(workspace);
    case_close(&c);
}

static void double_precision_is_left_to_the_definition(void **state) {
    (void)state;
    attention_shape wide = shape;
    const char *name, *why;
    wide.dtype = SP_DTYPE_F64;
    attention_case c;
    case_open(&c, &wide);
    assert_int_equal(sp_attention_choose(&c.problem, SP_ATTENTION_FORWARD, &name), SP_UNSUPPORTED);
    assert_non_null(strstr(sp_last_message(), "f64"));
    assert_false(sp_attention_variant(&c.problem, SP_ATTENTION_FORWARD, 0, &name, &why));
    assert_non_null(name);
    assert_true(strlen(why) > 0);
    assert_int_equal(sp_attention_define_forward(&c.problem), SP_OK);
    case_close(&c);
}

static void normalizer_names_go_both_ways(void **state) {
    (void)state;
    sp_normalizer found;
    for (int i = 0; i < SP_NORMALIZER_COUNT; i++) {
        assert_int_equal(sp_normalizer_find(&found, sp_normalizer_name((sp_normalizer)i)), SP_OK);
        assert_int_equal(found, i);
    }
    assert_string_equal(sp_normalizer_name((sp_normalizer)99), "?");
    refused(sp_normalizer_find(&found, "softmix"), "\"softmix\": it can be softpick, softmax, softmax_plus_one");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_wrong_argument_is_named),
        cmocka_unit_test(pass_threads_and_workspace_are_checked),
        cmocka_unit_test(double_precision_is_left_to_the_definition),
        cmocka_unit_test(normalizer_names_go_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
