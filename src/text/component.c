/* Reading fields, with one sentence for each way in which a file can be wrong. */
#include "text/component.h"

#include <stdio.h>
#include <string.h>

static const char *name_of(const void *rows, size_t row_bytes, int64_t i) {
    const char *name;
    memcpy(&name, (const char *)rows + (size_t)i * row_bytes, sizeof name);
    return name;
}

static sp_status refuse(const char *type, const void *rows, size_t row_bytes, int64_t n_rows, const char *kind,
                        const char *source) {
    char list[512] = "";
    size_t n = 0;
    for (int64_t i = 0; i < n_rows && n < sizeof list; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", name_of(rows, row_bytes, i));
    return sp_fail(SP_UNSUPPORTED, "%s: the %s %.60s is not supported (these are: %s)", source, kind, type, list);
}

sp_status sp_component_find(int64_t *index, const json_t *json, const void *rows, size_t row_bytes, int64_t n_rows,
                            const char *kind, const char *source) {
    const char *type = json_string_value(json_object_get(json, "type"));
    SP_REQUIRE(type, SP_BAD_FILE, "%s: a %s is not an object with a \"type\"", source, kind);
    for (*index = 0; *index < n_rows; ++*index)
        if (strcmp(name_of(rows, row_bytes, *index), type) == 0) return SP_OK;
    return refuse(type, rows, row_bytes, n_rows, kind, source);
}

sp_status sp_component_bool(bool *value, const json_t *json, const char *key, int otherwise, const char *source) {
    const json_t *field = json_object_get(json, key);
    *value = field ? json_is_true(field) : otherwise > 0;
    SP_REQUIRE(json_is_boolean(field) || (!field && otherwise >= 0), SP_BAD_FILE,
               "%s: \"%s\" of a %s is not true or false", source, key,
               json_string_value(json_object_get(json, "type")));
    return SP_OK;
}

sp_status sp_component_string(const char **value, const json_t *json, const char *key, const char *source) {
    *value = json_string_value(json_object_get(json, key));
    SP_REQUIRE(*value, SP_BAD_FILE, "%s: \"%s\" of a %s is not a string", source, key,
               json_string_value(json_object_get(json, "type")));
    return SP_OK;
}
