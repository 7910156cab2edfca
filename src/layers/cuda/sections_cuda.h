/* Sums that blocks of threads leave behind, added in an order that never changes. */
#ifndef SP_LAYERS_SECTIONS_CUDA_H
#define SP_LAYERS_SECTIONS_CUDA_H

#include <stdint.h>

#include "device/device.h"

/* out (C) += the sum of the rows of sections (n,C). */
SP_MUST_CHECK sp_status sp_cuda_sections_add(sp_device *device, float *out, const float *sections, int64_t n,
                                             int64_t C);

#endif
