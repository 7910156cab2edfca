/* A tokenizer.json made of pieces.
 *
 * sentencepiece's BPE joins the two neighbours that together are the piece of the highest score.  A tokenizer.json names
 * pairs instead, best first: so every way to cut a piece into two others is a merge, in the order of the pieces' scores;
 * of cuts of pieces with equal scores the one with the longer left part comes first, then that with the longer right
 * part (which is how transformers converts).  sentencepiece takes the leftmost of equal scores in the text; the two can
 * differ only where a piece overlaps itself. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "text/pieces.h"

static const char mark[] = "\xe2\x96\x81";

typedef struct builder {
    const sp_pieces *pieces;
    const char *source;
    json_t *vocab;
} builder;

/* ---- vocabulary ---- */

static sp_status make_vocab(builder *b) {
    b->vocab = json_object();
    SP_REQUIRE(b->vocab, SP_OUT_OF_MEMORY, "%s: no memory for its vocabulary", b->source);
    for (int64_t id = 0; id < b->pieces->n; id++) {
        const sp_piece *piece = &b->pieces->items[id];
        json_t *other = json_object_getn(b->vocab, piece->text, (size_t)piece->n_bytes);
        SP_REQUIRE(!other, SP_BAD_FILE, "%s: pieces %" PRId64 " and %" PRId64 " are both '%.*s'", b->source,
                   (int64_t)json_integer_value(other), id, (int)(piece->n_bytes < 100 ? piece->n_bytes : 100),
                   piece->text);
        int failed = json_object_setn_new(b->vocab, piece->text, (size_t)piece->n_bytes, json_integer(id));
        SP_REQUIRE(!failed, SP_BAD_FILE, "%s: piece %" PRId64 " cannot stand in JSON", b->source, id);
    }
    return SP_OK;
}

static json_t *piece_json(const builder *b, int64_t id) {
    return id < 0 ? json_null() : json_stringn(b->pieces->items[id].text, (size_t)b->pieces->items[id].n_bytes);
}

static bool is_special(sp_piece_type type) { return type == SP_PIECE_CONTROL || type == SP_PIECE_UNKNOWN; }

static json_t *make_added(const builder *b) {
    json_t *list = json_array();
    for (int64_t id = 0; id < b->pieces->n; id++) {
        sp_piece_type type = b->pieces->items[id].type;
        if (!is_special(type) && type != SP_PIECE_USER_DEFINED) continue;
        json_array_append_new(list, json_pack("{s:I, s:o, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)id, "content",
                                              piece_json(b, id), "single_word", 0, "lstrip", 0, "rstrip", 0,
                                              "normalized", 0, "special", is_special(type)));
    }
    return list;
}

/* ---- merges ---- */

typedef struct merge {
    const sp_piece *piece;
    int64_t left_bytes;                /* where it is cut */
    int32_t left, right;               /* ids */
    int32_t left_length, right_length; /* characters */
} merge;

typedef struct merge_list {
    merge *items;
    int64_t n, capacity;
} merge_list;

static bool can_merge(sp_piece_type type) { return type == SP_PIECE_NORMAL || type == SP_PIECE_USER_DEFINED; }

/* -1: it is no piece that merges. */
static int32_t find_part(const builder *b, const char *text, int64_t n_bytes) {
    const json_t *id = json_object_getn(b->vocab, text, (size_t)n_bytes);
    return id && can_merge(b->pieces->items[json_integer_value(id)].type) ? (int32_t)json_integer_value(id) : -1;
}

static bool begins_character(char c) { return ((uint8_t)c & 0xc0) != 0x80; }

static sp_status add_cuts(const builder *b, const sp_piece *piece, merge_list *list) {
    int32_t n_characters = 0, at = 0;
    for (int64_t i = 0; i < piece->n_bytes; i++) n_characters += begins_character(piece->text[i]);
    for (int64_t i = 1; i < piece->n_bytes; i++) {
        if (!begins_character(piece->text[i])) continue;
        at++;
        int32_t left = find_part(b, piece->text, i),
                right = left < 0 ? -1 : find_part(b, piece->text + i, piece->n_bytes - i);
        if (right < 0) continue;
        if (list->n == list->capacity) {
            int64_t capacity = 2 * list->capacity + 1024;
            merge *items = realloc(list->items, (size_t)capacity * sizeof *items);
            SP_REQUIRE(items, SP_OUT_OF_MEMORY, "%s: no memory for its merges", b->source);
            list->items = items;
            list->capacity = capacity;
        }
        list->items[list->n++] = (merge){piece, i, left, right, at, n_characters - at};
    }
    return SP_OK;
}

static int sign(int64_t difference) { return (difference > 0) - (difference < 0); }

static int compare(const void *a, const void *b) {
    const merge *x = a, *y = b;
    if (x->piece->score != y->piece->score) return x->piece->score > y->piece->score ? -1 : 1;
    int by_length = sign(y->left_length - x->left_length);
    if (by_length == 0) by_length = sign(y->right_length - x->right_length);
    if (by_length == 0) by_length = sign(x->piece - y->piece);
    if (by_length == 0) by_length = sign((int64_t)x->left - y->left);
    return by_length ? by_length : sign((int64_t)x->right - y->right);
}

static sp_status make_scored_merges(const builder *b, json_t *merges) {
    merge_list list = {0};
    sp_status status = SP_OK;
    for (int64_t id = 0; id < b->pieces->n; id++)
        if (can_merge(b->pieces->items[id].type)) SP_TRY_OR_DONE(add_cuts(b, &b->pieces->items[id], &list));
    if (list.n > 0) qsort(list.items, (size_t)list.n, sizeof *list.items, compare);
    for (int64_t i = 0; i < list.n; i++) {
        const sp_piece *piece = list.items[i].piece;
        size_t cut = (size_t)list.items[i].left_bytes;
        json_array_append_new(merges,
                              json_pack("[s%, s%]", piece->text, cut, piece->text + cut, (size_t)piece->n_bytes - cut));
    }
done:
    free(list.items);
    return status;
}

/* ---- parts of the tree ---- */

static json_t *replace_json(const char *from, const char *to) {
    return json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", from, "content", to);
}

static json_t *remove_json(const char *pattern, const char *content) {
    return json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "Regex", pattern, "content", content);
}

/* A text begins anew behind every special token and every piece of the user: sentencepiece, which knows the latter,
 * gives no space there. */
static json_t *make_normalizer(const builder *b) {
    json_t *steps = json_array();
    if (b->pieces->remove_extra_spaces) {
        json_array_append_new(steps, remove_json(" {2,}", " "));
        json_array_append_new(steps, remove_json("\\A |[ \xe2\x96\x81]+\\z", ""));
    }
    if (b->pieces->add_space_prefix)
        json_array_append_new(steps, json_pack("{s:s, s:s}", "type", "Prepend", "prepend", mark));
    json_array_append_new(steps, replace_json(" ", mark));
    return json_pack("{s:s, s:o}", "type", "Sequence", "normalizers", steps);
}

static json_t *make_decoder(const builder *b) {
    json_t *steps = json_pack("[o, {s:s}, {s:s}]", replace_json(mark, " "), "type", "ByteFallback", "type", "Fuse");
    if (b->pieces->add_space_prefix)
        json_array_append_new(
            steps, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ", "start", 1, "stop", 0));
    return json_pack("{s:s, s:o}", "type", "Sequence", "decoders", steps);
}

static void add_special(const builder *b, json_t *single, json_t *tokens, int64_t id) {
    const sp_piece *piece = &b->pieces->items[id];
    size_t n = (size_t)piece->n_bytes;
    json_array_append_new(single, json_pack("{s:{s:s%, s:i}}", "SpecialToken", "id", piece->text, n, "type_id", 0));
    json_object_setn_new(
        tokens, piece->text, n,
        json_pack("{s:s%, s:[I], s:[s%]}", "id", piece->text, n, "ids", (json_int_t)id, "tokens", piece->text, n));
}

static json_t *make_template(const builder *b) {
    const sp_pieces *pieces = b->pieces;
    bool before = pieces->add_bos && pieces->bos >= 0, behind = pieces->add_eos && pieces->eos >= 0;
    if (!before && !behind) return json_null();
    json_t *single = json_array(), *tokens = json_object();
    if (before) add_special(b, single, tokens, pieces->bos);
    json_array_append_new(single, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
    if (behind) add_special(b, single, tokens, pieces->eos);
    json_t *pair = json_deep_copy(single), *second = json_deep_copy(single), *item;
    size_t i;
    json_array_foreach(second, i, item) {
        json_t *part = json_object_get(item, "Sequence");
        if (part) json_object_set_new(part, "id", json_string("B"));
        if (!part) part = json_object_get(item, "SpecialToken");
        json_object_set_new(part, "type_id", json_integer(1));
    }
    json_array_extend(pair, second);
    json_decref(second);
    return json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", single, "pair", pair,
                     "special_tokens", tokens);
}

static json_t *make_model(const builder *b, json_t *merges, bool ignore_merges) {
    bool byte_pieces = false;
    for (int64_t id = 0; id < b->pieces->n; id++) byte_pieces |= b->pieces->items[id].type == SP_PIECE_BYTE;
    return json_pack("{s:s, s:n, s:o, s:n, s:n, s:b, s:b, s:b, s:O, s:O}", "type", "BPE", "dropout", "unk_token",
                     b->pieces->kind == SP_PIECES_BYTE_LEVEL ? json_null() : piece_json(b, b->pieces->unk),
                     "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                     b->pieces->kind == SP_PIECES_SENTENCEPIECE, "byte_fallback", byte_pieces, "ignore_merges",
                     ignore_merges, "vocab", b->vocab, "merges", merges);
}

/* ---- how GGUF files name splitters ---- */

static const char llama3[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
                             "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char qwen2[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
                            "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

static const struct {
    const char *name;
    const char *pattern; /* of a Split; NULL: that of GPT-2 */
    bool digits;         /* each alone */
    bool ignore_merges;
} splitters[] = {
    {"gpt-2", NULL, false, false},   {"mpt", NULL, false, false},       {"llama-bpe", llama3, false, true},
    {"llama3", llama3, false, true}, {"llama-v3", llama3, false, true}, {"qwen2", qwen2, false, false},
    {"smollm", NULL, true, false},   {"starcoder", NULL, true, false},
};
enum { N_SPLITTERS = sizeof splitters / sizeof *splitters };

const char *sp_pieces_splitter_name(const char *pattern, bool digits) {
    for (int i = 0; i < N_SPLITTERS; i++) {
        const char *own = splitters[i].pattern;
        bool same = own && pattern ? strcmp(own, pattern) == 0 : own == pattern;
        if (same && splitters[i].digits == digits) return splitters[i].name;
    }
    return NULL;
}

bool sp_pieces_know_pattern(const char *pattern) {
    for (int i = 0; i < N_SPLITTERS; i++)
        if (splitters[i].pattern && strcmp(splitters[i].pattern, pattern) == 0) return true;
    return false;
}

static json_t *byte_level_json(bool use_regex) {
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex",
                     use_regex);
}

static json_t *make_splitter(int at) {
    json_t *first = NULL;
    if (splitters[at].pattern)
        first = json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex", splitters[at].pattern,
                          "behavior", "Isolated", "invert", 0);
    else if (splitters[at].digits)
        first = json_pack("{s:s, s:b}", "type", "Digits", "individual_digits", 1);
    if (!first) return byte_level_json(true);
    return json_pack("{s:s, s:[o, o]}", "type", "Sequence", "pretokenizers", first,
                     byte_level_json(!splitters[at].pattern));
}

static sp_status find_splitter(const builder *b, int *at) {
    const char *name = b->pieces->splitter ? b->pieces->splitter : "(none)";
    for (*at = 0; *at < N_SPLITTERS; ++*at)
        if (strcmp(splitters[*at].name, name) == 0) return SP_OK;
    return sp_fail(SP_UNSUPPORTED,
                   "%s: tokenizer.ggml.pre '%.100s' is not supported (gpt-2, mpt, llama-bpe, llama3, llama-v3, qwen2, "
                   "smollm and starcoder are)",
                   b->source, name);
}

/* ---- the tree ---- */

/* What can fail comes first: the parts belong to nobody until the tree holds them. */
static sp_status make_merges(const builder *b, json_t *merges, int *splitter) {
    if (b->pieces->kind == SP_PIECES_SENTENCEPIECE) return make_scored_merges(b, merges);
    for (int64_t i = 0; i < b->pieces->n_merges; i++) json_array_append_new(merges, json_string(b->pieces->merges[i]));
    return find_splitter(b, splitter);
}

static sp_status make_tree(const builder *b, json_t *merges, json_t **json) {
    bool byte_level = b->pieces->kind == SP_PIECES_BYTE_LEVEL;
    int at = 0;
    SP_TRY(make_merges(b, merges, &at));
    *json = json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation", "padding",
                      "added_tokens", make_added(b), "normalizer", byte_level ? json_null() : make_normalizer(b),
                      "pre_tokenizer", byte_level ? make_splitter(at) : json_null(), "post_processor", make_template(b),
                      "decoder", byte_level ? byte_level_json(true) : make_decoder(b), "model",
                      make_model(b, merges, byte_level && splitters[at].ignore_merges));
    SP_REQUIRE(*json, SP_OUT_OF_MEMORY, "%s: no memory for its tokenizer.json", b->source);
    return SP_OK;
}

static sp_status make_config(const builder *b, json_t **config) {
    const sp_pieces *pieces = b->pieces;
    *config = json_pack("{s:b, s:b, s:o, s:b, s:o, s:o, s:s, s:o}", "add_bos_token", pieces->add_bos, "add_eos_token",
                        pieces->add_eos, "bos_token", piece_json(b, pieces->bos), "clean_up_tokenization_spaces", 0,
                        "eos_token", piece_json(b, pieces->eos), "pad_token", piece_json(b, pieces->pad),
                        "tokenizer_class", "PreTrainedTokenizerFast", "unk_token", piece_json(b, pieces->unk));
    SP_REQUIRE(*config, SP_OUT_OF_MEMORY, "%s: no memory for its tokenizer_config.json", b->source);
    return SP_OK;
}

sp_status sp_pieces_to_json(json_t **json, json_t **config, const sp_pieces *pieces, const char *source) {
    builder b = {.pieces = pieces, .source = source};
    json_t *merges = json_array();
    *json = NULL;
    if (config) *config = NULL;
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(make_vocab(&b));
    SP_TRY_OR_DONE(make_tree(&b, merges, json));
    if (config) status = make_config(&b, config);
done:
    json_decref(b.vocab);
    json_decref(merges);
    if (status != SP_OK) {
        json_decref(*json);
        *json = NULL;
    }
    return status;
}
