/* Models of llama2.c as checkpoints: all versions are read, two are written, and nothing that its programs would run
 * differently. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "checkpoint/llama2c_model.h"
#include "checkpoint_support.h"
#include "llama_fixture.h"
#include "softpick/model.h"

/* ---- round trips ------------------------------------------------------------------------------------------------ */

static void version_0_comes_back_bit_for_bit(void **state) {
    static llama_fixture fixture;
    for (int tied = 0; tied < 2; tied++) {
        const char *path = path_in(*state, tied ? "tied.bin" : "free.bin");
        sp_checkpoint *checkpoint;
        sp_model_config config;
        make_fixture(&fixture, "llama", tied, "");
        sp_checkpoint_content content = fixture_content(&fixture);
        assert_int_equal(sp_checkpoint_write_llama2c(path, &content, "f32"), SP_OK);
        assert_int_equal(sp_checkpoint_write_llama2c(path, &content, "f32"), SP_BAD_ARGUMENT); /* exists */
        assert_int_equal(sp_checkpoint_open(&checkpoint, path), SP_OK);
        assert_int_equal(sp_checkpoint_count(checkpoint), fixture.n);
        for (int64_t i = 0; i < fixture.n; i++)
            assert_true(fixture_difference(&fixture, i, sp_checkpoint_find(checkpoint, fixture.names[i])) == 0);
        assert_int_equal(sp_model_config_parse(&config, sp_checkpoint_config(checkpoint), path), SP_OK);
        assert_true(config.tie_embeddings == (bool)tied && config.eos == 2 && config.more_eos[0] == 1);
        sp_checkpoint_close(checkpoint);
        free_fixture(&fixture);
    }
}

static void version_2_comes_back_within_half_a_step(void **state) {
    static llama_fixture fixture;
    const char *path = path_in(*state, "codes.bin");
    sp_checkpoint *checkpoint;
    make_fixture(&fixture, "llama", false, "");
    sp_checkpoint_content content = fixture_content(&fixture);
    assert_int_equal(sp_checkpoint_write_llama2c(path, &content, "q8_0"), SP_OK);
    assert_int_equal(sp_checkpoint_open(&checkpoint, path), SP_OK);
    for (int64_t i = 0; i < fixture.n; i++) {
        bool is_norm = strstr(fixture.names[i], "norm") != NULL;
        float worst = fixture_difference(&fixture, i, sp_checkpoint_find(checkpoint, fixture.names[i]));
        assert_true(is_norm ? worst == 0 : worst > 0 && worst < 5.0f / 254 + 1e-6f);
    }
    sp_checkpoint_close(checkpoint);
    free_fixture(&fixture);
}

/* By hand, as nothing here writes it: 256 bytes of head, then the parts. */
static void version_1_is_read(void **state) {
    static llama_fixture fixture;
    static uint8_t bytes[1 << 20];
    const char *path = path_in(*state, "one.bin");
    sp_checkpoint *checkpoint;
    make_fixture(&fixture, "llama", true, "");
    const int32_t head[] = {SP_LLAMA2C_MAGIC, 1, FIX_C, FIX_F, FIX_L, FIX_H, FIX_KV, FIX_V, FIX_T};
    memcpy(bytes, head, sizeof head);
    bytes[36] = 1;
    int64_t at = SP_LLAMA2C_HEAD_BYTES;
    static const char *const order[] = {"input_layernorm", "post_attention_layernorm",
                                        "model.norm",      "embed_tokens",
                                        "q_proj",          "k_proj",
                                        "v_proj",          "o_proj",
                                        "gate_proj",       "down_proj",
                                        "up_proj"};
    for (size_t part = 0; part < sizeof order / sizeof *order; part++)
        for (int64_t i = 0; i < fixture.n; i++) {
            const sp_tensor *tensor = &fixture.tensors[i].tensor;
            if (!strstr(fixture.names[i], order[part])) continue;
            memcpy(bytes + at, tensor->data, (size_t)bytes_of(tensor));
            at += bytes_of(tensor);
        }
    assert_int_equal(sp_file_write(path, bytes, at), SP_OK);
    assert_int_equal(sp_checkpoint_open(&checkpoint, path), SP_OK);
    for (int64_t i = 0; i < fixture.n; i++) {
        const sp_tensor *tensor = sp_checkpoint_find(checkpoint, fixture.names[i]);
        bool rotary = strstr(fixture.names[i], "q_proj") || strstr(fixture.names[i], "k_proj");
        if (!rotary) assert_true(fixture_difference(&fixture, i, tensor) == 0);
        /* row 1 of the file pairs with row 0: it begins the second half */
        const float *stored = fixture.tensors[i].tensor.data, *seen = tensor->data;
        if (rotary) assert_memory_equal(seen + FIX_D / 2 * FIX_C, stored + FIX_C, FIX_C * sizeof *seen);
    }
    sp_checkpoint_close(checkpoint);
    free_fixture(&fixture);
}

static void pieces_stand_in_the_tokenizer_as_its_programs_want_them(void **state) {
    const char *path = path_in(*state, "tokenizer.bin");
    static const char expected[] = "\6\0\0\0"
                                   "\0\0\0\0\5\0\0\0\n<s>\n"
                                   "\0\0\x80\xbf\3\0\0\0 a "
                                   "\0\0\0\xc0\6\0\0\0<0x0A>"
                                   "\0\0\0\0\6\0\0\0\n</s>\n";
    char *text;
    int64_t n;
    assert_int_equal(sp_checkpoint_write_llama2c_tokenizer(
                         path, "{\"tokenizer.ggml.model\":\"llama\",\"tokenizer.ggml.tokens\":"
                               "[\"<s>\",\"\xe2\x96\x81"
                               "a\xe2\x96\x81\",\"<0x0A>\",\"</s>\"],"
                               "\"tokenizer.ggml.scores\":[0.0,-1.0,-2.0,0.0],\"tokenizer.ggml.bos_token_id\":0,"
                               "\"tokenizer.ggml.eos_token_id\":3}"),
                     SP_OK);
    assert_int_equal(sp_file_read(path, &text, &n), SP_OK);
    assert_int_equal(n, sizeof expected - 1);
    assert_memory_equal(text, expected, sizeof expected - 1);
    free(text);
    assert_int_equal(sp_checkpoint_write_llama2c_tokenizer(path, "{\"tokenizer.ggml.model\":\"gpt2\"}"),
                     SP_UNSUPPORTED);
}

/* ---- refusals --------------------------------------------------------------------------------------------------- */

static void models_that_its_programs_would_run_differently_are_refused(void **state) {
    static const struct {
        const char *type, *extra, *message;
    } cases[] = {
        {"softpick_llama", ",\"attention_function\":\"softpick\"", "attention is softpick"},
        {"softpick_llama", ",\"attention_function\":\"softmax\",\"attention_row_factor\":true", "softpick_llama"},
        {"qwen2", "", "a model of type qwen2"},
        {"llama", ",\"attention_bias\":true", "attention_bias"},
        {"llama", ",\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2.0}", "rope_scaling"},
        {"llama", ",\"sliding_window\":8", "sliding_window"},
    };
    static llama_fixture fixture;
    const char *path = path_in(*state, "refused.bin");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        make_fixture(&fixture, cases[i].type, true, cases[i].extra);
        sp_checkpoint_content content = fixture_content(&fixture);
        assert_int_equal(sp_checkpoint_write_llama2c(path, &content, "f32"), SP_UNSUPPORTED);
        if (!strstr(sp_last_message(), cases[i].message)) fail_msg("\"%s\"", sp_last_message());
        assert_false(sp_file_exists(path));
        free_fixture(&fixture);
    }
    make_fixture(&fixture, "llama", true, "");
    char *eps = strstr(fixture.config, "1e-05");
    memcpy(eps, "1e-06", 5);
    sp_checkpoint_content content = fixture_content(&fixture);
    assert_int_equal(sp_checkpoint_write_llama2c(path, &content, "f32"), SP_UNSUPPORTED);
    assert_int_equal(sp_checkpoint_write_llama2c(path, &content, "bf16"), SP_BAD_ARGUMENT);
    free_fixture(&fixture);
}

static void tensors_that_do_not_fit_leave_no_file(void **state) {
    static llama_fixture fixture;
    const char *path = path_in(*state, "short.bin");
    make_fixture(&fixture, "llama", true, "");
    fixture.tensors[3].tensor.shape[0]--;
    sp_checkpoint_content content = fixture_content(&fixture);
    assert_int_equal(sp_checkpoint_write_llama2c(path, &content, "f32"), SP_BAD_ARGUMENT);
    assert_non_null(strstr(sp_last_message(), "k_proj"));
    fixture.tensors[3].tensor.shape[0]++;
    content.n_tensors--;
    assert_int_equal(sp_checkpoint_write_llama2c(path, &content, "f32"), SP_BAD_ARGUMENT);
    assert_non_null(strstr(sp_last_message(), "model.norm.weight is missing"));
    assert_false(sp_file_exists(path));
    free_fixture(&fixture);
}

static void expect_refused(const char *path, const void *bytes, int64_t n, const char *message) {
    sp_checkpoint *checkpoint;
    assert_int_equal(sp_file_write(path, bytes, n), SP_OK);
    sp_status status = sp_checkpoint_open(&checkpoint, path);
    assert_true(status == SP_BAD_FILE || status == SP_UNSUPPORTED || status == SP_VERSION);
    assert_null(checkpoint);
    if (!strstr(sp_last_message(), message)) fail_msg("\"%s\" does not say \"%s\"", sp_last_message(), message);
}

static void files_of_another_length_are_refused(void **state) {
    static llama_fixture fixture;
    const char *path = path_in(*state, "whole.bin"), *other = path_in(*state, "other.bin");
    for (int k = 0; k < 2; k++) {
        char *bytes;
        int64_t n;
        make_fixture(&fixture, "llama", false, "");
        sp_checkpoint_content content = fixture_content(&fixture);
        content.replace = true;
        assert_int_equal(sp_checkpoint_write_llama2c(path, &content, k ? "q8_0" : "f32"), SP_OK);
        assert_int_equal(sp_file_read(path, &bytes, &n), SP_OK);
        expect_refused(other, bytes, n - 1, "a llama2.c model of these sizes has");
        expect_refused(other, bytes, n / 2, "a llama2.c model of these sizes has");
        expect_refused(other, bytes, 20, "too short for a model of llama2.c");
        expect_refused(other, bytes, 0, "too short for a model of llama2.c");
        free(bytes);
        free_fixture(&fixture);
    }
}

static void wrong_heads_are_refused(void **state) {
    const char *path = path_in(*state, "head.bin");
    static const int32_t good[] = {64, 96, 2, 4, 2, 11, 128};
    static const struct {
        int at;
        int32_t value;
        const char *message;
    } cases[] = {
        {0, 0, "dim would be 0"},        {0, 66, "do not divide"},        {1, -5, "hidden_dim would be -5"},
        {2, 1 << 30, "n_layers"},        {3, 3, "do not divide"},         {4, 3, "do not divide"},
        {4, 0, "n_kv_heads would be 0"}, {5, 0, "vocab_size would be 0"}, {6, -1, "max_seq_len would be -1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t head[7];
        memcpy(head, good, sizeof head);
        head[cases[i].at] = cases[i].value;
        expect_refused(path, head, sizeof head, cases[i].message);
        uint8_t newer[SP_LLAMA2C_HEAD_BYTES] = {0};
        memcpy(newer, (int32_t[]){SP_LLAMA2C_MAGIC, 2}, 8);
        memcpy(newer + 8, head, sizeof head);
        memcpy(newer + 37, &(int32_t){64}, 4);
        expect_refused(path, newer, sizeof newer, cases[i].message);
    }
    uint8_t newer[SP_LLAMA2C_HEAD_BYTES] = {0};
    memcpy(newer, (int32_t[]){SP_LLAMA2C_MAGIC, 3}, 8);
    expect_refused(path, newer, sizeof newer, "version 3");
    memcpy(newer, (int32_t[]){SP_LLAMA2C_MAGIC, 2}, 8);
    memcpy(newer + 8, good, sizeof good);
    expect_refused(path, newer, sizeof newer, "a group of 0 numbers");
    memcpy(newer + 37, &(int32_t){7}, 4);
    expect_refused(path, newer, sizeof newer, "is not whole groups of 7 numbers");
    expect_refused(path, newer, 100, "too short");
}

static void pickles_are_refused_with_the_way_out(void **state) {
    const char *path = path_in(*state, "consolidated.00.pth");
    expect_refused(path, "PK\3\4 and so on, a file of many bytes", 36, "safetensors.torch.save_file");
    expect_refused(path, "\x80\x02\x8a\x0a and so on, a file of many bytes", 36, "weights_only=True");
}

/* ---- a real file ------------------------------------------------------------------------------------------------ */

static void real_model_is_the_one_of_hugging_face(void **state) {
    (void)state;
    char path[8192];
    snprintf(path, sizeof path, "%s", data_path("ckpt/stories260K.bin"));
    if (!sp_file_exists(path)) skip();
    sp_checkpoint *ours, *theirs;
    assert_int_equal(sp_checkpoint_open(&ours, path), SP_OK);
    assert_int_equal(sp_checkpoint_open(&theirs, data_path("ckpt/stories260K-hf")), SP_OK);
    assert_int_equal(sp_checkpoint_count(ours), sp_checkpoint_count(theirs));
    for (int64_t i = 0; i < sp_checkpoint_count(ours); i++) {
        const sp_tensor *a = sp_checkpoint_tensor(ours, i),
                        *b = sp_checkpoint_find(theirs, sp_checkpoint_name(ours, i));
        assert_true(b && a->dtype == b->dtype && bytes_of(a) == bytes_of(b));
        assert_memory_equal(a->data, b->data, (size_t)bytes_of(a));
    }
    sp_checkpoint_close(ours);
    sp_checkpoint_close(theirs);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(version_0_comes_back_bit_for_bit, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(version_1_is_read, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(version_2_comes_back_within_half_a_step, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(pieces_stand_in_the_tokenizer_as_its_programs_want_them, make_scratch,
                                        remove_scratch),
        cmocka_unit_test_setup_teardown(models_that_its_programs_would_run_differently_are_refused, make_scratch,
                                        remove_scratch),
        cmocka_unit_test_setup_teardown(tensors_that_do_not_fit_leave_no_file, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(files_of_another_length_are_refused, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(wrong_heads_are_refused, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(pickles_are_refused_with_the_way_out, make_scratch, remove_scratch),
        cmocka_unit_test(real_model_is_the_one_of_hugging_face),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
