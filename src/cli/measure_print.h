/* The tables of softpick measure on stdout. */
#ifndef SP_CLI_MEASURE_PRINT_H
#define SP_CLI_MEASURE_PRINT_H

#include <jansson.h>

void measure_print_model(const json_t *document); /* softpick-measure/1 */
void measure_print_run(const json_t *document);   /* softpick-measure-run/1 */

#endif
