/* A GGUF file of LLaMA's kind as a checkpoint: config.json from its keys, tensors under LLaMA's names, rotary pairs in
 * halves, blocks as f32.  The file itself is read by formats/gguf_read.c. */
#include "checkpoint/checkpoint_private.h"

#include <string.h>

#include "base/json.h"
#include "checkpoint/gguf_model.h"

static sp_status add_tensor(sp_checkpoint *checkpoint, const sp_gguf_tensor *tensor, const json_t *config, bool pairs) {
    char name[SP_TENSOR_NAME_BYTES];
    sp_rotary_rows owner;
    if (strcmp(tensor->name, "rope_freqs.weight") == 0) return SP_OK; /* has become a part of the config */
    SP_TRY(sp_gguf_name_to_llama(name, &owner, tensor->name, checkpoint->folder));
    SP_REQUIRE(tensor->n_dims <= 2, SP_BAD_FILE, "%s: tensor %s has more than two dimensions", checkpoint->folder,
               tensor->name);
    sp_stored_rows rows = {.name = name, .format = tensor->format, .data = tensor->data, .n_dims = tensor->n_dims};
    for (int64_t i = 0; i < tensor->n_dims; i++) rows.shape[i] = tensor->shape[i];
    if (pairs && owner != SP_ROWS_PLAIN) {
        const char *key = owner == SP_ROWS_OF_HEADS ? "num_attention_heads" : "num_key_value_heads";
        rows.heads = json_integer_value(json_object_get(config, key));
    }
    return sp_checkpoint_add_rows(checkpoint, &rows);
}

sp_status sp_checkpoint_fill_gguf(sp_checkpoint *checkpoint) {
    const sp_gguf_architecture *architecture;
    json_t *config;
    const sp_gguf *file = checkpoint->gguf;
    SP_TRY(sp_gguf_architecture_of(&architecture, file));
    SP_TRY(sp_gguf_read_config(&config, file, architecture));
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_json_format(&checkpoint->config, config, 0));
    SP_TRY_OR_DONE(sp_checkpoint_reserve(checkpoint, sp_gguf_n_tensors(file)));
    for (int64_t i = 0; i < sp_gguf_n_tensors(file); i++)
        SP_TRY_OR_DONE(add_tensor(checkpoint, sp_gguf_tensor_at(file, i), config, architecture->pairs));
done:
    json_decref(config);
    return status;
}

sp_status sp_checkpoint_read_gguf(sp_checkpoint *checkpoint) {
    SP_TRY(sp_gguf_open(&checkpoint->gguf, checkpoint->folder));
    return sp_checkpoint_fill_gguf(checkpoint);
}
