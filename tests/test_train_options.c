/* The options: one table from which text, JSON, ranges and the agreement of a resumed run follow. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "train/options.h"

static void expect_message(const char *part) {
    if (!strstr(sp_last_message(), part)) fail_msg("\"%s\" does not say \"%s\"", sp_last_message(), part);
}

static void defaults_pass_the_check(void **state) {
    (void)state;
    sp_train_options options = sp_train_options_default();
    assert_int_equal(sp_train_options_check(&options), SP_OK);
    assert_true(options.adam_eps == 1e-15 && options.beta1 == 0.9 && options.beta2 == 0.95);
    assert_true(options.weight_decay == 0.1 && options.clip_norm == 1 && options.learning_rate == 3e-4);
}

static void every_option_reads_what_it_writes(void **state) {
    (void)state;
    sp_train_options options = sp_train_options_default(), copy = options;
    options.learning_rate = 0.1 / 3;
    options.n_tokens = 123456789012345;
    options.packing = SP_PACKING_DOCUMENTS;
    options.schedule = SP_SCHEDULE_WSD;
    options.resume = true;
    for (int i = 0; sp_train_option_at(i); i++) {
        char text[64], again[64];
        const char *name = sp_train_option_at(i)->name;
        sp_train_option_get(&options, name, text, sizeof text);
        assert_int_equal(sp_train_option_set(&copy, name, text), SP_OK);
        sp_train_option_get(&copy, name, again, sizeof again);
        if (strcmp(name, "sample-prompt") != 0) assert_string_not_equal(text, "");
        assert_string_equal(text, again);
    }
    assert_int_equal(copy.n_tokens, options.n_tokens);
    assert_int_equal(copy.packing, options.packing);
    assert_int_equal(copy.schedule, options.schedule);
    assert_true(copy.resume);
    assert_null(sp_train_option_at(-1));
}

static void counts_take_suffixes(void **state) {
    (void)state;
    sp_train_options options = sp_train_options_default();
    assert_int_equal(sp_train_option_set(&options, "tokens", "52G"), SP_OK);
    assert_int_equal(options.n_tokens, 52000000000);
    assert_int_equal(sp_train_option_set(&options, "steps", "10k"), SP_OK);
    assert_int_equal(options.n_steps, 10000);
}

static void wrong_text_is_refused_with_name_and_value(void **state) {
    (void)state;
    static const struct {
        const char *name, *text, *part;
    } cases[] = {
        {"batch", "0", "batch: 0 is not between 1 and"},
        {"batch", "four", "batch: \"four\""},
        {"batch", "4x", "batch: \"4x\""},
        {"batch", "", "batch: \"\""},
        {"steps", "99999999999999999999", "steps: 99999999999999999999 is too large"},
        {"steps", "-1", "steps: -1"},
        {"learning-rate", "nan", "learning-rate: nan"},
        {"learning-rate", "1e-3x", "learning-rate: \"1e-3x\""},
        {"beta2", "1", "beta2: 1 "},
        {"rate-floor", "1.5", "rate-floor: 1.5"},
        {"packing", "tight", "tight"},
        {"schedule", "step", "\"step\""},
        {"resume", "maybe", "resume: \"maybe\""},
        {"speed", "11", "\"speed\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sp_train_options options = sp_train_options_default(), before = options;
        assert_int_equal(sp_train_option_set(&options, cases[i].name, cases[i].text), SP_BAD_ARGUMENT);
        expect_message(cases[i].part);
        assert_memory_equal(&options, &before, sizeof options);
    }
}

static void contradictions_are_refused(void **state) {
    (void)state;
    sp_train_options good = sp_train_options_default(), options;
    options = good, options.n_steps = 0;
    assert_int_equal(sp_train_options_check(&options), SP_BAD_ARGUMENT);
    expect_message("would not end");
    options.minutes = 1;
    assert_int_equal(sp_train_options_check(&options), SP_BAD_ARGUMENT);
    expect_message("schedule: cosine needs steps or tokens");
    options.schedule = SP_SCHEDULE_CONSTANT;
    assert_int_equal(sp_train_options_check(&options), SP_OK);
    options = good, options.warmup_steps = 1000;
    assert_int_equal(sp_train_options_check(&options), SP_BAD_ARGUMENT);
    expect_message("warmup: 1000 steps, the whole run has 1000");
    options = good, options.schedule = SP_SCHEDULE_WSD, options.warmup_steps = 900;
    assert_int_equal(sp_train_options_check(&options), SP_BAD_ARGUMENT);
    expect_message("decay-fraction: 0.2 of 1000 steps leaves no room for 900");
    options = good, options.T = 1;
    assert_int_equal(sp_train_options_check(&options), SP_BAD_ARGUMENT);
    expect_message("length: 1 ");
    options = good, options.schedule = (sp_schedule)9;
    assert_int_equal(sp_train_options_check(&options), SP_BAD_ARGUMENT);
    options = good, options.struct_bytes = 8;
    assert_int_equal(sp_train_options_check(&options), SP_BAD_ARGUMENT);
}

/* The status of resuming, after n_done steps, a run of `before` with `now`. */
static sp_status resume(const sp_train_options *now, const sp_train_options *before, int64_t n_done) {
    json_t *saved, *parsed;
    char *text;
    assert_int_equal(sp_train_options_format(&saved, before), SP_OK);
    assert_int_equal(sp_json_format(&text, saved, 0), SP_OK);
    assert_int_equal(sp_json_parse(&parsed, text, (int64_t)strlen(text), "text"), SP_OK);
    sp_status status = sp_train_options_agree(now, parsed, n_done, "run/training.json");
    free(text);
    json_decref(parsed);
    json_decref(saved);
    return status;
}

static void resumed_run_may_change_only_what_no_step_depends_on(void **state) {
    (void)state;
    static const struct {
        const char *name, *value;
        bool free;
    } cases[] = {
        {"batch", "5", false},
        {"length", "64", false},
        {"accumulate", "2", false},
        {"packing", "concatenate", false},
        {"seed", "2", false},
        {"steps", "1001", false},
        {"tokens", "100k", false},
        {"minutes", "3", true},
        {"learning-rate", "0.1", false},
        {"rate-floor", "0.2", false},
        {"schedule", "linear", false},
        {"warmup", "7", false},
        {"decay-fraction", "0.3", true}, /* not wsd */
        {"beta1", "0.8", false},
        {"beta2", "0.9", false},
        {"weight-decay", "0", false},
        {"adam-eps", "1e-8", false},
        {"clip", "0", false},
        {"validate-every", "1", true},
        {"validation-tokens", "1", true},
        {"sample-every", "1", true},
        {"sample-prompt", "Hi", true},
        {"checkpoint-every", "1", true},
        {"keep", "9", true},
        {"log-every", "9", true},
        {"resume", "yes", true},
    };
    int n_options = 0;
    while (sp_train_option_at(n_options)) n_options++;
    assert_int_equal(n_options, sizeof cases / sizeof *cases);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sp_train_options before = sp_train_options_default(), now = before;
        assert_int_equal(resume(&now, &before, 500), SP_OK);
        assert_int_equal(sp_train_option_set(&now, cases[i].name, cases[i].value), SP_OK);
        sp_status status = resume(&now, &before, 500);
        if (status != (cases[i].free ? SP_OK : SP_BAD_ARGUMENT)) fail_msg("%s: %d", cases[i].name, (int)status);
        if (status != SP_OK) expect_message(cases[i].name);
    }
}

static void contradiction_on_resume_names_both_values(void **state) {
    (void)state;
    sp_train_options before = sp_train_options_default(), now = before;
    now.learning_rate = 1e-3;
    assert_int_equal(resume(&now, &before, 10), SP_BAD_ARGUMENT);
    assert_string_equal(sp_last_message(), "learning-rate: 0.001 contradicts the run to be resumed, which has 0.0003 "
                                           "(run/training.json)");
}

static void run_may_be_prolonged_while_its_rates_stay_the_same(void **state) {
    (void)state;
    sp_train_options before = sp_train_options_default(), now;
    before.schedule = SP_SCHEDULE_WSD;
    now = before;
    now.n_steps = 2000;
    assert_int_equal(resume(&now, &before, 800), SP_OK); /* its decay begins with step 800 */
    assert_int_equal(resume(&now, &before, 801), SP_BAD_ARGUMENT);
    expect_message("steps: 2000 contradicts the run to be resumed, which has 1000");
    before.schedule = now.schedule = SP_SCHEDULE_CONSTANT;
    assert_int_equal(resume(&now, &before, 1000), SP_OK);
    before.schedule = now.schedule = SP_SCHEDULE_COSINE;
    assert_int_equal(resume(&now, &before, 101), SP_BAD_ARGUMENT);
}

static void damaged_saved_options_are_a_bad_file(void **state) {
    (void)state;
    sp_train_options options = sp_train_options_default();
    assert_int_equal(sp_train_options_agree(&options, NULL, 1, "x.json"), SP_BAD_FILE);
    expect_message("x.json: option batch is missing");
    json_t *saved;
    assert_int_equal(sp_train_options_format(&saved, &options), SP_OK);
    json_object_set_new(saved, "batch", json_string("many"));
    assert_int_equal(sp_train_options_agree(&options, saved, 1, "x.json"), SP_BAD_FILE);
    expect_message("x.json: batch: \"many\"");
    json_decref(saved);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_pass_the_check),
        cmocka_unit_test(every_option_reads_what_it_writes),
        cmocka_unit_test(counts_take_suffixes),
        cmocka_unit_test(wrong_text_is_refused_with_name_and_value),
        cmocka_unit_test(contradictions_are_refused),
        cmocka_unit_test(resumed_run_may_change_only_what_no_step_depends_on),
        cmocka_unit_test(contradiction_on_resume_names_both_values),
        cmocka_unit_test(run_may_be_prolonged_while_its_rates_stay_the_same),
        cmocka_unit_test(damaged_saved_options_are_a_bad_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
