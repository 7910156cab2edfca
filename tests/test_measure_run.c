/* sp_measure and sp_measure_maps on small models and a small text. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/random.h"
#include "measure/measures.h"

enum { LAYERS = 2, HEADS = 4, WIDTH = 32, POSITIONS = 96, VOCABULARY = 330 };

static struct {
    char folder[64], text[128], tokens[128], tokenizer_path[128];
    sp_tokenizer *tokenizer;
    int64_t n_validation; /* tokens */
} files;

/* Documents of made-up words, one line each. */
static void write_text(void) {
    FILE *file = fopen(files.text, "w");
    assert_non_null(file);
    for (uint64_t line = 0; line < 150; line++) {
        fputs("{\"text\": \"", file);
        for (uint64_t word = 0; word < 20 + line % 30; word++) {
            for (uint64_t letter = 0; letter < 2 + (line + word) % 5; letter++)
                fputc("aeioulmnrst"[sp_random_below(1, line, word * 16 + letter, 11)], file);
            fputc(' ', file);
        }
        fputs("\"}\n", file);
    }
    assert_int_equal(fclose(file), 0);
}

static int open_files(void **state) {
    (void)state;
    omp_set_num_threads(1); /* models so small that threads would wait longer than they compute */
    strcpy(files.folder, "/tmp/softpick_measure_XXXXXX");
    assert_non_null(mkdtemp(files.folder));
    snprintf(files.text, sizeof files.text, "%s/text.jsonl", files.folder);
    snprintf(files.tokens, sizeof files.tokens, "%s/tokens", files.folder);
    snprintf(files.tokenizer_path, sizeof files.tokenizer_path, "%s/tokenizer.model", files.folder);
    write_text();
    const char *paths[] = {files.text};
    sp_tokenizer_train_options train = sp_tokenizer_train_options_default();
    train.vocabulary = VOCABULARY;
    assert_int_equal(sp_tokenizer_train(files.tokenizer_path, paths, 1, &train), SP_OK);
    assert_int_equal(sp_tokenizer_open(&files.tokenizer, files.tokenizer_path), SP_OK);
    sp_shards_write_options write = sp_shards_write_options_default();
    write.validation_fraction = 0.3;
    assert_int_equal(sp_shards_write(files.tokens, files.tokenizer, paths, 1, &write), SP_OK);
    sp_shards *shards;
    assert_int_equal(sp_shards_open(&shards, files.tokens, "validation"), SP_OK);
    files.n_validation = sp_shards_n_tokens(shards);
    sp_shards_close(shards);
    return 0;
}

static int close_files(void **state) {
    (void)state;
    sp_tokenizer_free(files.tokenizer);
    return sp_folder_remove(files.folder) != SP_OK;
}

static sp_model_config small_config(sp_normalizer normalizer) {
    sp_model_config config = sp_model_config_default();
    config.vocabulary = VOCABULARY;
    config.width = WIDTH;
    config.n_layers = LAYERS;
    config.n_heads = HEADS;
    config.n_kv_heads = HEADS / 2;
    config.head_width = WIDTH / HEADS;
    config.ffn_width = 64;
    config.max_positions = POSITIONS;
    config.initializer_range = 0.3; /* scores of every size */
    config.bos = 1;
    config.eos = 2;
    config.attention_function = normalizer;
    return config;
}

static sp_model *new_model(const sp_model_config *config, sp_dtype dtype) {
    sp_model_options options = sp_model_options_default();
    options.dtype = dtype;
    options.seed = 11;
    sp_model *model;
    assert_int_equal(sp_model_new(&model, config, &options), SP_OK);
    return model;
}

static sp_model *small_model(sp_normalizer normalizer) {
    sp_model_config config = small_config(normalizer);
    return new_model(&config, SP_DTYPE_F32);
}

static json_t *parsed(char *text) {
    json_t *json;
    assert_int_equal(sp_json_parse(&json, text, (int64_t)strlen(text), "result"), SP_OK);
    free(text);
    return json;
}

static json_t *measured(sp_model *model, const sp_measure_options *options) {
    char *text;
    sp_status status = sp_measure(model, files.tokens, options, &text);
    if (status != SP_OK) fail_msg("%s", sp_last_message());
    return parsed(text);
}

static double value_of(const json_t *json, const char *measure) {
    const json_t *value = json_object_get(json_object_get(json, measure), "value");
    if (!json_is_number(value)) fail_msg("%s has no value", measure);
    return json_number_value(value);
}

/* ---- measures -------------------------------------------------------------------------------------------------- */

/* Sample after sample, each alone, without the code of the run. */
static json_t *measured_one_by_one(sp_model *model, const sp_measure_options *options) {
    int64_t T = options->T, n_samples = options->n_samples;
    sp_measures measures;
    assert_int_equal(sp_measures_open(&measures, sp_model_config_of(model), SP_DTYPE_F32, options), SP_OK);
    sp_observer observer = sp_measures_observer(&measures);
    sp_shards *shards;
    assert_int_equal(sp_shards_open(&shards, files.tokens, "validation"), SP_OK);
    int32_t *tokens = malloc((size_t)T * sizeof *tokens), *targets = malloc((size_t)T * sizeof *targets);
    for (int64_t i = 0; i < n_samples; i++, measures.n_samples++) {
        tokens[0] = 1;
        assert_int_equal(sp_shards_read(shards, i * T, T - 1, tokens + 1), SP_OK);
        for (int64_t t = 0; t < T; t++) targets[t] = -1;
        sp_batch batch = {.B = 1, .T = T, .tokens = tokens, .targets = targets};
        assert_int_equal(sp_model_observe(model, &batch, &observer), SP_OK);
    }
    json_t *json;
    assert_int_equal(sp_measures_finish(&measures, &json), SP_OK);
    free(tokens);
    free(targets);
    sp_shards_close(shards);
    sp_measures_close(&measures);
    return json;
}

static void run_equals_its_samples_one_by_one(void **state) {
    (void)state;
    for (int normalizer = 0; normalizer <= SP_NORMALIZER_SOFTMAX; normalizer++) {
        sp_model *model = small_model((sp_normalizer)normalizer);
        sp_measure_options options = sp_measure_options_default();
        options.T = 66;
        options.measures = "all";
        options.n_samples = 33; /* a batch of 31 and a part of the next */
        assert_true(options.n_samples * options.T <= files.n_validation);
        json_t *run = measured(model, &options), *single = measured_one_by_one(model, &options);
        for (int i = 0; sp_measure_name(i); i++) {
            if (strcmp(sp_measure_name(i), "masking") == 0) continue; /* not from observations */
            double a = value_of(run, sp_measure_name(i)), b = value_of(single, sp_measure_name(i));
            if (!(fabs(a - b) <= 1e-4 * (1 + fabs(b)))) fail_msg("%s: %g is not %g", sp_measure_name(i), a, b);
        }
        json_decref(run);
        json_decref(single);
        sp_model_free(model);
    }
}

static void softmax_has_mass_one_and_softpick_has_zeros(void **state) {
    (void)state;
    sp_model *softmax = small_model(SP_NORMALIZER_SOFTMAX), *softpick = small_model(SP_NORMALIZER_SOFTPICK);
    json_t *a = measured(softmax, NULL), *b = measured(softpick, NULL);
    assert_true(fabs(value_of(a, "row_mass") - 1) < 1e-5);
    assert_true(value_of(a, "sparsity") == 0);
    assert_true(value_of(b, "row_mass") > 0.1 && value_of(b, "row_mass") < 0.99);
    assert_true(value_of(b, "sparsity") > 0.2 && value_of(b, "sparsity") < 0.8);
    json_decref(a);
    json_decref(b);
    sp_model_free(softmax);
    sp_model_free(softpick);
}

static void fewer_samples_than_asked_are_told(void **state) {
    (void)state;
    sp_model *model = small_model(SP_NORMALIZER_SOFTPICK);
    sp_measure_options options = sp_measure_options_default();
    options.T = 80;
    options.n_samples = 100000;
    json_t *json = measured(model, &options);
    const json_t *n = json_object_get(json_object_get(json, "sink_rate"), "n_samples");
    assert_int_equal(json_integer_value(n), files.n_validation / 80);
    json_decref(json);
    sp_model_free(model);
}

static void default_length_is_that_of_the_model(void **state) {
    (void)state;
    sp_model *model = small_model(SP_NORMALIZER_SOFTPICK);
    json_t *json = measured(model, NULL);
    const json_t *entry = json_object_get(json, "row_mass");
    assert_int_equal(json_integer_value(json_object_get(entry, "T")), POSITIONS);
    assert_string_equal(json_string_value(json_object_get(entry, "dtype")), "f32");
    json_decref(json);
    sp_model_free(model);
}

static void sinks_stand_with_and_without_bos(void **state) {
    (void)state;
    sp_model *model = small_model(SP_NORMALIZER_SOFTMAX);
    sp_measure_options options = sp_measure_options_default();
    double with_bos[2], without_bos[2]; /* as the value, as the variant of the other packing */
    json_t *json = measured(model, &options);
    const json_t *entry = json_object_get(json, "first_token_mass"), *variants = json_object_get(entry, "variants");
    with_bos[0] = json_number_value(json_object_get(entry, "value"));
    without_bos[1] = json_number_value(json_object_get(variants, "without_bos"));
    json_decref(json);
    options.packing = SP_PACKING_CONCATENATE;
    json = measured(model, &options);
    entry = json_object_get(json, "first_token_mass");
    without_bos[0] = json_number_value(json_object_get(entry, "value"));
    with_bos[1] = json_number_value(json_object_get(json_object_get(entry, "variants"), "with_bos"));
    json_decref(json);
    assert_true(with_bos[0] == with_bos[1] && without_bos[0] == without_bos[1] && with_bos[0] != without_bos[0]);

    options.packing = SP_PACKING_DOCUMENTS;
    json = measured(model, &options);
    variants = json_object_get(json_object_get(json, "sink_rate"), "variants");
    assert_int_equal(json_object_size(variants), 1); /* row_normalised alone */
    json_decref(json);
    sp_model_free(model);
}

static void bf16_measures_are_near_those_of_f32(void **state) {
    (void)state;
    sp_model_config config = small_config(SP_NORMALIZER_SOFTPICK);
    sp_model *f32 = new_model(&config, SP_DTYPE_F32), *bf16 = new_model(&config, SP_DTYPE_BF16);
    json_t *a = measured(f32, NULL), *b = measured(bf16, NULL);
    assert_true(fabs(value_of(a, "row_mass") - value_of(b, "row_mass")) < 0.02);
    assert_true(fabs(value_of(a, "sparsity") - value_of(b, "sparsity")) < 0.02);
    assert_true(fabs(value_of(a, "kurtosis") - value_of(b, "kurtosis")) < 0.05 * value_of(a, "kurtosis"));
    json_decref(a);
    json_decref(b);
    sp_model_free(f32);
    sp_model_free(bf16);
}

/* The whole run's rate at its own length, and of each shorter length the rate of a run of that length. */
static void lengths_of_one_pass_are_those_of_a_pass_each(void **state) {
    (void)state;
    sp_model *model = small_model(SP_NORMALIZER_SOFTMAX);
    static const int64_t lengths[] = {20, 64, POSITIONS};
    sp_measure_options options = sp_measure_options_default();
    options.measures = "first_token_mass";
    options.lengths = lengths;
    options.n_lengths = 3;
    options.n_samples = 1; /* the first sample of any length begins at the same token */
    json_t *json = measured(model, &options);
    const json_t *by_length = json_object_get(json_object_get(json, "first_token_mass"), "by_length");
    assert_int_equal(json_object_size(json), 1);
    for (size_t i = 0; i < 3; i++) {
        sp_measure_options one = options;
        one.T = lengths[i];
        one.n_lengths = 0;
        json_t *alone = measured(model, &one);
        double value = json_number_value(json_array_get(json_object_get(by_length, "value"), i));
        assert_true(fabs(value - value_of(alone, "first_token_mass")) < 1e-6);
        assert_int_equal(json_integer_value(json_array_get(json_object_get(by_length, "length"), i)), lengths[i]);
        json_decref(alone);
    }
    json_decref(json);
    sp_model_free(model);
}

static void dead_heads_are_masked_without_harm(void **state) {
    (void)state;
    sp_model *model = small_model(SP_NORMALIZER_SOFTPICK);
    for (int64_t i = 0; i < sp_model_n_tensors(model); i++) {
        sp_tensor tensor = sp_model_tensor(model, i);
        if (strstr(sp_model_tensor_name(model, i), "layers.1.self_attn.q_proj"))
            memset(tensor.data, 0, (size_t)(tensor.shape[1] * WIDTH / HEADS) * sizeof(float)); /* head 0 */
    }
    assert_int_equal(sp_model_refresh(model), SP_OK);
    sp_measure_options options = sp_measure_options_default();
    options.measures = "masking,dead_heads";
    json_t *json = measured(model, &options);
    json_t *row = json_array_get(json_object_get(json_object_get(json, "masking"), "masked"), 0);
    assert_true(fabs(value_of(json, "dead_heads") - 1. / (LAYERS * HEADS)) < 1e-9);
    assert_true(fabs(value_of(json, "masking")) < 1e-5);
    assert_int_equal(json_integer_value(json_object_get(row, "n_masked")), 1);
    assert_int_equal(json_array_size(json_object_get(row, "control_losses")), SP_MASKING_CONTROLS);
    json_decref(json);
    sp_model_free(model);
}

static void only_chosen_measures_are_taken(void **state) {
    (void)state;
    sp_model *model = small_model(SP_NORMALIZER_SOFTPICK);
    sp_measure_options options = sp_measure_options_default();
    options.measures = "entropy,kurtosis";
    json_t *json = measured(model, &options);
    assert_int_equal(json_object_size(json), 2);
    assert_true(value_of(json, "entropy") > 0 && value_of(json, "kurtosis") > 1);
    json_decref(json);
    options.measures = "default";
    json = measured(model, &options);
    for (int i = 0; sp_measure_name(i); i++)
        assert_int_equal(json_object_get(json, sp_measure_name(i)) != NULL, sp_measure_is_default(i));
    json_decref(json);
    sp_model_free(model);
}

/* ---- bad input ------------------------------------------------------------------------------------------------- */

static int stop_at_once(void *user, const char *what, int64_t done, int64_t total) {
    (void)what, (void)done, (void)total;
    ++*(int *)user;
    return 1;
}

static void assert_refused(sp_model *model, const char *shards, const sp_measure_options *options, sp_status expected,
                           const char *named) {
    char *json = NULL;
    assert_int_equal(sp_measure(model, shards, options, &json), expected);
    assert_null(json);
    if (!strstr(sp_last_message(), named)) fail_msg("\"%s\" does not name %s", sp_last_message(), named);
}

static void bad_input_is_named(void **state) {
    (void)state;
    sp_model *model = small_model(SP_NORMALIZER_SOFTPICK);
    char *json = NULL;
    assert_int_not_equal(sp_measure(model, "/nowhere/tokens", NULL, &json), SP_OK);
    assert_null(json);
    assert_non_null(strstr(sp_last_message(), "/nowhere/tokens"));

    sp_measure_options options = sp_measure_options_default();
    options.T = POSITIONS + 1;
    assert_refused(model, files.tokens, &options, SP_BAD_ARGUMENT, "97");
    options.T = 1;
    assert_refused(model, files.tokens, &options, SP_BAD_ARGUMENT, "T is 1");
    options.T = 0;
    options.n_samples = 0;
    assert_refused(model, files.tokens, &options, SP_BAD_ARGUMENT, "n_samples");
    options.n_samples = 1;
    options.measures = "kurtosis,sinkrate";
    assert_refused(model, files.tokens, &options, SP_BAD_ARGUMENT, "\"sinkrate\"; there are all, default, sink_rate, ");
    options.measures = "";
    assert_refused(model, files.tokens, &options, SP_BAD_ARGUMENT, "measure \"\"");
    options.measures = NULL;
    options.T = 64;
    options.lengths = (const int64_t[]){16, 16, 65};
    options.n_lengths = 2;
    assert_refused(model, files.tokens, &options, SP_BAD_ARGUMENT, "length 16 follows 16");
    options.lengths++;
    assert_refused(model, files.tokens, &options, SP_BAD_ARGUMENT, "length 65 is more");
    options.n_lengths = 65;
    assert_refused(model, files.tokens, &options, SP_BAD_ARGUMENT, "65 lengths");
    options.n_lengths = 0;
    options.struct_bytes = 1;
    assert_refused(model, files.tokens, &options, SP_BAD_ARGUMENT, "options");
    sp_model_free(model);
}

static void text_without_validation_split_is_refused(void **state) {
    (void)state;
    char path[256];
    snprintf(path, sizeof path, "%s/train-only", files.folder);
    const char *paths[] = {files.text};
    sp_shards_write_options write = sp_shards_write_options_default();
    write.validation_fraction = 0;
    assert_int_equal(sp_shards_write(path, files.tokenizer, paths, 1, &write), SP_OK);
    sp_model *model = small_model(SP_NORMALIZER_SOFTPICK);
    char *json = NULL;
    assert_int_not_equal(sp_measure(model, path, NULL, &json), SP_OK);
    assert_null(json);
    sp_model_free(model);
}

static void text_shorter_than_a_sample_is_refused(void **state) {
    (void)state;
    sp_model_config config = small_config(SP_NORMALIZER_SOFTPICK);
    config.max_positions = 1 << 20;
    sp_model *model = new_model(&config, SP_DTYPE_F32);
    sp_measure_options options = sp_measure_options_default();
    options.T = files.n_validation + 1;
    assert_refused(model, files.tokens, &options, SP_BAD_FILE, "too short");
    sp_model_free(model);
}

static void tokens_beyond_the_vocabulary_are_refused(void **state) {
    (void)state;
    sp_model_config config = small_config(SP_NORMALIZER_SOFTPICK);
    config.vocabulary = VOCABULARY - 1;
    sp_model *model = new_model(&config, SP_DTYPE_F32);
    assert_refused(model, files.tokens, NULL, SP_BAD_FILE, "vocabulary");
    sp_model_free(model);
}

static void model_without_bos_cannot_begin_with_it(void **state) {
    (void)state;
    sp_model_config config = small_config(SP_NORMALIZER_SOFTPICK);
    config.bos = -1;
    sp_model *model = new_model(&config, SP_DTYPE_F32);
    assert_refused(model, files.tokens, NULL, SP_BAD_ARGUMENT, "BOS");
    sp_measure_options options = sp_measure_options_default();
    options.packing = SP_PACKING_CONCATENATE;
    json_decref(measured(model, &options));
    sp_model_free(model);
}

static void progress_can_cancel(void **state) {
    (void)state;
    sp_model *model = small_model(SP_NORMALIZER_SOFTPICK);
    sp_measure_options options = sp_measure_options_default();
    int n_calls = 0;
    options.progress = stop_at_once;
    options.progress_user = &n_calls;
    char *json;
    assert_int_equal(sp_measure(model, files.tokens, &options, &json), SP_CANCELLED);
    assert_null(json);
    assert_int_equal(n_calls, 1);
    sp_model_free(model);
}

/* ---- maps ------------------------------------------------------------------------------------------------------ */

static const char sentence[] = "somer tan lot e musen roa";

static json_t *maps_of(sp_model *model, int64_t n_heads_max) {
    char *text;
    sp_status status = sp_measure_maps(model, files.tokenizer, sentence, n_heads_max, &text);
    if (status != SP_OK) fail_msg("%s", sp_last_message());
    return parsed(text);
}

static double weight(const json_t *map, size_t t, size_t j) {
    const json_t *row = json_array_get(json_object_get(map, "weights"), t);
    assert_true(json_is_number(json_array_get(row, j)));
    return json_number_value(json_array_get(row, j));
}

static void maps_are_causal_and_sum_to_one_in_softmax(void **state) {
    (void)state;
    sp_model *model = small_model(SP_NORMALIZER_SOFTMAX);
    json_t *json = maps_of(model, 5);
    const json_t *tokens = json_object_get(json, "tokens"), *maps = json_object_get(json, "maps"), *map;
    size_t T = json_array_size(tokens), i;
    assert_string_equal(json_string_value(json_object_get(json, "text")), sentence);
    assert_string_equal(json_string_value(json_array_get(tokens, 0)), "<s>");
    assert_int_equal(json_array_size(maps), 5);
    json_array_foreach(maps, i, map) {
        assert_int_equal(json_array_size(json_object_get(map, "weights")), T);
        for (size_t t = 0; t < T; t++) {
            double sum = 0;
            for (size_t j = 0; j < T; j++) {
                if (j > t) assert_true(weight(map, t, j) == 0);
                sum += weight(map, t, j);
            }
            assert_true(fabs(sum - 1) < 1e-3);
        }
    }
    json_decref(json);
    sp_model_free(model);
}

/* By the maps of all heads, which the same answer holds. */
static void rollout_is_the_product_of_the_layers(void **state) {
    (void)state;
    enum { MOST = 64 };
    for (int normalizer = 0; normalizer <= SP_NORMALIZER_SOFTMAX; normalizer++) {
        sp_model *model = small_model((sp_normalizer)normalizer);
        json_t *json = maps_of(model, LAYERS * HEADS), *maps = json_object_get(json, "maps"), *map;
        size_t T = json_array_size(json_object_get(json, "tokens")), i;
        assert_true(T <= MOST);
        static double product[MOST][MOST], next[MOST][MOST];
        for (size_t t = 0; t < T; t++)
            for (size_t j = 0; j < T; j++) product[t][j] = t == j;
        for (int layer = 0; layer < LAYERS; layer++) {
            memset(next, 0, sizeof next);
            for (size_t t = 0; t < T; t++) {
                double sum = 1;
                for (size_t c = 0; c < T; c++) next[t][c] = product[t][c];
                json_array_foreach(maps, i, map) {
                    if (json_integer_value(json_object_get(map, "layer")) != layer) continue;
                    for (size_t j = 0; j < T; j++) {
                        sum += weight(map, t, j) / HEADS;
                        for (size_t c = 0; c < T; c++) next[t][c] += weight(map, t, j) / HEADS * product[j][c];
                    }
                }
                for (size_t c = 0; c < T; c++) next[t][c] /= sum;
            }
            memcpy(product, next, sizeof product);
        }
        const json_t *rollout = json_object_get(json, "rollout");
        for (size_t t = 0; t < T; t++) {
            assert_int_equal(json_array_size(json_array_get(json_object_get(rollout, "weights"), t)), t + 1);
            for (size_t j = 0; j <= t; j++) assert_true(fabs(weight(rollout, t, j) - product[t][j]) < 1e-3);
        }
        json_decref(json);
        sp_model_free(model);
    }
}

static double mass_on_first(const json_t *map, size_t T) {
    double sum = 0;
    for (size_t t = 0; t < T; t++) sum += weight(map, t, 0);
    return sum / (double)T;
}

static void first_map_has_the_most_mass_on_the_first_token(void **state) {
    (void)state;
    sp_model *model = small_model(SP_NORMALIZER_SOFTMAX);
    json_t *json = maps_of(model, LAYERS * HEADS + 7); /* more than there are: all, each once */
    const json_t *maps = json_object_get(json, "maps"), *map, *first = json_array_get(maps, 0);
    size_t T = json_array_size(json_object_get(json, "tokens")), i;
    assert_int_equal(json_array_size(maps), LAYERS * HEADS);
    bool seen[LAYERS * HEADS] = {false};
    char why[64];
    snprintf(why, sizeof why, "mass on the first token: %.2f", mass_on_first(first, T));
    assert_string_equal(json_string_value(json_object_get(first, "why")), why);
    json_array_foreach(maps, i, map) {
        assert_true(mass_on_first(map, T) <= mass_on_first(first, T) + 1e-3);
        json_int_t layer = json_integer_value(json_object_get(map, "layer"));
        json_int_t head = json_integer_value(json_object_get(map, "head"));
        assert_true(layer >= 0 && layer < LAYERS && head >= 0 && head < HEADS && !seen[layer * HEADS + head]);
        seen[layer * HEADS + head] = true;
    }
    json_decref(json);
    sp_model_free(model);
}

/* Queries and keys of no size: every score is 0, every softpick row is silent. */
static void silent_heads_are_shown_as_such(void **state) {
    (void)state;
    sp_model *model = small_model(SP_NORMALIZER_SOFTPICK);
    for (int64_t i = 0; i < sp_model_n_tensors(model); i++) {
        sp_tensor tensor = sp_model_tensor(model, i);
        if (strstr(sp_model_tensor_name(model, i), "q_proj"))
            memset(tensor.data, 0, (size_t)sp_tensor_count(&tensor) * sizeof(float));
    }
    assert_int_equal(sp_model_refresh(model), SP_OK);
    json_t *json = maps_of(model, 2);
    const json_t *map = json_array_get(json_object_get(json, "maps"), 1);
    assert_string_equal(json_string_value(json_object_get(map, "why")), "silent on this text");
    assert_true(weight(map, 3, 2) == 0);
    json_decref(json);

    json = measured(model, NULL);
    assert_true(value_of(json, "silent_heads") == 1 && value_of(json, "dead_heads") == 1);
    json_decref(json);
    sp_model_free(model);
}

static void maps_of_bad_text_are_refused(void **state) {
    (void)state;
    sp_model *model = small_model(SP_NORMALIZER_SOFTPICK);
    char *json, text[4 * POSITIONS];
    assert_int_equal(sp_measure_maps(model, files.tokenizer, "", 1, &json), SP_BAD_ARGUMENT);
    assert_null(json);
    for (size_t i = 0; i + 1 < sizeof text; i++) text[i] = i % 2 ? ' ' : 'x';
    text[sizeof text - 1] = 0;
    assert_int_equal(sp_measure_maps(model, files.tokenizer, text, 1, &json), SP_BAD_ARGUMENT);
    assert_non_null(strstr(sp_last_message(), "at most 96"));
    assert_int_equal(sp_measure_maps(model, files.tokenizer, sentence, 0, &json), SP_BAD_ARGUMENT);
    assert_int_not_equal(sp_measure_maps(model, files.tokenizer, "no \xff text", 1, &json), SP_OK);
    assert_null(json);
    sp_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run_equals_its_samples_one_by_one),
        cmocka_unit_test(softmax_has_mass_one_and_softpick_has_zeros),
        cmocka_unit_test(fewer_samples_than_asked_are_told),
        cmocka_unit_test(default_length_is_that_of_the_model),
        cmocka_unit_test(sinks_stand_with_and_without_bos),
        cmocka_unit_test(bf16_measures_are_near_those_of_f32),
        cmocka_unit_test(lengths_of_one_pass_are_those_of_a_pass_each),
        cmocka_unit_test(dead_heads_are_masked_without_harm),
        cmocka_unit_test(only_chosen_measures_are_taken),
        cmocka_unit_test(bad_input_is_named),
        cmocka_unit_test(text_without_validation_split_is_refused),
        cmocka_unit_test(text_shorter_than_a_sample_is_refused),
        cmocka_unit_test(tokens_beyond_the_vocabulary_are_refused),
        cmocka_unit_test(model_without_bos_cannot_begin_with_it),
        cmocka_unit_test(progress_can_cancel),
        cmocka_unit_test(maps_are_causal_and_sum_to_one_in_softmax),
        cmocka_unit_test(rollout_is_the_product_of_the_layers),
        cmocka_unit_test(first_map_has_the_most_mass_on_the_first_token),
        cmocka_unit_test(silent_heads_are_shown_as_such),
        cmocka_unit_test(maps_of_bad_text_are_refused),
    };
    return cmocka_run_group_tests(tests, open_files, close_files);
}
