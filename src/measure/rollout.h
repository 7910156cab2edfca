/* Attention rollout (Abnar and Zuidema, arXiv 2005.00928) of one short text: how much of each token's state after the
 * last layer came from each token's embedding, if attention and the residual stream were all there is.
 *
 *   R = A'_L ... A'_1,   A'_l = the rows of (mean over heads of A_l) + 1, each divided by its sum
 *
 * In softmax that sum is 2.  A row of weights that holds less leaves more to the residual stream; a silent one, all. */
#ifndef SP_MEASURE_ROLLOUT_H
#define SP_MEASURE_ROLLOUT_H

#include <stdint.h>

#include "base/status.h"
#include "softpick/model.h"

typedef struct sp_rollout {
    int64_t H, T;
    float *weights;           /* (H,T,T): of a layer */
    double *product, *before; /* (T,T): of the layers so far */
} sp_rollout;

SP_MUST_CHECK sp_status sp_rollout_open(sp_rollout *rollout, int64_t n_heads, int64_t T);
void sp_rollout_close(sp_rollout *rollout); /* a zeroed struct is fine */
/* Observes one sequence of T tokens. */
sp_observer sp_rollout_observer(sp_rollout *rollout);

#endif
