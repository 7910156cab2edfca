/* Post-processors: a table of the kinds that are known. */
#include "text/template.h"

#include <stdbool.h>

#include "text/component.h"

typedef struct template_reader {
    sp_token_list *before, *after;
    const char *source;
    int depth;
} template_reader;

enum { DEPTH_MAX = 8 };

static sp_status read_component(template_reader *reader, const json_t *json);

static sp_status read_byte_level(template_reader *reader, const json_t *json) {
    (void)reader, (void)json; /* it trims offsets, and changes no token */
    return SP_OK;
}

static sp_status read_sequence(template_reader *reader, const json_t *json) {
    const json_t *list = json_object_get(json, "processors");
    SP_REQUIRE(json_is_array(list), SP_BAD_FILE, "%s: post_processor: a Sequence without 'processors'", reader->source);
    for (size_t i = 0; i < json_array_size(list); i++) SP_TRY(read_component(reader, json_array_get(list, i)));
    return SP_OK;
}

static sp_status add_token(const template_reader *reader, const json_t *id, bool behind) {
    SP_REQUIRE(json_is_integer(id) && json_integer_value(id) >= 0 && json_integer_value(id) < INT32_MAX, SP_BAD_FILE,
               "%s: post_processor: a token without an id", reader->source);
    int32_t token = (int32_t)json_integer_value(id);
    sp_token_list *list = behind ? reader->after : reader->before;
    SP_TRY(sp_token_list_add(list, &token, 1));
    return SP_OK;
}

/* What a processor puts before comes before what others put there. */
static void move_to_front(sp_token_list *list, int64_t n_old) {
    for (int64_t first = n_old; first < list->n; first++) {
        int32_t token = list->items[first];
        int64_t to = first - n_old;
        memmove(list->items + to + 1, list->items + to, (size_t)(first - to) * sizeof token);
        list->items[to] = token;
    }
}

static sp_status add_special(const template_reader *reader, const json_t *tokens, const json_t *special, bool behind) {
    const char *name = json_string_value(json_object_get(special, "id"));
    const json_t *ids = json_object_get(json_object_get(tokens, name ? name : ""), "ids");
    SP_REQUIRE(name && json_is_array(ids), SP_BAD_FILE, "%s: post_processor: special token '%.100s' has no ids",
               reader->source, name ? name : "?");
    for (size_t i = 0; i < json_array_size(ids); i++) SP_TRY(add_token(reader, json_array_get(ids, i), behind));
    return SP_OK;
}

static sp_status read_template(template_reader *reader, const json_t *json) {
    const json_t *single = json_object_get(json, "single"), *tokens = json_object_get(json, "special_tokens");
    int64_t n_before = reader->before->n;
    bool behind = false;
    SP_REQUIRE(json_is_array(single), SP_BAD_FILE, "%s: post_processor: a TemplateProcessing without 'single'",
               reader->source);
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *item = json_array_get(single, i), *special = json_object_get(item, "SpecialToken");
        const char *sequence = json_string_value(json_object_get(json_object_get(item, "Sequence"), "id"));
        if (special) {
            SP_TRY(add_special(reader, tokens, special, behind));
            continue;
        }
        SP_REQUIRE(sequence && strcmp(sequence, "A") == 0 && !behind, SP_BAD_FILE,
                   "%s: post_processor: the template for one text names it not just once", reader->source);
        behind = true;
    }
    SP_REQUIRE(behind, SP_BAD_FILE, "%s: post_processor: the template for one text does not name it", reader->source);
    move_to_front(reader->before, n_before);
    return SP_OK;
}

/* [name, id] before, [name, id] behind. */
static sp_status read_bert(template_reader *reader, const json_t *json) {
    int64_t n_before = reader->before->n;
    SP_TRY(add_token(reader, json_array_get(json_object_get(json, "cls"), 1), false));
    SP_TRY(add_token(reader, json_array_get(json_object_get(json, "sep"), 1), true));
    move_to_front(reader->before, n_before);
    return SP_OK;
}

static const struct {
    const char *type;
    sp_status (*read)(template_reader *reader, const json_t *json);
} kinds[] = {
    {"TemplateProcessing", read_template}, {"ByteLevel", read_byte_level}, {"Sequence", read_sequence},
    {"RobertaProcessing", read_bert},      {"BertProcessing", read_bert},
};

enum { N_KINDS = sizeof kinds / sizeof *kinds };

static sp_status read_component(template_reader *reader, const json_t *json) {
    int64_t i;
    SP_REQUIRE(reader->depth < DEPTH_MAX, SP_BAD_FILE, "%s: post_processor: nested too deep", reader->source);
    SP_TRY(sp_component_find(&i, json, kinds, sizeof *kinds, N_KINDS, "post_processor", reader->source));
    reader->depth++;
    sp_status status = kinds[i].read(reader, json);
    reader->depth--;
    return status;
}

sp_status sp_template_read(sp_token_list *before, sp_token_list *after, const json_t *json, const char *source) {
    template_reader reader = {before, after, source, 0};
    return !json || json_is_null(json) ? SP_OK : read_component(&reader, json);
}
