/* The tables of softpick measure on stdout. */
#ifndef SP_CLI_MEASURE_PRINT_H
#define SP_CLI_MEASURE_PRINT_H

#include <jansson.h>

/* What is told of every checkpoint of a run if nothing else is asked for. */
#define CLI_RUN_MEASURES "dead_heads,dead_heads_0.01,silent_heads,sink_rate,row_mass,sparsity,kurtosis"

void measure_print_model(const json_t *document); /* softpick-measure/1 */
void measure_print_run(const json_t *document);   /* softpick-measure-run/1 */

#endif
