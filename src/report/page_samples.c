/* Text that the models wrote, side by side for each prompt; and the results' values as JSON. */
#include "report/page.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

/* ---- generated text ---- */

/* The model's entry `i`, when it answers the same prompt. */
static const json_t *find_sample(const sp_results_model *model, size_t i, const char *prompt) {
    const json_t *sample = json_array_get(sp_results_part(model->data, "samples"), i);
    return sample && strcmp(sp_results_string(sample, "prompt"), prompt) == 0 ? sample : NULL;
}

static void write_sample(FILE *page, const sp_results_model *model, const json_t *sample) {
    fputs("<div><p class=\"legend\">", page);
    sp_page_model_name(page, model);
    fputs("</p>\n", page);
    if (sample) {
        fprintf(page, "<p class=\"sample hue%d\" dir=\"auto\">", model->hue);
        sp_html_text(page, sp_results_string(sample, "text"));
        fputs("</p>\n", page);
    } else
        fputs("<p class=\"note\">Not sampled.</p>\n", page);
    fputs("</div>\n", page);
}

static void write_prompt(FILE *page, const sp_results *results, size_t i, const char *prompt) {
    fputs("<figure>\n<figcaption>", page);
    if (*prompt) {
        fputs("Prompt: <q dir=\"auto\">", page);
        sp_html_text(page, prompt);
        fputs("</q>", page);
    } else
        fputs("Without a prompt", page);
    fputs("</figcaption>\n<div class=\"side\">\n", page);
    for (int64_t m = 0; m < results->n_models; m++)
        write_sample(page, &results->models[m], find_sample(&results->models[m], i, prompt));
    fputs("</div>\n</figure>\n", page);
}

/* True when no model before `m` has shown this prompt in entry `i`. */
static bool is_new_prompt(const sp_results *results, int64_t m, size_t i, const char *prompt) {
    for (int64_t before = 0; before < m; before++)
        if (find_sample(&results->models[before], i, prompt)) return false;
    return true;
}

void sp_page_samples(FILE *page, const sp_results *results) {
    bool any = false;
    for (int64_t m = 0; m < results->n_models; m++) {
        const json_t *samples = sp_results_part(results->models[m].data, "samples");
        for (size_t i = 0; i < json_array_size(samples); i++) {
            const char *prompt = sp_results_string(json_array_get(samples, i), "prompt");
            if (is_new_prompt(results, m, i, prompt)) write_prompt(page, results, i, prompt);
            any = true;
        }
    }
    if (!any) fputs("<p class=\"note\">Not sampled.</p>\n", page);
}

/* ---- the values as JSON ---- */

/* A copy without the lists that the page shows in full elsewhere. */
static json_t *copy_values(const sp_results *results) {
    json_t *copy = json_deep_copy(results->root), *models = json_object_get(copy, "models"), *model;
    const char *name;
    json_object_foreach(models, name, model) {
        json_object_del(model, "curve");
        json_object_del(model, "maps");
        json_object_del(model, "samples");
    }
    return copy;
}

void sp_page_raw(FILE *page, const sp_results *results) {
    json_t *copy = copy_values(results);
    char *text = json_dumps(copy, JSON_INDENT(1) | JSON_REAL_PRECISION(12));
    fputs("<details><summary>results.json without curves, maps and texts</summary>\n<pre class=\"raw\">", page);
    sp_html_text(page, text);
    fputs("</pre></details>\n", page);
    free(text);
    json_decref(copy);
}
