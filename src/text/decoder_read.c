/* Decoders of a tokenizer.json: a table of the kinds that are known, each a step of the chain. */
#include <string.h>

#include "text/component.h"
#include "text/decoder.h"
#include "text/utf8.h"

typedef struct decoding_reader {
    sp_decoding *decoding;
    const char *source;
    int depth;
} decoding_reader;

static sp_status read_component(decoding_reader *reader, const json_t *json);

/* The one character of json[key]. */
static sp_status read_mark(const decoding_reader *reader, const json_t *json, const char *key, char mark[5]) {
    const char *text = json_string_value(json_object_get(json, key));
    int64_t n_bytes = text ? (int64_t)strlen(text) : 0;
    SP_REQUIRE(n_bytes > 0 && n_bytes <= 4 && sp_utf8_next(text, n_bytes) == n_bytes, SP_BAD_FILE,
               "%s: decoder: '%s' is not one character", reader->source, key);
    memcpy(mark, text, (size_t)n_bytes + 1);
    return SP_OK;
}

static sp_status read_plain(decoding_reader *reader, const json_t *json, sp_decode_step *step) {
    (void)reader, (void)json, (void)step;
    return SP_OK;
}

static sp_status read_replace(decoding_reader *reader, const json_t *json, sp_decode_step *step) {
    return sp_text_normalizer_new(&step->normalizer, json, reader->source);
}

static sp_status read_strip(decoding_reader *reader, const json_t *json, sp_decode_step *step) {
    const json_t *start = json_object_get(json, "start"), *stop = json_object_get(json, "stop");
    SP_REQUIRE(json_is_integer(start) && json_is_integer(stop) && json_integer_value(start) >= 0 &&
                   json_integer_value(stop) >= 0,
               SP_BAD_FILE, "%s: decoder: a Strip without 'start' and 'stop'", reader->source);
    step->start = json_integer_value(start);
    step->stop = json_integer_value(stop);
    return read_mark(reader, json, "content", step->mark);
}

static sp_status read_metaspace(decoding_reader *reader, const json_t *json, sp_decode_step *step) {
    const char *scheme = json_string_value(json_object_get(json, "prepend_scheme"));
    step->strips_first =
        (!scheme || strcmp(scheme, "never") != 0) && !json_is_false(json_object_get(json, "add_prefix_space"));
    return read_mark(reader, json, "replacement", step->mark);
}

static const struct {
    const char *type;
    sp_decode_kind kind;
    sp_status (*read)(decoding_reader *reader, const json_t *json, sp_decode_step *step);
} kinds[] = {
    {"ByteLevel", SP_DECODE_BYTE_LEVEL, read_plain},
    {"Replace", SP_DECODE_REPLACE, read_replace},
    {"ByteFallback", SP_DECODE_BYTE_FALLBACK, read_plain},
    {"Fuse", SP_DECODE_FUSE, read_plain},
    {"Strip", SP_DECODE_STRIP, read_strip},
    {"Metaspace", SP_DECODE_METASPACE, read_metaspace},
    {"Sequence", SP_DECODE_FUSE, NULL}, /* is no step itself */
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static sp_status read_sequence(decoding_reader *reader, const json_t *json) {
    const json_t *list = json_object_get(json, "decoders");
    SP_REQUIRE(json_is_array(list), SP_BAD_FILE, "%s: decoder: a Sequence without 'decoders'", reader->source);
    SP_REQUIRE(reader->depth++ < 8, SP_BAD_FILE, "%s: decoder: nested too deep", reader->source);
    for (size_t i = 0; i < json_array_size(list); i++) SP_TRY(read_component(reader, json_array_get(list, i)));
    reader->depth--;
    return SP_OK;
}

static sp_status add_step(const decoding_reader *reader, const sp_decode_step *step, sp_decode_step **added) {
    sp_decoding *decoding = reader->decoding;
    SP_REQUIRE(decoding->n_steps < SP_DECODE_STEPS_MAX, SP_UNSUPPORTED, "%s: decoder: more than %d steps",
               reader->source, SP_DECODE_STEPS_MAX);
    *added = &decoding->steps[decoding->n_steps++];
    **added = *step;
    return SP_OK;
}

/* ByteLevel makes one token of all, which the steps after it get in parts, as after Fuse. */
static bool is_fused(const sp_decoding *decoding) {
    for (int i = 0; i < decoding->n_steps; i++)
        if (decoding->steps[i].kind == SP_DECODE_FUSE || decoding->steps[i].kind == SP_DECODE_BYTE_LEVEL) return true;
    return false;
}

static sp_status read_component(decoding_reader *reader, const json_t *json) {
    int64_t i;
    SP_TRY(sp_component_find(&i, json, kinds, sizeof *kinds, N_KINDS, "decoder", reader->source));
    if (!kinds[i].read) return read_sequence(reader, json);
    sp_decode_step *step = NULL, fuse = {.kind = SP_DECODE_FUSE}, read = {.kind = kinds[i].kind};
    read.fused = is_fused(reader->decoding);
    SP_TRY(add_step(reader, &read, &step));
    SP_TRY(kinds[i].read(reader, json, step));
    return read.kind == SP_DECODE_BYTE_LEVEL ? add_step(reader, &fuse, &step) : SP_OK;
}

sp_status sp_decoding_read(sp_decoding *decoding, const json_t *json, const char *source) {
    *decoding = (sp_decoding){0};
    decoding_reader reader = {decoding, source, 0};
    if (json && !json_is_null(json)) return read_component(&reader, json);
    decoding->steps[decoding->n_steps++] = (sp_decode_step){.kind = SP_DECODE_SPACES};
    return SP_OK;
}

void sp_decoding_free(sp_decoding *decoding) {
    for (int i = 0; i < decoding->n_steps; i++) sp_text_normalizer_free(decoding->steps[i].normalizer);
    decoding->n_steps = 0;
}
