/* The training loop: exact resume, accumulation, skipped steps, ends, what it refuses. */
#define _GNU_SOURCE
#include "train_support.h"

#include <math.h>

#include "base/json.h"
#include "softpick/checkpoint.h"
#include "train/state.h"

static sp_status train(const char *run, sp_dtype dtype, const sp_train_options *options,
                       const sp_train_callbacks *callbacks, sp_train_result *result) {
    sp_model *model = tiny_model(dtype);
    sp_status status =
        sp_train(model, world_tokenizer, world_path("shards"), world_path(run), options, callbacks, result);
    sp_model_free(model);
    return status;
}

/* ---- what a run leaves ---- */

static void expect_same_file(const char *a, const char *b) {
    sp_file_map left, right;
    assert_ok(sp_file_map_open(&left, world_path(a)));
    assert_ok(sp_file_map_open(&right, world_path(b)));
    assert_int_equal(left.n_bytes, right.n_bytes);
    assert_memory_equal(left.data, right.data, (size_t)left.n_bytes);
    sp_file_map_close(&left);
    sp_file_map_close(&right);
}

static void expect_same_checkpoint(const char *a, const char *b) {
    static const char *const files[] = {"config.json", "model.safetensors", "training.json", "training.safetensors",
                                        "tokenizer.model"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char left[80], right[80];
        snprintf(left, sizeof left, "%s/%s", a, files[i]);
        snprintf(right, sizeof right, "%s/%s", b, files[i]);
        expect_same_file(left, right);
    }
}

/* Lines of one kind, as an array of objects. */
static json_t *read_events(const char *run, const char *event) {
    char name[80], *text;
    snprintf(name, sizeof name, "%s/log.jsonl", run);
    assert_ok(sp_file_read(world_path(name), &text, NULL));
    json_t *events = json_array();
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *object;
        assert_ok(sp_json_parse(&object, line, (int64_t)strlen(line), name));
        if (strcmp(json_string_value(json_object_get(object, "event")), event) == 0) json_array_append(events, object);
        json_decref(object);
    }
    free(text);
    return events;
}

static double number_in(const json_t *object, const char *key) {
    return json_number_value(json_object_get(object, key));
}

/* Every step once, in order, and the same numbers in both. */
static void expect_same_steps(const char *a, const char *b, int n_steps) {
    static const char *const keys[] = {"step", "tokens", "loss", "gradient_norm", "learning_rate", "skipped"};
    json_t *left = read_events(a, "step"), *right = read_events(b, "step");
    assert_int_equal(json_array_size(left), n_steps);
    assert_int_equal(json_array_size(right), n_steps);
    for (size_t i = 0; i < (size_t)n_steps; i++)
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            const json_t *x = json_object_get(json_array_get(left, i), keys[k]);
            const json_t *y = json_object_get(json_array_get(right, i), keys[k]);
            assert_true(x && json_equal(x, y));
        }
    for (int i = 0; i < n_steps; i++) assert_int_equal((int)number_in(json_array_get(right, (size_t)i), "step"), i + 1);
    json_decref(left);
    json_decref(right);
}

static void expect_same_events(const char *a, const char *b, const char *event, int n_events) {
    json_t *left = read_events(a, event), *right = read_events(b, event);
    assert_int_equal(json_array_size(left), n_events);
    assert_true(json_equal(left, right));
    json_decref(left);
    json_decref(right);
}

/* ---- exact resume ---- */

typedef struct stopper {
    int64_t at, step;
} stopper;

static int stop_at(void *user) {
    stopper *s = user;
    return ++s->step >= s->at;
}

static void train_until(const char *run, sp_dtype dtype, sp_train_options options, int64_t step) {
    stopper s = {.at = step};
    sp_train_result before;
    if (options.resume) {
        char *newest;
        assert_ok(sp_checkpoint_newest(world_path(run), &newest));
        s.step = newest ? atoll(strrchr(newest, '-') + 1) : 0;
        free(newest);
    }
    sp_train_callbacks callbacks = {.user = &s, .stop = stop_at};
    assert_ok(train(run, dtype, &options, &callbacks, &before));
    assert_int_equal(before.n_steps, step);
    assert_true(before.stopped_early);
    assert_true(isnan(before.validation_loss) == (options.validate_every == 0 || step % options.validate_every != 0));
}

static void expect_resume_is_exact(sp_dtype dtype, const char *whole, const char *parts) {
    sp_train_options options = tiny_options();
    options.n_accumulate = 2;
    options.validate_every = 4;
    options.sample_every = 5;
    options.checkpoint_every = 7;
    sp_train_result unbroken, resumed;
    assert_ok(train(whole, dtype, &options, NULL, &unbroken));
    train_until(parts, dtype, options, 10);
    options.resume = true;
    train_until(parts, dtype, options, 13);
    assert_ok(train(parts, dtype, &options, NULL, &resumed));
    char a[64], b[64];
    snprintf(a, sizeof a, "%s/step-00000020", whole);
    snprintf(b, sizeof b, "%s/step-00000020", parts);
    expect_same_checkpoint(a, b);
    expect_same_steps(whole, parts, 20);
    expect_same_events(whole, parts, "validation", 5);
    expect_same_events(whole, parts, "sample", 4);
    assert_true(unbroken.final_loss == resumed.final_loss);
    assert_true(unbroken.validation_loss == resumed.validation_loss);
    assert_int_equal(unbroken.n_tokens, resumed.n_tokens);
    assert_int_equal(resumed.n_tokens, 20 * 2 * 4 * 16);
    assert_true(unbroken.final_loss < 5); /* log 300 = 5.7: it has learned */
}

static void resumed_run_is_the_unbroken_run_f32(void **state) {
    (void)state;
    expect_resume_is_exact(SP_DTYPE_F32, "whole-f32", "parts-f32");
}

static void resumed_run_is_the_unbroken_run_bf16(void **state) {
    (void)state;
    expect_resume_is_exact(SP_DTYPE_BF16, "whole-bf16", "parts-bf16");
}

static void lines_after_the_restored_step_are_logged_again(void **state) {
    (void)state;
    sp_train_options options = tiny_options();
    sp_train_result result;
    assert_ok(train("log-whole", SP_DTYPE_F32, &options, NULL, &result));
    train_until("log-parts", SP_DTYPE_F32, options, 10);
    FILE *log = fopen(world_path("log-parts/log.jsonl"), "a");
    fputs("{\"event\":\"step\",\"step\":11,\"loss\":9}\n{\"event\":\"st", log);
    fclose(log);
    options.resume = true;
    assert_ok(train("log-parts", SP_DTYPE_F32, &options, NULL, &result));
    expect_same_steps("log-whole", "log-parts", 20);
    json_t *runs = read_events("log-parts", "run");
    assert_int_equal(json_array_size(runs), 2);
    assert_int_equal((int)number_in(json_array_get(runs, 1), "step"), 10);
    assert_non_null(json_object_get(json_object_get(json_array_get(runs, 0), "machine"), "cpu"));
    json_decref(runs);
}

static void run_without_a_checkpoint_begins_anew(void **state) {
    (void)state;
    assert_ok(sp_folder_make(world_path("early")));
    const char *killed = "{\"event\":\"run\",\"step\":0}\n{\"event\":\"step\",\"step\":1}\n";
    assert_ok(sp_file_write(world_path("early/log.jsonl"), killed, (int64_t)strlen(killed)));
    sp_train_options options = tiny_options();
    options.n_steps = 2;
    options.resume = true;
    sp_train_result result;
    assert_ok(train("early", SP_DTYPE_F32, &options, NULL, &result));
    json_t *steps = read_events("early", "step"), *runs = read_events("early", "run");
    assert_int_equal(json_array_size(steps), 2);
    assert_int_equal(json_array_size(runs), 1);
    json_decref(steps);
    json_decref(runs);
}

static void finished_run_resumed_changes_nothing(void **state) {
    (void)state;
    sp_train_options options = tiny_options();
    options.n_steps = 3;
    sp_train_result first, again;
    assert_ok(train("finished", SP_DTYPE_F32, &options, NULL, &first));
    char *before, *after;
    assert_ok(sp_file_read(world_path("finished/log.jsonl"), &before, NULL));
    options.resume = true;
    assert_ok(train("finished", SP_DTYPE_F32, &options, NULL, &again));
    assert_ok(sp_file_read(world_path("finished/log.jsonl"), &after, NULL));
    assert_string_equal(before, after);
    assert_true(first.validation_loss == again.validation_loss && first.final_loss == again.final_loss);
    free(before);
    free(after);
}

/* ---- what a step is ---- */

static void accumulated_step_is_the_large_batch(void **state) {
    (void)state;
    sp_train_options options = tiny_options();
    options.n_steps = 6;
    options.packing = SP_PACKING_DOCUMENTS; /* micro-batches with different numbers of targets */
    sp_train_result large, small;
    assert_ok(train("large", SP_DTYPE_F32, &options, NULL, &large));
    options.B = 1;
    options.n_accumulate = 4;
    assert_ok(train("small", SP_DTYPE_F32, &options, NULL, &small));
    json_t *a = read_events("large", "step"), *b = read_events("small", "step");
    for (size_t i = 0; i < 6; i++) {
        const json_t *x = json_array_get(a, i), *y = json_array_get(b, i);
        assert_true(fabs(number_in(x, "loss") - number_in(y, "loss")) < 1e-4);
        assert_true(fabs(number_in(x, "gradient_norm") / number_in(y, "gradient_norm") - 1) < 1e-3);
    }
    assert_int_equal(large.n_tokens, small.n_tokens);
    json_decref(a);
    json_decref(b);
}

/* Makes a weight infinite after one step and mends it after the next. */
typedef struct poison {
    sp_model *model;
    int64_t from, until; /* steps */
    float kept;
    int64_t n_skipped;
    float *values; /* of the model when it was poisoned */
} poison;

static void poison_step(void *user, const sp_train_step *step) {
    poison *p = user;
    float *values = sp_model_parameters(p->model);
    int64_t n = sp_model_n_parameters(p->model);
    p->n_skipped += step->skipped;
    assert_int_equal(step->skipped, step->step > p->from && step->step <= p->until);
    if (step->step == p->from) {
        p->kept = values[0];
        values[0] = INFINITY; /* of the embedding */
        for (int64_t i = 0; i < 300 * 32; i++) values[i] = INFINITY;
        memcpy(p->values, values, (size_t)n * sizeof *values);
    } else if (step->skipped)
        assert_memory_equal(values, p->values, (size_t)n * sizeof *values);
    if (step->step == p->until)
        for (int64_t i = 0; i < 300 * 32; i++) values[i] = 0.01f * (float)(i % 7);
    assert_int_equal(sp_model_refresh(p->model), SP_OK);
}

static void step_that_is_not_finite_changes_nothing(void **state) {
    (void)state;
    sp_train_options options = tiny_options();
    options.n_steps = 8;
    poison p = {.model = tiny_model(SP_DTYPE_F32), .from = 3, .until = 5};
    p.values = malloc((size_t)sp_model_n_parameters(p.model) * sizeof *p.values);
    sp_train_callbacks callbacks = {.user = &p, .step = poison_step};
    sp_train_result result;
    assert_ok(
        sp_train(p.model, world_tokenizer, world_path("shards"), world_path("poison"), &options, &callbacks, &result));
    assert_int_equal(p.n_skipped, 2);
    assert_int_equal(result.n_skipped, 2);
    assert_true(isfinite(result.final_loss));
    json_t *saved;
    assert_ok(sp_json_read(&saved, world_path("poison/step-00000008/training.json")));
    assert_int_equal((int)number_in(saved, "step"), 8);
    assert_int_equal((int)number_in(saved, "updates"), 6);
    json_decref(saved);
    json_t *steps = read_events("poison", "step");
    assert_true(json_is_true(json_object_get(json_array_get(steps, 3), "skipped")));
    assert_true(json_is_null(json_object_get(json_array_get(steps, 3), "loss")));
    json_decref(steps);
    sp_model_free(p.model);
    free(p.values);
}

static void hopeless_run_ends_with_an_error(void **state) {
    (void)state;
    sp_train_options options = tiny_options();
    options.n_steps = 100;
    sp_model *model = tiny_model(SP_DTYPE_F32);
    for (int64_t i = 0; i < sp_model_n_parameters(model); i++) sp_model_parameters(model)[i] = NAN;
    assert_int_equal(sp_model_refresh(model), SP_OK);
    sp_train_result result;
    assert_int_equal(
        sp_train(model, world_tokenizer, world_path("shards"), world_path("hopeless"), &options, NULL, &result),
        SP_UNSUPPORTED);
    expect_message("step 50: the loss or the gradient was not finite in 50 steps in a row");
    sp_model_free(model);
}

static void optimizer_clips_by_the_global_norm(void **state) {
    (void)state;
    sp_train_options options = tiny_options();
    options.weight_decay = 0;
    options.adam_eps = 1; /* so that the size of the gradient shows in the update */
    double moved[2];
    for (int clipped = 0; clipped < 2; clipped++) {
        options.clip_norm = clipped ? 0.5 : 0;
        sp_model *model = tiny_model(SP_DTYPE_F32);
        sp_optimizer *optimizer;
        assert_ok(sp_optimizer_new(&optimizer, model, &options));
        assert_int_equal(sp_model_zero_gradients(model), SP_OK);
        float first = sp_model_parameters(model)[5];
        sp_model_gradients(model)[5] = 3;
        sp_model_gradients(model)[9] = 4;
        double norm;
        bool updated;
        assert_int_equal(sp_optimizer_step(optimizer, 0.1, &norm, &updated), SP_OK);
        assert_true(updated);
        assert_true(norm == 5);
        moved[clipped] = (double)(first - sp_model_parameters(model)[5]);
        sp_model_gradients(model)[7] = NAN;
        assert_int_equal(sp_optimizer_step(optimizer, 0.1, &norm, &updated), SP_OK);
        assert_false(updated);
        assert_true(isnan(norm));
        sp_optimizer_free(optimizer);
        sp_model_free(model);
    }
    assert_true(fabs(moved[0] - 0.1 * 3 / 4) < 1e-6);
    assert_true(fabs(moved[1] - 0.1 * 0.3 / 1.3) < 1e-6);
}

/* ---- ends ---- */

static void run_stops_by_tokens_minutes_and_wish(void **state) {
    (void)state;
    sp_train_options options = tiny_options();
    sp_train_result result;
    options.n_steps = 0;
    options.n_tokens = 3 * 64 - 1;
    assert_ok(train("tokens", SP_DTYPE_F32, &options, NULL, &result));
    assert_int_equal(result.n_steps, 3);
    assert_false(result.stopped_early);
    options = tiny_options();
    options.minutes = 1e-9;
    assert_ok(train("minutes", SP_DTYPE_F32, &options, NULL, &result));
    assert_int_equal(result.n_steps, 1);
    assert_true(result.stopped_early);
    assert_true(sp_file_exists(world_path("minutes/step-00000001/training.safetensors")));
    train_until("wish", SP_DTYPE_F32, tiny_options(), 4);
    assert_true(sp_folder_exists(world_path("wish/step-00000004")));
}

static void only_the_newest_checkpoints_are_kept(void **state) {
    (void)state;
    sp_train_options options = tiny_options();
    options.n_steps = 7;
    options.checkpoint_every = 2;
    sp_train_result result;
    assert_ok(train("keep", SP_DTYPE_F32, &options, NULL, &result));
    assert_false(sp_folder_exists(world_path("keep/step-00000004")));
    assert_true(sp_folder_exists(world_path("keep/step-00000006")));
    assert_true(sp_folder_exists(world_path("keep/step-00000007")));
}

static void validation_is_that_of_the_saved_model(void **state) {
    (void)state;
    sp_train_options options = tiny_options();
    options.n_steps = 5;
    options.validate_every = 2;
    options.validation_tokens_max = 0;
    sp_train_result result;
    assert_ok(train("validated", SP_DTYPE_F32, &options, NULL, &result));
    sp_model *model;
    sp_model_options model_options = sp_model_options_default();
    assert_ok(sp_model_open(&model, world_path("validated/step-00000005"), &model_options));
    double loss;
    int64_t n;
    assert_ok(sp_validate(model, world_path("shards"), 4, 16, SP_PACKING_BOS, 0, &loss, &n));
    assert_true(fabs(loss - result.validation_loss) < 1e-6);
    assert_int_equal(n, result.validation_targets);
    assert_ok(sp_validate(model, world_path("shards"), 4, 16, SP_PACKING_BOS, 65, &loss, &n));
    assert_int_equal(n, 128);
    sp_model_free(model);
    json_t *events = read_events("validated", "validation");
    assert_int_equal(json_array_size(events), 3);
    json_decref(events);
}

static void count_sample(void *user, int64_t step, const char *text) {
    assert_int_equal(step % 2, 0);
    assert_true(strncmp(text, "the king", 8) == 0);
    ++*(int *)user;
}

static void samples_begin_with_the_prompt(void **state) {
    (void)state;
    sp_train_options options = tiny_options();
    options.n_steps = 5;
    options.sample_every = 2;
    options.sample_prompt = "the king";
    int n_samples = 0;
    sp_train_callbacks callbacks = {.user = &n_samples, .sample = count_sample};
    sp_train_result result;
    assert_ok(train("samples", SP_DTYPE_F32, &options, &callbacks, &result));
    assert_int_equal(n_samples, 2);
    json_t *events = read_events("samples", "sample");
    assert_int_equal(json_array_size(events), 2);
    json_decref(events);
}

/* ---- what is refused ---- */

static void folder_with_a_run_is_refused_without_resume(void **state) {
    (void)state;
    sp_train_options options = tiny_options();
    options.n_steps = 2;
    sp_train_result result;
    assert_ok(train("taken", SP_DTYPE_F32, &options, NULL, &result));
    assert_int_equal(train("taken", SP_DTYPE_F32, &options, NULL, &result), SP_BAD_ARGUMENT);
    expect_message("taken: holds a run already: resume it, or name another folder");
    assert_ok(sp_folder_remove(world_path("taken/step-00000002")));
    assert_int_equal(train("taken", SP_DTYPE_F32, &options, NULL, &result), SP_BAD_ARGUMENT);
}

static void other_run_is_not_resumed(void **state) {
    (void)state;
    sp_train_options options = tiny_options();
    options.n_steps = 2;
    sp_train_result result;
    assert_ok(train("other", SP_DTYPE_F32, &options, NULL, &result));
    options.resume = true;
    assert_int_equal(train("other", SP_DTYPE_BF16, &options, NULL, &result), SP_BAD_ARGUMENT);
    expect_message("dtype: bf16 contradicts the run to be resumed, which has f32");
    sp_train_options faster = options;
    faster.learning_rate = 0.5;
    assert_int_equal(train("other", SP_DTYPE_F32, &faster, NULL, &result), SP_BAD_ARGUMENT);
    expect_message("learning-rate: 0.5 contradicts the run to be resumed, which has 0.01");
    sp_model_config config = tiny_config();
    config.n_layers = 3;
    sp_model *model = new_model(&config, SP_DTYPE_F32);
    assert_int_equal(sp_train(model, NULL, world_path("shards"), world_path("other"), &options, NULL, &result),
                     SP_BAD_ARGUMENT);
    expect_message("num_hidden_layers: 3 contradicts the run to be resumed, which has 2");
    sp_model_free(model);
    const char *text = world_path("other.txt");
    write_world_text(text, 500);
    sp_shards_write_options shards = sp_shards_write_options_default();
    assert_ok(sp_shards_write(world_path("shards2"), world_tokenizer, &text, 1, &shards));
    model = tiny_model(SP_DTYPE_F32);
    assert_int_equal(sp_train(model, NULL, world_path("shards2"), world_path("other"), &options, NULL, &result),
                     SP_BAD_ARGUMENT);
    expect_message("data: tokens");
    sp_model_free(model);
}

static void damaged_state_is_named(void **state) {
    (void)state;
    sp_train_options options = tiny_options();
    options.n_steps = 2;
    sp_train_result result;
    assert_ok(train("damaged", SP_DTYPE_F32, &options, NULL, &result));
    options.resume = true;
    const char *path = "damaged/step-00000002/training.json";
    json_t *saved;
    assert_ok(sp_json_read(&saved, world_path(path)));
    json_object_set_new(saved, "schema", json_integer(99));
    assert_ok(sp_json_write(world_path(path), saved));
    assert_int_equal(train("damaged", SP_DTYPE_F32, &options, NULL, &result), SP_VERSION);
    expect_message("training.json: schema 99");
    json_object_set_new(saved, "schema", json_integer(1));
    json_object_del(saved, "updates");
    assert_ok(sp_json_write(world_path(path), saved));
    assert_int_equal(train("damaged", SP_DTYPE_F32, &options, NULL, &result), SP_BAD_FILE);
    expect_message("training.json: updates is missing");
    json_decref(saved);
}

static void unfit_text_and_model_are_refused_before_the_folder_is_made(void **state) {
    (void)state;
    sp_train_options options = tiny_options();
    sp_train_result result;
    options.T = 65;
    assert_int_equal(train("unfit", SP_DTYPE_F32, &options, NULL, &result), SP_BAD_ARGUMENT);
    expect_message("length: 65 tokens, the model has 64 positions");
    options = tiny_options();
    sp_model_config config = tiny_config();
    config.vocabulary = 200;
    sp_model *model = new_model(&config, SP_DTYPE_F32);
    const char *shards = world_path("shards"), *run = world_path("unfit");
    assert_int_equal(sp_train(model, NULL, shards, run, &options, NULL, &result), SP_BAD_ARGUMENT);
    expect_message("vocabulary of 300, the model one of 200");
    sp_model_free(model);
    config = tiny_config();
    config.max_positions = 4096;
    options.T = 4096; /* the held-out text is shorter */
    model = new_model(&config, SP_DTYPE_F32);
    assert_int_equal(sp_train(model, NULL, world_path("shards"), run, &options, NULL, &result), SP_BAD_FILE);
    expect_message("too short for one sequence of 4096");
    assert_int_equal(sp_train(model, NULL, world_path("nowhere"), run, &options, NULL, &result), SP_IO);
    expect_message("nowhere");
    sp_model_free(model);
    options = tiny_options();
    sp_model_options plain = sp_model_options_default();
    assert_ok(sp_model_new(&model, &config, &plain));
    assert_int_equal(sp_train(model, NULL, world_path("shards"), run, &options, NULL, &result), SP_BAD_ARGUMENT);
    expect_message("not made for training");
    sp_model_free(model);
    assert_false(sp_folder_exists(world_path("unfit")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resumed_run_is_the_unbroken_run_f32),
        cmocka_unit_test(resumed_run_is_the_unbroken_run_bf16),
        cmocka_unit_test(lines_after_the_restored_step_are_logged_again),
        cmocka_unit_test(run_without_a_checkpoint_begins_anew),
        cmocka_unit_test(finished_run_resumed_changes_nothing),
        cmocka_unit_test(accumulated_step_is_the_large_batch),
        cmocka_unit_test(step_that_is_not_finite_changes_nothing),
        cmocka_unit_test(hopeless_run_ends_with_an_error),
        cmocka_unit_test(optimizer_clips_by_the_global_norm),
        cmocka_unit_test(run_stops_by_tokens_minutes_and_wish),
        cmocka_unit_test(only_the_newest_checkpoints_are_kept),
        cmocka_unit_test(validation_is_that_of_the_saved_model),
        cmocka_unit_test(samples_begin_with_the_prompt),
        cmocka_unit_test(folder_with_a_run_is_refused_without_resume),
        cmocka_unit_test(other_run_is_not_resumed),
        cmocka_unit_test(damaged_state_is_named),
        cmocka_unit_test(unfit_text_and_model_are_refused_before_the_folder_is_made),
    };
    return cmocka_run_group_tests(tests, make_world, remove_world);
}
