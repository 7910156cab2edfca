/* A run's state in a checkpoint folder, beside the model itself:
 *
 *   training.json         steps done, updates done, skipped steps, last losses; and what must agree when the run is
 *                         resumed: options, dtype, the text's size
 *   training.safetensors  the optimizer's means and squares, f32: "m.<tensor>" and "v.<tensor>"
 *
 * Random numbers have no state (base/random.h), and neither has the loader. */
#include "train/state.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "model/model_device.h"
#include "softpick/checkpoint.h"
#include "train/update.h"
#include "train/options.h"

enum { STATE_SCHEMA = 1, NAME_BYTES = 256 };

/* ---- saving ---- */

json_t *sp_train_data_format(const sp_shards *shards) {
    return json_pack("{sI sI sI}", "tokens", (json_int_t)sp_shards_n_tokens(shards), "documents",
                     (json_int_t)sp_shards_n_documents(shards), "vocabulary", (json_int_t)sp_shards_vocabulary(shards));
}

static json_t *format_losses(const sp_train_state *state) {
    json_t *losses = json_array();
    for (int i = 0; i < SP_TRAIN_N_RECENT; i++) json_array_append_new(losses, sp_json_number(state->losses[i]));
    return losses;
}

static sp_status format_state(char **text, const sp_train_state *state, const sp_train_parts *parts) {
    const sp_train_options *options = parts->options;
    json_t *options_json;
    SP_TRY(sp_train_options_format(&options_json, options));
    int64_t n_tokens = state->step * options->B * options->T * options->n_accumulate;
    json_t *json =
        json_pack("{si sI sI sI sI sI so ss so so}", "schema", STATE_SCHEMA, "step", (json_int_t)state->step, "tokens",
                  (json_int_t)n_tokens, "updates", (json_int_t)parts->optimizer->adamw.step, "skipped",
                  (json_int_t)state->n_skipped, "skipped_in_a_row", (json_int_t)state->n_skipped_in_a_row,
                  "last_losses", format_losses(state), "dtype", sp_dtype_name(sp_model_dtype(parts->model)), "data",
                  sp_train_data_format(parts->shards), "options", options_json);
    SP_REQUIRE(json, SP_OUT_OF_MEMORY, "no memory for the state of training");
    sp_status status = sp_json_format(text, json, 0);
    json_decref(json);
    return status;
}

/* The three flat arrays of a run: values, m, v. */
enum { N_ARRAYS = 3 };
static const char *const prefixes[N_ARRAYS] = {"", "m.", "v."};

static float *array_of(const sp_train_parts *parts, int i) {
    float *const arrays[N_ARRAYS] = {sp_model_parameters(parts->model), parts->optimizer->m, parts->optimizer->v};
    return arrays[i];
}

static int64_t array_bytes(const sp_train_parts *parts) {
    return sp_model_n_parameters(parts->model) * (int64_t)sizeof(float);
}

/* The tensors of a flat array that has the model's layout, under the model's names with a prefix. */
static void list_tensors(sp_named_tensor *list, char (*names)[NAME_BYTES], sp_model *model, const float *flat,
                         const char *prefix) {
    const float *values = sp_model_parameters(model);
    for (int64_t i = 0; i < sp_model_n_tensors(model); i++) {
        snprintf(names[i], NAME_BYTES, "%s%s", prefix, sp_model_tensor_name(model, i));
        sp_tensor tensor = sp_model_tensor(model, i);
        int64_t first = (const float *)tensor.data - values;
        list[i] = (sp_named_tensor){names[i], tensor};
        list[i].tensor.data = (void *)(uintptr_t)(flat + first);
        list[i].tensor.device = 0;
    }
}

/* The tensors of `arrays` (host memory): 3 n_tensors entries, whose names lie behind them.  Caller frees. */
static sp_status list_all(sp_named_tensor **list, const sp_train_parts *parts, const float *const arrays[N_ARRAYS]) {
    int64_t n = sp_model_n_tensors(parts->model);
    int64_t list_bytes = N_ARRAYS * n * (int64_t)sizeof **list;
    SP_TRY(sp_allocate((void **)list, list_bytes + N_ARRAYS * n * NAME_BYTES, "the list of tensors"));
    char(*names)[NAME_BYTES] = (void *)((char *)*list + list_bytes);
    for (int i = 0; i < N_ARRAYS; i++) list_tensors(*list + i * n, names + i * n, parts->model, arrays[i], prefixes[i]);
    return SP_OK;
}

static sp_status add_tokenizer(void *user, const char *folder) {
    const sp_tokenizer *const *tokenizer = user;
    return *tokenizer ? sp_tokenizer_save(*tokenizer, folder) : SP_OK;
}

sp_status sp_train_state_save(const char *folder, const sp_train_state *state, const sp_train_parts *parts) {
    char *config = NULL, *text = NULL;
    sp_named_tensor *list = NULL;
    const void *copies[N_ARRAYS] = {NULL};
    sp_device *device = sp_model_device_of(parts->model);
    int64_t n_tensors = sp_model_n_tensors(parts->model);
    const sp_tokenizer *user = parts->tokenizer;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_model_config_format(sp_model_config_of(parts->model), &config));
    SP_TRY_OR_DONE(format_state(&text, state, parts));
    for (int i = 0; i < N_ARRAYS; i++)
        SP_TRY_OR_DONE(sp_device_read_begin(device, &copies[i], array_of(parts, i), array_bytes(parts)));
    SP_TRY_OR_DONE(list_all(&list, parts, (const float *const[N_ARRAYS]){copies[0], copies[1], copies[2]}));
    sp_checkpoint_content content = {.config = config,
                                     .tensors = list,
                                     .n_tensors = n_tensors,
                                     .add_files = add_tokenizer,
                                     .user = &user,
                                     .state = text,
                                     .moments = list + n_tensors,
                                     .n_moments = 2 * n_tensors,
                                     .replace = true};
    SP_TRY_OR_DONE(sp_checkpoint_write(folder, &content));
done:
    for (int i = 0; i < N_ARRAYS; i++) sp_device_read_end(device, copies[i]);
    free(list);
    free(text);
    free(config);
    return status;
}

/* ---- agreement ---- */

static sp_status require_config(sp_model *model, const sp_checkpoint *checkpoint) {
    char *text = NULL, source[4096];
    json_t *now = NULL, *saved = NULL;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_path_join(source, sizeof source, sp_checkpoint_folder(checkpoint), "config.json"));
    SP_TRY_OR_DONE(sp_model_config_format(sp_model_config_of(model), &text));
    SP_TRY_OR_DONE(sp_json_parse(&now, text, (int64_t)strlen(text), "the model's configuration"));
    const char *saved_text = sp_checkpoint_config(checkpoint), *key;
    SP_TRY_OR_DONE(sp_json_parse(&saved, saved_text, (int64_t)strlen(saved_text), source));
    json_t *value;
    json_object_foreach(now, key, value) {
        /* The two names of the architecture follow from the attention function, which says more. */
        if (strcmp(key, "architectures") == 0 || strcmp(key, "model_type") == 0) continue;
        SP_TRY_OR_DONE(sp_train_require_same(value, json_object_get(saved, key), key, source));
    }
done:
    json_decref(saved);
    json_decref(now);
    free(text);
    return status;
}

static sp_status require_data(const sp_shards *shards, const json_t *saved, const char *source) {
    json_t *now = sp_train_data_format(shards), *value;
    const char *key;
    sp_status status = SP_OK;
    json_object_foreach(now, key, value) {
        char name[64];
        snprintf(name, sizeof name, "data: %s", key);
        SP_TRY_OR_DONE(sp_train_require_same(value, json_object_get(saved, key), name, source));
    }
done:
    json_decref(now);
    return status;
}

static sp_status require_dtype(const sp_model *model, const json_t *saved, const char *source) {
    json_t *now = json_string(sp_dtype_name(sp_model_dtype(model)));
    sp_status status = sp_train_require_same(now, json_object_get(saved, "dtype"), "dtype", source);
    json_decref(now);
    return status;
}

/* ---- loading ---- */

static sp_status read_count(int64_t *out, const json_t *json, const char *key, const char *source) {
    json_t *value = json_object_get(json, key);
    SP_REQUIRE(json_is_integer(value) && json_integer_value(value) >= 0, SP_BAD_FILE,
               "%s: %s is missing or not a count", source, key);
    *out = json_integer_value(value);
    return SP_OK;
}

static sp_status parse_state(sp_train_state *state, int64_t *n_updates, const json_t *json, const char *source) {
    int64_t schema = 0;
    SP_TRY(read_count(&schema, json, "schema", source));
    SP_REQUIRE(schema <= STATE_SCHEMA, SP_VERSION, "%s: schema %lld, this version knows %d", source, (long long)schema,
               STATE_SCHEMA);
    SP_TRY(read_count(&state->step, json, "step", source));
    SP_TRY(read_count(n_updates, json, "updates", source));
    SP_TRY(read_count(&state->n_skipped, json, "skipped", source));
    SP_TRY(read_count(&state->n_skipped_in_a_row, json, "skipped_in_a_row", source));
    const json_t *losses = json_object_get(json, "last_losses");
    SP_REQUIRE(json_array_size(losses) == SP_TRAIN_N_RECENT, SP_BAD_FILE, "%s: last_losses: %d numbers expected",
               source, SP_TRAIN_N_RECENT);
    for (int i = 0; i < SP_TRAIN_N_RECENT; i++) {
        const json_t *loss = json_array_get(losses, (size_t)i);
        state->losses[i] = json_is_number(loss) ? (float)json_number_value(loss) : NAN;
    }
    return SP_OK;
}

static sp_status check_tensor(const sp_tensor *wanted, const sp_tensor *found, const char *name, const char *folder) {
    SP_REQUIRE(found, SP_BAD_FILE, "%s: tensor %s is missing", folder, name);
    bool fits = found->dtype == SP_DTYPE_F32 && found->n_dims == wanted->n_dims;
    for (int64_t d = 0; fits && d < wanted->n_dims; d++) fits = found->shape[d] == wanted->shape[d];
    SP_REQUIRE(fits, SP_BAD_FILE, "%s: tensor %s has another shape or dtype than the model's", folder, name);
    return SP_OK;
}

static sp_status load_tensors(const sp_train_parts *parts, const sp_checkpoint *checkpoint,
                              const sp_safetensors *moments) {
    const char *folder = sp_checkpoint_folder(checkpoint);
    sp_device *device = sp_model_device_of(parts->model);
    const float *const arrays[N_ARRAYS] = {array_of(parts, 0), array_of(parts, 1), array_of(parts, 2)};
    sp_named_tensor *list; /* its addresses are the device's */
    SP_TRY(list_all(&list, parts, arrays));
    int64_t n = sp_model_n_tensors(parts->model);
    sp_status status = SP_OK;
    for (int64_t i = 0; i < N_ARRAYS * n; i++) {
        const char *name = list[i].name;
        const sp_tensor *found = i < n ? sp_checkpoint_find(checkpoint, name) : sp_safetensors_find(moments, name);
        SP_TRY_OR_DONE(check_tensor(&list[i].tensor, found, name, folder));
        SP_TRY_OR_DONE(sp_device_upload(device, list[i].tensor.data, found->data,
                                        sp_tensor_count(found) * sp_dtype_bytes(SP_DTYPE_F32)));
    }
    SP_TRY_OR_DONE(sp_model_refresh(parts->model));
    status = sp_device_wait(device); /* before the files are closed */
done:
    free(list);
    return status;
}

sp_status sp_train_state_load(sp_train_state *state, const sp_train_parts *parts, const char *folder) {
    char json_path[4096], moments_path[4096];
    SP_TRY(sp_path_join(json_path, sizeof json_path, folder, "training.json"));
    SP_TRY(sp_path_join(moments_path, sizeof moments_path, folder, "training.safetensors"));
    sp_checkpoint *checkpoint = NULL;
    sp_safetensors *moments = NULL;
    json_t *json = NULL;
    sp_train_state loaded = {0};
    int64_t n_updates = 0;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_checkpoint_open(&checkpoint, folder));
    SP_TRY_OR_DONE(sp_json_read(&json, json_path));
    SP_TRY_OR_DONE(parse_state(&loaded, &n_updates, json, json_path));
    SP_TRY_OR_DONE(require_config(parts->model, checkpoint));
    SP_TRY_OR_DONE(require_dtype(parts->model, json, json_path));
    SP_TRY_OR_DONE(require_data(parts->shards, json_object_get(json, "data"), json_path));
    SP_TRY_OR_DONE(sp_train_options_agree(parts->options, json_object_get(json, "options"), loaded.step, json_path));
    SP_TRY_OR_DONE(sp_safetensors_open(&moments, moments_path));
    SP_TRY_OR_DONE(load_tensors(parts, checkpoint, moments));
    parts->optimizer->adamw.step = n_updates;
    *state = loaded;
done:
    json_decref(json);
    sp_safetensors_close(moments);
    sp_checkpoint_close(checkpoint);
    return status;
}
