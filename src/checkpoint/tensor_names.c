/* fla's names and LLaMA's: a renaming, without permutation of numbers.
 *
 *   fla                          LLaMA
 *   model.embeddings.weight      model.embed_tokens.weight
 *   model.layers.N.attn_norm.*   model.layers.N.input_layernorm.*
 *   model.layers.N.attn.*        model.layers.N.self_attn.*
 *   model.layers.N.mlp_norm.*    model.layers.N.post_attention_layernorm.*
 *   model.layers.N.attn.s        model.layers.N.self_attn.row_factor (ours: LLaMA has none)
 *
 * All other names agree. */
#include "checkpoint/tensor_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char layers[] = "model.layers.";

static const struct {
    bool in_layer; /* follows "model.layers.N." */
    bool whole;    /* nothing follows */
    const char *fla, *llama;
} renamings[] = {
    {false, false, "model.embeddings.", "model.embed_tokens."},
    {true, false, "attn_norm.", "input_layernorm."},
    {true, true, "attn.s", "self_attn.row_factor"},
    {true, false, "attn.", "self_attn."},
    {true, false, "mlp_norm.", "post_attention_layernorm."},
};
enum { N_RENAMINGS = sizeof renamings / sizeof *renamings };

/* What follows "model.layers.N.", NULL for a name that does not begin so. */
static const char *tail_in_layer(const char *name) {
    if (strncmp(name, layers, sizeof layers - 1) != 0) return NULL;
    const char *number = name + sizeof layers - 1;
    size_t digits = strspn(number, "0123456789");
    return digits > 0 && number[digits] == '.' ? number + digits + 1 : NULL;
}

static const char *name_in(int row, bool fla) { return fla ? renamings[row].fla : renamings[row].llama; }

/* Row that renames a name of fla's (or of LLaMA's), -1 if none does; *at is where the part to replace begins. */
static int find_renaming(const char *name, bool fla, const char **at) {
    const char *tail = tail_in_layer(name);
    for (int i = 0; i < N_RENAMINGS; i++) {
        *at = renamings[i].in_layer ? tail : name;
        size_t length = strlen(name_in(i, fla));
        if (*at && strncmp(*at, name_in(i, fla), length) == 0 && (!renamings[i].whole || !(*at)[length])) return i;
    }
    return -1;
}

bool sp_tensor_name_is_fla(const char *name) {
    const char *at;
    return find_renaming(name, true, &at) >= 0;
}

static sp_status rename_tensor(char **out, const char *name, bool from_fla) {
    const char *at;
    int row = find_renaming(name, from_fla, &at);
    const char *from = row >= 0 ? name_in(row, from_fla) : "", *to = row >= 0 ? name_in(row, !from_fla) : "";
    if (row < 0) at = name;
    size_t n_bytes = strlen(name) + strlen(to) + 1;
    *out = malloc(n_bytes);
    SP_REQUIRE(*out, SP_OUT_OF_MEMORY, "%.200s: no memory for its name", name);
    snprintf(*out, n_bytes, "%.*s%s%s", (int)(at - name), name, to, at + strlen(from));
    return SP_OK;
}

sp_status sp_tensor_name_to_llama(char **out, const char *name) { return rename_tensor(out, name, true); }

sp_status sp_tensor_name_to_fla(char **out, const char *name) { return rename_tensor(out, name, false); }
