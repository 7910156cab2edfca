/* JSON by jansson, with our messages. */
#define _GNU_SOURCE
#include "base/json.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

enum { DIGITS_MAX = 18 }; /* so many fit 64 bits whatever they are */

/* Bytes of the number at `text`, 0: none. */
static int64_t number_bytes(const char *text, int64_t n_bytes) {
    int64_t n = 0;
    while (n < n_bytes && text[n] && strchr("0123456789+-.eE", text[n])) n++;
    return n;
}

static bool is_long_integer(const char *number, int64_t n_bytes) {
    if (*number == '-') number++, n_bytes--;
    for (int64_t i = 0; i < n_bytes; i++)
        if (number[i] < '0' || number[i] > '9') return false;
    return n_bytes > DIGITS_MAX;
}

/* A copy in which long integers have an exponent, and so are reals.  NULL without memory. */
static char *with_long_integers_as_reals(const char *text, int64_t n_bytes, int64_t *n_out) {
    static const char exponent[] = "e0";
    char *copy = malloc((size_t)n_bytes * 2 + 1), *to = copy;
    bool in_text = false;
    for (int64_t i = 0, n; copy && i < n_bytes; i += n) {
        int64_t number = in_text ? 0 : number_bytes(text + i, n_bytes - i);
        bool escape = in_text && text[i] == '\\' && i + 1 < n_bytes;
        if (text[i] == '"') in_text = !in_text;
        n = number ? number : 1 + escape;
        to = mempcpy(to, text + i, (size_t)n);
        if (number && is_long_integer(text + i, number)) to = mempcpy(to, exponent, sizeof exponent - 1);
    }
    *n_out = to - copy;
    return copy;
}

sp_status sp_json_parse(json_t **out, const char *text, int64_t n_bytes, const char *source) {
    json_error_t error;
    *out = json_loadb(text, (size_t)n_bytes, JSON_REJECT_DUPLICATES, &error);
    if (!*out && json_error_code(&error) == json_error_numeric_overflow) {
        int64_t n_copy;
        char *copy = with_long_integers_as_reals(text, n_bytes, &n_copy);
        if (copy) *out = json_loadb(copy, (size_t)n_copy, JSON_REJECT_DUPLICATES, &error);
        free(copy);
    }
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
