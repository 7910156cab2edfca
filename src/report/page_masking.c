/* What becomes of the loss when dead heads are masked. */
#include "report/page.h"

#include <math.h>

static const json_t *masking_of(const sp_results_model *model) { return sp_results_measure(model, "masking"); }

static double mean_of(const json_t *list) {
    double sum = 0;
    for (size_t i = 0; i < json_array_size(list); i++) sum += sp_results_entry(list, (int64_t)i);
    return json_array_size(list) ? sum / (double)json_array_size(list) : NAN;
}

static void write_loss(FILE *page, double loss) {
    fprintf(page, "<td>%s</td>", sp_html_number_of(loss, SP_HTML_UNIT_PLAIN).text);
}

static const json_t *masked_row(const sp_results_model *model, size_t row) {
    return json_array_get(sp_results_part(masking_of(model), "masked"), row);
}

static void write_masked_row(FILE *page, const sp_results *results, size_t row) {
    double threshold = NAN;
    for (int64_t i = 0; i < results->n_models && isnan(threshold); i++)
        threshold = sp_results_number(masked_row(&results->models[i], row), "threshold");
    fprintf(page, "<tr><th scope=\"row\">heads whose outputs are below %g</th>", threshold);
    for (int64_t i = 0; i < results->n_models; i++) {
        const json_t *masked = masked_row(&results->models[i], row);
        fprintf(
            page, "<td>%s of %s</td>",
            sp_html_number_of(sp_results_number(masked, "n_masked"), SP_HTML_UNIT_COUNT).text,
            sp_html_number_of(sp_results_number(masking_of(&results->models[i]), "n_heads"), SP_HTML_UNIT_COUNT).text);
        write_loss(page, sp_results_number(masked, "loss"));
        write_loss(page, mean_of(sp_results_part(masked, "control_losses")));
    }
    fputs("</tr>\n", page);
}

static void write_masking_head(FILE *page, const sp_results *results) {
    fputs("<thead><tr><th rowspan=\"2\" scope=\"col\">masked</th>", page);
    for (int64_t i = 0; i < results->n_models; i++) {
        fputs("<th colspan=\"3\" scope=\"colgroup\">", page);
        sp_page_model_name(page, &results->models[i]);
        fputs("</th>", page);
    }
    fputs("</tr>\n<tr>", page);
    for (int64_t i = 0; i < results->n_models; i++)
        fputs("<th scope=\"col\">heads</th><th scope=\"col\">loss</th><th scope=\"col\">as many others</th>", page);
    fputs("</tr></thead>\n", page);
}

static size_t most_rows(const sp_results *results) {
    size_t most = 0;
    for (int64_t i = 0; i < results->n_models; i++) {
        size_t n = json_array_size(sp_results_part(masking_of(&results->models[i]), "masked"));
        if (n > most) most = n;
    }
    return most;
}

void sp_page_masking(FILE *page, const sp_results *results) {
    size_t n_rows = most_rows(results);
    if (n_rows == 0) return;
    fputs("<figure>\n<figcaption><b>dead heads masked</b> Loss in nats per token with the outputs of dead heads set to "
          "zero, and "
          "with as many other heads masked (mean of random draws): a head that is silent on most tokens may still "
          "matter on the rest. <small>",
          page);
    sp_page_conditions(page, sp_page_first_measure(results, "masking"));
    fputs("</small></figcaption>\n<div class=\"wide\"><table class=\"plain\">\n", page);
    write_masking_head(page, results);
    fputs("<tbody>\n<tr><th scope=\"row\">nothing</th>", page);
    for (int64_t i = 0; i < results->n_models; i++) {
        fputs("<td></td>", page);
        write_loss(page, sp_results_number(masking_of(&results->models[i]), "loss"));
        fputs("<td></td>", page);
    }
    fputs("</tr>\n", page);
    for (size_t row = 0; row < n_rows; row++) write_masked_row(page, results, row);
    fputs("</tbody></table></div>\n</figure>\n", page);
}
