/* A model from a checkpoint.  config.json says which tensors there are; they are compared with those of the file before
 * anything of the model's size is allocated, so that a config that lies costs nothing. */
#include "model/model_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "softpick/checkpoint.h"

/* ---- do tensors and config fit? ---------------------------------------------------------------------------------- */

/* "[4,8]" */
static const char *shape_text(char text[64], int64_t n_dims, const int64_t *shape) {
    int used = snprintf(text, 64, "[");
    for (int64_t i = 0; i < n_dims && used < 40; i++)
        used += snprintf(text + used, (size_t)(64 - used), "%s%" PRId64, i ? "," : "", shape[i]);
    snprintf(text + used, (size_t)(64 - used), "]");
    return text;
}

static sp_status check_tensor(const tensor_entry *entry, const sp_checkpoint *checkpoint) {
    const char *folder = sp_checkpoint_folder(checkpoint);
    const sp_tensor *tensor = sp_checkpoint_find(checkpoint, entry->name);
    char have[64], want[64];
    SP_REQUIRE(tensor, SP_BAD_FILE, "%s: tensor %s is missing", folder, entry->name);
    /* A trailing dimension of 1 is as good as none: fla keeps per-head factors as [H,1]. */
    bool fits = tensor->n_dims >= entry->n_dims && sp_tensor_count(tensor) == entry->count;
    for (int64_t i = 0; fits && i < entry->n_dims; i++) fits = tensor->shape[i] == entry->shape[i];
    SP_REQUIRE(fits, SP_BAD_FILE, "%s: tensor %s has the shape %s, by config.json it has %s", folder, entry->name,
               shape_text(have, tensor->n_dims, tensor->shape), shape_text(want, entry->n_dims, entry->shape));
    bool number = tensor->dtype == SP_DTYPE_F32 || tensor->dtype == SP_DTYPE_BF16 || tensor->dtype == SP_DTYPE_F16;
    SP_REQUIRE(number, SP_UNSUPPORTED, "%s: tensor %s has dtype %s: f32, bf16 and f16 are supported", folder,
               entry->name, sp_dtype_name(tensor->dtype));
    return SP_OK;
}

static int compare_names(const void *left, const void *right) {
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Tensors that say nothing config.json does not say: tables of angles, and fla's of logarithms. */
static bool is_derived(const char *name) {
    return ends_with(name, ".rotary_emb.inv_freq") || ends_with(name, ".rotary.inv_freq") || ends_with(name, ".logn");
}

/* A tensor that the model has no place for means that it is another model than its config.json says. */
static sp_status check_no_others(const tensor_table *table, const sp_model_config *config,
                                 const sp_checkpoint *checkpoint) {
    int64_t n = table->n_tensors;
    const char **names = malloc((size_t)n * sizeof *names);
    SP_REQUIRE(names, SP_OUT_OF_MEMORY, "no memory for the names of %" PRId64 " tensors", n);
    for (int64_t i = 0; i < n; i++) names[i] = table->entries[i].name;
    qsort(names, (size_t)n, sizeof *names, compare_names);
    sp_status status = SP_OK;
    for (int64_t i = 0; i < sp_checkpoint_count(checkpoint); i++) {
        const char *name = sp_checkpoint_name(checkpoint, i);
        bool known = is_derived(name) || bsearch(&name, names, (size_t)n, sizeof *names, compare_names) ||
                     (config->tie_embeddings && strcmp(name, "lm_head.weight") == 0);
        SP_REQUIRE_OR_DONE(known, SP_BAD_FILE, "%s: tensor %.200s has no place in the model that config.json describes",
                           sp_checkpoint_folder(checkpoint), name);
    }
done:
    free(names);
    return status;
}

static sp_status check_tensors(const sp_model_config *config, const sp_checkpoint *checkpoint) {
    int64_t n_stored = sp_checkpoint_count(checkpoint);
    SP_REQUIRE(config->n_layers <= n_stored, SP_BAD_FILE,
               "%s: %" PRId64 " tensors cannot be the %" PRId64 " layers of which config.json speaks",
               sp_checkpoint_folder(checkpoint), n_stored, config->n_layers);
    tensor_table table;
    SP_TRY(sp_tensor_table_build(&table, config));
    sp_status status = SP_OK;
    for (int64_t i = 0; status == SP_OK && i < table.n_tensors; i++)
        status = check_tensor(&table.entries[i], checkpoint);
    if (status == SP_OK) status = check_no_others(&table, config, checkpoint);
    sp_tensor_table_clear(&table);
    return status;
}

/* Tied weights may still be there twice in the file; the embedding counts, as config.json says. */
static void check_tied_head(const sp_model_config *config, const sp_checkpoint *checkpoint) {
    const sp_tensor *head = sp_checkpoint_find(checkpoint, "lm_head.weight");
    const sp_tensor *embedding = sp_checkpoint_find(checkpoint, "model.embed_tokens.weight");
    if (!config->tie_embeddings || !head || !embedding) return;
    bool same = head->dtype == embedding->dtype && sp_tensor_count(head) == sp_tensor_count(embedding) &&
                memcmp(head->data, embedding->data, (size_t)(sp_tensor_count(head) * sp_dtype_bytes(head->dtype))) == 0;
    if (!same)
        sp_log(SP_LOG_WARNING,
               "%s: tensor lm_head.weight differs from the embedding and is not used: \"tie_word_embeddings\" is true",
               sp_checkpoint_folder(checkpoint));
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static sp_status load_values(sp_model *model, const sp_checkpoint *checkpoint) {
    float *values;
    SP_TRY(sp_values_begin(&values, model));
    for (int64_t i = 0; i < model->table.n_tensors; i++) {
        const tensor_entry *entry = &model->table.entries[i];
        const sp_tensor *tensor = sp_checkpoint_find(checkpoint, entry->name);
        sp_convert(values + entry->offset, SP_DTYPE_F32, tensor->data, tensor->dtype, entry->count);
    }
    return sp_values_end(values, model);
}

sp_status sp_model_open(sp_model **out, const char *folder, const sp_model_options *options) {
    *out = NULL;
    sp_checkpoint *checkpoint;
    SP_TRY(sp_checkpoint_open(&checkpoint, folder));
    sp_model *model = NULL;
    sp_model_config config;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_model_config_parse_as(&config, sp_checkpoint_config(checkpoint), sp_checkpoint_source(checkpoint),
                                            options->attention));
    SP_TRY_OR_DONE(check_tensors(&config, checkpoint));
    check_tied_head(&config, checkpoint);
    SP_TRY_OR_DONE(sp_model_make(&model, &config, options));
    SP_TRY_OR_DONE(load_values(model, checkpoint));
    *out = model;
    model = NULL;
done:
    sp_model_free(model);
    sp_checkpoint_close(checkpoint);
    return status;
}
