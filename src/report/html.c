/* Escaping, and the shape of numbers. */
#include "report/html.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* ---- text ---- */

/* Unicode has a visible sign for each control character, from U+2400 on (in UTF-8 E2 90 80), and for DEL. */
static void write_control(FILE *page, unsigned char c) {
    unsigned char last = c == 0x7f ? 0xa1 : (unsigned char)(0x80 + c);
    fprintf(page, "\xe2\x90%c", last);
}

static void write_character(FILE *page, unsigned char c) {
    switch (c) {
    case '&': fputs("&amp;", page); return;
    case '<': fputs("&lt;", page); return;
    case '>': fputs("&gt;", page); return;
    case '"': fputs("&quot;", page); return;
    case '\'': fputs("&#39;", page); return;
    case '\n':
    case '\t': fputc(c, page); return;
    default: break;
    }
    if (c < 0x20 || c == 0x7f)
        write_control(page, c);
    else
        fputc(c, page);
}

void sp_html_text(FILE *page, const char *text) {
    for (; text && *text; text++) write_character(page, (unsigned char)*text);
}

/* '<' stands in JSON inside strings alone, where \u003c means the same. */
static int write_json(const char *bytes, size_t n_bytes, void *page) {
    for (size_t i = 0; i < n_bytes; i++)
        if (bytes[i] == '<')
            fputs("\\u003c", page);
        else
            fputc(bytes[i], page);
    return 0;
}

void sp_html_json(FILE *page, const json_t *json) {
    json_dump_callback(json, write_json, page, JSON_COMPACT | JSON_REAL_PRECISION(6) | JSON_ENCODE_ANY);
}

/* ---- numbers ---- */

static const char minus[] = "\xe2\x88\x92", dash[] = "\xe2\x80\x93";

sp_html_unit sp_html_unit_of(const char *name) {
    if (name && strcmp(name, "share") == 0) return SP_HTML_UNIT_SHARE;
    if (name && strcmp(name, "count") == 0) return SP_HTML_UNIT_COUNT;
    return SP_HTML_UNIT_PLAIN;
}

/* Thousands apart: "1234567" to "1,234,567". */
static void write_whole(char *out, size_t out_bytes, double magnitude) {
    char digits[40];
    int n = snprintf(digits, sizeof digits, "%.0f", magnitude);
    size_t used = 0;
    for (int i = 0; i < n && used + 2 < out_bytes; i++) {
        if (i > 0 && (n - i) % 3 == 0) out[used++] = ',';
        out[used++] = digits[i];
    }
    out[used] = 0;
}

/* As many decimals as leave three or four digits of a number as large as `scale`. */
static void write_plain(char *out, size_t out_bytes, double magnitude, double scale) {
    if (magnitude == 0)
        snprintf(out, out_bytes, "0");
    else if (scale >= 1e15)
        snprintf(out, out_bytes, "%.3g", magnitude);
    else if (scale >= 999.5)
        write_whole(out, out_bytes, magnitude);
    else if (scale < 0.001)
        snprintf(out, out_bytes, "%.2g", magnitude);
    else
        snprintf(out, out_bytes, "%.*f", scale >= 99.95 ? 0 : scale >= 9.995 ? 1 : 3, magnitude);
}

/* Percent: what is not 0% and not 100% never looks so. */
static void write_share(char *out, size_t out_bytes, double share, const char *sign) {
    double percent = 100 * share;
    if (percent == 0 || percent == 100)
        snprintf(out, out_bytes, "%.0f%s", percent, sign);
    else if (percent < 0.005)
        snprintf(out, out_bytes, "&lt;0.01%s", sign);
    else if (percent > 99.995 && percent < 100)
        snprintf(out, out_bytes, "&gt;99.99%s", sign);
    else
        snprintf(out, out_bytes, "%.*f%s", percent < 1 || (percent >= 99 && percent < 100) ? 2 : 1, percent, sign);
}

static bool is_whole(double value) { return value == floor(value) && fabs(value) < 1e15; }

sp_html_number sp_html_number_of(double value, sp_html_unit unit) {
    sp_html_number number;
    char digits[40];
    double magnitude = fabs(value);
    if (isnan(value))
        snprintf(digits, sizeof digits, "%s", dash);
    else if (unit == SP_HTML_UNIT_SHARE)
        write_share(digits, sizeof digits, magnitude, "%");
    else if (unit == SP_HTML_UNIT_COUNT && is_whole(value))
        write_whole(digits, sizeof digits, magnitude);
    else
        write_plain(digits, sizeof digits, magnitude, magnitude);
    snprintf(number.text, sizeof number.text, "%s%s", value < 0 ? minus : "", digits);
    return number;
}

/* With the decimals of the larger of the two, as more would claim too much. */
sp_html_number sp_html_difference_of(double base, double value, sp_html_unit unit) {
    sp_html_number number;
    char digits[40];
    double difference = value - base, magnitude = fabs(difference);
    if (isnan(difference)) return sp_html_number_of(difference, unit);
    if (magnitude == 0)
        snprintf(digits, sizeof digits, "0");
    else if (unit == SP_HTML_UNIT_SHARE)
        write_share(digits, sizeof digits, magnitude, " points");
    else if (unit == SP_HTML_UNIT_COUNT && is_whole(base) && is_whole(value))
        write_whole(digits, sizeof digits, magnitude);
    else
        write_plain(digits, sizeof digits, magnitude, fmax(fabs(base), fabs(value)));
    snprintf(number.text, sizeof number.text, "%s%s", difference < 0 ? minus : difference > 0 ? "+" : "", digits);
    return number;
}
