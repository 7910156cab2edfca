/* Charts of curves, and the tables of their numbers.
 *
 * page.js draws with Chart.js what stands in a chart's JSON:
 *   {"x": title, "y": title, "log_x": bool, "log_y": bool, "from_zero": bool,
 *    "series": [{"name", "model", "hue", "style": as below, "data": [[x, y], ...]}, ...]} */
#ifndef SP_REPORT_PAGE_CHART_H
#define SP_REPORT_PAGE_CHART_H

#include "report/page.h"

enum { SP_CHART_POINTS_MAX = 600 }; /* more would not be seen on a page's width */

enum sp_chart_scales { SP_CHART_LINEAR = 0, SP_CHART_LOG_X = 1, SP_CHART_LOG_Y = 2, SP_CHART_FROM_ZERO = 4 };

json_t *sp_chart_new(const char *x, const char *y, unsigned scales);
/* Adds a series of model `i`, in the model's colour; `data` is stolen.  Without data, nothing is added.
 * Styles: "raw" faint; "line"; "dashed" thinner; "points" with a dashed line between; "layers" a line with points. */
void sp_chart_add(json_t *chart, const sp_results *results, int64_t i, const char *what, const char *style,
                  json_t *data);
/* What is not finite is left out. */
void sp_chart_point(json_t *data, double x, double y);
/* Points of two lists of numbers, y times `factor`. */
json_t *sp_chart_points(const json_t *x, const json_t *y, double factor);
bool sp_chart_is_empty(const json_t *chart);

/* A figure with its legend, drawing and caption, and with the numbers of all series folded away under `table`, if that
 * is not NULL; of many rows, some that are evenly spread. */
void sp_chart_write(FILE *page, const sp_results *results, const json_t *chart, const char *description,
                    const char *caption, const char *table);

#endif
