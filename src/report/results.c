/* Reading results.json: the tables below are the schema that docs/results.md tells in words.
 *
 * Keys that no table names are let through, so that a newer softpick may add some without a new schema number. */
#include "report/results.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* ---- kinds of values ---- */

typedef bool value_check(const json_t *value);

static bool is_string(const json_t *value) { return json_is_string(value); }
static bool is_number(const json_t *value) { return json_is_number(value); }
static bool is_integer(const json_t *value) { return json_is_integer(value); }
static bool is_object(const json_t *value) { return json_is_object(value); }
static bool is_number_or_null(const json_t *value) { return json_is_number(value) || json_is_null(value); }

static bool is_list_of(const json_t *value, value_check *check) {
    if (!json_is_array(value)) return false;
    for (size_t i = 0; i < json_array_size(value); i++)
        if (!check(json_array_get(value, i))) return false;
    return true;
}

static bool is_strings(const json_t *value) { return is_list_of(value, is_string); }
static bool is_numbers(const json_t *value) { return is_list_of(value, is_number_or_null); }
static bool is_rows(const json_t *value) { return is_list_of(value, is_numbers); }
static bool is_list(const json_t *value) { return json_is_array(value); }
static bool is_objects(const json_t *value) { return is_list_of(value, is_object); }

enum kind { STRING, NUMBER, INTEGER, OBJECT, LIST, STRINGS, NUMBERS, ROWS, OBJECTS };

static const struct {
    value_check *check;
    const char *name;
} kinds[] = {
    [STRING] = {is_string, "a string"},
    [NUMBER] = {is_number, "a number"},
    [INTEGER] = {is_integer, "an integer"},
    [OBJECT] = {is_object, "an object"},
    [LIST] = {is_list, "a list"},
    [STRINGS] = {is_strings, "a list of strings"},
    [NUMBERS] = {is_numbers, "a list of numbers or nulls"},
    [ROWS] = {is_rows, "a list of lists of numbers"},
    [OBJECTS] = {is_objects, "a list of objects"},
};

/* ---- the schema ---- */

typedef struct key_rule {
    const char *key;
    enum kind kind;
    bool required; /* otherwise it may be absent or null */
} key_rule;

enum { REQUIRED = true };

static const key_rule root_rules[] = {{"created", STRING, 0},
                                      {"softpick", OBJECT, REQUIRED},
                                      {"machine", OBJECT, REQUIRED},
                                      {"settings", OBJECT, REQUIRED},
                                      {"model", OBJECT, REQUIRED},
                                      {"models", OBJECT, REQUIRED},
                                      {NULL, STRING, 0}};

static const key_rule softpick_rules[] = {{"version", STRING, REQUIRED}, {"commit", STRING, 0}, {NULL, STRING, 0}};

static const key_rule machine_rules[] = {{"cpu", STRING, 0},
                                         {"cores", INTEGER, 0},
                                         {"threads", INTEGER, 0},
                                         {"device", STRING, 0},
                                         {"device_name", STRING, 0},
                                         {"attention_variant", STRING, 0},
                                         {"matmul_variant", STRING, 0},
                                         {NULL, STRING, 0}};

static const key_rule settings_rules[] = {
    {"T", INTEGER, REQUIRED},     {"B", INTEGER, REQUIRED}, {"dtype", STRING, REQUIRED},  {"seed", INTEGER, REQUIRED},
    {"steps", INTEGER, 0},        {"command", STRING, 0},   {"preset", STRING, 0},        {"text", STRINGS, 0},
    {"tokenizer", OBJECT, 0},     {"tokens", OBJECT, 0},    {"accumulate", INTEGER, 0},   {"packing", STRING, 0},
    {"learning_rate", NUMBER, 0}, {"schedule", STRING, 0},  {"warmup_steps", INTEGER, 0}, {"weight_decay", NUMBER, 0},
    {"minutes", NUMBER, 0},       {NULL, STRING, 0}};

static const key_rule tokenizer_rules[] = {{"kind", STRING, 0}, {"vocabulary", INTEGER, 0}, {NULL, STRING, 0}};

static const key_rule tokens_rules[] = {
    {"train", INTEGER, 0}, {"validation", INTEGER, 0}, {"documents", INTEGER, 0}, {NULL, STRING, 0}};

static const key_rule shape_rules[] = {
    {"layers", INTEGER, REQUIRED}, {"heads", INTEGER, REQUIRED}, {"width", INTEGER, REQUIRED},
    {"kv_heads", INTEGER, 0},      {"head_width", INTEGER, 0},   {"ffn_width", INTEGER, 0},
    {"vocabulary", INTEGER, 0},    {"parameters", INTEGER, 0},   {NULL, STRING, 0}};

static const key_rule model_rules[] = {{"attention_function", STRING, REQUIRED},
                                       {"validation_loss", NUMBER, 0},
                                       {"validation_targets", INTEGER, 0},
                                       {"perplexity", NUMBER, 0},
                                       {"train_loss", NUMBER, 0},
                                       {"steps", INTEGER, 0},
                                       {"tokens", INTEGER, 0},
                                       {"skipped_steps", INTEGER, 0},
                                       {"seconds", NUMBER, 0},
                                       {"tokens_per_second", NUMBER, 0},
                                       {"measures", OBJECT, 0},
                                       {"curve", OBJECT, 0},
                                       {"maps", OBJECT, 0},
                                       {"samples", OBJECTS, 0},
                                       {"checkpoint", STRING, 0},
                                       {"checkpoints", OBJECT, 0},
                                       {"evaluation", OBJECT, 0},
                                       {NULL, STRING, 0}};

static const key_rule measure_rules[] = {
    {"value", NUMBER, 0},        {"unit", STRING, 0},       {"definition", STRING, 0}, {"T", INTEGER, 0},
    {"n_samples", INTEGER, 0},   {"dtype", STRING, 0},      {"threshold", NUMBER, 0},  {"per_layer", NUMBERS, 0},
    {"per_layer_head", ROWS, 0}, {"variants", OBJECT, 0},   {"top", OBJECTS, 0},       {"by_length", OBJECT, 0},
    {"by_position", OBJECT, 0},  {"by_context", OBJECT, 0}, {"blocks", OBJECTS, 0},    {"by_layer", OBJECTS, 0},
    {"masked", OBJECTS, 0},      {"loss", NUMBER, 0},       {"n_heads", INTEGER, 0},   {NULL, STRING, 0}};

/* Parts of measures that are curves: the first list has the places, the others as many values. */
static const struct {
    const char *part;
    key_rule lists[5];
} measure_curves[] = {
    {"by_length", {{"length", NUMBERS, REQUIRED}, {"value", NUMBERS, REQUIRED}, {"row_normalised", NUMBERS, 0}}},
    {"by_position",
     {{"position", NUMBERS, REQUIRED},
      {"weight", NUMBERS, REQUIRED},
      {"row_normalised", NUMBERS, 0},
      {"sinks", NUMBERS, 0}}},
    {"by_context",
     {{"keys", NUMBERS, REQUIRED},
      {"weight", NUMBERS, REQUIRED},
      {"row_normalised", NUMBERS, 0},
      {"live_rows", NUMBERS, 0}}},
};
enum { N_MEASURE_CURVES = sizeof measure_curves / sizeof *measure_curves };

static const key_rule block_rules[] = {{"queries", NUMBER, REQUIRED}, {"keys", NUMBER, REQUIRED}, {"heads", NUMBER, 0},
                                       {"name", STRING, 0},           {"value", NUMBER, 0},       {NULL, STRING, 0}};

static const key_rule layer_rules[] = {{"median", NUMBER, 0}, {"top", OBJECTS, 0}, {NULL, STRING, 0}};

static const key_rule masked_rules[] = {
    {"threshold", NUMBER, REQUIRED}, {"n_masked", INTEGER, REQUIRED}, {"loss", NUMBER, 0},
    {"n_control_heads", INTEGER, 0}, {"control_losses", NUMBERS, 0},  {NULL, STRING, 0}};

static const key_rule peak_rules[] = {{"value", NUMBER, REQUIRED},
                                      {"layer", INTEGER, REQUIRED},
                                      {"channel", INTEGER, REQUIRED},
                                      {"position", INTEGER, REQUIRED},
                                      {"median", NUMBER, 0},
                                      {"sample", INTEGER, 0},
                                      {NULL, STRING, 0}};

static const key_rule curve_rules[] = {{"step", NUMBERS, REQUIRED},
                                       {"loss", NUMBERS, REQUIRED},
                                       {"validation_step", NUMBERS, 0},
                                       {"validation_loss", NUMBERS, 0},
                                       {NULL, STRING, 0}};

static const key_rule checkpoints_rules[] = {
    {"step", NUMBERS, REQUIRED}, {"measures", OBJECT, REQUIRED}, {NULL, STRING, 0}};

static const key_rule evaluation_rules[] = {
    {"results", OBJECT, 0}, {"n-samples", OBJECT, 0}, {"passkey", OBJECT, 0}, {NULL, STRING, 0}};

static const key_rule passkey_rules[] = {
    {"lengths", NUMBERS, REQUIRED}, {"depths", LIST, REQUIRED}, {"accuracy", ROWS, REQUIRED},
    {"protocol", STRING, 0},        {"n", NUMBER, 0},           {NULL, STRING, 0}};

static const key_rule maps_rules[] = {{"text", STRING, 0},
                                      {"tokens", STRINGS, REQUIRED},
                                      {"maps", OBJECTS, REQUIRED},
                                      {"rollout", OBJECT, 0},
                                      {NULL, STRING, 0}};

static const key_rule rollout_rules[] = {{"weights", ROWS, REQUIRED}, {"definition", STRING, 0}, {NULL, STRING, 0}};

static const key_rule map_rules[] = {{"layer", INTEGER, REQUIRED},
                                     {"head", INTEGER, REQUIRED},
                                     {"why", STRING, 0},
                                     {"weights", ROWS, REQUIRED},
                                     {NULL, STRING, 0}};

static const key_rule sample_rules[] = {{"prompt", STRING, REQUIRED}, {"text", STRING, REQUIRED}, {NULL, STRING, 0}};

/* ---- applying it ---- */

/* Where in which file something stands: "results.json: models.softmax.curve". */
typedef struct place {
    const char *path;
    char inside[256];
} place;

static place place_below(const place *above, const char *key) {
    place below = *above;
    size_t used = strlen(below.inside);
    snprintf(below.inside + used, sizeof below.inside - used, "%s%s", used ? "." : "", key);
    return below;
}

static place place_entry(const place *list, int64_t i) {
    place entry = *list;
    size_t used = strlen(entry.inside);
    snprintf(entry.inside + used, sizeof entry.inside - used, "[%lld]", (long long)i);
    return entry;
}

static sp_status check_object(const place *where, const json_t *object, const key_rule *rules) {
    for (const key_rule *rule = rules; rule->key; rule++) {
        const json_t *value = json_object_get(object, rule->key);
        place at = place_below(where, rule->key);
        if (!value || json_is_null(value)) {
            SP_REQUIRE(!rule->required, SP_BAD_FILE, "%s: %s is missing", at.path, at.inside);
            continue;
        }
        SP_REQUIRE(kinds[rule->kind].check(value), SP_BAD_FILE, "%s: %s is not %s", at.path, at.inside,
                   kinds[rule->kind].name);
    }
    return SP_OK;
}

/* The object under `key`, if it is there. */
static sp_status check_part(const place *above, const json_t *object, const char *key, const key_rule *rules) {
    const json_t *part = sp_results_part(object, key);
    place at = place_below(above, key);
    return part ? check_object(&at, part, rules) : SP_OK;
}

/* All rows as long as the first. */
static sp_status check_rectangle(const place *where, const json_t *rows) {
    size_t n_columns = json_array_size(json_array_get(rows, 0));
    for (size_t i = 1; i < json_array_size(rows); i++) {
        size_t n = json_array_size(json_array_get(rows, i));
        SP_REQUIRE(n == n_columns, SP_BAD_FILE, "%s: %s has %zu heads in layer %zu, %zu in layer 0", where->path,
                   where->inside, n, i, n_columns);
    }
    return SP_OK;
}

/* The objects of the list under `key`, if it is there. */
static sp_status check_entries(const place *above, const json_t *object, const char *key, const key_rule *rules) {
    const json_t *list = sp_results_part(object, key);
    place at = place_below(above, key);
    for (size_t i = 0; i < json_array_size(list); i++) {
        place entry = place_entry(&at, (int64_t)i);
        SP_TRY(check_object(&entry, json_array_get(list, i), rules));
    }
    return SP_OK;
}

static sp_status check_pair(const place *where, const json_t *curve, const char *x, const char *y) {
    size_t n_x = json_array_size(json_object_get(curve, x)), n_y = json_array_size(json_object_get(curve, y));
    SP_REQUIRE(n_x == n_y, SP_BAD_FILE, "%s: %s has %zu values in %s, %zu in %s", where->path, where->inside, n_x, x,
               n_y, y);
    return SP_OK;
}

static sp_status check_measure_curves(const place *where, const json_t *measure) {
    for (int i = 0; i < N_MEASURE_CURVES; i++) {
        const json_t *part = sp_results_part(measure, measure_curves[i].part);
        const key_rule *lists = measure_curves[i].lists;
        place at = place_below(where, measure_curves[i].part);
        if (!part) continue;
        SP_TRY(check_object(&at, part, lists));
        for (int k = 1; lists[k].key; k++)
            if (sp_results_part(part, lists[k].key)) SP_TRY(check_pair(&at, part, lists[0].key, lists[k].key));
    }
    return SP_OK;
}

static sp_status check_layers(const place *where, const json_t *measure) {
    const json_t *layers = sp_results_part(measure, "by_layer");
    place at = place_below(where, "by_layer");
    SP_TRY(check_entries(where, measure, "by_layer", layer_rules));
    for (size_t l = 0; l < json_array_size(layers); l++) {
        place layer = place_entry(&at, (int64_t)l);
        SP_TRY(check_entries(&layer, json_array_get(layers, l), "top", peak_rules));
    }
    return SP_OK;
}

static sp_status check_measure(const place *where, const json_t *measure) {
    SP_REQUIRE(json_is_object(measure), SP_BAD_FILE, "%s: %s is not an object", where->path, where->inside);
    SP_TRY(check_object(where, measure, measure_rules));
    place rows_at = place_below(where, "per_layer_head");
    SP_TRY(check_rectangle(&rows_at, sp_results_part(measure, "per_layer_head")));
    SP_TRY(check_measure_curves(where, measure));
    SP_TRY(check_layers(where, measure));
    SP_TRY(check_entries(where, measure, "blocks", block_rules));
    SP_TRY(check_entries(where, measure, "masked", masked_rules));
    return check_entries(where, measure, "top", peak_rules);
}

static sp_status check_measures(const place *model_at, const json_t *model) {
    const char *name;
    json_t *measure, *measures = json_object_get(model, "measures");
    place at = place_below(model_at, "measures");
    json_object_foreach(measures, name, measure) {
        place measure_at = place_below(&at, name);
        if (!json_is_null(measure)) SP_TRY(check_measure(&measure_at, measure));
    }
    return SP_OK;
}

static sp_status check_curve(const place *model_at, const json_t *model) {
    const json_t *curve = sp_results_part(model, "curve");
    if (!curve) return SP_OK;
    place at = place_below(model_at, "curve");
    SP_TRY(check_object(&at, curve, curve_rules));
    SP_TRY(check_pair(&at, curve, "step", "loss"));
    return check_pair(&at, curve, "validation_step", "validation_loss");
}

/* A list for each measure, as long as that of the steps. */
static sp_status check_checkpoints(const place *model_at, const json_t *model) {
    json_t *checkpoints = json_object_get(model, "checkpoints"), *list;
    place at = place_below(model_at, "checkpoints"), measures_at = place_below(&at, "measures");
    SP_TRY(check_part(model_at, model, "checkpoints", checkpoints_rules));
    size_t n_steps = json_array_size(json_object_get(checkpoints, "step"));
    const char *name;
    json_object_foreach(json_object_get(checkpoints, "measures"), name, list) {
        place list_at = place_below(&measures_at, name);
        SP_REQUIRE(is_numbers(list), SP_BAD_FILE, "%s: %s is not a list of numbers or nulls", list_at.path,
                   list_at.inside);
        SP_REQUIRE(json_array_size(list) == n_steps, SP_BAD_FILE, "%s: %s has %zu values for %zu steps", list_at.path,
                   list_at.inside, json_array_size(list), n_steps);
    }
    return SP_OK;
}

static sp_status check_passkey(const place *where, const json_t *passkey) {
    SP_TRY(check_object(where, passkey, passkey_rules));
    const json_t *rows = json_object_get(passkey, "accuracy");
    size_t n_depths = json_array_size(json_object_get(passkey, "depths"));
    size_t n_lengths = json_array_size(json_object_get(passkey, "lengths"));
    SP_REQUIRE(json_array_size(rows) == n_depths, SP_BAD_FILE, "%s: %s.accuracy has %zu rows for %zu depths",
               where->path, where->inside, json_array_size(rows), n_depths);
    for (size_t i = 0; i < n_depths; i++) {
        size_t n = json_array_size(json_array_get(rows, i));
        SP_REQUIRE(n == n_lengths, SP_BAD_FILE, "%s: %s.accuracy[%zu] has %zu values for %zu lengths", where->path,
                   where->inside, i, n, n_lengths);
    }
    return SP_OK;
}

static sp_status check_evaluation(const place *model_at, const json_t *model) {
    const json_t *evaluation = sp_results_part(model, "evaluation"), *passkey = sp_results_part(evaluation, "passkey");
    place at = place_below(model_at, "evaluation"), results_at = place_below(&at, "results");
    place passkey_at = place_below(&at, "passkey");
    SP_TRY(check_part(model_at, model, "evaluation", evaluation_rules));
    const char *name;
    json_t *task;
    json_object_foreach(json_object_get(evaluation, "results"), name, task) {
        place task_at = place_below(&results_at, name);
        SP_REQUIRE(json_is_object(task), SP_BAD_FILE, "%s: %s is not an object", task_at.path, task_at.inside);
    }
    return passkey ? check_passkey(&passkey_at, passkey) : SP_OK;
}

/* One row of weights for each token, each with at most one weight for each token. */
static sp_status check_weights(const place *where, const json_t *map, size_t n_tokens) {
    const json_t *weights = json_object_get(map, "weights");
    SP_REQUIRE(json_array_size(weights) == n_tokens, SP_BAD_FILE, "%s: %s.weights has %zu rows for %zu tokens",
               where->path, where->inside, json_array_size(weights), n_tokens);
    for (size_t t = 0; t < n_tokens; t++) {
        size_t n = json_array_size(json_array_get(weights, t));
        SP_REQUIRE(n <= n_tokens, SP_BAD_FILE, "%s: %s.weights[%zu] has %zu weights for %zu tokens", where->path,
                   where->inside, t, n, n_tokens);
    }
    return SP_OK;
}

static sp_status check_maps(const place *model_at, const json_t *model) {
    const json_t *maps = sp_results_part(model, "maps"), *rollout = sp_results_part(maps, "rollout");
    if (!maps) return SP_OK;
    place at = place_below(model_at, "maps"), list_at = place_below(&at, "maps"),
          rollout_at = place_below(&at, "rollout");
    SP_TRY(check_object(&at, maps, maps_rules));
    const json_t *list = json_object_get(maps, "maps");
    size_t n_tokens = json_array_size(json_object_get(maps, "tokens"));
    for (size_t i = 0; i < json_array_size(list); i++) {
        place entry = place_entry(&list_at, (int64_t)i);
        SP_TRY(check_object(&entry, json_array_get(list, i), map_rules));
        SP_TRY(check_weights(&entry, json_array_get(list, i), n_tokens));
    }
    if (!rollout) return SP_OK;
    SP_TRY(check_object(&rollout_at, rollout, rollout_rules));
    return check_weights(&rollout_at, rollout, n_tokens);
}

static sp_status check_model(const place *where, const json_t *model) {
    SP_REQUIRE(json_is_object(model), SP_BAD_FILE, "%s: %s is not an object", where->path, where->inside);
    SP_TRY(check_object(where, model, model_rules));
    SP_TRY(check_measures(where, model));
    SP_TRY(check_curve(where, model));
    SP_TRY(check_maps(where, model));
    SP_TRY(check_checkpoints(where, model));
    SP_TRY(check_evaluation(where, model));
    return check_entries(where, model, "samples", sample_rules);
}

static sp_status check_schema(const char *path, const json_t *root) {
    static const char prefix[] = "softpick-results/";
    SP_REQUIRE(json_is_object(root), SP_BAD_FILE, "%s: not a JSON object", path);
    const char *schema = sp_results_string(root, "schema");
    SP_REQUIRE(schema, SP_BAD_FILE, "%s: schema is missing: not a results.json of softpick", path);
    SP_REQUIRE(strncmp(schema, prefix, strlen(prefix)) == 0, SP_BAD_FILE,
               "%s: schema is \"%s\", not \"softpick-results/1\"", path, schema);
    SP_REQUIRE(strcmp(schema + strlen(prefix), "1") == 0, SP_VERSION,
               "%s: schema is \"%s\", and this program reads \"softpick-results/1\" alone", path, schema);
    return SP_OK;
}

static sp_status check_root(const char *path, const json_t *root) {
    place top = {.path = path}, settings_at = place_below(&top, "settings");
    SP_TRY(check_schema(path, root));
    SP_TRY(check_object(&top, root, root_rules));
    SP_TRY(check_part(&top, root, "softpick", softpick_rules));
    SP_TRY(check_part(&top, root, "machine", machine_rules));
    SP_TRY(check_part(&top, root, "settings", settings_rules));
    SP_TRY(check_part(&top, root, "model", shape_rules));
    const json_t *settings = json_object_get(root, "settings");
    SP_TRY(check_part(&settings_at, settings, "tokenizer", tokenizer_rules));
    return check_part(&settings_at, settings, "tokens", tokens_rules);
}

/* ---- the models and their colours ---- */

enum { N_HUES = 6, FIRST_FREE_HUE = 2 };

/* softmax and softpick have their own, so that they look the same in every report; others take turns. */
static int choose_hue(const char *name, int *n_others) {
    if (strcmp(name, "softmax") == 0) return 0;
    if (strcmp(name, "softpick") == 0) return 1;
    return FIRST_FREE_HUE + (*n_others)++ % (N_HUES - FIRST_FREE_HUE);
}

static sp_status list_models(sp_results *results, const char *path) {
    place at = {.path = path, .inside = "models"};
    json_t *models = json_object_get(results->root, "models");
    int64_t n = (int64_t)json_object_size(models);
    SP_REQUIRE(n > 0, SP_BAD_FILE, "%s: models is empty", path);
    SP_TRY(sp_allocate((void **)&results->models, n * (int64_t)sizeof *results->models, "the list of models"));
    const char *name;
    json_t *model;
    int n_others = 0;
    json_object_foreach(models, name, model) {
        place model_at = place_below(&at, name);
        SP_TRY(check_model(&model_at, model));
        results->models[results->n_models++] =
            (sp_results_model){.name = name, .data = model, .hue = choose_hue(name, &n_others)};
    }
    return SP_OK;
}

sp_status sp_results_read(sp_results *results, const char *path) {
    *results = (sp_results){0};
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_json_read(&results->root, path));
    SP_TRY_OR_DONE(check_root(path, results->root));
    SP_TRY_OR_DONE(list_models(results, path));
done:
    if (status != SP_OK) sp_results_close(results);
    return status;
}

void sp_results_close(sp_results *results) {
    json_decref(results->root);
    free(results->models);
    *results = (sp_results){0};
}

/* ---- look-ups ---- */

const json_t *sp_results_part(const json_t *object, const char *key) {
    const json_t *part = json_object_get(object, key);
    return json_is_null(part) ? NULL : part;
}

const char *sp_results_string(const json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

static double number_of(const json_t *value) { return json_is_number(value) ? json_number_value(value) : NAN; }

double sp_results_number(const json_t *object, const char *key) { return number_of(json_object_get(object, key)); }
double sp_results_entry(const json_t *list, int64_t i) { return number_of(json_array_get(list, (size_t)i)); }

const json_t *sp_results_measure(const sp_results_model *model, const char *name) {
    return sp_results_part(sp_results_part(model->data, "measures"), name);
}
