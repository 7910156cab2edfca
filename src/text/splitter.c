/* A splitter is a list of steps, in which sequences are unrolled.  Each step makes pieces of the pieces before it: it cuts
 * them where a pattern matches, or rewrites them into a new text.  Components are rows of `components`. */
#define _GNU_SOURCE
#include "text/splitter.h"

#include <stdlib.h>
#include <string.h>

#include "text/component.h"
#include "text/pattern.h"

enum { STEPS_MAX = 64 };

/* What becomes of matches and of what stands between them. */
typedef enum behavior {
    BEHAVIOR_REMOVED,
    BEHAVIOR_ISOLATED,
    BEHAVIOR_MERGED_WITH_PREVIOUS,
    BEHAVIOR_MERGED_WITH_NEXT,
    BEHAVIOR_CONTIGUOUS
} behavior;

static const char *const behavior_names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext",
                                             "Contiguous"};
enum { N_BEHAVIORS = sizeof behavior_names / sizeof *behavior_names };

typedef enum scheme { SCHEME_ALWAYS, SCHEME_FIRST, SCHEME_NEVER } scheme; /* where a mark is put before a piece */
static const char *const scheme_names[] = {"always", "first", "never"};
enum { N_SCHEMES = sizeof scheme_names / sizeof *scheme_names };

typedef struct step {
    bool rewrites; /* puts `mark` in the place of spaces and before pieces; else cuts */
    char *mark;
    scheme before;
    sp_pattern pattern;
    behavior behavior;
    bool invert;
} step;

struct sp_splitter {
    step steps[STEPS_MAX];
    int n_steps;
    bool byte_level;
};

/* ---- reading ---- */

static sp_status add_step(sp_splitter *splitter, step **added, const char *source) {
    *added = NULL;
    SP_REQUIRE(splitter->n_steps < STEPS_MAX, SP_UNSUPPORTED, "%s: a pre_tokenizer of more than %d steps", source,
               STEPS_MAX);
    *added = &splitter->steps[splitter->n_steps++];
    return SP_OK;
}

static sp_status add_set(sp_splitter *splitter, const char *set, behavior does, const char *source) {
    step *added;
    SP_TRY(add_step(splitter, &added, source));
    added->behavior = does;
    return sp_pattern_from_set(&added->pattern, set);
}

static sp_status add_rewriting(sp_splitter *splitter, const char *mark, scheme before, const char *source) {
    step *added;
    SP_TRY(add_step(splitter, &added, source));
    added->rewrites = true;
    added->before = before;
    added->mark = strdup(mark);
    SP_REQUIRE(added->mark, SP_OUT_OF_MEMORY, "%s: no memory for a pre_tokenizer", source);
    return SP_OK;
}

static sp_status read_name(int *value, const char *name, const char *const *names, int n, const char *key,
                           const char *source) {
    for (*value = 0; *value < n; ++*value)
        if (strcmp(names[*value], name) == 0) return SP_OK;
    return sp_fail(SP_BAD_FILE, "%s: \"%s\" is \"%.40s\", which is none", source, key, name);
}

static sp_status read_behavior(behavior *value, const json_t *json, const char *source) {
    const char *name;
    int found;
    SP_TRY(sp_component_string(&name, json, "behavior", source));
    SP_TRY(read_name(&found, name, behavior_names, N_BEHAVIORS, "behavior", source));
    *value = (behavior)found;
    return SP_OK;
}

static sp_status read_component(sp_splitter *splitter, const json_t *json, const char *source);

static sp_status read_sequence(sp_splitter *splitter, const json_t *json, const char *source) {
    const json_t *list = json_object_get(json, "pretokenizers");
    SP_REQUIRE(json_is_array(list), SP_BAD_FILE, "%s: \"pretokenizers\" of a Sequence is not an array", source);
    for (size_t i = 0; i < json_array_size(list); i++)
        SP_TRY(read_component(splitter, json_array_get(list, i), source));
    return SP_OK;
}

static sp_status read_byte_level(sp_splitter *splitter, const json_t *json, const char *source) {
    static const char words[] =
        "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"; /* GPT-2's */
    bool prefix, trim, use_regex;
    SP_TRY(sp_component_bool(&prefix, json, "add_prefix_space", -1, source));
    SP_TRY(sp_component_bool(&trim, json, "trim_offsets", true, source));
    SP_TRY(sp_component_bool(&use_regex, json, "use_regex", true, source));
    if (prefix) SP_TRY(add_rewriting(splitter, " ", SCHEME_ALWAYS, source));
    splitter->byte_level = true;
    if (!use_regex) return SP_OK;
    step *added;
    SP_TRY(add_step(splitter, &added, source));
    added->behavior = BEHAVIOR_ISOLATED;
    return sp_pattern_from_regex(&added->pattern, words, source);
}

static sp_status read_split(sp_splitter *splitter, const json_t *json, const char *source) {
    step *added;
    SP_TRY(add_step(splitter, &added, source));
    SP_TRY(read_behavior(&added->behavior, json, source));
    SP_TRY(sp_component_bool(&added->invert, json, "invert", -1, source));
    return sp_pattern_read(&added->pattern, json_object_get(json, "pattern"), source);
}

static sp_status read_digits(sp_splitter *splitter, const json_t *json, const char *source) {
    bool single;
    SP_TRY(sp_component_bool(&single, json, "individual_digits", -1, source));
    return add_set(splitter, "rust numeric", single ? BEHAVIOR_ISOLATED : BEHAVIOR_CONTIGUOUS, source);
}

static sp_status read_metaspace(sp_splitter *splitter, const json_t *json, const char *source) {
    const char *mark, *before = json_string_value(json_object_get(json, "prepend_scheme"));
    bool prefix, split;
    int found;
    SP_TRY(sp_component_string(&mark, json, "replacement", source));
    SP_TRY(sp_component_bool(&prefix, json, "add_prefix_space", true, source));
    SP_TRY(sp_component_bool(&split, json, "split", true, source));
    SP_TRY(read_name(&found, before ? before : "always", scheme_names, N_SCHEMES, "prepend_scheme", source));
    SP_REQUIRE(prefix || found == SCHEME_NEVER, SP_BAD_FILE,
               "%s: \"add_prefix_space\" of a Metaspace is false and its \"prepend_scheme\" is not \"never\"", source);
    SP_TRY(add_rewriting(splitter, mark, (scheme)found, source));
    if (!split) return SP_OK;
    step *added;
    SP_TRY(add_step(splitter, &added, source));
    added->behavior = BEHAVIOR_MERGED_WITH_NEXT;
    return sp_pattern_from_string(&added->pattern, mark, source);
}

static sp_status read_white_space(sp_splitter *splitter, const json_t *json, const char *source) {
    (void)json;
    return add_set(splitter, "space", BEHAVIOR_REMOVED, source);
}

static sp_status read_words(sp_splitter *splitter, const json_t *json, const char *source) {
    SP_TRY(read_white_space(splitter, json, source));
    return add_set(splitter, "rust word", BEHAVIOR_CONTIGUOUS, source);
}

static sp_status read_punctuation(sp_splitter *splitter, const json_t *json, const char *source) {
    behavior does = BEHAVIOR_ISOLATED;
    if (json_object_get(json, "behavior")) SP_TRY(read_behavior(&does, json, source));
    return add_set(splitter, "rust punctuation", does, source);
}

static sp_status read_bert(sp_splitter *splitter, const json_t *json, const char *source) {
    SP_TRY(read_white_space(splitter, json, source));
    return add_set(splitter, "rust punctuation", BEHAVIOR_ISOLATED, source);
}

static sp_status read_delimiter(sp_splitter *splitter, const json_t *json, const char *source) {
    step *added;
    const char *delimiter;
    SP_TRY(add_step(splitter, &added, source));
    SP_TRY(sp_component_string(&delimiter, json, "delimiter", source));
    return sp_pattern_from_string(&added->pattern, delimiter, source);
}

static const struct component {
    const char *type;
    sp_status (*read)(sp_splitter *splitter, const json_t *json, const char *source);
} components[] = {
    {"Sequence", read_sequence},
    {"ByteLevel", read_byte_level},
    {"Split", read_split},
    {"Digits", read_digits},
    {"Metaspace", read_metaspace},
    {"Whitespace", read_words},
    {"WhitespaceSplit", read_white_space},
    {"Punctuation", read_punctuation},
    {"BertPreTokenizer", read_bert},
    {"CharDelimiterSplit", read_delimiter},
};
enum { N_COMPONENTS = sizeof components / sizeof *components };

static sp_status read_component(sp_splitter *splitter, const json_t *json, const char *source) {
    int64_t i;
    SP_TRY(sp_component_find(&i, json, components, sizeof *components, N_COMPONENTS, "pre_tokenizer", source));
    SP_REQUIRE(!splitter->byte_level, SP_UNSUPPORTED, "%s: the pre_tokenizer %s behind ByteLevel is not supported",
               source, components[i].type);
    return components[i].read(splitter, json, source);
}

sp_status sp_splitter_new(sp_splitter **out, const json_t *json, const char *source) {
    *out = NULL;
    sp_splitter *splitter = calloc(1, sizeof *splitter);
    SP_REQUIRE(splitter, SP_OUT_OF_MEMORY, "%s: no memory for a pre_tokenizer", source);
    sp_status status = json && !json_is_null(json) ? read_component(splitter, json, source) : SP_OK;
    if (status == SP_OK)
        *out = splitter;
    else
        sp_splitter_free(splitter);
    return status;
}

void sp_splitter_free(sp_splitter *splitter) {
    if (!splitter) return;
    for (int i = 0; i < splitter->n_steps; i++) {
        free(splitter->steps[i].mark);
        sp_pattern_free(&splitter->steps[i].pattern);
    }
    free(splitter);
}

bool sp_splitter_byte_level(const sp_splitter *splitter) { return splitter->byte_level; }

/* ---- cutting ---- */

/* One piece being cut: parts come from left to right, and behaviors say which of them stay together. */
typedef struct cut {
    behavior behavior;
    sp_spans *pieces;
    int64_t first; /* pieces before it are not of this one */
    bool before;   /* was the part before a match? */
} cut;

/* Does this part go to the piece before it? */
static bool joins(const cut *state, bool match) {
    switch (state->behavior) {
    case BEHAVIOR_MERGED_WITH_PREVIOUS: return match && !state->before;
    case BEHAVIOR_MERGED_WITH_NEXT: return !match && state->before;
    case BEHAVIOR_CONTIGUOUS: return match == state->before;
    default: return false;
    }
}

static sp_status add_part(cut *state, int64_t begin, int64_t end, bool match) {
    sp_spans *pieces = state->pieces;
    bool joined = pieces->n > state->first && joins(state, match);
    state->before = match;
    if (joined) {
        pieces->items[pieces->n - 1].end = end;
        return SP_OK;
    }
    return match && state->behavior == BEHAVIOR_REMOVED ? SP_OK : sp_spans_add(pieces, begin, end);
}

static void drop_empty(sp_spans *pieces, int64_t first) {
    int64_t n = first;
    for (int64_t i = first; i < pieces->n; i++)
        if (pieces->items[i].begin < pieces->items[i].end) pieces->items[n++] = pieces->items[i];
    pieces->n = n;
}

static sp_status cut_piece(const step *by, const sp_bytes *text, sp_span piece, sp_spans *matches, sp_spans *pieces) {
    cut state = {by->behavior, pieces, pieces->n, false};
    matches->n = 0;
    SP_TRY(sp_pattern_find_all(&by->pattern, text->data + piece.begin, piece.end - piece.begin, matches));
    int64_t at = piece.begin;
    for (int64_t i = 0; i < matches->n; i++) {
        int64_t begin = piece.begin + matches->items[i].begin, end = piece.begin + matches->items[i].end;
        if (at < begin) SP_TRY(add_part(&state, at, begin, by->invert));
        SP_TRY(add_part(&state, begin, end, !by->invert));
        at = end;
    }
    if (at < piece.end) SP_TRY(add_part(&state, at, piece.end, by->invert));
    drop_empty(pieces, state.first);
    return SP_OK;
}

/* ---- rewriting ---- */

static bool begins_with(const char *text, int64_t n, const char *mark) {
    int64_t n_mark = (int64_t)strlen(mark);
    return n >= n_mark && memcmp(text, mark, (size_t)n_mark) == 0;
}

static sp_status rewrite_piece(const char *mark, bool before, const char *text, int64_t n, sp_bytes *out) {
    int64_t n_mark = (int64_t)strlen(mark);
    if (before && *text != ' ' && !begins_with(text, n, mark)) SP_TRY(sp_bytes_add(out, mark, n_mark));
    for (const char *end = text + n, *space; text < end; text = space) {
        space = memchr(text, ' ', (size_t)(end - text));
        if (!space) space = end;
        SP_TRY(sp_bytes_add(out, text, space - text));
        for (; space < end && *space == ' '; space++) SP_TRY(sp_bytes_add(out, mark, n_mark));
    }
    return SP_OK;
}

/* All pieces, one behind the other, become the text. */
static sp_status rewrite(const step *by, sp_bytes *text, bool begins_text, sp_spans *pieces) {
    sp_bytes out = {0};
    sp_status status = SP_OK;
    for (int64_t i = 0; i < pieces->n; i++) {
        sp_span *piece = &pieces->items[i];
        bool before = by->before == SCHEME_ALWAYS || (by->before == SCHEME_FIRST && begins_text && i == 0);
        int64_t begin = out.n;
        SP_TRY_OR_DONE(rewrite_piece(by->mark, before, text->data + piece->begin, piece->end - piece->begin, &out));
        *piece = (sp_span){begin, out.n};
    }
    sp_bytes old = *text;
    *text = out;
    out = old;
done:
    sp_bytes_free(&out);
    return status;
}

/* ---- splitting ---- */

sp_status sp_splitter_split(const sp_splitter *splitter, sp_bytes *text, bool begins_text, sp_spans *pieces) {
    sp_spans matches = {0}, next = {0};
    sp_status status = SP_OK;
    pieces->n = 0;
    if (text->n > 0) SP_TRY_OR_DONE(sp_spans_add(pieces, 0, text->n));
    for (int i = 0; i < splitter->n_steps; i++) {
        const step *by = &splitter->steps[i];
        if (by->rewrites) {
            SP_TRY_OR_DONE(rewrite(by, text, begins_text, pieces));
            continue;
        }
        next.n = 0;
        for (int64_t k = 0; k < pieces->n; k++) SP_TRY_OR_DONE(cut_piece(by, text, pieces->items[k], &matches, &next));
        sp_spans old = *pieces;
        *pieces = next;
        next = old;
        begins_text = begins_text && pieces->n > 0 && pieces->items[0].begin == 0;
    }
done:
    sp_spans_free(&matches);
    sp_spans_free(&next);
    return status;
}
