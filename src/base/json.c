/* JSON by jansson, with our messages. */
#include "base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

sp_status sp_json_parse(json_t **out, const char *text, int64_t n_bytes, const char *source) {
    json_error_t error;
    *out = json_loadb(text, (size_t)n_bytes, JSON_REJECT_DUPLICATES, &error);
    SP_REQUIRE(*out, SP_BAD_FILE, "%s: line %d, column %d: %s", source, error.line, error.column, error.text);
    return SP_OK;
}

sp_status sp_json_read(json_t **out, const char *path) {
    *out = NULL;
    sp_file_map map;
    SP_TRY(sp_file_map_open(&map, path));
    sp_status status = map.data ? sp_json_parse(out, (const char *)map.data, map.n_bytes, path)
                                : sp_fail(SP_BAD_FILE, "%s: the file is empty", path);
    sp_file_map_close(&map);
    return status;
}

sp_status sp_json_format(char **text, const json_t *json, int compact) {
    size_t layout = compact ? JSON_COMPACT : JSON_INDENT(1);
    *text = json_dumps(json, layout | JSON_REAL_PRECISION(12) | JSON_ENCODE_ANY);
    SP_REQUIRE(*text, SP_OUT_OF_MEMORY, "no memory for a JSON text");
    return SP_OK;
}

sp_status sp_json_write(const char *path, const json_t *json) {
    char *text;
    SP_TRY(sp_json_format(&text, json, 0));
    sp_status status = sp_file_write(path, text, (int64_t)strlen(text));
    free(text);
    return status;
}

json_t *sp_json_number(double value) { return isfinite(value) ? json_real(value) : json_null(); }
