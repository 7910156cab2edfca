/* Scores of token sequences: what decoding token by token says, in any company. */
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
#include "evaluate/score.h"

enum { V = 67, POSITIONS = 64, N_ITEMS = 32 };

#define assert_ok(call)                                                                                                \
    do {                                                                                                               \
        if ((call) != SP_OK) fail_msg("%s: %s", #call, sp_last_message());                                             \
    } while (0)

static sp_model_config small_config(void) {
    sp_model_config c = sp_model_config_default();
    c.vocabulary = V;
    c.width = 32;
    c.n_layers = 3;
    c.n_heads = 4;
    c.n_kv_heads = 2;
    c.head_width = 8;
    c.ffn_width = 64;
    c.max_positions = POSITIONS;
    c.initializer_range = 0.2;
    return c;
}

static sp_model *make(const sp_model_config *config) {
    sp_model_options options = sp_model_options_default();
    options.seed = 3;
    sp_model *model;
    assert_ok(sp_model_new(&model, config, &options));
    return model;
}

/* The item by decoding one token after the other. */
static void decode_item(sp_model *model, sp_score_item *item) {
    sp_cache *cache;
    float logits[V];
    assert_ok(sp_cache_new(&cache, model, POSITIONS));
    item->sum = 0;
    item->greedy = true;
    for (int64_t i = 0; i + 1 < item->n_tokens; i++) {
        assert_ok(sp_model_decode(model, cache, item->tokens + i, 1, logits));
        if (i + 1 < item->n_tokens - item->n_scored) continue;
        int32_t target = item->tokens[i + 1], best = 0;
        double sum = 0;
        for (int32_t v = 0; v < V; v++) {
            sum += exp((double)logits[v]);
            if (logits[v] > logits[best]) best = v;
        }
        item->sum += (double)logits[target] - log(sum);
        item->greedy = item->greedy && best == target;
    }
    sp_cache_free(cache);
}

/* Items of all lengths; some begin as others do, some are the same, some end in what the model would say. */
typedef struct item_set {
    sp_score_item items[N_ITEMS], decoded[N_ITEMS];
    int32_t tokens[N_ITEMS][POSITIONS + 1];
    float log_p[N_ITEMS][POSITIONS + 1];
} item_set;

static int32_t some_token(int64_t item, int64_t place) {
    return (int32_t)sp_random_below(9, (uint64_t)item, (uint64_t)place, V);
}

static void fill(item_set *set, sp_model *model) {
    for (int64_t i = 0; i < N_ITEMS; i++) {
        int64_t n = 2 + (int64_t)sp_random_below(9, 1000, (uint64_t)i, i % 9 == 0 ? POSITIONS : 30);
        int64_t origin = i % 4 ? i / 4 * 4 : i, shared = i % 4 == 3 ? n : n / 2;
        for (int64_t j = 0; j < n; j++) set->tokens[i][j] = some_token(j < shared ? origin : i, j);
        set->items[i] = (sp_score_item){.tokens = set->tokens[i],
                                        .n_tokens = n,
                                        .n_scored = (int64_t)sp_random_below(9, 1001, (uint64_t)i, (uint64_t)n),
                                        .log_probabilities = set->log_p[i]};
    }
    for (int64_t i = 0; i < N_ITEMS; i += 5) { /* continuations that are greedy */
        sp_score_item *item = &set->items[i];
        sp_sampling sampling = sp_sampling_default();
        float logits[V];
        sp_cache *cache;
        sampling.temperature = 0;
        item->n_scored = 1;
        assert_ok(sp_cache_new(&cache, model, POSITIONS));
        assert_ok(sp_model_decode(model, cache, item->tokens, item->n_tokens - 1, logits));
        assert_ok(sp_sample(logits, V, &sampling, 0, &set->tokens[i][item->n_tokens - 1]));
        sp_cache_free(cache);
    }
    memcpy(set->decoded, set->items, sizeof set->items);
    for (int64_t i = 0; i < N_ITEMS; i++) decode_item(model, &set->decoded[i]);
}

static void check_against_decoding(sp_model *model, item_set *set, const sp_score_options *options) {
    int64_t n_greedy = 0;
    for (int64_t i = 0; i < N_ITEMS; i++) memset(set->log_p[i], 0xff, sizeof set->log_p[i]);
    assert_ok(sp_score(model, set->items, N_ITEMS, options));
    for (int64_t i = 0; i < N_ITEMS; i++) {
        const sp_score_item expected = set->decoded[i];
        double sum = 0;
        if (!(fabs(expected.sum - set->items[i].sum) <= 1e-5 * (1 + (double)expected.n_scored)))
            fail_msg("item %d: %.7f, by decoding %.7f", (int)i, set->items[i].sum, expected.sum);
        assert_int_equal(expected.greedy, set->items[i].greedy);
        for (int64_t j = 0; j < expected.n_scored; j++) sum += (double)set->log_p[i][j];
        assert_true(sum == set->items[i].sum);
        n_greedy += expected.n_scored > 0 && expected.greedy;
    }
    assert_true(n_greedy >= N_ITEMS / 5);
}

/* In batches of every size, with and without sharing. */
static void check_config(const sp_model_config *config) {
    sp_model *model = make(config);
    item_set *set = malloc(sizeof *set);
    fill(set, model);
    for (int64_t batch_tokens = 0; batch_tokens < 300; batch_tokens += 100)
        for (int share = 0; share < 2; share++) {
            sp_score_options options = sp_score_options_default();
            options.batch_tokens = batch_tokens;
            options.share_prefixes = share;
            check_against_decoding(model, set, &options);
        }
    free(set);
    sp_model_free(model);
}

static void scores_are_those_of_decoding_in_any_company(void **state) {
    (void)state;
    for (int normalizer = 0; normalizer < SP_NORMALIZER_COUNT; normalizer++) {
        sp_model_config config = small_config();
        config.attention_function = (sp_normalizer)normalizer;
        check_config(&config);
    }
}

static void items_in_batches_of_one_score_the_same(void **state) {
    (void)state;
    sp_model_config config = small_config();
    sp_model *model = make(&config);
    item_set *set = malloc(sizeof *set);
    sp_score_options options = sp_score_options_default();
    options.batch_tokens = 1;
    fill(set, model);
    check_against_decoding(model, set, &options);
    check_against_decoding(model, set, NULL);
    free(set);
    sp_model_free(model);
}

static void windows_factors_and_ties_are_kept(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        sp_model_config config = small_config();
        config.window = i == 0 || i == 3 ? 7 : 0;
        config.tie_embeddings = i == 1;
        config.row_factor = i == 2 || i == 3;
        config.n_kv_heads = i == 3 ? 4 : 2;
        check_config(&config);
    }
}

static void what_items_share_is_computed_once(void **state) {
    (void)state;
    sp_model_config config = small_config();
    sp_model *model = make(&config);
    int32_t tokens[4][40];
    sp_score_item items[4];
    /* 0: 20 tokens and 10 of its own; 1: the same but for the last, which is not read; 2: another 10; 3: 5 of item 0 */
    for (int64_t i = 0; i < 4; i++) {
        for (int64_t j = 0; j < 30; j++) tokens[i][j] = some_token(j < (i == 3 ? 5 : 20) || i == 1 ? 0 : i, j);
        items[i] = (sp_score_item){.tokens = tokens[i], .n_tokens = 30, .n_scored = 12};
    }
    tokens[1][29] = (tokens[0][29] + 1) % V;
    sp_score_counts counts = {0};
    sp_score_options options = sp_score_options_default();
    options.counts = &counts;
    assert_ok(sp_score(model, items, 4, &options));
    assert_int_equal(counts.n_batches, 1);
    assert_int_equal(counts.n_read, 4 * 29);
    assert_int_equal(counts.n_computed, 29 + 9 + 29);
    assert_int_equal(counts.n_scored, 4 * 12);
    options.share_prefixes = false;
    assert_ok(sp_score(model, items, 4, &options));
    assert_int_equal(counts.n_computed, 29 + 9 + 29 + 4 * 29);
    sp_model_free(model);
}

static void bad_items_are_refused_by_number(void **state) {
    (void)state;
    sp_model_config config = small_config();
    sp_model *model = make(&config);
    int32_t tokens[POSITIONS + 2] = {0};
    sp_score_item items[2] = {{.tokens = tokens, .n_tokens = 3, .n_scored = 1},
                              {.tokens = tokens, .n_tokens = 3, .n_scored = 3}};
    assert_int_equal(sp_score(model, items, 2, NULL), SP_BAD_ARGUMENT);
    assert_non_null(strstr(sp_last_message(), "item 1: 3 of 3 tokens"));
    items[1].n_scored = 1;
    items[1].n_tokens = POSITIONS + 2;
    assert_int_equal(sp_score(model, items, 2, NULL), SP_BAD_ARGUMENT);
    assert_non_null(strstr(sp_last_message(), "item 1: 66 tokens"));
    items[1].n_tokens = POSITIONS + 1;
    assert_ok(sp_score(model, items, 2, NULL));
    tokens[2] = V;
    assert_int_equal(sp_score(model, items, 2, NULL), SP_BAD_ARGUMENT);
    assert_ok(sp_score(model, items, 0, NULL));
    sp_model_free(model);
}

static int stop_at_once(void *user, const char *what, int64_t done, int64_t total) {
    int64_t *calls = user;
    (void)what;
    assert_true(done > 0 && done <= total);
    return ++*calls == 2;
}

static void progress_can_cancel(void **state) {
    (void)state;
    sp_model_config config = small_config();
    sp_model *model = make(&config);
    item_set *set = malloc(sizeof *set);
    int64_t calls = 0;
    fill(set, model);
    sp_score_options options = sp_score_options_default();
    options.batch_tokens = 20;
    options.progress = stop_at_once;
    options.progress_user = &calls;
    assert_int_equal(sp_score(model, set->items, N_ITEMS, &options), SP_CANCELLED);
    assert_int_equal(calls, 2);
    free(set);
    sp_model_free(model);
}

int main(void) {
    omp_set_num_threads(1); /* what there is to compute is less than what threads would wait for each other */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_those_of_decoding_in_any_company),
        cmocka_unit_test(items_in_batches_of_one_score_the_same),
        cmocka_unit_test(windows_factors_and_ties_are_kept),
        cmocka_unit_test(what_items_share_is_computed_once),
        cmocka_unit_test(bad_items_are_refused_by_number),
        cmocka_unit_test(progress_can_cancel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
