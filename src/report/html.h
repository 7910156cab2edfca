/* What goes between the tags: text, JSON and numbers, each escaped or shaped for its place.
 *
 * The page is written to a FILE; a failed write shows once, in ferror(), when the page is finished. */
#ifndef SP_REPORT_HTML_H
#define SP_REPORT_HTML_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

/* Any UTF-8, for an element's content or a quoted attribute.  Control characters become their visible signs. */
void sp_html_text(FILE *page, const char *text);
/* A document for a <script type="application/json">: nothing inside can end the element. */
void sp_html_json(FILE *page, const json_t *json);

/* How a value is shown.  The names are the "unit" of results.json; any other unit is shown as a plain number. */
typedef enum sp_html_unit { SP_HTML_UNIT_PLAIN, SP_HTML_UNIT_SHARE, SP_HTML_UNIT_COUNT } sp_html_unit;
sp_html_unit sp_html_unit_of(const char *name); /* NULL: plain */

/* A number with few digits, ready for the page: "88.6%", "6,717", "3.661", "&lt;0.01%"; NaN is a dash. */
typedef struct sp_html_number {
    char text[48];
} sp_html_number;
sp_html_number sp_html_number_of(double value, sp_html_unit unit);
/* value - base with its sign; a share in points: "+88.6 points". */
sp_html_number sp_html_difference_of(double base, double value, sp_html_unit unit);

#endif
