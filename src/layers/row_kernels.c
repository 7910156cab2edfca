/* The table of row kernels, best first, and the choice from it. */
#include "layers/row_kernels.h"

#include <stddef.h>

#include "softpick/device.h"

static const sp_row_kernels *const sets[] = {
#if defined(__x86_64__)
    &sp_row_kernels_avx512_bf16,
    &sp_row_kernels_avx512,
    &sp_row_kernels_avx2,
#endif
    &sp_row_kernels_baseline,
};

const sp_row_kernels *sp_row_kernels_at(int i) {
    return i >= 0 && i < (int)(sizeof sets / sizeof *sets) ? sets[i] : NULL;
}

bool sp_row_kernels_usable(const sp_row_kernels *kernels) { return (kernels->needs & ~sp_cpu_features()) == 0; }

const sp_row_kernels *sp_row_kernels_best(void) {
    int i = 0;
    while (!sp_row_kernels_usable(sets[i])) i++; /* the last one needs nothing */
    return sets[i];
}
