/* A normalizer is a list of steps, in which sequences are unrolled.  Each step reads the text and writes it anew.
 * Components are rows of `components`.
 *
 * NFC and its kin follow a Unicode of 2016 in the library whose files these are: characters that it does not know stand
 * as they are, and nothing is composed or reordered over them.  utf8proc, which knows them, is given what lies between. */
#define _GNU_SOURCE
#include "text/text_normalizer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "text/component.h"
#include "text/pattern.h"
#include "text/unicode_case.h"
#include "text/utf8.h"

#if SP_WITH_UTF8PROC
#include <utf8proc.h>
#endif

enum { STEPS_MAX = 64 };

struct component;

typedef struct step {
    const struct component *component;
    sp_pattern pattern;
    sp_code_set set; /* that the step asks about */
    char *text;      /* that it puts in */
    bool left, right;
} step;

struct sp_text_normalizer {
    step steps[STEPS_MAX];
    int n_steps;
};

typedef sp_status (*read_function)(sp_text_normalizer *normalizer, step *to, const json_t *json, const char *source);
typedef sp_status (*apply_function)(const step *by, const sp_bytes *text, sp_bytes *out);

/* `read` NULL: it has no fields.  `apply` NULL: it is what its parts are. */
typedef struct component {
    const char *type;
    read_function read;
    apply_function apply;
    const char *set;
} component;

/* ---- Unicode's forms ---- */

#if SP_WITH_UTF8PROC

static sp_status add_form(int options, const char *text, int64_t n, sp_bytes *out) {
    utf8proc_uint8_t *normal = NULL;
    utf8proc_ssize_t n_normal =
        utf8proc_map((const utf8proc_uint8_t *)text, n, &normal, (utf8proc_option_t)(UTF8PROC_STABLE | options));
    if (n_normal < 0)
        return sp_fail(n_normal == UTF8PROC_ERROR_NOMEM ? SP_OUT_OF_MEMORY : SP_BAD_ARGUMENT,
                       "encoding: a text of %" PRId64 " bytes cannot be normalized: %s", n, utf8proc_errmsg(n_normal));
    sp_status status = sp_bytes_add(out, (const char *)normal, n_normal);
    free(normal);
    return status;
}

static sp_status apply_form(const step *by, const sp_bytes *text, sp_bytes *out, int options) {
    int64_t from = 0;
    uint32_t code;
    for (int64_t at = 0, n; at < text->n; at += n) {
        n = sp_utf8_read(text->data + at, text->n - at, &code);
        if (code < 0x80 || !sp_code_set_holds(&by->set, code)) continue;
        if (from < at) SP_TRY(add_form(options, text->data + from, at - from, out));
        SP_TRY(sp_bytes_add(out, text->data + at, n));
        from = at + n;
    }
    return from < text->n ? add_form(options, text->data + from, text->n - from, out) : SP_OK;
}

static sp_status apply_nfc(const step *by, const sp_bytes *text, sp_bytes *out) {
    return apply_form(by, text, out, UTF8PROC_COMPOSE);
}

static sp_status apply_nfd(const step *by, const sp_bytes *text, sp_bytes *out) {
    return apply_form(by, text, out, UTF8PROC_DECOMPOSE);
}

static sp_status apply_nfkc(const step *by, const sp_bytes *text, sp_bytes *out) {
    return apply_form(by, text, out, UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
}

static sp_status apply_nfkd(const step *by, const sp_bytes *text, sp_bytes *out) {
    return apply_form(by, text, out, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
}

#define read_form NULL

#else

static sp_status read_form(sp_text_normalizer *normalizer, step *to, const json_t *json, const char *source) {
    (void)normalizer, (void)to;
    return sp_fail(SP_UNSUPPORTED, "%s: the normalizer %s needs utf8proc, and this build is without it", source,
                   json_string_value(json_object_get(json, "type")));
}

static sp_status apply_none(const step *by, const sp_bytes *text, sp_bytes *out) {
    (void)by;
    return sp_bytes_add(out, text->data, text->n);
}

#define apply_nfc  apply_none
#define apply_nfd  apply_none
#define apply_nfkc apply_none
#define apply_nfkd apply_none

#endif

/* ---- what is put in ---- */

static sp_status keep_text(step *to, const json_t *json, const char *key, const char *source) {
    const char *text;
    SP_TRY(sp_component_string(&text, json, key, source));
    to->text = strdup(text);
    SP_REQUIRE(to->text, SP_OUT_OF_MEMORY, "%s: no memory for a normalizer", source);
    return SP_OK;
}

static sp_status read_prepend(sp_text_normalizer *normalizer, step *to, const json_t *json, const char *source) {
    (void)normalizer;
    return keep_text(to, json, "prepend", source);
}

static sp_status apply_prepend(const step *by, const sp_bytes *text, sp_bytes *out) {
    SP_TRY(sp_bytes_add(out, by->text, (int64_t)strlen(by->text)));
    return sp_bytes_add(out, text->data, text->n);
}

static sp_status read_replace(sp_text_normalizer *normalizer, step *to, const json_t *json, const char *source) {
    (void)normalizer;
    SP_TRY(keep_text(to, json, "content", source));
    return sp_pattern_read(&to->pattern, json_object_get(json, "pattern"), source);
}

static sp_status apply_replace(const step *by, const sp_bytes *text, sp_bytes *out) {
    sp_spans matches = {0};
    sp_status status = SP_OK;
    int64_t at = 0, n_content = (int64_t)strlen(by->text);
    SP_TRY_OR_DONE(sp_pattern_find_all(&by->pattern, text->data, text->n, &matches));
    for (int64_t i = 0; i < matches.n; i++) {
        SP_TRY_OR_DONE(sp_bytes_add(out, text->data + at, matches.items[i].begin - at));
        SP_TRY_OR_DONE(sp_bytes_add(out, by->text, n_content));
        at = matches.items[i].end;
    }
    SP_TRY_OR_DONE(sp_bytes_add(out, text->data + at, text->n - at));
done:
    sp_spans_free(&matches);
    return status;
}

/* ---- characters, one by one ---- */

static sp_status apply_lowercase(const step *by, const sp_bytes *text, sp_bytes *out) {
    (void)by;
    char low[SP_UTF8_BYTES_MAX];
    uint32_t code;
    for (int64_t at = 0; at < text->n;) {
        at += sp_utf8_read(text->data + at, text->n - at, &code);
        SP_TRY(sp_bytes_add(out, low, sp_utf8_write(low, sp_unicode_lower(code))));
        if (code == 0x130) SP_TRY(sp_bytes_add(out, "\xcc\x87", 2));
    }
    return SP_OK;
}

static sp_status apply_strip_accents(const step *by, const sp_bytes *text, sp_bytes *out) {
    uint32_t code;
    for (int64_t at = 0, n; at < text->n; at += n) {
        n = sp_utf8_read(text->data + at, text->n - at, &code);
        if (!sp_code_set_holds(&by->set, code)) SP_TRY(sp_bytes_add(out, text->data + at, n));
    }
    return SP_OK;
}

/* What sentencepiece's normalizer of this name does to controls and spaces of many kinds. */
static sp_status apply_nmt(const step *by, const sp_bytes *text, sp_bytes *out) {
    static const sp_code_range dropped[] = {{0x1, 0x8},   {0xb, 0xb},   {0xe, 0x1f},
                                            {0x7f, 0x7f}, {0x8f, 0x8f}, {0x9f, 0x9f}};
    static const sp_code_range spaces[] = {{0x9, 0xa},       {0xc, 0xd},       {0x1680, 0x1680}, {0x200b, 0x200f},
                                           {0x2028, 0x2029}, {0x2581, 0x2581}, {0xfeff, 0xfeff}, {0xfffd, 0xfffd}};
    const sp_code_set drop = {.ranges = (sp_code_range *)(uintptr_t)dropped, .n = sizeof dropped / sizeof *dropped};
    const sp_code_set space = {.ranges = (sp_code_range *)(uintptr_t)spaces, .n = sizeof spaces / sizeof *spaces};
    (void)by;
    uint32_t code;
    for (int64_t at = 0, n; at < text->n; at += n) {
        n = sp_utf8_read(text->data + at, text->n - at, &code);
        if (sp_code_set_holds(&space, code))
            SP_TRY(sp_bytes_add(out, " ", 1));
        else if (!sp_code_set_holds(&drop, code))
            SP_TRY(sp_bytes_add(out, text->data + at, n));
    }
    return SP_OK;
}

static sp_status read_strip(sp_text_normalizer *normalizer, step *to, const json_t *json, const char *source) {
    (void)normalizer;
    SP_TRY(sp_component_bool(&to->left, json, "strip_left", -1, source));
    return sp_component_bool(&to->right, json, "strip_right", -1, source);
}

/* Spaces at the ends; those of a text of nothing else go from either end. */
static sp_status apply_strip(const step *by, const sp_bytes *text, sp_bytes *out) {
    int64_t first = text->n, last = 0; /* where what is no space begins and ends */
    uint32_t code;
    for (int64_t at = 0, n; at < text->n; at += n) {
        n = sp_utf8_read(text->data + at, text->n - at, &code);
        if (sp_code_set_holds(&by->set, code)) continue;
        if (first == text->n) first = at;
        last = at + n;
    }
    if (!by->left) first = 0;
    if (!by->right) last = text->n;
    return first < last ? sp_bytes_add(out, text->data + first, last - first) : SP_OK;
}

/* ---- the table ---- */

static sp_status read_sequence(sp_text_normalizer *normalizer, step *to, const json_t *json, const char *source);

static const component components[] = {
    {"Sequence", read_sequence, NULL, NULL},
    {"Prepend", read_prepend, apply_prepend, NULL},
    {"Replace", read_replace, apply_replace, NULL},
    {"NFC", read_form, apply_nfc, "rust inert"},
    {"NFD", read_form, apply_nfd, "rust inert"},
    {"NFKC", read_form, apply_nfkc, "rust inert"},
    {"NFKD", read_form, apply_nfkd, "rust inert"},
    {"Lowercase", NULL, apply_lowercase, NULL},
    {"Strip", read_strip, apply_strip, "space"},
    {"StripAccents", NULL, apply_strip_accents, "rust mark"},
    {"Nmt", NULL, apply_nmt, NULL},
};
enum { N_COMPONENTS = sizeof components / sizeof *components };

static sp_status add_set(step *to, const char *name) {
    bool known;
    SP_TRY(sp_code_set_add_named(&to->set, name, (int64_t)strlen(name), &known));
    SP_REQUIRE(known, SP_INTERNAL, "there is no set of characters named %s", name);
    return SP_OK;
}

static sp_status read_component(sp_text_normalizer *normalizer, const json_t *json, const char *source) {
    int64_t i;
    SP_TRY(sp_component_find(&i, json, components, sizeof *components, N_COMPONENTS, "normalizer", source));
    const component *found = &components[i];
    if (!found->apply) return found->read(normalizer, NULL, json, source);
    SP_REQUIRE(normalizer->n_steps < STEPS_MAX, SP_UNSUPPORTED, "%s: a normalizer of more than %d steps", source,
               STEPS_MAX);
    step *to = &normalizer->steps[normalizer->n_steps++];
    to->component = found;
    if (found->set) SP_TRY(add_set(to, found->set));
    return found->read ? found->read(normalizer, to, json, source) : SP_OK;
}

static sp_status read_sequence(sp_text_normalizer *normalizer, step *to, const json_t *json, const char *source) {
    (void)to;
    const json_t *list = json_object_get(json, "normalizers");
    SP_REQUIRE(json_is_array(list), SP_BAD_FILE, "%s: \"normalizers\" of a Sequence is not an array", source);
    for (size_t i = 0; i < json_array_size(list); i++)
        SP_TRY(read_component(normalizer, json_array_get(list, i), source));
    return SP_OK;
}

/* ---- from outside ---- */

sp_status sp_text_normalizer_new(sp_text_normalizer **out, const json_t *json, const char *source) {
    *out = NULL;
    sp_text_normalizer *normalizer = calloc(1, sizeof *normalizer);
    SP_REQUIRE(normalizer, SP_OUT_OF_MEMORY, "%s: no memory for a normalizer", source);
    sp_status status = json && !json_is_null(json) ? read_component(normalizer, json, source) : SP_OK;
    if (status == SP_OK)
        *out = normalizer;
    else
        sp_text_normalizer_free(normalizer);
    return status;
}

void sp_text_normalizer_free(sp_text_normalizer *normalizer) {
    if (!normalizer) return;
    for (int i = 0; i < normalizer->n_steps; i++) {
        sp_pattern_free(&normalizer->steps[i].pattern);
        sp_code_set_free(&normalizer->steps[i].set);
        free(normalizer->steps[i].text);
    }
    free(normalizer);
}

sp_status sp_text_normalizer_apply(const sp_text_normalizer *normalizer, sp_bytes *text) {
    sp_bytes out = {0};
    sp_status status = SP_OK;
    for (int i = 0; i < normalizer->n_steps && text->n > 0; i++) {
        const step *by = &normalizer->steps[i];
        out.n = 0;
        SP_TRY_OR_DONE(by->component->apply(by, text, &out));
        sp_bytes old = *text;
        *text = out;
        out = old;
    }
done:
    sp_bytes_free(&out);
    return status;
}
