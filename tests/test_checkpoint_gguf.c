/* GGUF files of LLaMA's kind as checkpoints: what is written is read back, and what cannot be meant is refused by name. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "base/json.h"
#include "checkpoint/gguf_model.h"
#include "checkpoint_support.h"
#include "formats/gguf.h"
#include "gguf_support.h"
#include "llama_fixture.h"
#include "softpick/model.h"

/* ---- round trips ------------------------------------------------------------------------------------------------ */

static void write_and_open(sp_checkpoint **checkpoint, const char *path, const llama_fixture *fixture,
                           const char *format, const char *vocabulary) {
    sp_checkpoint_content content = fixture_content(fixture);
    assert_int_equal(sp_checkpoint_write_gguf(path, &content, format, vocabulary), SP_OK);
    assert_int_equal(sp_checkpoint_open(checkpoint, path), SP_OK);
}

static void f32_comes_back_bit_for_bit(void **state) {
    static llama_fixture fixture;
    for (int tied = 0; tied < 2; tied++) {
        const char *path = path_in(*state, tied ? "tied.gguf" : "free.gguf");
        sp_checkpoint *checkpoint;
        make_fixture(&fixture, "llama", tied, "");
        write_and_open(&checkpoint, path, &fixture, "f32", NULL);
        assert_int_equal(sp_checkpoint_count(checkpoint), fixture.n);
        for (int64_t i = 0; i < fixture.n; i++)
            assert_true(fixture_difference(&fixture, i, sp_checkpoint_find(checkpoint, fixture.names[i])) == 0);
        sp_model_config config;
        assert_int_equal(sp_model_config_parse(&config, sp_checkpoint_config(checkpoint), path), SP_OK);
        assert_true(config.n_heads == FIX_H && config.n_kv_heads == FIX_KV && config.head_width == FIX_D);
        assert_true(config.max_positions == FIX_T && config.tie_embeddings == (bool)tied);
        assert_true(fabs(config.norm_eps - 1e-5) < 1e-12 && fabs(config.rope_theta - 10000) < 1e-9);
        assert_int_equal(config.attention_function, SP_NORMALIZER_SOFTMAX);
        sp_checkpoint_close(checkpoint);
        free_fixture(&fixture);
    }
}

static void other_formats_come_back_as_near_as_they_can(void **state) {
    static llama_fixture fixture;
    static const struct {
        const char *name;
        double bound;
    } formats[] = {{"f16", 4.0 / 2048}, {"bf16", 4.0 / 256}, {"q8_0", 5.0 / 254 + 0.005}};
    make_fixture(&fixture, "llama", false, "");
    for (int k = 0; k < 3; k++) {
        const char *path = path_in(*state, formats[k].name);
        sp_checkpoint_content content = fixture_content(&fixture);
        sp_gguf *file;
        float numbers[FIX_C];
        assert_int_equal(sp_checkpoint_write_gguf(path, &content, formats[k].name, NULL), SP_OK);
        assert_int_equal(sp_gguf_open(&file, path), SP_OK);
        const sp_gguf_tensor *head = sp_gguf_find_tensor(file, "output.weight");
        assert_ptr_equal(head->format, sp_block_format_find(formats[k].name));
        head->format->read(numbers, head->data, FIX_C / head->format->items);
        const float *own = fixture.tensors[fixture.n - 1].tensor.data;
        for (int i = 0; i < FIX_C; i++) assert_true(fabsf(numbers[i] - own[i]) <= formats[k].bound);
        assert_string_equal(sp_gguf_find_tensor(file, "output_norm.weight")->format->name, "F32");
        sp_gguf_close(file);
    }
    free_fixture(&fixture);
}

static void blocks_are_seen_as_f32_in_the_order_of_llama(void **state) {
    static llama_fixture fixture;
    sp_checkpoint *checkpoint;
    make_fixture(&fixture, "llama", true, "");
    write_and_open(&checkpoint, path_in(*state, "q8.gguf"), &fixture, "q8_0", NULL);
    for (int64_t i = 0; i < fixture.n; i++)
        assert_true(fixture_difference(&fixture, i, sp_checkpoint_find(checkpoint, fixture.names[i])) < 0.025f);
    sp_checkpoint_close(checkpoint);
    free_fixture(&fixture);
}

static void rotary_pairs_are_neighbours_in_llama_and_halves_in_our_own(void **state) {
    static llama_fixture fixture;
    static const struct {
        const char *type, *extra, *architecture;
        int64_t second; /* row of ours that is the second in the file */
    } cases[] = {
        {"llama", "", "llama", FIX_D / 2},
        {"softpick_llama", ",\"attention_function\":\"softpick\",\"softpick_eps\":1e-6", "softpick-llama", 1},
    };
    for (int k = 0; k < 2; k++) {
        const char *path = path_in(*state, cases[k].architecture), *architecture = NULL;
        sp_gguf *file;
        make_fixture(&fixture, cases[k].type, true, cases[k].extra);
        sp_checkpoint_content content = fixture_content(&fixture);
        assert_int_equal(sp_checkpoint_write_gguf(path, &content, "f32", NULL), SP_OK);
        assert_int_equal(sp_gguf_open(&file, path), SP_OK);
        assert_int_equal(sp_gguf_text(file, "general.architecture", &architecture), SP_OK);
        assert_string_equal(architecture, cases[k].architecture);
        const float *ours = fixture.tensors[2].tensor.data;
        const uint8_t *theirs = sp_gguf_find_tensor(file, "blk.0.attn_q.weight")->data;
        assert_memory_equal(theirs, ours, FIX_C * sizeof *ours);
        assert_memory_equal(theirs + FIX_C * sizeof *ours, ours + cases[k].second * FIX_C, FIX_C * sizeof *ours);
        sp_gguf_close(file);
        free_fixture(&fixture);
    }
}

static void softpick_keeps_its_attention(void **state) {
    static llama_fixture fixture;
    sp_checkpoint *checkpoint;
    sp_model_config config;
    make_fixture(&fixture, "softpick_llama", false,
                 ",\"attention_function\":\"softpick\",\"softpick_eps\":1e-4,\"softpick_lambda\":0.5,"
                 "\"sliding_window\":17,\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2.5}");
    write_and_open(&checkpoint, path_in(*state, "softpick.gguf"), &fixture, "f32", NULL);
    assert_int_equal(sp_model_config_parse(&config, sp_checkpoint_config(checkpoint), "gguf"), SP_OK);
    assert_int_equal(config.attention_function, SP_NORMALIZER_SOFTPICK);
    assert_true(fabs(config.softpick_eps - 1e-4) < 1e-12 && fabs(config.softpick_lambda - 0.5) < 1e-12);
    assert_true(config.window == 17 && config.rope_scaling == SP_ROPE_SCALING_LINEAR);
    assert_true(fabs(config.rope_factor - 2.5) < 1e-12);
    for (int64_t i = 0; i < fixture.n; i++)
        assert_true(fixture_difference(&fixture, i, sp_checkpoint_find(checkpoint, fixture.names[i])) == 0);
    sp_checkpoint_close(checkpoint);
    free_fixture(&fixture);
}

static void scaling_of_llama_3_travels_as_divisors(void **state) {
    static const struct {
        double factor, low, high, original;
    } cases[] = {{8, 1, 4, 8192}, {32, 1, 4, 8192}, {8, 1, 4, 64}, {4, 2, 16, 512}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        enum { N = 32 };
        float divisors[N], again[N];
        json_t *back, *scaling = json_pack("{s:f, s:f, s:f, s:f}", "factor", cases[k].factor, "low_freq_factor",
                                           cases[k].low, "high_freq_factor", cases[k].high,
                                           "original_max_position_embeddings", cases[k].original);
        sp_rope_divisors(divisors, N, 500000, scaling);
        assert_true(divisors[0] == 1 && divisors[N - 1] == (float)cases[k].factor);
        assert_int_equal(sp_rope_divisors_to_json(&back, divisors, N, 500000, "file"), SP_OK);
        sp_rope_divisors(again, N, 500000, back);
        for (int i = 0; i < N; i++) assert_true(fabsf(again[i] - divisors[i]) <= 2e-5f * divisors[i]);
        json_decref(back);
        divisors[N / 2] += 0.3f;
        assert_int_equal(sp_rope_divisors_to_json(&back, divisors, N, 500000, "file"), SP_UNSUPPORTED);
        json_decref(scaling);
    }
    static llama_fixture fixture;
    sp_checkpoint *checkpoint;
    sp_model_config config;
    make_fixture(&fixture, "llama", true,
                 ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
                 "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}");
    write_and_open(&checkpoint, path_in(*state, "llama3.gguf"), &fixture, "f32", NULL);
    assert_int_equal(sp_model_config_parse(&config, sp_checkpoint_config(checkpoint), "gguf"), SP_OK);
    assert_true(config.rope_scaling == SP_ROPE_SCALING_LLAMA3 && config.rope_original_positions == 8192);
    sp_checkpoint_close(checkpoint);
    free_fixture(&fixture);
}

static void vocabularies_become_keys(void **state) {
    static llama_fixture fixture;
    const char *path = path_in(*state, "vocabulary.gguf");
    sp_gguf *file;
    make_fixture(&fixture, "llama", true, "");
    sp_checkpoint_content content = fixture_content(&fixture);
    assert_int_equal(sp_checkpoint_write_gguf(path, &content, "f32",
                                              "{\"t.model\":\"llama\",\"t.tokens\":[\"a\",\"\xe2\x96\x81\"],"
                                              "\"t.scores\":[0.0,-1.5],\"t.types\":[3,1],\"t.bos\":1,\"t.add\":false}"),
                     SP_OK);
    assert_int_equal(sp_checkpoint_write_gguf(path, &content, "f32", NULL), SP_BAD_ARGUMENT); /* exists */
    assert_int_equal(sp_gguf_open(&file, path), SP_OK);
    assert_int_equal(sp_gguf_find(file, "t.tokens")->kind, SP_GGUF_STRING);
    assert_int_equal(sp_gguf_find(file, "t.scores")->kind, SP_GGUF_F32);
    assert_int_equal(sp_gguf_find(file, "t.types")->kind, SP_GGUF_I32);
    assert_int_equal(sp_gguf_find(file, "t.bos")->kind, SP_GGUF_U32);
    assert_int_equal(sp_gguf_find(file, "t.add")->kind, SP_GGUF_BOOL);
    sp_gguf_close(file);
    free_fixture(&fixture);
}

static double number_of(const sp_tensor *tensor, int64_t i) {
    float number;
    sp_block_format_of(tensor->dtype)
        ->read(&number, (const uint8_t *)tensor->data + i * sp_dtype_bytes(tensor->dtype), 1);
    return number;
}

/* A file by the package of llama.cpp, and what that sees in it (vectors/gguf/make_gguf.py). */
static void numbers_are_those_that_llama_cpp_sees(void **state) {
    (void)state;
    json_t *seen, *row;
    const char *name;
    sp_checkpoint *checkpoint;
    assert_int_equal(sp_json_read(&seen, source_path("tests/vectors/gguf/mixed.json")), SP_OK);
    assert_int_equal(sp_checkpoint_open(&checkpoint, source_path("tests/vectors/gguf/mixed.gguf")), SP_OK);
    assert_int_equal(sp_checkpoint_count(checkpoint), json_object_size(seen));
    json_object_foreach(seen, name, row) {
        const sp_tensor *tensor = sp_checkpoint_find(checkpoint, name);
        assert_non_null(tensor);
        double sum = 0, expected = json_number_value(json_object_get(row, "sum"));
        for (int64_t i = 0; i < sp_tensor_count(tensor); i++) sum += number_of(tensor, i) * (double)(1 + i % 13);
        assert_true(fabs(sum - expected) <= 1e-9 * (1 + fabs(expected)));
        for (int64_t i = 0; i < 3; i++) {
            double first = json_number_value(json_array_get(json_object_get(row, "first"), (size_t)i));
            assert_true(fabs(number_of(tensor, i) - first) <= 1e-12);
        }
    }
    json_decref(seen);
    sp_checkpoint_close(checkpoint);
}

/* ---- refusals --------------------------------------------------------------------------------------------------- */

/* A LLaMA of one layer, width 8, two heads; `extra` keys and tensors come after. */
typedef struct small_model {
    const char *architecture;
    const char *without; /* a key that is left out */
    const char *key;     /* an added u32 key */
    uint32_t value;
    const char *text_key, *text;
    const char *tensor; /* an added tensor of four numbers */
} small_model;

static void make_small(gguf_bytes *to, const small_model *model) {
    static const struct {
        const char *key;
        uint32_t value;
    } keys[] = {{"context_length", 32},      {"embedding_length", 8},      {"block_count", 1},
                {"feed_forward_length", 16}, {"attention.head_count", 2},  {"attention.head_count_kv", 1},
                {"rope.dimension_count", 4}, {"attention.value_length", 4}};
    static const struct {
        const char *name;
        int64_t first, second;
    } tensors[] = {
        {"token_embd.weight", 8, 5},      {"blk.0.attn_norm.weight", 8, 0}, {"blk.0.attn_q.weight", 8, 8},
        {"blk.0.attn_k.weight", 8, 4},    {"blk.0.attn_v.weight", 8, 4},    {"blk.0.attn_output.weight", 8, 8},
        {"blk.0.ffn_norm.weight", 8, 0},  {"blk.0.ffn_gate.weight", 8, 16}, {"blk.0.ffn_up.weight", 8, 16},
        {"blk.0.ffn_down.weight", 16, 8}, {"output_norm.weight", 8, 0}};
    enum { N_KEYS = sizeof keys / sizeof *keys, N_TENSORS = sizeof tensors / sizeof *tensors };
    const char *architecture = model->architecture ? model->architecture : "llama";
    *to = (gguf_bytes){0};
    put_head(to, 3, N_TENSORS + (model->tensor != NULL),
             2 + N_KEYS - (model->without != NULL) + (model->key != NULL) + (model->text_key != NULL));
    put_key_text(to, "general.architecture", architecture);
    char key[80];
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", architecture);
    put_key(to, key, 6);
    put_f32(to, 1e-5f);
    for (int i = 0; i < N_KEYS; i++) {
        if (model->without && strcmp(model->without, keys[i].key) == 0) continue;
        snprintf(key, sizeof key, "%s.%s", architecture, keys[i].key);
        put_key_u32(to, key, keys[i].value);
    }
    if (model->key) put_key_u32(to, model->key, model->value);
    if (model->text_key) put_key_text(to, model->text_key, model->text);
    uint64_t offset = 0;
    for (int i = 0; i < N_TENSORS; i++) {
        put_tensor(to, tensors[i].name, tensors[i].first, tensors[i].second, 0, offset);
        offset += (uint64_t)(tensors[i].first * (tensors[i].second ? tensors[i].second : 1) * 4 + 31) / 32 * 32;
    }
    if (model->tensor) put_tensor(to, model->tensor, 4, 0, 0, offset);
    pad_to(to, 32);
    for (uint64_t i = 0; i < offset / 4 + 8; i++) put_f32(to, (float)i);
}

static sp_status open_small(const char *path, const small_model *model) {
    static gguf_bytes bytes;
    sp_checkpoint *checkpoint;
    sp_model_config config;
    make_small(&bytes, model);
    assert_int_equal(sp_file_write(path, bytes.data, bytes.n), SP_OK);
    sp_status status = sp_checkpoint_open(&checkpoint, path);
    if (status != SP_OK) assert_null(checkpoint);
    if (status == SP_OK) status = sp_model_config_parse(&config, sp_checkpoint_config(checkpoint), path);
    sp_checkpoint_close(checkpoint);
    return status;
}

static void what_cannot_be_meant_is_refused_by_name(void **state) {
    const char *path = path_in(*state, "small.gguf");
    static const struct {
        small_model model;
        sp_status status;
        const char *message;
    } cases[] = {
        {{.architecture = "gemma"}, SP_UNSUPPORTED, "general.architecture is gemma: llama, qwen2"},
        {{.without = "block_count"}, SP_BAD_FILE, "key llama.block_count is missing"},
        {{.key = "llama.logit_scale", .value = 1}, SP_UNSUPPORTED, "unknown key llama.logit_scale"},
        {{.key = "llama.attention.sliding_window", .value = 1}, SP_UNSUPPORTED, "unknown key llama.attention.sliding"},
        {{.key = "llama.expert_count", .value = 8}, SP_UNSUPPORTED, "llama.expert_count is 8: mixtures of experts"},
        {{.key = "split.count", .value = 3}, SP_UNSUPPORTED, "one of 3 parts"},
        {{.key = "llama.vocab_size", .value = 6},
         SP_BAD_FILE,
         "token_embd.weight has 5 rows, the key vocab_size says 6"},
        {{.key = "llama.attention.key_length", .value = 6}, SP_UNSUPPORTED, "heads whose keys, values and rotations"},
        {{.text_key = "llama.rope.scaling.type", .text = "yarn"}, SP_UNSUPPORTED, "is yarn: none and linear"},
        {{.tensor = "blk.0.ffn_gate_exps.weight"},
         SP_UNSUPPORTED,
         "tensor blk.0.ffn_gate_exps.weight: a LLaMA has none"},
        {{.tensor = "rope_freqs.weight"}, SP_BAD_FILE, "rope_freqs.weight is not 2 numbers"},
        {{.architecture = "softpick-llama"}, SP_BAD_FILE, "key softpick-llama.attention.function is missing"},
        {{.architecture = "softpick-llama", .text_key = "softpick-llama.attention.function", .text = "hardmax"},
         SP_BAD_FILE,
         "no such normalizer"},
    };
    assert_int_equal(open_small(path, &(small_model){0}), SP_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sp_status status = open_small(path, &cases[i].model);
        if (!*cases[i].message)
            continue; /* opens, with as many heads of keys as of queries: the model refuses shapes */
        assert_int_equal(status, cases[i].status);
        if (!strstr(sp_last_message(), cases[i].message))
            fail_msg("\"%s\" does not say \"%s\"", sp_last_message(), cases[i].message);
        assert_non_null(strstr(sp_last_message(), "small.gguf"));
    }
}

static void missing_and_misshapen_tensors_are_refused_by_the_model(void **state) {
    const char *path = path_in(*state, "small.gguf");
    sp_model *model;
    sp_model_options options = sp_model_options_default();
    assert_int_equal(open_small(path, &(small_model){0}), SP_OK);
    assert_int_equal(sp_model_open(&model, path, &options), SP_OK);
    sp_model_free(model);
    (void)open_small(path, &(small_model){.without = "attention.head_count_kv"});
    assert_int_equal(sp_model_open(&model, path, &options), SP_BAD_FILE);
    assert_non_null(strstr(sp_last_message(), "k_proj"));
    assert_int_equal(open_small(path, &(small_model){.key = "llama.attention.key_length", .value = 4}), SP_OK);
}

/* ---- a real file ------------------------------------------------------------------------------------------------ */

static void real_file_opens(void **state) {
    (void)state;
    const char *path = data_path("ckpt/llama-2-tiny-random.gguf");
    if (!sp_file_exists(path)) skip();
    sp_checkpoint *checkpoint;
    assert_int_equal(sp_checkpoint_open(&checkpoint, path), SP_OK);
    const sp_tensor *head = sp_checkpoint_find(checkpoint, "lm_head.weight");
    assert_true(head && head->dtype == SP_DTYPE_F16 && head->shape[0] == 32000 && head->shape[1] == 8);
    sp_checkpoint_close(checkpoint);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(f32_comes_back_bit_for_bit, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(other_formats_come_back_as_near_as_they_can, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(blocks_are_seen_as_f32_in_the_order_of_llama, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(rotary_pairs_are_neighbours_in_llama_and_halves_in_our_own, make_scratch,
                                        remove_scratch),
        cmocka_unit_test_setup_teardown(softpick_keeps_its_attention, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(scaling_of_llama_3_travels_as_divisors, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(vocabularies_become_keys, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(what_cannot_be_meant_is_refused_by_name, make_scratch, remove_scratch),
        cmocka_unit_test_setup_teardown(missing_and_misshapen_tensors_are_refused_by_the_model, make_scratch,
                                        remove_scratch),
        cmocka_unit_test(numbers_are_those_that_llama_cpp_sees),
        cmocka_unit_test(real_file_opens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
