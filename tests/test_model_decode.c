/* Decoding with a cache says what a forward pass says; sampling is a pure function; bad calls are refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "softpick/model.h"

enum { V = 61, T = 23 };

static sp_model_config tiny_config(sp_normalizer normalizer, int64_t window) {
    sp_model_config c = sp_model_config_default();
    c.vocabulary = V;
    c.width = 32;
    c.n_layers = 3;
    c.n_heads = 4;
    c.n_kv_heads = 2;
    c.head_width = 8;
    c.ffn_width = 48;
    c.max_positions = 32;
    c.initializer_range = 0.2;
    c.attention_function = normalizer;
    c.window = window;
    c.row_factor = normalizer == SP_NORMALIZER_SOFTMAX;
    return c;
}

static sp_model *make_from(const sp_model_config *config) {
    sp_model_options options = sp_model_options_default();
    options.seed = 3;
    sp_model *model;
    if (sp_model_new(&model, config, &options) != SP_OK) fail_msg("%s", sp_last_message());
    return model;
}

static sp_model *make(sp_normalizer normalizer, int64_t window) {
    sp_model_config config = tiny_config(normalizer, window);
    return make_from(&config);
}

static void fill(int32_t *tokens, int64_t n) {
    for (int64_t i = 0; i < n; i++) tokens[i] = (int32_t)(3 + sp_random_below(9, 9, (uint64_t)i, V - 3));
}

/* -log p of the next token after each prefix, from the whole sequence and token by token. */
static void decoding_says_what_the_forward_pass_says(void **state) {
    (void)state;
    for (int normalizer = 0; normalizer < SP_NORMALIZER_COUNT; normalizer++) {
        sp_model *model = make((sp_normalizer)normalizer, normalizer == SP_NORMALIZER_SOFTPICK ? 6 : 0);
        int32_t tokens[T], targets[T];
        fill(tokens, T);
        sp_cache *cache;
        assert_int_equal(sp_cache_new(&cache, model, T), SP_OK);
        float logits[V];
        for (int64_t t = 0; t < T - 1; t++) {
            for (int64_t i = 0; i < T; i++) targets[i] = i == t ? tokens[t + 1] : -1;
            sp_batch batch = {.B = 1, .T = T, .tokens = tokens, .targets = targets};
            double whole, sum = 0;
            int64_t n;
            assert_int_equal(sp_model_loss(model, &batch, &whole, &n), SP_OK);
            assert_int_equal(n, 1);
            assert_int_equal(sp_model_decode(model, cache, tokens + t, 1, logits), SP_OK);
            for (int i = 0; i < V; i++) sum += exp((double)logits[i]);
            double one = log(sum) - logits[tokens[t + 1]];
            assert_true(fabs(one - whole) < 2e-5 * (1 + fabs(whole)));
        }
        /* a prompt in one piece, and again after going back */
        float once[V], again[V];
        sp_cache_truncate(cache, 0);
        assert_int_equal(sp_model_decode(model, cache, tokens, T - 1, once), SP_OK);
        sp_cache_truncate(cache, 5);
        assert_int_equal(sp_model_decode(model, cache, tokens + 5, T - 6, again), SP_OK);
        for (int i = 0; i < V; i++) {
            assert_true(fabsf(once[i] - logits[i]) < 1e-4f);
            assert_true(fabsf(again[i] - logits[i]) < 1e-4f);
        }
        assert_int_equal(sp_cache_length(cache), T - 1);
        sp_cache_free(cache);
        sp_model_free(model);
    }
}

static void a_long_prompt_goes_in_pieces(void **state) {
    (void)state;
    sp_model *small = make(SP_NORMALIZER_SOFTPICK, 0);
    sp_model_config c = *sp_model_config_of(small);
    sp_model_free(small);
    c.max_positions = 1000;
    sp_model_options options = sp_model_options_default();
    sp_model *model;
    assert_int_equal(sp_model_new(&model, &c, &options), SP_OK);
    int32_t tokens[600], targets[600];
    fill(tokens, 600);
    for (int i = 0; i < 600; i++) targets[i] = i == 599 ? 7 : -1;
    sp_batch batch = {.B = 1, .T = 600, .tokens = tokens, .targets = targets};
    double whole, sum = 0;
    int64_t n;
    float logits[V];
    sp_cache *cache;
    assert_int_equal(sp_model_loss(model, &batch, &whole, &n), SP_OK);
    assert_int_equal(sp_cache_new(&cache, model, 600), SP_OK);
    assert_int_equal(sp_model_decode(model, cache, tokens, 600, logits), SP_OK);
    for (int i = 0; i < V; i++) sum += exp((double)logits[i]);
    assert_true(fabs(log(sum) - logits[7] - whole) < 1e-4);
    sp_cache_free(cache);
    sp_model_free(model);
}

static void sampling_follows_its_options(void **state) {
    (void)state;
    float logits[] = {0, 2, 1, -1, NAN};
    sp_sampling s = sp_sampling_default();
    int32_t token, same;
    s.temperature = 0;
    assert_int_equal(sp_sample(logits, 5, &s, 0, &token), SP_OK);
    assert_int_equal(token, 1);
    s.temperature = 1;
    s.top_p = 1;
    int counts[5] = {0};
    enum { DRAWS = 20000 };
    for (int i = 0; i < DRAWS; i++) {
        assert_int_equal(sp_sample(logits, 5, &s, i, &token), SP_OK);
        assert_int_equal(sp_sample(logits, 5, &s, i, &same), SP_OK);
        assert_int_equal(token, same);
        counts[token]++;
    }
    double sum = exp(0) + exp(2) + exp(1) + exp(-1);
    for (int i = 0; i < 4; i++) assert_true(fabs(counts[i] / (double)DRAWS - exp(logits[i]) / sum) < 0.015);
    assert_int_equal(counts[4], 0);
    s.top_k = 2;
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(sp_sample(logits, 5, &s, i, &token), SP_OK);
        assert_true(token == 1 || token == 2);
    }
    s.top_k = 0;
    s.top_p = 0.5; /* the first alone has 0.61 */
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(sp_sample(logits, 5, &s, i, &token), SP_OK);
        assert_int_equal(token, 1);
    }
    s.top_p = 0;
    assert_int_equal(sp_sample(logits, 5, &s, 0, &token), SP_BAD_ARGUMENT);
    assert_non_null(strstr(sp_last_message(), "top_p"));
}

static int keep_two(void *user, int32_t token) {
    int64_t *count = user;
    (void)token;
    return ++*count == 2;
}

static int keep_all(void *user, int32_t token) {
    (void)token;
    ++*(int64_t *)user;
    return 0;
}

static void generation_stops_when_asked_and_at_the_last_position(void **state) {
    (void)state;
    sp_model *model = make(SP_NORMALIZER_SOFTPICK, 0);
    sp_sampling s = sp_sampling_default();
    int32_t prompt[40] = {1, 5, 9};
    int64_t count = 0;
    assert_int_equal(sp_generate(model, prompt, 3, 100, &s, keep_two, &count), SP_OK);
    assert_int_equal(count, 2);
    count = 0;
    assert_int_equal(sp_generate(model, prompt, 3, 100, &s, keep_all, &count), SP_OK);
    assert_true(count <= 30); /* 32 positions: 29 decoded, and one that follows the last */
    assert_int_equal(sp_generate(model, prompt, 33, 1, &s, keep_all, &count), SP_BAD_ARGUMENT);
    assert_non_null(strstr(sp_last_message(), "32 positions"));
    sp_model_free(model);
}

typedef struct kept {
    int64_t n;
    int32_t tokens[10];
} kept;

static int keep_text(void *user, int32_t token) {
    kept *k = user;
    k->tokens[k->n++] = token;
    return 0;
}

static kept greedy_text(const sp_model_config *config) {
    sp_model *model = make_from(config);
    sp_sampling s = sp_sampling_default();
    s.temperature = 0;
    kept k = {0};
    assert_int_equal(sp_generate(model, (const int32_t[]){1, 5, 9}, 3, 10, &s, keep_text, &k), SP_OK);
    sp_model_free(model);
    return k;
}

static void generation_stops_at_every_token_that_ends_a_text(void **state) {
    (void)state;
    sp_model_config config = tiny_config(SP_NORMALIZER_SOFTPICK, 0);
    config.eos = -1;
    kept whole = greedy_text(&config);
    assert_int_equal(whole.n, 10);
    int64_t first = 0; /* where the text's last token stands first */
    while (whole.tokens[first] != whole.tokens[9]) first++;
    for (int64_t n_more = 0; n_more < 3; n_more++) {
        config.eos = n_more ? 0 : whole.tokens[9];
        config.n_more_eos = n_more;
        for (int64_t i = 0; i < n_more; i++) config.more_eos[i] = i + 1 == n_more ? whole.tokens[9] : 0;
        assert_int_equal(greedy_text(&config).n, first);
    }
}

static void bad_batches_are_refused(void **state) {
    (void)state;
    sp_model *model = make(SP_NORMALIZER_SOFTMAX, 0);
    int32_t tokens[40] = {0}, targets[40] = {0};
    sp_batch batch = {.B = 1, .T = 4, .tokens = tokens, .targets = targets};
    double loss;
    int64_t n;
    tokens[2] = V;
    assert_int_equal(sp_model_loss(model, &batch, &loss, &n), SP_BAD_ARGUMENT);
    assert_non_null(strstr(sp_last_message(), "token 61"));
    tokens[2] = 0;
    batch.T = 33;
    assert_int_equal(sp_model_loss(model, &batch, &loss, &n), SP_BAD_ARGUMENT);
    batch.T = 4;
    assert_int_equal(sp_model_loss_gradient(model, &batch, 1, &loss, &n), SP_BAD_ARGUMENT);
    assert_non_null(strstr(sp_last_message(), "training"));
    batch.B = 2;
    batch.cu = (const int64_t[]){0, 5, 8};
    batch.n_sequences = 2;
    assert_int_equal(sp_model_loss(model, &batch, &loss, &n), SP_BAD_ARGUMENT);
    assert_non_null(strstr(sp_last_message(), "row to row"));
    sp_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoding_says_what_the_forward_pass_says),
        cmocka_unit_test(a_long_prompt_goes_in_pieces),
        cmocka_unit_test(sampling_follows_its_options),
        cmocka_unit_test(generation_stops_when_asked_and_at_the_last_position),
        cmocka_unit_test(generation_stops_at_every_token_that_ends_a_text),
        cmocka_unit_test(bad_batches_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
