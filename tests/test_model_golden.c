/* Checkpoints of other makers: small models that transformers saved (tests/oracles/logits.py --golden) give its logits,
 * a published one gives what is known of it, and a checkpoint whose tensors do not fit its config is refused by name. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/random.h"
#include "base/status.h"
#include "checkpoint_support.h"
#include "softpick/model.h"

/* ---- logits ------------------------------------------------------------------------------------------------------ */

enum { MOST_TOKENS = 256, MOST_LOGITS = 512 };

static sp_model *open_model(const char *folder) {
    sp_model *model;
    sp_model_options options = sp_model_options_default();
    if (sp_model_open(&model, folder, &options) != SP_OK) fail_msg("%s", sp_last_message());
    return model;
}

static json_t *read_json(const char *folder, const char *name) {
    json_t *json;
    char path[4200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (sp_json_read(&json, path) != SP_OK) fail_msg("%s", sp_last_message());
    return json;
}

static int64_t read_tokens(int32_t *tokens, const json_t *list) {
    int64_t n = (int64_t)json_array_size(list);
    assert_in_range(n, 1, MOST_TOKENS);
    for (int64_t i = 0; i < n; i++) tokens[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
    return n;
}

/* The first logits are those of the list, within a share of its range. */
static void assert_logits(const float *logits, const json_t *list, double share, const char *what) {
    double low = INFINITY, high = -INFINITY, worst = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        double theirs = json_number_value(json_array_get(list, i));
        low = fmin(low, theirs), high = fmax(high, theirs);
        worst = fmax(worst, fabs(theirs - (double)logits[i]));
    }
    if (!(worst <= share * (high - low))) fail_msg("%s: logits differ by %.3g of %.3g", what, worst, high - low);
}

/* Given to one cache in pieces of `piece` tokens; compared after each. */
static void check_golden(const char *folder, int64_t piece) {
    json_t *golden = read_json(folder, "golden.json"), *rows = json_object_get(golden, "logits");
    int32_t tokens[MOST_TOKENS];
    int64_t n = read_tokens(tokens, json_object_get(golden, "tokens"));
    sp_model *model = open_model(folder);
    sp_cache *cache;
    float logits[MOST_LOGITS];
    assert_in_range(sp_model_config_of(model)->vocabulary, 1, MOST_LOGITS);
    assert_int_equal(sp_cache_new(&cache, model, n), SP_OK);
    for (int64_t first = 0; first < n; first += piece) {
        int64_t count = n - first < piece ? n - first : piece;
        assert_int_equal(sp_model_decode(model, cache, tokens + first, count, logits), SP_OK);
        assert_logits(logits, json_array_get(rows, (size_t)(first + count - 1)), 1e-5, folder);
    }
    sp_cache_free(cache);
    sp_model_free(model);
    json_decref(golden);
}

static void models_of_transformers_give_its_logits(void **state) {
    (void)state;
    static const char *const names[] = {"llama-biases",   "llama-linear", "llama-llama3",
                                        "mistral-window", "qwen2",        "qwen3"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char name[128];
        snprintf(name, sizeof name, "tests/vectors/logits/%s", names[i]);
        const char *folder = source_path(name);
        check_golden(folder, 1);
        check_golden(folder, 20); /* more than decoding's few */
    }
}

static void published_model_gives_what_is_known_of_it(void **state) {
    (void)state;
    if (!sp_folder_exists(data_path("ckpt/stories260K-hf"))) skip();
    json_t *golden = read_json(data_path("ckpt"), "stories260K.golden.json");
    int32_t tokens[MOST_TOKENS], targets[MOST_TOKENS];
    float logits[MOST_LOGITS];
    sp_model *model = open_model(data_path("ckpt/stories260K-hf"));
    sp_cache *cache;
    assert_int_equal(sp_cache_new(&cache, model, MOST_TOKENS), SP_OK);
    int64_t n = read_tokens(tokens, json_object_get(golden, "prompt_ids"));
    assert_int_equal(sp_model_decode(model, cache, tokens, 1, logits), SP_OK);
    assert_logits(logits, json_object_get(golden, "bos_only_logits_first16"), 1e-5, "after BOS");
    assert_int_equal(sp_model_decode(model, cache, tokens + 1, n - 1, logits), SP_OK);
    assert_logits(logits, json_object_get(golden, "prompt_last_logits_first16"), 1e-5, "after the prompt");
    n = read_tokens(tokens, json_object_get(golden, "greedy_ids_from_bos"));
    for (int64_t i = 0; i + 1 < n; i++) targets[i] = tokens[i + 1];
    sp_batch batch = {.B = 1, .T = n - 1, .tokens = tokens, .targets = targets};
    double sum, mean = json_number_value(json_object_get(golden, "golden_text_mean_nll_nats"));
    int64_t n_targets;
    assert_int_equal(sp_model_loss(model, &batch, &sum, &n_targets), SP_OK);
    if (!(fabs(sum / (double)n_targets - mean) < 2e-6)) fail_msg("loss %.7f, not %.7f", sum / (double)n_targets, mean);
    sp_cache_free(cache);
    sp_model_free(model);
    json_decref(golden);
}

/* ---- names and words of fla --------------------------------------------------------------------------------------- */

typedef struct fla_tensor {
    const char *fla, *llama;
    int64_t rows, columns; /* of LLaMA's; 0: a vector */
} fla_tensor;

/* One layer of the fork's scaled softpick with norms of heads: fla's words and LLaMA's for the same model. */
static const fla_tensor fla_tensors[] = {
    {"model.embeddings.weight", "model.embed_tokens.weight", 7, 8},
    {"model.norm.weight", "model.norm.weight", 8, 0},
    {"lm_head.weight", "lm_head.weight", 7, 8},
    {"model.layers.0.attn_norm.weight", "model.layers.0.input_layernorm.weight", 8, 0},
    {"model.layers.0.mlp_norm.weight", "model.layers.0.post_attention_layernorm.weight", 8, 0},
    {"model.layers.0.attn.q_proj.weight", "model.layers.0.self_attn.q_proj.weight", 8, 8},
    {"model.layers.0.attn.k_proj.weight", "model.layers.0.self_attn.k_proj.weight", 4, 8},
    {"model.layers.0.attn.v_proj.weight", "model.layers.0.self_attn.v_proj.weight", 4, 8},
    {"model.layers.0.attn.q_proj.bias", "model.layers.0.self_attn.q_proj.bias", 8, 0},
    {"model.layers.0.attn.k_proj.bias", "model.layers.0.self_attn.k_proj.bias", 4, 0},
    {"model.layers.0.attn.v_proj.bias", "model.layers.0.self_attn.v_proj.bias", 4, 0},
    {"model.layers.0.attn.o_proj.weight", "model.layers.0.self_attn.o_proj.weight", 8, 8},
    {"model.layers.0.attn.q_norm.weight", "model.layers.0.self_attn.q_norm.weight", 4, 0},
    {"model.layers.0.attn.k_norm.weight", "model.layers.0.self_attn.k_norm.weight", 4, 0},
    {"model.layers.0.attn.s", "model.layers.0.self_attn.row_factor", 2, 0}, /* in fla (2,1) */
    {"model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.gate_proj.weight", 6, 8},
    {"model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight", 6, 8},
    {"model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.down_proj.weight", 8, 6},
};
enum { N_FLA = sizeof fla_tensors / sizeof *fla_tensors };

static const char fla_config[] =
    "{\"model_type\":\"transformer\",\"attn_impl\":\"parallel_scaled_softpick_attn\",\"vocab_size\":7,\"hidden_size\":"
    "8,"
    "\"intermediate_size\":6,\"num_hidden_layers\":1,\"num_heads\":2,\"num_kv_heads\":1,\"qkv_bias\":true,\"qk_norm\":"
    "true,"
    "\"norm_eps\":1e-6,\"max_position_embeddings\":64,\"fuse_norm\":true,\"elementwise_affine\":true}";
static const char same_config[] =
    "{\"model_type\":\"softpick_llama\",\"attention_function\":\"softpick\",\"attention_row_factor\":true,\"vocab_"
    "size\":7,"
    "\"hidden_size\":8,\"intermediate_size\":6,\"num_hidden_layers\":1,\"num_attention_heads\":2,\"num_key_value_"
    "heads\":1,"
    "\"qkv_bias\":true,\"qk_norm\":true,\"qk_norm_eps\":1e-5,\"max_position_embeddings\":64}";

/* Logits after nine tokens of the model in fla's words, with what its files hold beside, or in LLaMA's. */
static void fla_logits(float logits[7], const char *place, bool fla) {
    static float numbers[N_FLA][64], logn[5] = {0};
    sp_named_tensor named[N_FLA + 1];
    for (int i = 0; i < N_FLA; i++) {
        const fla_tensor *t = &fla_tensors[i];
        bool factor = fla && strcmp(t->fla, "model.layers.0.attn.s") == 0;
        int64_t shape[] = {t->rows, factor ? 1 : t->columns};
        for (uint64_t j = 0; j < 64; j++) numbers[i][j] = (float)sp_random_normal(6, (uint64_t)i, j);
        named[i].name = fla ? t->fla : t->llama;
        named[i].tensor = sp_tensor_view(numbers[i], SP_DTYPE_F32, t->columns || factor ? 2 : 1, shape);
    }
    named[N_FLA].name = "model.layers.0.attn.logn";
    named[N_FLA].tensor = sp_tensor_view(logn, SP_DTYPE_F32, 3, (int64_t[]){5, 1, 1});
    const char *folder = path_in(place, fla ? "fla" : "llama");
    sp_checkpoint_content content = {
        .config = fla ? fla_config : same_config, .tensors = named, .n_tensors = N_FLA + fla};
    if (sp_checkpoint_write(folder, &content) != SP_OK) fail_msg("%s", sp_last_message());
    sp_model *model = open_model(folder);
    sp_cache *cache;
    const int32_t tokens[] = {1, 6, 3, 0, 2, 2, 5, 4, 1};
    assert_int_equal(sp_cache_new(&cache, model, 9), SP_OK);
    assert_int_equal(sp_model_decode(model, cache, tokens, 9, logits), SP_OK);
    sp_cache_free(cache);
    sp_model_free(model);
}

static void a_model_in_flas_words_is_the_same_model(void **state) {
    float fla[7], llama[7];
    fla_logits(fla, *state, true);
    fla_logits(llama, *state, false);
    assert_memory_equal(fla, llama, sizeof fla);
}

/* ---- tensors that do not fit ------------------------------------------------------------------------------------- */

enum { V = 7, C = 4, F = 6, MOST_TENSORS = 16 };

typedef struct stored {
    const char *name;
    int64_t rows, columns; /* columns 0: a vector */
} stored;

#define LAYER "model.layers.0."

/* One layer, tied, two heads. */
static const stored whole[] = {
    {"model.embed_tokens.weight", V, C},     {"model.norm.weight", C, 0},
    {LAYER "input_layernorm.weight", C, 0},  {LAYER "post_attention_layernorm.weight", C, 0},
    {LAYER "self_attn.q_proj.weight", C, C}, {LAYER "self_attn.k_proj.weight", C, C},
    {LAYER "self_attn.v_proj.weight", C, C}, {LAYER "self_attn.o_proj.weight", C, C},
    {LAYER "mlp.gate_proj.weight", F, C},    {LAYER "mlp.up_proj.weight", F, C},
    {LAYER "mlp.down_proj.weight", C, F},
};
enum { N_WHOLE = sizeof whole / sizeof *whole };

static const char config[] =
    "{\"model_type\":\"llama\",\"vocab_size\":7,\"hidden_size\":4,\"intermediate_size\":6,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":2,\"bos_token_id\":1,\"eos_token_id\":2,\"tie_word_embeddings\":true}";

/* Writes the tensors, of whose numbers the first is `first`, and opens them. */
static sp_status open_stored(sp_model **model, const char *place, const stored *tensors, int64_t n, sp_dtype dtype,
                             float first) {
    static float numbers[64] = {0};
    sp_named_tensor named[MOST_TENSORS];
    numbers[0] = first;
    for (int64_t i = 0; i < n; i++) {
        int64_t shape[] = {tensors[i].rows, tensors[i].columns};
        bool head = strcmp(tensors[i].name, "lm_head.weight") == 0;
        named[i].name = tensors[i].name;
        named[i].tensor = sp_tensor_view(head ? numbers : numbers + 1, dtype, tensors[i].columns ? 2 : 1, shape);
    }
    const char *folder = path_in(place, "odd");
    sp_checkpoint_content content = {.config = config, .tensors = named, .n_tensors = n, .replace = true};
    assert_int_equal(sp_checkpoint_write(folder, &content), SP_OK);
    sp_model_options options = sp_model_options_default();
    return sp_model_open(model, folder, &options);
}

static void assert_refused(const char *place, const stored *tensors, int64_t n, sp_dtype dtype, const char *sentence) {
    sp_model *model;
    assert_true(open_stored(&model, place, tensors, n, dtype, 0) != SP_OK);
    assert_null(model);
    if (!strstr(sp_last_message(), sentence) || strncmp(sp_last_message(), place, strlen(place)) != 0)
        fail_msg("says: %s", sp_last_message());
}

static void tensors_that_do_not_fit_are_named(void **state) {
    stored odd[MOST_TENSORS];
    memcpy(odd, whole, sizeof whole);
    assert_refused(*state, odd, N_WHOLE - 1, SP_DTYPE_F32, "tensor model.layers.0.mlp.down_proj.weight is missing");
    odd[4].columns = C + 1;
    assert_refused(*state, odd, N_WHOLE, SP_DTYPE_F32,
                   "tensor model.layers.0.self_attn.q_proj.weight has the shape [4,5], by config.json it has [4,4]");
    odd[4] = (stored){LAYER "self_attn.q_proj.weight", C * C, 0}; /* as many numbers */
    assert_refused(*state, odd, N_WHOLE, SP_DTYPE_F32, "q_proj.weight has the shape [16], by config.json");
    odd[4] = whole[4];
    odd[N_WHOLE] = (stored){LAYER "self_attn.q_proj.bias", C, 0};
    assert_refused(*state, odd, N_WHOLE + 1, SP_DTYPE_F32, "tensor model.layers.0.self_attn.q_proj.bias has no place");
    assert_refused(*state, whole, N_WHOLE, SP_DTYPE_I32, "has dtype i32");
}

/* A config that lies about sizes is refused before memory of those sizes is asked for. */
static void sizes_that_lie_cost_nothing(void **state) {
    static const char *const lies[][2] = {
        {"{\"model_type\":\"llama\",\"vocab_size\":7,\"hidden_size\":4,\"num_attention_heads\":2,\"num_hidden_layers\":"
         "60000}",
         "60000 layers"},
        {"{\"model_type\":\"llama\",\"vocab_size\":16777216,\"hidden_size\":1048576,\"num_attention_heads\":2,"
         "\"num_hidden_layers\":1,\"head_dim\":2}",
         "embed_tokens.weight has the shape [7,4], by config.json it has [16777216,1048576]"},
    };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        sp_model *model;
        sp_model_options options = sp_model_options_default();
        const char *folder = path_in(*state, "odd");
        if (open_stored(&model, *state, whole, N_WHOLE, SP_DTYPE_F32, 0) != SP_OK) fail_msg("%s", sp_last_message());
        sp_model_free(model);
        assert_int_equal(sp_file_write(path_in(folder, "config.json"), lies[i][0], (int64_t)strlen(lies[i][0])), SP_OK);
        assert_int_equal(sp_model_open(&model, folder, &options), SP_BAD_FILE);
        if (!strstr(sp_last_message(), lies[i][1])) fail_msg("says: %s", sp_last_message());
    }
}

static void tensors_that_follow_from_the_config_are_passed_over(void **state) {
    static const char *const names[] = {LAYER "self_attn.rotary_emb.inv_freq", LAYER "self_attn.logn",
                                        LAYER "attn.logn"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        stored tensors[MOST_TENSORS];
        memcpy(tensors, whole, sizeof whole);
        tensors[N_WHOLE] = (stored){names[i], 3, 0};
        sp_model *model;
        if (open_stored(&model, *state, tensors, N_WHOLE + 1, SP_DTYPE_F32, 0) != SP_OK)
            fail_msg("%s", sp_last_message());
        sp_model_free(model);
    }
}

static int n_warnings;

static void count_warnings(void *user, sp_log_level level, const char *line) {
    (void)user;
    n_warnings += level == SP_LOG_WARNING && strstr(line, "lm_head.weight") != NULL;
}

static void a_tied_head_that_differs_is_not_used_but_told(void **state) {
    stored tensors[MOST_TENSORS];
    memcpy(tensors, whole, sizeof whole);
    tensors[N_WHOLE] = (stored){"lm_head.weight", V, C};
    sp_log_set(count_warnings, NULL);
    n_warnings = 0;
    for (int differs = 0; differs < 2; differs++) {
        sp_model *model;
        assert_int_equal(open_stored(&model, *state, tensors, N_WHOLE + 1, SP_DTYPE_F32, differs ? 5.0f : 0.0f), SP_OK);
        assert_int_equal(n_warnings, differs);
        assert_true(((float *)sp_model_tensor(model, 0).data)[0] == 0.0f);
        sp_model_free(model);
    }
    sp_log_set(NULL, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_of_transformers_give_its_logits),
        cmocka_unit_test(published_model_gives_what_is_known_of_it),
        cmocka_unit_test(a_model_in_flas_words_is_the_same_model),
        cmocka_unit_test(tensors_that_do_not_fit_are_named),
        cmocka_unit_test(sizes_that_lie_cost_nothing),
        cmocka_unit_test(tensors_that_follow_from_the_config_are_passed_over),
        cmocka_unit_test(a_tied_head_that_differs_is_not_used_but_told),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
