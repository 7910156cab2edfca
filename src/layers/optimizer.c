/* AdamW (arXiv 1711.05101) and the norm that gradient clipping needs. */
#include "layers/layers_cpu.h"

#include <math.h>

#include "layers/row_kernels.h"

enum { RUN = 4096, SECTIONS = 256 };

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

sp_adamw_factors sp_adamw_factors_of(const sp_adamw *options, float gradient_scale) {
    double steps = (double)options->step;
    return (sp_adamw_factors){
        .gradient_scale = gradient_scale,
        .beta1 = (float)options->beta1,
        .one_minus_beta1 = (float)(1.0 - options->beta1),
        .beta2 = (float)options->beta2,
        .one_minus_beta2 = (float)(1.0 - options->beta2),
        .keep = (float)(1.0 - options->learning_rate * options->weight_decay),
        .rate = (float)(options->learning_rate / (1.0 - pow(options->beta1, steps))),
        .root_correction = (float)(1.0 / sqrt(1.0 - pow(options->beta2, steps))),
        .eps = (float)options->eps,
    };
}

sp_status sp_cpu_adamw_step(sp_device *device, float *values, uint16_t *halves, const float *gradient, float *m,
                            float *v, int64_t n, float gradient_scale, const sp_adamw *options) {
    (void)device;
    const sp_row_kernels *kernels = sp_row_kernels_best();
    const sp_adamw_factors factors = sp_adamw_factors_of(options, gradient_scale);
#pragma omp parallel for schedule(static) if (n > RUN)
    for (int64_t i = 0; i < n; i += RUN) {
        int64_t count = smaller(RUN, n - i);
        kernels->adamw(values + i, gradient + i, m + i, v + i, count, &factors);
        if (halves) kernels->convert(halves + i, SP_DTYPE_BF16, values + i, SP_DTYPE_F32, count);
    }
    return SP_OK;
}

/* The sections depend on n alone, and their sums are added in order. */
sp_status sp_cpu_norm(sp_device *device, double *norm, const float *gradient, int64_t n) {
    (void)device;
    const sp_row_kernels *kernels = sp_row_kernels_best();
    double sums[SECTIONS];
#pragma omp parallel for schedule(static) if (n > RUN)
    for (int64_t section = 0; section < SECTIONS; section++) {
        int64_t begin = section * (n / SECTIONS) + smaller(section, n % SECTIONS);
        int64_t count = n / SECTIONS + (section < n % SECTIONS);
        sums[section] = kernels->sum_of_squares(gradient + begin, count);
    }
    double sum = 0.0;
    for (int64_t section = 0; section < SECTIONS; section++) sum += sums[section];
    *norm = sqrt(sum);
    return SP_OK;
}
