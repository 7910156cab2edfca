/* The report: one HTML page from one results.json.  It needs no network and no other file.
 *
 * The page is written to the end under a temporary name, and has its own name only when it is whole. */
#include "softpick/report.h"

#include <errno.h>
#include <string.h>

#include "base/file.h"
#include "base/status.h"
#include "report/assets.h"
#include "report/page.h"

/* ---- the table of sections, in the order of the page ---- */

static const struct section {
    const char *id, *title;
    sp_page_section *write;
    bool (*has)(const sp_results *results); /* NULL: always there */
} sections[] = {
    {"settings", "What was run", sp_page_settings, NULL},
    {"comparison", "The comparison", sp_page_comparison, NULL},
    {"evaluation", "Evaluation", sp_page_evaluation, sp_page_has_evaluation},
    {"loss", "Loss", sp_page_loss, NULL},
    {"sinks", "Attention sinks", sp_page_sinks, NULL},
    {"mass", "Row mass and exact zeros", sp_page_mass, NULL},
    {"spread", "How far a row spreads", sp_page_spread, sp_page_has_spread},
    {"silent", "Silent and dead heads", sp_page_silent, NULL},
    {"activations", "Activations", sp_page_activations, NULL},
    {"maps", "Attention maps", sp_page_maps, NULL},
    {"samples", "Generated text", sp_page_samples, NULL},
    {"definitions", "How each value is defined", sp_page_definitions, NULL},
    {"raw", "Raw values", sp_page_raw, NULL},
};
enum { N_SECTIONS = sizeof sections / sizeof *sections };

/* ---- pieces that sections share ---- */

void sp_page_model_name(FILE *page, const sp_results_model *model) {
    fprintf(page, "<span class=\"model hue%d\">", model->hue);
    sp_html_text(page, model->name);
    fputs("</span>", page);
}

const json_t *sp_page_first_measure(const sp_results *results, const char *measure) {
    const json_t *found = NULL;
    for (int64_t i = 0; i < results->n_models && !found; i++) found = sp_results_measure(&results->models[i], measure);
    return found;
}

void sp_page_not_measured(FILE *page, const sp_results *results, const char *measure) {
    for (int64_t i = 0; i < results->n_models; i++) {
        if (sp_results_measure(&results->models[i], measure)) continue;
        fprintf(page, "<p class=\"note\">%s of ", sp_page_measure_label(measure));
        sp_page_model_name(page, &results->models[i]);
        fputs(": not measured.</p>\n", page);
    }
}

/* ---- the page ---- */

static void write_bytes(FILE *page, const char *begin, const char *end) {
    fwrite(begin, 1, (size_t)(end - begin), page);
}

static void write_title(FILE *page, const sp_results *results) {
    fputs("<title>", page);
    for (int64_t i = 0; i < results->n_models; i++) {
        if (i > 0) fputs(" | ", page);
        sp_html_text(page, results->models[i].name);
    }
    fputs(" \xc2\xb7 softpick report</title>\n", page);
}

/* The policy forbids the page to load anything at all. */
static void write_head(FILE *page, const sp_results *results) {
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
          "script-src 'unsafe-inline'\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<meta name=\"color-scheme\" content=\"light dark\">\n",
          page);
    write_title(page, results);
    fputs("<style>\n", page);
    write_bytes(page, sp_asset_page_css_begin, sp_asset_page_css_end);
    fputs("</style>\n</head>\n<body>\n<main>\n", page);
}

static void write_scripts(FILE *page) {
#if SP_WITH_CHART_JS
    fputs("<script>\n", page);
    write_bytes(page, sp_asset_chart_js_begin, sp_asset_chart_js_end);
    fputs("</script>\n<script>\n", page);
    write_bytes(page, sp_asset_page_js_begin, sp_asset_page_js_end);
    fputs("</script>\n", page);
#else
    (void)page;
#endif
}

static void write_page(FILE *page, const sp_results *results) {
    write_head(page, results);
    sp_page_verdict(page, results);
    for (int i = 0; i < N_SECTIONS; i++) {
        if (sections[i].has && !sections[i].has(results)) continue;
        fprintf(page, "<section id=\"%s\">\n<h2>%s</h2>\n", sections[i].id, sections[i].title);
        sections[i].write(page, results);
        fputs("</section>\n", page);
    }
    fputs("</main>\n", page);
    write_scripts(page);
    fputs("</body>\n</html>\n", page);
}

sp_status sp_report_write(const char *html_path, const char *results_path) {
    sp_results results = {0};
    sp_file_writer writer = {0};
    sp_status status = SP_OK;
    SP_TRY_OR_DONE(sp_results_read(&results, results_path));
    SP_TRY_OR_DONE(sp_file_writer_open(&writer, html_path));
    write_page(writer.file, &results);
    SP_REQUIRE_OR_DONE(!ferror(writer.file), SP_IO, "%s: %s", html_path, strerror(errno));
    SP_TRY_OR_DONE(sp_file_writer_finish(&writer));
done:
    sp_file_writer_abandon(&writer);
    sp_results_close(&results);
    return status;
}
