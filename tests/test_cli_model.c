/* softpick measure and softpick generate, as a user runs them, on a small checkpoint made here.
 * The tool is expected beside this program. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/random.h"
#include "data_path.h"
#include "softpick/checkpoint.h"
#include "softpick/measure.h"
#include "softpick/model.h"
#include "softpick/text.h"

enum { VOCABULARY = 330, POSITIONS = 120 };

static struct { char folder[64], tool[512]; } place;

/* ---- a tokenizer, token shards and a run with one checkpoint ---------------------------------------------------- */

static void write_text(const char *path) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (uint64_t line = 0; line < 400; line++) {
        for (uint64_t word = 0; word < 12; word++)
            for (uint64_t letter = 0; letter < 4; letter++)
                fputc(letter ? "aeioulmnrst"[sp_random_below(1, line, word * 4 + letter, 11)] : ' ', file);
        fputc('\n', file);
    }
    assert_int_equal(fclose(file), 0);
}

static sp_status add_tokenizer(void *user, const char *folder) {
    sp_tokenizer *tokenizer;
    SP_TRY(sp_tokenizer_open(&tokenizer, *(const char **)user));
    sp_status status = sp_tokenizer_save(tokenizer, folder);
    sp_tokenizer_free(tokenizer);
    return status;
}

static void write_checkpoint(const char *folder, const char *tokenizer) {
    sp_model_config config = sp_model_config_default();
    config.vocabulary = VOCABULARY;
    config.width = config.ffn_width = 32;
    config.n_layers = 2;
    config.n_heads = config.n_kv_heads = 4;
    config.head_width = 8;
    config.max_positions = POSITIONS;
    config.initializer_range = 0.3;
    config.bos = 1;
    config.eos = -1; /* texts have the length asked for */
    config.attention_function = SP_NORMALIZER_SOFTPICK;
    sp_model_options options = sp_model_options_default();
    sp_model *model;
    char *json;
    assert_int_equal(sp_model_new(&model, &config, &options), SP_OK);
    assert_int_equal(sp_model_config_format(&config, &json), SP_OK);
    sp_named_tensor tensors[64];
    int64_t n = sp_model_n_tensors(model);
    assert_true(n <= 64);
    for (int64_t i = 0; i < n; i++)
        tensors[i] = (sp_named_tensor){sp_model_tensor_name(model, i), sp_model_tensor(model, i)};
    sp_checkpoint_content content = {
        .config = json, .tensors = tensors, .n_tensors = n, .add_files = add_tokenizer, .user = &tokenizer};
    assert_int_equal(sp_checkpoint_write(folder, &content), SP_OK);
    free(json);
    sp_model_free(model);
}

static int open_place(void **state) {
    (void)state;
    ssize_t n = readlink("/proc/self/exe", place.tool, sizeof place.tool - 16);
    assert_true(n > 0);
    place.tool[n] = 0;
    strcpy(strrchr(place.tool, '/'), "/softpick");
    strcpy(place.folder, "/tmp/softpick_cli_XXXXXX");
    assert_non_null(mkdtemp(place.folder));
    assert_int_equal(chdir(place.folder), 0);
    assert_int_equal(setenv("OMP_NUM_THREADS", "1", 1), 0); /* many short runs of a tiny model */
    write_text("text.txt");
    const char *paths[] = {"text.txt"};
    sp_tokenizer_train_options train = sp_tokenizer_train_options_default();
    train.vocabulary = VOCABULARY;
    assert_int_equal(sp_tokenizer_train("tokenizer.model", paths, 1, &train), SP_OK);
    sp_tokenizer *tokenizer;
    assert_int_equal(sp_tokenizer_open(&tokenizer, "tokenizer.model"), SP_OK);
    sp_shards_write_options write = sp_shards_write_options_default();
    write.validation_fraction = 0.3;
    assert_int_equal(sp_shards_write("tokens", tokenizer, paths, 1, &write), SP_OK);
    sp_tokenizer_free(tokenizer);
    assert_int_equal(sp_folder_make("run"), SP_OK);
    assert_int_equal(sp_folder_make("empty"), SP_OK);
    write_checkpoint("run/step-00000020", "tokenizer.model");
    return 0;
}

static int close_place(void **state) {
    (void)state;
    return chdir("/") != 0 || sp_folder_remove(place.folder) != SP_OK;
}

/* ---- running the tool ------------------------------------------------------------------------------------------- */

/* Runs "softpick ARGUMENTS", standard output to the file out, standard error to err; returns the exit code. */
static int run(const char *arguments) {
    char command[2048];
    snprintf(command, sizeof command, "'%s' %s > out 2> err", place.tool, arguments);
    int status = system(command);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static char *content(const char *path, int64_t *n_bytes) {
    char *text;
    assert_int_equal(sp_file_read(path, &text, n_bytes), SP_OK);
    return text;
}

static void assert_holds(const char *path, const char *expected) {
    char *text = content(path, NULL);
    if (!strstr(text, expected)) fail_msg("%s: \"%s\" does not hold \"%s\"", path, text, expected);
    free(text);
}

/* One line on standard error that names `named`, nothing on standard output. */
static void assert_refused(const char *arguments, int code, const char *named) {
    int actual = run(arguments);
    if (actual != code) fail_msg("softpick %s: exit code %d, not %d", arguments, actual, code);
    assert_holds("err", named);
    char *text = content("err", NULL), *out = content("out", NULL);
    if (code == 3) assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    assert_string_equal(out, "");
    free(text);
    free(out);
}

static json_t *output(void) {
    int64_t n_bytes;
    char *text = content("out", &n_bytes);
    json_t *json = json_loadb(text, (size_t)n_bytes, JSON_ALLOW_NUL, NULL);
    assert_non_null(json);
    free(text);
    return json;
}

/* ---- measure ---------------------------------------------------------------------------------------------------- */

static void measure_prints_every_measure(void **state) {
    (void)state;
    assert_int_equal(run("measure run --data tokens --T 64 --samples 5 --measures all --lengths 24,64"), 0);
    for (int i = 0; sp_measure_name(i); i++) assert_holds("out", sp_measure_name(i));
    assert_holds("out", "5 of 64 tokens, packing bos, f32");
    assert_holds("out", "run/step-00000020 (softpick)");
    assert_holds("out", "without_bos");
    assert_holds("out", "at length 24 ");
    assert_holds("out", "64x128");
    assert_holds("out", "heads masked (outputs below 1e-06)");
}

static void measure_takes_the_quick_measures_unless_told(void **state) {
    (void)state;
    assert_int_equal(run("measure run --data tokens --T 64 --samples 2 --json"), 0);
    json_t *json = output(), *measures = json_object_get(json, "measures");
    for (int i = 0; sp_measure_name(i); i++)
        assert_int_equal(json_object_get(measures, sp_measure_name(i)) != NULL, sp_measure_is_default(i));
    json_decref(json);
    assert_int_equal(run("measure run --data tokens --T 64 --samples 2 --measures entropy,row_mass --json"), 0);
    json = output();
    assert_int_equal(json_object_size(json_object_get(json, "measures")), 2);
    json_decref(json);
}

static void measure_over_checkpoints_has_an_entry_for_each(void **state) {
    (void)state;
    assert_int_equal(run("measure run --data tokens --T 64 --samples 2 --over-checkpoints"), 0);
    assert_holds("out", "dead_heads");
    assert_holds("out", "\n        20 ");
    assert_int_equal(run("measure run --data tokens --T 64 --samples 2 --over-checkpoints --measures kurtosis --json"),
                     0);
    json_t *json = output(), *checkpoints = json_object_get(json, "checkpoints");
    assert_string_equal(json_string_value(json_object_get(json, "schema")), "softpick-measure-run/1");
    json_t *last = json_array_get(checkpoints, json_array_size(checkpoints) - 1);
    assert_int_equal(json_integer_value(json_object_get(last, "step")), 20);
    assert_int_equal(json_object_size(json_object_get(last, "measures")), 1);
    json_decref(json);
}

static void measure_as_json_is_one_document(void **state) {
    (void)state;
    assert_int_equal(run("measure run/step-00000020 --data tokens --T 64 --samples 5 --dtype bf16 --json --out o.json"),
                     0);
    json_t *json = output(), *written;
    assert_int_equal(sp_json_read(&written, "o.json"), SP_OK);
    assert_true(json_equal(json, written));
    assert_string_equal(json_string_value(json_object_get(json, "schema")), "softpick-measure/1");
    assert_string_equal(json_string_value(json_object_get(json, "packing")), "bos");
    const json_t *entry = json_object_get(json_object_get(json, "measures"), "kurtosis");
    assert_string_equal(json_string_value(json_object_get(entry, "dtype")), "bf16");
    json_decref(json);
    json_decref(written);
}

static void measure_help_defines_every_measure(void **state) {
    (void)state;
    assert_int_equal(run("measure --help"), 0);
    for (int i = 0; sp_measure_name(i); i++) assert_holds("out", sp_measure_name(i));
    assert_holds("out", "Examples:");
}

static void measure_names_what_is_wrong(void **state) {
    (void)state;
    assert_refused("measure", 2, "which model");
    assert_refused("measure run", 2, "--data");
    assert_refused("measure run run --data tokens", 2, "one model at a time");
    assert_refused("measure run --data tokens --T many", 2, "--length");
    assert_refused("measure run --data tokens --packing loose", 2, "--packing");
    assert_refused("measure run --data tokens --dtype f64", 2, "--dtype");
    assert_refused("measure run --data tokens --measures sinks", 2, "--measures: there is no measure \"sinks\"");
    assert_refused("measure run --data tokens --lengths 16,x", 2, "--lengths");
    assert_refused("measure run --data tokens --lengths 32,16 --T 64", 2, "length 16 follows 32");
    assert_refused("measure run --data tokens --lengths 32 --T 16", 2, "length 32 is more");
    assert_refused("measure nowhere --data tokens --over-checkpoints", 3, "nowhere: not a run");
    assert_refused("measure run/step-00000020 --data tokens --over-checkpoints", 3, "not a run");
    assert_refused("measure run --data tokens --T 121", 2, "T is 121");
    assert_refused("measure run --data tokens --attention softmax_plus_one", 3, "not softmax_plus_one as asked for");
    assert_refused("measure nowhere --data tokens", 3, "nowhere");
    assert_refused("measure empty --data tokens", 3, "empty");
    assert_refused("measure run --data empty", 3, "empty");
}

/* ---- generate --------------------------------------------------------------------------------------------------- */

#define PROMPT "na\xc3\xafve \xe2\x82\xac lot"

static void text_begins_with_the_prompt_and_is_the_same_again(void **state) {
    (void)state;
    assert_int_equal(run("generate run --prompt '" PROMPT "' --tokens 30 --seed 3"), 0);
    char *first = content("out", NULL);
    assert_int_equal(strncmp(first, PROMPT, strlen(PROMPT)), 0);
    assert_true(strlen(first) > strlen(PROMPT) + 10);
    assert_int_equal(run("generate run/step-00000020 --prompt '" PROMPT "' --tokens 30 --seed 3"), 0);
    char *second = content("out", NULL);
    assert_string_equal(first, second);
    assert_int_equal(run("generate run --prompt '" PROMPT "' --tokens 30 --seed 4"), 0);
    char *other = content("out", NULL);
    assert_string_not_equal(first, other);
    free(first);
    free(second);
    free(other);
}

/* A model that knows nothing writes byte pieces in any order: whole, broken and unfinished characters. */
static void streamed_text_is_the_whole_text_decoded_at_once(void **state) {
    (void)state;
    for (int seed = 0; seed < 5; seed++) {
        char arguments[256];
        const char *format = "generate run --prompt '" PROMPT "' --temperature 3 --top-p 1 --tokens 90 --seed %d %s";
        snprintf(arguments, sizeof arguments, format, seed, "--json");
        assert_int_equal(run(arguments), 0);
        json_t *json = output();
        const json_t *sample = json_array_get(json_object_get(json, "samples"), 0);
        const json_t *text = json_object_get(sample, "text");
        assert_int_equal(json_integer_value(json_object_get(sample, "tokens")), 90);
        assert_int_equal(json_integer_value(json_object_get(sample, "seed")), seed);
        assert_string_equal(json_string_value(json_object_get(json, "prompt")), PROMPT);

        snprintf(arguments, sizeof arguments, format, seed, "");
        assert_int_equal(run(arguments), 0);
        int64_t n_bytes, n_prompt = (int64_t)strlen(PROMPT), n_text = (int64_t)json_string_length(text);
        char *out = content("out", &n_bytes);
        assert_int_equal(n_bytes, n_prompt + n_text + 1);
        assert_memory_equal(out, PROMPT, (size_t)n_prompt);
        assert_memory_equal(out + n_prompt, json_string_value(text), (size_t)n_text);
        free(out);
        json_decref(json);
    }
}

static void temperature_zero_needs_no_seed(void **state) {
    (void)state;
    assert_int_equal(run("generate run --tokens 20 --temperature 0 --seed 1"), 0);
    char *first = content("out", NULL);
    assert_int_equal(run("generate run --tokens 20 --temperature 0 --seed 2"), 0);
    char *second = content("out", NULL);
    assert_string_equal(first, second);
    assert_int_equal(run("generate run --tokens 20 --top-k 1 --seed 3"), 0);
    char *third = content("out", NULL);
    assert_string_equal(first, third);
    free(first);
    free(second);
    free(third);
}

static void samples_have_seeds_of_their_own(void **state) {
    (void)state;
    assert_int_equal(run("generate run --tokens 10 --samples 2 --seed 7 --json"), 0);
    json_t *both = output();
    assert_int_equal(run("generate run --tokens 10 --seed 8 --json"), 0);
    json_t *second = output();
    assert_true(json_equal(json_array_get(json_object_get(both, "samples"), 1),
                           json_array_get(json_object_get(second, "samples"), 0)));
    json_decref(both);
    json_decref(second);
    assert_int_equal(run("generate run --tokens 10 --samples 2 --seed 7"), 0);
    assert_holds("out", "--- sample 2, seed 8\n");
}

static void prompt_comes_from_standard_input(void **state) {
    (void)state;
    assert_int_equal(run("generate run --prompt 'lot' --tokens 10"), 0);
    char *first = content("out", NULL);
    assert_int_equal(system("echo lot > prompt"), 0);
    assert_int_equal(run("generate run --prompt - --tokens 10 < prompt"), 0);
    char *second = content("out", NULL);
    assert_string_equal(first, second);
    free(first);
    free(second);
}

/* A trained model with grouped queries, and the text that another program wrote with it. */
static void golden_text_of_a_trained_model_is_written(void **state) {
    (void)state;
    const char *folder = data_path("");
    char command[16384];
    snprintf(command, sizeof command,
             "rm -rf stories && mkdir stories && cp '%s'/ckpt/stories260K-hf/* stories && "
             "cp '%s/tokenizer/stories/tok512.model' stories/tokenizer.model && "
             "cp '%s/ckpt/stories260K.golden.txt' golden",
             folder, folder, folder);
    if (!sp_folder_exists(folder)) skip();
    assert_int_equal(system(command), 0);
    assert_int_equal(run("generate stories --temperature 0 --tokens 200"), 0);
    char *text = content("out", NULL), *golden = content("golden", NULL);
    assert_string_equal(text, golden);
    free(text);
    free(golden);
}

static void text_ends_where_the_positions_do(void **state) {
    (void)state;
    assert_int_equal(run("generate run --prompt lot --tokens 5k --json"), 0);
    assert_holds("err", "positions");
    json_t *json = output();
    const json_t *sample = json_array_get(json_object_get(json, "samples"), 0);
    json_int_t n = json_integer_value(json_object_get(sample, "tokens"));
    assert_true(n > POSITIONS - 10 && n < POSITIONS);
    json_decref(json);
}

static void generate_names_what_is_wrong(void **state) {
    (void)state;
    assert_refused("generate", 2, "which model");
    assert_refused("generate run --temperature hot", 2, "--temperature");
    assert_refused("generate run --top-p 0", 2, "--top-p");
    assert_refused("generate run --tokens 0", 2, "--tokens");
    assert_refused("generate run --seed -1", 2, "--seed");
    assert_refused("generate run once upon a time", 2, "--prompt");
    assert_refused("generate run --prompt \"$(yes ab | head -n 500)\"", 2, "positions end at 120");
    assert_refused("generate nowhere", 3, "nowhere");
    assert_refused("generate run --attention softmax_plus_one", 3, "not softmax_plus_one as asked for");
    assert_refused("generate run --attention hardmax", 2, "hardmax");
    assert_refused("generate empty", 3, "empty");
    assert_int_equal(system("cp -r run/step-00000020 bare && rm bare/tokenizer.model bare/tokenizer.json"), 0);
    assert_refused("generate bare", 3, "bare");
}

static void generate_help_is_whole(void **state) {
    (void)state;
    static const char *const words[] = {"--prompt", "--tokens",  "--temperature", "--top-k",    "--top-p",
                                        "--seed",   "--samples", "Examples:",     "Exit status"};
    assert_int_equal(run("generate --help"), 0);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) assert_holds("out", words[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(measure_prints_every_measure),
        cmocka_unit_test(measure_takes_the_quick_measures_unless_told),
        cmocka_unit_test(measure_over_checkpoints_has_an_entry_for_each),
        cmocka_unit_test(measure_as_json_is_one_document),
        cmocka_unit_test(measure_help_defines_every_measure),
        cmocka_unit_test(measure_names_what_is_wrong),
        cmocka_unit_test(text_begins_with_the_prompt_and_is_the_same_again),
        cmocka_unit_test(streamed_text_is_the_whole_text_decoded_at_once),
        cmocka_unit_test(temperature_zero_needs_no_seed),
        cmocka_unit_test(samples_have_seeds_of_their_own),
        cmocka_unit_test(prompt_comes_from_standard_input),
        cmocka_unit_test(golden_text_of_a_trained_model_is_written),
        cmocka_unit_test(text_ends_where_the_positions_do),
        cmocka_unit_test(generate_names_what_is_wrong),
        cmocka_unit_test(generate_help_is_whole),
    };
    return cmocka_run_group_tests(tests, open_place, close_place);
}
