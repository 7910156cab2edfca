/* The page: well formed, alone, escaped, and true to the results. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <ctype.h>
#include <math.h>
#include <stdbool.h>

#include "report_support.h"

/* The page without its <script> and <style> elements. */
static char *without_scripts(const char *page) {
    char *out = strdup(page), *to = out;
    for (const char *from = page; *from;) {
        if (strncmp(from, "<script", 7) == 0)
            from = strstr(from, "</script>") + 9;
        else if (strncmp(from, "<style", 6) == 0)
            from = strstr(from, "</style>") + 8;
        else
            *to++ = *from++;
    }
    *to = 0;
    return out;
}

static char *verdict_of(json_t *results) {
    char *page = page_of(results), *verdict = part_of(page, "<p class=\"verdict\">", "</p>"), *text = text_of(verdict);
    free(page);
    free(verdict);
    return text;
}

/* ---- form ---- */

typedef struct open_tags {
    char names[64][16];
    int n;
} open_tags;

static bool closes_itself(const char *name) {
    static const char *const names[] = {"meta", "br", "path"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0) return true;
    return false;
}

/* `tag` stands behind a '<'.  Inside a tag every attribute's value is quoted, so that '>' ends it. */
static const char *read_tag(open_tags *open, const char *tag) {
    char name[16];
    bool closing = *tag == '/';
    tag += closing;
    size_t n = 0;
    for (; isalnum((unsigned char)tag[n]); n++) name[n] = tag[n];
    name[n] = 0;
    assert_true(n > 0 && n < sizeof name);
    if (closing) {
        assert_true(open->n > 0);
        assert_string_equal(name, open->names[--open->n]);
    } else if (!closes_itself(name)) {
        assert_true(open->n < 64);
        strcpy(open->names[open->n++], name);
    }
    for (bool quoted = false; *tag != '>' || quoted; tag++) {
        assert_true(*tag && (quoted || *tag != '<'));
        quoted ^= *tag == '"';
    }
    return tag;
}

static void every_tag_is_closed_in_order(void **state) {
    (void)state;
    char *page = page_of(sample_results()), *form = without_scripts(page);
    open_tags open = {.n = 0};
    assert_memory_equal(form, "<!DOCTYPE html>\n", 16);
    for (const char *at = form + 16; (at = strchr(at, '<'));) at = read_tag(&open, at + 1);
    assert_int_equal(open.n, 0);
    free(form);
    free(page);
}

static void page_loads_nothing(void **state) {
    (void)state;
    char *page = page_of(sample_results()), *form = without_scripts(page);
    assert_has(page, "content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\"");
    static const char *const loads[] = {"http:", "https:", " src=", "<link", "<iframe", "<img", "@import", "url("};
    for (size_t i = 0; i < sizeof loads / sizeof *loads; i++) assert_lacks(form, loads[i]);
    for (const char *link = form; (link = strstr(link, "href=\"")); link++) assert_true(link[6] == '#');
    char *style = part_of(page, "<style>", "</style>");
    assert_lacks(style, "url(");
    assert_lacks(style, "@import");
    free(style);
    free(form);
    free(page);
}

static void every_link_leads_to_an_element(void **state) {
    (void)state;
    char *page = page_of(sample_results()), id[128];
    int n_links = 0;
    for (const char *link = page; (link = strstr(link, "href=\"#")); link++, n_links++) {
        snprintf(id, sizeof id, " id=\"%.*s\"", (int)strcspn(link + 7, "\""), link + 7);
        assert_has(page, id);
    }
    assert_true(n_links > 10);
    free(page);
}

static void sections_stand_in_their_order(void **state) {
    (void)state;
    static const char *const ids[] = {"settings", "comparison",  "evaluation", "loss",        "sinks",
                                      "mass",     "spread",      "silent",     "activations", "maps",
                                      "samples",  "definitions", "raw"};
    char *page = page_of(sample_results()), begin[64];
    const char *at = page;
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        snprintf(begin, sizeof begin, "<section id=\"%s\">", ids[i]);
        at = strstr(at, begin);
        assert_non_null(at);
    }
    free(page);
}

static void same_results_give_the_same_page(void **state) {
    (void)state;
    char *first = page_of(sample_results()), *second = page_of(sample_results());
    assert_string_equal(first, second);
    free(first);
    free(second);
}

/* ---- escaping ---- */

static void markup_in_texts_stays_text(void **state) {
    (void)state;
    static const char hostile[] = "</script><b onclick=\"x\">&amp;' \x01\x7f\n\xd7\xa9";
    static const char shown[] = "&lt;/script&gt;&lt;b onclick=&quot;x&quot;&gt;&amp;amp;&#39; "
                                "\xe2\x90\x81\xe2\x90\xa1\n\xd7\xa9";
    static const char *const places[] = {"models.softmax.samples.0.text",
                                         "models.softmax.samples.0.prompt",
                                         "models.softmax.maps.text",
                                         "models.softmax.maps.maps.0.why",
                                         "models.softpick.measures.kurtosis.definition",
                                         "machine.cpu",
                                         "settings.command",
                                         "settings.preset",
                                         "created"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        json_t *results = sample_results();
        if (strstr(places[i], "definition")) put(results, "models.softmax.measures.kurtosis", NULL);
        put(results, places[i], json_string(hostile));
        char *page = page_of(results);
        assert_has(page, shown);
        assert_lacks(page, "<b onclick");
        free(page);
    }
}

static void markup_in_a_models_name_stays_text(void **state) {
    (void)state;
    json_t *results = sample_results();
    put(results, "models.</script><i>", json_incref(json_object_get(json_object_get(results, "models"), "softpick")));
    char *page = page_of(results);
    assert_has(page, "&lt;/script&gt;&lt;i&gt;");
#if SP_WITH_CHART_JS
    assert_has(page, "\\u003c/script>\\u003ci>"); /* in the charts' JSON */
#endif
    assert_lacks(page, "</script><i>");
    free(page);
}

static void chart_data_is_json_with_every_models_curve(void **state) {
    (void)state;
    char *page = page_of(sample_results());
    static const char begin[] = "<script type=\"application/json\">";
    int n_charts = 0;
    for (const char *at = page; (at = strstr(at, begin)); n_charts++) {
        at += strlen(begin);
        json_t *chart;
        assert_int_equal(sp_json_parse(&chart, at, strstr(at, "</script>") - at, "chart"), SP_OK);
        json_t *series = json_object_get(chart, "series");
        assert_true(json_array_size(series) > 0);
        for (size_t i = 0; i < json_array_size(series); i++)
            assert_true(json_array_size(json_object_get(json_array_get(series, i), "data")) > 0);
        json_decref(chart);
    }
#if SP_WITH_CHART_JS
    assert_int_equal(n_charts, 10);
#else
    assert_int_equal(n_charts, 0);
    assert_has(page, "built without Chart.js");
#endif
    free(page);
}

#if SP_WITH_CHART_JS
/* The first series of that style in the page's first chart: the baseline's loss.  Caller releases it. */
static json_t *first_series(const char *page, const char *style) {
    static const char begin[] = "<script type=\"application/json\">";
    const char *at = strstr(page, begin) + strlen(begin);
    json_t *chart, *found = NULL, *series;
    size_t i;
    assert_int_equal(sp_json_parse(&chart, at, strstr(at, "</script>") - at, "chart"), SP_OK);
    json_array_foreach(json_object_get(chart, "series"), i, series) {
        bool fits = strcmp(json_string_value(json_object_get(series, "style")), style) == 0;
        if (fits && !found) found = json_incref(json_object_get(series, "data"));
    }
    json_decref(chart);
    assert_non_null(found);
    return found;
}

static double point_y(const json_t *data, size_t i) {
    return json_number_value(json_array_get(json_array_get(data, i), 1));
}

/* A line and noise that changes sign at every step. */
static void smoothed_loss_follows_the_trend_without_the_noise(void **state) {
    (void)state;
    enum { N = 500 };
    json_t *results = sample_results(), *steps = json_array(), *losses = json_array();
    for (int i = 0; i < N; i++) {
        json_array_append_new(steps, json_integer(i + 1));
        json_array_append_new(losses, json_real(5 - 0.004 * i + (i % 2 ? 0.5 : -0.5)));
    }
    put(results, "models.softmax.curve", json_pack("{s:o, s:o}", "step", steps, "loss", losses));
    char *page = page_of(results);
    json_t *raw = first_series(page, "raw"), *line = first_series(page, "line");
    assert_int_equal(json_array_size(line), N);
    for (size_t i = 0; i < N; i++) {
        bool at_an_end = i < 10 || i >= N - 10; /* where less is smoothed */
        assert_true(fabs(point_y(raw, i) - (5 - 0.004 * (double)i)) > 0.49);
        assert_true(at_an_end || fabs(point_y(line, i) - (5 - 0.004 * (double)i)) < 0.03);
    }
    json_decref(raw);
    json_decref(line);
    free(page);
}
#endif

/* ---- the verdict ---- */

static void verdict_says_when_no_sink_grew(void **state) {
    (void)state;
    char *verdict = verdict_of(sample_results());
    assert_has(verdict, "no attention sink grew in the softmax twin, nor in softpick");
    free(verdict);
}

static void verdict_gives_the_sink_rates_when_sinks_grew(void **state) {
    (void)state;
    json_t *results = sample_results();
    put(results, "models.softmax.measures.sink_rate.value", json_real(0.029));
    char *verdict = verdict_of(results);
    assert_has(verdict, "the sink rate is 2.9% in softmax and 0% in softpick");
    free(verdict);
}

static void verdict_tells_sinks_of_the_other_alone(void **state) {
    (void)state;
    json_t *results = sample_results();
    put(results, "models.softpick.measures.sink_rate.value", json_real(0.5));
    char *verdict = verdict_of(results);
    assert_has(verdict, "no attention sink grew in the softmax twin, but softpick has a sink rate of 50.0%");
    free(verdict);
}

static void verdict_compares_losses_in_both_directions(void **state) {
    (void)state;
    static const struct {
        double softpick;
        const char *said;
    } cases[] = {{3.661, "after 200 steps the validation loss of softpick is 3.661, 0.028 below softmax (3.689)"},
                 {3.700, "softpick is 3.700, 0.011 above softmax (3.689)"},
                 {3.68904, "softpick is 3.689, the same as that of softmax"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *results = sample_results();
        put(results, "models.softmax.validation_loss", json_real(3.689));
        put(results, "models.softpick.validation_loss", json_real(cases[i].softpick));
        char *verdict = verdict_of(results);
        assert_has(verdict, cases[i].said);
        free(verdict);
    }
}

static void verdict_tells_unequal_numbers_of_steps(void **state) {
    (void)state;
    json_t *results = sample_results();
    put(results, "models.softmax.steps", json_integer(1845));
    char *verdict = verdict_of(results);
    assert_has(verdict, "after 200 steps (softmax: 1,845) the validation loss of softpick is");
    free(verdict);
}

static void verdict_leaves_out_what_was_not_measured(void **state) {
    (void)state;
    json_t *results = sample_results();
    put(results, "models.softpick.measures", json_null());
    char *verdict = verdict_of(results);
    assert_has(verdict, "validation loss");
    assert_lacks(verdict, "sink");
    assert_lacks(verdict, "kurtosis");
    free(verdict);
}

/* ---- values ---- */

static void comparison_has_value_difference_and_conditions(void **state) {
    (void)state;
    json_t *results = sample_results();
    put(results, "models.softmax.measures.sparsity.value", json_real(0.0));
    put(results, "models.softpick.measures.sparsity.value", json_real(0.886));
    put(results, "models.softmax.measures.kurtosis.value", json_real(6717.2));
    put(results, "models.softpick.measures.kurtosis.value", json_real(15.81));
    char *page = page_of(results), *section = section_of(page, "comparison"), *text = text_of(section);
    assert_has(text, "exact zeros T 256 \xc2\xb7 32 samples \xc2\xb7 f32");
    assert_has(section, "<td>0%</td><td>88.6%</td><td class=\"difference\">+88.6 points</td>");
    assert_has(section, "<td>6,717</td><td>15.8</td><td class=\"difference\">\xe2\x88\x92"
                        "6,701</td>");
    assert_has(text, "threshold 0.3");
    assert_has(text, "on sequences without BOS");
    free(text);
    free(section);
    free(page);
}

static void differing_conditions_are_told_for_each_model(void **state) {
    (void)state;
    json_t *results = sample_results();
    put(results, "models.softpick.measures.kurtosis.T", json_integer(128));
    char *page = page_of(results), *section = section_of(page, "comparison"), *text = text_of(section);
    assert_has(text,
               "softmax: T 256 \xc2\xb7 32 samples \xc2\xb7 f32; softpick: T 128 \xc2\xb7 32 samples \xc2\xb7 f32");
    free(text);
    free(section);
    free(page);
}

static void unknown_measure_is_shown_under_its_name(void **state) {
    (void)state;
    json_t *results = sample_results();
    put(results, "models.softpick.measures.curvature",
        json_pack("{s:f, s:s, s:s}", "value", 1.25, "unit", "1", "definition", "mean curvature of the rows"));
    char *page = page_of(results), *section = section_of(page, "comparison");
    assert_has(section, ">curvature</a>");
    assert_has(section, "<td>\xe2\x80\x93</td><td>1.250</td><td class=\"difference\">\xe2\x80\x93</td>");
    assert_has(page, "mean curvature of the rows");
    free(section);
    free(page);
}

static void silent_heads_are_named(void **state) {
    (void)state;
    json_t *results = sample_results();
    put(results, "models.softpick.measures.silent_heads.per_layer_head",
        json_pack("[[f,f],[f,f],[f,f]]", 0.0, 0.1, 0.2, 0.99, 0.95, 1.0));
    char *page = page_of(results), *section = section_of(page, "silent"), *text = text_of(section);
    assert_has(text, "softpick: 2 of 6 heads are silent for more than 95% of tokens; layer 1, head 1; layer 2, head 1");
    assert_has(text, "softmax: 0 of 12 heads are silent");
    free(text);
    free(section);
    free(page);
}

static void largest_activations_are_placed(void **state) {
    (void)state;
    json_t *results = sample_results();
    put(results, "models.softmax.measures.massive_activations.top",
        json_pack("[{s:f,s:f,s:i,s:i,s:i}]", "value", -583.2, "median", 0.41, "layer", 3, "channel", 77, "position",
                  0));
    char *page = page_of(results), *section = section_of(page, "activations"), *text = text_of(section);
    assert_has(text, "Largest in softmax: \xe2\x88\x92"
                     "583 in layer 3, channel 77, at position 0 (median magnitude there: 0.410)");
    free(text);
    free(section);
    free(page);
}

static void tokens_are_cut_between_letters_and_spaces_are_dots(void **state) {
    (void)state;
    json_t *results = sample_results();
    put(results, "models.softpick.maps.tokens.1",
        json_string("\xe2\x96\x81\xd7\xa9\xd7\x9c\xe4\xbd\xa0\xe5\xa5\xbd\xf0\x9f\x8c\x8d<yz\xc3\xa9!"));
    char *page = page_of(results), *section = section_of(page, "maps");
    assert_has(section, ">\xc2\xb7\xd7\xa9\xd7\x9c\xe4\xbd\xa0\xe5\xa5\xbd\xf0\x9f\x8c\x8d&lt;yz\xe2\x80\xa6</text>");
    assert_has(section, ">\xc2\xb7"
                        "beginnin\xe2\x80\xa6</text>");
    free(section);
    free(page);
}

static void exact_zero_of_a_map_is_drawn_apart_from_a_small_weight(void **state) {
    (void)state;
    json_t *results = sample_results();
    put(results, "models.softpick.maps",
        json_pack("{s:[s,s], s:[{s:i,s:i,s:[[f],[f,f]]}]}", "tokens", "a", "b", "maps", "layer", 1, "head", 2,
                  "weights", 0.0, 1e-6, 0.25));
    char *page = page_of(results), *section = section_of(page, "maps");
    assert_has(section,
               "<path fill-opacity=\"0.05\" d=\"M0 1h1v1h-1z\"/>\n<path fill-opacity=\"0.50\" d=\"M1 1h1v1h-1z\"/>");
    assert_lacks(section, "fill-opacity=\"0.00\"");
    assert_has(section, "exact zeros 33.3%");
    free(section);
    free(page);
}

/* ---- other shapes of results ---- */

static void missing_parts_are_said_to_be_missing(void **state) {
    (void)state;
    static const struct {
        const char *part, *section, *said;
    } cases[] = {{"measures", "sinks", "Not measured."},     {"measures", "mass", "Not measured."},
                 {"measures", "silent", "Not measured."},    {"measures", "activations", "not measured"},
                 {"measures", "comparison", "not measured"}, {"curve", "loss", "not recorded"},
                 {"maps", "maps", "Not measured."},          {"samples", "samples", "Not sampled."}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *results = sample_results();
        char path[64];
        snprintf(path, sizeof path, "models.softmax.%s", cases[i].part);
        put(results, path, json_null());
        snprintf(path, sizeof path, "models.softpick.%s", cases[i].part);
        put(results, path, NULL);
        char *page = page_of(results), *section = section_of(page, cases[i].section);
        assert_has(section, cases[i].said);
        free(section);
        free(page);
    }
}

static void any_number_of_models_is_compared_with_the_first(void **state) {
    (void)state;
    json_t *results = sample_results(), *models = json_object_get(results, "models");
    for (int i = 0; i < 6; i++) {
        char name[16];
        snprintf(name, sizeof name, "other-%d", i);
        json_object_set_new(models, name, json_deep_copy(json_object_get(models, "softpick")));
    }
    char *page = page_of(results), *title = part_of(page, "<h1>", "</h1>"), *text = text_of(title);
    assert_string_equal(text, "softmax, softpick, other-0, other-1, other-2, other-3, other-4 and other-5");
    int n_verdicts = 0;
    for (const char *at = page; (at = strstr(at, "<p class=\"verdict\">")); at++) n_verdicts++;
    assert_int_equal(n_verdicts, 7);
    assert_has(page, "<span class=\"model hue0\">softmax</span>");
    assert_has(page, "<span class=\"model hue1\">softpick</span>");
    assert_has(page, "<span class=\"model hue2\">other-0</span>");
    assert_has(page, "<span class=\"model hue2\">other-4</span>");
    free(text);
    free(title);
    free(page);
}

static void one_model_alone_has_a_page(void **state) {
    (void)state;
    json_t *results = sample_results();
    put(results, "models.softmax", NULL);
    char *verdict = verdict_of(results);
    assert_has(verdict, "no other model in these results");
    free(verdict);
}

static void null_numbers_are_dashes_and_gaps(void **state) {
    (void)state;
    json_t *results = sample_results();
    put(results, "models.softmax.validation_loss", json_null());
    put(results, "models.softmax.curve.loss.3", json_null());
    put(results, "models.softmax.measures.kurtosis.per_layer.1", json_null());
    put(results, "models.softmax.measures.row_mass.per_layer_head.1.1", json_null());
    put(results, "models.softmax.maps.maps.0.weights.2.1", json_null());
    char *page = page_of(results), *form = without_scripts(page);
    assert_has(form, "layer 1, head 1: \xe2\x80\x93");
    assert_lacks(page, "nan\"");
    assert_lacks(page, ">nan");
    assert_lacks(page, "[nan");
    free(form);
    free(page);
}

static void long_runs_make_no_long_pages(void **state) {
    (void)state;
    enum { N = 100000 };
    json_t *results = sample_results(), *steps = json_array(), *losses = json_array();
    for (int i = 0; i < N; i++) {
        json_array_append_new(steps, json_integer(i + 1));
        json_array_append_new(losses, json_real(3 + 1.0 / (i + 1)));
    }
    put(results, "models.softmax.curve", json_pack("{s:o, s:o}", "step", steps, "loss", losses));
    char *page = page_of(results);
    assert_true(strlen(page) < 400 * 1000);
    free(page);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tag_is_closed_in_order),
        cmocka_unit_test(page_loads_nothing),
        cmocka_unit_test(every_link_leads_to_an_element),
        cmocka_unit_test(sections_stand_in_their_order),
        cmocka_unit_test(same_results_give_the_same_page),
        cmocka_unit_test(markup_in_texts_stays_text),
        cmocka_unit_test(markup_in_a_models_name_stays_text),
        cmocka_unit_test(chart_data_is_json_with_every_models_curve),
#if SP_WITH_CHART_JS
        cmocka_unit_test(smoothed_loss_follows_the_trend_without_the_noise),
#endif
        cmocka_unit_test(verdict_says_when_no_sink_grew),
        cmocka_unit_test(verdict_gives_the_sink_rates_when_sinks_grew),
        cmocka_unit_test(verdict_tells_sinks_of_the_other_alone),
        cmocka_unit_test(verdict_compares_losses_in_both_directions),
        cmocka_unit_test(verdict_tells_unequal_numbers_of_steps),
        cmocka_unit_test(verdict_leaves_out_what_was_not_measured),
        cmocka_unit_test(comparison_has_value_difference_and_conditions),
        cmocka_unit_test(differing_conditions_are_told_for_each_model),
        cmocka_unit_test(unknown_measure_is_shown_under_its_name),
        cmocka_unit_test(silent_heads_are_named),
        cmocka_unit_test(largest_activations_are_placed),
        cmocka_unit_test(tokens_are_cut_between_letters_and_spaces_are_dots),
        cmocka_unit_test(exact_zero_of_a_map_is_drawn_apart_from_a_small_weight),
        cmocka_unit_test(missing_parts_are_said_to_be_missing),
        cmocka_unit_test(any_number_of_models_is_compared_with_the_first),
        cmocka_unit_test(one_model_alone_has_a_page),
        cmocka_unit_test(null_numbers_are_dashes_and_gaps),
        cmocka_unit_test(long_runs_make_no_long_pages),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
