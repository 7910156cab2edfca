/* What each row of attention weights comes to, on every device, without a T x S matrix: for measures. */
#ifndef SP_ATTENTION_ROW_SUMS_H
#define SP_ATTENTION_ROW_SUMS_H

#include "softpick/attention.h"

/* Arrays of the host, (B,H,T) as lse lies, overwritten; NULL where not wanted.  Rows of no sequence stay as they are. */
typedef struct sp_row_sums {
    float *mass;    /* sum of the row's weights */
    float *first;   /* weight on key 0 of the sequence; 0 where the row does not see it */
    int64_t *zeros; /* keys seen whose weight is exactly 0 */
    int64_t *small; /* keys seen whose weight is at most `small` of the call */
} sp_row_sums;

#ifdef __cplusplus
extern "C" {
#endif

/* Needs q and k alone (on a GPU, and all else that the scores depend on).  Waits for the result. */
SP_MUST_CHECK sp_status sp_attention_row_sums(const sp_attention *problem, float small, const sp_row_sums *sums);

#ifdef __cplusplus
}
#endif
#endif
