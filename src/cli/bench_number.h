/* One number of a tensor of any dtype that attention takes, on the host. */
#ifndef SP_CLI_BENCH_NUMBER_H
#define SP_CLI_BENCH_NUMBER_H

#include <stdint.h>

#include "formats/halves.h"
#include "softpick/tensor.h"

static inline float bench_load(const void *row, sp_dtype dtype, int64_t i) {
    switch (dtype) {
    case SP_DTYPE_BF16: return sp_bf16_to_f32(((const uint16_t *)row)[i]);
    case SP_DTYPE_F16: return sp_f16_to_f32(((const uint16_t *)row)[i]);
    default: return ((const float *)row)[i];
    }
}

static inline void bench_store(void *row, sp_dtype dtype, int64_t i, float value) {
    switch (dtype) {
    case SP_DTYPE_BF16: ((uint16_t *)row)[i] = sp_bf16_from_f32(value); break;
    case SP_DTYPE_F16: ((uint16_t *)row)[i] = sp_f16_from_f32(value); break;
    default: ((float *)row)[i] = value;
    }
}

#endif
