/* A small world to train in: a text, its tokenizer and shards, a tiny model.  Made once per test program. */
#ifndef TRAIN_SUPPORT_H
#define TRAIN_SUPPORT_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/random.h"
#include "softpick/train.h"

static char world[64]; /* folder: text.txt, tokenizer.model, shards/, and the runs of the tests */
static sp_tokenizer *world_tokenizer;

/* A path in the world; four may be in use at a time. */
static inline const char *world_path(const char *name) {
    static char paths[4][160];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", world, name);
    return path;
}

static inline void expect_message(const char *part) {
    if (!strstr(sp_last_message(), part)) fail_msg("\"%s\" does not say \"%s\"", sp_last_message(), part);
}

#define assert_ok(call)                                                                                                \
    do {                                                                                                               \
        if ((call) != SP_OK) fail_msg("%s: %s", #call, sp_last_message());                                             \
    } while (0)

/* Sentences of few words, so that a tiny model learns something within a few steps. */
static inline void write_world_text(const char *path, int n_sentences) {
    static const char *const words[] = {"the",  "king", "said", "unto", "them",   "and",   "they", "went", "out",
                                        "into", "city", "with", "his",  "people", "bread", "made", "of",   "stone"};
    enum { N_WORDS = sizeof words / sizeof *words };
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 0; i < n_sentences; i++) {
        for (int j = 0; j < 9; j++) {
            uint64_t word = sp_random_below(7, (uint64_t)i, (uint64_t)j, N_WORDS);
            fprintf(file, "%s%s", j ? " " : "", words[word * word / N_WORDS]);
        }
        fputs(".\n", file);
    }
    assert_int_equal(fclose(file), 0);
}

static inline int make_world(void **state) {
    (void)state;
    snprintf(world, sizeof world, "/tmp/softpick-train-XXXXXX");
    if (!mkdtemp(world)) return -1;
    const char *text = world_path("text.txt"), *tokenizer = world_path("tokenizer.model");
    write_world_text(text, 600);
    sp_tokenizer_train_options options = sp_tokenizer_train_options_default();
    options.vocabulary = 300;
    assert_ok(sp_tokenizer_train(tokenizer, &text, 1, &options));
    assert_ok(sp_tokenizer_open(&world_tokenizer, tokenizer));
    sp_shards_write_options shards = sp_shards_write_options_default();
    assert_ok(sp_shards_write(world_path("shards"), world_tokenizer, &text, 1, &shards));
    return 0;
}

static inline int remove_world(void **state) {
    (void)state;
    sp_tokenizer_free(world_tokenizer);
    return sp_folder_remove(world) == SP_OK ? 0 : -1;
}

static inline sp_model_config tiny_config(void) {
    sp_model_config config = sp_model_config_default();
    config.vocabulary = 300;
    config.width = 32;
    config.n_layers = 2;
    config.n_heads = config.n_kv_heads = 2;
    config.head_width = 16;
    config.ffn_width = 64;
    config.max_positions = 64;
    config.initializer_range = 0.05;
    config.bos = sp_tokenizer_bos(world_tokenizer);
    config.eos = sp_tokenizer_eos(world_tokenizer);
    return config;
}

static inline sp_model *new_model(const sp_model_config *config, sp_dtype dtype) {
    sp_model_options options = sp_model_options_default();
    options.dtype = dtype;
    options.training = true;
    options.seed = 3;
    sp_model *model;
    assert_ok(sp_model_new(&model, config, &options));
    return model;
}

static inline sp_model *tiny_model(sp_dtype dtype) {
    sp_model_config config = tiny_config();
    return new_model(&config, dtype);
}

/* 20 steps of 4 x 16 tokens. */
static inline sp_train_options tiny_options(void) {
    sp_train_options options = sp_train_options_default();
    options.B = 4;
    options.T = 16;
    options.n_steps = 20;
    options.learning_rate = 1e-2;
    options.validate_every = 0;
    options.validation_tokens_max = 256;
    options.checkpoint_every = 0;
    return options;
}

#endif
