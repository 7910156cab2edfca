/* Predictions after a pass over packed sequences, some of which continue others: what the same sequences give one by one; a
 * GPU gives what the CPU gives within bf16's rounding. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "softpick/device.h"
#include "softpick/model.h"

enum { V = 301, N_SEQUENCES = 6, N_ROWS = 120, N_TARGETS = 2 * N_ROWS, LONGEST = 64, CPU = 0, GPU = 1 };

#define assert_ok(call)                                                                                                \
    do {                                                                                                               \
        if ((call) != SP_OK) fail_msg("%s: %s", #call, sp_last_message());                                             \
    } while (0)

/* 1 goes on after a part of 0, 2 after all of 1, 3 starts anew, 4 is empty, 5 goes on after a part of 2. */
static const int64_t cu[N_SEQUENCES + 1] = {0, 33, 50, 52, 92, 92, 120};
static const int64_t continues[N_SEQUENCES] = {-1, 0, 1, -1, 3, 2};
static const int64_t shared[N_SEQUENCES] = {0, 20, 37, 0, 40, 36};

static sp_model_config small_config(void) {
    sp_model_config c = sp_model_config_default();
    c.vocabulary = V;
    c.width = 128;
    c.n_layers = 3;
    c.n_heads = 4;
    c.n_kv_heads = 2;
    c.head_width = 32;
    c.ffn_width = 344;
    c.max_positions = LONGEST;
    c.initializer_range = 0.08; /* scores far from 0 */
    return c;
}

static sp_model *make(const sp_model_config *config, int32_t device, sp_dtype dtype) {
    sp_model_options options = sp_model_options_default();
    options.dtype = dtype;
    options.device = device;
    options.seed = 5;
    sp_model *model;
    assert_ok(sp_model_new(&model, config, &options));
    return model;
}

/* A batch, and two predictions after each of its tokens. */
typedef struct scored_batch {
    int32_t tokens[N_ROWS], rows[N_TARGETS], targets[N_TARGETS];
    sp_batch batch;
} scored_batch;

static void fill(scored_batch *b) {
    for (int64_t i = 0; i < N_ROWS; i++) b->tokens[i] = (int32_t)sp_random_below(1, 2, (uint64_t)i, V);
    for (int64_t i = 0; i < N_TARGETS; i++) {
        b->rows[i] = (int32_t)(i * 7 % N_ROWS);
        b->targets[i] = (int32_t)sp_random_below(1, 3, (uint64_t)i, V);
    }
    b->batch = (sp_batch){.B = 1,
                          .T = N_ROWS,
                          .tokens = b->tokens,
                          .cu = cu,
                          .n_sequences = N_SEQUENCES,
                          .continues = continues,
                          .shared = shared};
}

/* The tokens of sequence n, with those that it goes on after; returns their number. */
static int64_t whole_sequence(int32_t *out, const scored_batch *b, int64_t n) {
    int64_t length = continues[n] >= 0 ? shared[n] : 0;
    if (length > 0) whole_sequence(out, b, continues[n]);
    for (int64_t i = cu[n]; i < cu[n + 1]; i++) out[length++] = b->tokens[i];
    return length;
}

static int64_t sequence_of(int64_t row) {
    int64_t n = 0;
    while (row >= cu[n + 1]) n++;
    return n;
}

/* log p of the target after the last token, from decoding all of them. */
static double decoded(sp_model *model, const int32_t *tokens, int64_t n, int32_t target, bool *greedy) {
    sp_cache *cache;
    float logits[V];
    double sum = 0;
    assert_ok(sp_cache_new(&cache, model, LONGEST));
    assert_ok(sp_model_decode(model, cache, tokens, n, logits));
    *greedy = true;
    for (int v = 0; v < V; v++) {
        sum += exp((double)logits[v]);
        if (logits[v] > logits[target]) *greedy = false;
    }
    sp_cache_free(cache);
    return (double)logits[target] - log(sum);
}

static void check_against_single_sequences(const sp_model_config *config) {
    scored_batch b;
    float log_p[N_TARGETS];
    bool greedy[N_TARGETS], expected_greedy;
    int32_t tokens[LONGEST];
    sp_model *model = make(config, CPU, SP_DTYPE_F32);
    float *values = sp_model_parameters(model);
    for (int64_t i = 0; i < sp_model_n_parameters(model); i++) /* no norm is 1, no bias 0 */
        values[i] += (float)(0.02 * sp_random_normal(1, 4, (uint64_t)i));
    fill(&b);
    assert_ok(sp_model_score(model, &b.batch, b.rows, b.targets, N_TARGETS, log_p, greedy));
    for (int64_t i = 0; i < N_TARGETS; i++) {
        int64_t n = sequence_of(b.rows[i]), length = whole_sequence(tokens, &b, n);
        double expected = decoded(model, tokens, length - (cu[n + 1] - 1 - b.rows[i]), b.targets[i], &expected_greedy);
        if (!(fabs((double)log_p[i] - expected) <= 2e-5))
            fail_msg("row %d: %.7f, alone %.7f", (int)b.rows[i], (double)log_p[i], expected);
        assert_int_equal(greedy[i], expected_greedy);
    }
    sp_model_free(model);
}

static void sequences_that_continue_others_are_as_if_alone(void **state) {
    (void)state;
    for (int normalizer = 0; normalizer < SP_NORMALIZER_COUNT; normalizer++) {
        sp_model_config config = small_config();
        config.attention_function = (sp_normalizer)normalizer;
        check_against_single_sequences(&config);
    }
}

static void windows_factors_ties_norms_and_biases_are_kept(void **state) {
    (void)state;
    for (int i = 0; i < 6; i++) {
        sp_model_config config = small_config();
        config.window = i == 0 || i == 3 ? 9 : 0;
        config.tie_embeddings = i == 1;
        config.row_factor = i == 2 || i == 3;
        config.n_kv_heads = i == 3 ? 4 : 2;
        config.qk_norm = i == 4;
        config.qkv_bias = config.out_bias = config.ffn_bias = i == 5;
        check_against_single_sequences(&config);
    }
}

/* Root of the mean square of the differences. */
static double apart(const float *a, const float *b) {
    double sum = 0;
    for (int64_t i = 0; i < N_TARGETS; i++) sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sqrt(sum / N_TARGETS);
}

static void a_gpu_scores_as_the_cpu(void **state) {
    (void)state;
    if (sp_cuda_device_count() == 0) skip();
    static const struct {
        int32_t device;
        sp_dtype dtype;
    } kinds[3] = {{CPU, SP_DTYPE_F32}, {CPU, SP_DTYPE_BF16}, {GPU, SP_DTYPE_BF16}};
    for (int i = 0; i < SP_NORMALIZER_COUNT + 2; i++) {
        sp_model_config config = small_config();
        config.attention_function = i < SP_NORMALIZER_COUNT ? (sp_normalizer)i : SP_NORMALIZER_SOFTPICK;
        config.window = i == SP_NORMALIZER_COUNT ? 9 : 0;
        config.row_factor = i == SP_NORMALIZER_COUNT + 1;
        scored_batch b;
        float log_p[3][N_TARGETS];
        bool greedy[N_TARGETS];
        fill(&b);
        for (int kind = 0; kind < 3; kind++) {
            sp_model *model = make(&config, kinds[kind].device, kinds[kind].dtype);
            assert_ok(sp_model_score(model, &b.batch, b.rows, b.targets, N_TARGETS, log_p[kind], greedy));
            sp_model_free(model);
        }
        double bf16 = apart(log_p[1], log_p[0]), gpu = apart(log_p[2], log_p[0]);
        if (!(gpu <= 2 * bf16 + 1e-3)) fail_msg("case %d: %.3g from f32, on the CPU in bf16 %.3g", i, gpu, bf16);
    }
}

static void expect_refusal(sp_model *model, const scored_batch *b, const char *what) {
    float log_p[N_TARGETS];
    bool greedy[N_TARGETS];
    assert_int_equal(sp_model_score(model, &b->batch, b->rows, b->targets, N_TARGETS, log_p, greedy), SP_BAD_ARGUMENT);
    if (!strstr(sp_last_message(), what)) fail_msg("\"%s\" does not say \"%s\"", sp_last_message(), what);
}

static void bad_batches_are_refused(void **state) {
    (void)state;
    sp_model_config config = small_config();
    sp_model *model = make(&config, CPU, SP_DTYPE_F32);
    scored_batch b;
    int64_t changed[N_SEQUENCES];
    fill(&b);
    memcpy(changed, continues, sizeof changed);
    b.batch.continues = changed;
    changed[1] = 1;
    expect_refusal(model, &b, "sequence 1 continues sequence 1");
    changed[1] = -2;
    expect_refusal(model, &b, "sequence 1 continues sequence -2");
    fill(&b);
    memcpy(changed, shared, sizeof changed);
    b.batch.shared = changed;
    changed[2] = 38;
    expect_refusal(model, &b, "sequence 2 goes on after 38 tokens of one that has 37");
    changed[2] = -1;
    expect_refusal(model, &b, "sequence 2 goes on after -1");
    fill(&b);
    b.batch.cu = NULL;
    expect_refusal(model, &b, "not packed");
    fill(&b);
    b.rows[5] = N_ROWS;
    expect_refusal(model, &b, "prediction 5 follows token 120");
    fill(&b);
    b.targets[5] = V;
    expect_refusal(model, &b, "target 301");
    sp_model_free(model);
    config.max_positions = LONGEST - 1; /* the longest sequence has 36 + 28 */
    model = make(&config, CPU, SP_DTYPE_F32);
    fill(&b);
    expect_refusal(model, &b, "64 tokens: the model has 63");
    sp_model_free(model);
}

static void sequences_that_continue_others_have_no_gradient(void **state) {
    (void)state;
    sp_model_config config = small_config();
    sp_model_options options = sp_model_options_default();
    sp_model *model;
    scored_batch b;
    double sum;
    int64_t n;
    options.training = true;
    fill(&b);
    b.batch.targets = b.tokens;
    assert_ok(sp_model_new(&model, &config, &options));
    assert_int_equal(sp_model_loss_gradient(model, &b.batch, 1, &sum, &n), SP_UNSUPPORTED);
    sp_model_free(model);
}

int main(void) {
    omp_set_num_threads(1); /* what there is to compute is less than what threads would wait for each other */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences_that_continue_others_are_as_if_alone),
        cmocka_unit_test(windows_factors_ties_norms_and_biases_are_kept),
        cmocka_unit_test(a_gpu_scores_as_the_cpu),
        cmocka_unit_test(bad_batches_are_refused),
        cmocka_unit_test(sequences_that_continue_others_have_no_gradient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
