/* What the tests of reports share: the made-up results of report_sample.json, changed in places, and their page. */
#ifndef REPORT_SUPPORT_H
#define REPORT_SUPPORT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "softpick/report.h"

static char scratch[64], results_path[96], page_path[96];

static inline int make_scratch(void **state) {
    (void)state;
    strcpy(scratch, "/tmp/softpick-report-XXXXXX");
    if (!mkdtemp(scratch)) return -1;
    snprintf(results_path, sizeof results_path, "%s/results.json", scratch);
    snprintf(page_path, sizeof page_path, "%s/report.html", scratch);
    return 0;
}

static inline int remove_scratch(void **state) {
    (void)state;
    return sp_folder_remove(scratch) == SP_OK ? 0 : -1;
}

static inline json_t *sample_results(void) {
    char path[4096];
    const char *slash = strrchr(__FILE__, '/');
    snprintf(path, sizeof path, "%.*sreport_sample.json", slash ? (int)(slash - __FILE__) + 1 : 0, __FILE__);
    json_t *results;
    assert_int_equal(sp_json_read(&results, path), SP_OK);
    return results;
}

/* The object or list that holds the last part of "models.softmax.maps.maps.0.layer", and that part. */
static inline json_t *find_holder(json_t *results, const char *path, const char **last) {
    char part[64];
    for (const char *dot; (dot = strchr(path, '.')); path = dot + 1) {
        snprintf(part, sizeof part, "%.*s", (int)(dot - path), path);
        results = json_is_array(results) ? json_array_get(results, (size_t)atoi(part)) : json_object_get(results, part);
        assert_non_null(results);
    }
    *last = path;
    return results;
}

/* Puts `value` there, which is stolen; NULL removes the key. */
static inline void put(json_t *results, const char *path, json_t *value) {
    const char *last;
    json_t *holder = find_holder(results, path, &last);
    if (!value)
        assert_int_equal(json_object_del(holder, last), 0);
    else if (json_is_array(holder))
        assert_int_equal(json_array_set_new(holder, (size_t)atoi(last), value), 0);
    else
        assert_int_equal(json_object_set_new(holder, last, value), 0);
}

/* Writes the results, which are stolen, and their page. */
static inline sp_status render(json_t *results) {
    assert_int_equal(sp_json_write(results_path, results), SP_OK);
    json_decref(results);
    return sp_report_write(page_path, results_path);
}

/* The page of the results, which are stolen.  Caller frees. */
static inline char *page_of(json_t *results) {
    static char *page; /* not on the stack: gcc 12 takes its content for its address there, and warns */
    assert_int_equal(render(results), SP_OK);
    assert_int_equal(sp_file_read(page_path, &page, NULL), SP_OK);
    return page;
}

/* ---- reading a page ---- */

static inline void assert_has(const char *page, const char *text) {
    if (!strstr(page, text)) fail_msg("the page has no \"%s\"", text);
}

static inline void assert_lacks(const char *page, const char *text) {
    if (strstr(page, text)) fail_msg("the page has \"%s\"", text);
}

/* From `begin` to the next `end`.  Caller frees. */
static inline char *part_of(const char *page, const char *begin, const char *end) {
    const char *from = strstr(page, begin);
    if (!from) fail_msg("the page has no \"%s\"", begin);
    const char *to = strstr(from, end);
    assert_non_null(to);
    return strndup(from, (size_t)(to - from));
}

static inline char *section_of(const char *page, const char *id) {
    char begin[64];
    snprintf(begin, sizeof begin, "<section id=\"%s\">", id);
    return part_of(page, begin, "</section>");
}

/* What a reader sees of it: the text between tags. */
static inline char *text_of(const char *html) {
    char *text = malloc(strlen(html) + 1), *out = text;
    for (bool inside = false; *html; html++) {
        if (*html == '<') inside = true;
        if (!inside) *out++ = *html;
        if (*html == '>') inside = false;
    }
    *out = 0;
    return text;
}

#endif
