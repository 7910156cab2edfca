/* A BPE model out of its JSON: names, merges, and where words may be cut. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/bpe_tables.h"
#include "text/decoder.h"

static const char mark[] = "\xe2\x96\x81";

typedef struct bpe_reader {
    sp_bpe *bpe;
    json_t *vocab;
    const char *source;
    sp_bytes joined; /* what a pair becomes */
    sp_bytes halves; /* of a merge that is one string: left 0 right 0 */
} bpe_reader;

static int64_t places_for(int64_t n) {
    int64_t places = 16;
    while (places < 2 * n + 2) places *= 2;
    return places;
}

/* ---- options ---- */

/* Absent, null and "" are the same. */
static sp_status read_text(const bpe_reader *reader, const json_t *json, const char *key, char **text) {
    const json_t *value = json_object_get(json, key);
    if (!value || json_is_null(value) || (json_is_string(value) && json_string_length(value) == 0)) return SP_OK;
    SP_REQUIRE(json_is_string(value), SP_BAD_FILE, "%s: model.%s is no string", reader->source, key);
    *text = strdup(json_string_value(value));
    SP_REQUIRE(*text, SP_OUT_OF_MEMORY, "%s: no memory to read it", reader->source);
    return SP_OK;
}

static sp_status read_flag(const bpe_reader *reader, const json_t *json, const char *key, bool *flag) {
    const json_t *value = json_object_get(json, key);
    if (!value || json_is_null(value)) return SP_OK;
    SP_REQUIRE(json_is_boolean(value), SP_BAD_FILE, "%s: model.%s is neither true nor false", reader->source, key);
    *flag = json_is_true(value);
    return SP_OK;
}

static sp_status read_options(const bpe_reader *reader, const json_t *json) {
    sp_bpe *bpe = reader->bpe;
    const json_t *dropout = json_object_get(json, "dropout");
    SP_REQUIRE(!dropout || json_is_null(dropout) || (json_is_number(dropout) && json_number_value(dropout) == 0),
               SP_UNSUPPORTED, "%s: model.dropout makes encoding random, which is not supported", reader->source);
    SP_TRY(read_flag(reader, json, "byte_fallback", &bpe->byte_fallback));
    SP_TRY(read_flag(reader, json, "fuse_unk", &bpe->fuse_unk));
    SP_TRY(read_flag(reader, json, "ignore_merges", &bpe->ignore_merges));
    SP_TRY(read_text(reader, json, "continuing_subword_prefix", &bpe->prefix));
    SP_TRY(read_text(reader, json, "end_of_word_suffix", &bpe->suffix));
    SP_REQUIRE(!bpe->byte_level || (!bpe->prefix && !bpe->suffix), SP_UNSUPPORTED,
               "%s: model.continuing_subword_prefix and end_of_word_suffix are not supported with ByteLevel",
               reader->source);
    return SP_OK;
}

/* ---- names ---- */

static int32_t find_id(const bpe_reader *reader, const char *text) {
    const json_t *id = json_object_get(reader->vocab, text);
    return id ? (int32_t)json_integer_value(id) : -1;
}

static void add_name(sp_bpe *bpe, sp_bpe_name name) {
    uint64_t at = sp_hash_bytes(0, name.text, name.n_bytes) >> 20, last = (uint64_t)(bpe->n_names - 1);
    while (bpe->names[at & last].text) at++;
    bpe->names[at & last] = name;
}

/* Of a byte-level vocabulary only what is written in its characters can be found. */
static sp_status add_token(sp_bpe *bpe, const char *text, int64_t n_bytes, int32_t id) {
    int64_t begin = bpe->texts.n;
    bool all = true;
    if (bpe->byte_level)
        SP_TRY(sp_byte_level_decode(&bpe->texts, text, n_bytes, &all));
    else
        SP_TRY(sp_bytes_add(&bpe->texts, text, n_bytes));
    if (all) add_name(bpe, (sp_bpe_name){bpe->texts.data + begin, bpe->texts.n - begin, id});
    return SP_OK;
}

static sp_status read_names(const bpe_reader *reader) {
    sp_bpe *bpe = reader->bpe;
    const char *text;
    json_t *id;
    int64_t n_bytes = 1;
    json_object_foreach(reader->vocab, text, id) {
        SP_REQUIRE(json_is_integer(id) && json_integer_value(id) >= 0 && json_integer_value(id) < INT32_MAX,
                   SP_BAD_FILE, "%s: model.vocab: '%.100s' has no id", reader->source, text);
        n_bytes += (int64_t)strlen(text);
    }
    bpe->n_names = places_for((int64_t)json_object_size(reader->vocab));
    bpe->names = calloc((size_t)bpe->n_names, sizeof *bpe->names);
    SP_REQUIRE(bpe->names, SP_OUT_OF_MEMORY, "%s: no memory for its vocabulary", reader->source);
    SP_TRY(sp_bytes_reserve(&bpe->texts, n_bytes)); /* no pointer into it moves */
    json_object_foreach(reader->vocab, text, id) if (*text)
        SP_TRY(add_token(bpe, text, (int64_t)strlen(text), (int32_t)json_integer_value(id)));
    return SP_OK;
}

static sp_status read_single_tokens(const bpe_reader *reader, const json_t *json) {
    sp_bpe *bpe = reader->bpe;
    bool alone = !bpe->prefix && !bpe->suffix;
    for (int byte = 0; byte < 256; byte++) {
        char name[8], one = (char)byte;
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte);
        bpe->byte_tokens[byte] = bpe->byte_fallback ? find_id(reader, name) : -1;
        const sp_bpe_name *found = alone ? sp_bpe_find(bpe, &one, 1) : NULL;
        bpe->first_tokens[byte] = found ? found->id : -1;
    }
    char *unk = NULL;
    SP_TRY(read_text(reader, json, "unk_token", &unk));
    bpe->unk = unk ? find_id(reader, unk) : -1;
    sp_status status =
        unk && bpe->unk < 0
            ? sp_fail(SP_BAD_FILE, "%s: model.unk_token '%.100s' is not in the vocabulary", reader->source, unk)
            : SP_OK;
    free(unk);
    return status;
}

/* ---- merges ---- */

/* The two halves of merge i: ["a", "b"], or "a b" with one space in it; *left NULL: a line of "#version", which older
 * files carry. */
static sp_status read_halves(bpe_reader *reader, const json_t *merge, size_t i, const char **left, const char **right) {
    *left = *right = NULL;
    if (json_is_array(merge) && json_array_size(merge) == 2) {
        *left = json_string_value(json_array_get(merge, 0));
        *right = json_string_value(json_array_get(merge, 1));
    } else if (json_is_string(merge)) {
        const char *text = json_string_value(merge), *space = strchr(text, ' ');
        if (strncmp(text, "#version", 8) == 0) return SP_OK;
        if (space && !strchr(space + 1, ' ')) {
            reader->halves.n = 0;
            SP_TRY(sp_bytes_add(&reader->halves, text, (int64_t)strlen(text) + 1));
            reader->halves.data[space - text] = 0;
            *left = reader->halves.data;
            *right = *left + (space - text) + 1;
        }
    }
    SP_REQUIRE(*left && *right, SP_BAD_FILE, "%s: model.merges[%zu] is neither [\"a\", \"b\"] nor \"a b\"",
               reader->source, i);
    return SP_OK;
}

/* Where tokens `left` and `right` meet, text cannot be cut. */
static void note_crossing(sp_bpe *bpe, const char *left, const char *right) {
    int left_byte = sp_byte_token(left, (int64_t)strlen(left)),
        right_byte = sp_byte_token(right, (int64_t)strlen(right));
    char last = *left ? left[strlen(left) - 1] : 0;
    if (strncmp(right, mark, sizeof mark - 1) == 0) {
        bpe->crosses_mark[(uint8_t)last] = true;
        if (left_byte >= 0) bpe->crosses_mark[left_byte] = true;
    }
    if (last == '\n' || *right == '\n' || left_byte == '\n' || right_byte == '\n') bpe->newlines_apart = false;
}

/* Of the same pair twice the later one counts. */
static void add_merge(sp_bpe *bpe, sp_bpe_merge merge) {
    uint64_t at = (merge.pair * 0x9e3779b97f4a7c15u) >> 32, last = (uint64_t)(bpe->n_merges - 1);
    while (bpe->merges[at & last].rank >= 0 && bpe->merges[at & last].pair != merge.pair) at++;
    bpe->merges[at & last] = merge;
}

static sp_status read_merge(bpe_reader *reader, const char *left, const char *right, size_t i, int32_t rank) {
    sp_bpe *bpe = reader->bpe;
    size_t n_prefix = bpe->prefix ? strlen(bpe->prefix) : 0;
    int32_t a = find_id(reader, left), b = find_id(reader, right);
    SP_REQUIRE(a >= 0 && b >= 0, SP_BAD_FILE, "%s: model.merges[%zu]: '%.100s' is not in the vocabulary",
               reader->source, i, a < 0 ? left : right);
    SP_REQUIRE(strlen(right) >= n_prefix, SP_BAD_FILE,
               "%s: model.merges[%zu]: '%.100s' is shorter than continuing_subword_prefix", reader->source, i, right);
    reader->joined.n = 0;
    SP_TRY(sp_bytes_add(&reader->joined, left, (int64_t)strlen(left)));
    SP_TRY(sp_bytes_add(&reader->joined, right + n_prefix, (int64_t)strlen(right + n_prefix) + 1));
    int32_t joined = find_id(reader, reader->joined.data);
    SP_REQUIRE(joined >= 0, SP_BAD_FILE, "%s: model.merges[%zu]: '%.100s' is not in the vocabulary", reader->source, i,
               reader->joined.data);
    add_merge(bpe, (sp_bpe_merge){sp_bpe_pair(a, b), rank, joined});
    note_crossing(bpe, left, right);
    return SP_OK;
}

static sp_status read_merges(bpe_reader *reader, const json_t *json) {
    sp_bpe *bpe = reader->bpe;
    const json_t *merges = json_object_get(json, "merges");
    SP_REQUIRE(json_is_array(merges), SP_BAD_FILE, "%s: model.merges is no list", reader->source);
    size_t n = json_array_size(merges);
    SP_REQUIRE(n < INT32_MAX, SP_BAD_FILE, "%s: model.merges is too long", reader->source);
    bpe->n_merges = places_for((int64_t)n);
    bpe->merges = malloc((size_t)bpe->n_merges * sizeof *bpe->merges);
    SP_REQUIRE(bpe->merges, SP_OUT_OF_MEMORY, "%s: no memory for its merges", reader->source);
    for (int64_t i = 0; i < bpe->n_merges; i++) bpe->merges[i].rank = -1;
    int32_t rank = 0;
    for (size_t i = 0; i < n; i++) {
        const char *left, *right;
        SP_TRY(read_halves(reader, json_array_get(merges, i), i, &left, &right));
        if (left) SP_TRY(read_merge(reader, left, right, i, rank++));
    }
    return SP_OK;
}

/* ---- where words may be cut ---- */

/* Every character has a token or byte tokens: none waits as unknown when a newline's byte token comes. */
static bool none_is_unknown(const sp_bpe *bpe) {
    for (int byte = 0; byte < 256; byte++)
        if (bpe->byte_tokens[byte] < 0) return false;
    return true;
}

static void find_cuts(sp_bpe *bpe) {
    bool possible = !bpe->byte_level && !bpe->ignore_merges && !bpe->prefix && !bpe->suffix;
    bpe->has_mark = possible && sp_bpe_find(bpe, mark, sizeof mark - 1);
    bpe->newlines_apart &= possible && (bpe->first_tokens['\n'] >= 0 || none_is_unknown(bpe));
}

bool sp_bpe_newlines_stand_apart(const sp_bpe *bpe) { return bpe->newlines_apart; }

/* ---- the call ---- */

static sp_status read_all(bpe_reader *reader, const json_t *json) {
    SP_REQUIRE(json_is_object(reader->vocab), SP_BAD_FILE, "%s: model.vocab is no object", reader->source);
    SP_TRY(read_options(reader, json));
    SP_TRY(read_names(reader));
    SP_TRY(read_single_tokens(reader, json));
    reader->bpe->newlines_apart = true;
    SP_TRY(read_merges(reader, json));
    find_cuts(reader->bpe);
    return SP_OK;
}

sp_status sp_bpe_new(sp_bpe **out, const json_t *json, bool byte_level, const char *source) {
    *out = NULL;
    sp_bpe *bpe = calloc(1, sizeof *bpe);
    SP_REQUIRE(bpe, SP_OUT_OF_MEMORY, "%s: no memory to read it", source);
    bpe->byte_level = byte_level;
    bpe_reader reader = {.bpe = bpe, .vocab = json_object_get(json, "vocab"), .source = source};
    sp_status status = read_all(&reader, json);
    sp_bytes_free(&reader.joined);
    sp_bytes_free(&reader.halves);
    if (status == SP_OK)
        *out = bpe;
    else
        sp_bpe_free(bpe);
    return status;
}

void sp_bpe_free(sp_bpe *bpe) {
    if (!bpe) return;
    sp_bytes_free(&bpe->texts);
    free(bpe->names);
    free(bpe->merges);
    free(bpe->prefix);
    free(bpe->suffix);
    free(bpe);
}
