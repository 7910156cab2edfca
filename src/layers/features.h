/* CPU features, until the device module gives them. */
#ifndef SP_LAYERS_FEATURES_H
#define SP_LAYERS_FEATURES_H

#include <stdint.h>

#include "softpick/device.h"

static inline uint32_t sp_layers_features(void) {
    uint32_t bits = 0;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) bits |= SP_CPU_AVX2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        bits |= SP_CPU_AVX512;
    if (__builtin_cpu_supports("avx512bf16")) bits |= SP_CPU_AVX512_BF16;
#endif
    return bits;
}

#endif
