/* The loader: pure in the step, every sequence once, ranks apart, and what each packing puts where. */
#include "text_fixture.h"

enum { T = 16, B = 3 };

static sp_shards *shards; /* about 60 documents of very different length */
static int32_t *run;      /* all their tokens */
static int64_t n_run;

static int set_up(void **state) {
    if (make_test_folder(state) != 0) return -1;
    sp_tokenizer *tokenizer = make_tokenizer("tokenizer.model", 300);
    char *text = malloc(1 << 20), *end = text;
    for (uint64_t i = 0; i < 60; i++) {
        char *line = make_lines(i, 1);
        *strchr(line, '\n') = 0;
        end += sprintf(end, "{\"text\":\"%s\"}\n", i % 5 == 0 ? "a" : line);
        free(line);
    }
    const char *path = put_text("text.jsonl", text);
    free(text);
    sp_shards_write_options options = sp_shards_write_options_default();
    options.validation_fraction = 0;
    options.shard_tokens_max = 333;
    assert_ok(sp_shards_write(test_folder, tokenizer, &path, 1, &options));
    sp_tokenizer_free(tokenizer);
    assert_ok(sp_shards_open(&shards, test_folder, "train"));
    n_run = sp_shards_n_tokens(shards);
    run = malloc((size_t)n_run * sizeof *run);
    assert_ok(sp_shards_read(shards, 0, n_run, run));
    return 0;
}

static int tear_down(void **state) {
    free(run);
    sp_shards_close(shards);
    return remove_test_folder(state);
}

static sp_loader_options options_of(sp_packing packing) {
    sp_loader_options options = sp_loader_options_default();
    options.B = B;
    options.T = T;
    options.packing = packing;
    options.seed = 17;
    return options;
}

static sp_loader *make_loader(sp_loader_options options) {
    sp_loader *loader;
    assert_ok(sp_loader_new(&loader, shards, &options));
    return loader;
}

static sp_batch next(sp_loader *loader, int64_t step) {
    sp_batch batch;
    assert_ok(sp_loader_batch(loader, step, &batch));
    return batch;
}

/* Where in the run a row comes from: targets are tokens [first + 1 - shift, ...), shift 1 for bos. */
static int64_t find_row(const int32_t *targets, int64_t first_target, int64_t n_sequences) {
    int64_t found = -1;
    for (int64_t i = 0; i < n_sequences; i++) {
        if (memcmp(targets, run + first_target + i * T, T * sizeof *run) != 0) continue;
        if (found >= 0) return -2; /* the text repeats itself: no answer */
        found = i;
    }
    return found;
}

/* ---- order ---- */

static void batches_are_pure_functions_of_the_step(void **state) {
    (void)state;
    for (int packing = 0; packing < 3; packing++) {
        sp_loader *forth = make_loader(options_of((sp_packing)packing)),
                  *back = make_loader(options_of((sp_packing)packing));
        int32_t tokens[40][B * T], targets[40][B * T];
        for (int64_t step = 0; step < 40; step++) {
            sp_batch batch = next(forth, step);
            memcpy(tokens[step], batch.tokens, sizeof tokens[0]);
            memcpy(targets[step], batch.targets, sizeof targets[0]);
        }
        for (int64_t step = 39; step >= 0; step--) { /* a run resumed anywhere sees the same */
            sp_batch batch = next(back, step);
            assert_memory_equal(batch.tokens, tokens[step], sizeof tokens[0]);
            assert_memory_equal(batch.targets, targets[step], sizeof targets[0]);
        }
        sp_loader_free(forth);
        sp_loader_free(back);
    }
}

/* Order of sequences in `n` rows from `first` on, read by one loader with B = 1. */
static void read_order(sp_loader_options options, int64_t first, int64_t n, int64_t *order) {
    options.B = 1;
    sp_loader *loader = make_loader(options);
    int64_t first_target = options.packing == SP_PACKING_BOS ? 0 : 1;
    for (int64_t i = 0; i < n; i++) {
        sp_batch batch = next(loader, first + i);
        order[i] = find_row(batch.targets, first_target, sp_loader_n_sequences(loader));
        assert_true(order[i] >= 0);
    }
    sp_loader_free(loader);
}

static void epoch_visits_every_sequence_once(void **state) {
    (void)state;
    for (int packing = 0; packing < 2; packing++) {
        sp_loader *loader = make_loader(options_of((sp_packing)packing));
        int64_t n = sp_loader_n_sequences(loader), order[3][1000], same = 0;
        sp_loader_free(loader);
        assert_int_equal(n, (n_run - packing) / T);
        assert_true(n > 40 && n < 1000);
        for (int epoch = 0; epoch < 3; epoch++) {
            bool seen[1000] = {false};
            read_order(options_of((sp_packing)packing), epoch * n, n, order[epoch]);
            for (int64_t i = 0; i < n; i++) {
                assert_false(seen[order[epoch][i]]);
                seen[order[epoch][i]] = true;
                same += epoch > 0 && order[epoch][i] == order[epoch - 1][i];
            }
        }
        assert_true(same < n / 4); /* another order each time */
        sp_loader_options other = options_of((sp_packing)packing);
        other.seed++;
        read_order(other, 0, n, order[1]);
        assert_memory_not_equal(order[0], order[1], (size_t)n * sizeof *order[0]);
    }
}

static void ranks_share_the_batches_of_one(void **state) {
    (void)state;
    sp_loader_options all = options_of(SP_PACKING_CONCATENATE);
    all.B = 4 * B;
    sp_loader *one = make_loader(all);
    for (int64_t rank = 0; rank < 4; rank++) {
        sp_loader_options mine = options_of(SP_PACKING_CONCATENATE);
        mine.rank = rank;
        mine.n_ranks = 4;
        sp_loader *loader = make_loader(mine);
        for (int64_t step = 0; step < 30; step++) {
            sp_batch whole = next(one, step), part = next(loader, step);
            assert_memory_equal(part.tokens, whole.tokens + rank * B * T, B * T * sizeof *part.tokens);
            assert_memory_equal(part.targets, whole.targets + rank * B * T, B * T * sizeof *part.targets);
        }
        sp_loader_free(loader);
    }
    sp_loader_free(one);
}

static void in_order_reads_the_text_once(void **state) {
    (void)state;
    sp_loader_options options = options_of(SP_PACKING_CONCATENATE);
    options.in_order = true;
    sp_loader *loader = make_loader(options);
    int64_t n = sp_loader_n_sequences(loader), at_token = 0, step = 0;
    for (;; step++) {
        sp_batch batch = next(loader, step);
        if (batch.B == 0) break;
        assert_int_equal(batch.B, n - step * B < B ? n - step * B : B);
        assert_memory_equal(batch.tokens, run + at_token, (size_t)(batch.B * T) * sizeof *run);
        assert_memory_equal(batch.targets, run + at_token + 1, (size_t)(batch.B * T) * sizeof *run);
        at_token += batch.B * T;
    }
    assert_int_equal(step, (n + B - 1) / B);
    assert_true(n_run - at_token <= T);
    assert_int_equal(next(loader, step + 5).B, 0);
    sp_loader_free(loader);
    int64_t together = 0; /* ranks in order: disjoint, and all of it */
    for (options.rank = 0, options.n_ranks = 2; options.rank < 2; options.rank++) {
        loader = make_loader(options);
        for (step = 0;; step++) {
            sp_batch batch = next(loader, step);
            if (batch.B == 0) break;
            int64_t first = (step * 2 + options.rank) * B;
            assert_memory_equal(batch.tokens, run + first * T, (size_t)(batch.B * T) * sizeof *run);
            together += batch.B;
        }
        sp_loader_free(loader);
    }
    assert_int_equal(together, n);
}

/* ---- packings ---- */

static void bos_stands_before_every_sequence(void **state) {
    (void)state;
    sp_loader *loader = make_loader(options_of(SP_PACKING_BOS));
    for (int64_t step = 0; step < 20; step++) {
        sp_batch batch = next(loader, step);
        assert_null(batch.cu);
        for (int64_t b = 0; b < B; b++) {
            assert_int_equal(batch.tokens[b * T], 1);
            assert_memory_equal(batch.tokens + b * T + 1, batch.targets + b * T, (T - 1) * sizeof *run);
            assert_true(find_row(batch.targets + b * T, 0, sp_loader_n_sequences(loader)) != -1);
        }
    }
    sp_loader_free(loader);
}

/* Token i of the run begins a document: all begin with BOS, which stands nowhere else. */
static bool begins(int64_t i) { return run[i] == 1; }

static void documents_begin_anew(void **state) {
    (void)state;
    sp_loader_options options = options_of(SP_PACKING_DOCUMENTS);
    options.in_order = true; /* row r of the run is known */
    sp_loader *loader = make_loader(options);
    for (int64_t step = 0;; step++) {
        sp_batch batch = next(loader, step);
        if (batch.B == 0) break;
        int64_t next_cu = 0;
        for (int64_t i = 0; i < batch.B * T; i++) {
            int64_t at_token = step * B * T + i;
            assert_int_equal(batch.tokens[i], run[at_token]);
            assert_int_equal(batch.targets[i], begins(at_token + 1) ? -1 : run[at_token + 1]);
            if (i % T == 0 || begins(at_token)) {
                assert_true(next_cu < batch.n_sequences);
                assert_int_equal(batch.cu[next_cu++], i);
            }
        }
        assert_int_equal(next_cu, batch.n_sequences);
        assert_int_equal(batch.cu[next_cu], batch.B * T);
    }
    sp_loader_free(loader);
}

static void names_are_found_again(void **state) {
    (void)state;
    for (int packing = 0; packing < 3; packing++) {
        sp_packing found;
        assert_ok(sp_packing_find(&found, sp_packing_name((sp_packing)packing)));
        assert_int_equal(found, packing);
    }
    sp_packing none;
    assert_fails(sp_packing_find(&none, "BOS"), SP_BAD_ARGUMENT, "packing BOS");
}

/* ---- what is refused ---- */

static void check_refused(sp_loader_options options, sp_status status, const char *words) {
    sp_loader *loader;
    assert_fails(sp_loader_new(&loader, shards, &options), status, words);
    assert_null(loader);
}

static void texts_shorter_than_a_sequence_are_refused(void **state) {
    (void)state;
    for (int packing = 0; packing < 3; packing++) {
        sp_loader_options options = options_of((sp_packing)packing);
        options.T = n_run - (packing > 0);
        sp_loader *loader = make_loader(options); /* one sequence: just possible */
        assert_int_equal(sp_loader_n_sequences(loader), 1);
        next(loader, 0);
        next(loader, 1000000);
        sp_loader_free(loader);
        options.T++;
        check_refused(options, SP_BAD_FILE, "too short for one sequence");
    }
}

static void options_out_of_range_are_refused(void **state) {
    (void)state;
    sp_loader_options sound = options_of(SP_PACKING_BOS), options;
    check_refused((options = sound, options.B = 0, options), SP_BAD_ARGUMENT, "out of range");
    check_refused((options = sound, options.T = 0, options), SP_BAD_ARGUMENT, "out of range");
    check_refused((options = sound, options.B = INT64_MAX / 2, options), SP_BAD_ARGUMENT, "out of range");
    check_refused((options = sound, options.rank = 1, options), SP_BAD_ARGUMENT, "rank 1 of 1");
    check_refused((options = sound, options.n_ranks = 0, options), SP_BAD_ARGUMENT, "rank 0 of 0");
    check_refused((options = sound, options.bos = -1, options), SP_BAD_ARGUMENT, "BOS is -1");
    check_refused((options = sound, options.bos = 300, options), SP_BAD_ARGUMENT, "BOS is 300");
    check_refused((options = sound, options.packing = (sp_packing)3, options), SP_BAD_ARGUMENT, "packing number 3");
    check_refused((options = sound, options.struct_bytes = 8, options), SP_BAD_ARGUMENT, "struct_bytes is 8");
    sp_loader *loader = make_loader(sound);
    sp_batch batch;
    assert_fails(sp_loader_batch(loader, -1, &batch), SP_BAD_ARGUMENT, "step -1");
    assert_fails(sp_loader_batch(loader, INT64_MAX, &batch), SP_BAD_ARGUMENT, "out of range");
    sp_loader_free(loader);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_are_pure_functions_of_the_step),
        cmocka_unit_test(epoch_visits_every_sequence_once),
        cmocka_unit_test(ranks_share_the_batches_of_one),
        cmocka_unit_test(in_order_reads_the_text_once),
        cmocka_unit_test(bos_stands_before_every_sequence),
        cmocka_unit_test(documents_begin_anew),
        cmocka_unit_test(names_are_found_again),
        cmocka_unit_test(texts_shorter_than_a_sequence_are_refused),
        cmocka_unit_test(options_out_of_range_are_refused),
    };
    return cmocka_run_group_tests_name("text loader", tests, set_up, tear_down);
}
