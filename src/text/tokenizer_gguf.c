/* A tokenizer as the keys of a GGUF file.  One that came from a GGUF file keeps that file's keys; a sentencepiece model
 * gives its pieces and scores; of a tokenizer.json the vocabulary and the merges are taken:
 *
 *   byte fallback     kind "llama": merges become scores, the piece that is made first the highest
 *   bytes as letters  kind "gpt2": merges as they are, and the splitter by the name that llama.cpp has for it
 *
 * Numbers of a list of scores are reals in the JSON, so that the writer knows them for floats. */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "formats/gguf.h"
#include "text/sentencepiece_model.h"
#include "text/tokenizer.h"

#define GGML "tokenizer.ggml."

/* ---- from a GGUF file ------------------------------------------------------------------------------------------ */

static json_t *item_json(const sp_gguf_value *value, int64_t i, const uint8_t **at) {
    switch (value->kind) {
    case SP_GGUF_STRING: {
        sp_gguf_string text = sp_gguf_next_string(at);
        return json_stringn(text.bytes, (size_t)text.n_bytes);
    }
    case SP_GGUF_F32:
    case SP_GGUF_F64: return json_real(sp_gguf_number_at(value, i));
    case SP_GGUF_BOOL: return json_boolean(sp_gguf_integer_at(value, i) != 0);
    default: return json_integer(sp_gguf_integer_at(value, i));
    }
}

static sp_status copy_gguf(json_t *keys, const char *path) {
    sp_gguf *file;
    SP_TRY(sp_gguf_open(&file, path));
    sp_status status = SP_OK;
    for (int64_t i = 0; i < sp_gguf_n_values(file); i++) {
        const sp_gguf_value *value = sp_gguf_value_at(file, i);
        if (strncmp(value->key, "tokenizer.", 10) != 0) continue;
        const uint8_t *at = value->data;
        json_t *json = value->is_array ? json_array() : item_json(value, 0, &at);
        for (int64_t j = 0; value->is_array && j < value->n; j++)
            SP_REQUIRE_OR_DONE(json_array_append_new(json, item_json(value, j, &at)) == 0, SP_BAD_FILE,
                               "%s: key %s: item %" PRId64 " is not UTF-8", path, value->key, j);
        SP_REQUIRE_OR_DONE(json_object_set_new(keys, value->key, json) == 0, SP_BAD_FILE, "%s: key %s is not UTF-8",
                           path, value->key);
    }
done:
    sp_gguf_close(file);
    return status;
}

/* ---- what all other sources share ------------------------------------------------------------------------------ */

typedef struct pieces {
    json_t *tokens, *scores, *types;
} pieces;

static void put(json_t *keys, const char *key, json_t *value) { json_object_set_new(keys, key, value); }

static void put_pieces(json_t *keys, const pieces *list, const char *kind, const char *pre) {
    put(keys, GGML "model", json_string(kind));
    put(keys, GGML "pre", json_string(pre));
    put(keys, GGML "tokens", list->tokens);
    if (list->scores) put(keys, GGML "scores", list->scores);
    put(keys, GGML "token_type", list->types);
}

/* Pieces without use up to `vocabulary`, the model's. */
static void fill_up(json_t *keys, int64_t vocabulary) {
    json_t *tokens = json_object_get(keys, GGML "tokens"), *scores = json_object_get(keys, GGML "scores");
    for (int64_t id = (int64_t)json_array_size(tokens); id < vocabulary; id++) {
        json_array_append_new(tokens, json_sprintf("[PAD%" PRId64 "]", id));
        if (scores) json_array_append_new(scores, json_real(-10000));
        json_array_append_new(json_object_get(keys, GGML "token_type"), json_integer(SP_PIECE_UNUSED));
    }
}

static void put_id(json_t *keys, const char *key, int64_t id) {
    if (id >= 0) put(keys, key, json_integer(id));
}

static void put_marks(json_t *keys, const sp_tokenizer *tokenizer, int64_t unk, int64_t pad) {
    put_id(keys, GGML "bos_token_id", tokenizer->bos);
    put_id(keys, GGML "eos_token_id", tokenizer->eos);
    put_id(keys, GGML "unknown_token_id", unk);
    put_id(keys, GGML "padding_token_id", pad);
    put(keys, GGML "add_bos_token", json_boolean(tokenizer->before.n > 0));
    put(keys, GGML "add_eos_token", json_boolean(tokenizer->after.n > 0));
}

/* ---- from a sentencepiece model -------------------------------------------------------------------------------- */

static sp_status copy_facts(json_t *keys, const sp_tokenizer *tokenizer, const sp_sentencepiece_facts *facts) {
    SP_REQUIRE(facts->algorithm == SP_SENTENCEPIECE_BPE, SP_UNSUPPORTED,
               "%s: a sentencepiece model of another kind than bpe has no place in GGUF", tokenizer->path);
    if (facts->n_charsmap || facts->remove_extra_whitespaces)
        sp_log(
            SP_LOG_WARNING,
            "%s: its rules for preparing texts have no place in GGUF: other programs will make other tokens of texts "
            "with repeated spaces or unusual letters",
            tokenizer->path);
    pieces list = {json_array(), json_array(), json_array()};
    for (int64_t i = 0; i < facts->n_pieces; i++) {
        const sp_piece *piece = &facts->pieces[i];
        json_array_append_new(list.tokens, json_stringn(piece->text, (size_t)piece->n_bytes));
        json_array_append_new(list.scores, json_real(piece->score));
        json_array_append_new(list.types, json_integer(piece->type));
    }
    put_pieces(keys, &list, "llama", "default");
    put_marks(keys, tokenizer, facts->unk, facts->pad);
    put(keys, GGML "add_space_prefix", json_boolean(facts->add_dummy_prefix));
    SP_REQUIRE((int64_t)json_array_size(list.tokens) == facts->n_pieces, SP_UNSUPPORTED,
               "%s: a piece is not UTF-8, which has no place in GGUF", tokenizer->path);
    return SP_OK;
}

static sp_status copy_sentencepiece(json_t *keys, const sp_tokenizer *tokenizer) {
    char *bytes;
    int64_t n_bytes;
    sp_sentencepiece_facts facts;
    SP_TRY(sp_file_read(tokenizer->path, &bytes, &n_bytes));
    sp_status status = sp_sentencepiece_facts_read(&facts, bytes, n_bytes, tokenizer->path);
    if (status == SP_OK) {
        status = copy_facts(keys, tokenizer, &facts);
        sp_sentencepiece_facts_free(&facts);
    }
    free(bytes);
    return status;
}

/* ---- from tokenizer.json --------------------------------------------------------------------------------------- */

static bool type_is(const json_t *json, const char *type) {
    const char *own = json_string_value(json_object_get(json, "type"));
    return own && strcmp(own, type) == 0;
}

/* The i-th step of a component that may be a Sequence; NULL past the end. */
static const json_t *step_at(const json_t *component, const char *list, size_t i) {
    if (!type_is(component, "Sequence")) return i == 0 && json_is_object(component) ? component : NULL;
    return json_array_get(json_object_get(component, list), i);
}

static const json_t *find_step(const json_t *component, const char *list, const char *type) {
    const json_t *step;
    for (size_t i = 0; (step = step_at(component, list, i)); i++)
        if (type_is(step, type)) return step;
    return NULL;
}

static sp_status find_splitter(const char **name, const json_t *json, const char *source) {
    const json_t *steps = json_object_get(json, "pre_tokenizer");
    const json_t *split = find_step(steps, "pretokenizers", "Split"),
                 *digits = find_step(steps, "pretokenizers", "Digits");
    const json_t *bytes = find_step(steps, "pretokenizers", "ByteLevel");
    const char *pattern = json_string_value(json_object_get(json_object_get(split, "pattern"), "Regex"));
    bool one_by_one = json_is_true(json_object_get(digits, "individual_digits"));
    bool splits = !json_is_false(json_object_get(bytes, "use_regex"));
    *name = (split != NULL) == splits || (split && !pattern) ? NULL : sp_pieces_splitter_name(pattern, one_by_one);
    if (json_is_true(json_object_get(bytes, "add_prefix_space"))) *name = NULL;
    SP_REQUIRE(*name, SP_UNSUPPORTED, "%s: GGUF has no name for its pre_tokenizer", source);
    return SP_OK;
}

/* Texts of all ids, holes filled with unused pieces, and the type of each. */
static sp_status list_tokens(pieces *list, const json_t *json, const sp_tokenizer *tokenizer) {
    const json_t *unk = json_object_get(json_object_get(json, "model"), "unk_token");
    for (int64_t id = 0; id < tokenizer->vocabulary; id++) {
        const sp_token *token = &tokenizer->tokens[id];
        char hole[40];
        snprintf(hole, sizeof hole, "[PAD%" PRId64 "]", id);
        bool is_byte = token->n_bytes == 6 && memcmp(token->text, "<0x", 3) == 0 && token->text[5] == '>';
        int type = !token->text     ? SP_PIECE_UNUSED
                   : token->special ? SP_PIECE_CONTROL
                   : is_byte        ? SP_PIECE_BYTE
                                    : SP_PIECE_NORMAL;
        if (token->text && json_is_string(unk) && strcmp(json_string_value(unk), token->text) == 0)
            type = SP_PIECE_UNKNOWN;
        json_array_append_new(list->tokens, json_string(token->text ? token->text : hole));
        json_array_append_new(list->types, json_integer(type));
    }
    size_t i;
    json_t *added;
    json_array_foreach(json_object_get(json, "added_tokens"), i, added) {
        int64_t id = json_integer_value(json_object_get(added, "id"));
        bool special = json_is_true(json_object_get(added, "special"));
        if (!special && id >= 0 && id < tokenizer->vocabulary)
            json_array_set_new(list->types, (size_t)id, json_integer(SP_PIECE_USER_DEFINED));
    }
    SP_REQUIRE((int64_t)json_array_size(list->tokens) == tokenizer->vocabulary, SP_UNSUPPORTED,
               "%s: a piece is not UTF-8, which has no place in GGUF", tokenizer->path);
    return SP_OK;
}

/* The two parts of a merge, in either of its forms; false for what is none. */
static bool read_merge(const json_t *merge, const char *parts[2], size_t lengths[2]) {
    if (json_is_array(merge)) {
        for (size_t i = 0; i < 2; i++) parts[i] = json_string_value(json_array_get(merge, i));
        for (size_t i = 0; i < 2 && parts[i]; i++) lengths[i] = strlen(parts[i]);
        return parts[0] && parts[1];
    }
    parts[0] = json_string_value(merge);
    const char *space = parts[0] ? strchr(parts[0], ' ') : NULL;
    if (!space) return false;
    parts[1] = space + 1;
    lengths[0] = (size_t)(space - parts[0]);
    lengths[1] = strlen(parts[1]);
    return true;
}

/* "a" and `between` and "b" of each merge; caller releases. */
static sp_status join_merges(json_t **out, const json_t *model, const char *between, const char *source) {
    size_t i;
    json_t *merge;
    *out = json_array();
    json_array_foreach(json_object_get(model, "merges"), i, merge) {
        const char *parts[2];
        size_t lengths[2];
        SP_REQUIRE(read_merge(merge, parts, lengths), SP_BAD_FILE, "%s: merge %zu is none", source, i);
        json_array_append_new(
            *out, json_sprintf("%.*s%s%.*s", (int)lengths[0], parts[0], between, (int)lengths[1], parts[1]));
    }
    return SP_OK;
}

/* -rank of the first merge that makes a piece; pieces that no merge makes come after all. */
static sp_status score_pieces(json_t *scores, const json_t *tokens, const json_t *model, const char *source) {
    json_t *made, *ranks = json_object(), *piece;
    sp_status status = join_merges(&made, model, "", source);
    size_t i, n = json_array_size(made);
    for (i = 0; i < n; i++) {
        const char *text = json_string_value(json_array_get(made, i));
        if (text && !json_object_get(ranks, text)) json_object_set_new(ranks, text, json_integer((json_int_t)i));
    }
    json_array_foreach((json_t *)(uintptr_t)tokens, i, piece) {
        const json_t *rank = json_object_get(ranks, json_string_value(piece));
        json_array_append_new(scores, json_real(-(double)(rank ? (size_t)json_integer_value(rank) : n + i)));
    }
    json_decref(made);
    json_decref(ranks);
    return status;
}

static sp_status copy_byte_fallback(json_t *keys, const sp_tokenizer *tokenizer, const json_t *tree) {
    pieces list = {json_array(), json_array(), json_array()};
    const json_t *model = json_object_get(tree, "model");
    const json_t *normalizer = json_object_get(tree, "normalizer");
    const json_t *metaspace = find_step(json_object_get(tree, "pre_tokenizer"), "pretokenizers", "Metaspace");
    const char *scheme = json_string_value(json_object_get(metaspace, "prepend_scheme"));
    bool prefix = find_step(normalizer, "normalizers", "Prepend") || (scheme && strcmp(scheme, "never") != 0);
    sp_status status = list_tokens(&list, tree, tokenizer);
    if (status == SP_OK) status = score_pieces(list.scores, list.tokens, model, tokenizer->path);
    put_pieces(keys, &list, "llama", "default");
    put(keys, GGML "add_space_prefix", json_boolean(prefix));
    return status;
}

static sp_status copy_byte_level(json_t *keys, const sp_tokenizer *tokenizer, const json_t *tree) {
    const json_t *model = json_object_get(tree, "model");
    const char *pre;
    json_t *merges;
    SP_TRY(find_splitter(&pre, tree, tokenizer->path));
    pieces list = {json_array(), NULL, json_array()};
    sp_status status = list_tokens(&list, tree, tokenizer);
    put_pieces(keys, &list, "gpt2", pre);
    SP_TRY(status);
    status = join_merges(&merges, model, " ", tokenizer->path);
    put(keys, GGML "merges", merges);
    return status;
}

static int64_t id_of(const sp_tokenizer *tokenizer, const json_t *text) {
    for (int64_t id = 0; json_is_string(text) && id < tokenizer->vocabulary; id++)
        if (tokenizer->tokens[id].text && strcmp(tokenizer->tokens[id].text, json_string_value(text)) == 0) return id;
    return -1;
}

static sp_status copy_tree(json_t *keys, const sp_tokenizer *tokenizer, const json_t *tree) {
    const json_t *model = json_object_get(tree, "model");
    bool bytes = find_step(json_object_get(tree, "pre_tokenizer"), "pretokenizers", "ByteLevel") != NULL;
    if (json_is_true(json_object_get(model, "byte_fallback")))
        SP_TRY(copy_byte_fallback(keys, tokenizer, tree));
    else if (bytes)
        SP_TRY(copy_byte_level(keys, tokenizer, tree));
    else
        return sp_fail(SP_UNSUPPORTED, "%s: GGUF has tokenizers with byte fallback or of bytes alone", tokenizer->path);
    put_marks(keys, tokenizer, id_of(tokenizer, json_object_get(model, "unk_token")), -1);
    return SP_OK;
}

/* The tree was made when the tokenizer was opened, or stands in its file. */
static sp_status copy_json(json_t *keys, const sp_tokenizer *tokenizer) {
    json_t *tree = json_incref(tokenizer->json);
    if (!tree) SP_TRY(sp_json_read(&tree, tokenizer->path));
    sp_status status = copy_tree(keys, tokenizer, tree);
    json_decref(tree);
    return status;
}

/* ---- the call -------------------------------------------------------------------------------------------------- */

static bool begins_with(const char *path, const char *bytes) {
    sp_file_map map;
    size_t n = strlen(bytes);
    if (sp_file_map_open(&map, path) != SP_OK) return false;
    bool same = map.n_bytes >= (int64_t)n && memcmp(map.data, bytes, n) == 0;
    sp_file_map_close(&map);
    return same;
}

sp_status sp_tokenizer_gguf(const sp_tokenizer *tokenizer, int64_t vocabulary, char **keys) {
    *keys = NULL;
    json_t *json = json_object();
    sp_status status = begins_with(tokenizer->path, "GGUF")                  ? copy_gguf(json, tokenizer->path)
                       : strcmp(tokenizer->kind->name, "sentencepiece") == 0 ? copy_sentencepiece(json, tokenizer)
                                                                             : copy_json(json, tokenizer);
    if (status == SP_OK) fill_up(json, vocabulary);
    if (status == SP_OK) status = sp_json_format(keys, json, 1);
    json_decref(json);
    return status;
}
