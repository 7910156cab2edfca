/* Row kernels in the compiler's default instruction set: SSE2 on x86-64. */
#include "layers/row_kernels.h"

#define ROWS_KERNELS        sp_row_kernels_baseline
#define ROWS_NAME           "baseline"
#define ROWS_NEEDS          0
#define ROWS_FUSED(a, b, c) ((a) * (b) + (c))
#include "layers/row_kernels.inc"
