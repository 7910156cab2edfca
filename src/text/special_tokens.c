/* Which tokens begin and end a text, and whether they are put around every one.  A tokenizer_config.json says it best
 * (bos_token, eos_token, add_bos_token, add_eos_token); then what the tokenizer's own file says; then names. */
#include <string.h>

#include "text/tokenizer.h"

/* A special token that has this text, -1: none. */
static int32_t find_special(const sp_tokenizer *tokenizer, const char *text, bool any) {
    size_t n_bytes = strlen(text);
    for (int64_t id = 0; id < tokenizer->vocabulary; id++) {
        const sp_token *token = &tokenizer->tokens[id];
        if (token->text && (size_t)token->n_bytes == n_bytes && (any || token->special) &&
            memcmp(token->text, text, n_bytes) == 0)
            return (int32_t)id;
    }
    return -1;
}

/* config[key] is a text, or an object with "content". */
static void read_token(const sp_tokenizer *tokenizer, const json_t *config, const char *key, int32_t *id) {
    const json_t *value = json_object_get(config, key);
    const char *text = json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
    int32_t found = text ? find_special(tokenizer, text, true) : -1;
    if (found >= 0) *id = found;
}

static int32_t find_by_name(const sp_tokenizer *tokenizer, const char *const *names, int n_names) {
    for (int i = 0; i < n_names; i++) {
        int32_t id = find_special(tokenizer, names[i], false);
        if (id >= 0) return id;
    }
    return -1;
}

static void guess(sp_tokenizer *tokenizer) {
    static const char *const begins[] = {"<s>", "<|begin_of_text|>", "<bos>", "<|endoftext|>"};
    static const char *const ends[] = {"</s>", "<|end_of_text|>", "<eos>", "<|endoftext|>"};
    if (tokenizer->bos < 0 && tokenizer->before.n > 0) tokenizer->bos = tokenizer->before.items[0];
    if (tokenizer->eos < 0 && tokenizer->after.n > 0) tokenizer->eos = tokenizer->after.items[tokenizer->after.n - 1];
    if (tokenizer->bos < 0) tokenizer->bos = find_by_name(tokenizer, begins, sizeof begins / sizeof *begins);
    if (tokenizer->eos < 0) tokenizer->eos = find_by_name(tokenizer, ends, sizeof ends / sizeof *ends);
}

/* Where config names one of the two keys, it alone tells what stands around a text. */
static sp_status read_template(sp_tokenizer *tokenizer, const json_t *config) {
    const json_t *add_bos = json_object_get(config, "add_bos_token"),
                 *add_eos = json_object_get(config, "add_eos_token");
    if (!add_bos && !add_eos) return SP_OK;
    tokenizer->before.n = tokenizer->after.n = 0;
    if (json_is_true(add_bos) && tokenizer->bos >= 0) SP_TRY(sp_token_list_add(&tokenizer->before, &tokenizer->bos, 1));
    if (json_is_true(add_eos) && tokenizer->eos >= 0) SP_TRY(sp_token_list_add(&tokenizer->after, &tokenizer->eos, 1));
    return SP_OK;
}

sp_status sp_tokenizer_read_special(sp_tokenizer *tokenizer, const json_t *config) {
    if (config) {
        read_token(tokenizer, config, "bos_token", &tokenizer->bos);
        read_token(tokenizer, config, "eos_token", &tokenizer->eos);
    }
    guess(tokenizer);
    return config ? read_template(tokenizer, config) : SP_OK;
}
