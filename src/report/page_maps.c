/* Attention over one sentence: for each chosen head a triangle of weights with the tokens on both axes, as SVG.
 *
 * A row is a query, a column a key.  A weight's colour is as strong as its square root, in LEVELS steps, so that small
 * weights can be seen; a weight of exactly zero stays empty.  All cells of one level are one path, made of horizontal
 * runs: a map takes a few kilobytes. */
#include "report/page.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum {
    LEVELS = 20,
    CELL = 10,             /* user units of a cell's side */
    MAX_TOKENS = 64,       /* more could not be read */
    MAX_TOKEN_LETTERS = 9, /* a longer token is cut */
    LETTER = 5             /* user units of a letter's width, in the mean */
};

/* ---- one map ---- */

/* 0 for exactly zero (and for null), else 1 to LEVELS. */
static int level_of(double weight) {
    if (!(weight > 0)) return 0;
    int level = (int)ceil(LEVELS * sqrt(weight));
    return level < LEVELS ? level : LEVELS;
}

/* The runs of one level in one row. */
static void write_runs(FILE *page, const json_t *weights, int64_t row, int64_t n_tokens, int level) {
    int64_t n = (int64_t)json_array_size(weights);
    if (n > n_tokens) n = n_tokens;
    for (int64_t key = 0, end; key < n; key = end) {
        end = key + 1;
        if (level_of(sp_results_entry(weights, key)) != level) continue;
        while (end < n && level_of(sp_results_entry(weights, end)) == level) end++;
        fprintf(page, "M%lld %lldh%lldv1h-%lldz", (long long)key, (long long)row, (long long)(end - key),
                (long long)(end - key));
    }
}

static bool any_of_level(const json_t *rows, int64_t n_tokens, int level) {
    for (int64_t query = 0; query < n_tokens; query++) {
        const json_t *weights = json_array_get(rows, (size_t)query);
        for (int64_t key = 0; key < n_tokens; key++)
            if (level_of(sp_results_entry(weights, key)) == level) return true;
    }
    return false;
}

static void write_level(FILE *page, const json_t *rows, int64_t n_tokens, int level) {
    if (!any_of_level(rows, n_tokens, level)) return;
    fprintf(page, "<path fill-opacity=\"%.2f\" d=\"", (double)level / LEVELS);
    for (int64_t query = 0; query < n_tokens; query++)
        write_runs(page, json_array_get(rows, (size_t)query), query, n_tokens, level);
    fputs("\"/>\n", page);
}

/* The keys that a query may see, as one stepped triangle. */
static void write_ground(FILE *page, int64_t n_tokens) {
    fputs("<path class=\"ground\" d=\"M0 0", page);
    for (int64_t t = 0; t < n_tokens; t++) fputs("h1v1", page);
    fprintf(page, "H0z\"/>\n");
}

/* ---- tokens ---- */

static bool begins_letter(char byte) { return ((unsigned char)byte & 0xc0) != 0x80; } /* in UTF-8 */

/* Bytes of the token's first MAX_TOKEN_LETTERS letters. */
static size_t shown_bytes(const char *token) {
    size_t n = 0;
    for (int n_letters = 0; token[n]; n++) {
        n_letters += begins_letter(token[n]);
        if (n_letters > MAX_TOKEN_LETTERS) break;
    }
    return n;
}

/* sentencepiece writes a space as U+2581, a heavy low line: a dot is calmer. */
static void write_token(FILE *page, const char *token) {
    static const char space[] = "\xe2\x96\x81";
    char letters[4 * MAX_TOKEN_LETTERS + 1];
    size_t n = shown_bytes(token);
    snprintf(letters, sizeof letters, "%.*s", (int)n, token);
    const char *rest = letters;
    for (const char *at; (at = strstr(rest, space)); rest = at + strlen(space)) {
        char before[sizeof letters];
        snprintf(before, sizeof before, "%.*s", (int)(at - rest), rest);
        sp_html_text(page, before);
        fputs("\xc2\xb7", page);
    }
    sp_html_text(page, rest);
    if (token[n]) fputs("\xe2\x80\xa6", page);
}

/* User units for the longest of the labels. */
static int label_width(const json_t *tokens, int64_t n_tokens) {
    int longest = 0;
    for (int64_t t = 0; t < n_tokens; t++) {
        const char *token = json_string_value(json_array_get(tokens, (size_t)t));
        int n_letters = token[shown_bytes(token)] != 0;
        for (size_t i = 0; i < shown_bytes(token); i++) n_letters += begins_letter(token[i]);
        if (n_letters > longest) longest = n_letters;
    }
    return LETTER * (longest + 1);
}

static void write_tokens(FILE *page, const json_t *tokens, int64_t n_tokens) {
    for (int64_t t = 0; t < n_tokens; t++) {
        const char *token = json_string_value(json_array_get(tokens, (size_t)t));
        double middle = CELL * ((double)t + 0.5);
        fprintf(page, "<text x=\"-3\" y=\"%g\" dy=\".35em\">", middle);
        write_token(page, token);
        fprintf(page, "</text><text transform=\"translate(%g %lld) rotate(-90)\" x=\"-3\" dy=\".35em\">", middle,
                (long long)(CELL * n_tokens));
        write_token(page, token);
        fputs("</text>\n", page);
    }
}

/* ---- a figure ---- */

typedef struct map_facts {
    double first_mass, row_mass, zeros; /* means over the queries; zeros: share of the keys that a query may see */
} map_facts;

static map_facts map_facts_of(const json_t *rows) {
    map_facts facts = {0};
    int64_t n = (int64_t)json_array_size(rows), n_zeros = 0;
    for (int64_t query = 0; query < n; query++) {
        const json_t *weights = json_array_get(rows, (size_t)query);
        facts.first_mass += sp_results_entry(weights, 0) / (double)n;
        for (int64_t key = 0; key <= query; key++) {
            double weight = sp_results_entry(weights, key);
            facts.row_mass += weight / (double)n;
            n_zeros += weight == 0;
        }
    }
    facts.zeros = (double)n_zeros / (0.5 * (double)n * (double)(n + 1));
    return facts;
}

static void write_facts(FILE *page, const json_t *rows) {
    map_facts facts = map_facts_of(rows);
    fprintf(page, "first token %s, row mass %s, exact zeros %s",
            sp_html_number_of(facts.first_mass, SP_HTML_UNIT_SHARE).text,
            sp_html_number_of(facts.row_mass, SP_HTML_UNIT_PLAIN).text,
            sp_html_number_of(facts.zeros, SP_HTML_UNIT_SHARE).text);
}

static void write_picture(FILE *page, const json_t *tokens, const json_t *rows, int hue) {
    int64_t n_tokens = (int64_t)json_array_size(tokens);
    if (n_tokens > MAX_TOKENS) n_tokens = MAX_TOKENS;
    int label = label_width(tokens, n_tokens), side = CELL * (int)n_tokens;
    fprintf(page, "<svg class=\"map hue%d\" viewBox=\"%d 0 %d %d\" style=\"--units:%d\" role=\"img\" ", hue, -label,
            side + label, side + label, side + label);
    fputs("aria-label=\"Attention map: ", page);
    write_facts(page, rows);
    fprintf(page, "\">\n<g transform=\"scale(%d)\" shape-rendering=\"crispEdges\">\n", CELL);
    write_ground(page, n_tokens);
    for (int level = 1; level <= LEVELS; level++) write_level(page, rows, n_tokens, level);
    fputs("</g>\n<g class=\"tokens\">\n", page);
    write_tokens(page, tokens, n_tokens);
    fputs("</g>\n</svg>\n", page);
}

static void write_map(FILE *page, const sp_results_model *model, const json_t *tokens, const json_t *map) {
    const char *why = sp_results_string(map, "why");
    const json_t *rows = json_object_get(map, "weights");
    fprintf(page, "<figcaption><b>layer %g, head %g</b>", sp_results_number(map, "layer"),
            sp_results_number(map, "head"));
    if (why) {
        fputs(" ", page);
        sp_html_text(page, why);
    }
    fputs(" <small>", page);
    write_facts(page, rows);
    fputs("</small></figcaption>\n", page);
    write_picture(page, tokens, rows, model->hue);
}

/* ---- the section ---- */

static const json_t *maps_of(const sp_results_model *model, const char *key) {
    return json_object_get(sp_results_part(model->data, "maps"), key);
}

static void write_model_map(FILE *page, const sp_results_model *model, size_t i) {
    const json_t *tokens = maps_of(model, "tokens"), *map = json_array_get(maps_of(model, "maps"), i);
    fputs("<figure><p class=\"legend\">", page);
    sp_page_model_name(page, model);
    fputs("</p>\n", page);
    if (map && json_array_size(tokens) > 0)
        write_map(page, model, tokens, map);
    else
        fputs("<p class=\"note\">Not measured.</p>\n", page);
    fputs("</figure>\n", page);
}

/* The rollouts side by side; nothing when no model has one. */
static void write_rollouts(FILE *page, const sp_results *results) {
    bool any = false;
    for (int64_t m = 0; m < results->n_models; m++) any = any || maps_of(&results->models[m], "rollout");
    if (!any) return;
    fputs("<div class=\"side maps\">\n", page);
    for (int64_t m = 0; m < results->n_models; m++) {
        const sp_results_model *model = &results->models[m];
        const json_t *rows =
            sp_results_part(sp_results_part(sp_results_part(model->data, "maps"), "rollout"), "weights");
        fputs("<figure><p class=\"legend\">", page);
        sp_page_model_name(page, model);
        fputs("</p>\n", page);
        if (json_array_size(rows) > 0) {
            fputs("<figcaption><b>rollout</b> through all layers: how much of a token's state came from each token, "
                  "taking attention, mean over heads, and the residual stream in equal parts</figcaption>\n",
                  page);
            write_picture(page, maps_of(model, "tokens"), rows, model->hue);
        } else
            fputs("<p class=\"note\">Not measured.</p>\n", page);
        fputs("</figure>\n", page);
    }
    fputs("</div>\n", page);
}

/* At least 1, so that models without any map are told of. */
static size_t most_maps(const sp_results *results) {
    size_t most = 1;
    for (int64_t i = 0; i < results->n_models; i++) {
        size_t n = json_array_size(maps_of(&results->models[i], "maps"));
        if (n > most) most = n;
    }
    return most;
}

static void write_text(FILE *page, const sp_results *results) {
    for (int64_t i = 0; i < results->n_models; i++) {
        const char *text = json_string_value(maps_of(&results->models[i], "text"));
        if (!text) continue;
        fputs("<blockquote dir=\"auto\">", page);
        sp_html_text(page, text);
        fputs("</blockquote>\n", page);
        return;
    }
}

static bool any_text_is_cut(const sp_results *results) {
    for (int64_t i = 0; i < results->n_models; i++)
        if (json_array_size(maps_of(&results->models[i], "tokens")) > MAX_TOKENS) return true;
    return false;
}

/* Maps of the same place in the models' lists stand side by side: they were chosen for the same reason. */
void sp_page_maps(FILE *page, const sp_results *results) {
    write_text(page, results);
    fputs(
        "<p>A row is a token that asks, a column a token that it attends to. Colour grows with the square root of the "
        "weight, and a weight of exactly zero leaves its cell empty. A dot in a token is a space.",
        page);
    if (any_text_is_cut(results)) fprintf(page, " Only the first %d tokens are drawn.", MAX_TOKENS);
    fputs("</p>\n", page);
    write_rollouts(page, results);
    for (size_t i = 0; i < most_maps(results); i++) {
        fputs("<div class=\"side maps\">\n", page);
        for (int64_t m = 0; m < results->n_models; m++) write_model_map(page, &results->models[m], i);
        fputs("</div>\n", page);
    }
}
