/* A tokenizer.json, interpreted component by component.  The way of a text:
 *
 *   added tokens that are not normalized are found in it; what stands between them is normalized; added tokens that are
 *   normalized are found in that; the rest is split into words; words become tokens by BPE.
 *
 * Each stage hands its successor bytes and spans of them.  With ByteLevel, words are bytes: the vocabulary, which the file
 * writes in GPT-2's characters for bytes, was turned back at opening.  "truncation" and "padding" are not followed: they
 * are left in files by whoever used them last, and loaders reset them. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/pieces.h"
#include "text/splitter.h"
#include "text/template.h"
#include "text/text_normalizer.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

typedef struct model {
    sp_bytes texts;   /* of all tokens, with zeros */
    sp_bytes *normal; /* n_normal texts of added tokens as they look in normalized text */
    int64_t n_normal;
    sp_added_tokens *raw, *normalized;
    sp_text_normalizer *normalizer;
    sp_splitter *splitter;
    sp_bpe *bpe;
    int64_t n_dummy; /* tokens before the newline of a text that continues another: dropped */
} model;

/* ---- encoding ---- */

typedef struct worker {
    const model *model;
    sp_bpe_worker *bpe;
    sp_bytes normal, part; /* a section, normalized; a part of it between added tokens */
    sp_spans words;
} worker;

static void worker_free(void *of) {
    worker *w = of;
    if (!w) return;
    sp_bpe_worker_free(w->bpe);
    sp_bytes_free(&w->normal);
    sp_bytes_free(&w->part);
    sp_spans_free(&w->words);
    free(w);
}

static sp_status worker_new(void **out, const void *of) {
    const model *m = of;
    *out = NULL;
    worker *w = calloc(1, sizeof *w);
    SP_REQUIRE(w, SP_OUT_OF_MEMORY, "encoding: no memory");
    w->model = m;
    sp_status status = sp_bpe_worker_new(&w->bpe, m->bpe);
    if (status == SP_OK)
        *out = w;
    else
        free(w);
    return status;
}

/* `text` holds no added token. */
static sp_status encode_words(worker *w, sp_bytes *text, bool begins_text, sp_token_list *out) {
    SP_TRY(sp_splitter_split(w->model->splitter, text, begins_text, &w->words));
    for (int64_t i = 0; i < w->words.n; i++) {
        sp_span word = w->words.items[i];
        SP_TRY(sp_bpe_encode(w->bpe, text->data + word.begin, word.end - word.begin, out));
    }
    return SP_OK;
}

/* w->normal holds normalized text. */
static sp_status encode_normal(worker *w, const sp_encoding *item, bool begins_text, sp_token_list *out) {
    if (!w->model->normalized) return encode_words(w, &w->normal, begins_text, out);
    sp_section_walk walk = {.set = w->model->normalized,
                            .text = w->normal.data,
                            .n_bytes = w->normal.n,
                            .special = item->flags & SP_ENCODE_SPECIAL};
    for (sp_section section; sp_section_next(&walk, &section);) {
        if (section.id >= 0) {
            SP_TRY(sp_token_list_add(out, &section.id, 1));
            continue;
        }
        w->part.n = 0;
        SP_TRY(sp_bytes_add(&w->part, w->normal.data + section.begin, section.end - section.begin));
        SP_TRY(encode_words(w, &w->part, begins_text && section.begin == 0, out));
    }
    return SP_OK;
}

static sp_status check_utf8(const sp_encoding *item) {
    for (int64_t at = 0; at < item->n_bytes;) {
        at += sp_utf8_prefix(item->text + at, item->n_bytes - at);
        if (at == item->n_bytes) break;
        SP_REQUIRE(item->text[at] == 0, SP_BAD_ARGUMENT, "encoding: the text is not UTF-8 at byte %" PRId64, at);
        at++;
    }
    return SP_OK;
}

/* The first n tokens behind `from`. */
static void drop_first(sp_token_list *list, int64_t from, int64_t n) {
    if (n > list->n - from) n = list->n - from;
    list->n -= n;
    memmove(list->items + from, list->items + from + n, (size_t)(list->n - from) * sizeof *list->items);
}

static sp_status encode(void *of, const sp_encoding *item, sp_token_list *out) {
    worker *w = of;
    SP_TRY(check_utf8(item));
    sp_section_walk walk = {
        .set = w->model->raw, .text = item->text, .n_bytes = item->n_bytes, .special = item->flags & SP_ENCODE_SPECIAL};
    for (sp_section section; sp_section_next(&walk, &section);) {
        if (section.id >= 0) {
            SP_TRY(sp_token_list_add(out, &section.id, 1));
            continue;
        }
        bool first = section.begin == 0;
        int64_t n_before = out->n;
        w->normal.n = 0;
        SP_TRY(sp_bytes_add(&w->normal, item->text + section.begin, section.end - section.begin));
        if (w->model->normalizer) SP_TRY(sp_text_normalizer_apply(w->model->normalizer, &w->normal));
        SP_TRY(encode_normal(w, item, first && !item->continues, out));
        if (first && item->continues) drop_first(out, n_before, w->model->n_dummy);
    }
    return SP_OK;
}

static void model_free(void *of) {
    model *m = of;
    if (!m) return;
    sp_bytes_free(&m->texts);
    for (int64_t i = 0; i < m->n_normal; i++) sp_bytes_free(&m->normal[i]);
    free(m->normal);
    sp_added_tokens_free(m->raw);
    sp_added_tokens_free(m->normalized);
    sp_text_normalizer_free(m->normalizer);
    sp_splitter_free(m->splitter);
    sp_bpe_free(m->bpe);
    free(m);
}

static const sp_tokenizer_kind kind = {"tokenizer.json", model_free, worker_new, worker_free, encode};

/* ---- the list of tokens ---- */

enum { HOLES_MAX = 1 << 16 }; /* ids that no token has */

static int64_t id_of(const json_t *id) { return json_is_integer(id) ? (int64_t)json_integer_value(id) : -1; }

static sp_status put_token(sp_tokenizer *tokenizer, model *m, const char *text, int64_t id, bool special) {
    int64_t begin = m->texts.n, n_bytes = (int64_t)strlen(text);
    SP_TRY(sp_bytes_add(&m->texts, text, n_bytes + 1));
    tokenizer->tokens[id] = (sp_token){.text = m->texts.data + begin, .n_bytes = n_bytes, .special = special};
    return SP_OK;
}

/* Bytes of all texts, and the vocabulary's size, which ids far from each other would blow up. */
static sp_status measure_tokens(sp_tokenizer *tokenizer, json_t *vocab, const json_t *added, int64_t *n_bytes) {
    int64_t last = -1, n = (int64_t)json_object_size(vocab) + (int64_t)json_array_size(added);
    const char *text;
    json_t *id;
    json_object_foreach(vocab, text, id) {
        SP_REQUIRE(id_of(id) >= 0, SP_BAD_FILE, "%s: model.vocab: '%.100s' has no id", tokenizer->path, text);
        if (id_of(id) > last) last = id_of(id);
        *n_bytes += (int64_t)strlen(text) + 1;
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *token = json_array_get(added, i);
        const char *content = json_string_value(json_object_get(token, "content"));
        int64_t at = id_of(json_object_get(token, "id"));
        SP_REQUIRE(content && at >= 0, SP_BAD_FILE, "%s: added_tokens[%zu] has no 'content' or no 'id'",
                   tokenizer->path, i);
        if (at > last) last = at;
        *n_bytes += (int64_t)strlen(content) + 1;
    }
    SP_REQUIRE(last >= 0, SP_BAD_FILE, "%s: it has no tokens", tokenizer->path);
    SP_REQUIRE(last < n + HOLES_MAX && last < INT32_MAX, SP_BAD_FILE,
               "%s: id %" PRId64 " is far above what %" PRId64 " tokens need", tokenizer->path, last, n);
    tokenizer->vocabulary = last + 1;
    return SP_OK;
}

static sp_status list_tokens(sp_tokenizer *tokenizer, model *m, json_t *vocab, const json_t *added) {
    int64_t n_bytes = 0;
    SP_TRY(measure_tokens(tokenizer, vocab, added, &n_bytes));
    tokenizer->tokens = calloc((size_t)tokenizer->vocabulary, sizeof *tokenizer->tokens);
    SP_REQUIRE(tokenizer->tokens, SP_OUT_OF_MEMORY, "%s: no memory for its tokens", tokenizer->path);
    SP_TRY(sp_bytes_reserve(&m->texts, n_bytes)); /* no pointer into it moves */
    const char *text;
    json_t *id;
    json_object_foreach(vocab, text, id) SP_TRY(put_token(tokenizer, m, text, id_of(id), false));
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *token = json_array_get(added, i);
        const char *content = json_string_value(json_object_get(token, "content"));
        const json_t *known = json_object_get(vocab, content);
        int64_t at = id_of(json_object_get(token, "id"));
        SP_REQUIRE(!known || id_of(known) == at, SP_BAD_FILE,
                   "%s: added_tokens[%zu]: '%.100s' has id %" PRId64 ", but %" PRId64 " in model.vocab",
                   tokenizer->path, i, content, at, id_of(known));
        SP_TRY(put_token(tokenizer, m, content, at, json_is_true(json_object_get(token, "special"))));
    }
    return SP_OK;
}

/* ---- added tokens ---- */

/* What it looks like in normalized text: so it is found, and so it is decoded.  Under that name it is no special token any
 * more, unless it is the same. */
static sp_status normalize_token(sp_tokenizer *tokenizer, model *m, sp_added_token *added) {
    sp_bytes *text = &m->normal[m->n_normal++];
    SP_TRY(sp_bytes_add(text, added->text, added->n_bytes));
    if (m->normalizer) SP_TRY(sp_text_normalizer_apply(m->normalizer, text));
    SP_TRY(sp_bytes_add(text, "", 1));
    sp_token *token = &tokenizer->tokens[added->id];
    if (strcmp(text->data, token->text) != 0) {
        token->surface = text->data;
        token->special = false;
    }
    added->text = text->data;
    added->n_bytes = text->n - 1;
    return SP_OK;
}

static bool flag_of(const json_t *json, const char *key) { return json_is_true(json_object_get(json, key)); }

static sp_added_token added_token(const sp_tokenizer *tokenizer, const json_t *json) {
    int64_t id = id_of(json_object_get(json, "id"));
    return (sp_added_token){.text = tokenizer->tokens[id].text,
                            .n_bytes = tokenizer->tokens[id].n_bytes,
                            .id = (int32_t)id,
                            .special = flag_of(json, "special"),
                            .single_word = flag_of(json, "single_word"),
                            .lstrip = flag_of(json, "lstrip"),
                            .rstrip = flag_of(json, "rstrip")};
}

/* Those with `normalized` as asked for. */
static sp_status read_added(sp_tokenizer *tokenizer, model *m, const json_t *list, bool normalized,
                            sp_added_tokens **set) {
    size_t n_list = json_array_size(list);
    int64_t n = 0;
    sp_added_token *tokens = calloc(n_list + 1, sizeof *tokens);
    SP_REQUIRE(tokens, SP_OUT_OF_MEMORY, "%s: no memory for its added tokens", tokenizer->path);
    sp_status status = SP_OK;
    for (size_t i = 0; i < n_list; i++) {
        const json_t *json = json_array_get(list, i);
        if (flag_of(json, "normalized") != normalized) continue;
        tokens[n] = added_token(tokenizer, json);
        if (normalized && tokens[n].n_bytes > 0) SP_TRY_OR_DONE(normalize_token(tokenizer, m, &tokens[n]));
        if (tokens[n].n_bytes > 0) n++;
    }
    if (n > 0) SP_TRY_OR_DONE(sp_added_tokens_new(set, tokens, n));
done:
    free(tokens);
    return status;
}

static sp_status read_all_added(sp_tokenizer *tokenizer, model *m, const json_t *list) {
    m->normal = calloc(json_array_size(list) + 1, sizeof *m->normal);
    SP_REQUIRE(m->normal, SP_OUT_OF_MEMORY, "%s: no memory for its added tokens", tokenizer->path);
    SP_TRY(read_added(tokenizer, m, list, false, &m->raw));
    return read_added(tokenizer, m, list, true, &m->normalized);
}

/* ---- where texts may be cut ---- */

static bool is_type(const json_t *json, const char *type) {
    const char *name = json_string_value(json_object_get(json, "type"));
    return name && strcmp(name, type) == 0;
}

/* True if every component, those of sequences (under `list`) too, passes. */
static bool all_pass(const json_t *json, const char *list, bool (*passes)(const json_t *component)) {
    if (!json || json_is_null(json)) return true;
    if (!is_type(json, "Sequence")) return passes(json);
    const json_t *parts = json_object_get(json, list);
    for (size_t i = 0; i < json_array_size(parts); i++)
        if (!all_pass(json_array_get(parts, i), list, passes)) return false;
    return true;
}

/* It changes characters one by one, or adds to the beginning. */
static bool is_local_normalizer(const json_t *json) {
    const char *pattern = json_string_value(json_object_get(json_object_get(json, "pattern"), "String"));
    return is_type(json, "Prepend") || is_type(json, "NFC") ||
           (is_type(json, "Replace") && pattern && strcmp(pattern, " ") == 0);
}

static bool is_one_word(const json_t *json) {
    return is_type(json, "Metaspace") && json_is_false(json_object_get(json, "split"));
}

/* It cuts between a letter and a newline, and how it goes on does not depend on what is before. */
static bool ends_words_at_newlines(const json_t *json) {
    const char *pattern = json_string_value(json_object_get(json_object_get(json, "pattern"), "Regex"));
    if (is_type(json, "Split")) return pattern && sp_pieces_know_pattern(pattern);
    return is_type(json, "Digits") ||
           (is_type(json, "ByteLevel") && !json_is_true(json_object_get(json, "add_prefix_space")));
}

static bool added_tokens_are_local(const json_t *list) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *token = json_array_get(list, i);
        if (strchr(json_string_value(json_object_get(token, "content")), '\n')) return false;
        if (json_is_true(json_object_get(token, "lstrip")) || json_is_true(json_object_get(token, "rstrip")) ||
            json_is_true(json_object_get(token, "single_word")))
            return false;
    }
    return true;
}

/* The tokens that come before the newline of a text that continues another. */
static sp_status count_dummy(model *m) {
    worker *w;
    sp_token_list tokens = {0};
    sp_encoding newline = {.text = "\n", .n_bytes = 1, .continues = true};
    SP_TRY(worker_new((void **)&w, m));
    sp_status status = encode(w, &newline, &tokens);
    m->n_dummy = tokens.n > 0 ? tokens.n - 1 : 0;
    worker_free(w);
    free(tokens.items);
    return status;
}

static sp_status find_cuts(sp_tokenizer *tokenizer, model *m, const json_t *json) {
    const json_t *splitter = json_object_get(json, "pre_tokenizer");
    if (!all_pass(json_object_get(json, "normalizer"), "normalizers", is_local_normalizer)) return SP_OK;
    if (!added_tokens_are_local(json_object_get(json, "added_tokens"))) return SP_OK;
    bool one_word = all_pass(splitter, "pretokenizers", is_one_word);
    tokenizer->cuts = one_word && sp_bpe_newlines_stand_apart(m->bpe);
    tokenizer->cuts_after_letters =
        !one_word && sp_splitter_byte_level(m->splitter) && all_pass(splitter, "pretokenizers", ends_words_at_newlines);
    return tokenizer->cuts ? count_dummy(m) : SP_OK;
}

/* ---- opening ---- */

static sp_status check_template(const sp_tokenizer *tokenizer, const sp_token_list *list) {
    for (int64_t i = 0; i < list->n; i++)
        SP_REQUIRE(list->items[i] < tokenizer->vocabulary && tokenizer->tokens[list->items[i]].text, SP_BAD_FILE,
                   "%s: post_processor: token %" PRId32 " is outside the vocabulary", tokenizer->path, list->items[i]);
    return SP_OK;
}

static sp_status read_model(sp_tokenizer *tokenizer, model *m, const json_t *json) {
    const json_t *bpe = json_object_get(json, "model"), *added = json_object_get(json, "added_tokens");
    const char *type = json_string_value(json_object_get(bpe, "type")), *path = tokenizer->path;
    /* files of before 2020 have no type: then it is what has merges */
    if (!type) type = json_object_get(bpe, "merges") ? "BPE" : "?";
    SP_REQUIRE(strcmp(type, "BPE") == 0, SP_UNSUPPORTED, "%s: model '%.100s' is not supported (BPE is)", path, type);
    SP_REQUIRE(!added || json_is_null(added) || json_is_array(added), SP_BAD_FILE, "%s: added_tokens is no list", path);
    SP_TRY(sp_text_normalizer_new(&m->normalizer, json_object_get(json, "normalizer"), path));
    SP_TRY(sp_splitter_new(&m->splitter, json_object_get(json, "pre_tokenizer"), path));
    SP_TRY(sp_bpe_new(&m->bpe, bpe, sp_splitter_byte_level(m->splitter), path));
    SP_TRY(list_tokens(tokenizer, m, json_object_get(bpe, "vocab"), added));
    SP_TRY(read_all_added(tokenizer, m, added));
    SP_TRY(sp_template_read(&tokenizer->before, &tokenizer->after, json_object_get(json, "post_processor"), path));
    SP_TRY(check_template(tokenizer, &tokenizer->before));
    SP_TRY(check_template(tokenizer, &tokenizer->after));
    SP_TRY(find_cuts(tokenizer, m, json));
    return sp_decoding_read(&tokenizer->decoding, json_object_get(json, "decoder"), path);
}

sp_status sp_tokenizer_load_json(sp_tokenizer *tokenizer, const json_t *json) {
    model *m = calloc(1, sizeof *m);
    SP_REQUIRE(m, SP_OUT_OF_MEMORY, "%s: no memory to read it", tokenizer->path);
    tokenizer->kind = &kind;
    tokenizer->model = m;
    return read_model(tokenizer, m, json);
}
