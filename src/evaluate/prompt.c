/* Templates: the fields that they name, and the filters. */
#define _GNU_SOURCE
#include "evaluate/prompt.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "evaluate/python_letters.h"
#include "evaluate/python_text.h"

/* ---- filters: each makes a new text of one ---- */

static sp_status keep(char **out, const char *text, int64_t n_bytes) {
    *out = strndup(text, (size_t)n_bytes);
    SP_REQUIRE(*out, SP_OUT_OF_MEMORY, "no memory for a text");
    return SP_OK;
}

static sp_text_view view_of(const char *text) { return (sp_text_view){text, (int64_t)strlen(text)}; }

static sp_status keep_view(char **out, sp_text_view view) { return keep(out, view.text, view.n_bytes); }

static sp_status strip_left(char **out, const char *text, const char *argument) {
    (void)argument;
    return keep_view(out, sp_python_strip_left(view_of(text)));
}

static sp_status strip_right(char **out, const char *text, const char *argument) {
    (void)argument;
    return keep_view(out, sp_python_strip_right(view_of(text)));
}

static sp_status strip_both(char **out, const char *text, const char *argument) {
    (void)argument;
    return keep_view(out, sp_python_strip(view_of(text)));
}

static sp_status capitalize(char **out, const char *text, const char *argument) {
    (void)argument;
    return sp_python_capitalize(out, text);
}

/* Of the first place where `argument` stands; it must be there. */
static sp_status before(char **out, const char *text, const char *argument) {
    *out = NULL;
    const char *at = strstr(text, argument);
    SP_REQUIRE(at, SP_BAD_FILE, "there is no \"%s\" in \"%.40s\"", argument, text);
    return keep(out, text, at - text);
}

static sp_status after(char **out, const char *text, const char *argument) {
    *out = NULL;
    const char *at = strstr(text, argument);
    SP_REQUIRE(at, SP_BAD_FILE, "there is no \"%s\" in \"%.40s\"", argument, text);
    at += strlen(argument);
    return keep(out, at, (int64_t)strlen(at));
}

static const char *find_last(const char *text, const char *word) {
    const char *last = NULL;
    for (const char *at = text; (at = strstr(at, word)); at++) last = at;
    return last;
}

/* Of the last place; when there is none, nothing is before it and all is after it. */
static sp_status before_last(char **out, const char *text, const char *argument) {
    const char *at = find_last(text, argument);
    return keep(out, text, at ? at - text : 0);
}

static sp_status after_last(char **out, const char *text, const char *argument) {
    const char *at = find_last(text, argument);
    at = at ? at + strlen(argument) : text;
    return keep(out, at, (int64_t)strlen(at));
}

/* Removes "[...]" within a line: from each bracket to the first one that closes. */
static void remove_brackets(char *text) {
    char *to = text;
    for (const char *from = text; *from;) {
        const char *end = *from == '[' ? strpbrk(from, "]\n") : NULL;
        if (end && *end == ']')
            from = end + 1;
        else
            *to++ = *from++;
    }
    *to = 0;
}

/* How lm-eval cleans texts of HellaSwag, which come from WikiHow. */
static sp_status wikihow(char **out, const char *text, const char *argument) {
    (void)argument;
    *out = NULL;
    char *cleaned;
    int64_t n_bytes;
    SP_TRY(sp_python_replace(&cleaned, &n_bytes, sp_python_strip(view_of(text)), " [title]", ". "));
    remove_brackets(cleaned);
    sp_status status = sp_python_replace(out, &n_bytes, view_of(cleaned), "  ", " ");
    free(cleaned);
    return status;
}

typedef struct filter_row {
    const char *name;
    sp_status (*apply)(char **out, const char *text, const char *argument);
    bool has_argument;
} filter_row;

static const filter_row filters[] = {
    {"strip", strip_both, false},       {"lstrip", strip_left, false},    {"rstrip", strip_right, false},
    {"capitalize", capitalize, false},  {"before", before, true},         {"after", after, true},
    {"before_last", before_last, true}, {"after_last", after_last, true}, {"wikihow", wikihow, false},
};

static const filter_row *find_filter(const char *name, size_t n_bytes) {
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (strlen(filters[i].name) == n_bytes && memcmp(filters[i].name, name, n_bytes) == 0) return &filters[i];
    return NULL;
}

bool sp_prompt_filter_exists(const char *name) {
    const filter_row *row = find_filter(name, strlen(name));
    return row && !row->has_argument;
}

/* Replaces *text by what a filter "name" or "name:argument" makes of it. */
static sp_status apply_filter(char **text, const char *call, size_t n_bytes) {
    const char *colon = memchr(call, ':', n_bytes);
    size_t n_name = colon ? (size_t)(colon - call) : n_bytes;
    const filter_row *row = find_filter(call, n_name);
    SP_REQUIRE(row, SP_BAD_FILE, "there is no filter \"%.*s\"", (int)n_name, call);
    SP_REQUIRE(row->has_argument == (colon && n_bytes > n_name + 1), SP_BAD_FILE, "the filter \"%s\" takes %s argument",
               row->name, row->has_argument ? "an" : "no");
    char *argument = NULL, *out = NULL;
    if (colon) SP_TRY(keep(&argument, colon + 1, (int64_t)(n_bytes - n_name - 1)));
    sp_status status = row->apply(&out, *text, argument);
    free(argument);
    if (status != SP_OK) return status;
    free(*text);
    *text = out;
    return SP_OK;
}

/* ---- fields ---- */

static const json_t *member(const json_t *object, const char *name, size_t n_bytes) {
    char key[256];
    if (n_bytes >= sizeof key) return NULL;
    memcpy(key, name, n_bytes);
    key[n_bytes] = 0;
    return json_object_get(object, key);
}

/* The value of "a.b" or, of each element, "a[].b", as a new reference. */
static sp_status find_field(json_t **out, const json_t *value, const char *path, size_t n_bytes) {
    *out = NULL;
    const char *dot = memchr(path, '.', n_bytes);
    size_t n = dot ? (size_t)(dot - path) : n_bytes;
    bool each = n > 2 && memcmp(path + n - 2, "[]", 2) == 0;
    const json_t *found = member(value, path, each ? n - 2 : n);
    SP_REQUIRE(found && !json_is_null(found), SP_BAD_FILE, "its field \"%.*s\" is missing", (int)n_bytes, path);
    if (!dot) {
        *out = json_incref((json_t *)(uintptr_t)found);
        return SP_OK;
    }
    if (!each) return find_field(out, found, dot + 1, n_bytes - n - 1);
    SP_REQUIRE(json_is_array(found), SP_BAD_FILE, "its field \"%.*s\" is not a list", (int)(n - 2), path);
    json_t *list = json_array();
    size_t i;
    json_t *element, *part;
    json_array_foreach(found, i, element) {
        sp_status status = find_field(&part, element, dot + 1, n_bytes - n - 1);
        if (status != SP_OK) json_decref(list);
        SP_TRY(status);
        json_array_append_new(list, part);
    }
    *out = list;
    return SP_OK;
}

static sp_status text_of(char **out, const json_t *value, const char *path, int n_path) {
    *out = NULL;
    int written = 0;
    if (json_is_string(value))
        *out = strdup(json_string_value(value));
    else if (json_is_boolean(value))
        *out = strdup(json_is_true(value) ? "1" : "0");
    else if (json_is_integer(value))
        written = asprintf(out, "%lld", (long long)json_integer_value(value));
    else
        return sp_fail(SP_BAD_FILE, "its field \"%.*s\" is neither a text nor a whole number", n_path, path);
    SP_REQUIRE(written >= 0 && *out, SP_OUT_OF_MEMORY, "no memory for a text");
    return SP_OK;
}

/* ---- templates ---- */

/* What stands between braces, cut up: a path, and filters with | before each. */
typedef struct template_slot {
    const char *path, *filters;
    size_t n_path, n_filters;
} template_slot;

/* The slot at "{..."; *end: behind its "}". */
static sp_status parse_slot(template_slot *out, const char *at, const char **end) {
    const char *close = strchr(at, '}');
    *out = (template_slot){0};
    *end = at;
    SP_REQUIRE(close, SP_BAD_FILE, "the template \"%.40s\" has a { that no } closes", at);
    const char *bar = memchr(at, '|', (size_t)(close - at));
    out->path = at + 1;
    out->filters = bar ? bar : close;
    out->n_path = (size_t)(out->filters - out->path);
    out->n_filters = (size_t)(close - out->filters);
    *end = close + 1;
    SP_REQUIRE(out->n_path > 0, SP_BAD_FILE, "the template \"%.40s\" has a { without a name", at);
    return SP_OK;
}

static sp_status apply_filters(char **text, const char *calls, size_t n_bytes) {
    while (n_bytes > 0) {
        const char *next = memchr(calls + 1, '|', n_bytes - 1);
        size_t n = next ? (size_t)(next - calls) : n_bytes;
        SP_TRY(apply_filter(text, calls + 1, n - 1));
        calls += n;
        n_bytes -= n;
    }
    return SP_OK;
}

/* The text of a value through the slot's filters and `filter`. */
static sp_status render_value(char **text, const json_t *value, const template_slot *slot, const char *filter) {
    SP_TRY(text_of(text, value, slot->path, (int)slot->n_path));
    sp_status status = apply_filters(text, slot->filters, slot->n_filters);
    if (status == SP_OK && filter) status = apply_filter(text, filter, strlen(filter));
    if (status == SP_OK) return SP_OK;
    free(*text);
    *text = NULL;
    return status;
}

static sp_status write_slot(FILE *stream, const template_slot *slot, const json_t *fields) {
    json_t *value;
    SP_TRY(find_field(&value, fields, slot->path, slot->n_path));
    char *text = NULL;
    sp_status status = render_value(&text, value, slot, NULL);
    if (status == SP_OK) fputs(text, stream);
    free(text);
    json_decref(value);
    return status;
}

static sp_status write_template(FILE *stream, const char *template, const json_t *fields) {
    for (const char *at = template; *at;) {
        if (at[0] == at[1] && (*at == '{' || *at == '}')) {
            fputc(*at, stream);
            at += 2;
        } else if (*at == '{') {
            template_slot slot;
            SP_TRY(parse_slot(&slot, at, &at));
            SP_TRY(write_slot(stream, &slot, fields));
        } else {
            SP_REQUIRE(*at != '}', SP_BAD_FILE, "the template \"%.40s\" has a } that no { opens", template);
            fputc(*at++, stream);
        }
    }
    return SP_OK;
}

sp_status sp_prompt_render(char **text, const char *template, const json_t *fields, const char *filter) {
    *text = NULL;
    size_t n_bytes;
    FILE *stream = open_memstream(text, &n_bytes);
    SP_REQUIRE(stream, SP_OUT_OF_MEMORY, "no memory for a prompt");
    sp_status status = write_template(stream, template, fields);
    bool complete = fclose(stream) == 0;
    if (status == SP_OK && !complete) status = sp_fail(SP_OUT_OF_MEMORY, "no memory for a prompt");
    if (status == SP_OK && filter) status = apply_filter(text, filter, strlen(filter));
    if (status == SP_OK) return SP_OK;
    free(*text);
    *text = NULL;
    return status;
}

/* A template that is one slot: its value when that is a list, else NULL. */
static sp_status find_list(json_t **out, template_slot *slot, const char *template, const json_t *fields) {
    *out = NULL;
    if (template[0] != '{' || template[1] == '{') return SP_OK;
    const char *end;
    SP_TRY(parse_slot(slot, template, &end));
    if (*end) return SP_OK;
    SP_TRY(find_field(out, fields, slot->path, slot->n_path));
    if (json_is_array(*out)) return SP_OK;
    json_decref(*out);
    *out = NULL;
    return SP_OK;
}

static sp_status add_text(sp_strings *texts, char *text) {
    sp_status status = sp_strings_add(texts, text, (int64_t)strlen(text));
    free(text);
    return status;
}

static sp_status add_list(sp_strings *texts, const json_t *list, const template_slot *slot, const char *filter) {
    size_t i;
    json_t *element;
    json_array_foreach(list, i, element) {
        char *text;
        SP_TRY(render_value(&text, element, slot, filter));
        SP_TRY(add_text(texts, text));
    }
    return SP_OK;
}

sp_status sp_prompt_expand(sp_strings *texts, const char *const *templates, const json_t *fields, const char *filter) {
    for (; *templates; templates++) {
        json_t *list;
        template_slot slot;
        SP_TRY(find_list(&list, &slot, *templates, fields));
        if (list) {
            sp_status status = add_list(texts, list, &slot, filter);
            json_decref(list);
            SP_TRY(status);
        } else {
            char *text;
            SP_TRY(sp_prompt_render(&text, *templates, fields, filter));
            SP_TRY(add_text(texts, text));
        }
    }
    return SP_OK;
}
