/* Rotary positions (arXiv 2104.09864), half-split: numbers i and i + D/2 of a head are one pair, turned by
 * the angle position * theta^(-2i/D), or what scaling makes of it: linear scaling divides every angle, llama3's rule
 * (transformers' modeling_rope_utils) the slow ones alone. */
#include "layers/layers_cpu.h"

#include <math.h>

#include "layers/row_kernels.h"

/* Angle of pair i from one position to the next.  llama3 counts the turns that it makes within the first training's
 * positions. */
static double step_of(const sp_rope *rope, int64_t i, int64_t D) {
    double step = pow(rope->theta, -2.0 * (double)i / (double)D);
    if (rope->factor <= 0) return step;
    double turns = rope->original_positions * step / (2 * acos(-1)), divided = step / rope->factor;
    if (rope->original_positions <= 0 || turns < rope->low_turns) return divided;
    if (turns > rope->high_turns) return step;
    double kept = (turns - rope->low_turns) / (rope->high_turns - rope->low_turns);
    return (1 - kept) * divided + kept * step;
}

void sp_rope_table(float *table, int64_t n_positions, int64_t D, const sp_rope *rope) {
    int64_t half = D / 2;
#pragma omp parallel for schedule(static)
    for (int64_t position = 0; position < n_positions; position++) {
        float *row = table + position * D;
        for (int64_t i = 0; i < half; i++) {
            double angle = (double)position * step_of(rope, i, D);
            row[i] = (float)cos(angle);
            row[half + i] = (float)sin(angle);
        }
    }
}

sp_status sp_cpu_rope_apply(sp_device *device, void *x, sp_dtype act, int64_t row_stride, const int32_t *positions,
                            const float *table, int64_t N, int64_t n_heads, int64_t D, bool inverse) {
    (void)device;
    const sp_row_kernels *kernels = sp_row_kernels_best();
    int64_t row_bytes = row_stride * sp_dtype_bytes(act);
#pragma omp parallel for schedule(static) if (N > 1)
    for (int64_t n = 0; n < N; n++)
        kernels->rope((char *)x + n * row_bytes, act, table + (int64_t)positions[n] * D, n_heads, D, inverse);
    return SP_OK;
}
